"""What a command is to the program, and what the program gives it."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fourfold.cli.output import Output
from fourfold.cli.stopping import Stop

if TYPE_CHECKING:
    from fourfold.settings import Settings

__all__ = ["Command", "Invocation"]


@dataclass(slots=True)
class Invocation:
    """One call of a command.

    Args:
        arguments: As they were parsed.
        output: Where it speaks.
        stop: How it is told to stop.
    """

    arguments: argparse.Namespace
    output: Output
    stop: Stop = field(default_factory=Stop)

    def settings(self, **values: Any) -> Settings:
        """Settings: what the command line says, over the environment, over `.env`.

        Args:
            **values: Further ones that win, by field name.

        Raises:
            ConfigurationError: Code `settings.invalid`; all that is wrong, without the values.
        """
        from fourfold.settings import Settings

        for name in ("data_folder", "embedder"):
            given = getattr(self.arguments, name, None)
            if given is not None:
                values.setdefault(name, given)
        return Settings(**values)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the program.

    Args:
        name: As it is typed.
        summary: One line for the list of commands.
        description: What it does, what it changes, what it doesn't do.
        example: A command line that works.
        run: Does it; returns an exit code.
        configure: Adds its own arguments.
    """

    name: str
    summary: str
    description: str
    example: str
    run: Callable[[Invocation], Awaitable[int]]
    configure: Callable[[argparse.ArgumentParser], None] = lambda _: None
