"""Several real processes on one graph file, one of them killed again and again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

import fourfold
from fourfold.graph import SqliteGraphStore
from fourfold.graph.patterns import match, node
from fourfold.testing.graph import SCHEMA, tracklist

# Writes tracklists of its own, all with a shared track, and removes every other one; says what it has done.
WRITER = """
import asyncio, sys
from fourfold.graph import SqliteGraphStore
from fourfold.projection.items import GraphFragment
from fourfold.testing.graph import SCHEMA, tracklist

async def main(path, name, rounds):
    store = SqliteGraphStore(path)
    await store.ensure_schema(SCHEMA)
    await store.create_token(1)
    for number in range(rounds):
        lot = [tracklist(f"{name}{number}-{part}", "Shared", f"{name}{number}") for part in range(20)]
        await store.write(1, lot)
        await store.write(1, [GraphFragment(fragment.owner) for fragment in lot[::2]])
        print(number, flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start(path, name, rounds):
    source = os.path.dirname(os.path.dirname(fourfold.__file__))  # noqa: PTH120 - a path for the child
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


async def check(path, least):
    """Each owner's contents are what its digest says, every acknowledged round is there, and nothing is left over."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        loose = (
            "SELECT count(*) FROM edge WHERE source NOT IN (SELECT id FROM node) OR target NOT IN (SELECT id FROM node)"
        )
        assert connection.execute(loose).fetchone() == (0,)
        assert connection.execute("SELECT count(*), count(DISTINCT label || key) FROM node").fetchone()[0] > 0
    store = SqliteGraphStore(path)
    await store.ensure_schema(SCHEMA)
    owners = {found.owner: found.digest async for found in store.scan_owners()}
    assert await store.read_owners(owners) == owners
    for name, rounds in least.items():
        for number in range(rounds):
            wanted = [tracklist(f"{name}{number}-{part}", "Shared", f"{name}{number}") for part in range(20)][1::2]
            assert {fragment.owner: fragment.digest for fragment in wanted}.items() <= owners.items()
    assert await store.remove_orphans() == 0
    assert len(await store.match(match(node("Track", as_="t", title="Shared")))) == 1
    await store.close()
    return owners


async def test_f33_two_processes_write_one_file(tmp_path):
    path = tmp_path / "graph.db"
    processes = [start(path, name, 25) for name in "ab"]
    for process in processes:
        process.communicate(timeout=100)
        assert process.returncode == 0
    owners = await check(path, {"a": 25, "b": 25})
    assert len(owners) == 2 * 25 * 10


@pytest.mark.kill
async def test_a_killed_writer_leaves_whole_writes(tmp_path):
    path = tmp_path / "graph.db"
    done = {}
    for attempt in range(6):
        name = f"k{attempt}x"
        process = start(path, name, 10_000)
        acknowledged = [process.stdout.readline() for _ in range(2 + attempt)]
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        assert process.returncode == -signal.SIGKILL
        done[name] = len(acknowledged) + len(rest)
        await check(path, done)
