"""`fourfold status`: is everything as it should be, how far behind is each target, and what can't be projected."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import TYPE_CHECKING

from fourfold.cli.argument import seconds
from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import application_of, open_rows, plan_of, require_initialised
from fourfold.cli.output import duration

if TYPE_CHECKING:
    from fourfold.cli.output import Output
    from fourfold.fourfold import StoreStatus
    from fourfold.projection.plan import Plan
    from fourfold.stores import Stores

__all__ = ["COMMAND", "read_status", "say_status"]

_DESCRIPTION = """\
Says what the rows know: keys that each target has not got yet, since when, and its last error;
keys in quarantine with their causes; triggers, tables and files that aren't as they should be.
Reads only, opens neither graph nor vectors, and mends nothing: see repair, retry, migrate.
Whether targets really hold what was written there, verify tells."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-lag",
        type=seconds,
        metavar="SECONDS",
        help="exit with 4 when a target lags by more (default: lag is no fault)",
    )


async def _run(invocation: Invocation) -> int:
    from fourfold.web.document import lag_seconds, status_document

    settings, plan = invocation.settings(), plan_of(application_of(invocation))
    require_initialised(settings)
    async with open_rows(settings, plan) as stores:
        status = await read_status(stores, plan)
    invocation.output.document(status_document(status))
    say_status(invocation.output, status)
    most = invocation.arguments.max_lag
    lags = most is not None and status.relay is not None and lag_seconds(status.relay) > most
    return ExitCode.OK if status.healthy and not lags else ExitCode.UNHEALTHY


async def read_status(stores: Stores, plan: Plan) -> StoreStatus:
    """Read what `Fourfold.status` does, without opening one: that is refused when something is wrong."""
    from fourfold.fourfold import StoreStatus
    from fourfold.installation import installation_problems
    from fourfold.relay.status import quarantined_keys, relay_status

    problems = await installation_problems(stores, plan)
    if any(problem.code in {"rows.not_migrated", "rows.newer_version"} for problem in problems):
        return StoreStatus(None, tuple(problems), ())
    relay = await relay_status(stores.engine, plan, ("files", *plan.targets))
    return StoreStatus(relay, tuple(problems), tuple(await quarantined_keys(stores.engine)))


def say_status(output: Output, status: StoreStatus) -> None:
    """A status for people."""
    output.line(_headline(status))
    if status.relay is not None:
        output.line()
        rows = [
            (
                target.name,
                target.keys,
                duration(target.lag_seconds),
                target.quarantined,
                _when(target.last_settled_at),
                _trouble(target.failures, target.paused_seconds, target.last_error),
            )
            for target in status.relay.targets
        ]
        output.table(("target", "keys waiting", "lag", "quarantined", "last settled", "trouble"), rows)
        if status.relay.lines:
            age = duration(status.relay.oldest_line_seconds)
            output.line(f"{status.relay.lines:,} lines wait for dispatch, the oldest since {age}; does a relay run?")
    for problem in status.problems:
        output.problem(
            f"problem: {problem.message}\n  hint: {problem.hint}\n  code: {problem.code} (docs/how-to/errors.md)"
        )
    for key in status.quarantined:
        output.problem(
            f"quarantined: {key.table} {key.key} for {key.target}, {key.attempts} attempts: {key.cause} ({key.code})"
        )


def _headline(status: StoreStatus) -> str:
    if not status.healthy:
        return "needs attention"
    return "in step: every change that was seen has reached every target" if status.in_step else "healthy, and behind"


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _trouble(failures: int, paused_seconds: float, last_error: str) -> str:
    if not failures:
        return ""
    paused = f", next try in {duration(paused_seconds)}" if paused_seconds else ""
    return f"{failures} failures{paused}: {last_error}"


COMMAND = Command(
    "status",
    "how far behind is each target, and what is wrong",
    _DESCRIPTION,
    "fourfold status --max-lag 60",
    _run,
    _configure,
)
