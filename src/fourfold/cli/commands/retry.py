"""`fourfold retry`: gives keys in quarantine another try."""

from __future__ import annotations

import argparse

from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import application_of, open_rows, plan_of, require_initialised
from fourfold.errors import NotFoundError, did_you_mean

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Queues keys in quarantine again, after their cause is mended. Only queues: a relay that runs
takes them up; they stay listed in status until they succeed. A row that changes is tried again
by itself."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="NAME", help="only this target's keys")
    parser.add_argument("--table", metavar="NAME", help="only this table's keys")


async def _run(invocation: Invocation) -> int:
    from fourfold.relay.retry import retry

    arguments, settings, plan = invocation.arguments, invocation.settings(), plan_of(application_of(invocation))
    require_initialised(settings)
    targets = ("files", *plan.targets)
    if arguments.target is not None and arguments.target not in targets:
        message = f"no target {arguments.target!r}{did_you_mean(arguments.target, targets)}"
        hint = f"There are {', '.join(targets)}"
        raise NotFoundError(message, code="integrity.unknown_target", hint=hint, target=arguments.target)
    async with open_rows(settings, plan) as stores:
        queued = await retry(stores.engine, target=arguments.target, table=arguments.table)
    invocation.output.document({"queued": queued})
    asked = "".join(f" for {name}" for name in (arguments.target, arguments.table) if name is not None)
    invocation.output.line(f"{queued:,} keys queued again" if queued else f"nothing is in quarantine{asked}")
    return ExitCode.OK


COMMAND = Command(
    "retry", "try keys in quarantine again", _DESCRIPTION, "fourfold retry --table recordings", _run, _configure
)
