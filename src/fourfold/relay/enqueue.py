"""The one way into `fourfold_work`: an upsert that keeps a key once per target, however often it changed.

Runs inside the caller's transaction. A row in a worker's hands is not taken from him: its `version` grows, and he
frees it instead of deleting it when he settles. Keys are sorted, so that two who enqueue can't deadlock.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.relay.dialect import statement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["UPSERT_TAIL", "enqueue", "enqueue_sweep", "own_work", "share_work", "swept_table"]

# A work row of this "table" stands for the whole table: queue every row, and every owner that has no row any more. Its
# key is empty. (An empty key alone would not do: a text key may be empty, while no table's name has a colon.)
_SWEEP = "sweep:"

# `version` counts dispatches: change ids of transactions that commit late are smaller than ones that were seen already.
UPSERT_TAIL = """
ON CONFLICT (target, table_name, key) DO UPDATE SET
    lane = {least}(fourfold_work.lane, excluded.lane),
    version = fourfold_work.version + 1,
    first_change = CASE WHEN fourfold_work.token IS NULL
        THEN {least}(fourfold_work.first_change, excluded.first_change) ELSE fourfold_work.first_change END,
    pending_first = CASE WHEN fourfold_work.token IS NULL THEN NULL
        ELSE {least}(coalesce(fourfold_work.pending_first, excluded.first_change), excluded.first_change) END,
    pending_since = CASE WHEN fourfold_work.token IS NULL THEN NULL
        ELSE coalesce(fourfold_work.pending_since, excluded.queued_at) END,
    last_change = {greatest}(fourfold_work.last_change, excluded.last_change)
"""

# Dispatch queues changed keys and dependents in several statements, so it can't lock work rows in one order; everybody
# else does (by target, table and key). So dispatch has the table to itself, and the others share it.
_OWN = "SELECT pg_advisory_xact_lock(hashtext('fourfold.work'))"
_SHARE = "SELECT pg_advisory_xact_lock_shared(hashtext('fourfold.work'))"

_ENQUEUE = (
    """
INSERT INTO fourfold_work (target, table_name, key, lane, first_change, last_change, queued_at)
SELECT t.value, CAST(:table_name AS text), k.value,
    CAST(:lane AS integer), CAST(:first AS bigint), CAST(:last AS bigint), {now}
FROM {each_text:targets} AS t, {each_text:keys} AS k
WHERE 1 = 1 ORDER BY 1, 2, 3
"""
    + UPSERT_TAIL
)


async def own_work(connection: AsyncConnection) -> None:
    """Wait until nobody else changes work rows, and keep it so until the transaction ends."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.text(_OWN))


async def share_work(connection: AsyncConnection) -> None:
    """Wait until no dispatch is under way, and keep it so until the transaction ends; before work rows are changed."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.text(_SHARE))


async def enqueue(
    connection: AsyncConnection,
    targets: Iterable[str],
    table: str,
    keys: Iterable[str],
    *,
    lane: int,
    first: int,
    last: int,
) -> None:
    """Queue distinct keys of a table for targets.

    Args:
        connection: In a write transaction.
        targets: Names of targets.
        table: Owner table of the keys.
        keys: Encoded keys.
        lane: 0 for users' changes, 1 for repairs and rebuilds (claimed after lane 0).
        first: Least change id that this covers, 0 when no change line stands behind it.
        last: Greatest change id that this covers.
    """
    parameters = {
        "targets": json.dumps(sorted(set(targets))),
        "keys": json.dumps(sorted(set(keys))),
        "table_name": table,
        "lane": lane,
        "first": first,
        "last": last,
    }
    await share_work(connection)
    await connection.execute(statement(_ENQUEUE, connection.dialect.name), parameters)


async def enqueue_sweep(
    connection: AsyncConnection, targets: Iterable[str], table: str, *, lane: int = 1, first: int = 0, last: int = 0
) -> None:
    """Queue a whole table for targets; see `enqueue`."""
    await enqueue(connection, targets, _SWEEP + table, [""], lane=lane, first=first, last=last)


def swept_table(table: str) -> str | None:
    """Return the table that a work row sweeps, None for the work row of a key.

    Example:
        >>> swept_table("sweep:songs"), swept_table("songs")
        ('songs', None)
    """
    return table.removeprefix(_SWEEP) if table.startswith(_SWEEP) else None
