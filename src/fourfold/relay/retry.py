"""Quarantined keys go back into the queue, in the lane of repairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.relay.enqueue import enqueue
from fourfold.rows import tables
from fourfold.rows.engine import write_transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["retry"]


async def retry(engine: AsyncEngine, *, target: str | None = None, table: str | None = None) -> int:
    """Queue quarantined keys again; they stay listed until they succeed.

    Args:
        engine: Of the rows.
        target: Only this target's keys.
        table: Only this table's keys.

    Returns:
        How many were queued.
    """
    c = tables.quarantine.c
    query = sa.select(c.target, c.table_name, c.key, c.first_change, c.last_change)
    if target is not None:
        query = query.where(c.target == target)
    if table is not None:
        query = query.where(c.table_name == table)
    async with write_transaction(engine) as connection:
        rows = (await connection.execute(query.order_by(c.target, c.table_name, c.key))).all()
        for row in rows:
            await enqueue(
                connection,
                [row.target],
                row.table_name,
                [row.key],
                lane=1,
                first=row.first_change,
                last=row.last_change,
            )
    return len(rows)
