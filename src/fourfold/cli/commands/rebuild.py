"""`fourfold rebuild`: has every fragment of a target written again."""

from __future__ import annotations

import argparse

from fourfold.cli.command import Command, Invocation
from fourfold.cli.commands.verify import add_targets
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import open_store
from fourfold.cli.settling import wait_in_step

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Queues every row for a target and has a relay write all of it again, then sweeps what no row
has. Readers see each key's old or new state throughout. It may be stopped: the queue is in the
database, and whichever relay runs next goes on. Texts that were embedded before aren't embedded
again. A target that holds far more than there are rows is swept only with --yes."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="sweep a large share of a target, too")
    parser.add_argument("--no-wait", action="store_true", help="only queue; `fourfold relay` does the rest")
    add_targets(parser)


async def _run(invocation: Invocation) -> int:
    output = invocation.output
    waits = not invocation.arguments.no_wait
    async with open_store(invocation, relay=waits, embeds=waits) as store:
        targets = await store.integrity.rebuild(invocation.arguments.targets, confirmed=invocation.arguments.yes)
        if waits:
            await wait_in_step(store, output.progress)
        quarantined = len((await store.status()).quarantined)
    output.document({"targets": targets, "settled": waits, "quarantined": quarantined})
    output.line(f"{'written again' if waits else 'queued'}: {', '.join(targets) or 'nothing'}")
    if quarantined:
        output.problem(f"{quarantined} keys in quarantine: see `fourfold status`")
        return ExitCode.UNHEALTHY
    return ExitCode.OK


COMMAND = Command(
    "rebuild", "write a whole target again", _DESCRIPTION, "fourfold rebuild --target graph", _run, _configure
)
