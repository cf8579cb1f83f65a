"""A whole table for one target: queue every row, and every owner that the target has and the rows don't.

Work on a whole table (after TRUNCATE, a new or changed declaration, capture put on a table with rows). It only
queues, in pieces with a transaction each, so it needs no fence, may die anywhere, and blocks no writer for long. What
a concurrent writer does meanwhile has change lines of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.relay.enqueue import enqueue
from fourfold.rows import tables
from fourfold.rows.engine import read_transaction, write_transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.projection.plan import Plan, TablePlan
    from fourfold.relay.claim import WorkKey
    from fourfold.relay.delivery import Delivery

__all__ = ["row_keys", "sweep"]

_PIECE = 5_000  # keys per transaction


async def sweep(engine: AsyncEngine, plan: Plan, delivery: Delivery, table: str, work: WorkKey) -> None:
    """Queue all that may differ between a table and a delivery's target, under the change ids of the sweep's `work`."""
    table_plan = plan.tables.get(table)
    if table_plan is not None and delivery.name in plan.targets_of(table):
        async for keys in row_keys(engine, table_plan):
            await _queue(engine, delivery, table, work, keys)
    await _queue(engine, delivery, table, work, await _quarantined(engine, delivery, table))
    target = getattr(delivery, "target", None)
    if target is None:
        return
    piece: list[str] = []
    async for found in target.scan_owners(table=table):
        piece.append(found.owner.key)
        if len(piece) >= _PIECE:
            await _queue(engine, delivery, table, work, piece)
            piece = []
    await _queue(engine, delivery, table, work, piece)


async def _quarantined(engine: AsyncEngine, delivery: Delivery, table: str) -> list[str]:
    """Keys that were never written: neither a row nor the target need have them."""
    c = tables.quarantine.c
    query = sa.select(c.key).where(c.target == delivery.name, c.table_name == table)
    async with read_transaction(engine) as connection:
        return list(await connection.scalars(query))


async def _queue(engine: AsyncEngine, delivery: Delivery, table: str, work: WorkKey, keys: list[str]) -> None:
    if not keys:
        return
    async with write_transaction(engine) as connection:
        await enqueue(connection, [delivery.name], table, keys, lane=1, first=work.first_change, last=work.last_change)


async def row_keys(engine: AsyncEngine, table_plan: TablePlan, *, piece: int = _PIECE) -> AsyncIterator[list[str]]:
    """All keys of a table in pieces, by keyset: short transactions, whatever the table's size."""
    columns = list(table_plan.table.primary_key.columns)
    last: tuple[object, ...] | None = None
    while True:
        statement = sa.select(*columns).order_by(*columns).limit(piece)
        if last is not None:
            statement = statement.where(
                sa.tuple_(*columns) > sa.tuple_(*last, types=[column.type for column in columns])
            )
        async with read_transaction(engine) as connection:
            rows = (await connection.execute(statement)).all()
        if not rows:
            return
        yield [table_plan.row_key.text_of(row) for row in rows]
        last = tuple(rows[-1])
