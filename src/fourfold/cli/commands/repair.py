"""`fourfold repair`: queues what differs, has it written again, and looks once more."""

from __future__ import annotations

import argparse

from fourfold.cli.command import Command, Invocation
from fourfold.cli.commands.verify import add_targets, code_of, say_report, tell_progress, verify_document
from fourfold.cli.opening import open_store
from fourfold.cli.settling import wait_in_step

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Verifies, queues every key that differs, has a relay write them again from the rows, and
verifies once more. The rows are never changed. What no row has is removed from the targets; a
large share of a target only with --yes. Bytes of a file that are missing or altered can't be
made again from rows: they are listed, and the exit code stays 3. As verify it exits with 4 when
keys were still on their way."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deep", action="store_true", help="verify deeply, before and after")
    parser.add_argument("--yes", action="store_true", help="remove a large share of a target, too")
    add_targets(parser)


async def _run(invocation: Invocation) -> int:
    from fourfold.web.verification import record_verify

    arguments, output = invocation.arguments, invocation.output
    progress = tell_progress(output)
    async with open_store(invocation, relay=True, embeds=True) as store:
        found = await store.integrity.verify(arguments.targets, deep=arguments.deep, progress=progress)
        queued, after = 0, found
        if found.differs:
            queued = await store.integrity.repair(found, confirmed=arguments.yes)
            await wait_in_step(store, output.progress)
            after = await store.integrity.verify(arguments.targets, deep=arguments.deep, progress=progress)
        if not arguments.targets:
            await record_verify(store.engine, after)
    output.document({"found": verify_document(found), "queued": queued, "after": verify_document(after)})
    if found.differs:
        say_report(output, found)
        output.line(f"{queued:,} keys queued and written again")
        say_report(output, after)
    elif found.in_flight:
        say_report(output, found)
    else:
        output.line("nothing to repair")
    return code_of(after)


COMMAND = Command(
    "repair", "write again what differs from the rows", _DESCRIPTION, "fourfold repair --deep", _run, _configure
)
