"""What must hold: for a reader at any moment (I2, I3, I4, I8), and for all stores at rest (I1, I5, I7).

After each step a reader looks: what is neither queued nor in work is right, and nothing older than what was settled is
ever seen. All of it is compared with the model, never with what Fourfold says of itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from fourfold.fourfold import Fourfold
from fourfold.rows.engine import read_transaction
from tests.property.machine.operations import number_in
from tests.property.machine.world import DISPATCH, TARGETS, World
from tests.world import assert_contents, assert_converged, expected_contents, stored_contents


async def look(world: World) -> None:
    """What a reader may see now: I2, I3, I4 and I8."""
    async with read_transaction(world.store.engine) as connection:
        lines = (await connection.execute(sa.text("SELECT table_name, kind, keys FROM fourfold_change"))).all()
        work = (await connection.execute(sa.text("SELECT target, table_name, key FROM fourfold_work"))).all()
    queued = {f"{line.table_name}:{key}" for line in lines for key in _keys(line.keys)}
    tables = {line.table_name for line in lines}
    swept = any(line.kind == "resync" for line in lines)
    in_work = {target: {f"{row.table_name}:{row.key}" for row in work if row.target == target} for target in TARGETS}
    sweeping = {target for target, found in in_work.items() if any(name.startswith("sweep:") for name in found)}
    stored, expected = stored_contents(world.store.settings.data_folder), expected_contents(world.rows)
    by_owner = {owner: place for place, owner in stored.owners.items() if owner}
    for owner in world.last_write.keys() | by_owner.keys():
        place = by_owner.get(owner)
        seen = None if place is None else number_in(_text_in(stored.nodes[place]))
        _check_age(world, owner, seen)
        if swept or "graph" in sweeping or owner in queued or owner in in_work["graph"]:
            continue
        wanted = {node: expected.nodes[node] for node, name in expected.owners.items() if name == owner}
        assert ({} if place is None else {place: stored.nodes[place]}) == wanted, f"graph: {owner}"
        assert stored.edges.get(owner) == expected.edges.get(owner), f"graph: edges of {owner}"
        world.floor[owner] = world.last_write.get(owner, 0)
    if swept or "vectors.songs" in sweeping or tables & {"artists", "notes"}:
        return
    for key in stored.points.keys() | expected.points.keys():
        owner = f"songs:{key}"
        if owner not in queued and owner not in in_work["vectors.songs"]:
            assert stored.points.get(key) == expected.points.get(key), f"vectors: {owner}"


def _check_age(world: World, owner: str, seen: int | None) -> None:
    floor = world.floor.get(owner, 0)
    if seen is not None:
        assert seen >= floor, f"{owner}: {seen} is older than the settled {floor}"
        return
    if floor and world.deleted.get(owner, 0) < floor:
        pytest.fail(f"{owner}: was settled at {floor}, never deleted since, and is not there")


async def settle(world: World) -> None:
    """Everything comes to rest: twice, the second time after those who slept have woken up."""
    for opened in list(world.opened):
        await world.end(opened, commit=True)
    for paused in [p for p in world.paused if p.point in DISPATCH]:
        await world.abandon(paused)  # holds the dispatcher's lock; a dead one's connection would be gone
    await _drain(world)
    await assert_contents(world.store, world.rows)
    await look(world)
    woken = list(world.paused)
    for paused in woken:
        await world.resume(paused)
        await look(world)
    if woken:
        await _drain(world)
        await assert_contents(world.store, world.rows)
    await assert_converged(world.store)
    for row in world.rows.songs.values():
        if row.file_key is not None:
            assert await world.store.files.read(row.file_key) == world.files[row.file_key]  # I5
    world.counts["settled"] += 1


async def _drain(world: World) -> None:
    await world.unpause()
    await world.expire()
    await world.store.drain()


async def replay_writes_nothing(world: World) -> None:
    """I7, after `settle`."""
    owners = [(t, o) for o in world.last_write for t in TARGETS if t == "graph" or o.startswith("songs:")]
    for target, owner in owners:
        await world.redeliver(target, owner)
    results = []
    with _recorded_writes(world.store, results):
        await world.store.drain()
    assert sum(result.written for result in results) == 0, results


def _keys(keys: object) -> list[str]:
    return json.loads(keys) if isinstance(keys, str) else list(keys)


def _text_in(properties: dict[str, object]) -> str:
    return str(next(properties[name] for name in ("title", "name", "text", "value") if name in properties))


@contextmanager
def _recorded_writes(store: Fourfold, results: list) -> Iterator[None]:
    originals = {target: target.write for target in store.stores.targets.values()}

    def record(original):
        async def write(token, fragments):
            results.append(await original(token, fragments))
            return results[-1]

        return write

    for target, original in originals.items():
        target.write = record(original)
    try:
        yield
    finally:
        for target in originals:
            del target.write
