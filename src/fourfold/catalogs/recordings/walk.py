"""Finds the audio files of a folder and the cue sheets that belong to them, as a stream.

Nothing is held but the folders on the way down and, of one folder at a time, the names of its cue sheets: a folder of a
million files costs no more than one of ten. Blocking; the importer runs it in a thread, some hundred files at a time.

Symbolic links to folders are followed when everything else is done, sorted, each folder once: a loop ends by itself,
and what can be reached by its own path is always found under that. Fourfold's own data folder is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from fourfold.catalogs.recordings.cue import read_cue
from fourfold.catalogs.recordings.paths import encode_path
from fourfold.catalogs.recordings.report import Problem
from fourfold.errors import NotFoundError, ValidationError

__all__ = ["AUDIO_SUFFIXES", "FileState", "FoundFile", "resolve_folder", "state_of", "walk"]

AUDIO_SUFFIXES: Final = frozenset(
    ".aac .ac3 .aif .aifc .aiff .ape .asf .dff .dsf .flac .m4a .m4b .mp2 .mp3 .mpc .oga .ofr .ogg .opus .spx .tak "  # noqa: SIM905 - words
    ".tta .wav .wave .wma .wv".split()
)
# Not opened to look inside: what stands beside music, and other media whose containers look like audio's.
_OTHER_SUFFIXES: Final = frozenset(
    ".avi .bmp .cue .db .doc .docx .gif .htm .html .ini .jpeg .jpg .json .log .m3u .m3u8 .m4v .md .md5 .mkv .mov .mp4 "  # noqa: SIM905 - words
    ".nfo .ogv .pdf .pls .png .py .rar .rtf .sfv .sqlite .tif .tiff .toml .txt .url .webm .webp .xml .yaml .zip".split()
)


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells cheaply whether a file is still the one that was read: its path, size and time of change."""

    path: str
    size_bytes: int
    mtime_ns: int

    def __str__(self) -> str:
        return f"{self.size_bytes} {self.mtime_ns} {encode_path(self.path)}"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """An audio file, and the cue sheet beside it."""

    state: FileState
    cue: FileState | None = None

    @property
    def path(self) -> str:
        """Its path, as `open` takes it."""
        return self.state.path

    @property
    def name(self) -> str:
        """Its last part."""
        return os.path.basename(self.state.path)  # noqa: PTH119 - a Path object per file buys nothing


def resolve_folder(folder: str | os.PathLike[str]) -> str:
    """Return the folder's real path, so that the same file has one path whatever way the folder was spelled.

    Raises:
        NotFoundError: Code `recordings.no_folder`.
        ValidationError: Code `recordings.folder`: it is a file, or can't be read.
    """
    shown = encode_path(os.fspath(folder))
    try:
        path = os.path.realpath(folder, strict=True)
        with os.scandir(path):
            return path
    except FileNotFoundError as error:
        message = f"there is no folder {shown!r}"
        raise NotFoundError(message, code="recordings.no_folder", hint="Check the path", path=shown) from error
    except OSError as error:
        message = f"the folder {shown!r} can't be read: {error.strerror}"
        hint = "Name a folder that this user may read"
        raise ValidationError(message, code="recordings.folder", hint=hint, path=shown) from error


def state_of(path: str) -> FileState:
    """Return the state of a file now.

    Raises:
        OSError: It isn't there, or can't be looked at.
    """
    found = os.stat(path)  # noqa: PTH116 - as in FoundFile.name
    return FileState(path, found.st_size, found.st_mtime_ns)


def walk(folder: str, *, passed_over: Collection[str] = ()) -> Iterator[FoundFile | Problem]:
    """Yield the audio files below a folder, and what could not be looked at.

    Args:
        folder: As `resolve_folder` returns it.
        passed_over: Folders that aren't entered.
    """
    seen = {identity for path in passed_over if (identity := _identity(path)) is not None}
    links: list[str] = []
    yield from _walk_tree(folder, seen, links)
    while links:  # links found behind links come last
        later = sorted(links)
        links.clear()
        for link in later:
            yield from _walk_tree(link, seen, links)


def _walk_tree(folder: str, seen: set[tuple[int, int]], links: list[str]) -> Iterator[FoundFile | Problem]:
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        identity = _identity(path)
        if identity is not None and identity in seen:
            continue
        if identity is not None:
            seen.add(identity)
        try:
            yield from _walk_folder(path, waiting, links)
        except OSError as error:
            yield Problem.of_os_error(path, error)


def _walk_folder(folder: str, waiting: list[str], links: list[str]) -> Iterator[FoundFile | Problem]:
    sheets = _Sheets(folder)
    yield from sheets.problems
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_symlink() and entry.is_dir():
                    links.append(entry.path)
                elif _is_audio(entry):
                    found = entry.stat()
                    state = FileState(entry.path, found.st_size, found.st_mtime_ns)
                    yield FoundFile(state, sheets.find(entry.name))
            except OSError as error:
                yield Problem.of_os_error(entry.path, error)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - as in FoundFile.name
    except OSError:
        return None  # entering it will say what is wrong
    return found.st_dev, found.st_ino


def _is_audio(entry: os.DirEntry[str]) -> bool:
    suffix = PurePath(entry.name).suffix.lower()
    if entry.name.startswith("._") or suffix in _OTHER_SUFFIXES:  # `._x.mp3` is what macOS leaves on other disks
        return False
    if suffix in AUDIO_SUFFIXES:  # a broken link is told, a pipe is never opened
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110 - as in FoundFile.name
    return entry.is_file() and _begins_like_audio(entry.path)


def _begins_like_audio(path: str) -> bool:
    with open(path, "rb") as stream:  # noqa: PTH123 - as in FoundFile.name
        head = stream.read(12)
    return (
        head.startswith((b"fLaC", b"OggS", b"ID3"))
        or (head[:4] == b"RIFF" and head[8:] == b"WAVE")
        or (head[:4] == b"FORM" and head[8:] in {b"AIFF", b"AIFC"})
        or (head[4:8] == b"ftyp" and head[8:11] in {b"M4A", b"M4B"})
    )


class _Sheets:
    """The cue sheets of one folder: by their own stem, and those without a partner by what their FILE lines name."""

    def __init__(self, folder: str) -> None:
        self.problems: list[Problem] = []
        self._by_stem: dict[str, str] = {}
        self._by_file: dict[str, str] = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                name = PurePath(entry.name)
                if name.suffix.lower() == ".cue" and not entry.name.startswith("._") and entry.is_file():
                    self._by_stem[name.stem] = entry.path
        if self._by_stem:
            self._read_lonely(folder)

    def _read_lonely(self, folder: str) -> None:
        lonely = dict(self._by_stem)
        with os.scandir(folder) as entries:
            for entry in entries:
                name = PurePath(entry.name)
                if name.suffix.lower() in AUDIO_SUFFIXES:
                    lonely.pop(name.stem, None)
        for path in sorted(lonely.values()):
            try:
                files = read_cue(path).files
            except OSError as error:
                self.problems.append(Problem.of_os_error(path, error))
            except ValidationError as error:
                self.problems.append(Problem(encode_path(path), error))
            else:
                for file in files:
                    name = PurePath(file.name.replace("\\", "/"))
                    self._by_file.setdefault(name.name.casefold(), path)
                    self._by_file.setdefault(name.stem.casefold(), path)

    def find(self, name: str) -> FileState | None:
        """Return the sheet of an audio file: of the same stem, else one that names it, or its stem."""
        audio = PurePath(name)
        path = (
            self._by_stem.get(audio.stem)
            or self._by_file.get(audio.name.casefold())
            or self._by_file.get(audio.stem.casefold())
        )
        return None if path is None else state_of(path)
