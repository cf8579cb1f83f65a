"""recordings-5, -6, -9: the synchronous door, on both dialects."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from fourfold.catalogs.recordings import database
from fourfold.catalogs.recordings.database import DatabaseManager, RecordingsSettings, get_db_session
from fourfold.catalogs.recordings.migrate import upgrade_connection
from fourfold.catalogs.recordings.models import Metadata, Recording, Tracklist
from fourfold.catalogs.recordings.repositories import MetadataRepository, RecordingRepository, TracklistRepository
from fourfold.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    StoreRejectedError,
    StoreUnavailableError,
    ValidationError,
)

TRACKS = [
    {"title": "Été", "artist": "Mira", "start_time": "00:00"},
    {"title": 'The "One"', "artist": "", "start_time": "01:02:03"},
]


def rows_of(manager: DatabaseManager, table: type) -> int:
    with manager.get_db_session() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


@pytest.fixture
def waits() -> list[float]:
    """Seconds that the manager would have slept."""
    return []


@pytest.fixture
def manager(rows_url: str, waits: list[float]) -> Iterator[DatabaseManager]:
    with DatabaseManager(rows_url, sleep=waits.append) as opened:
        with opened.engine.begin() as connection:
            upgrade_connection(connection)
        yield opened


@pytest.fixture
def recordings(manager: DatabaseManager) -> RecordingRepository:
    return RecordingRepository(manager)


def test_recordings_6_create_and_read_are_usable_after_the_session(manager, recordings):
    made = recordings.create("/sets/dawn.mp3", "dawn.mp3", "a" * 64, "b" * 32)
    assert made.created_at.tzinfo is not None
    assert (made.metadata_items, made.tracklist) == ([], None)
    MetadataRepository(manager).create(made.id, "title", "Dawn")
    TracklistRepository(manager).create(made.id, "manual", TRACKS)
    for found in (
        recordings.get_by_id(str(made.id)),
        recordings.get_by_file_path("/sets/dawn.mp3"),
        *recordings.get_all(),
    ):
        assert found.id == made.id
        assert found.sha256_hash == "a" * 64
        assert [item.value for item in found.metadata_items] == ["Dawn"]
        assert found.tracklist.tracks == TRACKS
    assert recordings.get_by_id(uuid.uuid4()) is None
    assert recordings.get_by_file_path("/sets/") is None


def test_recordings_6_get_all_pages_in_a_stable_order(recordings):
    made = recordings.bulk_create({"file_path": f"/{number}", "file_name": "x"} for number in range(7))
    assert len(made) == 7
    pages = [recordings.get_all(limit=3, offset=offset) for offset in (0, 3, 6)]
    assert [row.id for page in pages for row in page] == [row.id for row in recordings.get_all()]
    assert [len(page) for page in pages] == [3, 3, 1]


def test_recordings_6_update_and_delete(recordings):
    made = recordings.create("/a", "a")
    changed = recordings.update(made.id, file_path="/b", sha256_hash="c" * 64)
    assert (changed.file_path, changed.file_name, changed.sha256_hash) == ("/b", "a", "c" * 64)
    assert recordings.get_by_id(made.id).file_path == "/b"
    assert recordings.update(uuid.uuid4(), file_path="/c") is None
    assert recordings.delete(made.id)
    assert not recordings.delete(made.id)


def test_recordings_6_unknown_fields_and_ids_are_refused(manager, recordings):
    with pytest.raises(ValidationError, match="did you mean 'file_path'"):
        recordings.update(uuid.uuid4(), file_pth="/b")
    with pytest.raises(ValidationError, match="file_name must be given"):
        recordings.bulk_create([{"file_path": "/a"}])
    with pytest.raises(ValidationError, match="'seven' is no id"):
        recordings.get_by_id("seven")
    with pytest.raises(ValidationError):
        TracklistRepository(manager).update(uuid.uuid4(), id=uuid.uuid4())


def test_recordings_9_equal_hashes_are_a_conflict_and_never_retried(recordings, waits):
    recordings.create("/a", "a", "a" * 64)
    with pytest.raises(ConflictError) as caught:
        recordings.create("/b", "b", "a" * 64)
    assert caught.value.code == "rows.duplicate"
    assert waits == []


def test_recordings_9_bulk_create_is_all_or_nothing(manager, recordings):
    with pytest.raises(ConflictError):
        recordings.bulk_create([{"file_path": f"/{n}", "file_name": "x", "sha256_hash": "a" * 64} for n in range(2)])
    assert rows_of(manager, Recording) == 0


def test_recordings_6_create_with_fallback_returns_the_row_that_has_the_path(recordings):
    first = recordings.create_with_fallback("/a", "a", "a" * 64)
    assert recordings.create_with_fallback("/a", "other", "b" * 64).id == first.id
    with pytest.raises(ConflictError):
        recordings.create_with_fallback("/b", "b", "a" * 64)


def test_recordings_6_create_with_fallback_at_once_makes_one_row(manager, recordings):
    barrier, found = threading.Barrier(6), []

    def create() -> None:
        barrier.wait()
        found.append(recordings.create_with_fallback("/a", "a").id)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert rows_of(manager, Recording) == 1


def test_recordings_6_metadata(manager, recordings):
    repository, owner = MetadataRepository(manager), recordings.create("/a", "a")
    made = repository.bulk_create([{"recording_id": owner.id, "key": "artist", "value": name} for name in ("x", "y")])
    title = repository.create(str(owner.id), "title", "Dawn")
    assert {item.id for item in repository.get_by_recording(owner.id)} == {title.id, *(item.id for item in made)}
    assert repository.get_by_key(owner.id, "title").value == "Dawn"
    assert repository.get_by_key(owner.id, "artist").id == repository.get_by_key(owner.id, "artist").id
    assert repository.get_by_key(owner.id, "genre") is None
    assert repository.update(title.id, "Dusk").value == "Dusk"
    assert repository.get_by_key(owner.id, "title").value == "Dusk"
    assert repository.delete(title.id)
    assert repository.get_by_key(owner.id, "title") is None
    with pytest.raises(NotFoundError) as caught:
        repository.create(uuid.uuid4(), "title", "Dawn")
    assert caught.value.code == "recordings.not_found"


def test_recordings_9_tracklist_json_round_trip_and_one_per_recording(manager, recordings):
    repository, owner = TracklistRepository(manager), recordings.create("/a", "a")
    made = repository.create(owner.id, "manual", TRACKS, "/a.cue")
    assert repository.get_by_id(made.id).tracks == TRACKS
    assert repository.get_by_recording(owner.id).cue_file_path == "/a.cue"
    assert repository.update(made.id, tracks=TRACKS[:1]).tracks == TRACKS[:1]
    assert repository.get_by_id(made.id).tracks == TRACKS[:1]
    assert repository.update(made.id, tracks=None).tracks is None
    assert repository.get_by_id(made.id).tracks is None
    with pytest.raises(ConflictError):
        repository.create(owner.id, "second")
    with pytest.raises(NotFoundError):
        repository.create(uuid.uuid4(), "manual")
    assert repository.delete(made.id)
    assert repository.get_by_recording(owner.id) is None


def test_recordings_2_wrong_tracks_are_refused_on_every_way_in(manager, recordings):
    repository, owner = TracklistRepository(manager), recordings.create("/a", "a")
    wrong = [{"title": "Dawn", "artist": "Mira", "start_time": "0:00"}]
    made = repository.create(owner.id, "manual")

    def core_insert() -> None:
        with manager.get_db_session() as session:
            session.execute(sa.insert(Tracklist).values(recording_id=owner.id, source="x", tracks=wrong))

    def core_update() -> None:
        with manager.get_db_session() as session:
            session.execute(sa.update(Tracklist).values(tracks=wrong))

    ways: list[Callable[[], object]] = [
        lambda: repository.create(owner.id, "manual", wrong),
        lambda: repository.update(made.id, tracks=wrong),
        core_insert,
        core_update,
    ]
    for way in ways:
        with pytest.raises(ValidationError) as caught:
            way()
        assert (caught.value.index, caught.value.field) == (0, "start_time")


def test_recordings_3_delete_removes_metadata_and_tracklist(manager, recordings):
    def fill(path: str) -> Recording:
        owner = recordings.create(path, path)
        MetadataRepository(manager).create(owner.id, "title", "Dawn")
        TracklistRepository(manager).create(owner.id, "manual", TRACKS)
        return owner

    by_repository, by_sql, kept = fill("/a"), fill("/b"), fill("/c")
    assert recordings.delete(by_repository.id)
    with manager.get_db_session() as session:
        session.execute(sa.delete(Recording).where(Recording.id == by_sql.id))  # the database cascades by itself
    assert (rows_of(manager, Recording), rows_of(manager, Metadata), rows_of(manager, Tracklist)) == (1, 1, 1)
    assert recordings.get_by_id(kept.id).tracklist.tracks == TRACKS


def test_recordings_9_session_rolls_back_on_an_exception(manager):
    def fail() -> None:
        with manager.get_db_session() as session:
            session.add(Recording(file_path="/a", file_name="a"))
            session.flush()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert rows_of(manager, Recording) == 0


def test_recordings_9_rows_outlive_the_manager(manager, rows_url):
    made = RecordingRepository(manager).create("/a", "a")
    manager.close()
    with DatabaseManager(rows_url) as again:
        assert RecordingRepository(again).get_by_id(made.id).file_path == "/a"


def test_recordings_5_reading_never_writes(manager):
    with pytest.raises(StoreRejectedError):
        manager.run(lambda session: session.add(Recording(file_path="/a", file_name="a")), read_only=True)


@pytest.fixture
def postgresql_manager(postgresql_url: str, waits: list[float]) -> Iterator[DatabaseManager]:
    with DatabaseManager(postgresql_url, sleep=waits.append) as opened:
        with opened.engine.begin() as connection:
            upgrade_connection(connection)
        yield opened


@pytest.mark.postgres
def test_recordings_5_connection_lost_inside_a_transaction_is_tried_again(postgresql_manager, waits):
    tries: list[int] = []

    def work(session: Session) -> str:
        pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
        session.add(Recording(file_path="/a", file_name="a"))
        session.flush()
        tries.append(pid)
        if len(tries) < 3:
            _terminate(postgresql_manager, pid)
        return session.scalar(sa.select(Recording.file_path)) or ""

    assert postgresql_manager.run(work) == "/a"
    assert waits == [2.0, 4.0]
    assert rows_of(postgresql_manager, Recording) == 1


@pytest.mark.postgres
def test_recordings_5_connection_lost_in_the_commit_is_never_tried_again(postgresql_manager, waits):
    def work(session: Session) -> None:
        session.add(Recording(file_path="/a", file_name="a"))
        session.flush()
        _terminate(postgresql_manager, session.scalar(sa.text("SELECT pg_backend_pid()")))

    with pytest.raises(StoreUnavailableError) as caught:
        postgresql_manager.run(work)
    assert caught.value.code == "recordings.commit_unknown"
    assert waits == []


@pytest.mark.postgres
def test_recordings_5_idle_connections_that_broke_are_replaced(postgresql_manager, waits):
    recordings = RecordingRepository(postgresql_manager)
    recordings.create("/a", "a")
    _terminate_all_others(postgresql_manager)
    assert recordings.get_by_file_path("/a") is not None
    assert waits == []


@pytest.mark.postgres
def test_recordings_5_statement_timeout_is_set_for_each_transaction(postgresql_manager):
    with postgresql_manager.get_db_session() as session:
        assert session.scalar(sa.text("SHOW statement_timeout")) == "30s"


def test_recordings_5_unreachable_server_is_tried_as_often_as_settings_say():
    with socket.socket() as taken:  # bound and not listening: every connection is refused
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://x:secret@127.0.0.1:{taken.getsockname()[1]}/x"
        waits: list[float] = []
        settings = RecordingsSettings(retry_attempts=4, retry_delay_seconds=0.5)
        manager = DatabaseManager(url, settings=settings, sleep=waits.append)
        for call in (lambda: RecordingRepository(manager).get_all(), manager.get_db_session().__enter__):
            waits.clear()
            with pytest.raises(StoreUnavailableError) as caught:
                call()
            assert waits == [0.5, 1.0, 2.0]
            assert "secret" not in str(caught.value)
        manager.close()


def test_recordings_5_pool_and_its_limits():
    manager = DatabaseManager("postgresql://x@127.0.0.1/x")
    pool = manager.engine.pool
    assert (pool.size(), pool._max_overflow, pool._recycle, pool._pre_ping) == (10, 20, 3600, True)


def test_recordings_8_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "DB_RETRY_ATTEMPTS", "DB_RETRY_DELAY", "SQLALCHEMY_ECHO"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        DatabaseManager()
    assert (RecordingsSettings().retry_attempts, RecordingsSettings().retry_delay_seconds) == (5, 2.0)
    (tmp_path / ".env").write_text("DB_RETRY_DELAY=0.25\nDATABASE_URL=postgresql://x:secret@h/x\n")
    monkeypatch.setenv("DB_RETRY_ATTEMPTS", "7")
    settings = RecordingsSettings()
    assert (settings.retry_attempts, settings.retry_delay_seconds) == (7, 0.25)
    assert "secret" not in repr(settings)


def test_recordings_5_get_db_session_of_the_process(monkeypatch, manager, rows_url):
    monkeypatch.setenv("DATABASE_URL", rows_url)
    database._default_manager.cache_clear()
    with get_db_session() as session:
        session.add(Recording(file_path="/a", file_name="a"))
    with get_db_session() as session:
        assert session.scalar(sa.select(Recording.file_path)) == "/a"
    database._default_manager().close()
    database._default_manager.cache_clear()


def _terminate(manager: DatabaseManager, pid: int) -> None:
    with manager.engine.connect() as other:
        other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def _terminate_all_others(manager: DatabaseManager) -> None:
    others = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    )
    with (
        DatabaseManager(manager.engine.url.render_as_string(hide_password=False)) as other,
        other.engine.begin() as own,
    ):
        own.execute(sa.text(f"{others} pg_backend_pid()"))
