"""The store, the model, and everybody who works on them: writers, and workers who stand, crash and fail.

What a committed transaction wrote is in the model, and nothing else is. A worker is a task that may stand at a fault
point, go on later, or be cancelled there (a crash). One world serves all scripts of a database, one after the other;
between them `clean` empties every table and file.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from fourfold.errors import FourfoldError, StoreUnavailableError
from fourfold.fourfold import Fourfold
from fourfold.rows.engine import write_transaction
from fourfold.testing.faults import FaultPoints, Pause
from tests.property.machine.operations import Operation, Unchanged, Write, apply, need, number_in
from tests.world import Rows, Song, pair_key

LOCK_MILLISECONDS = 20  # how long a writer waits for another one's open transaction before it gives up
TARGETS = ["graph", "vectors.songs"]

# Where a worker may stand, crash or fail.
ANYWHERE = [
    "relay.claim_after_number",
    "relay.claim_after_token",
    "relay.claim_after_lease",
    "relay.revoke_before",
    "relay.revoke_after",
    "relay.read_before",
    "relay.read_after",
    "relay.write_before",
    "relay.write_after",
    "relay.settle_before",
    "relay.settle_after_commit",
    "graph.before_write",
    "graph.after_commit",
    "vectors.before_write",
    "vectors.after_commit",
]
# Inside a write transaction a worker may die or fail; if it stood there, whoever needs the same lock would wait for it.
IN_TRANSACTION = ["relay.settle_before_commit"]
IN_THREAD = ["graph.before_commit", "vectors.before_commit"]
DISPATCH = ["relay.dispatch_taken", "relay.dispatch_before_commit", "relay.dispatch_after_commit"]


@dataclass
class Paused:
    """A worker that stands at a point."""

    task: asyncio.Task[object]
    pause: Pause
    point: str


@dataclass
class Open:
    """A transaction that is still open (PostgreSQL), and what it wrote."""

    connection: AsyncConnection
    writes: list[Write] = field(default_factory=list)
    numbers: list[tuple[int, list[Write]]] = field(default_factory=list)


class World:
    """The store, the model, and everybody who works on them."""

    def __init__(self, store: Fourfold, points: FaultPoints) -> None:
        self.store = store
        self.points = points
        self.relays = [store.new_relay("one"), store.new_relay("two")]
        self.postgresql = store.engine.dialect.name == "postgresql"
        self.counts: dict[str, int] = defaultdict(int)
        self.reset_model()

    def reset_model(self) -> None:
        self.rows = Rows()
        self.number = 0
        self.opened: list[Open] = []
        self.paused: list[Paused] = []
        self.last_write: dict[str, int] = {}  # owner → number of its last committed write, deletions included
        self.deleted: dict[str, int] = {}  # owner → number of its last committed deletion
        self.floor: dict[str, int] = {}  # owner → number of the write that was settled in the graph
        self.files: dict[str, bytes] = {}

    # ------------------------------------------------------------------------------------------------- writers

    def commit_model(self, number: int, writes: list[Write]) -> None:
        apply(self.rows, writes)
        for table, key, value in writes:
            name = pair_key(*key) if table == "pairs" else str(key)
            owner = f"{table}:{name}"
            if value is None:
                self.deleted[owner] = self.last_write[owner] = number
            else:
                self.last_write[owner] = number_in(_text_of(table, value))

    def view(self, opened: Open | None = None) -> Rows:
        rows = self.rows.copy()
        if opened is not None:
            apply(rows, opened.writes)
        return rows

    async def unit(self, operations: list[Operation], *, orm: bool, commit: bool = True) -> None:
        """One transaction from beginning to end; nothing happens when another one's locks are in the way."""
        view = self.view()
        done: list[tuple[int, list[Write]]] = []
        try:
            async with self.store.unit_of_work() as work:
                await self._wait_briefly(work.session)
                for operation in operations:
                    self.number += 1
                    try:
                        writes = operation.effect(view, self.number)
                    except Unchanged:
                        continue
                    await operation.run(work.session, view, self.number, orm=orm)
                    apply(view, writes)
                    done.append((self.number, writes))
                need(commit)
        except Unchanged:
            return
        except (FourfoldError, sa.exc.DBAPIError) as error:
            if not _is_lock(error):
                raise
            return
        for number, writes in done:
            self.commit_model(number, writes)
        self.counts["units"] += 1

    async def _wait_briefly(self, session: AsyncSession | AsyncConnection) -> None:
        if self.postgresql:
            await session.execute(sa.text(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))

    async def begin(self) -> None:
        connection = await self.store.engine.connect()
        await self._wait_briefly(connection)
        self.opened.append(Open(connection))

    async def work_in(self, opened: Open, operation: Operation) -> None:
        """A statement in an open transaction."""
        view = self.view(opened)
        self.number += 1
        try:
            writes = operation.effect(view, self.number)
        except Unchanged:
            return
        try:
            async with opened.connection.begin_nested():
                await operation.run(opened.connection, view, self.number, orm=False)
        except sa.exc.DBAPIError as error:
            if not _is_lock(error):
                raise
            return
        opened.writes += writes
        opened.numbers.append((self.number, writes))

    async def end(self, opened: Open, *, commit: bool) -> None:
        self.opened.remove(opened)
        if commit:
            await opened.connection.commit()
            for number, writes in opened.numbers:
                self.commit_model(number, writes)
            self.counts["late commits"] += 1
        await opened.connection.close()

    async def put_file(self, song: UUID, *, commit: bool) -> None:
        self.number += 1
        number, data = self.number, f"bytes {self.number}".encode()
        before = self.rows.songs.get(song)
        if before is None:
            return
        try:
            async with self.store.unit_of_work() as work:
                file = await work.files.put(data, filename="a.txt")
                await self._wait_briefly(work.session)
                (await work.session.get(Song, song)).file_key = file.key
                await work.session.flush()
                need(commit)
        except Unchanged:
            return
        except (FourfoldError, sa.exc.DBAPIError) as error:
            if not _is_lock(error):
                raise
            return
        self.files[file.key] = data
        self.commit_model(number, [("songs", song, replace(before, file_key=file.key))])

    async def collect(self) -> None:
        try:
            report = await self.store.collect(grace_seconds=0)
        except FourfoldError as error:
            if not _is_lock(error):
                raise
            return
        named = {row.file_key for row in self.rows.songs.values()}
        assert not named & set(report.removed)  # I6
        self.counts["collected"] += len(report.removed)

    # ------------------------------------------------------------------------------------------------- workers

    async def step(self, work: Callable[[], Awaitable[object]], mode: str, point: str) -> None:
        """Let a worker do one step: whole, or up to a point where it stands, crashes or fails."""
        if mode == "whole":
            await self._finish(asyncio.create_task(_call(work)))
            return
        if mode == "fail" or point in IN_THREAD:
            error = StoreUnavailableError("the answer was lost") if mode == "fail" else Crash()
            self.points.fail(point, error)
            await self._finish(asyncio.create_task(_call(work)))
            self.points._errors.pop(point, None)
            self.counts[mode] += 1
            return
        pause = self.points.pause(point)
        task = asyncio.create_task(_call(work))
        reached = asyncio.create_task(pause.wait_reached())
        await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        with suppress(asyncio.CancelledError):
            await reached
        self.points._pauses.pop(point, None)
        if task.done():
            await self._finish(task)
        elif mode == "pause":
            self.paused.append(Paused(task, pause, point))
        else:
            await self.abandon(Paused(task, pause, point))

    async def _finish(self, task: asyncio.Task[object]) -> None:
        with suppress(Crash, StoreUnavailableError):
            await task

    async def resume(self, paused: Paused) -> None:
        if paused in self.paused:
            self.paused.remove(paused)
        paused.pause.resume()
        self.counts["resumed"] += 1
        await self._finish(paused.task)

    async def abandon(self, paused: Paused) -> None:
        """A crash: nothing that comes after the point is done any more."""
        if paused in self.paused:
            self.paused.remove(paused)
        paused.task.cancel()
        self.counts["crashed"] += 1
        with suppress(asyncio.CancelledError):
            await paused.task

    async def execute(self, statement: str, **parameters: object) -> None:
        async with write_transaction(self.store.engine) as connection:
            await connection.execute(sa.text(statement), parameters)

    async def expire(self) -> None:
        await self.execute("UPDATE fourfold_work SET lease_until = 0 WHERE token IS NOT NULL")

    async def unpause(self) -> None:
        await self.execute("UPDATE fourfold_target SET paused_until = NULL")

    async def redeliver(self, target: str, owner: str) -> None:
        table, _, key = owner.partition(":")
        if target != "graph" and table != "songs":
            return
        await self.execute(
            "INSERT INTO fourfold_work (target, table_name, key, first_change, last_change, queued_at)"
            " VALUES (:target, :table_name, :key, 0, 0, 0)"
            " ON CONFLICT (target, table_name, key) DO UPDATE SET version = fourfold_work.version + 1",
            target=target,
            table_name=table,
            key=key,
        )

    async def clean(self) -> None:
        """Empty everything, for the next script."""
        for paused in list(self.paused):
            await self.abandon(paused)
        for opened in list(self.opened):
            with suppress(sa.exc.DBAPIError):
                await self.end(opened, commit=False)
        self.points._pauses.clear()
        self.points._errors.clear()
        own = ["change", "work", "token", "quarantine", "target", "object_ref", "pin", "object", "embedding"]
        async with write_transaction(self.store.engine) as connection:
            for table in ("notes", "songs", "artists", "pairs", *(f"fourfold_{name}" for name in own)):
                await connection.execute(sa.text(f"DELETE FROM {table}"))
        async with write_transaction(self.store.stores.stage_engine) as connection:
            await connection.execute(sa.text("DELETE FROM fourfold_stage"))
        async with write_transaction(self.store.engine) as connection:  # what the deletions above queued
            await connection.execute(sa.text("DELETE FROM fourfold_change"))
        folder = self.store.settings.data_folder
        _empty(folder / "graph.db", "token", "owner", "edge", "node")
        _empty(folder / "vectors.db", "token", "owner", "point", "term")
        shutil.rmtree(folder / "files" / "objects", ignore_errors=True)
        (folder / "files" / "objects").mkdir()
        self.reset_model()


class Crash(BaseException):
    """Passes every `except Exception`, as a killed process does."""


async def _call(work: Callable[[], Awaitable[object]]) -> object:
    return await work()


def _text_of(table: str, value: object) -> str:
    if table == "songs":
        return value.title
    return value[1] if table == "notes" else str(value)


def _is_lock(error: Exception) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if getattr(getattr(cause, "orig", cause), "sqlstate", None) == "55P03":
            return True
        cause = cause.__cause__
    return False


def _empty(path: Path, *tables: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        for table in tables:
            connection.execute(f"DELETE FROM {table}")
        if path.name == "vectors.db":
            connection.execute("UPDATE collection SET generation = generation + 1, points = 0")
