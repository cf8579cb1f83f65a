"""Removes what nobody names: first the registry row, then, as a target of the relay, the bytes.

Guaranteed (I6): no object that a row, a live stage, a live pin or a held backup names is removed; a reference that
comes while collection looks at the object survives, or fails, and never both succeed (F24). Each lot is one short write
transaction.

An object's way out: a pass finds it named by nothing and marks it (`unreferenced_since`); a pass at least the time of
grace later finds it still so, locks it (`SKIP LOCKED`: what a writer has is left for next time), looks again **in a
second statement**, which sees what was committed before the lock, deletes the row and queues the bytes in the same
transaction. A reference clears the mark at the next pass only: no trigger updates a row that writers share. So an
object that is named and left again between two passes keeps its first mark; let passes come more often than the time of
grace.

Stages whose leases ran out go the way that `objects.registry` tells. `guard_store` stands before all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fourfold.faultpoints import reach
from fourfold.objects.guard import MAX_MISSING_SHARE, guard_store
from fourfold.objects.key import check_key
from fourfold.objects.marker import check_marker
from fourfold.objects.registry import TARGET, delete_objects, live_pin, queue_removal, referenced
from fourfold.pieces import pieces
from fourfold.rows.clock import now_sql
from fourfold.rows.engine import read_transaction, write_transaction
from fourfold.rows.tables import object_, stage

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fourfold.objects.stage import StageRegistry
    from fourfold.objects.store import ObjectStore

__all__ = ["GRACE_SECONDS", "CollectionReport", "FilesTarget", "collect"]

GRACE_SECONDS: Final = 86_400.0  # a day: what one unit of work stores may be named by one that comes later
LOT: Final = 100  # rows locked at once; a writer that meets one waits for a transaction of milliseconds
_MARK_LOT: Final = 1000  # a mark excludes no writer but one that reuses the object
_CONCURRENT_REMOVALS: Final = 8

_Condition = Callable[["AsyncConnection"], "sa.ColumnElement[bool]"]


@dataclass(slots=True)
class CollectionReport:
    """What a pass did, in keys and numbers.

    Attributes:
        stages_queued: Staged uploads whose lease ran out; their bytes are queued for removal.
        stages_dropped: Stage rows of objects that were promoted (their unit died before it tidied up).
        unmarked: Number of marked objects that somebody names again.
        marked: Number of objects found unnamed for the first time.
        removed: Objects forgotten; their bytes are queued for removal.
    """

    stages_queued: list[str] = field(default_factory=list)
    stages_dropped: list[str] = field(default_factory=list)
    unmarked: int = 0
    marked: int = 0
    removed: list[str] = field(default_factory=list)


async def collect(
    engine: AsyncEngine,
    stages: StageRegistry,
    store: ObjectStore,
    *,
    grace_seconds: float = GRACE_SECONDS,
    limit: int | None = None,
    max_missing_share: float = MAX_MISSING_SHARE,
    only: Collection[str] | None = None,
) -> CollectionReport:
    """Make one pass.

    Args:
        engine: Of the rows; always the primary.
        stages: The staged uploads.
        store: Looked at by the guard; nothing is deleted in it here, the relay's `FilesTarget` does that.
        grace_seconds: How long an object must have been marked; 0 marks and removes in this pass.
        limit: Most objects to remove, and most stages to end; None has no limit.
        max_missing_share: Share of registered objects (0 to 1) that may be missing before everything stops.
        only: Look at these keys alone, and at no stages: with a grace of 0, a deleted row frees its file at once.

    Returns:
        What was done. The bytes are gone when the relay has settled.

    Raises:
        DriftError: Codes `objects.marker`, `objects.store_missing`: this doesn't look like our store; nothing was done.
        StoreUnavailableError: The store or the database is away.
    """
    await guard_store(engine, store, max_missing_share=max_missing_share)
    report = CollectionReport()
    if only is None:
        await _end_stages(engine, stages, report, limit)
        lots: list[Sequence[str] | None] = [None]
    else:
        keys = sorted({check_key(key) for key in only})
        lots = list(pieces(keys, LOT))
    for lot in lots:
        report.unmarked += await _set_marks(engine, named=True, only=lot)
        report.marked += await _set_marks(engine, named=False, only=lot)
        await _remove(engine, report, grace_seconds, limit, lot)
    return report


async def _end_stages(engine: AsyncEngine, stages: StageRegistry, report: CollectionReport, limit: int | None) -> None:
    end_lot = _end_lot_apart if stages.is_apart else _end_lot_beside
    after = ""
    while (room := _room(limit, len(report.stages_queued))) > 0:
        seen, queued, dropped = await end_lot(engine, stages, after, room)
        if not seen:
            return
        after = seen[-1]
        report.stages_queued += queued
        report.stages_dropped += dropped


_Lot = tuple[list[str], list[str], list[str]]  # keys looked at, queued for removal, promoted before


async def _end_lot_beside(engine: AsyncEngine, _stages: StageRegistry, after: str, limit: int) -> _Lot:
    async with write_transaction(engine) as connection:
        over = stage.c.lease_until <= _now(connection)
        query = sa.select(stage.c.key).where(over, stage.c.key > after).order_by(stage.c.key).limit(limit)
        # Skipped: what a promotion has in hand, it is promoted in a moment, or free for the next pass.
        seen = list(await connection.scalars(query.with_for_update(skip_locked=True)))
        await reach("objects.after_stage_lock")
        await connection.execute(sa.delete(stage).where(stage.c.key.in_(seen)))
        await queue_removal(connection, seen)
        await reach("objects.before_stage_commit")
    await reach("objects.after_stage_commit")
    return seen, seen, []


async def _end_lot_apart(engine: AsyncEngine, stages: StageRegistry, after: str, limit: int) -> _Lot:
    # C1 of objects.registry: decided under the write lock of the rows. The stage row stays, as the relay's to delete.
    async with write_transaction(engine) as connection:
        seen = await stages.expired(limit, after=after)
        await reach("objects.after_stage_lock")
        promoted = set(await connection.scalars(sa.select(object_.c.key).where(object_.c.key.in_(seen))))
        queued = [key for key in seen if key not in promoted]
        await queue_removal(connection, queued)
        await reach("objects.before_stage_commit")
    await reach("objects.after_stage_commit")
    await stages.drop(promoted)
    return seen, queued, sorted(promoted)


async def _set_marks(engine: AsyncEngine, *, named: bool, only: Sequence[str] | None) -> int:
    """Clear the marks of objects that are named, or mark those that are not; return their number."""
    changed, after = 0, ""
    while lot := await _page(engine, _marks(named=named), only, after, _MARK_LOT):
        after = lot[-1]
        async with write_transaction(engine) as connection:
            # A unit that reuses objects updates their rows in its own order: waiting for it could be a deadlock.
            lock = sa.select(object_.c.key).where(object_.c.key.in_(lot)).order_by(object_.c.key)
            locked = list(await connection.scalars(lock.with_for_update(key_share=True, skip_locked=True)))
            mark = None if named else _now(connection)
            update = sa.update(object_).where(object_.c.key.in_(locked), _marks(named=named)(connection))
            changed += (await connection.execute(update.values(unreferenced_since=mark))).rowcount
    return changed


async def _remove(
    engine: AsyncEngine, report: CollectionReport, grace_seconds: float, limit: int | None, only: Sequence[str] | None
) -> None:
    def due(connection: AsyncConnection) -> sa.ColumnElement[bool]:
        return (object_.c.unreferenced_since <= _now(connection) - grace_seconds) & _unnamed(connection)

    after = ""
    while (room := _room(limit, len(report.removed))) > 0:
        lot = await _page(engine, due, only, after, room)
        if not lot:
            return
        after = lot[-1]
        report.removed += await _remove_lot(engine, lot, due)


async def _remove_lot(engine: AsyncEngine, lot: Sequence[str], due: _Condition) -> list[str]:
    async with write_transaction(engine) as connection:
        lock = sa.select(object_.c.key).where(object_.c.key.in_(lot), due(connection)).order_by(object_.c.key)
        locked = list(await connection.scalars(lock.with_for_update(skip_locked=True)))
        await reach("objects.after_candidates")
        # The lock was taken on what its own statement's snapshot saw; a reference that was committed between that
        # snapshot and the lock is seen from here on only. Nobody can add one now: it would need a lock on the row.
        again = sa.select(object_.c.key).where(object_.c.key.in_(locked), _unnamed(connection))
        free = sorted(await connection.scalars(again))
        await delete_objects(connection, free)
        await reach("objects.before_collect_commit")
    await reach("objects.after_collect_commit")
    return free


class FilesTarget:
    """The relay's target `files`: removes bytes whose object is registered no more.

    It needs no fence: a name is never written twice, so removing twice, or late, is harmless.

    Args:
        engine: Of the rows; always the primary.
        stages: The staged uploads.
        store: Where the bytes are.
    """

    name: Final = TARGET

    def __init__(self, engine: AsyncEngine, stages: StageRegistry, store: ObjectStore) -> None:
        self._engine = engine
        self._stages = stages
        self._store = store

    async def remove(self, keys: Collection[str]) -> None:
        """Remove the bytes of those keys that are not registered, and their stages; durable on return.

        Args:
            keys: Of work rows; one that is registered (again) is left alone.

        Raises:
            DriftError: Code `objects.marker`: it is not our store; nothing was removed.
            FourfoldError: The first failure; the other keys were tried all the same, and the call can be repeated.
        """
        wanted = sorted({check_key(key) for key in keys})
        await check_marker(self._engine, self._store)
        free = await self._unstage(wanted)
        gate = asyncio.Semaphore(_CONCURRENT_REMOVALS)

        async def remove_one(key: str) -> None:
            async with gate:
                await reach("objects.before_remove_bytes")
                await self._store.delete(key)
                await reach("objects.after_remove_bytes")

        results = await asyncio.gather(*map(remove_one, free), return_exceptions=True)
        if failures := [result for result in results if result is not None]:
            raise failures[0]

    async def _unstage(self, keys: list[str]) -> list[str]:
        # C2 of objects.registry. The stage row goes before the bytes: whoever still finds one finds whole bytes. On
        # PostgreSQL the delete waits for a promotion that has the row, and the statement behind it sees what became of
        # it.
        async with write_transaction(self._engine) as connection:
            known = sa.select(object_.c.key).where(object_.c.key.in_(keys))
            if not self._stages.is_apart:
                await connection.execute(sa.delete(stage).where(stage.c.key.in_(keys), stage.c.key.not_in(known)))
            present = set(await connection.scalars(known))
            free = [key for key in keys if key not in present]
            if self._stages.is_apart:
                await self._stages.drop(free)
        return free


def _marks(*, named: bool) -> _Condition:
    def condition(connection: AsyncConnection) -> sa.ColumnElement[bool]:
        if named:
            return object_.c.unreferenced_since.is_not(None) & ~_unnamed(connection)
        return object_.c.unreferenced_since.is_(None) & _unnamed(connection)

    return condition


def _unnamed(connection: AsyncConnection) -> sa.ColumnElement[bool]:
    return ~referenced() & ~live_pin(connection)


async def _page(
    engine: AsyncEngine, condition: _Condition, only: Sequence[str] | None, after: str, limit: int
) -> list[str]:
    # The search goes through many rows and holds no lock; what it finds is looked at again under one.
    async with read_transaction(engine) as connection:
        query = sa.select(object_.c.key).where(object_.c.key > after, condition(connection))
        if only is not None:
            query = query.where(object_.c.key.in_(only))
        return list(await connection.scalars(query.order_by(object_.c.key).limit(limit)))


def _room(limit: int | None, used: int) -> int:
    return LOT if limit is None else min(LOT, limit - used)


def _now(connection: AsyncConnection) -> sa.ColumnElement[float]:
    return sa.literal_column(now_sql(connection.dialect.name), sa.Double)
