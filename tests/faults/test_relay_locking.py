"""F10 and F06: many writers and workers on the same rows.

No writer waits for a relay, wherever it stands, no lock order ends in a deadlock, and a change whose id is smaller than
what is in work isn't forgotten when its worker dies.
"""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from fourfold.fourfold import Fourfold
from fourfold.relay.waiting import UnitChanges, is_settled
from fourfold.testing.faults import FaultPoints
from tests.world import Artist, Note, Song, assert_contents, assert_converged, end_leases, execute, fill_songs, scalar


async def write_in_order(store: Fourfold, writer: int, songs: list[UUID], files: list[str]) -> None:
    """Rows of its own that name the same songs and files as everybody's, in one order or the other."""
    order = list(enumerate(songs)) if writer % 2 else list(reversed(list(enumerate(songs))))
    async with store.engine.begin() as connection:
        for number, song in order:
            row = {"id": writer * 1000 + number, "song_id": song, "text": f"{writer}"}
            await connection.execute(sa.insert(Note.__table__), row)
            own = {"id": uuid4(), "title": f"{writer}", "tracks": [], "file_key": files[number % len(files)]}
            await connection.execute(sa.insert(Song.__table__), own)
            await asyncio.sleep(0)  # gives the others their turn between two rows


@pytest.mark.postgres
async def test_f10_sixteen_writers_in_opposite_orders_wait_for_no_relay_and_for_no_other(pg_store):
    songs = await fill_songs(pg_store, 10, artist_id=1)
    async with pg_store.unit_of_work() as work:
        files = [(await work.files.put(f"file {number}".encode())).key for number in range(3)]
    await pg_store.drain()
    relays = [pg_store.new_relay(name) for name in ("one", "two")]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    async with asyncio.timeout(60):
        await asyncio.gather(*(write_in_order(pg_store, writer, songs, files) for writer in range(16)))
    for relay in relays:
        relay.stop()
    await asyncio.gather(*running)
    await execute(pg_store, "UPDATE fourfold_target SET paused_until = NULL")
    await assert_converged(pg_store)
    await assert_contents(pg_store)


@pytest.mark.postgres
@pytest.mark.parametrize("point", ["relay.dispatch_before_commit", "relay.settle_before_commit", "relay.read_after"])
async def test_f10_a_relay_that_stands_still_in_its_transaction_makes_no_writer_wait(pg_store, point):
    songs = await fill_songs(pg_store, 5, artist_id=1)
    async with pg_store.unit_of_work() as work:
        file = await work.files.put(b"file")
    with FaultPoints() as points:
        pause = points.pause(point)
        standing = asyncio.create_task(pg_store.drain())
        await pause.wait_reached()
        async with asyncio.timeout(30):
            await asyncio.gather(*(write_in_order(pg_store, writer, songs, [file.key]) for writer in range(16)))
            await execute(pg_store, "UPDATE songs SET title = 'changed'")
            await execute(pg_store, "DELETE FROM artists")
        pause.resume()
        await standing
    await assert_converged(pg_store)
    await assert_contents(pg_store)


@pytest.mark.postgres
async def test_f10_dispatch_and_settle_do_not_deadlock_over_work_rows(pg_store):
    """Dispatch queues changed keys (5, 9), then dependents (1); settle locks 1, then 5."""
    one, five, nine = UUID(int=1), UUID(int=5), UUID(int=9)
    async with pg_store.unit_of_work() as work:
        work.session.add(Artist(id=1, name="a"))
        await work.session.flush()
        work.session.add_all([Song(id=one, title="1", artist_id=1), Song(id=five, title="5"), Song(id=nine, title="9")])
    await pg_store.drain()
    relay = pg_store.new_relay()
    delivery = relay._deliveries["vectors.songs"]
    delivery.lot_size = 2
    await execute(pg_store, "UPDATE songs SET title = title || 'x'")
    await relay.dispatch_once()
    await execute(pg_store, "UPDATE fourfold_work SET lane = 9 WHERE key = :key", key=str(nine))  # claimed last
    with FaultPoints() as points:
        pause = points.pause("relay.settle_before")
        settling = asyncio.create_task(relay.bring_once(delivery))
        await pause.wait_reached()
        async with pg_store.engine.connect() as blocker:  # holds dispatch between its keys for a moment
            locked = "SELECT 1 FROM fourfold_work WHERE target = 'vectors.songs' AND key = :key FOR UPDATE"
            await blocker.execute(sa.text(locked), {"key": str(nine)})
            await execute(pg_store, "UPDATE songs SET title = title || 'y' WHERE id IN (:a, :b)", a=five, b=nine)
            await execute(pg_store, "UPDATE artists SET name = 'b'")
            dispatching = asyncio.create_task(pg_store.new_relay().dispatch_once())
            await wait_for_waiting(pg_store, 1)
            pause.resume()
            await wait_for_waiting(pg_store, 2)
            await blocker.rollback()
        await asyncio.gather(settling, dispatching)
    await execute(pg_store, "UPDATE fourfold_target SET paused_until = NULL")
    await assert_converged(pg_store)
    assert "40P01" not in relay.statistics().last_error


async def wait_for_waiting(store: Fourfold, sessions: int) -> None:
    """Return when that many sessions of this database wait for a lock."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(20):
        while await scalar(store, count) < sessions:
            await asyncio.sleep(0.01)


@pytest.mark.postgres
async def test_f06_a_unit_is_not_settled_by_a_take_over_that_forgets_its_smaller_change_id(pg_store):
    """A late commit's id (small) came in while another one's was in work; then the worker died."""
    await execute(pg_store, "INSERT INTO artists VALUES (1, 'one')")
    await pg_store.drain()
    async with pg_store.engine.connect() as late:
        line = await late.scalar(
            sa.text(
                "INSERT INTO fourfold_change (table_name, keys, transaction_id, created_at)"
                " VALUES ('artists', ARRAY['1'], '0', 0) RETURNING id"
            )
        )
        await execute(pg_store, "UPDATE artists SET name = 'two'")
        with FaultPoints() as points:
            pause = points.pause("relay.read_after")
            dying = asyncio.create_task(pg_store.drain())
            await pause.wait_reached()
            await late.commit()
            await pg_store.new_relay().dispatch_once()
            dying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dying
    await end_leases(pg_store)
    unit = UnitChanges(ranges=((line, line),))
    with FaultPoints() as points:
        pause = points.pause("relay.read_before")
        relay = pg_store.new_relay()
        taking_over = asyncio.create_task(relay.bring_once(relay._deliveries["graph"]))
        await pause.wait_reached()
        missing = await is_settled(pg_store.engine, unit, ["graph"])
        pause.resume()
        await taking_over
    assert missing == {"graph"}
