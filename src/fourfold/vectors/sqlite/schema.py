"""The file's format: tables, version, and the connection that has checked both.

`open_connection` returns only connections to a file of this format, made if there was none, in WAL mode. A file of
another application or of a newer Fourfold is refused before anything in it is changed.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from fourfold.errors import ConfigurationError

__all__ = ["APPLICATION_ID", "BUSY_SECONDS", "FORMAT", "open_connection"]

FORMAT = 1  # PRAGMA user_version: raised with every change of the tables
APPLICATION_ID = 0x46465643  # PRAGMA application_id: "FFVC"
BUSY_SECONDS = 30.0  # how long to wait for another process's write; a write of 500 fragments takes far below a second

# A point is never updated: its owner's points are deleted and inserted anew. Ids are never reused (AUTOINCREMENT) and
# writers are serialised, so "id above the last I saw" is what's new to a process that has the others in memory.
# `generation` counts the transactions that changed a collection's points, `points` their number: both are read with one
# row, in the same snapshot as the search itself.
_TABLES = (
    """
    CREATE TABLE collection (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        model TEXT NOT NULL,
        dimension INTEGER NOT NULL,
        payload TEXT NOT NULL,
        generation INTEGER NOT NULL DEFAULT 0,
        points INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE token (
        collection_id INTEGER NOT NULL,
        token INTEGER NOT NULL,
        PRIMARY KEY (collection_id, token)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE owner (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection_id INTEGER NOT NULL,
        hash BLOB NOT NULL,
        table_name TEXT NOT NULL,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        UNIQUE (collection_id, hash)
    )
    """,
    # The payload before the vector, the text last: what a search reads never lies behind an overflow page of the text.
    """
    CREATE TABLE point (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection_id INTEGER NOT NULL,
        owner_id INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        payload TEXT NOT NULL,
        vector BLOB NOT NULL,
        text TEXT,
        UNIQUE (owner_id, ordinal)
    )
    """,
    "CREATE INDEX point_collection ON point (collection_id)",
    # What a payload says, a row per field and member, for filters. `value` has no type: numbers compare as numbers.
    """
    CREATE TABLE term (
        collection_id INTEGER NOT NULL,
        field TEXT NOT NULL,
        value NOT NULL,
        point_id INTEGER NOT NULL,
        PRIMARY KEY (collection_id, field, value, point_id)
    ) WITHOUT ROWID
    """,
)


def open_connection(path: Path, *, synchronous: str, read_only: bool) -> sqlite3.Connection:
    """Open the file, make it if it isn't there, and check its format.

    Args:
        path: The file; its folder must exist.
        synchronous: `FULL`, `EXTRA`, `NORMAL` or `OFF`.
        read_only: Refuse writes on this connection.

    Raises:
        ConfigurationError: Code `vectors.format` for a newer format, `vectors.foreign_file` for another application's.
        sqlite3.Error: Anything else; the caller maps it.
    """
    connection = sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # transactions are begun and ended by us
        check_same_thread=False,  # used by one thread at a time, closed by another
    )
    try:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        if not _is_ours(connection, path):
            _create(connection, path)
        if _pragma(connection, "journal_mode") != "wal":
            _switch_to_wal(connection)
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Tell a file of ours (True) from an empty one (False); refuse any other."""
    application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if application == APPLICATION_ID and version == FORMAT:
        return True
    if application == APPLICATION_ID:
        raise ConfigurationError(
            f"{path} has format {version}, this Fourfold reads format {FORMAT}",
            code="vectors.format",
            hint="Use the Fourfold that wrote it or a newer one, or move the file away and run `fourfold rebuild`",
            path=str(path),
            seen=version,
            expected=FORMAT,
        )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application or version or tables:
        raise ConfigurationError(
            f"{path} is a SQLite file of another application (application_id {application}, {tables} tables)",
            code="vectors.foreign_file",
            hint="Give the vectors a file of their own",
            path=str(path),
        )
    return False


def _create(connection: sqlite3.Connection, path: Path) -> None:
    _switch_to_wal(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ours(connection, path):  # else another process was faster
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # The switch needs the file alone and answers BUSY at once, whatever the busy timeout, while another process that is
    # starting does the same. It happens once in a file's life.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
