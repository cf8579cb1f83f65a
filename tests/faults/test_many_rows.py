"""F18 and F20: one statement that concerns thousands of rows is exactly as many keys, in bounded memory."""

from __future__ import annotations

import psutil
import pytest
import sqlalchemy as sa

from fourfold.fourfold import Fourfold
from fourfold.rows.engine import write_transaction
from tests.world import Note, assert_contents, assert_converged, execute, fill_songs, open_world, scalar

LOTS_OF_MEMORY = 120 * 2**20  # what a relay may need beyond; a million keys held at once would be far above


@pytest.mark.slow
async def test_f18_a_cascade_to_ten_thousand_rows_is_ten_thousand_and_one_deletes(rows_url, tmp_path):
    async with open_world(rows_url, tmp_path / "data", lot_size=2_000) as store:
        [song] = await fill_songs(store, 1)
        rows = [{"id": number, "song_id": song, "text": "n"} for number in range(10_000)]
        async with write_transaction(store.engine) as connection:
            await connection.execute(sa.insert(Note.__table__), rows)
        await store.drain()
        assert (await store.graph.statistics()).nodes == {"Artist": 1, "Song": 1, "Note": 10_000}
        await execute(store, "DELETE FROM songs")
        relay = store.new_relay()
        before = psutil.Process().memory_info().rss
        while await relay.dispatch_once():
            pass
        assert await scalar(store, "SELECT count(*) FROM fourfold_work WHERE target = 'graph'") == 10_001
        await relay.drain()
        assert psutil.Process().memory_info().rss - before < LOTS_OF_MEMORY
        assert relay.statistics().by_target["graph"] == 10_001
        await assert_converged(store)
        await assert_contents(store)


async def copy_pairs(store: Fourfold, count: int) -> None:
    async with store.engine.begin() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        async with driver.cursor() as cursor, cursor.copy('COPY pairs ("left", "right", value) FROM STDIN') as copy:
            for number in range(count):
                await copy.write_row((number, "r", "v"))


async def copy_and_update(store: Fourfold, count: int) -> None:
    """F20: COPY, then a bulk UPDATE of the same rows, are exactly `count` keys; memory is bounded."""
    before = psutil.Process().memory_info().rss
    relay = store.new_relay()
    for change in (copy_pairs(store, count), execute(store, "UPDATE pairs SET value = 'w'")):
        await change
        while await relay.dispatch_once():
            pass
        assert await scalar(store, "SELECT count(*) FROM fourfold_work WHERE target = 'graph'") == count
    await relay.drain()
    assert relay.statistics().by_target == {"graph": count}
    assert psutil.Process().memory_info().rss - before < LOTS_OF_MEMORY
    assert (await store.graph.statistics()).nodes == {"Pair": count}
    report = await store.integrity.verify(["graph"])
    assert not report.differs
    assert (await store.status()).in_step


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(300)
async def test_f20_a_copy_of_a_hundred_thousand_rows_is_exactly_as_many_keys(postgresql_url, tmp_path):
    async with open_world(postgresql_url, tmp_path / "data", lot_size=5_000) as store:
        await store.drain()
        await copy_and_update(store, 100_000)


@pytest.mark.soak
@pytest.mark.postgres
@pytest.mark.timeout(3_600)
async def test_f20_a_copy_of_a_million_rows_is_exactly_as_many_keys(postgresql_url, tmp_path):
    async with open_world(postgresql_url, tmp_path / "data", lot_size=5_000) as store:
        await store.drain()
        await copy_and_update(store, 1_000_000)
