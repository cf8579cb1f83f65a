"""I8: what `status` and `verify` say is so, whatever goes on meanwhile."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from fourfold.integrity.report import VerifyReport
from fourfold.integrity.verify import TargetVerifier
from tests.world import Artist, Song, assert_contents, assert_converged, end_leases, execute, fill_songs, open_world


@pytest.mark.slow
async def test_i8_status_says_in_step_only_when_the_targets_are(rows_url, tmp_path):
    """Writers stop for the moment of a look; the relay goes on."""
    async with open_world(rows_url, tmp_path / "data", lot_size=5) as store:
        turn = asyncio.Lock()
        done = asyncio.Event()
        looks = {True: 0, False: 0}

        async def write(writer: int) -> None:
            for number in range(15):
                async with turn, store.unit_of_work() as work:
                    await work.session.merge(Artist(id=writer, name=f"artist {number}"))
                    await work.session.flush()
                    key = UUID(int=writer * 100 + number % 5)
                    title = f"song {number}"
                    await work.session.merge(Song(id=key, title=title, artist_id=writer, tracks=[{"title": title}]))
                if number % 5 == 4:
                    await work.settled(timeout=60)

        async def look() -> None:
            while not done.is_set():
                async with turn:
                    in_step = (await store.status()).in_step
                    if in_step:
                        await assert_contents(store)
                looks[in_step] += 1
                await asyncio.sleep(0)

        relays = [store.new_relay(name) for name in ("one", "two")]
        running = [asyncio.create_task(relay.run()) for relay in relays]
        looking = asyncio.create_task(look())
        await asyncio.gather(*(write(writer) for writer in range(1, 4)))
        done.set()
        await looking
        for relay in relays:
            relay.stop()
        await asyncio.gather(*running)
        await end_leases(store)
        await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
        await assert_converged(store)
        assert looks[False]


async def test_i8_verify_counts_a_pending_change_of_what_a_row_depends_on_as_in_flight(store):
    await fill_songs(store, 1, artist_id=1)
    await store.drain()
    await execute(store, "UPDATE artists SET name = 'renamed'")
    report = VerifyReport(deep=False)
    target = store.stores.targets["vectors.songs"]
    await TargetVerifier(store.engine, store.plan, target, store.stores.models, settle_seconds=0).verify(report)
    assert not report.differences
    assert report.in_flight == 1
