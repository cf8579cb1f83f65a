"""Quarantined keys go back into the queue, in the lane of repairs."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fourfold.relay.enqueue import enqueue
from fourfold.rows import tables
from fourfold.rows.engine import write_transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["retry"]

_PIECE = 1_000  # keys per transaction


async def retry(engine: AsyncEngine, *, target: str | None = None, table: str | None = None) -> int:
    """Queue quarantined keys again; they stay listed until they succeed.

    Args:
        engine: Of the rows.
        target: Only this target's keys.
        table: Only this table's keys.

    Returns:
        How many were queued; in pieces, so a run that dies has queued some, and a second one queues them again.
    """
    c = tables.quarantine.c
    order = (c.target, c.table_name, c.key)
    query = sa.select(*order, c.first_change, c.last_change).order_by(*order).limit(_PIECE)
    if target is not None:
        query = query.where(c.target == target)
    if table is not None:
        query = query.where(c.table_name == table)
    queued, after = 0, None
    while True:
        piece = query if after is None else query.where(sa.tuple_(*order) > sa.tuple_(*after))
        async with write_transaction(engine) as connection:
            rows = (await connection.execute(piece)).all()
            for (named, owner_table), group in groupby(rows, key=itemgetter(0, 1)):
                await _queue(connection, named, owner_table, list(group))
        if not rows:
            return queued
        queued, after = queued + len(rows), rows[-1][:3]


async def _queue(
    connection: AsyncConnection, target: str, table: str, rows: Sequence[sa.Row[*tuple[Any, ...]]]
) -> None:
    """Queue keys of one table; they share their span of changes, so a waiter may wait longer, never too short."""
    await enqueue(
        connection,
        [target],
        table,
        [row.key for row in rows],
        lane=1,
        first=min(row.first_change for row in rows),
        last=max(row.last_change for row in rows),
    )
