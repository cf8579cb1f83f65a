"""`fourfold relay`: a worker, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import open_store

if TYPE_CHECKING:
    from fourfold.cli.output import Output
    from fourfold.relay.worker import Relay

__all__ = ["COMMAND"]

_REPORT_SECONDS = 5.0
_DESCRIPTION = """\
Runs a worker that brings graph, vectors and files after the rows. Any number may run, on any
machine that reaches the stores; each may be killed at any moment. SIGTERM and Ctrl-C end it
after the lots in hand, a second one at once. With --json a line at the start and one at the
end."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name", default="", metavar="NAME", help="of the worker, for people (default: host and process)"
    )
    parser.add_argument("--once", action="store_true", help="end when there is nothing left that can be done now")


async def _run(invocation: Invocation) -> int:
    arguments, output = invocation.arguments, invocation.output
    async with open_store(invocation, embeds=True) as store:
        worker = store.new_relay(arguments.name)
        output.document({"event": "started", "name": worker.name, "targets": store.targets})
        output.line(f"relay {worker.name}: {', '.join(store.targets)}")
        if arguments.once:
            await worker.drain()
        else:
            await _work(worker, invocation)
        statistics = worker.statistics()
    if arguments.once and statistics.last_error:  # nothing reported it meanwhile
        output.problem(f"relay: {statistics.last_error}")
    output.document({"event": "stopped", "name": worker.name, "statistics": statistics})
    output.line(
        f"{statistics.settled:,} keys settled in {statistics.lots:,} lots, {statistics.quarantined:,} quarantined"
    )
    return ExitCode.OK


async def _work(worker: Relay, invocation: Invocation) -> None:
    with invocation.stop.graceful() as requested:
        task = asyncio.create_task(worker.run(), name="fourfold-relay")
        reporter = asyncio.create_task(_report(worker, invocation.output))
        stopping = asyncio.create_task(requested.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            invocation.output.note("stopping after the lots in hand")
            worker.stop()
            await task
        finally:
            for each in (stopping, reporter):
                each.cancel()
            await asyncio.gather(stopping, reporter, return_exceptions=True)


async def _report(worker: Relay, output: Output) -> None:
    """Say what goes wrong as soon as it changes, and how much was done."""
    said = ""
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        statistics = worker.statistics()
        if statistics.last_error != said:
            said = statistics.last_error
            output.problem(f"relay: {said}")
        output.progress("settled", statistics.settled)


COMMAND = Command(
    "relay", "run a worker until it is stopped", _DESCRIPTION, "fourfold relay --name worker-1", _run, _configure
)
