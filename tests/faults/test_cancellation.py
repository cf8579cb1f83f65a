"""F34: who is cancelled or fails inside leaves no connection, no task, and no half of what it did."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from fourfold.fourfold import Fourfold
from fourfold.rows.engine import write_transaction
from fourfold.testing.faults import FaultPoints
from tests.world import Pair, Song, assert_contents, assert_converged, end_leases, execute, fill_songs, scalar


class GoneError(Exception):
    """The client went away."""


async def wait_idle(store: Fourfold) -> None:
    """Return when no connection is checked out any more."""
    async with asyncio.timeout(10):
        while not idle(store):
            await asyncio.sleep(0)


def idle(store: Fourfold) -> bool:
    return store.engine.pool.checkedout() == 0 and store.stores.stage_engine.pool.checkedout() == 0


@pytest.mark.parametrize("point", ["objects.before_stage", "objects.after_stage", "objects.after_upload"])
async def test_f34_a_cancelled_unit_leaves_no_connection_and_no_half_of_itself(store, point):
    async def request() -> None:
        async with store.unit_of_work() as work:
            work.session.add(Pair(left=1, right="half", value="v"))
            if not str(store.engine.url).startswith("sqlite"):
                await work.session.flush()  # on SQLite an upload after the first write has the stage's own file
            await work.files.put(b"bytes")
            work.session.add(Pair(left=2, right="other half", value="v"))

    for _ in range(5):
        with FaultPoints() as points:
            pause = points.pause(point)
            task = asyncio.create_task(request())
            await pause.wait_reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert idle(store)
    assert await scalar(store, "SELECT count(*) FROM pairs") == 0
    async with write_transaction(store.stores.stage_engine) as connection:
        await connection.execute(sa.text("UPDATE fourfold_stage SET lease_until = 0"))
    await store.collect(grace_seconds=0)
    await assert_converged(store)
    assert idle(store)


async def test_f34_an_exception_inside_a_unit_undoes_rows_and_files_and_frees_its_connection(store):
    async def leave_early() -> None:
        async with store.unit_of_work() as work:
            file = await work.files.put(b"bytes")
            work.session.add(Song(title="half", file_key=file.key))
            await work.session.flush()
            raise GoneError

    for _ in range(12):
        async with asyncio.timeout(15):
            with pytest.raises(GoneError):
                await leave_early()
    assert idle(store)
    assert await scalar(store, "SELECT count(*) FROM songs") == 0
    assert await scalar(store, "SELECT count(*) FROM fourfold_change") == 0
    assert await scalar(store, "SELECT count(*) FROM fourfold_object") == 0
    await store.collect(grace_seconds=0)
    await assert_converged(store)


async def test_f34_a_cancelled_waiter_and_a_cancelled_relay_leave_no_connection(store):
    await fill_songs(store, 3)
    for point in ("relay.dispatch_taken", "relay.read_before", "relay.write_before", "relay.settle_before_commit"):
        with FaultPoints() as points:
            pause = points.pause(point)
            task = asyncio.create_task(store.drain())
            await pause.wait_reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await wait_idle(store)
        await end_leases(store)
        await execute(store, "UPDATE songs SET title = title || '.'")
    async with store.unit_of_work() as work:
        work.session.add(Pair(left=1, right="r", value="v"))
    waiter = asyncio.create_task(work.settled(timeout=60))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await end_leases(store)
    await assert_converged(store)
    await assert_contents(store)
    assert idle(store)


async def test_f34_a_drain_that_ends_leaves_no_task_of_its_own_behind(store):
    await fill_songs(store, 1)
    before = len(asyncio.all_tasks())
    with FaultPoints() as points:
        pause = points.pause("vectors.before_write")
        points.fail("relay.settle_after_commit", asyncio.CancelledError(), times=2)  # files have no work: the graph's
        with pytest.raises(asyncio.CancelledError):
            await store.drain()  # the vectors' task stands at its point by then, or never comes so far
        left = len(asyncio.all_tasks()) - before
        pause.resume()
    await wait_idle(store)
    assert not left
