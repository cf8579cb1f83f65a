"""What an ingest says: while it runs, and in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from fourfold.catalogs.recordings.paths import encode_path
from fourfold.errors import FourfoldError, ValidationError

__all__ = ["Duplicate", "IngestProgress", "IngestReport", "Outcome", "Problem", "Progress"]

Outcome = Literal["added", "updated", "moved", "unchanged", "duplicate", "problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A file, sheet or folder that could not be taken, and why. `path` is text of `paths.encode_path`."""

    path: str
    error: FourfoldError

    @classmethod
    def of_os_error(cls, path: str, error: OSError) -> Problem:
        """Return the problem that an operating system's error means."""
        message = f"it can't be read: {error.strerror or type(error).__name__}"
        code, hint = "recordings.unreadable", "Check the disk and the rights, then run again"
        return cls(encode_path(path), ValidationError(message, code=code, hint=hint, errno=error.errno))


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A file whose bytes are another recording's: kept as its metadata `duplicate_path`, without a row of its own."""

    path: str
    recording_id: UUID
    recording_path: str


@dataclass(slots=True)
class IngestReport:
    """What an ingest did.

    Args:
        folder: Its real path.
        added: Files that became recordings.
        updated: Recordings whose file, tags or cue sheet changed.
        moved: Recordings whose file was found at another place and no longer at the old one.
        unchanged: Files, duplicates included, that were left alone after a look at size and time.
        duplicates: Files that were found to have another recording's bytes.
        problems: What could not be taken; everything else was.
        missing: Paths of recordings below the folder whose file isn't there any more; nothing was removed.
        bytes_stored: Bytes that went into the object store.
        stopped: It was asked to stop; the next run goes on.
    """

    folder: str
    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    duplicates: list[Duplicate] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    bytes_stored: int = 0
    stopped: bool = False

    @property
    def files(self) -> int:
        """Audio files that were looked at, without problems."""
        return self.added + self.updated + self.moved + self.unchanged + len(self.duplicates)


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """One file was dealt with; `report` is the one that grows, not a copy."""

    path: str
    outcome: Outcome
    report: IngestReport


Progress = Callable[[IngestProgress], None]
