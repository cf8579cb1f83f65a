"""Rounds of load under `kill -9`: writers and relays die at random moments and are started again.

After each round everything is killed, leases end, a fresh worker drains, and two oracles compare: a deep verify, and
the contents worked out from the rows without Fourfold's code. Every process is stopped by its own id.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from fourfold.fourfold import Fourfold
from fourfold.rows.engine import write_transaction
from tests.world import assert_contents, assert_converged, open_world

ROOT = Path(__file__).parents[2]
WRITERS, RELAYS = 4, 2


@dataclass
class Figures:
    """What a run did."""

    rounds: int = 0
    kills: int = 0
    most_lag_seconds: float = 0.0
    seconds: float = 0.0
    said: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        refused = sum(count for what, count in self.said.items() if what.startswith("refused"))
        return (
            f"{self.rounds} rounds, {self.kills} kills, {self.said['committed']} commits, {refused} refused, "
            f"lag at most {self.most_lag_seconds:.1f} s, {self.seconds:.0f} s"
        )


class Victim:
    """A process that is started again whenever it was killed."""

    def __init__(self, role: str, url: str, folder: Path, figures: Figures) -> None:
        self._arguments = (role, url, str(folder))
        self._figures = figures
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()

    async def start(self, seed: int) -> None:
        self.ready.clear()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.soak.processes", *self._arguments, str(seed)),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        self._listening = asyncio.create_task(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        async for line in process.stdout:
            said = line.decode().strip()
            if said == "ready":
                self.ready.set()
            else:
                self._figures.said[said] += 1

    async def kill(self) -> None:
        """SIGKILL, by its id; one that ended by itself is a failure of the soak."""
        if self._process is None:
            return
        process, self._process = self._process, None
        ended = process.returncode
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await self._listening
        assert ended is None, f"{self._arguments[0]} ended by itself with {ended}"


async def one_round(victims: list[Victim], store: Fourfold, chance: random.Random, seconds: float, figures: Figures):
    await asyncio.gather(*(victim.start(chance.randrange(1 << 30)) for victim in victims))
    try:
        await asyncio.gather(*(asyncio.wait_for(victim.ready.wait(), 120) for victim in victims))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, chance.uniform(0.1, 1.0)))  # the moment of a kill is meant to be any
            status = await store.status()
            assert not status.problems, status.problems
            lags = [target.lag_seconds for target in status.relay.targets]
            figures.most_lag_seconds = max(figures.most_lag_seconds, status.relay.oldest_line_seconds, *lags)
            if time.monotonic() < end:
                victim = chance.choice(victims)
                await victim.kill()
                figures.kills += 1
                await victim.start(chance.randrange(1 << 30))
    finally:
        outcomes = await asyncio.gather(*(victim.kill() for victim in victims), return_exceptions=True)
    figures.kills += len(victims)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


async def come_to_rest(store: Fourfold) -> None:
    """End leases and pauses, drain, and compare."""
    async with write_transaction(store.engine) as connection:
        await connection.execute(sa.text("UPDATE fourfold_work SET lease_until = 0 WHERE token IS NOT NULL"))
        await connection.execute(sa.text("UPDATE fourfold_target SET paused_until = NULL"))
    async with write_transaction(store.stores.stage_engine) as connection:
        await connection.execute(sa.text("UPDATE fourfold_stage SET lease_until = 0"))
    await store.collect(grace_seconds=0)
    await assert_converged(store)
    await assert_contents(store)
    for path in store.settings.data_folder.glob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), path


async def run(
    url: str,
    folder: Path,
    *,
    rounds: int,
    seconds: float,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
    until: float = float("inf"),
) -> Figures:
    """Run rounds of kills on one set of stores.

    Args:
        url: Migrated or empty rows.
        folder: Data folder of the embedded targets.
        rounds: How many.
        seconds: Load per round.
        seed: Of the moments and of what is written; the operating system adds its own chance.
        say: Progress.
        until: `time.monotonic()` after which no new round begins.
    """
    chance, figures, started = random.Random(seed), Figures(), time.monotonic()
    async with open_world(url, folder) as store:
        await store.drain()
        victims = [Victim(role, url, folder, figures) for role in ["writer"] * WRITERS + ["relay"] * RELAYS]
        while figures.rounds < rounds and time.monotonic() < until:
            await one_round(victims, store, chance, seconds, figures)
            await come_to_rest(store)
            figures.rounds += 1
            figures.seconds = time.monotonic() - started
            say(str(figures))
    return figures
