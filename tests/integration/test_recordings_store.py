"""recordings-3, -4, -7, -11: what follows from the rows, in graph, vectors and files."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fourfold.catalogs.recordings import delete, ingest, shared_tracks, similar
from fourfold.catalogs.recordings.database import DatabaseManager
from fourfold.catalogs.recordings.models import Metadata, Recording, Tracklist
from fourfold.catalogs.recordings.placing import object_of
from fourfold.catalogs.recordings.repositories import MetadataRepository, RecordingRepository, TracklistRepository
from fourfold.errors import NotFoundError
from fourfold.fourfold import Fourfold
from fourfold.graph.patterns import match, node, out, prop
from tests.integration.test_recordings_importer import SAMPLES, assert_in_step, open_store, recordings


@pytest.fixture
async def store(rows_url: str, tmp_path: Path) -> AsyncIterator[Fourfold]:
    """The samples, ingested and settled."""
    shutil.copytree(SAMPLES, tmp_path / "music", ignore=shutil.ignore_patterns("*.md", "__*"))
    async with open_store(rows_url, tmp_path / "data") as opened:
        report = await ingest(opened, tmp_path / "music")
        assert (report.added, report.problems) == (8, [])
        await opened.drain()
        yield opened


async def test_recordings_4_graph_has_the_shape_of_the_source_system(store: Fourfold):
    row = (await recordings(store))["slow-boat-home.flac"]
    recording = node("Recording", as_="r", uuid=str(row.id))
    (found,) = await store.graph.match(match(recording))
    assert dict(found["r"].properties) == {
        "uuid": str(row.id),
        "file_name": "slow-boat-home.flac",
        "file_path": row.file_path,
    }
    metadata = await store.graph.match(match(recording, out("HAS_METADATA"), node("Metadata", as_="m")))
    assert {(item["m"]["key"], item["m"]["value"]) for item in metadata} == {
        (item.key, item.value) for item in row.metadata_items
    }
    tracks = match(
        recording,
        out("HAS_TRACKLIST"),
        node("Tracklist", as_="l"),
        out("CONTAINS_TRACK", as_="c"),
        node("Track", as_="t"),
    ).select(
        source=prop("l", "source"),
        title=prop("t", "title"),
        artist=prop("t", "artist"),
        start_time=prop("c", "start_time"),
    )
    assert await store.graph.match(tracks.order_by("start_time")) == [
        {"source": "cue", "title": "Été au phare", "artist": "Elin Farrow", "start_time": "00:00"},
        {"source": "cue", "title": "Glass Horizon", "artist": "Elin Farrow", "start_time": "00:01"},
    ]


async def test_recordings_4_shared_track_is_one_node(store: Fourfold):
    found = await recordings(store)
    name_of = {row.id: name.partition(".")[0] for name, row in found.items()}
    pairs = {
        (track.title, frozenset({name_of[track.first], name_of[track.second]})) for track in await shared_tracks(store)
    }
    assert pairs == {
        ("Black Iron", frozenset({"furnace-room-4am", "strobe-cellar-closing"})),
        ("Glass Horizon", frozenset({"dawn-at-saltmarsh", "slow-boat-home"})),
    }
    (own,) = await shared_tracks(store, found["slow-boat-home.flac"].id)
    assert own.title == "Glass Horizon"
    assert await shared_tracks(store, found["rooftop-sundown.m4a"].id) == []
    assert len(await store.graph.match(match(node("Track", as_="t", title="Black Iron", artist="Kesselring")))) == 1


async def test_recordings_11_nearest_to_a_text_and_to_a_recording(store: Fourfold):
    row = (await recordings(store))["slow-boat-home.flac"]
    best = (await similar(store, row.search_text, limit=1))[0]
    assert best.recording.id == row.id
    assert best.score == pytest.approx(1)
    others = await similar(store, row.id, limit=3)
    assert len(others) == 3
    assert row.id not in {hit.recording.id for hit in others}
    assert [hit.score for hit in others] == sorted((hit.score for hit in others), reverse=True)


async def test_recordings_3_delete_removes_rows_graph_point_and_file(store: Fourfold):
    row = (await recordings(store))["furnace-room-4am.mp3"]
    async with store.session() as session:
        key = await session.scalar(object_of(row.id))
    work = await delete(store, row.id)
    await store.drain()
    await work.settled(timeout=30)
    async with store.session() as session:
        for table in (Metadata, Tracklist):
            assert not (await session.scalars(sa.select(table).where(table.recording_id == row.id))).all()
    assert not await store.graph.match(match(node("Recording", uuid=str(row.id), as_="r")))
    assert not await store.graph.match(match(node("Track", title="Piston", artist="Kesselring", as_="t")))
    assert await store.graph.match(match(node("Track", title="Black Iron", artist="Kesselring", as_="t")))
    assert row.id not in {hit.recording.id for hit in await similar(store, row.search_text, limit=10)}
    with pytest.raises(NotFoundError):
        await store.files.info(key)
    with pytest.raises(NotFoundError):
        await delete(store, row.id)
    with pytest.raises(NotFoundError):
        await similar(store, row.id)
    await assert_in_step(store)


async def test_recordings_7_changes_by_the_synchronous_door_reach_the_graph_and_the_vectors(
    store: Fourfold, rows_url: str
):
    row = (await recordings(store))["rain-on-a-tin-roof.opus"]
    async with store.session() as session:
        key = await session.scalar(object_of(row.id))
    with DatabaseManager(rows_url) as manager:
        track = {"title": "Glass Horizon", "artist": "Elin Farrow", "start_time": "00:00"}
        TracklistRepository(manager).create(row.id, "manual", [track])
        title = MetadataRepository(manager).get_by_key(row.id, "title")
        MetadataRepository(manager).update(title.id, "Storm")
        await assert_in_step(store)
        assert len(await shared_tracks(store, row.id)) == 2
        assert (await recordings(store))["rain-on-a-tin-roof.opus"].search_text.startswith(
            "Theo Brandling – Storm\nElin"
        )
        assert RecordingRepository(manager).delete(row.id)
    await store.collect(grace_seconds=0)
    await assert_in_step(store)
    with pytest.raises(NotFoundError):
        await store.files.info(key)


@pytest.mark.parametrize(
    "statement", ["UPDATE recordings SET file_path = '/else' || file_path", "DELETE FROM metadata"]
)
async def test_recordings_7_raw_sql_reaches_the_graph_and_the_vectors(store: Fourfold, statement: str):
    async with store.engine.begin() as connection:
        await connection.execute(sa.text(statement))
    await store.drain()
    report = await store.integrity.verify(["graph", "vectors.recordings"], deep=True)
    assert not report.differs, report.differences
    async with store.session() as session:
        assert len((await session.scalars(sa.select(Recording))).all()) == 8
