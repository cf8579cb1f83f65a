"""Puts Fourfold into a database, and tells whether it is still there as it should be.

`install` is a deployment's step: own tables, triggers, declarations, in this order, each idempotent. A new SQLite
database gets it at its first start; anywhere else `fourfold migrate` runs it, never a request server.
`installation_problems` is what start, `status` and a timer ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourfold.errors import ConfigurationError, DriftError, FourfoldError
from fourfold.objects.marker import bind_store, check_marker
from fourfold.relay.declare import declarations_match, declare, is_declared
from fourfold.rows.capture import CaptureProblem, check_capture, install_capture
from fourfold.rows.engine import read_transaction, write_transaction
from fourfold.rows.migrate import check_version, migrate

if TYPE_CHECKING:
    from fourfold.projection.plan import Plan
    from fourfold.stores import Stores

__all__ = ["install", "installation_problems", "is_new"]


async def install(stores: Stores, plan: Plan) -> list[str]:
    """Bring own tables, triggers and declarations up to date.

    Args:
        stores: The open stores.
        plan: The declarations, from now on the database's.

    Returns:
        What was done, for people; empty when everything was there.

    Raises:
        ConfigurationError: A declared table doesn't exist yet: make it first.
        DriftError: The object store belongs to other rows.
    """
    await migrate(stores.engine, stage_engine=stores.stage_engine)
    done: list[str] = []
    async with write_transaction(stores.engine) as connection:
        done += [f"capture on {table}" for table in await install_capture(connection, plan.captures)]
        if not await declarations_match(connection, plan, hold=False):
            done += [f"{target}: {table} queued" for target, table in await declare(connection, plan)]
    await bind_store(stores.engine, stores.objects)
    return done


async def is_new(stores: Stores) -> bool:
    """Whether these rows have no declarations yet: Fourfold's tables are missing, or nothing was ever declared."""
    try:
        await check_version(stores.engine, stage_engine=stores.stage_engine)
    except ConfigurationError as error:
        # Tables of an older version are somebody's: only `fourfold migrate` changes them.
        return error.code == "rows.not_migrated" and error.seen is None
    async with read_transaction(stores.engine) as connection:
        return not await is_declared(connection)


async def installation_problems(stores: Stores, plan: Plan) -> list[FourfoldError]:
    """Everything about tables, triggers, declarations and the object store that isn't as it should be.

    Args:
        stores: The open stores.
        plan: What this program declares.

    Raises:
        FourfoldError: The rows went away meanwhile.
    """
    try:
        await check_version(stores.engine, stage_engine=stores.stage_engine)
    except FourfoldError as error:
        return [error]
    problems: list[FourfoldError] = []
    async with read_transaction(stores.engine) as connection:
        problems += [_as_error(problem) for problem in await check_capture(connection, plan.captures)]
        if not await declarations_match(connection, plan, hold=False):
            problems.append(_other_declarations())
    try:
        await check_marker(stores.engine, stores.objects)
    except FourfoldError as error:
        problems.append(error)
    return problems


def _as_error(problem: CaptureProblem) -> DriftError:
    return DriftError(
        f"{problem.table}: {problem.message}",
        code=f"capture.{problem.kind}",
        hint=problem.hint,
        table=problem.table,
        trigger=problem.trigger,
    )


def _other_declarations() -> DriftError:
    message = "the database has other declarations than this program, which neither dispatches nor claims"
    hint = "If this program is the newer one, run `fourfold migrate`; if not, replace it"
    return DriftError(message, code="relay.declarations", hint=hint)
