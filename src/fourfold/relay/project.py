"""Rows become fragments: read on the primary, in a snapshot newer than the claim.

All statements of one lot see one snapshot (PostgreSQL: `REPEATABLE READ`, SQLite: a read transaction), taken after the
tokens of earlier owners were revoked. A key whose row is gone becomes an empty fragment. A row that can't be read or
projected fails alone: the piece it was read in is split until it stands by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from fourfold.errors import FourfoldError
from fourfold.pieces import halves, pieces
from fourfold.projection.items import GraphFragment, Owner, PointFragment
from fourfold.relay.settle import Failure, concerns_all
from fourfold.rows.errors import map_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from fourfold.projection.items import Fragment
    from fourfold.projection.plan import Plan, TablePlan
    from fourfold.relay.claim import WorkKey

__all__ = ["READ_KEYS", "empty_fragment", "load", "project"]

READ_KEYS = 500  # keys per SELECT: well below every dialect's limit of parameters, also for composite keys


def empty_fragment(target: str, owner: Owner) -> Fragment:
    """What a row that is gone has in a target."""
    if target == "graph":
        return GraphFragment(owner)
    return PointFragment(owner, target.removeprefix("vectors."))


async def project(
    connection: AsyncConnection,
    plan: Plan,
    target: str,
    keys: Iterable[WorkKey],
    models: Mapping[str, str],
) -> tuple[list[Fragment], list[Failure]]:
    """Build the fragments of keys.

    Args:
        connection: In a read transaction begun after the claim.
        plan: The declarations.
        target: Name of the target.
        keys: Distinct keys, of any tables.
        models: Embedding model of each collection.

    Returns:
        Fragments, and a failure for each key that has none because its row can't be projected.
    """
    fragments: list[Fragment] = []
    failures: list[Failure] = []
    for table, works in _by_table(keys).items():
        table_plan = plan.tables.get(table)
        if table_plan is None or target not in plan.targets_of(table):
            fragments += [empty_fragment(target, Owner(table, work.key)) for work in works]
            continue
        for piece in pieces(works, READ_KEYS):
            await _project_piece(connection, table_plan, target, piece, models, fragments, failures)
    return fragments, failures


async def _project_piece(
    connection: AsyncConnection,
    table_plan: TablePlan,
    target: str,
    works: Sequence[WorkKey],
    models: Mapping[str, str],
    fragments: list[Fragment],
    failures: list[Failure],
) -> None:
    try:
        async with connection.begin_nested():  # an error in SQL must not spoil the snapshot for the others
            rows = await load(connection, table_plan, target, [work.key for work in works])
    # Any row's own types may fail to decode, with any exception: find the row, keep the cause.
    except Exception as error:
        mapped = map_error(error) if isinstance(error, (FourfoldError, SQLAlchemyError)) else None
        if mapped is not None and concerns_all(mapped):
            raise mapped from error
        if len(works) == 1:
            code = mapped.code if mapped else "projection.failed"
            failures.append(Failure(works[0], code, str(mapped or f"{type(error).__name__}: {error}")))
            return
        for half in halves(works):
            await _project_piece(connection, table_plan, target, half, models, fragments, failures)
        return
    for work in works:
        try:
            fragments.append(table_plan.fragment(target, work.key, rows.get(work.key), models))
        except FourfoldError as error:
            failures.append(Failure(work, error.code, str(error)))
        except Exception as error:  # noqa: BLE001 - a user's property may raise anything: it concerns this key alone
            failures.append(Failure(work, "projection.failed", f"{type(error).__name__}: {error}"))


async def load(
    connection: AsyncConnection, table_plan: TablePlan, target: str, keys: Sequence[str]
) -> dict[str, object]:
    """Read the rows of keys with what their projection depends on; a key that can't be decoded names no row."""
    decodable = [key for key in keys if _decodes(table_plan, key)]
    async with AsyncSession(connection, expire_on_commit=False, autoflush=False) as session:
        statement = table_plan.statement(decodable).options(*table_plan.load_options(target))
        instances = (await session.scalars(statement)).unique().all()
        rows: dict[str, object] = {table_plan.key_of(instance): instance for instance in instances}
        session.expunge_all()
    return rows


def _decodes(table_plan: TablePlan, key: str) -> bool:
    try:
        table_plan.key.decode(key)
    except (ValueError, TypeError):
        return False
    return True


def _by_table(keys: Iterable[WorkKey]) -> dict[str, list[WorkKey]]:
    tables: dict[str, list[WorkKey]] = {}
    for work in keys:
        tables.setdefault(work.table, []).append(work)
    return tables
