"""F33 and F37: what several share: processes one data folder, and rows one value node."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.world import Song, assert_contents, assert_converged, fill_songs, open_world, stored_contents

ROOT = Path(__file__).parents[2]

SERVING = """
import asyncio, sys
from pathlib import Path
from tests.world import Artist, Pair, Song, open_world
async def main(url, folder, name):
    async with open_world(url, Path(folder), relay=True) as store:
        for number in range(20):
            async with store.unit_of_work() as work:
                work.session.add(Song(title=f"{name} {number}", tracks=[{"title": "shared"}]))
                await work.session.merge(Pair(left=number, right="both", value=name))
            await work.settled(timeout=60)
asyncio.run(main(*sys.argv[1:]))
"""
READING = """
import asyncio, sys
from pathlib import Path
from tests.world import open_world
async def main(url, folder, name):
    async with open_world(url, Path(folder)) as store:
        for number in range(20):
            status = await store.status()
            assert not status.problems, status.problems
            await store.graph.statistics()
            await store.vectors.nearest("songs", "shared", limit=3)
asyncio.run(main(*sys.argv[1:]))
"""


async def run_python(script: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.slow
async def test_f33_two_serving_processes_and_a_reader_share_one_data_folder(sqlite_url, tmp_path):
    """Also the first start: three processes open an empty folder at once."""
    folder = str(tmp_path / "data")
    async with asyncio.timeout(100):
        await asyncio.gather(
            run_python(SERVING, sqlite_url, folder, "one"),
            run_python(SERVING, sqlite_url, folder, "two"),
            run_python(READING, sqlite_url, folder, "reader"),
        )
    async with open_world(sqlite_url, Path(folder)) as store:
        await assert_converged(store)
        await assert_contents(store)
        assert (await store.graph.statistics()).nodes == {"Song": 40, "Pair": 20, "Track": 1}
    for name in ("rows.db", "stage.db", "data/graph.db", "data/vectors.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.slow
async def test_f37_a_value_node_is_there_if_and_only_if_an_edge_needs_it(store):
    """One owner leaves while the other arrives, each in another worker's hands."""
    rounds = int(os.environ.get("FOURFOLD_ROUNDS", "40"))
    [one, other] = await fill_songs(store, 2)
    await store.drain()
    relays = [store.new_relay(name) for name in ("one", "two")]
    for relay in relays:
        relay._deliveries["graph"].lot_size = 1  # so that each worker has one of the two owners
    shared, nothing = [{"title": "shared"}], []
    for number in range(rounds):
        wanted = {one: shared if number % 2 else nothing, other: nothing if number % 3 else shared}
        async with store.unit_of_work() as work:
            for key, tracks in wanted.items():
                song = await work.session.get_one(Song, key)
                song.tracks, song.title = tracks, f"round {number}"
        await relays[0].dispatch_once()
        await asyncio.gather(*(relay.bring_once(relay._deliveries["graph"]) for relay in relays))
        stored = stored_contents(store.settings.data_folder)
        needed = sum(bool(tracks) for tracks in wanted.values())
        assert (("Track", "shared") in stored.nodes) == (needed > 0), number
        edges = sum(count for found in stored.edges.values() for edge, count in found.items() if edge[0] == "HAS")
        assert edges == needed, number
    await assert_converged(store)
    await assert_contents(store)
