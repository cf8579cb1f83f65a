"""`fourfold verify`: do the targets hold what the rows say."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import open_store
from fourfold.cli.output import duration

if TYPE_CHECKING:
    from fourfold.cli.output import Output
    from fourfold.integrity.report import Progress, VerifyReport

__all__ = ["COMMAND", "add_targets", "code_of", "say_report", "tell_progress", "verify_document"]

_MOST_SHOWN = 50
_DESCRIPTION = """\
Compares every target with the rows, while both are in use: what differs is looked at again
after it has settled. Quick (the default) compares digests that were written with the data;
--deep also recomputes them from what is stored, compares vectors, and reads every byte of every
file. Changes nothing: see repair. Exits with 3 when something differs, with 4 when keys were
still on their way."""


def add_targets(parser: argparse.ArgumentParser) -> None:
    """The option `--target`."""
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME",
        dest="targets",
        help="only this one: files, graph, vectors.<collection>; may be given again (default: all)",
    )


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deep", action="store_true", help="read contents, vectors and bytes, too")
    parser.add_argument("--foreign", action="store_true", help="report what isn't Fourfold's, too (never a difference)")
    add_targets(parser)


async def _run(invocation: Invocation) -> int:
    from fourfold.web.verification import record_verify

    arguments, output = invocation.arguments, invocation.output
    async with open_store(invocation) as store:
        report = await store.integrity.verify(
            arguments.targets, deep=arguments.deep, foreign=arguments.foreign, progress=tell_progress(output)
        )
        if not arguments.targets:
            await record_verify(store.engine, report)
    output.document(verify_document(report))
    say_report(output, report)
    if report.differs:
        output.line("next: fourfold repair")
    return code_of(report)


def code_of(report: VerifyReport) -> ExitCode:
    """The exit code that a report means, for verify and repair."""
    if report.differs:
        return ExitCode.DIFFERS
    return ExitCode.UNHEALTHY if report.in_flight else ExitCode.OK


def tell_progress(output: Output) -> Callable[[Progress], None]:
    """What passes integrity's progress on to the output."""
    return lambda step: output.progress(step.step, step.done, step.total)


def verify_document(report: VerifyReport) -> dict[str, object]:
    """A report for programs."""
    return {
        "deep": report.deep,
        "differs": report.differs,
        "checked": report.checked,
        "counts": [
            {"target": target, "kind": kind, "number": number}
            for (target, kind), number in sorted(report.counts.items())
            if number
        ],
        "differences": report.differences,
        "in_flight": report.in_flight,
        "seconds": round(report.seconds, 3),
    }


def say_report(output: Output, report: VerifyReport) -> None:
    """A report for people."""
    how = "deep" if report.deep else "quick"
    rows = [
        (target, checked, sum(report.counts[target, kind] for kind in _kinds(report, target)))
        for target, checked in sorted(report.checked.items())
    ]
    output.table(("target", "checked", "different"), rows)
    for (target, kind), number in sorted(report.counts.items()):
        if number:
            output.line(f"{target}: {number:,} {kind}")
    for each in report.differences[:_MOST_SHOWN]:
        output.line(f"  {each.target} {each.kind}: {each.table} {each.key} {each.detail}".rstrip())
    if len(report.differences) > _MOST_SHOWN:
        output.line(f"  … and {len(report.differences) - _MOST_SHOWN:,} more; --json lists them")
    if report.in_flight:
        output.line(f"{report.in_flight:,} keys were still on their way and couldn't be judged: run it again")
    verdict = "differs from the rows" if report.differs else "agrees with the rows"
    output.line(f"{how} verify: {verdict} ({duration(report.seconds)})")


def _kinds(report: VerifyReport, target: str) -> list[str]:
    return [kind for found, kind in report.counts if found == target and kind != "foreign"]


COMMAND = Command(
    "verify",
    "do the targets hold what the rows say",
    _DESCRIPTION,
    "fourfold verify --deep --target graph",
    _run,
    _configure,
)
