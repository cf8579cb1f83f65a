"""Change lines become work: one row per target and key.

One transaction: lines are locked, the keys they name and the rows that *depend* on those are queued, the lines are
deleted by exact id. Dependents are looked up here, in a snapshot taken after the lines' commit: a trigger can't see
what another transaction is about to commit. One dispatcher at a time (PostgreSQL: an advisory lock; SQLite: its write
lock), so two can't deadlock over work rows. A worker whose declarations are not the database's doesn't dispatch: it
would drop lines that interest a target it doesn't know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.faultpoints import reach
from fourfold.pieces import pieces
from fourfold.relay.declare import declarations_match
from fourfold.relay.dialect import statement
from fourfold.relay.enqueue import UPSERT_TAIL, enqueue, enqueue_sweep, own_work
from fourfold.rows.engine import write_transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fourfold.projection.plan import Dependent, Plan

__all__ = ["dispatch"]

_LOOKUP_KEYS = 500  # bound parameters per look-up of dependents; SQLite's default limit is 32,766

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('fourfold.dispatch'))"

_TAKE = """
SELECT id, table_name, kind, lane FROM fourfold_change ORDER BY id LIMIT :limit {skip_locked}
"""

# CROSS JOIN holds SQLite to this order: by itself it would index the whole backlog for each helping.
_QUEUE_KEYS = (
    """
INSERT INTO fourfold_work (target, table_name, key, lane, first_change, last_change, queued_at)
SELECT i.target, c.table_name, k.value, min(c.lane), min(c.id), max(c.id), min(c.created_at)
FROM fourfold_change AS c CROSS JOIN fourfold_interest AS i CROSS JOIN {line_keys}
WHERE i.table_name = c.table_name AND c.kind = 'keys' AND c.id IN {each_int:ids}
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
    + UPSERT_TAIL
)

_LINE_KEYS = """
SELECT k.value, min(c.lane), min(c.id), max(c.id) FROM fourfold_change AS c CROSS JOIN {line_keys}
WHERE c.kind = 'keys' AND c.table_name = :table_name AND c.id IN {each_int:ids} GROUP BY k.value
"""

_CLEAR = "DELETE FROM fourfold_change WHERE id IN {each_int:ids}"


@dataclass(frozen=True, slots=True)
class _Line:
    id: int
    table: str
    kind: str
    lane: int


async def dispatch(engine: AsyncEngine, plan: Plan, *, limit: int) -> int:
    """Turn up to `limit` change lines into work.

    Returns:
        Number of lines taken; 0 when there are none, another dispatcher is at work, or the declarations differ.
    """
    async with write_transaction(engine) as connection:
        if not await _alone(connection) or not await declarations_match(connection, plan):
            return 0
        lines = await _take(connection, limit)
        if not lines:
            return 0
        await reach("relay.dispatch_taken")
        await own_work(connection)
        ids = json.dumps([line.id for line in lines])
        await connection.execute(statement(_QUEUE_KEYS, connection.dialect.name), {"ids": ids})
        for table in sorted({line.table for line in lines}):
            await _queue_dependents(connection, plan, table, ids)
        for line in lines:
            if line.kind == "resync":
                await _queue_resync(connection, plan, line)
        await connection.execute(statement(_CLEAR, connection.dialect.name), {"ids": ids})
        await reach("relay.dispatch_before_commit")
    await reach("relay.dispatch_after_commit")
    return len(lines)


async def _alone(connection: AsyncConnection) -> bool:
    if connection.dialect.name != "postgresql":
        return True
    return bool(await connection.scalar(sa.text(_TRY_LOCK)))


async def _take(connection: AsyncConnection, limit: int) -> list[_Line]:
    rows = await connection.execute(statement(_TAKE, connection.dialect.name), {"limit": limit})
    return [_Line(*row) for row in rows]


async def _queue_dependents(connection: AsyncConnection, plan: Plan, table: str, ids: str) -> None:
    dependents = plan.dependents_of(table)
    if not dependents:
        return
    parameters = {"ids": ids, "table_name": table}
    rows = (await connection.execute(statement(_LINE_KEYS, connection.dialect.name), parameters)).all()
    for part in pieces(rows, _LOOKUP_KEYS):
        lane, first, last = min(r[1] for r in part), min(r[2] for r in part), max(r[3] for r in part)
        for dependent in dependents:
            async for keys in _dependent_keys(connection, plan, dependent, [row[0] for row in part]):
                targets = dependent.targets
                await enqueue(connection, targets, dependent.table, keys, lane=lane, first=first, last=last)


async def _dependent_keys(
    connection: AsyncConnection, plan: Plan, dependent: Dependent, changed: Sequence[str]
) -> AsyncIterator[list[str]]:
    """Keys of the rows whose foreign key names one of the changed rows, in pieces of bounded size."""
    table_plan = plan.tables[dependent.table]
    result = await connection.stream(dependent.statement(table_plan, changed))
    async for part in result.partitions(5_000):
        yield [table_plan.row_key.text_of(row) for row in part]


async def _queue_resync(connection: AsyncConnection, plan: Plan, line: _Line) -> None:
    interested: dict[str, set[str]] = {line.table: set(plan.targets_of(line.table))}
    for dependent in plan.dependents_of(line.table):
        interested.setdefault(dependent.table, set()).update(dependent.targets)
    for table, targets in plan.parents_of(line.table).items():
        interested.setdefault(table, set()).update(targets)
    for table, concerned in interested.items():
        await enqueue_sweep(connection, concerned, table, lane=line.lane, first=line.id, last=line.id)
