"""The border to `sqlite3`: what it raises becomes an error of ours, by result code, never by its text."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fourfold.errors import FourfoldError, IntegrityError, StoreRejectedError, StoreUnavailableError

__all__ = ["map_error", "mapped_errors"]

_REBUILD = "Stop every process that uses the file, move it away with its -wal and -shm, and run `fourfold rebuild`"
_ROOM = "Make room on the disk; the next try goes on where this one stopped"

# Primary result codes (sqlite.org/rescode.html); an extended code keeps its primary one in the lowest byte.
_PRIMARY = 0xFF
_KINDS: dict[int, tuple[type[FourfoldError], str, str]] = {
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "vectors.full", _ROOM),
    sqlite3.SQLITE_BUSY: (
        StoreUnavailableError,
        "vectors.busy",
        "Another process holds the write lock for too long: look for a stopped one",
    ),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, "vectors.busy", "Try again"),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "vectors.io", "Check the disk and that the folder is mounted"),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailableError,
        "vectors.io",
        "Check that the folder exists and that this user may write there",
    ),
    sqlite3.SQLITE_NOMEM: (StoreUnavailableError, "vectors.memory", "Give the process more memory"),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailableError, "vectors.interrupted", "Try again"),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailableError, "vectors.busy", "Try again"),
    sqlite3.SQLITE_CORRUPT: (IntegrityError, "vectors.corrupt", _REBUILD),
    sqlite3.SQLITE_NOTADB: (IntegrityError, "vectors.corrupt", _REBUILD),
    sqlite3.SQLITE_READONLY: (StoreRejectedError, "vectors.read_only", "Give this user the right to write the file"),
    sqlite3.SQLITE_PERM: (StoreRejectedError, "vectors.read_only", "Give this user the right to write the file"),
    sqlite3.SQLITE_AUTH: (StoreRejectedError, "vectors.read_only", "Give this user the right to write the file"),
}


_REJECTED: tuple[type[FourfoldError], str, str] = (
    StoreRejectedError,
    "vectors.rejected",
    "This is a defect of Fourfold: please report it",
)


def map_error(error: sqlite3.Error, path: Path) -> FourfoldError:
    """Return what to raise instead of a driver's error.

    Args:
        error: What `sqlite3` raised; one without a result code comes from the module itself (misuse).
        path: The file, for the message.

    Example:
        >>> full = sqlite3.OperationalError()
        >>> full.sqlite_errorcode = sqlite3.SQLITE_FULL
        >>> map_error(full, Path("vectors.db")).code
        'vectors.full'
    """
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    kind, ours, hint = _REJECTED if code is None else _KINDS.get(code & _PRIMARY, _REJECTED)
    return kind(f"{path}: SQLite refused with {name}", code=ours, hint=hint, path=str(path), sqlite_name=name)


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Map what `sqlite3` raises inside.

    Raises:
        StoreUnavailableError: The outcome is unknown: disk full, locked too long, input or output failed.
        StoreRejectedError: The file can't be written, or the statement was wrong.
        IntegrityError: The file is damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise map_error(error, path) from error
