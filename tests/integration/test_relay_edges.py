"""The relay at its edges: leftovers of dead workers, errors that aren't ours, providers and files that refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fourfold.errors import DriftError, IntegrityError, StoreRejectedError, StoreUnavailableError
from fourfold.fourfold import Fourfold
from fourfold.relay.claim import WorkKey, claim, sweep_tokens
from fourfold.relay.delivery import RemovalDelivery
from fourfold.relay.dispatch import dispatch
from fourfold.relay.settle import settle
from fourfold.relay.waiting import UnitChanges, wait_settled
from fourfold.relay.worker import Relay
from fourfold.testing.faults import FaultPoints
from tests.world import Song, assert_converged, execute, open_world, scalar


@pytest.fixture
async def store(rows_url: str, tmp_path: Path) -> AsyncIterator[Fourfold]:
    async with open_world(rows_url, tmp_path / "data") as opened:
        await opened.drain()
        yield opened


async def add_songs(store: Fourfold, *titles: str) -> None:
    async with store.unit_of_work() as work:
        work.session.add_all(Song(title=title) for title in titles)


@asynccontextmanager
async def a_claim_that_gets_nothing(store: Fourfold) -> AsyncIterator[None]:
    """What is done inside happens while the claim has made its token and leased nothing yet."""
    graph = delivery(store, "graph")
    with FaultPoints() as points:
        pause = points.pause("relay.claim_after_token")
        late = asyncio.create_task(claim(store.engine, store.plan, graph, worker="w", limit=9, lease_seconds=60))
        await pause.wait_reached()
        yield
        pause.resume()
        assert await late is None


def delivery(store: Fourfold, name: str):
    return next(d for d in store.stores.deliveries(store.plan, store.settings) if d.name == name)


async def test_tokens_of_dead_workers_are_swept_and_those_in_use_stay(store):
    await add_songs(store, "one")
    await store.new_relay().dispatch_once()
    graph = delivery(store, "graph")
    with FaultPoints() as points:
        points.fail("relay.claim_after_token", RuntimeError("killed"))
        with pytest.raises(RuntimeError):
            await claim(store.engine, store.plan, graph, worker="w", limit=9, lease_seconds=60)
    lot = await claim(store.engine, store.plan, graph, worker="w", limit=9, lease_seconds=60)
    assert lot is not None
    assert await sweep_tokens(store.engine, graph, age_seconds=-1) >= 1
    assert await scalar(store, "SELECT count(*) FROM fourfold_token WHERE target = 'graph'") == 1
    assert await sweep_tokens(store.engine, graph, age_seconds=-1) == 0
    await execute(store, "UPDATE fourfold_work SET lease_until = 0")
    await assert_converged(store)


async def test_a_worker_with_other_declarations_neither_dispatches_nor_claims(store):
    await add_songs(store, "one")
    other = replace(store.plan, digest="other")
    assert await dispatch(store.engine, other, limit=10) == 0
    await store.new_relay().dispatch_once()
    graph = delivery(store, "graph")
    assert await claim(store.engine, other, graph, worker="w", limit=9, lease_seconds=60) is None
    assert await scalar(store, "SELECT count(*) FROM fourfold_token") == 0, "no token that nobody will use"
    await assert_converged(store)


async def test_declarations_that_change_while_a_token_is_made_are_noticed(store):
    await add_songs(store, "one")
    await store.new_relay().dispatch_once()
    async with a_claim_that_gets_nothing(store):
        await execute(store, "UPDATE fourfold_meta SET value = 'other' WHERE name = 'declarations'")
    digest = store.plan.digest
    await execute(store, "UPDATE fourfold_meta SET value = :digest WHERE name = 'declarations'", digest=digest)
    await assert_converged(store)


async def test_two_claims_at_once_leave_nothing_for_the_second(store):
    await add_songs(store, "one")
    await store.new_relay().dispatch_once()
    async with a_claim_that_gets_nothing(store):
        await store.drain()
    await assert_converged(store)


async def test_a_running_relay_outlives_errors_and_renews_its_leases(store):
    relay = Relay(store.engine, store.plan, store.stores.deliveries(store.plan, store.settings), lease_seconds=0.06)
    with FaultPoints() as points:
        points.fail("relay.dispatch_taken", RuntimeError("the rows are away"))
        pause = points.pause("relay.write_before")
        running = asyncio.create_task(relay.run())
        await add_songs(store, "one")
        relay.wake()
        await pause.wait_reached()
        assert "the rows are away" in relay.statistics().last_error
        before = await scalar(store, "SELECT max(lease_until) FROM fourfold_work")
        async with asyncio.timeout(20):
            while await scalar(store, "SELECT max(lease_until) FROM fourfold_work") == before:
                await asyncio.sleep(0)
        pause.resume()
        async with asyncio.timeout(20):
            while not (await store.status()).in_step:
                await asyncio.sleep(0)
    relay.stop()
    await running
    await assert_converged(store)


async def test_a_target_that_is_away_rests_and_its_error_is_told(store):
    await add_songs(store, "one")
    target = store.stores.targets["graph"]

    async def away(token: int) -> None:
        raise StoreUnavailableError(f"token {token}: nobody answers")

    original, target.create_token = target.create_token, away
    await store.drain()
    graph = next(target for target in (await store.status()).relay.targets if target.name == "graph")
    assert graph.failures >= 1  # more where this test was slower than the pause
    assert "nobody answers" in graph.last_error
    assert await scalar(store, "SELECT paused_until FROM fourfold_target WHERE name = 'graph'") is not None
    target.create_token = original
    await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
    await assert_converged(store)


async def test_an_error_that_is_nobodys_gives_the_lot_back(store):
    await add_songs(store, "one")
    with FaultPoints() as points:
        points.fail("relay.read_before", RuntimeError("a bug"), times=2)
        await store.drain()
    assert any("a bug" in target.last_error for target in (await store.status()).relay.targets)
    await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
    await assert_converged(store)


async def test_f11_a_row_that_cannot_even_be_read_is_found_and_the_others_go_on(store):
    await add_songs(store, *(f"song {number}" for number in range(7)))
    if store.engine.dialect.name == "sqlite":
        await execute(store, "UPDATE songs SET tracks = 'no json' WHERE title = 'song 3'")
    else:
        await execute(store, "UPDATE songs SET tracks = '7' WHERE title = 'song 3'")
    await store.drain()
    assert {key.target for key in (await store.status()).quarantined} >= {"graph"}
    assert (await store.graph.statistics()).nodes["Song"] == 6
    await execute(store, "UPDATE songs SET tracks = '[]' WHERE title = 'song 3'")
    await assert_converged(store)


async def test_a_refused_text_is_found_by_splitting_and_a_wrong_dimension_is_the_providers(store):
    embedder = store.stores.embedding
    asked = embedder.embed

    async def refusing(texts, *, kind="passage"):
        if any("secret" in text for text in texts):
            raise StoreRejectedError("not this text", code="embedder.refused")
        return await asked(texts, kind=kind)

    embedder.embed = refusing
    await add_songs(store, "one", "two secret", "three")
    await store.drain()
    assert [key.code for key in (await store.status()).quarantined] == ["embedder.refused"]
    assert await store.stores.collections["songs"].count() == 2

    async def wrong(texts, *, kind="passage"):
        raise StoreRejectedError(f"{len(texts)} {kind} of a wrong dimension", code="embedder.dimension")

    embedder.embed = wrong
    await add_songs(store, "four")
    await store.drain()
    vectors = next(t for t in (await store.status()).relay.targets if t.name == "vectors.songs")
    assert "wrong dimension" in vectors.last_error

    async def away(texts, *, kind="passage"):
        raise StoreUnavailableError(f"{len(texts)} {kind}: nobody answers")

    embedder.embed = away
    await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
    await store.drain()
    embedder.embed = asked
    await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
    await store.retry()
    await assert_converged(store)


async def test_a_text_that_never_comes_back_fails_alone_and_a_provider_that_is_away_blames_no_text(store):
    embedding = store.stores.embedding
    asked, probed = embedding.embed, embedding.answers

    async def hanging(texts, *, kind="passage"):
        if any("endless" in text for text in texts):
            raise StoreUnavailableError("no answer in time", code="embedder.timeout")
        return await asked(texts, kind=kind)

    async def silent():
        return False

    embedding.embed, embedding.answers = hanging, silent
    await add_songs(store, "one", "endless", "three")
    await store.drain()
    assert not (await store.status()).quarantined
    assert await store.stores.collections["songs"].count() == 0
    embedding.answers = probed
    await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
    await store.drain()
    assert [key.code for key in (await store.status()).quarantined] == ["embedder.timeout"]
    assert await store.stores.collections["songs"].count() == 2
    embedding.embed = asked
    await store.retry()
    await assert_converged(store)


async def test_a_fragment_that_the_target_refuses_is_found_by_splitting(store):
    target = store.stores.targets["graph"]
    original = target.write

    async def picky(token, fragments):
        if any("refused" in str(fragment.nodes) for fragment in fragments):
            raise StoreRejectedError("not this one", code="graph.rejected")
        return await original(token, fragments)

    target.write = picky
    await add_songs(store, "one", "two", "refused", "four", "five")
    await store.drain()
    assert [(key.target, key.code) for key in (await store.status()).quarantined] == [("graph", "graph.rejected")]
    assert (await store.graph.statistics()).nodes["Song"] == 4
    target.write = original
    await store.retry()
    await assert_converged(store)


async def test_a_failed_key_with_a_newer_change_is_not_quarantined_but_tried_again(store):
    async with store.unit_of_work() as work:
        song = Song(title="bad")
        work.session.add(song)
    target = store.stores.targets["graph"]
    original = target.write

    async def picky(token, fragments):
        if any("bad" in str(fragment.nodes) for fragment in fragments):
            raise StoreRejectedError("not this one", code="graph.rejected")
        return await original(token, fragments)

    target.write = picky
    await store.new_relay().dispatch_once()
    with FaultPoints() as points:
        pause = points.pause("relay.settle_before")
        bringing = asyncio.create_task(store.new_relay().bring_once(delivery(store, "graph")))
        await pause.wait_reached()
        async with store.unit_of_work() as work:
            (await work.session.get_one(Song, song.id)).title = "good"
        await store.new_relay().dispatch_once()
        pause.resume()
        await bringing
    assert not (await store.status()).quarantined
    await assert_converged(store)


async def test_rows_that_are_away_while_they_are_read_blame_no_key(store, monkeypatch):
    await add_songs(store, "one", "two")

    async def away(*_):
        raise StoreUnavailableError("the rows are away", code="rows.unavailable")

    with monkeypatch.context() as patched:
        patched.setattr("fourfold.relay.project.load", away)
        await store.drain()
    assert not (await store.status()).quarantined
    await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
    await assert_converged(store)


async def test_there_is_nothing_to_wait_for_without_changes_or_targets(store):
    await wait_settled(store.engine, UnitChanges(), store.targets, timeout=0)
    await wait_settled(store.engine, UnitChanges(((1, 1),)), [], timeout=0)
    await add_songs(store, "one")
    await store.drain()
    await wait_settled(store.engine, UnitChanges(((1, 1 << 40),)), store.targets, timeout=10)  # nobody to wake


async def test_a_damaged_target_quarantines_nobody(store):
    await add_songs(store, "one", "two")
    target = store.stores.targets["graph"]

    async def damaged(token, fragments):
        raise IntegrityError(f"token {token}, {len(fragments)} fragments: malformed", code="graph.corrupt")

    original, target.write = target.write, damaged
    await store.drain()
    target.write = original
    status = await store.status()
    assert not status.quarantined
    assert "malformed" in next(t for t in status.relay.targets if t.name == "graph").last_error
    await execute(store, "UPDATE fourfold_target SET paused_until = NULL")
    await assert_converged(store)


async def test_lag_is_that_of_what_is_missing_not_of_what_was_written_meanwhile(store):
    """A key that changes all the time is brought all the time: it is never older than its newest missing change."""
    async with store.unit_of_work() as work:
        song = Song(title="one")
        work.session.add(song)
    await store.new_relay().dispatch_once()
    graph = delivery(store, "graph")
    lot = await claim(store.engine, store.plan, graph, worker="w", limit=9, lease_seconds=60)
    assert lot is not None
    await execute(store, "UPDATE fourfold_work SET queued_at = queued_at - 1000")
    async with store.unit_of_work() as work:
        (await work.session.get_one(Song, song.id)).title = "two"
    await store.new_relay().dispatch_once()
    await graph.bring(lot.token, lot.keys)
    assert (await settle(store.engine, lot)).freed == 1
    lag = next(target.lag_seconds for target in (await store.status()).relay.targets if target.name == "graph")
    assert lag < 900
    await assert_converged(store)


async def test_retry_goes_through_a_long_quarantine_in_pieces(store, monkeypatch):
    monkeypatch.setattr("fourfold.relay.retry._PIECE", 2)
    embedding = store.stores.embedding
    asked = embedding.embed

    async def refusing(texts, *, kind="passage"):
        raise StoreRejectedError(f"{len(texts)} {kind}: no", code="embedder.refused")

    embedding.embed = refusing
    await add_songs(store, *"abcde")
    await store.drain()
    assert len((await store.status()).quarantined) == 5
    embedding.embed = asked
    assert await store.retry(target="graph") == 0
    assert await store.retry(table="artists") == 0
    assert await store.retry(target="vectors.songs", table="songs") == 5
    await assert_converged(store)


class Refusing:
    """Files of which one can't be removed."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.removed: list[str] = []

    async def remove(self, keys: list[str]) -> None:
        if "bad" in keys:
            raise self.error
        self.removed += keys


async def test_one_object_that_cannot_be_removed_does_not_hold_up_the_others():
    works = [WorkKey("fourfold_object", key, 0, 0, 1) for key in ("a", "bad", "c")]
    files = Refusing(StoreRejectedError("denied", code="objects.denied"))
    (failure,) = await RemovalDelivery(files).bring(1, works)
    assert (failure.work.key, failure.code, files.removed) == ("bad", "objects.denied", ["a", "c"])
    for error in (StoreUnavailableError("away"), DriftError("another store")):
        with pytest.raises(type(error)):
            await RemovalDelivery(Refusing(error)).bring(1, works)


async def test_a_key_of_no_row_and_a_damaged_vector_are_judged(store):
    """Junk keys name no row; a stored vector of a wrong length is altered."""
    await add_songs(store, "one")
    await store.drain()
    await execute(
        store,
        "INSERT INTO fourfold_work (target, table_name, key, first_change, last_change, queued_at)"
        " VALUES ('graph', 'songs', 'no uuid', 0, 0, 0), ('graph', 'sweep:nothing', '', 0, 0, 0),"
        " ('graph', 'nothing', 'k', 0, 0, 0), ('vectors.songs', 'artists', '1', 0, 0, 0),"
        " ('files', 'sweep:songs', '', 0, 0, 0)",
    )
    await assert_converged(store)
