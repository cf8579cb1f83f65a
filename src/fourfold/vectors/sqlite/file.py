"""What `vectors.db` is told by, and what its problems are called."""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import Final

from fourfold.embedded import CLOSED, FOREIGN, FORMAT, NO_LOG, REJECTED, FileKind, Outcome
from fourfold.errors import ConfigurationError, IntegrityError, StoreRejectedError, StoreUnavailableError

__all__ = ["VECTORS_FILE"]

_REBUILD: Final = (
    "Stop every process that uses the file, move it away with its -wal and -shm, and run `fourfold rebuild`"
)
_RIGHT: Final = "Give this user the right to write the file"
_ROOM: Final = "Make room on the disk; the next try goes on where this one stopped"
_LOCK: Final = "Another process holds the write lock for too long: look for a stopped one"
_OUTCOMES: Final[dict[int, Outcome]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailableError, "vectors.busy", _LOCK),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, "vectors.busy", "Try again"),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailableError, "vectors.busy", "Try again"),
    sqlite3.SQLITE_SCHEMA: (StoreUnavailableError, "vectors.busy", "Another process changed the tables; try again"),
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "vectors.full", _ROOM),
    sqlite3.SQLITE_NOLFS: (StoreUnavailableError, "vectors.full", "The file system can't hold a larger file"),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "vectors.io", "Check the disk and that the folder is mounted"),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailableError,
        "vectors.io",
        "Check that the folder exists, is mounted, and that this user may write there",
    ),
    sqlite3.SQLITE_NOMEM: (StoreUnavailableError, "vectors.memory", "Give the process more memory"),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailableError, "vectors.interrupted", "Try again"),
    sqlite3.SQLITE_ABORT: (StoreUnavailableError, "vectors.interrupted", "The transaction was rolled back; try again"),
    sqlite3.SQLITE_CORRUPT: (IntegrityError, "vectors.corrupt", _REBUILD),
    sqlite3.SQLITE_NOTADB: (IntegrityError, "vectors.corrupt", _REBUILD),
    # Retryable, too: who gives the right back need not run `retry` for every key.
    sqlite3.SQLITE_READONLY: (StoreUnavailableError, "vectors.read_only", _RIGHT),
    sqlite3.SQLITE_PERM: (StoreUnavailableError, "vectors.read_only", _RIGHT),
    sqlite3.SQLITE_AUTH: (StoreUnavailableError, "vectors.read_only", _RIGHT),
    # Retryable: a worker that meets it is on its way out, and no key is to blame.
    CLOSED: (StoreUnavailableError, "vectors.closed", "Open a new one"),
    FOREIGN: (ConfigurationError, "vectors.foreign_file", "Give the vectors a file of their own"),
    FORMAT: (
        ConfigurationError,
        "vectors.format",
        "Use the Fourfold that wrote it or a newer one, or move the file away and run `fourfold rebuild`",
    ),
    NO_LOG: (ConfigurationError, "vectors.io", "Put it on a local disk, not a network share"),
    REJECTED: (StoreRejectedError, "vectors.rejected", "This is a defect of Fourfold: please report it"),
}

VECTORS_FILE: Final = FileKind(
    application_id=0x46465643,  # "FFVC"
    version=1,
    schema=resources.files(__package__) / "schema.sql",
    outcomes=_OUTCOMES,
)
