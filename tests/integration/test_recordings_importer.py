"""recordings-3, -10: a folder of audio files becomes rows, files, graph and points, from any state."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import mutagen
import pytest
import sqlalchemy as sa
from mutagen.id3 import TIT2

import fourfold.catalogs.recordings
from fourfold.catalogs.recordings import importer, placing
from fourfold.catalogs.recordings.deletion import delete
from fourfold.catalogs.recordings.importer import ingest
from fourfold.catalogs.recordings.migrate import upgrade
from fourfold.catalogs.recordings.models import Base, Metadata, Recording, Tracklist
from fourfold.catalogs.recordings.paths import encode_path
from fourfold.catalogs.recordings.placing import object_of
from fourfold.errors import ConfigurationError, NotFoundError, ValidationError
from fourfold.fourfold import Fourfold
from fourfold.rows.engine import open_engine
from fourfold.settings import Settings

SAMPLES = Path(fourfold.catalogs.recordings.__file__).parent / "samples"
FORMATS = ["dawn-at-saltmarsh.mp3", "slow-boat-home.flac", "strobe-cellar-closing.ogg", "rooftop-sundown.m4a"]
FORMATS += ["rain-on-a-tin-roof.opus", "corner-lot-parade.wav", "undercroft-pressure.aiff"]


class HashEmbedder:
    """Vectors that are a function of the text: enough to see which text was embedded."""

    model = "hash-1"
    dimension = 8

    async def embed(self, texts: Sequence[str], *, kind: str = "passage") -> list[tuple[float, ...]]:
        return [tuple(1.0 + byte for byte in hashlib.sha256(text.encode()).digest()[:8]) for text in texts]


@asynccontextmanager
async def open_store(rows_url: str, data_folder: Path) -> AsyncIterator[Fourfold]:
    engine = open_engine(rows_url)
    await upgrade(engine)
    await engine.dispose()
    # No relay beside the test's own `drain`: what another one has in hand, `drain` would leave.
    settings = Settings(data_folder=data_folder, rows_url=rows_url, install=True, relay=False)
    async with Fourfold(Base.metadata, settings, embedder=HashEmbedder()) as store:
        yield store


@pytest.fixture
async def store(rows_url: str, tmp_path: Path) -> AsyncIterator[Fourfold]:
    async with open_store(rows_url, tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir()
    return folder


def make(path: Path, sample: str = FORMATS[0], *, title: str | None = None) -> Path:
    """A real audio file of its own: a sample, with another title."""
    shutil.copyfile(SAMPLES / sample, path)
    audio = mutagen.File(path)
    if audio.tags is not None and "TIT2" in audio.tags:
        audio.tags.add(TIT2(encoding=3, text=[title or path.name]))
    else:
        audio["©nam" if path.suffix == ".m4a" else "title"] = [title or path.name]
    audio.save()
    return path


def make_cue(path: Path, file_name: str, *tracks: str, time: str = "00:00:00") -> Path:
    lines = [f'FILE "{file_name}" WAVE']
    for number, title in enumerate(tracks, start=1):
        lines += [f"TRACK {number:02d} AUDIO", f'TITLE "{title}"', 'PERFORMER "Mira"', f"INDEX 01 {time}"]
    path.write_text("\n".join(lines))
    return path


async def recordings(store: Fourfold) -> dict[str, Recording]:
    """By the last part of their path."""
    async with store.session() as session:
        return {os.path.basename(row.file_path): row for row in await session.scalars(sa.select(Recording))}  # noqa: PTH119


async def assert_in_step(store: Fourfold) -> None:
    """Each row's file is there byte by byte, and graph, vectors and files say what the rows say."""
    await store.drain()
    report = await store.integrity.verify(deep=True)
    assert not report.differs, report.differences
    async with store.session() as session:
        for row in (await session.scalars(sa.select(Recording))).all():
            key = await session.scalar(object_of(row.id))
            content = await store.files.read(key)
            assert hashlib.sha256(content).hexdigest() == row.sha256_hash


async def test_recordings_10_each_format_becomes_a_recording(store: Fourfold, music: Path):
    for sample in FORMATS:
        make(music / f"my {sample}", sample)
    report = await ingest(store, music)
    assert (report.added, report.problems, report.missing) == (7, [], [])
    assert report.bytes_stored == sum(path.stat().st_size for path in music.iterdir())
    found = await recordings(store)
    for sample in FORMATS:
        row, path = found[f"my {sample}"], music / f"my {sample}"
        assert row.file_path == str(path)
        assert row.file_name == path.name
        assert row.sha256_hash == hashlib.sha256(path.read_bytes()).hexdigest()
        assert len(row.xxh128_hash) == 32
        assert row.values_of("title") == [path.name]
        assert row.values_of("artist")
        assert float(row.values_of("duration_seconds")[0]) > 1
    await assert_in_step(store)


async def test_recordings_10_second_run_does_no_work(store: Fourfold, music: Path, monkeypatch: pytest.MonkeyPatch):
    for sample in FORMATS:
        make(music / sample, sample)
    make_cue(music / "slow-boat-home.cue", "slow-boat-home.flac", "One")
    shutil.copy(music / FORMATS[0], music / "copy.mp3")
    assert len((await ingest(store, music)).duplicates) == 1

    def fail(*_: object) -> None:
        raise AssertionError("nothing is to be read or written")

    monkeypatch.setattr(importer, "read_source", fail)
    monkeypatch.setattr(importer, "read_tracks", fail)
    monkeypatch.setattr(store, "unit_of_work", fail)
    report = await ingest(store, music)
    assert (report.unchanged, report.added, report.updated, report.duplicates, report.problems) == (8, 0, 0, [], [])


async def test_recordings_3_same_bytes_at_a_second_path(store: Fourfold, music: Path):
    first = make(music / "a.mp3")
    await ingest(store, music)
    (music / "sub").mkdir()
    second = Path(shutil.copy(first, music / "sub" / "b.mp3"))
    report = await ingest(store, music)
    (row,) = (await recordings(store)).values()
    assert [(item.path, item.recording_id, item.recording_path) for item in report.duplicates] == [
        (str(second), row.id, str(first))
    ]
    assert row.values_of("duplicate_path") == [str(second)]
    assert report.bytes_stored == 0
    os.utime(second, ns=(1, 1))  # touched: noted anew, not twice
    await ingest(store, music)
    (row,) = (await recordings(store)).values()
    assert row.values_of("duplicate_path") == [str(second)]
    await assert_in_step(store)


async def test_recordings_3_same_bytes_twice_in_one_run_are_stored_once(store: Fourfold, music: Path):
    first = make(music / "0.mp3")
    for number in range(1, 8):
        shutil.copy(first, music / f"{number}.mp3")
    report = await ingest(store, music, jobs=8)
    assert (report.added, len(report.duplicates)) == (1, 7)
    assert report.bytes_stored == first.stat().st_size
    await assert_in_step(store)


async def test_recordings_10_changed_file_updates_its_recording(store: Fourfold, music: Path):
    path = make(music / "a.mp3", title="First")
    await ingest(store, music)
    (before,) = (await recordings(store)).values()
    async with store.unit_of_work() as work:
        work.session.add(Metadata(recording_id=before.id, key="rating", value="5"))
    old_key = await _key_of(store, before)
    make(path, title="Second")
    report = await ingest(store, music)
    assert (report.updated, report.added) == (1, 0)
    (after,) = (await recordings(store)).values()
    assert after.id == before.id
    assert after.sha256_hash == hashlib.sha256(path.read_bytes()).hexdigest() != before.sha256_hash
    assert after.values_of("title") == ["Second"]
    assert after.values_of("rating") == ["5"]  # somebody's own
    kept = {(item.key, item.value): item.id for item in before.metadata_items}
    assert {item.id for item in after.metadata_items if item.key == "artist"} <= set(kept.values())
    assert await _key_of(store, after) != old_key
    await store.collect(grace_seconds=0)
    await assert_in_step(store)
    with pytest.raises(NotFoundError):
        await store.files.info(old_key)


async def test_recordings_10_touched_file_is_not_stored_again(store: Fourfold, music: Path):
    path = make(music / "a.mp3")
    await ingest(store, music)
    os.utime(path, ns=(5, 5))
    report = await ingest(store, music)
    assert (report.updated, report.bytes_stored) == (1, 0)
    assert (await ingest(store, music)).unchanged == 1
    await assert_in_step(store)


async def test_recordings_10_moved_file_keeps_its_recording_and_object(store: Fourfold, music: Path):
    path = make(music / "a.mp3")
    await ingest(store, music)
    (before,) = (await recordings(store)).values()
    key = await _key_of(store, before)
    path.rename(music / "b.mp3")
    report = await ingest(store, music)
    assert (report.moved, report.added, report.missing) == (1, 0, [])
    (after,) = (await recordings(store)).values()
    assert (after.id, after.file_name, await _key_of(store, after)) == (before.id, "b.mp3", key)
    assert (await ingest(store, music)).unchanged == 1
    await assert_in_step(store)


async def test_recordings_10_bytes_whose_path_got_others_are_found_at_the_duplicate(store: Fourfold, music: Path):
    first = make(music / "a.mp3", title="Old")
    await ingest(store, music)
    shutil.copy(first, music / "b.mp3")
    await ingest(store, music)
    make(first, title="New")
    report = await ingest(store, music)
    assert (report.updated, report.added) == (1, 1)
    found = await recordings(store)
    assert {name: row.values_of("title") for name, row in found.items()} == {"a.mp3": ["New"], "b.mp3": ["Old"]}
    assert found["a.mp3"].values_of("duplicate_path") == []
    assert (await ingest(store, music)).unchanged == 2
    await assert_in_step(store)


async def test_recordings_10_duplicate_that_gets_bytes_of_its_own(store: Fourfold, music: Path):
    first = make(music / "a.mp3")
    await ingest(store, music)
    second = Path(shutil.copy(first, music / "b.mp3"))
    await ingest(store, music)
    make(second, title="Own")
    report = await ingest(store, music)
    assert (report.added, report.duplicates) == (1, [])
    assert (await recordings(store))["a.mp3"].values_of("duplicate_path") == []
    assert (await ingest(store, music)).unchanged == 2


async def test_recordings_10_missing_files_are_reported_and_stay(store: Fourfold, music: Path, tmp_path: Path):
    path = make(music / "a%_.mp3")
    make(music / "b.mp3")
    beside = tmp_path / "music of others"
    beside.mkdir()
    elsewhere = make(beside / "c.mp3")
    await ingest(store, music)
    await ingest(store, beside)
    path.unlink()
    elsewhere.unlink()
    report = await ingest(store, music)
    assert report.missing == [str(path)]
    assert len(await recordings(store)) == 3


async def test_recordings_10_missing_files_of_a_folder_that_differs_in_case_are_its_own(store: Fourfold, music: Path):
    (music / "Sets").mkdir()
    (music / "sets").mkdir()
    gone = make(music / "Sets" / "a.mp3")
    make(music / "sets" / "b.mp3")
    await ingest(store, music)
    gone.unlink()
    assert (await ingest(store, music / "sets")).missing == []
    assert (await ingest(store, music / "Sets")).missing == [str(gone)]


@pytest.mark.parametrize("step", ["mark_duplicate", "replace_content", "take_over"])
async def test_recordings_10_recording_that_is_deleted_meanwhile_is_added_again(
    store: Fourfold, music: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    first = make(music / "a.mp3")
    await ingest(store, music)
    path = first
    if step == "replace_content":
        make(path, title="Another")
    elif step == "take_over":
        path = first.rename(music / "b.mp3")
    else:
        path = music / "b.mp3"
        shutil.copyfile(first, path)
    original = getattr(placing, step)

    async def deleted_before(store_: Fourfold, recording_id: uuid.UUID, source: object) -> object:
        monkeypatch.setattr(placing, step, original)
        await delete(store_, recording_id)
        return await original(store_, recording_id, source)

    monkeypatch.setattr(placing, step, deleted_before)
    report = await ingest(store, music)
    assert (report.added, report.updated, report.moved, report.duplicates, report.problems) == (1, 0, 0, [], [])
    assert list(await recordings(store)) == [path.name]
    await assert_in_step(store)


async def test_recordings_10_cue_sheet_of_the_same_stem_becomes_the_tracklist(store: Fourfold, music: Path):
    make(music / "a.flac", "slow-boat-home.flac")
    cue = make_cue(music / "a.cue", "a.wav", "One", "Two")
    report = await ingest(store, music)
    (row,) = (await recordings(store)).values()
    assert report.problems == []
    assert (row.tracklist.source, row.tracklist.cue_file_path) == ("cue", str(cue))
    assert [track["title"] for track in row.tracklist.tracks] == ["One", "Two"]
    tracklist_id = row.tracklist.id

    make_cue(cue, "a.wav", "One", "Changed", "Three")
    report = await ingest(store, music)
    assert (report.updated, report.bytes_stored) == (1, 0)
    (row,) = (await recordings(store)).values()
    assert row.tracklist.id == tracklist_id
    assert [track["title"] for track in row.tracklist.tracks] == ["One", "Changed", "Three"]
    assert (await ingest(store, music)).unchanged == 1

    cue.unlink()  # nothing is removed
    assert (await ingest(store, music)).unchanged == 1
    (row,) = (await recordings(store)).values()
    assert len(row.tracklist.tracks) == 3
    await assert_in_step(store)


async def test_recordings_10_cue_sheet_that_names_files_by_its_file_lines(store: Fourfold, music: Path):
    make(music / "side a.flac", "slow-boat-home.flac")
    make(music / "Side B.mp3")
    make(music / "other.mp3")
    lines = []
    for name in ("Side A.wav", "side b.mp3"):
        lines += [f'FILE "{name}" WAVE', "TRACK 01 AUDIO", f'TITLE "of {name}"', "INDEX 01 00:00:00"]
    (music / "album.CUE").write_text("\n".join(lines))
    report = await ingest(store, music)
    assert (report.added, report.problems) == (3, [])
    found = await recordings(store)
    assert found["side a.flac"].tracklist.tracks[0]["title"] == "of Side A.wav"
    assert found["Side B.mp3"].tracklist.tracks[0]["title"] == "of side b.mp3"
    assert found["other.mp3"].tracklist is None
    assert (await ingest(store, music)).unchanged == 3


async def test_recordings_10_broken_cue_sheet_is_reported_and_the_audio_taken(store: Fourfold, music: Path):
    make(music / "a.mp3")
    cue = make_cue(music / "a.cue", "a.mp3", "One", time="00:61:00")
    make_cue(music / "lonely.cue", "nothing.mp3", "One", time="x")
    for added in (1, 0):  # as long as it is broken
        report = await ingest(store, music)
        assert report.added == added
        assert {problem.path: problem.error.line for problem in report.problems} == {
            str(cue): 5,
            str(music / "lonely.cue"): 5,
        }
        assert "00:61:00" in str({problem.path: problem.error for problem in report.problems}[str(cue)])
    make_cue(cue, "a.mp3", "One")
    (music / "lonely.cue").unlink()
    report = await ingest(store, music)
    assert (report.updated, report.problems) == (1, [])


async def test_recordings_10_tracklists_of_others_are_left_alone(store: Fourfold, music: Path):
    make(music / "a.mp3")
    await ingest(store, music)
    (row,) = (await recordings(store)).values()
    async with store.unit_of_work() as work:
        tracks = [{"title": "By hand", "artist": "", "start_time": "00:00"}]
        work.session.add(Tracklist(recording_id=row.id, source="manual", tracks=tracks))
    make_cue(music / "a.cue", "a.mp3", "By sheet")
    assert (await ingest(store, music)).updated == 1
    (row,) = (await recordings(store)).values()
    assert row.tracklist.tracks == tracks
    assert (await ingest(store, music)).unchanged == 1


async def test_recordings_10_broken_files_are_reported_with_their_cause_and_the_rest_goes_on(
    store: Fourfold, music: Path
):
    (music / "empty.mp3").touch()
    data = (SAMPLES / "corner-lot-parade.wav").read_bytes()
    (music / "cut.wav").write_bytes(data[: len(data) // 2])
    (music / "text.flac").write_text("not a sound")
    (music / "gone.mp3").symlink_to(music / "nowhere.mp3")
    (music / "._a.mp3").write_bytes(b"\x00\x05\x16\x07")
    (music / "notes.txt").write_text("no audio")
    os.mkfifo(music / "pipe.mp3")
    make(music / "a.mp3")
    report = await ingest(store, music)
    assert report.added == 1
    assert {os.path.basename(problem.path): problem.error.code for problem in report.problems} == {  # noqa: PTH119
        "empty.mp3": "recordings.empty",
        "cut.wav": "recordings.truncated",
        "text.flac": "recordings.damaged",
        "gone.mp3": "recordings.unreadable",
    }
    assert all(problem.error.hint for problem in report.problems)


async def test_recordings_10_audio_without_a_known_suffix_is_found_by_its_content(store: Fourfold, music: Path):
    make(music / "a.flac", "slow-boat-home.flac").rename(music / "no suffix")
    make(music / "b.ogg", "strobe-cellar-closing.ogg").rename(music / "b.bak")
    assert (await ingest(store, music)).added == 2


@pytest.mark.parametrize("name", [b"caf\xe9.mp3", b"\xff\xfe.mp3", "夜 \\xe9.mp3".encode(), b"a\nb.mp3", b"\\xff.mp3"])
async def test_recordings_10_any_file_name_is_taken(store: Fourfold, music: Path, name: bytes):
    path = make(music / "x.mp3").rename(music / os.fsdecode(name))
    report = await ingest(store, music)
    assert (report.added, report.problems) == (1, [])
    async with store.session() as session:
        row = (await session.scalars(sa.select(Recording))).one()
    assert row.file_path == encode_path(path)
    report = await ingest(store, music)
    assert (report.unchanged, report.missing) == (1, [])
    path.unlink()
    assert (await ingest(store, music)).missing == [encode_path(path)]
    await assert_in_step(store)


async def test_recordings_10_folder_loops_end_and_links_are_followed_once(store: Fourfold, music: Path, tmp_path: Path):
    (music / "sub").mkdir()
    make(music / "sub" / "a.mp3")
    (music / "sub" / "up").symlink_to(music)
    (music / "again").symlink_to(music / "sub")
    outside = tmp_path / "outside"
    outside.mkdir()
    make(outside / "b.mp3")
    (music / "out").symlink_to(outside)
    for _ in range(2):
        report = await ingest(store, music)
        assert (report.files, report.duplicates, report.problems) == (2, [], [])
    assert {row.file_path for row in (await recordings(store)).values()} == {
        str(music / "sub" / "a.mp3"),
        str(music / "out" / "b.mp3"),
    }


async def test_recordings_10_own_data_folder_is_passed_over(store: Fourfold, tmp_path: Path, music: Path):
    make(music / "a.mp3")
    for _ in range(2):
        report = await ingest(store, tmp_path)
        assert (report.files, report.duplicates) == (1, [])


async def test_recordings_10_same_folder_by_another_way_is_the_same(store: Fourfold, music: Path, tmp_path: Path):
    make(music / "a.mp3")
    await ingest(store, music)
    (tmp_path / "link").symlink_to(music)
    assert (await ingest(store, tmp_path / "link")).unchanged == 1
    assert (await ingest(store, f"{music}/../music/")).unchanged == 1


async def test_recordings_10_folder_that_is_not_there_or_no_folder(store: Fourfold, music: Path):
    with pytest.raises(NotFoundError) as missing:
        await ingest(store, music / "nowhere")
    assert missing.value.code == "recordings.no_folder"
    (music / "loop").symlink_to(music / "loop")
    for path in (make(music / "a.mp3"), music / "loop"):
        with pytest.raises(ValidationError) as wrong:
            await ingest(store, path)
        assert wrong.value.code == "recordings.folder"


async def test_recordings_10_unreadable_subfolder_is_reported(
    store: Fourfold, music: Path, monkeypatch: pytest.MonkeyPatch
):
    make(music / "a.mp3")
    (music / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = await ingest(store, music)
    assert report.added == 1
    assert [(problem.path, problem.error.code) for problem in report.problems] == [
        (str(music / "locked"), "recordings.unreadable")
    ]


async def test_recordings_10_stop_ends_after_the_files_in_hand_and_the_next_run_goes_on(store: Fourfold, music: Path):
    for number in range(12):
        make(music / f"{number}.mp3")
    stop, seen = asyncio.Event(), []

    def note(progress: importer.IngestProgress) -> None:
        seen.append((progress.path, progress.outcome))
        if len(seen) == 3:
            stop.set()

    report = await ingest(store, music, stop=stop, progress=note, jobs=2)
    assert report.stopped
    assert 3 <= report.added <= 5
    assert len(seen) == report.added == len(await recordings(store))
    again = await ingest(store, music)
    assert (again.added, again.unchanged, again.stopped) == (12 - report.added, report.added, False)
    await assert_in_step(store)


async def test_recordings_10_file_that_changes_while_it_is_read(
    store: Fourfold, music: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make(music / "a.mp3")
    read = importer.read_source

    def write_meanwhile(*arguments: object) -> object:
        source = read(*arguments)
        with path.open("ab") as stream:
            stream.write(b"more")
        return source

    monkeypatch.setattr(importer, "read_source", write_meanwhile)
    report = await ingest(store, music)
    assert [problem.error.code for problem in report.problems] == ["objects.sha256"]
    assert await recordings(store) == {}
    monkeypatch.undo()
    assert (await ingest(store, music)).added == 1
    await assert_in_step(store)


async def test_recordings_11_without_an_embedder_nothing_opens(tmp_path: Path):
    with pytest.raises(ConfigurationError) as caught:
        Fourfold(Base.metadata, Settings(data_folder=tmp_path / "x", embedder=""))
    assert caught.value.code == "vectors.no_embedder"


async def _key_of(store: Fourfold, row: Recording) -> str:
    async with store.session() as session:
        return str(await session.scalar(object_of(row.id)))


async def test_recordings_3_delete_of_an_unknown_recording(store: Fourfold):
    with pytest.raises(NotFoundError) as caught:
        await fourfold.catalogs.recordings.delete(store, uuid.uuid4())
    assert caught.value.code == "recordings.not_found"
