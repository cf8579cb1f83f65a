"""`fourfold collect`: removes files that nothing names any more."""

from __future__ import annotations

import argparse

from fourfold.cli.argument import seconds
from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import application_of, open_rows, plan_of, require_initialised

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Marks files that no row, upload or pin names, removes those that were marked for longer than the
time of grace, and ends uploads whose lease ran out. A row that names a file meanwhile keeps it.
Refuses everything when the store seems to have lost more than a share of its objects. The bytes
go with the next step of a relay. Run it on a timer, more often than the time of grace."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grace-seconds",
        type=seconds,
        metavar="SECONDS",
        help="time of grace (default: FOURFOLD_COLLECTION_GRACE_SECONDS)",
    )


async def _run(invocation: Invocation) -> int:
    from fourfold.objects.collection import collect

    output, settings, plan = invocation.output, invocation.settings(), plan_of(application_of(invocation))
    require_initialised(settings)
    grace_seconds = invocation.arguments.grace_seconds
    async with open_rows(settings, plan) as stores:
        report = await collect(
            stores.engine,
            stores.stages,
            stores.objects,
            grace_seconds=settings.collection_grace_seconds if grace_seconds is None else grace_seconds,
            max_missing_share=settings.collection_most_missing,
        )
    output.document(
        {
            "marked": report.marked,
            "unmarked": report.unmarked,
            "removed": report.removed,
            "uploads_ended": report.stages_queued,
            "uploads_tidied": report.stages_dropped,
        }
    )
    counts = (
        ("marked as unnamed", report.marked),
        ("named again", report.unmarked),
        ("removed", len(report.removed)),
        ("uploads ended", len(report.stages_queued)),
    )
    output.table(("files", "number"), counts)
    if report.removed or report.stages_queued:
        output.line("their bytes go with the next step of a relay: fourfold relay --once")
    return ExitCode.OK


COMMAND = Command(
    "collect",
    "remove files that nothing names",
    _DESCRIPTION,
    "fourfold collect --grace-seconds 86400",
    _run,
    _configure,
)
