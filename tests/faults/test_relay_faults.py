"""F03–F09, F11, F13, F19, F39 in one process: what happens between claim, write and settle."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from fourfold.errors import NotFoundError, QuarantinedError, SettleTimeoutError, StoreUnavailableError
from fourfold.fourfold import Fourfold
from fourfold.graph.patterns import match, node, prop
from fourfold.relay.worker import Relay
from fourfold.testing.faults import FaultPoints
from tests.world import Artist, Note, Pair, Song, assert_converged, open_world


async def add_song(store: Fourfold, title: str, **columns: object) -> UUID:
    key = uuid4()
    async with store.unit_of_work() as work:
        work.session.add(Song(id=key, title=title, **columns))
    return key


async def execute(store: Fourfold, statement: str, **parameters: object) -> None:
    async with store.engine.begin() as connection:
        await connection.execute(sa.text(statement), parameters)


async def titles_in_graph(store: Fourfold) -> dict[str, str]:

    rows = await store.graph.match(match(node("Song", as_="s")).select(id=prop("s", "id"), title=prop("s", "title")))
    return {row["id"]: row["title"] for row in rows}


async def expire_leases(store: Fourfold) -> None:
    await execute(store, "UPDATE fourfold_work SET lease_until = 0 WHERE token IS NOT NULL")


def delivery_of(relay: Relay, target: str):
    return relay._deliveries[target]


async def test_f04_a_change_between_read_and_clear_keeps_the_key_queued(store):
    key = await add_song(store, "old")
    with FaultPoints() as points:
        pause = points.pause("relay.read_after")
        first = asyncio.create_task(store.drain())
        await pause.wait_reached()
        async with store.unit_of_work() as work:
            (await work.session.get(Song, key)).title = "new"
        await store.new_relay().dispatch_once()
        pause.resume()
        await first
    assert await titles_in_graph(store) == {str(key): "new"}
    await assert_converged(store)


@pytest.mark.postgres
async def test_f05_f06_a_writer_that_commits_late_and_out_of_order_is_not_skipped(postgresql_url, tmp_path):
    async with open_world(postgresql_url, tmp_path / "data") as store:
        await store.drain()
        key = await add_song(store, "first")
        await store.drain()
        async with store.engine.connect() as late:
            await late.execute(sa.text("UPDATE songs SET title = 'late' WHERE id = :id"), {"id": key})
            other = await add_song(store, "other")  # a larger id, committed before
            await store.drain()
            assert set((await titles_in_graph(store)).values()) == {"first", "other"}
            assert (await store.status()).relay.oldest_transaction_seconds > 0
            await late.commit()
        assert not (await store.status()).in_step
        await store.drain()
        assert await titles_in_graph(store) == {str(key): "late", str(other): "other"}
        await assert_converged(store)


@pytest.mark.postgres
async def test_f06_a_smaller_change_id_that_arrives_during_the_work_is_not_lost(postgresql_url, tmp_path):
    """The largest change id says nothing: the late line's id is below the one that was claimed."""
    async with open_world(postgresql_url, tmp_path / "data") as store:
        await store.drain()
        async with store.unit_of_work() as work:
            work.session.add(Artist(id=1, name="one"))
        await store.drain()
        async with store.engine.connect() as late:
            # A line with a small id that becomes visible last, for a key that nobody else locks.
            await late.execute(sa.text("SELECT nextval(pg_get_serial_sequence('fourfold_change', 'id'))"))
            await late.execute(
                sa.text(
                    "INSERT INTO fourfold_change (table_name, keys, transaction_id, created_at)"
                    " VALUES ('artists', ARRAY['1'], '0', 0)"
                )
            )
            await execute(store, "UPDATE artists SET name = 'two' WHERE id = 1")
            with FaultPoints() as points:
                pause = points.pause("relay.read_after")
                working = asyncio.create_task(store.drain())
                await pause.wait_reached()
                await late.commit()
                await store.new_relay().dispatch_once()
                async with store.engine.connect() as connection:
                    version, claimed = (
                        await connection.execute(
                            sa.text("SELECT version, claimed_version FROM fourfold_work WHERE token IS NOT NULL")
                        )
                    ).one()
                assert version > claimed
                pause.resume()
                await working
        await assert_converged(store)


async def test_f07_a_sleeper_past_its_lease_does_not_overwrite(store):
    key = await add_song(store, "old")
    with FaultPoints() as points:
        pause = points.pause("relay.write_before")
        sleeper = asyncio.create_task(store.drain())
        await pause.wait_reached()
        await expire_leases(store)
        async with store.unit_of_work() as work:
            (await work.session.get(Song, key)).title = "new"
        await store.drain()
        assert await titles_in_graph(store) == {str(key): "new"}
        pause.resume()
        await sleeper
    assert await titles_in_graph(store) == {str(key): "new"}
    await assert_converged(store)


async def test_f08_a_sleeper_does_not_resurrect_what_was_deleted_meanwhile(store):
    key = await add_song(store, "doomed", tracks=[{"title": "only here"}])
    with FaultPoints() as points:
        pause = points.pause("relay.write_before")
        sleeper = asyncio.create_task(store.drain())
        await pause.wait_reached()
        await expire_leases(store)
        async with store.unit_of_work() as work:
            await work.session.delete(await work.session.get(Song, key))
        await store.drain()
        pause.resume()
        await sleeper
    assert not (await store.graph.statistics()).nodes
    await assert_converged(store)


async def test_f08_a_taker_over_that_dies_before_it_revokes_leaves_the_first_token_remembered(store):
    await add_song(store, "old")
    with FaultPoints() as points:
        first_pause = points.pause("relay.write_before")
        sleeper = asyncio.create_task(store.drain())
        await first_pause.wait_reached()
        await expire_leases(store)
        points.fail("relay.revoke_before", asyncio.CancelledError())
        taker = asyncio.create_task(store.drain())
        with pytest.raises(asyncio.CancelledError):
            await taker
        await expire_leases(store)
        async with store.engine.connect() as connection:
            remembered = (await connection.scalars(sa.text("SELECT unrevoked FROM fourfold_work"))).all()
        assert any(remembered)
        await execute(store, "UPDATE songs SET title = 'new'")
        await store.drain()
        first_pause.resume()
        await sleeper
    assert set((await titles_in_graph(store)).values()) == {"new"}
    await assert_converged(store)


async def test_f09_clear_then_change_then_late_clear_keeps_the_change(store):
    key = await add_song(store, "one")
    with FaultPoints() as points:
        pause = points.pause("relay.settle_before")
        late = asyncio.create_task(store.drain())
        await pause.wait_reached()
        await expire_leases(store)
        await store.drain()
        async with store.unit_of_work() as work:
            (await work.session.get(Song, key)).title = "two"
        await store.new_relay().dispatch_once()
        pause.resume()
        await late
    await store.drain()
    assert await titles_in_graph(store) == {str(key): "two"}
    await assert_converged(store)


async def test_f11_one_bad_row_in_500_is_quarantined_alone_and_retried_after_a_fix(store):
    async with store.unit_of_work() as work:
        for number in range(499):
            work.session.add(Song(title=f"song {number}"))
        bad = Song(title="poison")
        work.session.add(bad)
    await store.drain()
    with pytest.raises(QuarantinedError) as raised:
        await work.settled(timeout=0)
    assert str(bad.id) in str(raised.value)
    status = await store.status()
    assert [(key.key, key.target) for key in status.quarantined] == [(str(bad.id), "vectors.songs")]
    assert "can't be embedded" in status.quarantined[0].cause
    assert not status.healthy
    assert await store.stores.collections["songs"].count() == 499
    assert await store.retry() == 1  # before the fix it fails again
    await store.drain()
    assert (await store.status()).quarantined[0].attempts > 1
    async with store.unit_of_work() as work:
        (await work.session.get(Song, bad.id)).title = "mended"
    await store.drain()
    assert not (await store.status()).quarantined
    await work.settled(timeout=0)
    await assert_converged(store)


async def test_f11_a_row_that_the_graph_refuses_is_found_by_splitting(store):
    async with store.unit_of_work() as work:
        work.session.add_all(Song(title=f"song {number}", tracks=[{"title": "shared"}]) for number in range(20))
        work.session.add(Song(title="bad", tracks=[{"name": "no title"}]))
    await store.drain()
    (bad,) = (await store.status()).quarantined
    assert bad.target == "graph"
    assert (await store.graph.statistics()).nodes["Song"] == 20
    assert await store.retry(target="vectors.songs") == 0
    assert await store.retry(table="notes") == 0


async def test_f13_an_answer_that_is_lost_ends_like_one_success(store):
    key = await add_song(store, "song")
    with FaultPoints() as points:
        points.fail("relay.write_after", StoreUnavailableError("the answer was lost"), times=2)
        await store.drain()
        status = await store.status()
        assert not status.in_step
        assert any("answer was lost" in target.last_error for target in status.relay.targets)
    await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
    await store.drain()
    assert await titles_in_graph(store) == {str(key): "song"}
    await assert_converged(store)


async def test_f03_i7_a_replay_writes_nothing(store):
    await add_song(store, "song", tracks=[{"title": "a"}, {"title": "b"}])
    await store.drain()
    writes: list[object] = []
    target = store.stores.targets["graph"]
    original = target.write

    async def recorded(token, fragments):
        writes.append(await original(token, fragments))
        return writes[-1]

    target.write = recorded
    await execute(
        store,
        "INSERT INTO fourfold_work (target, table_name, key, first_change, last_change, queued_at)"
        " SELECT 'graph', 'songs', CAST(id AS text), 0, 0, 0 FROM songs"
        if store.engine.dialect.name == "postgresql"
        else "INSERT INTO fourfold_work (target, table_name, key, first_change, last_change, queued_at)"
        " SELECT 'graph', 'songs', lower(substr(id,1,8)||'-'||substr(id,9,4)||'-'||substr(id,13,4)||'-'||"
        "substr(id,17,4)||'-'||substr(id,21)), 0, 0, 0 FROM songs",
    )
    await store.drain()
    assert [(result.written, result.unchanged) for result in writes] == [(0, 1)]


async def test_f19_a_changed_and_two_swapped_primary_keys(store):
    async with store.unit_of_work() as work:
        work.session.add_all([Pair(left=1, right="a,b", value="x"), Pair(left=2, right="c\\d", value="y")])
    await store.drain()
    await execute(store, 'UPDATE pairs SET "left" = 9 WHERE "left" = 1')
    await assert_converged(store)
    async with store.engine.begin() as connection:
        for old, new in ((9, 100), (2, 9), (100, 2)):
            await connection.execute(
                sa.text('UPDATE pairs SET "left" = :new WHERE "left" = :old'), {"new": new, "old": old}
            )
    await assert_converged(store)


@pytest.mark.postgres
@pytest.mark.parametrize("order", ["artist first", "song first"])
async def test_f39_a_dependency_and_its_dependent_change_at_once_in_either_order(postgresql_url, tmp_path, order):
    async with open_world(postgresql_url, tmp_path / "data") as store:
        async with store.unit_of_work() as work:
            work.session.add_all([Artist(id=1, name="one"), Artist(id=2, name="two")])
        key = await add_song(store, "song", artist_id=1)
        await store.drain()
        async with store.engine.connect() as artist, store.engine.connect() as song:
            await artist.execute(sa.text("UPDATE artists SET name = 'TWO' WHERE id = 2"))
            await song.execute(sa.text("UPDATE songs SET artist_id = 2 WHERE id = :id"), {"id": key})
            for connection in (artist, song) if order == "artist first" else (song, artist):
                await connection.commit()
                await store.drain()
        (hit,) = await store.vectors.nearest("songs", "song TWO", limit=1)
        assert hit.score > 0.999
        await assert_converged(store)


async def test_dependents_follow_children_and_parents(store):
    async with store.unit_of_work() as work:
        work.session.add(Artist(id=1, name="one"))
    key = await add_song(store, "song", artist_id=1)
    async with store.unit_of_work() as work:
        work.session.add(Note(id=1, song_id=key, text="loud"))
    with pytest.raises(NotFoundError, match="did you mean 'graph'"):
        await work.settled(["grahp"], timeout=0)
    with pytest.raises(SettleTimeoutError):  # until it is dispatched, nobody knows whom it concerns
        await work.settled(["files"], timeout=0)
    while await store.new_relay().dispatch_once():
        pass
    await work.settled(["files"], timeout=0)
    with pytest.raises(SettleTimeoutError) as raised:
        await work.settled(timeout=0)
    assert raised.value.targets == ("graph", "vectors.songs")
    await store.drain()
    await work.settled(timeout=0)
    for statement, text in (
        ("UPDATE artists SET name = 'two'", "song two loud"),
        ("UPDATE notes SET text = 'quiet'", "song two quiet"),
        ("DELETE FROM notes", "song two"),
        ("DELETE FROM artists", "song"),
    ):
        await execute(store, statement)
        await store.drain()
        (hit,) = await store.vectors.nearest("songs", text, limit=1)
        assert hit.score > 0.999, text
    await assert_converged(store)
