"""What the database knows of the declarations: their hash, and which table interests which target.

`declare` runs at deployment (`fourfold init`, `migrate`, a start that installs). From its commit on, workers with other
declarations neither dispatch nor claim, and every table whose projection changed is swept, so nothing of the old shape
stays. Dispatch and claim hold the hash's row shared, so that a deployment waits for those under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.relay.dialect import statement
from fourfold.relay.enqueue import enqueue_sweep
from fourfold.rows import tables

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from fourfold.projection.plan import Plan

__all__ = ["declarations_match", "declare", "is_declared"]

_DECLARED = "SELECT value FROM fourfold_meta WHERE name = 'declarations'"
_HOLD = _DECLARED + " {for_share}"

_SET = """
INSERT INTO fourfold_meta (name, value) VALUES ('declarations', :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


async def declarations_match(connection: AsyncConnection, plan: Plan, *, hold: bool = True) -> bool:
    """Whether the database's declarations are `plan`'s; `hold` keeps them so until the (write) transaction ends."""
    declared = await connection.scalar(statement(_HOLD if hold else _DECLARED, connection.dialect.name))
    return bool(declared == plan.digest)


async def is_declared(connection: AsyncConnection) -> bool:
    """Whether anybody has recorded declarations in this database."""
    return await connection.scalar(sa.text(_DECLARED)) is not None


async def declare(connection: AsyncConnection, plan: Plan) -> list[tuple[str, str]]:
    """Record `plan`, and queue a sweep for each (target, table) whose projection is new, changed or gone.

    A target that nothing declares any more is forgotten with its work; its data is not touched.

    Args:
        connection: In a write transaction.
        plan: The declarations that count from now on.

    Returns:
        The (target, table) pairs that will be swept, sorted.
    """
    await connection.execute(sa.text(_SET), {"value": plan.digest})
    known = {
        (row.target, row.table_name): row.declaration for row in await connection.execute(sa.select(tables.interest))
    }
    wanted = dict(plan.interests())
    changed = sorted(pair for pair in known.keys() | wanted.keys() if known.get(pair) != wanted.get(pair))
    for target, table in changed:
        where = (tables.interest.c.target == target, tables.interest.c.table_name == table)
        await connection.execute(sa.delete(tables.interest).where(*where))
        if (target, table) in wanted:
            row = {"target": target, "table_name": table, "declaration": wanted[target, table]}
            await connection.execute(sa.insert(tables.interest), row)
        if target in plan.targets:
            await enqueue_sweep(connection, [target], table)
    for target in {target for target, _ in known} - set(plan.targets):
        # Nobody opens it any more, so nobody could settle its work; what it holds stays where it is.
        for own in (tables.work.c.target, tables.quarantine.c.target, tables.target.c.name):
            await connection.execute(sa.delete(own.table).where(own == target))
    return changed
