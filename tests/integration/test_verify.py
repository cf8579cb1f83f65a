"""Verify finds every kind of difference, repair mends what can be mended, and says what can't."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from fourfold.errors import DriftError, NotFoundError, StoreRejectedError
from fourfold.fourfold import Fourfold
from fourfold.integrity.repair import guard_mass_deletion
from fourfold.integrity.report import Progress, VerifyReport
from fourfold.integrity.vectors import altered_vectors
from fourfold.objects.inspection import check_object
from fourfold.objects.registry import delete_objects
from fourfold.rows.engine import write_transaction
from fourfold.testing.faults import FaultPoints
from tests.world import Artist, Song, assert_converged, open_world


@pytest.fixture
async def store(rows_url: str, tmp_path: Path) -> AsyncIterator[Fourfold]:
    async with open_world(rows_url, tmp_path / "data") as opened:
        async with opened.unit_of_work() as work:
            file = await work.files.put(b"some bytes", filename="a.txt")
            work.session.add(Artist(id=1, name="Ada"))
            work.session.add_all(
                Song(title=f"song {n}", artist_id=1, tracks=[{"title": f"t{n % 3}"}], file_key=None if n else file.key)
                for n in range(10)
            )
        await opened.drain()
        yield opened


def tamper(store: Fourfold, file: str, statement: str, *parameters: object) -> None:
    """What somebody else's program does to a target behind our back."""
    connection = sqlite3.connect(store.settings.data_folder / file)
    with connection:
        assert connection.execute(statement, parameters).rowcount > 0, statement
    connection.close()


async def counts(store: Fourfold, *, deep: bool) -> dict[tuple[str, str], int]:
    return dict((await store.integrity.verify(deep=deep)).counts)


async def mend(store: Fourfold) -> int:
    report = await store.integrity.verify(deep=True)
    assert report.differs
    queued = await store.integrity.repair(report)
    await store.drain()
    return queued


async def test_f27_deep_finds_a_changed_node_payload_and_vector_that_quick_does_not_see(store):
    tamper(
        store,
        "graph.db",
        "UPDATE node SET properties = json_set(properties, '$.title', 'forged')"
        " WHERE json_extract(properties, '$.title') = 'song 3'",
    )
    tamper(
        store,
        "vectors.db",
        "UPDATE point SET payload = replace(payload, 'song 4', 'forged') WHERE payload LIKE '%song 4%'",
    )
    tamper(store, "vectors.db", "UPDATE point SET vector = zeroblob(length(vector)) WHERE payload LIKE '%song 5%'")
    assert await counts(store, deep=False) == {}
    assert await counts(store, deep=True) == {("graph", "altered"): 1, ("vectors.songs", "altered"): 2}
    assert await mend(store) == 3
    await assert_converged(store)


async def test_f27_a_flipped_bit_a_short_and_a_missing_file_are_found(store):
    (path,) = [
        p for p in (store.settings.data_folder / "files").rglob("*") if p.is_file() and p.read_bytes() == b"some bytes"
    ]
    path.write_bytes(b"some bytez")
    assert await counts(store, deep=False) == {}
    assert await counts(store, deep=True) == {("files", "altered"): 1}
    path.write_bytes(b"some")
    assert await counts(store, deep=False) == {("files", "altered"): 1}
    path.unlink()
    report = await store.integrity.verify()
    assert [(d.kind, d.target) for d in report.differences] == [("missing", "files")]
    assert await store.integrity.repair(report) == 0  # bytes can't be made again from here


async def test_missing_stale_and_extra_are_found_quickly_and_mended(store):
    async with store.engine.connect() as connection:
        (one, *_) = (await connection.scalars(sa.select(Song.id))).all()
    from fourfold.projection.items import GraphFragment, Owner, PointFragment, PointItem

    graph = store.stores.targets["graph"]
    await graph.create_token(10**9)
    await graph.write(10**9, [GraphFragment(Owner("songs", str(one)))])
    tamper(store, "graph.db", "UPDATE owner SET digest = zeroblob(16) WHERE owner = 'artists:1'")
    target = store.stores.targets["vectors.songs"]
    # An owner that no row has: written by a worker with a token of its own, as a retired table's would be.
    await target.create_token(10**9)
    vector = tuple([1.0] + [0.0] * (store.stores.collections["songs"].spec.dimension - 1))
    extra = PointItem(vector=vector, text="extra", payload={"title": "extra"})
    await target.write(10**9, [PointFragment(Owner("retired", "1"), "songs", (extra,), store.stores.models["songs"])])
    found = await counts(store, deep=False)
    assert found[("vectors.songs", "extra")] == 1
    assert found[("graph", "stale")] == 1
    assert found[("graph", "missing")] == 1
    await mend(store)
    await assert_converged(store)


async def test_verify_runs_beside_writers_and_reports_nothing_that_is_only_on_its_way(store):
    async def write() -> None:
        for number in range(30):
            async with store.unit_of_work() as work:
                await work.session.execute(sa.update(Song).values(title=f"again {number}"))
                work.session.add(Song(title=f"new {number}"))

    relay = store.new_relay()
    running = asyncio.create_task(relay.run())
    writing = asyncio.create_task(write())
    while not writing.done():
        report = await store.integrity.verify(["graph"], deep=True)
        assert not report.differs, report.differences
    await writing
    relay.stop()
    await running
    await assert_converged(store)


async def test_what_is_in_a_sleeping_workers_hands_counts_as_in_flight(store):
    from fourfold.integrity.verify import TargetVerifier

    async with store.unit_of_work() as work:
        work.session.add(Song(title="late"))
    with FaultPoints() as points:
        pause = points.pause("relay.write_before")
        sleeper = asyncio.create_task(store.drain())
        await pause.wait_reached()
        in_flight = 0
        for name, target in store.stores.targets.items():
            report = VerifyReport(deep=False)
            verifier = TargetVerifier(store.engine, store.plan, target, store.stores.models, settle_seconds=0)
            await verifier.verify(report)
            assert not report.differs, name
            in_flight += report.in_flight
        assert in_flight >= 1
        pause.resume()
        await sleeper


async def test_a_row_that_cannot_be_projected_is_a_difference_until_it_is_mended(store):
    async with store.unit_of_work() as work:
        work.session.add(Song(title="poison"))
    await store.drain()
    report = await store.integrity.verify(["vectors.songs"])
    assert [(d.kind, "can't be embedded" in d.detail) for d in report.differences] == [("stale", True)]


async def test_foreign_items_are_reported_on_request_and_never_touched(store):
    guest = "('Guest', '[1]', '[\"id\"]', '{\"id\":1}', 0)"
    tamper(store, "graph.db", f"INSERT INTO node (label, key, identity, properties, stub) VALUES {guest}")
    assert not (await store.integrity.verify()).counts
    report = await store.integrity.verify(["graph"], foreign=True)
    assert report.counts == {("graph", "foreign"): 1}
    assert not report.differs
    await store.integrity.rebuild()
    await store.drain()
    assert (await store.integrity.verify(["graph"], foreign=True)).counts == {("graph", "foreign"): 1}


async def test_rebuild_writes_everything_again_and_sweeps_what_no_row_owns(store):
    tamper(store, "graph.db", "UPDATE node SET properties = json_set(properties, '$.title', 'forged')")
    assert await store.integrity.rebuild(["graph", "files"]) == ["graph"]
    await store.drain()
    await assert_converged(store)


async def test_rebuild_asks_before_it_sweeps_most_of_a_target(store):
    """An empty or wrong database beside a full target: the rows' absence is likelier the mistake."""
    async with store.unit_of_work() as work:
        work.session.add_all(Song(title=f"more {n}") for n in range(150))
    await store.drain()
    async with store.unit_of_work() as work:
        await work.session.execute(sa.delete(Song))
    with pytest.raises(DriftError) as raised:
        await store.integrity.rebuild(["vectors.songs"])
    assert (raised.value.code, raised.value.target) == ("repair.mass_deletion", "vectors.songs")
    assert await store.integrity.rebuild(confirmed=True) == ["graph", "vectors.songs"]
    await assert_converged(store)


async def test_a_row_that_cannot_be_projected_differs_once(store):
    """Its older state is in the target: it is told once, as stale, and memory doesn't grow with such rows."""
    junk = "no json" if store.engine.dialect.name == "sqlite" else "7"
    async with store.engine.begin() as connection:
        await connection.execute(sa.text("UPDATE songs SET tracks = :junk WHERE title = 'song 3'"), {"junk": junk})
    await store.drain()
    report = await store.integrity.verify(["graph"])
    assert dict(report.counts) == {("graph", "stale"): 1}
    assert "can't be projected" in report.differences[0].detail
    async with store.engine.begin() as connection:
        await connection.execute(sa.text("UPDATE songs SET tracks = '[]' WHERE title = 'song 3'"))
    await assert_converged(store)


async def test_deep_verify_looks_at_the_others_when_a_text_is_refused(store):
    tamper(store, "vectors.db", "UPDATE point SET vector = zeroblob(length(vector)) WHERE payload LIKE '%song 5%'")
    embedding = store.stores.embedding
    asked = embedding.embed

    async def refusing(texts, *, kind="passage"):
        if any("song 7" in text for text in texts):
            raise StoreRejectedError("not this one", code="embedder.refused")
        return await asked(texts, kind=kind)

    embedding.embed = refusing
    report = await store.integrity.verify(["vectors.songs"], deep=True)
    assert dict(report.counts) == {("vectors.songs", "altered"): 1}

    async def wrong(texts, *, kind="passage"):
        raise StoreRejectedError(f"{len(texts)} {kind} of a wrong dimension", code="embedder.dimension")

    embedding.embed = wrong
    with pytest.raises(StoreRejectedError):  # nothing was compared: that must not look like agreement
        await store.integrity.verify(["vectors.songs"], deep=True)
    embedding.embed = asked
    assert await mend(store) == 1
    await assert_converged(store)


async def test_more_differences_than_one_piece_are_all_told(store, monkeypatch):
    monkeypatch.setattr("fourfold.integrity.verify._PIECE", 3)
    tamper(store, "graph.db", "UPDATE owner SET digest = x'00' WHERE owner LIKE 'songs:%'")
    assert await counts(store, deep=False) == {("graph", "stale"): 10}
    assert await mend(store) == 10
    await assert_converged(store)


async def test_a_file_that_nobody_registered_is_told_and_left_alone(store):
    key = str(uuid4())
    async with store.stores.objects.write(key) as writer:
        await writer.write(b"stray")
        await writer.finish()
    (path,) = store.settings.data_folder.rglob(f"*{key}*")
    os.utime(path, (0, 0))  # what is young may be about to be registered
    report = await store.integrity.verify(["files"])
    assert [(found.kind, found.key) for found in report.differences] == [("orphan", key)]
    await store.integrity.repair(report)
    assert path.exists()


async def test_a_file_that_is_collected_while_it_is_looked_at_is_no_difference(store, monkeypatch):
    async def collected_first(objects, stored, *, deep):
        async with store.unit_of_work() as work:
            await work.session.execute(sa.update(Song).values(file_key=None))
        async with write_transaction(store.engine) as connection:
            await delete_objects(connection, [stored.key])
        await store.drain()
        return await check_object(objects, stored, deep=deep)

    monkeypatch.setattr("fourfold.integrity.files.check_object", collected_first)
    assert not (await store.integrity.verify(["files"])).differs
    monkeypatch.undo()
    await assert_converged(store)


async def test_nothing_to_look_at_has_no_altered_vectors(store):
    assert await altered_vectors(store.stores.collections["songs"], store.stores.embedding, []) == set()


async def test_progress_is_told_and_a_wrong_target_is_named(store):
    told: list[Progress] = []
    await store.integrity.verify(progress=told.append)
    assert {step.step.partition(":")[0] for step in told} >= {"files", "graph", "vectors.songs"}
    with pytest.raises(NotFoundError, match="did you mean 'graph'"):
        await store.integrity.verify(["grap"])


def test_mass_deletion_asks_first():
    with pytest.raises(DriftError) as raised:
        guard_mass_deletion("graph", 5_000, 10_000, confirmed=False)
    assert raised.value.code == "repair.mass_deletion"
    guard_mass_deletion("graph", 5_000, 10_000, confirmed=True)
    guard_mass_deletion("graph", 99, 0, confirmed=False)
    guard_mass_deletion("graph", 1_000, 10_000, confirmed=False)


async def test_stubs_that_nothing_needs_are_found_and_removed(store):
    stub = "('Track', '[\"x\"]', '[\"title\"]', '{\"title\":\"x\"}', 1)"
    tamper(store, "graph.db", f"INSERT INTO node (label, key, identity, properties, stub) VALUES {stub}")
    report = await store.integrity.verify(["graph"])
    assert report.counts == {("graph", "orphan"): 1}
    assert await store.integrity.repair(report) == 1
    await assert_converged(store)
