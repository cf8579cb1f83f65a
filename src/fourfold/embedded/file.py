"""A file's format: tables, version, and the connection that has checked both.

`open_file` returns only connections to a file of its kind, made if there was none, in WAL mode. A file of another
application or of another format is refused before anything in it is changed.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fourfold.embedded.errors import FOREIGN, FORMAT, NO_LOG, Outcome, make_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

__all__ = ["BUSY_SECONDS", "SYNCHRONOUS", "FileKind", "open_file"]

BUSY_SECONDS = 30.0  # a bulk write of another process holds the lock for a second or two; thirty means it hangs
SYNCHRONOUS: Final = ("FULL", "EXTRA", "NORMAL", "OFF")  # FULL: on disk at the commit; NORMAL: at the next checkpoint
_STATEMENTS: Final = 256  # prepared statements kept per connection: every shape of a query is one
_LONGEST_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class FileKind:
    """What one kind of file is told by, and what its connections need.

    Attributes:
        application_id: What `file` and we know the format by (`PRAGMA application_id`).
        version: Of the tables, raised with every change of them (`PRAGMA user_version`).
        schema: SQL of the tables, each statement ended by a semicolon at the end of its line.
        outcomes: Class, code and hint of each problem: SQLite's primary result codes, and all of `embedded.errors`.
        pragmas: Statements for each connection, beside those that all have.
        register: Makes functions known to a connection.
    """

    application_id: int
    version: int
    schema: Traversable
    outcomes: Mapping[int, Outcome]
    pragmas: tuple[str, ...] = ()
    register: Callable[[sqlite3.Connection], None] = lambda _: None


def open_file(path: Path, kind: FileKind, *, synchronous: str, read_only: bool) -> sqlite3.Connection:
    """Open a file, make it if it isn't there, and check that it is of this kind.

    Args:
        path: The file; its folder must exist.
        kind: What is expected there.
        synchronous: One of `SYNCHRONOUS`.
        read_only: Refuse writes on this connection.

    Returns:
        A connection without a transaction, for one thread at a time; another one may close it.

    Raises:
        FourfoldError: The kind's outcome of `FORMAT`, `FOREIGN`, `NO_LOG`.
        sqlite3.Error: Anything else; the caller maps it.
    """
    connection = sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # transactions are begun and ended by us
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )
    try:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        # Some builds of SQLite zero every freed cell, at half the speed; this way only those of pages that are written.
        connection.execute("PRAGMA secure_delete = FAST")
        for pragma in kind.pragmas:
            connection.execute(pragma)
        if not _is_ours(connection, path, kind):
            _create(connection, path, kind)
        if _pragma(connection, "journal_mode") != "wal":
            _switch_to_wal(connection, path, kind)
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        kind.register(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _is_ours(connection: sqlite3.Connection, path: Path, kind: FileKind) -> bool:
    """Tell a file of ours (True) from an empty one (False); refuse any other."""
    # In one statement: another process may be making the file just now.
    application, version, tables = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    if application == kind.application_id:
        if version == kind.version:
            return True
        message = f"{path} has format {version}; this Fourfold reads format {kind.version}"
        raise make_error(FORMAT, message, kind.outcomes, path=str(path), seen=version, expected=kind.version)
    if application or version or tables:
        message = f"{path} is another application's SQLite file (application_id {application}, {tables} tables)"
        raise make_error(FOREIGN, message, kind.outcomes, path=str(path))
    return False


def _create(connection: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    _switch_to_wal(connection, path, kind)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ours(connection, path, kind):  # else another process was faster
            for statement in kind.schema.read_text(encoding="utf-8").split(";\n"):  # executescript would commit
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {kind.application_id}")
            connection.execute(f"PRAGMA user_version = {kind.version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back when the disk is full or breaks
            connection.execute("ROLLBACK")
        raise


def _switch_to_wal(connection: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    # The switch needs the file alone and answers BUSY at once, whatever the busy timeout, while another process that is
    # starting does the same. It happens once in a file's life.
    deadline, pause_seconds, mode = time.monotonic() + BUSY_SECONDS, 0.001, ""
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
        else:
            break
    if mode != "wal":
        message = f"{path}: its file system refuses a write-ahead log (the journal mode stays {mode!r})"
        raise make_error(NO_LOG, message, kind.outcomes, path=str(path))
