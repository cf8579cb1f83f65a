"""Connections of one process to a file: a thread that writes, some that read.

A write runs in one `BEGIN IMMEDIATE` transaction, committed when `write` returns: so writers of one process queue in
order, only processes compete for the file's lock, and no transaction turns into a writer half-way, where SQLite says
busy at once. A read sees one snapshot. A connection that failed is thrown away, the next call opens another. Cancelling
a caller leaves a write that runs to its end: the outcome is unknown to him, as after a cut connection.

Bound to no event loop: a store may be used from several, one after another.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from fourfold.embedded.errors import CLOSED, make_error, mapped_errors
from fourfold.embedded.file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fourfold.embedded.file import FileKind

__all__ = ["Connections"]

T = TypeVar("T")

# Steps of SQLite's machine between two looks at whether the caller has gone: tens of milliseconds. Each look may have
# to wait for the interpreter's lock, so they must be few.
_STEPS: Final = 1_000_000
_READERS: Final = 4  # threads: more than cores gain nothing; enough that a long query doesn't stop short ones


class Connections:
    """Runs jobs on connections of their own threads; each is opened by its thread's first job.

    Args:
        path: The file; made at the first call.
        kind: What it holds.
        synchronous: One of `SYNCHRONOUS`.
    """

    def __init__(self, path: Path, kind: FileKind, synchronous: str) -> None:
        self.path = path
        self._kind = kind
        self._synchronous = synchronous
        self._writing = ThreadPoolExecutor(1, thread_name_prefix=f"fourfold-{path.stem}-write")
        self._reading = ThreadPoolExecutor(_READERS, thread_name_prefix=f"fourfold-{path.stem}-read")
        self._mine = threading.local()
        self._open: set[sqlite3.Connection] = set()
        self._closed = False

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` in a write transaction; on disk on return.

        Raises:
            FourfoldError: The kind's outcome of what SQLite said, or of `CLOSED`; what `job` raises, rolled back.
        """
        self._check_open()
        return await asyncio.wrap_future(self._writing.submit(self._transact, job, "BEGIN IMMEDIATE", None))

    async def read(self, job: Callable[[sqlite3.Connection], T], *, stoppable: bool = False) -> T:
        """Run `job` on one snapshot.

        Args:
            job: What to do; it writes nothing.
            stoppable: Stop it when the caller is cancelled; else it runs to its end.

        Raises:
            FourfoldError: As `write`.
        """
        self._check_open()
        stopped = threading.Event()
        asks = stopped.is_set if stoppable else None
        try:
            return await asyncio.wrap_future(self._reading.submit(self._transact, job, "BEGIN", asks))
        except asyncio.CancelledError:
            stopped.set()
            raise

    async def close(self) -> None:
        """Wait for what runs, then close every connection; safe to call twice."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for threads in (self._reading, self._writing):
            threads.shutdown()
        while self._open:
            self._open.pop().close()

    def _check_open(self) -> None:
        if self._closed:
            message = f"{self.path} was closed; expected an open store"
            raise make_error(CLOSED, message, self._kind.outcomes, path=str(self.path))

    def _transact(self, job: Callable[[sqlite3.Connection], T], begin: str, asks: Callable[[], bool] | None) -> T:
        with mapped_errors(self.path, self._kind.outcomes):
            connection = self._connection(read_only=begin == "BEGIN")
            # Not interrupt(): it is lost where it comes before the statement, and that one then runs for ever.
            connection.set_progress_handler(asks, _STEPS)
            try:
                connection.execute(begin)
                result = job(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                self._end(connection, broken=isinstance(error, sqlite3.Error))
                raise
            return result

    def _connection(self, *, read_only: bool) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = open_file(self.path, self._kind, synchronous=self._synchronous, read_only=read_only)
            self._mine.connection = connection
            self._open.add(connection)
        return connection

    def _end(self, connection: sqlite3.Connection, *, broken: bool) -> None:
        """Roll back; a connection that SQLite complained about isn't trusted again."""
        if broken:
            # Closing alone would keep the transaction, and its lock, for as long as the error names an open cursor.
            with suppress(sqlite3.Error):
                connection.rollback()
            self._mine.connection = None
            self._open.discard(connection)
            connection.close()
        elif connection.in_transaction:
            connection.execute("ROLLBACK")
