"""The command line: plain tables for people, one JSON document for programs, exit codes that mean something.

A command is a module of `cli.commands`. What it needs is imported when it runs: `--help` works on the base install
alone. Nothing in the library imports this package.
"""

from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.program import main

__all__ = ["ExitCode", "main"]
