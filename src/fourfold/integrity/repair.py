"""Repair queues what differs: there is one way to write to a target, the relay's, and this is not a second one.

An owner's digest is forgotten first, so that the relay's write replaces contents that somebody altered in place. What
has no row (an extra, also of a retired table) is queued like any key: it projects to nothing and goes. Orphaned stubs,
which no key stands for, go by an action of the graph itself. Mass deletion asks first.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fourfold.errors import DriftError
from fourfold.pieces import pieces
from fourfold.projection.items import Owner
from fourfold.relay.enqueue import enqueue, enqueue_sweep
from fourfold.rows.engine import read_transaction, write_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.integrity.report import Difference
    from fourfold.projection.plan import Plan
    from fourfold.projection.target import Target

__all__ = ["guard_mass_deletion", "guard_rebuild", "queue_differences", "rebuild"]

_PIECE = 1_000
_MOST_EXTRA_SHARE = 0.2  # of what was checked; beyond, an empty or wrong rows database is likelier than so much drift
_FEW = 100  # below this many, a share says nothing


def guard_mass_deletion(target: str, extra: int, checked: int, *, confirmed: bool) -> None:
    """Refuse to remove a large share of a target unless that was confirmed.

    Raises:
        DriftError: Code `repair.mass_deletion`.
    """
    if confirmed or extra < _FEW or extra <= _MOST_EXTRA_SHARE * (checked + extra):
        return
    message = f"{target} holds {extra:,} owners that no row has, beside {checked:,} that one has"
    hint = "Check that these are the right rows; then run the command again with --yes"
    raise DriftError(message, code="repair.mass_deletion", hint=hint, target=target, extra=extra, checked=checked)


async def queue_differences(engine: AsyncEngine, target: Target[Any], differences: Iterable[Difference]) -> int:
    """Queue the keys of `differences` that are `target`'s.

    Returns:
        How many keys were queued.
    """
    keys: dict[str, set[str]] = defaultdict(set)
    for difference in differences:
        if difference.target == target.name and difference.kind in {"missing", "stale", "extra", "altered"}:
            keys[difference.table].add(difference.key)
    for table, found in keys.items():
        for piece in pieces(sorted(found), _PIECE):
            await target.invalidate([Owner(table, key) for key in piece])
            async with write_transaction(engine) as connection:
                await enqueue(connection, [target.name], table, piece, lane=1, first=0, last=0)
    return sum(len(found) for found in keys.values())


async def guard_rebuild(engine: AsyncEngine, plan: Plan, target: Target[Any], *, confirmed: bool) -> None:
    """Refuse to sweep a target that holds far more owners than there are rows, unless that was confirmed.

    Counts, not keys: a wrong or empty database shows by its number of rows, and comparing keys is what verify does.

    Raises:
        DriftError: Code `repair.mass_deletion`.
    """
    if confirmed:
        return
    rows = 0
    async with read_transaction(engine) as connection:
        for name, table_plan in plan.tables.items():
            if target.name in plan.targets_of(name):
                rows += await connection.scalar(sa.select(sa.func.count()).select_from(table_plan.table)) or 0
    owners = 0
    async for _ in target.scan_owners():
        owners += 1
    guard_mass_deletion(target.name, max(0, owners - rows), rows, confirmed=False)


async def rebuild(engine: AsyncEngine, plan: Plan, target: Target[Any]) -> int:
    """Have every fragment of a target written again, and what no row owns swept.

    Only queues: the relay writes, readers see each key's old or new state throughout, and a run that dies goes on
    where it was, because the queue is in the database.

    Returns:
        How many tables were queued.
    """
    await target.invalidate(None)
    tables = [table for name, table in plan.interests() if name == target.name]
    async with write_transaction(engine) as connection:
        for table in sorted(tables):
            await enqueue_sweep(connection, [target.name], table)
    return len(tables)
