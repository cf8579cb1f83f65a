"""The relay: a stateless worker that dispatches, and brings each target up to date in a loop of its own.

Any number may run, in any process; each may die at any moment. One target's outage delays no other, because each has
its own loop and its own pause. `run` goes on until it is told to stop and finishes the lots in hand; `drain` works
until nothing is left that can be done now. Nothing is logged and forgotten: what goes wrong stands on the target it
concerns (`fourfold_target`), on the key (`fourfold_quarantine`), or in `statistics()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from fourfold.errors import FourfoldError, RevokedError
from fourfold.faultpoints import reach
from fourfold.relay.claim import claim, end_token, renew, revoked, sweep_tokens
from fourfold.relay.dispatch import dispatch
from fourfold.relay.enqueue import swept_table
from fourfold.relay.settle import fail, pause, settle
from fourfold.relay.sweep import sweep
from fourfold.rows.engine import write_transaction
from fourfold.rows.errors import map_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.projection.plan import Plan
    from fourfold.relay.claim import Lot, WorkKey
    from fourfold.relay.delivery import Delivery
    from fourfold.relay.settle import Failure

__all__ = ["Relay", "RelayStatistics"]

_LINES = {"postgresql": 200, "sqlite": 5_000}  # per dispatch: up to 200,000 keys; SQLite has one key per line
_POLL_LEAST_SECONDS = 0.02
_POLL_MOST_SECONDS = 1.0
_TOKEN_SWEEP_SECONDS = 300.0


@dataclass(slots=True)
class RelayStatistics:
    """Counts since the worker started."""

    lines: int = 0
    lots: int = 0
    settled: int = 0
    freed: int = 0
    quarantined: int = 0
    revoked: int = 0
    last_error: str = ""
    by_target: dict[str, int] = field(default_factory=dict)


class Relay:
    """A worker.

    Args:
        engine: Of the rows; the primary.
        plan: This process's declarations; when the database has others, the worker waits, and `status` says so.
        deliveries: One per target.
        lease_seconds: After this a stopped worker's keys go to another one; renewed while a lot is worked on.
        name: For people; default is host and process id.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        plan: Plan,
        deliveries: Iterable[Delivery],
        *,
        lease_seconds: float = 60.0,
        name: str = "",
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._deliveries = {delivery.name: delivery for delivery in deliveries}
        self._lease_seconds = lease_seconds
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._statistics = RelayStatistics()
        self._wake = {name: asyncio.Event() for name in ("dispatch", *self._deliveries)}
        self._stopping = asyncio.Event()
        self._next_token_sweep: dict[str, float] = {}

    def statistics(self) -> RelayStatistics:
        """What this worker did so far."""
        return self._statistics

    def wake(self) -> None:
        """Say that something was committed in this process; polling would find it too, later."""
        self._wake["dispatch"].set()

    def stop(self) -> None:
        """Ask `run` to end after the lots in hand."""
        self._stopping.set()
        for event in self._wake.values():
            event.set()

    async def run(self) -> None:
        """Work until `stop` is called or the task is cancelled; survives everything else."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop("dispatch", self.dispatch_once))
            for name, delivery in self._deliveries.items():
                group.create_task(self._loop(name, partial(self._tend, delivery)))

    async def _loop(self, name: str, step: Callable[[], Awaitable[int]]) -> None:
        idle_seconds = _POLL_LEAST_SECONDS
        while not self._stopping.is_set():
            self._wake[name].clear()
            try:
                done = await step()
            # Top of a worker loop: the rows may be away for hours, and the worker must outlive that.
            except Exception as error:  # noqa: BLE001
                self._statistics.last_error = f"{type(error).__name__}: {error}"
                done = 0
            idle_seconds = _POLL_LEAST_SECONDS if done else min(idle_seconds * 2, _POLL_MOST_SECONDS)
            if not done:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake[name].wait(), idle_seconds)

    async def _tend(self, delivery: Delivery) -> int:
        """A step of a target's loop; sweeps dead workers' tokens when there is nothing else to do."""
        done = await self.bring_once(delivery)
        if not done:
            now = asyncio.get_running_loop().time()
            if now >= self._next_token_sweep.get(delivery.name, 0.0):
                self._next_token_sweep[delivery.name] = now + _TOKEN_SWEEP_SECONDS
                await sweep_tokens(self._engine, delivery, age_seconds=_TOKEN_SWEEP_SECONDS)
        return done

    async def drain(self) -> None:
        """Work until there is nothing left that can be done now (paused targets and others' leases are left).

        Raises:
            FourfoldError: The rows can't be reached.
        """
        while True:
            done = await self.dispatch_once()
            done += await self._bring_each_once()
            if not done:
                return

    async def _bring_each_once(self) -> int:
        tasks = [asyncio.create_task(self.bring_once(delivery)) for delivery in self._deliveries.values()]
        try:
            return sum(await asyncio.gather(*tasks))
        finally:  # whoever is left must not go on over stores that are about to be closed
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def dispatch_once(self) -> int:
        """Take one helping of change lines; returns how many."""
        lines = await dispatch(self._engine, self._plan, limit=_LINES[self._engine.dialect.name])
        self._statistics.lines += lines
        if lines:
            for name in self._deliveries:
                self._wake[name].set()
        return lines

    async def bring_once(self, delivery: Delivery) -> int:
        """Claim one lot of a target and bring it to its end; returns how many keys were claimed."""
        try:
            lot = await claim(
                self._engine,
                self._plan,
                delivery,
                worker=self.name,
                limit=delivery.lot_size,
                lease_seconds=self._lease_seconds,
            )
        except FourfoldError as error:
            async with write_transaction(self._engine) as connection:
                await pause(connection, delivery.name, error)
            return 0
        if lot is None:
            return 0
        self._statistics.lots += 1
        try:
            async with self._heartbeat(lot):
                await self._bring(delivery, lot)
        except RevokedError as error:
            self._statistics.revoked += 1
            await self._give_back(lot, error, at_fault=False)
        # Top of a worker's lot: whatever it was, the keys go back and the target rests.
        except Exception as error:  # noqa: BLE001
            cause = map_error(error) if isinstance(error, SQLAlchemyError) else error
            await self._give_back(lot, cause, at_fault=True)
        return len(lot.keys)

    async def _bring(self, delivery: Delivery, lot: Lot) -> None:
        if lot.unrevoked:
            await reach("relay.revoke_before")
            await delivery.revoke_tokens(lot.unrevoked)
            await reach("relay.revoke_after")
            await revoked(self._engine, lot)
        failures: list[Failure] = []
        keys: list[WorkKey] = []
        for work in lot.keys:
            table = swept_table(work.table)
            if table is None:
                keys.append(work)
            else:
                await sweep(self._engine, self._plan, delivery, table, work)
        if keys:
            failures = await delivery.bring(lot.token, keys)
        settlement = await settle(self._engine, lot, failures)
        self._count(lot, settlement.settled, settlement.freed, settlement.quarantined)
        # Finished, and every request under it is answered: the target need not know it any longer.
        await end_token(self._engine, delivery, lot.token)

    def _count(self, lot: Lot, settled: int, freed: int, quarantined: int) -> None:
        counts = self._statistics
        counts.settled += settled
        counts.freed += freed
        counts.quarantined += quarantined
        counts.by_target[lot.target] = counts.by_target.get(lot.target, 0) + settled

    async def _give_back(self, lot: Lot, error: Exception, *, at_fault: bool) -> None:
        self._statistics.last_error = f"{type(error).__name__}: {error}"
        await fail(self._engine, lot, error, pause_target=at_fault)

    @contextlib.asynccontextmanager
    async def _heartbeat(self, lot: Lot) -> AsyncIterator[None]:
        async def beat() -> None:
            while True:
                await asyncio.sleep(self._lease_seconds / 3)
                with contextlib.suppress(FourfoldError):  # a missed beat is no error: the next one may come in time
                    await renew(self._engine, lot, lease_seconds=self._lease_seconds)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])  # unlike `await task` it keeps a cancellation of our own
