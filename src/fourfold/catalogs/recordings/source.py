"""Reads what the importer needs of one file: its hash, tags, and the tracks of its cue sheet. Blocking."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from fourfold.catalogs.recordings.cue import read_cue
from fourfold.catalogs.recordings.paths import encode_path
from fourfold.catalogs.recordings.report import Problem
from fourfold.catalogs.recordings.tags import AudioTags, read_tags
from fourfold.catalogs.recordings.tracks import Track
from fourfold.catalogs.recordings.walk import FileState, FoundFile, state_of
from fourfold.errors import ValidationError

__all__ = ["CueTracks", "SourceFile", "read_source", "read_tracks"]

CUE_SOURCE: Final = "cue"  # `tracklists.source` of what the importer wrote; it leaves other tracklists alone


@dataclass(frozen=True, slots=True)
class CueTracks:
    """The tracks of a file by its cue sheet."""

    state: FileState
    tracks: list[Track]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One audio file as it was read."""

    found: FoundFile
    sha256: str
    tags: AudioTags
    cue: CueTracks | None

    @property
    def path_text(self) -> str:
        """Its path as it stands in rows."""
        return encode_path(self.found.path)

    @property
    def name_text(self) -> str:
        """Its name as it stands in rows."""
        return encode_path(self.found.name)


def read_source(found: FoundFile, cue: CueTracks | None) -> SourceFile:
    """Read a file: tags first, so that a broken one of some gigabytes isn't hashed.

    Raises:
        OSError: It can't be read.
        ValidationError: See `read_tags`; code `recordings.changing`: it was written to meanwhile.
    """
    tags = read_tags(found.path)
    with open(found.path, "rb") as stream:  # noqa: PTH123 - the path may not be valid Unicode; no Path needed
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if state_of(found.path) != found.state:
        message = f"{encode_path(found.path)!r} was changed while it was read"
        raise ValidationError(message, code="recordings.changing", hint="Run again when it is complete")
    return SourceFile(found, sha256, tags, cue)


def read_tracks(found: FoundFile) -> CueTracks | Problem | None:
    """Read the cue sheet beside a file; None where there is none, a problem where it can't be used."""
    if found.cue is None:
        return None
    path = encode_path(found.cue.path)
    try:
        sheet = read_cue(found.cue.path)
        file = sheet.file_for(found.name)
        if file is None:
            names = ", ".join(repr(file.name) for file in sheet.files)[:200]
            message = f"cue sheet {path!r} names {names}, and not {encode_path(found.name)!r}"
            return Problem(path, ValidationError(message, code="recordings.cue_file", hint="Correct its FILE lines"))
        return CueTracks(found.cue, sheet.tracks_of(file))
    except OSError as error:
        return Problem.of_os_error(found.cue.path, error)
    except ValidationError as error:
        return Problem(path, error)
