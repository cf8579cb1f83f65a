"""Cue sheets: `.cue` text → `CueSheet` → text, without loss, and from and to the tracks of a tracklist.

Lenient in what doesn't matter (case, indentation, line ends, unknown commands, which are kept), strict where a mistake
would end in wrong data: times, their order, a track without a start. Every refusal names the line and shows it.

Why no library. Looked at on PyPI in November 2026: `cuetools` 1.1 refuses `FILE "x.mp3" MP3`, a byte order mark and
commands that it doesn't know; `CueParser` 1.3 ends silently at the first empty line, takes commands in one order only
and any time; `deflacue` 2 reads only, for splitting files. None guesses an encoding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from fourfold.catalogs.recordings.cue_text import SIZE_LIMIT_BYTES, decode_cue
from fourfold.catalogs.recordings.tracks import Track, format_start_time, parse_start_time, validate_tracks
from fourfold.errors import ValidationError

__all__ = ["CueFile", "CueIndex", "CueSheet", "CueTrack", "cue_from_tracks", "format_cue", "parse_cue", "read_cue"]

FRAMES_PER_SECOND: Final = 75  # sectors of an audio CD, the unit of INDEX
_LIMIT_SECONDS: Final = 100 * 3600  # HH:MM:SS has two digits for the hours
_TIME: Final = re.compile(r"([0-9]{1,5}):([0-9]{1,2}):([0-9]{1,2})")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")  # not str.splitlines: U+2028 and the like may stand in a title
_KIND_OF_SUFFIX: Final = {
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".aifc": "AIFF",
}  # all others are WAVE by custom


@dataclass(frozen=True, slots=True)
class CueIndex:
    """An `INDEX` line: its number, and its position in the file in frames of 1/75 s."""

    number: int
    frames: int


@dataclass(frozen=True, slots=True)
class CueTrack:
    """A track; `commands` are its other lines (REM, ISRC, FLAGS, PREGAP …) as they stand there."""

    number: int
    indexes: tuple[CueIndex, ...]
    title: str = ""
    performer: str = ""
    kind: str = "AUDIO"
    commands: tuple[str, ...] = ()

    @property
    def start_frames(self) -> int:
        """Where the track begins: INDEX 01, or the first one where there is no 01."""
        return next((index.frames for index in self.indexes if index.number == 1), self.indexes[0].frames)


@dataclass(frozen=True, slots=True)
class CueFile:
    """A `FILE` line and the tracks that begin in that file."""

    name: str
    kind: str = "WAVE"
    tracks: tuple[CueTrack, ...] = ()


@dataclass(frozen=True, slots=True)
class CueSheet:
    """A cue sheet; `commands` are its other lines above the first track."""

    files: tuple[CueFile, ...]
    title: str = ""
    performer: str = ""
    commands: tuple[str, ...] = ()

    def file_for(self, name: str) -> CueFile | None:
        """Return the `FILE` that means the file `name`: by name, else by stem, else the only one there is.

        A sheet often names the `.wav` that was encoded later. With several files and none that fits, None.
        """
        wanted = PurePath(name)
        names = [PurePath(file.name.replace("\\", "/")) for file in self.files]
        for file, path in zip(self.files, names, strict=True):
            if path.name.casefold() == wanted.name.casefold():
                return file
        stems = [
            file for file, path in zip(self.files, names, strict=True) if path.stem.casefold() == wanted.stem.casefold()
        ]
        if len(stems) == 1:
            return stems[0]
        return self.files[0] if len(self.files) == 1 else None

    def tracks_of(self, file: CueFile) -> list[Track]:
        """Return the tracks of one `FILE` as the tracks of a tracklist; frames are dropped.

        A track without a performer has the sheet's. One without a title is named by its number and the sheet, so that
        untitled tracks of two recordings aren't taken for the same.

        Raises:
            ValidationError: Code `recordings.tracks`, where a name is too long.
        """
        whole = self.title or PurePath(file.name).stem
        tracks = [
            Track(
                title=track.title or f"Track {track.number:02d} of {whole}",
                artist=track.performer or self.performer,
                start_time=format_start_time(track.start_frames // FRAMES_PER_SECOND),
            )
            for track in file.tracks
        ]
        return validate_tracks(tracks) or []


def read_cue(path: str | Path, *, encoding: str | None = None) -> CueSheet:
    """Read and parse a `.cue` file.

    Args:
        path: The file.
        encoding: A codec's name where it is known; None guesses (see `cue_text`).

    Raises:
        OSError: The file can't be read.
        ValidationError: Codes `recordings.cue` (with `line` and `text`) and `recordings.cue_text`.
    """
    with Path(path).open("rb") as stream:
        data = stream.read(SIZE_LIMIT_BYTES + 1)  # one more than allowed, so that decode_cue sees that it is too large
    return parse_cue(decode_cue(data, encoding))


def parse_cue(text: str) -> CueSheet:
    r"""Parse the text of a cue sheet.

    Raises:
        ValidationError: Code `recordings.cue`; `line` is the number of the line, `text` its content.

    Example:
        >>> sheet = parse_cue('TITLE "Set"\nFILE "set.mp3" MP3\nTRACK 01 AUDIO\nTITLE "One"\nINDEX 01 61:30:00')
        >>> sheet.tracks_of(sheet.files[0])
        [{'title': 'One', 'artist': '', 'start_time': '61:30'}]
    """
    parser = _Parser()
    for number, line in enumerate(_LINE_END.split(text), start=1):
        parser.take(number, line.strip())
    return parser.finish()


@dataclass(slots=True)
class _Open:
    """The sheet, or the track, whose lines come now."""

    title: str = ""
    performer: str = ""
    commands: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _OpenTrack(_Open):
    """A track, with the lines that an error about it shows."""

    line: int = 0
    text: str = ""
    number: int = 0
    kind: str = "AUDIO"
    indexes: list[CueIndex] = field(default_factory=list)


class _Parser:
    """One pass over the lines."""

    def __init__(self) -> None:
        self._sheet = _Open()
        self._files: list[tuple[str, str, list[CueTrack]]] = []
        self._track: _OpenTrack | None = None

    def take(self, line: int, text: str) -> None:
        command, rest = _first_word(text)
        name = command.upper()
        if name == "TITLE":
            self._current.title = _unquote(rest)
        elif name == "PERFORMER":
            self._current.performer = _unquote(rest)
        elif name == "FILE":
            self._take_file(line, text, rest)
        elif name == "TRACK":
            self._take_track(line, text, rest)
        elif name == "INDEX":
            self._take_index(line, text, rest)
        elif text:
            self._current.commands.append(text)

    def finish(self) -> CueSheet:
        self._close_track()
        if not any(tracks for _, _, tracks in self._files):
            raise _refusal(None, "", "no FILE with a TRACK and an INDEX: not a cue sheet, or an empty one")
        files = tuple(CueFile(name, kind, tuple(tracks)) for name, kind, tracks in self._files)
        return CueSheet(files, self._sheet.title, self._sheet.performer, tuple(self._sheet.commands))

    @property
    def _current(self) -> _Open:
        return self._track or self._sheet

    def _take_file(self, line: int, text: str, rest: str) -> None:
        name, kind = _split_file(rest)
        if not name:
            raise _refusal(line, text, 'expected FILE "name" TYPE')
        if self._track and all(index.number == 0 for index in self._track.indexes):
            # Rippers that leave the gap at the end of the earlier file write TRACK and INDEX 00 above this line: the
            # track begins in this file, and the gap is no part of it.
            self._track.indexes.clear()
        else:
            self._close_track()
        self._files.append((name, kind, []))

    def _take_track(self, line: int, text: str, rest: str) -> None:
        self._close_track()
        number, kind = _first_word(rest)
        if not self._files:
            raise _refusal(line, text, "TRACK before any FILE")
        if re.fullmatch("[0-9]{1,4}", number) is None:
            raise _refusal(line, text, "expected TRACK number TYPE")
        self._track = _OpenTrack(line=line, text=text, number=int(number), kind=kind or "AUDIO")

    def _take_index(self, line: int, text: str, rest: str) -> None:
        if self._track is None:
            raise _refusal(line, text, "INDEX before any TRACK")
        number, time = _first_word(rest)
        if re.fullmatch("[0-9]{1,2}", number) is None:
            raise _refusal(line, text, "expected INDEX number mm:ss:ff")
        self._track.indexes.append(CueIndex(int(number), _parse_time(line, text, time)))

    def _close_track(self) -> None:
        if self._track is None:
            return
        opened, self._track = self._track, None
        if not opened.indexes:
            raise _refusal(opened.line, opened.text, f"track {opened.number} has no INDEX, so no start")
        track = CueTrack(
            opened.number, tuple(opened.indexes), opened.title, opened.performer, opened.kind, tuple(opened.commands)
        )
        tracks = self._files[-1][2]
        if tracks and track.start_frames < tracks[-1].start_frames:
            times = (
                f"{_format_time(track.start_frames)}, before {_format_time(tracks[-1].start_frames)} of the one above"
            )
            raise _refusal(opened.line, opened.text, f"track {opened.number} starts at {times}")
        tracks.append(track)


def _first_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(maxsplit=1) or [""]
    return word, rest[0] if rest else ""


def _parse_time(line: int, text: str, time: str) -> int:
    match = _TIME.fullmatch(time)
    if match is None:
        raise _refusal(line, text, f"{time!r:.40} is no time; expected mm:ss:ff")
    minutes, seconds, frames = (int(part) for part in match.groups())
    if seconds >= 60 or frames >= FRAMES_PER_SECOND:  # noqa: PLR2004 - seconds of a minute
        raise _refusal(
            line, text, f"{time!r} is no time; expected seconds below 60 and frames below {FRAMES_PER_SECOND}"
        )
    total_seconds = minutes * 60 + seconds
    if total_seconds >= _LIMIT_SECONDS:
        raise _refusal(line, text, f"{time!r} is beyond 99 hours")
    return total_seconds * FRAMES_PER_SECOND + frames


def _format_time(frames: int) -> str:
    seconds, rest = divmod(frames, FRAMES_PER_SECOND)
    return f"{seconds // 60:02d}:{seconds % 60:02d}:{rest:02d}"


def _unquote(rest: str) -> str:
    # The format has no escape: a quote inside a title stands there as it is, so the value ends at the line's last one.
    if not rest.startswith('"'):
        return rest
    end = rest.rfind('"')
    return rest[1 : end if end > 0 else None].strip()


def _split_file(rest: str) -> tuple[str, str]:
    if rest.startswith('"') and rest.rfind('"') > 0:
        return _unquote(rest), rest[rest.rfind('"') + 1 :].strip() or "WAVE"
    name, _, kind = rest.rpartition(" ")
    return (name.strip(), kind) if name else (rest.strip('"'), "WAVE")


def _refusal(line: int | None, text: str, problem: str) -> ValidationError:
    message = f"cue sheet: {problem}" if line is None else f"cue sheet, line {line}, {text!r:.120}: {problem}"
    return ValidationError(message, code="recordings.cue", hint="Correct the sheet", line=line, text=text)


def format_cue(sheet: CueSheet) -> str:
    """Return the text of a cue sheet, which `parse_cue` reads back to an equal one.

    Line breaks inside a name become spaces, spaces around a name go: a line can't say them.

    Example:
        >>> track = CueTrack(1, (CueIndex(1, 0),), "Low Tide")
        >>> print(format_cue(CueSheet((CueFile("set.mp3", "MP3", (track,)),), "Dawn")), end="")
        TITLE "Dawn"
        FILE "set.mp3" MP3
          TRACK 01 AUDIO
            TITLE "Low Tide"
            INDEX 01 00:00:00
    """
    lines = [*map(_one_line, sheet.commands), *_name_lines(sheet.performer, sheet.title)]
    for file in sheet.files:
        lines.append(f'FILE "{_one_line(file.name)}" {file.kind}')
        for track in file.tracks:
            lines.append(f"  TRACK {track.number:02d} {track.kind}")
            inner = [*_name_lines(track.performer, track.title), *map(_one_line, track.commands)]
            inner += [f"INDEX {index.number:02d} {_format_time(index.frames)}" for index in track.indexes]
            lines += [f"    {line}" for line in inner]
    return "".join(f"{line}\n" for line in lines)


def _name_lines(performer: str, title: str) -> list[str]:
    names = (("PERFORMER", _one_line(performer)), ("TITLE", _one_line(title)))
    return [f'{command} "{value}"' for command, value in names if value]


def _one_line(text: str) -> str:
    return _LINE_END.sub(" ", text).strip()


def cue_from_tracks(
    tracks: Sequence[Track], *, file_name: str, title: str = "", performer: str = "", commands: Sequence[str] = ()
) -> CueSheet:
    """Return the cue sheet of a tracklist.

    Args:
        tracks: In playing order, as `tracklists.tracks`.
        file_name: The audio file's name; its suffix decides the file's type in the sheet.
        title: Of the recording.
        performer: Of the recording.
        commands: Further lines at the top, for example `REM GENRE Techno`.

    Raises:
        ValidationError: Code `recordings.tracks`.

    Example:
        >>> tracks = [{"title": "Dawn", "artist": "Mira", "start_time": "01:15:30"}]
        >>> cue_from_tracks(tracks, file_name="set.mp3").files[0].tracks[0].indexes
        (CueIndex(number=1, frames=339750),)
    """
    checked = validate_tracks(tracks) or []
    kind = _KIND_OF_SUFFIX.get(PurePath(file_name).suffix.lower(), "WAVE")
    cue_tracks = tuple(
        CueTrack(number, (CueIndex(1, parse_start_time(track["start_time"]) * FRAMES_PER_SECOND),), *_names(track))
        for number, track in enumerate(checked, start=1)
    )
    return CueSheet((CueFile(file_name, kind, cue_tracks),), title, performer, tuple(commands))


def _names(track: Track) -> tuple[str, str]:
    return track["title"], track["artist"]
