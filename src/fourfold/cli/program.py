"""From arguments to an exit code: runs one command, and turns what it raises into a message, a hint and a code."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from fourfold import __version__
from fourfold.cli.command import Command, Invocation
from fourfold.cli.commands import COMMANDS
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.output import Output
from fourfold.cli.parser import build_parser, parse
from fourfold.errors import FourfoldError

if TYPE_CHECKING:
    import argparse

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, *, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; default is the process's.
        out: Default is standard output.
        err: Default is standard error.

    Returns:
        The exit code; see `ExitCode`.

    Raises:
        SystemExit: For `--help`, `--version` and wrong usage.
    """
    parser = build_parser(COMMANDS, __version__)
    parsed = parse(parser, sys.argv[1:] if arguments is None else arguments)
    if parsed.command is None:
        parser.print_help(out)
        return ExitCode.OK
    command = next(command for command in COMMANDS if command.name == parsed.command)
    output = Output(json_wanted=parsed.json, quiet=parsed.quiet, out=out, err=err)
    try:
        code = _run(command, parsed, output)
    except BrokenPipeError:
        code = _say_nothing()
    if arguments is None:
        # The process ends here, and the system takes its memory back at once; Python's last collection over everything
        # that was imported took a second.
        gc.freeze()
    return code


def _run(command: Command, parsed: argparse.Namespace, output: Output) -> int:
    invocation = Invocation(parsed, output)
    try:
        return asyncio.run(_supervise(command, invocation))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return _say_interrupted(invocation)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - top of the program: every error becomes a message and an exit code
        return _say_error(error, invocation)


def _say_nothing() -> int:
    """Who read our output has gone (`| head`): nobody is left to tell, and Python flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.INTERRUPTED


async def _supervise(command: Command, invocation: Invocation) -> int:
    task = asyncio.current_task()
    if task is None:
        raise AssertionError  # asyncio.run makes one
    with invocation.stop.listening(task):
        return await command.run(invocation)


def _say_interrupted(invocation: Invocation) -> int:
    code = invocation.stop.exit_code
    interrupted = FourfoldError(code.meaning, code="cli.interrupted", hint="Run it again to go on")
    invocation.output.document({"error": error_document(interrupted)})
    invocation.output.problem(f"stopped: {code.meaning}")
    return code


def _say_error(error: BaseException, invocation: Invocation) -> int:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    output = invocation.output
    if invocation.arguments.verbose:
        output.problem("".join(traceback.format_exception(error)).rstrip())
    known = error if isinstance(error, FourfoldError) else None
    if known is None:
        what = f"{type(error).__name__}: {error}"
        known = FourfoldError(
            f"unexpected {what}",
            code="cli.unexpected",
            hint="This is a defect; --verbose shows where. Please report it",
        )
    output.document({"error": error_document(known)})
    if not output.json_wanted:
        for text in error_lines(known):
            output.problem(text)
    return ExitCode.ERROR


def error_document(error: FourfoldError) -> dict[str, object]:
    """An error for programs."""
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        "type": type(error).__name__,
    }


def error_lines(error: FourfoldError) -> list[str]:
    """An error for people: what failed, what to do, and where to read on."""
    lines = [f"error: {error.message}"]
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    lines.append(f"  code: {error.code} (docs/how-to/errors.md)")
    return lines
