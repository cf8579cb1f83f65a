"""Stops, fails or kills a process at the named points of `fourfold.faultpoints`: what fault tests are made of.

One `FaultPoints` at a time per process. Nothing sleeps: a paused task waits for `resume`, the test waits for `reached`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Self

from fourfold import faultpoints

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["FaultPoints", "Pause"]


class Pause:
    """A point at which the first task to come waits until it is resumed."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._resumed = asyncio.Event()

    async def wait_reached(self, timeout: float = 30.0) -> None:
        """Return when a task stands at the point."""
        await asyncio.wait_for(self._reached.wait(), timeout)

    def resume(self) -> None:
        """Let it go on."""
        self._resumed.set()

    async def _stand(self) -> None:
        self._reached.set()
        await self._resumed.wait()


class FaultPoints:
    """Hooks into the fault points while its block runs.

    Example:
        ```python
        with FaultPoints() as points:
            points.fail("relay.write_after", StoreUnavailableError("answer lost"))
            await store.drain()
        ```
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._pauses: dict[str, Pause] = {}
        self._standing: list[Pause] = []
        self._errors: dict[str, list[BaseException]] = {}
        self._kill: tuple[str, int] | None = None

    def pause(self, point: str) -> Pause:
        """Stop the next task that reaches `point`, to wait for and to resume; later ones pass."""
        return self._pauses.setdefault(point, Pause())

    def fail(self, point: str, error: BaseException, *, times: int = 1) -> None:
        """Raise an error at a point.

        Args:
            point: Its name, as `relay.write_after`.
            error: What is raised there.
            times: At how many of the next visits.
        """
        self._errors.setdefault(point, []).extend([error] * times)

    def kill(self, point: str, *, visit: int = 1) -> None:
        """SIGKILL this process at a point: nothing is flushed, closed or rolled back.

        Args:
            point: Its name.
            visit: At which visit, counted from 1.
        """
        self._kill = (point, visit)

    def __enter__(self) -> Self:
        """Install the hooks."""
        faultpoints.set_hooks(self._visit, self._visit_sync)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the hooks, and let everybody go on."""
        faultpoints.set_hooks(None)
        for pause in (*self._pauses.values(), *self._standing):
            pause.resume()

    def _visit_sync(self, point: str) -> None:
        self.seen[point] += 1
        if self._kill is not None and self._kill[0] == point and self.seen[point] >= self._kill[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._errors.get(point):
            raise self._errors[point].pop(0)

    async def _visit(self, point: str) -> None:
        self._visit_sync(point)
        pause = self._pauses.pop(point, None)
        if pause is not None:
            self._standing.append(pause)
            await pause._stand()  # noqa: SLF001 - the two classes are one tool
