"""What `graph.db` is told by, and what its problems are called."""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import Final

from fourfold.embedded import CLOSED, FOREIGN, FORMAT, NO_LOG, REJECTED, FileKind, Outcome
from fourfold.errors import ConfigurationError, IntegrityError, StoreRejectedError, StoreUnavailableError
from fourfold.graph.sqlite_functions import register

__all__ = ["GRAPH_FILE"]

_RIGHT: Final = "Give this user the right to write the file"
_OUTCOMES: Final[dict[int, Outcome]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailableError, "graph.busy", "Another process holds the file's lock; try again"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, "graph.busy", "Another connection holds a table's lock; try again"),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailableError, "graph.busy", "Others compete for the file's lock; try again"),
    sqlite3.SQLITE_SCHEMA: (StoreUnavailableError, "graph.busy", "Another process changed the tables; try again"),
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "graph.full", "Make room on the disk; nothing was half-written"),
    sqlite3.SQLITE_NOLFS: (StoreUnavailableError, "graph.full", "The file system can't hold a larger file"),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "graph.io", "Check the disk and its free space, then try again"),
    sqlite3.SQLITE_NOMEM: (StoreUnavailableError, "graph.memory", "Free memory, or write smaller lots"),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailableError, "graph.interrupted", "The query was stopped; try again"),
    sqlite3.SQLITE_ABORT: (StoreUnavailableError, "graph.interrupted", "The transaction was rolled back; try again"),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailableError,
        "graph.open",
        "Check that the folder exists, is mounted, and that this user may write there",
    ),
    sqlite3.SQLITE_CORRUPT: (
        IntegrityError,
        "graph.corrupt",
        "Stop every process that uses the file, move it away with its -wal and -shm, and run `fourfold rebuild`",
    ),
    sqlite3.SQLITE_NOTADB: (IntegrityError, "graph.corrupt", "It is no graph file: correct the path, or move it away"),
    # Retryable, too: who gives the right back need not run `retry` for every key.
    sqlite3.SQLITE_READONLY: (StoreUnavailableError, "graph.readonly", _RIGHT),
    sqlite3.SQLITE_PERM: (StoreUnavailableError, "graph.readonly", _RIGHT),
    sqlite3.SQLITE_AUTH: (StoreUnavailableError, "graph.readonly", _RIGHT),
    CLOSED: (StoreUnavailableError, "graph.closed", "Use it before close()"),
    FOREIGN: (ConfigurationError, "graph.foreign_file", "Give the graph a file of its own"),
    FORMAT: (
        ConfigurationError,
        "graph.format",
        "Use the Fourfold that wrote it or a newer one, or move the file away and run `fourfold rebuild`",
    ),
    NO_LOG: (ConfigurationError, "graph.open", "Put it on a local disk, not a network share"),
    REJECTED: (StoreRejectedError, "graph.rejected", "This is a defect of Fourfold: please report it"),
}

GRAPH_FILE: Final = FileKind(
    application_id=0x46464752,  # "FFGR"
    version=1,
    schema=resources.files(__package__) / "sqlite_schema.sql",
    outcomes=_OUTCOMES,
    pragmas=(
        "PRAGMA temp_store = MEMORY",
        "PRAGMA cache_size = -65536",  # KiB, a limit; SQLite's 2 MiB make a bulk load read its indexes over and over
        # 32 MiB: owners' hashes and edges' ends are scattered, so a lot of 5,000 dirties thousands of pages.
        "PRAGMA wal_autocheckpoint = 8000",
    ),
    register=register,
)
