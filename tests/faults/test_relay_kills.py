"""F01–F03 and every other named point: a real process, killed with SIGKILL; a fresh one finds everything and goes on.

The child opens the same world, commits, and works until it dies at its point. Nobody intervenes afterwards: the fresh
worker only waits until the leases have ended, which the test brings about in the database (no clock is waited for).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from fourfold.fourfold import Fourfold
from fourfold.projection.target import WriteResult
from fourfold.rows.engine import write_transaction
from fourfold.testing.embedders import HashEmbedder
from fourfold.testing.faults import FaultPoints
from tests.world import Artist, Base, Note, Pair, Song, assert_contents, assert_converged, open_world, settings_for

pytestmark = pytest.mark.kill

ROOT = Path(__file__).parents[2]
KEY = UUID(int=7)

RELAY_POINTS = [
    "relay.dispatch_taken",
    "relay.dispatch_before_commit",
    "relay.dispatch_after_commit",
    "relay.claim_after_number",
    "relay.claim_after_token",
    "relay.claim_after_lease",
    "relay.revoke_before",
    "relay.revoke_after",
    "relay.read_before",
    "relay.read_after",
    "relay.write_before",
    "relay.write_after",
    "relay.settle_before",
    "relay.settle_before_commit",
    "relay.settle_after_commit",
    "graph.before_write",
    "graph.before_commit",
    "graph.after_commit",
    "vectors.before_write",
    "vectors.before_commit",
    "vectors.after_commit",
]
FILE_POINTS = [
    "objects.after_stage",
    "objects.before_finish",
    "objects.after_upload",
    "objects.before_promote",
    "objects.after_promote",
    "objects.after_unit",
    "objects.before_collect_commit",
    "objects.after_collect_commit",
    "objects.before_remove_bytes",
    "objects.after_remove_bytes",
]

# ------------------------------------------------------------------------------------------------------- the child


async def child_works(rows_url: str, folder: str, point: str, visit: str) -> None:
    """Commit a change of everything, and bring the targets up to date one by one until the point kills us."""
    async with Fourfold(Base, settings_for(rows_url, Path(folder)), embedder=HashEmbedder()) as store:
        with FaultPoints() as points:
            points.kill(point, visit=int(visit))
            async with store.unit_of_work() as work:
                song = await work.session.get(Song, KEY)
                song.title, song.tracks = "after", [{"title": "new"}]
                await work.session.execute(sa.delete(Note))
                await work.session.merge(Pair(left=1, right="new", value="after"))
            relay = store.new_relay("child")
            await relay.dispatch_once()
            for name in ("graph", "vectors.songs", "files"):
                await relay.bring_once(relay._deliveries[name])


async def child_stores(rows_url: str, folder: str, point: str, visit: str) -> None:
    """Replace a file, and collect the old one, until the point kills us."""
    async with Fourfold(Base, settings_for(rows_url, Path(folder)), embedder=HashEmbedder()) as store:
        with FaultPoints() as points:
            points.kill(point, visit=int(visit))
            async with store.unit_of_work() as work:
                file = await work.files.put(b"new bytes", filename="new.txt")
                (await work.session.get(Song, KEY)).file_key = file.key
            await store.collect(grace_seconds=0)
            await store.drain()


CHILDREN = {"works": child_works, "stores": child_stores}


def nursery() -> None:
    """Fork a process per line of input, so that each death costs no second start of Python; answer how it ended."""
    for line in sys.stdin:
        child, *arguments = json.loads(line)
        pid = os.fork()
        if not pid:
            asyncio.run(CHILDREN[child](*arguments))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


class Nursery:
    """The process that forks the victims."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> int:
        """Return the exit code of a victim; negative for a signal."""
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery itself died"
        return int(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


@pytest.fixture(scope="module")
def victims() -> Iterator[Nursery]:
    started = Nursery()
    yield started
    started.close()


async def kill(victims: Nursery, child: str, store: Fourfold, rows_url: str, point: str, visit: int = 1) -> None:
    arguments = (child, rows_url, str(store.settings.data_folder), point, str(visit))
    assert await asyncio.to_thread(victims.run, *arguments) == -signal.SIGKILL, point


# ------------------------------------------------------------------------------------------------------ the oracle


async def fill(store: Fourfold) -> None:
    """The state before; the last change must be there after the kill, or the whole unit of the child be undone."""
    async with store.unit_of_work() as work:
        if await work.session.get(Song, KEY) is None:
            work.session.add(Artist(id=1, name="artist"))
            await work.session.flush()
            file = await work.files.put(b"old bytes", filename="old.txt")
            work.session.add(Song(id=KEY, title="before", artist_id=1, file_key=file.key))
            await work.session.flush()
        else:
            song = await work.session.get(Song, KEY)
            song.title, song.tracks = "before", [{"title": "old"}]
        await work.session.merge(Note(id=1, song_id=KEY, text="note"))
        await work.session.execute(sa.delete(Pair))
    await store.drain()


async def end_leases(store: Fourfold) -> None:
    async with write_transaction(store.engine) as connection:
        await connection.execute(sa.text("UPDATE fourfold_work SET lease_until = 0 WHERE token IS NOT NULL"))
    async with write_transaction(store.stores.stage_engine) as connection:
        await connection.execute(sa.text("UPDATE fourfold_stage SET lease_until = 0"))


def record_writes(store: Fourfold) -> dict[str, WriteResult]:
    """Sums of what each target really wrote from now on."""
    sums: dict[str, Counter[str]] = {name: Counter() for name in store.stores.targets}

    def recorded(name: str, original: Callable):
        async def write(token, fragments):
            result = await original(token, fragments)
            sums[name].update(written=result.written, unchanged=result.unchanged)
            return result

        return write

    for name, target in store.stores.targets.items():
        target.write = recorded(name, target.write)
    return sums


async def leased_keys(store: Fourfold) -> Counter[str]:
    async with store.engine.connect() as connection:
        rows = await connection.execute(sa.text("SELECT target FROM fourfold_work WHERE token IS NOT NULL"))
        return Counter(row.target for row in rows)


async def test_f01_killed_between_claim_and_write_is_taken_over_when_the_lease_ends(victims, rows_url, tmp_path):
    async with open_world(rows_url, tmp_path / "data") as store:
        await fill(store)
        await kill(victims, "works", store, rows_url, "relay.claim_after_lease")
        assert (await leased_keys(store))["graph"] > 0
        assert not (await store.status()).in_step
        await store.drain()  # before the lease's end the keys are left alone
        assert (await leased_keys(store))["graph"] > 0
        await end_leases(store)
        await assert_converged(store)
        await assert_contents(store)


async def test_f02_killed_between_two_targets_writes_only_the_missing_one(victims, rows_url, tmp_path):
    async with open_world(rows_url, tmp_path / "data") as store:
        await fill(store)
        # The second claim of the child is the vectors': the graph has been settled.
        await kill(victims, "works", store, rows_url, "relay.claim_after_lease", visit=2)
        assert set(await leased_keys(store)) == {"vectors.songs"}
        await end_leases(store)
        sums = record_writes(store)
        await assert_converged(store)
        await assert_contents(store)
        assert not sums["graph"]
        assert sums["vectors.songs"]["written"] == 1


@pytest.mark.parametrize("point", ["relay.write_after", "graph.after_commit", "relay.settle_before"])
async def test_f03_killed_between_write_and_clear_replays_without_writing(victims, rows_url, tmp_path, point):
    async with open_world(rows_url, tmp_path / "data") as store:
        await fill(store)
        await kill(victims, "works", store, rows_url, point)
        assert (await leased_keys(store))["graph"] > 0
        await end_leases(store)
        sums = record_writes(store)
        await assert_converged(store)
        await assert_contents(store)
        assert sums["graph"]["written"] == 0
        assert sums["graph"]["unchanged"] > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_kill_at_any_point_of_the_relay_is_mended_by_a_fresh_worker(victims, rows_url, tmp_path):
    """One world for all points: what an earlier kill left behind lies there when the next one strikes."""
    async with open_world(rows_url, tmp_path / "data") as store:
        for point in RELAY_POINTS:
            await end_leases(store)
            await fill(store)
            if point.startswith("relay.revoke"):  # somebody to take over from
                await kill(victims, "works", store, rows_url, "relay.claim_after_lease")
                await end_leases(store)
            await kill(victims, "works", store, rows_url, point)
            assert not (await store.status()).in_step, point
            await end_leases(store)
            await store.drain()
            assert (await store.status()).in_step, point
            await assert_contents(store)
            async with store.session() as session:  # the child's commit came before its death
                assert (await session.get_one(Song, KEY)).title == "after", point
        await assert_converged(store)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_f23_a_kill_at_any_point_of_an_upload_or_a_collection_leaves_no_row_without_its_bytes(
    victims, rows_url, tmp_path
):
    async with open_world(rows_url, tmp_path / "data") as store:
        await fill(store)
        for point in FILE_POINTS:
            async with store.unit_of_work() as work:
                file = await work.files.put(b"old bytes", filename="old.txt")
                (await work.session.get_one(Song, KEY)).file_key = file.key
            await store.drain()
            await kill(victims, "stores", store, rows_url, point)
            async with store.session() as session:
                named = (await session.get_one(Song, KEY)).file_key
            committed = named != file.key
            assert await store.files.read(named) == (b"new bytes" if committed else b"old bytes"), point
            await store.collect(grace_seconds=0)  # before the lease has ended: what is staged stays
            await end_leases(store)
            await store.collect(grace_seconds=0)
            await store.drain()
            kept = [path for path in (tmp_path / "data" / "files" / "objects").rglob("*") if path.is_file()]
            assert [path.name for path in kept] == [named], point
        await assert_converged(store)


if __name__ == "__main__":
    nursery()
