"""Scripts: made from a number, played action by action, and cut down to what their failure needs.

A number gives the same script in every run, and an action is a plain value that prints as it is written: a failure's
message can be pasted into `play`. An action that doesn't apply to the state it meets does nothing, so any part of a
script is a script too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fourfold.relay.claim import sweep_tokens
from fourfold.testing.faults import FaultPoints
from tests.property.machine.invariants import look, replay_writes_nothing, settle
from tests.property.machine.operations import SONGS, Operation, an_operation
from tests.property.machine.world import ANYWHERE, DISPATCH, IN_THREAD, IN_TRANSACTION, TARGETS, World
from tests.world import open_world

Action = tuple[object, ...]

STEPS = 40
_MOST_OPEN = 3
_HANG_SECONDS = 60.0  # a step takes milliseconds

# How often each happens, relative to the others.
_WEIGHTS = {
    "write": 8,
    "dispatch": 2,
    "bring": 10,
    "wake": 3,
    "leases run out": 2,
    "put file": 2,
    "collect": 1,
    "redeliver": 1,
    "sweep tokens": 1,
    "settle": 0.5,
}
_POSTGRESQL_WEIGHTS = {"begin": 2, "go on": 1, "end": 2, "truncate": 0.5}


def a_script(number: int, dialect: str) -> list[Action]:
    """The script of a number; the same in every run."""
    chance = random.Random(number)
    weights = _WEIGHTS | (_POSTGRESQL_WEIGHTS if dialect == "postgresql" else {})
    kinds = chance.choices(list(weights), weights=list(weights.values()), k=STEPS)
    return [_an_action(kind, chance, dialect) for kind in kinds]


def _an_action(kind: str, chance: random.Random, dialect: str) -> Action:
    def some(most: int) -> list[Operation]:
        return [an_operation(chance, dialect) for _ in range(chance.randint(1, most))]

    commit, which, target = chance.random() < 0.85, chance.randrange(6), chance.choice(TARGETS)
    mode = chance.choice(["whole", "whole", "pause", "pause", "crash", "fail"])
    arguments: dict[str, Callable[[], Action]] = {
        "write": lambda: (some(4), chance.random() < 0.5, commit),
        "begin": lambda: (some(3),),
        "go on": lambda: (which, an_operation(chance, dialect)),
        "end": lambda: (which, commit),
        "truncate": lambda: (chance.choice(["songs", "artists", "notes", "pairs"]),),
        "dispatch": lambda: (which % 2, mode, chance.choice(DISPATCH)),
        "bring": lambda: (
            which % 2,
            chance.choice([*TARGETS, *TARGETS, "files"]),
            mode,
            chance.choice(ANYWHERE + IN_TRANSACTION + IN_THREAD),
            chance.random() < 0.7,
        ),
        "wake": lambda: (which, chance.random() < 0.3),
        "put file": lambda: (chance.choice(SONGS), commit),
        "redeliver": lambda: (target, chance.randrange(20)),
        "sweep tokens": lambda: (target,),
    }
    return (kind, *arguments.get(kind, tuple)())


async def perform(world: World, action: Action) -> None:  # noqa: C901, PLR0912 - one case per kind of action
    match action:
        case ("write", work, orm, commit):
            await world.unit(work, orm=orm, commit=commit)
        case ("begin", work) if len(world.opened) < _MOST_OPEN:
            await world.begin()
            for operation in work:
                await world.work_in(world.opened[-1], operation)
        case ("go on", which, operation) if world.opened:
            await world.work_in(world.opened[which % len(world.opened)], operation)
        case ("end", which, commit) if world.opened:
            await world.end(world.opened[which % len(world.opened)], commit=commit)
        case ("truncate", table) if not world.opened:
            await world.unit([Operation("truncate", (table,))], orm=False)
        case ("put file", song, commit):
            await world.put_file(song, commit=commit)
        case ("collect",):
            await world.collect()
        case ("dispatch", worker, mode, point):
            inside = mode == "pause" and point != "relay.dispatch_after_commit"
            await world.step(world.relays[worker].dispatch_once, "crash" if inside else mode, point)
        case ("bring", worker, target, mode, point, dispatch_first):
            if dispatch_first:
                await world.relays[worker].dispatch_once()
            inside = mode == "pause" and point in IN_TRANSACTION + IN_THREAD
            relay = world.relays[worker]
            await world.step(lambda: relay.bring_once(relay._deliveries[target]), "crash" if inside else mode, point)
        case ("wake", which, crash) if world.paused:
            paused = world.paused[which % len(world.paused)]
            await (world.abandon(paused) if crash else world.resume(paused))
        case ("leases run out",):
            await world.expire()
            await world.unpause()
        case ("redeliver", target, which) if world.last_write:
            owners = sorted(world.last_write)
            await world.redeliver(target, owners[which % len(owners)])
        case ("sweep tokens", target):
            await sweep_tokens(world.store.engine, world.relays[0]._deliveries[target], age_seconds=-1)
        case ("settle",):
            await settle(world)


async def play(world: World, script: list[Action]) -> None:
    """One example: every action, a look after each, rest at the end, and nothing left to write."""
    await world.clean()
    try:
        for action in script:
            async with asyncio.timeout(_HANG_SECONDS):
                await perform(world, action)
                await look(world)
        async with asyncio.timeout(_HANG_SECONDS):
            await settle(world)
            await replay_writes_nothing(world)
    finally:
        await world.clean()


async def shortest(world: World, script: list[Action]) -> tuple[list[Action], Exception]:
    """Leave out what the failure doesn't need."""
    error = await _failure(world, script)
    assert error is not None, "it doesn't fail a second time: the failure depends on time"
    size = len(script) // 2
    while size:
        start = 0
        while start < len(script):
            shorter = script[:start] + script[start + size :]
            found = await _failure(world, shorter)
            if found is None:
                start += size
            else:
                script, error = shorter, found
        size //= 2
    return script, error


async def _failure(world: World, script: list[Action]) -> Exception | None:
    try:
        await play(world, script)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is, it is what we look for
        return error
    return None


async def play_rounds(rows_url: str, folder: Path, numbers: Iterable[int]) -> dict[str, int]:
    """Play the scripts of these numbers on one database; returns counts of what happened.

    Raises:
        AssertionError: A script failed; the message is the shortest form of it.
    """
    with FaultPoints() as points:
        async with open_world(rows_url, folder, lot_size=3) as store:
            await store.drain()
            world = World(store, points)
            for number in numbers:
                script = a_script(number, store.engine.dialect.name)
                if await _failure(world, script) is not None:
                    script, error = await shortest(world, script)
                    lines = "\n".join(f"    {action}," for action in script)
                    message = f"script {number} on {store.engine.dialect.name}: {error}\n[\n{lines}\n]"
                    raise AssertionError(message) from error
                world.counts["scripts"] += 1
            return dict(world.counts)
