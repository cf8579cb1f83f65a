"""Opening and closing everything together: what fails half-way leaves nothing open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from fourfold.errors import ConfigurationError, FourfoldError
from fourfold.fourfold import Fourfold
from fourfold.installation import is_new
from fourfold.projection import compile_plan, models_of
from fourfold.rows.engine import open_engine, write_transaction
from fourfold.settings import Settings
from fourfold.stores import open_stores
from fourfold.testing.embedders import HashEmbedder
from fourfold.unit_of_work import TrackedSession
from tests.world import Artist, Base, Song, open_world, settings_for


def open_files(folder: Path) -> set[str]:
    """Names of the files in `folder` that this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = descriptor.readlink()
        except FileNotFoundError:
            continue
        if target.parent == folder:
            found.add(target.name)
    return found


async def open_all(folder: Path):
    plan = compile_plan(models_of(Base))
    return await open_stores(Settings(data_folder=folder), plan, engine=None, embedder=HashEmbedder())


async def test_a_store_that_fails_to_open_closes_those_before_it(tmp_path):
    (tmp_path / "vectors.db").write_bytes(b"no database " * 1000)
    with pytest.raises(FourfoldError):
        await open_all(tmp_path)
    assert open_files(tmp_path) == set()


@pytest.mark.parametrize("name", ["what?", "a%41"])
async def test_a_folder_that_the_rows_url_cant_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError) as caught:
        await open_all(tmp_path / name)
    assert caught.value.code == "settings.data_folder"
    assert list(tmp_path.iterdir()) == []


async def test_a_store_that_fails_to_close_keeps_no_other_open(tmp_path):
    stores = await open_all(tmp_path)
    async with stores.engine.connect() as rows, stores.stage_engine.connect() as stages:
        await rows.exec_driver_sql("SELECT 1")
        await stages.exec_driver_sql("SELECT 1")
    assert open_files(tmp_path) >= {"rows.db", "stage.db", "graph.db"}
    close = stores.graph.close

    async def fail() -> None:
        await close()
        message = "can't be closed"
        raise OSError(message)

    stores.graph.close = fail
    with pytest.raises(OSError, match="closed"):
        await stores.close()
    assert open_files(tmp_path) == set()


@pytest.fixture
async def store(rows_url, tmp_path):
    async with open_world(rows_url, tmp_path / "data") as opened:
        yield opened


async def test_opening_twice_is_refused_and_leaves_the_first_open(store):
    with pytest.raises(ConfigurationError) as caught:
        await store.open()
    assert caught.value.code == "fourfold.open"
    assert (await store.status()).healthy


async def test_a_cancelled_close_leaves_no_relay_over_closed_stores(rows_url, tmp_path):
    reached = asyncio.Event()

    class Stuck(HashEmbedder):
        async def embed(self, texts, *, kind="passage"):
            reached.set()
            await asyncio.Event().wait()

    engine = open_engine(rows_url)
    async with write_transaction(engine) as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    store = Fourfold(Base, settings_for(rows_url, tmp_path / "data", relay=True), embedder=Stuck())
    await store.open()
    async with store.unit_of_work() as work:
        work.session.add(Song(title="stuck"))
    await asyncio.wait_for(reached.wait(), 30)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)  # it waits for the lot in hand
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "fourfold-relay"]


async def test_an_untracked_session_is_never_said_to_have_settled(store):
    async with AsyncSession(store.engine) as session, store.unit_of_work(session) as work:
        session.add(Artist(id=1, name="Ada"))
        await session.commit()
        for waiting in (work.settled(timeout=0), store.settled(session, timeout=0)):
            with pytest.raises(ConfigurationError) as caught:
                await waiting
            assert caught.value.code == "rows.not_marked"


async def test_a_joined_tracked_session_settles_when_its_owner_has_committed(store):
    async with (
        AsyncSession(store.engine, sync_session_class=TrackedSession) as session,
        store.unit_of_work(session) as work,
    ):
        session.add(Artist(id=1, name="Ada"))
        await session.commit()
        await session.commit()  # of nothing: what was committed before stays known
        assert work.changes.keys == (("artists", "1"),)
        await store.drain()
        await work.settled(timeout=0)


async def test_a_unit_that_asks_nothing_of_the_rows_waits_for_no_writer(sqlite_url, tmp_path):
    async with open_world(sqlite_url, tmp_path / "data") as store, write_transaction(store.engine) as writer:
        await writer.execute(sa.text("SELECT 1"))
        async with asyncio.timeout(5), store.unit_of_work():
            pass


async def test_tables_of_an_older_version_are_not_migrated_by_a_start(rows_url, tmp_path, monkeypatch):
    """Only `fourfold migrate` changes tables that somebody has; a new database alone installs itself."""
    async with open_world(rows_url, tmp_path / "data"):
        pass

    async def older(*_, **__):
        raise ConfigurationError("at version '0000'", code="rows.not_migrated", seen="0000", expected="0001")

    engine = open_engine(rows_url)
    stores = await open_stores(
        settings_for(rows_url, tmp_path / "data"), compile_plan([]), engine=engine, embedder=None
    )
    monkeypatch.setattr("fourfold.installation.check_version", older)
    assert not await is_new(stores)
    await stores.close()
    await engine.dispose()
