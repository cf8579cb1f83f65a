"""The commands, in the order of `fourfold --help`. Each is a module: its text, its own arguments, and what it does."""

from typing import Final

from fourfold.cli.command import Command
from fourfold.cli.commands import (
    collect,
    demo,
    doctor,
    ingest,
    initialise,
    migrate,
    rebuild,
    relay,
    repair,
    retry,
    serve,
    stats,
    status,
    verify,
)

__all__ = ["COMMANDS"]

COMMANDS: Final[tuple[Command, ...]] = (
    initialise.COMMAND,
    ingest.COMMAND,
    status.COMMAND,
    stats.COMMAND,
    verify.COMMAND,
    repair.COMMAND,
    rebuild.COMMAND,
    retry.COMMAND,
    relay.COMMAND,
    doctor.COMMAND,
    demo.COMMAND,
    serve.COMMAND,
    migrate.COMMAND,
    collect.COMMAND,
)
