"""What a command says, and where: results on standard output, progress and errors on standard error.

With `--json` standard output holds one JSON document (commands that run until they are stopped: one per line) and
nothing else, errors included. Without it, aligned text. `--quiet` leaves errors only; a `--json` document is still
written.

What comes from outside (a file's name, a driver's words) can neither move the cursor nor end a command: characters that
aren't printable, or that the stream's encoding doesn't have, are written as escapes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TextIO

__all__ = ["Output", "aligned", "as_json", "duration", "size", "visible"]

_TERMINAL_SECONDS: Final = 0.1  # between two states of a progress line that overwrites itself
_LOG_SECONDS: Final = 5.0  # between two progress lines in a log
_MINUTE: Final = 60
_HOUR: Final = 3600


class Output:
    """One command's standard output and standard error.

    Args:
        json_wanted: Write JSON documents instead of text.
        quiet: Write no text but errors.
        out: Default is standard output.
        err: Default is standard error.
    """

    def __init__(
        self, *, json_wanted: bool = False, quiet: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.json_wanted = json_wanted
        self.quiet = quiet
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._progress_at = 0.0
        self._progress_width = 0

    def line(self, text: str = "") -> None:
        """A line for people."""
        self.end_progress()
        if not self.json_wanted and not self.quiet:
            _write(text, self._out)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[object]], *, indent: str = "") -> None:
        """An aligned table for people; numbers to the right. Nothing when there are no rows."""
        for text in aligned(headings, rows):
            self.line(indent + text)

    def document(self, document: Mapping[str, Any]) -> None:
        """What programs get: one JSON document on one line."""
        self.end_progress()
        if self.json_wanted:
            _write_json(document, self._out)

    def note(self, text: str) -> None:
        """A line on standard error, for people: what goes on, not what came out."""
        self.end_progress()
        if not self.json_wanted and not self.quiet:
            _write(text, self._err)

    def problem(self, text: str) -> None:
        """A line on standard error that `--quiet` doesn't hide."""
        self.end_progress()
        _write(text, self._err)

    def progress(self, step: str, done: int, total: int = 0) -> None:
        """How far it is: on a terminal a line that overwrites itself, else a line every few seconds."""
        if self.quiet:
            return
        terminal = self._err.isatty() and not self.json_wanted
        now = time.monotonic()
        if now < self._progress_at + (_TERMINAL_SECONDS if terminal else _LOG_SECONDS):
            return
        if not terminal and not self._progress_at:
            self._progress_at = now  # a log hears of what takes long only
            return
        self._progress_at = now
        if self.json_wanted:
            _write_json({"progress": {"step": step, "done": done, "total": total}}, self._err)
            return
        text = f"{visible(step)}: " + (f"{done:,} of {total:,}" if total else f"{done:,}")
        if terminal:
            # One that is wider than the terminal would go on in the next line, which `\r` doesn't wipe.
            text = _shortened(text, shutil.get_terminal_size().columns - 1)
            print(f"\r{_shown(text, self._err).ljust(self._progress_width)}", end="", file=self._err, flush=True)
            self._progress_width = len(text)
        else:
            _write(text, self._err)

    def end_progress(self) -> None:
        """Wipe the progress line, so that what follows stands alone."""
        if self._progress_width:
            print(f"\r{' ' * self._progress_width}\r", end="", file=self._err, flush=True)
            self._progress_width = 0


def _write(text: str, stream: TextIO) -> None:
    print(_shown(text, stream), file=stream, flush=True)


def _shown(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    lines = "\n".join(visible(line) for line in text.split("\n"))
    return lines.encode(encoding, "backslashreplace").decode(encoding)


def _write_json(document: Mapping[str, Any], stream: TextIO) -> None:
    text = json.dumps(as_json(document), ensure_ascii=False)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:  # also a file name's bytes that are no UTF-8: JSON has an escape for all of them
        text = json.dumps(as_json(document))
    print(text, file=stream, flush=True)


def visible(text: str) -> str:
    r"""Text in one line, without anything that a terminal would act upon.

    Example:
        >>> import os
        >>> print(visible("evil\n\x1b[2Jname"), visible(os.fsdecode(b"caf\xe9.mp3")))
        evil\n\x1b[2Jname caf\xe9.mp3
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how os.fsdecode shows a byte that isn't UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _shortened(text: str, width: int) -> str:
    """The ends of a text that is too wide: what is done, and how much."""
    if len(text) <= width:
        return text
    head = max(width // 2 - 1, 0)
    return f"{text[:head]}…{text[len(text) - max(width - head - 1, 0) :]}"


def aligned(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table; empty without rows.

    Example:
        >>> for text in aligned(("target", "keys"), [("files", 0), ("graph", 12000)]):
        ...     print(text)
        target    keys
        files        0
        graph   12,000
    """
    listed = [tuple(row) for row in rows]
    if not listed:
        return []
    texts = [tuple(headings), *(tuple(_cell(value) for value in row) for row in listed)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(headings))]
    right = [all(_is_number(row[column]) for row in listed) for column in range(len(headings))]
    return [
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in texts
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return visible(str(value))


def as_json(value: Any) -> Any:  # noqa: PLR0911 - one line per kind of value
    """Turn dataclasses, sets, paths, bytes, enums and the like into what `json` writes.

    Example:
        >>> as_json({"a": {2, 1}, "b": b"x"})
        {'a': [1, 2], 'b': '78'}
    """
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_json_key(key): as_json(member) for key, member in value.items()}
    if isinstance(value, set | frozenset):
        return [as_json(member) for member in sorted(value)]
    if isinstance(value, Iterable):
        return [as_json(member) for member in value]
    return str(value)


def _json_key(key: object) -> str:
    return ":".join(str(part) for part in key) if isinstance(key, tuple) else str(key)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> [duration(seconds) for seconds in (0, 0.25, 75, 7300)]
        ['0 s', '0.2 s', '1 min 15 s', '2 h 1 min']
    """
    if seconds < _MINUTE:
        return "0 s" if seconds <= 0 else f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def size(size_bytes: float) -> str:
    """Bytes as people say them, in powers of 1024.

    Example:
        >>> [size(number) for number in (0, 1023, 1536, 3 * 1024**3)]
        ['0 B', '1023 B', '1.5 KiB', '3.0 GiB']
    """
    step = 1024
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < step:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= step
    return f"{size_bytes:.1f} TiB"
