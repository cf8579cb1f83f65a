"""Connections to a graph file: one writer thread, a few reader threads, and SQLite's errors in Fourfold's words.

Each process has at most one writing connection per store, so that writers of one process queue in order and only
processes compete for the file's lock (`BEGIN IMMEDIATE`, so a transaction never turns into a writer half-way, where
SQLite says busy at once). Errors are told apart by SQLite's result code, never by text.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Literal, TypeVar

from fourfold.errors import (
    ConfigurationError,
    FourfoldError,
    IntegrityError,
    StoreRejectedError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["FORMAT_VERSION", "Connections", "mapped", "store_error", "transaction"]

FORMAT_VERSION = 1
_APPLICATION_ID = 0x46464752  # "FFGR": what `file` and we know the format by
_BUSY_SECONDS = 30.0  # a bulk write of another process holds the lock for a second or two; thirty means it hangs
_READERS = 4  # more threads than cores gain nothing; enough that a long query doesn't stop short ones
_CACHE_KIB = 65_536  # a limit, taken as needed; SQLite's 2 MiB make a bulk load read its indexes again and again
_LOG_PAGES = 8_000  # 32 MiB: owners' hashes and edges' ends are scattered, so a lot of 5,000 dirties thousands of pages
_STATEMENTS = 256  # prepared statements kept per connection: every shape of pattern is one
_OLDEST_SQLITE = (3, 38, 0)  # the -> operator, which gives back a property exactly as stored

T = TypeVar("T")

_ERRORS: dict[int, tuple[type[FourfoldError], str, str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailableError, "graph.busy", "Another process holds the file's lock; try again"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, "graph.busy", "Another connection holds a table's lock; try again"),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailableError, "graph.busy", "Others compete for the file's lock; try again"),
    sqlite3.SQLITE_SCHEMA: (StoreUnavailableError, "graph.busy", "Another process changed the tables; try again"),
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "graph.full", "Make room on the disk; nothing was half-written"),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "graph.io", "Check the disk and its free space, then try again"),
    sqlite3.SQLITE_NOMEM: (StoreUnavailableError, "graph.memory", "Free memory, or write smaller lots"),
    sqlite3.SQLITE_NOLFS: (StoreUnavailableError, "graph.full", "The file system can't hold a larger file"),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailableError, "graph.interrupted", "The query was stopped; try again"),
    sqlite3.SQLITE_ABORT: (StoreUnavailableError, "graph.interrupted", "The transaction was rolled back; try again"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailableError, "graph.open", "Check that the folder exists and is writable"),
    sqlite3.SQLITE_CORRUPT: (
        IntegrityError,
        "graph.corrupt",
        "Move the file away, restart, and run `fourfold rebuild`",
    ),
    sqlite3.SQLITE_NOTADB: (IntegrityError, "graph.corrupt", "It is no graph file: correct the path, or move it away"),
    sqlite3.SQLITE_READONLY: (StoreRejectedError, "graph.readonly", "Give this user the right to write the file"),
    sqlite3.SQLITE_PERM: (StoreRejectedError, "graph.readonly", "Give this user the right to write the file"),
    sqlite3.SQLITE_AUTH: (StoreRejectedError, "graph.readonly", "Give this user the right to write the file"),
}


def store_error(error: sqlite3.Error | sqlite3.Warning, path: Path) -> FourfoldError:
    """Return what `error` means to a caller, by SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    primary = None if code is None else code & 0xFF  # the extended code is in the upper bits
    kind, our_code, hint = _ERRORS.get(
        primary or 0, (StoreRejectedError, "graph.rejected", "Report it: this is a defect")
    )
    return kind(f"The graph {str(path)!r} answered {name}", code=our_code, hint=hint, path=str(path), sqlite=name)


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as Fourfold's."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise store_error(error, path) from error


@contextmanager
def transaction(connection: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
    """Hold a transaction: committed at the end, rolled back on an exception."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back when the disk is full or breaks
            connection.execute("ROLLBACK")
        raise


class Connections:
    """The connections of one store; opened at first use, in its threads.

    Bound to no event loop: a store may be used from several, one after another.
    """

    def __init__(self, path: Path, synchronous: str, register: Callable[[sqlite3.Connection], None]) -> None:
        self.path = path
        self._synchronous = synchronous
        self._register = register
        self._writer: sqlite3.Connection | None = None
        self._readers: deque[sqlite3.Connection] = deque()
        self._write_threads = ThreadPoolExecutor(1, thread_name_prefix="fourfold-graph-write")
        self._read_threads = ThreadPoolExecutor(_READERS, thread_name_prefix="fourfold-graph-read")
        self._closed = False

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with the writing connection in its thread.

        A cancelled caller doesn't stop it: the outcome is unknown to him, as after a cut connection.
        """
        self._check_open()
        return await asyncio.wrap_future(self._write_threads.submit(self._with_writer, work))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with a reading connection; a cancelled caller stops its query."""
        if self._writer is None:
            await self.write(lambda _: None)  # makes the file and its tables: a reader can't
        self._check_open()
        job = _ReadJob()
        future = self._read_threads.submit(self._with_reader, work, job)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            job.stop()
            raise

    async def close(self) -> None:
        """Wait for what runs, and close; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        # Readers first: the last connection to close folds the log into the file, and it must be one that may write.
        self._read_threads.shutdown()
        while self._readers:
            self._readers.pop().close()
        self._write_threads.shutdown()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _check_open(self) -> None:
        if self._closed:
            message = f"The graph {str(self.path)!r} was closed; expected an open store"
            raise StoreUnavailableError(message, code="graph.closed", hint="Use it before close()", path=str(self.path))

    def _with_writer(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with mapped(self.path):
            if self._writer is None:
                self._writer = self._open()
            return work(self._writer)

    def _with_reader(self, work: Callable[[sqlite3.Connection], T], job: _ReadJob) -> T:
        with mapped(self.path):
            connection = self._readers.pop() if self._readers else self._connect(read_only=True)
            try:
                with job.running(connection):
                    return work(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._readers.append(connection)

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # a reading connection goes from thread to thread, never to two at once
            cached_statements=_STATEMENTS,
        )
        try:
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            connection.execute("PRAGMA secure_delete = FAST")  # some builds zero every freed cell: half as fast
            connection.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
            self._register(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            message = f"SQLite is {sqlite3.sqlite_version}; the embedded graph needs 3.38 or newer"
            raise ConfigurationError(message, code="graph.sqlite", hint="Use a newer Python build")
        try:
            connection = self._connect(read_only=False)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
                raise
            message = f"The graph {str(self.path)!r} can't be opened"
            hint = "Make its folder, and give this user the right to write there"
            raise ConfigurationError(message, code="graph.open", hint=hint, path=str(self.path)) from error
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check whose file it is, switch the log on, and make the tables in a new one."""
        self._check_format(connection)
        _switch_to_wal(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        with transaction(connection):
            # Again under the lock: two processes may both have found it empty.
            if not self._check_format(connection):
                schema = resources.files(__package__).joinpath("sqlite_schema.sql").read_text(encoding="utf-8")
                for statement in schema.split(";\n"):  # executescript would commit
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def _check_format(self, connection: sqlite3.Connection) -> bool:
        """Return whether it has our tables already."""
        application, version, tables = connection.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)"
            " FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application != _APPLICATION_ID and (application or tables):
            message = f"{str(self.path)!r} is another program's SQLite file (application id {application})"
            hint = "Give the graph a file of its own"
            raise ConfigurationError(message, code="graph.foreign_file", hint=hint, path=str(self.path))
        if version > FORMAT_VERSION:
            message = f"The graph {str(self.path)!r} has format {version}; this Fourfold knows up to {FORMAT_VERSION}"
            hint = "Use the newer Fourfold, or move the file away and run `fourfold rebuild`"
            raise ConfigurationError(message, code="graph.format", hint=hint, seen=version, expected=FORMAT_VERSION)
        return bool(application)


class _ReadJob:
    """A query that may be stopped from another thread, but only while it is the one that runs on its connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._stopped = False

    @contextmanager
    def running(self, connection: sqlite3.Connection) -> Iterator[None]:
        with self._lock:
            if self._stopped:  # cancelled while it waited for a thread: interrupt() only stops what runs
                raise StoreUnavailableError("The query was stopped before it began", code="graph.interrupted")
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._connection is not None:
                self._connection.interrupt()


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # SQLite doesn't wait for the lock when two connections switch a new file at once: it says busy. So wait here.
    deadline = time.monotonic() + _BUSY_SECONDS
    pause_seconds, mode = 0.001, ""
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, 0.1)
        else:
            break
    if mode != "wal":
        message = f"The graph's file system refuses a write-ahead log (journal mode stays {mode!r})"
        raise ConfigurationError(message, code="graph.open", hint="Put it on a local disk, not a network share")
