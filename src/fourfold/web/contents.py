"""How much is in each store: for `fourfold stats` and the status page. Needs no web framework.

Each store is counted in a snapshot of its own, so numbers of different stores may be a commit apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.rows import tables
from fourfold.rows.engine import read_transaction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.projection.plan import Plan
    from fourfold.stores import Stores

__all__ = ["Contents", "read_contents"]


@dataclass(frozen=True, slots=True)
class Contents:
    """Counts per store.

    Args:
        rows: Rows by captured table.
        files: Registered objects.
        file_bytes: Their size together.
        nodes: Nodes by label.
        edges: Edges by type.
        stubs: Among the nodes, those that only edges need, by label; value nodes are always stubs.
        points: Points by collection.
    """

    rows: Mapping[str, int]
    files: int
    file_bytes: int
    nodes: Mapping[str, int]
    edges: Mapping[str, int]
    stubs: Mapping[str, int]
    points: Mapping[str, int]


async def read_contents(stores: Stores, plan: Plan) -> Contents:
    """Count everything; a full count of each table, so not for every second.

    Raises:
        FourfoldError: A store is away, or a declared table is missing.
    """
    files, file_bytes = await _count_files(stores.engine)
    graph = await stores.graph.statistics() if stores.graph is not None else None
    return Contents(
        rows=await _count_rows(stores.engine, plan),
        files=files,
        file_bytes=file_bytes,
        nodes=dict(sorted(graph.nodes.items())) if graph else {},
        edges=dict(sorted(graph.edges.items())) if graph else {},
        stubs=dict(sorted(graph.stubs.items())) if graph else {},
        points={name: await collection.count() for name, collection in sorted(stores.collections.items())},
    )


async def _count_rows(engine: AsyncEngine, plan: Plan) -> dict[str, int]:
    found = {}
    async with read_transaction(engine) as connection:
        for name, schema in sorted((spec.table, spec.schema) for spec in plan.captures):
            count = sa.select(sa.func.count()).select_from(sa.table(name, schema=schema))
            found[name] = int(await connection.scalar(count) or 0)
    return found


async def _count_files(engine: AsyncEngine) -> tuple[int, int]:
    size = sa.func.coalesce(sa.func.sum(tables.object_.c.size_bytes), 0)
    async with read_transaction(engine) as connection:
        count, size_bytes = (await connection.execute(sa.select(sa.func.count(), size))).one()
    return int(count), int(size_bytes)
