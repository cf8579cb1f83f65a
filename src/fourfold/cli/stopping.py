"""How a command is stopped: the first SIGINT or SIGTERM asks, a second one ends the process at once.

What works in lots (`relay`, `serve`, `ingest`) declares itself graceful: then the first signal sets `requested`, and
the lot in hand is finished. Everything else is cancelled, which rolls open transactions back. Ending at once is safe
too: whatever a killed process had in its hands is taken up again when its lease ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any, Final

from fourfold.cli.exit_codes import ExitCode

__all__ = ["Stop"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """The wish to stop, of one command."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.signal: int | None = None
        self._graceful = False

    @property
    def exit_code(self) -> ExitCode:
        """Of a command that was stopped before its end."""
        return ExitCode.TERMINATED if self.signal == signal.SIGTERM else ExitCode.INTERRUPTED

    @contextlib.contextmanager
    def graceful(self) -> Iterator[asyncio.Event]:
        """Inside, the first signal only sets the event that is yielded."""
        self._graceful = True
        try:
            yield self.requested
        finally:
            self._graceful = False

    @contextlib.contextmanager
    def listening(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Inside, signals come here; `task` is what is cancelled."""
        loop = asyncio.get_running_loop()
        taken = []
        for number in _SIGNALS:
            # Without support in the loop (Windows) Ctrl-C stays a KeyboardInterrupt.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, self.receive, number, task)
                taken.append(number)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)

    def receive(self, number: int, task: asyncio.Task[Any]) -> None:
        """Take a signal."""
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        self.requested.set()
        if not self._graceful:
            task.cancel()
