"""Connections of one process to the file: a thread that writes, some that read.

A write runs in one `BEGIN IMMEDIATE` transaction, committed when `write` returns; a read sees one snapshot. A
connection that failed is thrown away, the next call opens another. Cancelling a caller leaves its transaction running
to its end: the outcome is unknown to him, as after a cut connection.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fourfold.errors import StoreRejectedError
from fourfold.vectors.sqlite.errors import mapped_errors
from fourfold.vectors.sqlite.schema import open_connection

__all__ = ["Connections"]

T = TypeVar("T")

_READERS = 4  # threads; a search is bound by memory bandwidth, more of them gain nothing


class Connections:
    """Runs jobs on connections of their own threads.

    Args:
        path: The file.
        synchronous: As of `PRAGMA synchronous`.
    """

    def __init__(self, path: Path, synchronous: str) -> None:
        self._path = path
        self._synchronous = synchronous
        self._writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fourfold-vectors-write")
        self._reading = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="fourfold-vectors-read")
        self._mine = threading.local()
        self._open: set[sqlite3.Connection] = set()
        self._closed = False

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` in a write transaction; on disk on return.

        Raises:
            StoreUnavailableError: The outcome is unknown.
            StoreRejectedError: The file can't be written, or the store is closed.
            IntegrityError: The file is damaged.
        """
        return await self._run(self._writing, job, begin="BEGIN IMMEDIATE", read_only=False)

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` on one snapshot. Raises as `write`."""
        return await self._run(self._reading, job, begin="BEGIN", read_only=True)

    async def close(self) -> None:
        """Wait for running jobs, then close every connection; safe to call twice."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for executor in (self._writing, self._reading):
            executor.shutdown(wait=True)
        while self._open:
            self._open.pop().close()

    async def _run(
        self, executor: Executor, job: Callable[[sqlite3.Connection], T], *, begin: str, read_only: bool
    ) -> T:
        if self._closed:
            raise StoreRejectedError(
                f"{self._path}: the vector store is closed", code="vectors.closed", hint="Open a new one"
            )
        return await asyncio.get_running_loop().run_in_executor(executor, self._transact, job, begin, read_only)

    def _transact(self, job: Callable[[sqlite3.Connection], T], begin: str, read_only: bool) -> T:  # noqa: FBT001 - run_in_executor passes by position
        with mapped_errors(self._path):
            connection = self._connection(read_only=read_only)
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
            connection = open_connection(self._path, synchronous=self._synchronous, read_only=read_only)
            self._mine.connection = connection
            self._open.add(connection)
        return connection

    def _end(self, connection: sqlite3.Connection, *, broken: bool) -> None:
        """Roll back; a connection that SQLite complained about isn't trusted again (closing it rolls back too)."""
        if not broken:
            connection.execute("ROLLBACK")
            return
        self._mine.connection = None
        self._open.discard(connection)
        connection.close()
