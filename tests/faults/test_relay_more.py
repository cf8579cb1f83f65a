"""F10, F15–F18, F20, F33, F34, F37, F38 and I8: many writers, many rows, many processes, other declarations."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fourfold.errors import DriftError
from fourfold.fourfold import Fourfold
from fourfold.integrity.report import VerifyReport
from fourfold.integrity.verify import TargetVerifier
from fourfold.projection import Edge, Node, Point
from fourfold.relay.waiting import UnitChanges, is_settled
from fourfold.rows.engine import open_engine, write_transaction
from fourfold.testing.embedders import HashEmbedder
from fourfold.testing.faults import FaultPoints
from tests.world import (
    Artist,
    Note,
    Pair,
    Song,
    assert_contents,
    assert_converged,
    open_world,
    settings_for,
    stored_contents,
)

ROOT = Path(__file__).parents[2]
LOTS_OF_MEMORY = 120 * 2**20  # what a relay may need beyond; a million keys held at once would be far above


@pytest.fixture
async def store(rows_url: str, tmp_path: Path) -> AsyncIterator[Fourfold]:
    async with open_world(rows_url, tmp_path / "data") as opened:
        await opened.drain()
        yield opened


@pytest.fixture
async def pg_store(postgresql_url: str, tmp_path: Path) -> AsyncIterator[Fourfold]:
    async with open_world(postgresql_url, tmp_path / "data") as opened:
        await opened.drain()
        yield opened


async def execute(store: Fourfold, statement: str, **parameters: object) -> None:
    async with write_transaction(store.engine) as connection:
        await connection.execute(sa.text(statement), parameters)


async def scalar(store: Fourfold, statement: str) -> object:
    async with store.engine.connect() as connection:
        return await connection.scalar(sa.text(statement))


async def fill_songs(store: Fourfold, count: int, **columns: object) -> list[UUID]:
    keys = [UUID(int=number + 1) for number in range(count)]
    async with store.unit_of_work() as work:
        await work.session.merge(Artist(id=1, name="artist"))
        await work.session.flush()
        work.session.add_all(Song(id=key, title=f"song {key.int}", **columns) for key in keys)
    return keys


async def end_leases(store: Fourfold) -> None:
    await execute(store, "UPDATE fourfold_work SET lease_until = 0 WHERE token IS NOT NULL")


# --------------------------------------------------------------------------------------------- F10: many writers


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


# ------------------------------------------------------------------------------- F15, F16, F17: what no trigger saw


@pytest.mark.postgres
@pytest.mark.parametrize(("table", "left"), [("songs", {"Artist", "Pair"}), ("artists", {"Pair"}), ("pairs", None)])
async def test_f15_truncate_takes_all_keys_out_of_the_targets(pg_store, table, left):
    songs = await fill_songs(pg_store, 50, artist_id=1, tracks=[{"title": "shared"}])
    async with pg_store.unit_of_work() as work:
        work.session.add_all(Note(id=number, song_id=song, text="n") for number, song in enumerate(songs))
        work.session.add_all(Pair(left=number, right="r", value="v") for number in range(20))
    await pg_store.drain()
    await execute(pg_store, f"TRUNCATE {table} CASCADE")
    assert not (await pg_store.status()).in_step
    await assert_converged(pg_store)
    await assert_contents(pg_store)
    labels = set((await pg_store.graph.statistics()).nodes)
    assert labels == (left or {"Artist", "Song", "Note", "Track"})


@pytest.mark.postgres
async def test_f15_truncate_takes_keys_out_of_quarantine_too(pg_store):
    async with pg_store.unit_of_work() as work:
        work.session.add(Song(title="poison"))
    await pg_store.drain()
    assert (await pg_store.status()).quarantined
    await execute(pg_store, "TRUNCATE songs CASCADE")
    await pg_store.drain()
    assert not (await pg_store.status()).quarantined


async def triggers_of(store: Fourfold, table: str) -> list[str]:
    if store.engine.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = :t AND name LIKE 'fourfold%'"
    else:
        query = "SELECT tgname FROM pg_trigger WHERE tgrelid = CAST(:t AS regclass) AND NOT tgisinternal"
    async with store.engine.connect() as connection:
        return sorted((await connection.scalars(sa.text(query), {"t": table})).all())


async def test_f16_dropped_triggers_are_named_and_what_they_missed_is_found_and_mended(rows_url, tmp_path):
    async with open_world(rows_url, tmp_path / "data") as store:
        songs = await fill_songs(store, 10, artist_id=1)
        await store.drain()
        triggers = await triggers_of(store, "songs")
        for trigger in triggers:
            await execute(store, f'DROP TRIGGER "{trigger}"' + (" ON songs" if "postgres" in rows_url else ""))
        await execute(store, "UPDATE songs SET title = 'unseen' WHERE id = :id", id=_bound(store, songs[0]))
        await execute(store, "DELETE FROM songs WHERE id = :id", id=_bound(store, songs[1]))
        status = await store.status()
        assert not status.healthy
        assert not status.in_step
        said = " ".join(f"{problem.message} {problem.facts}" for problem in status.problems)
        assert any(trigger in said for trigger in triggers), said
        await store.drain()
        report = await store.integrity.verify()
        found = {(d.target, d.kind, d.key) for d in report.differences}
        for target in ("graph", "vectors.songs"):
            assert (target, "stale", str(songs[0])) in found
            assert (target, "extra", str(songs[1])) in found
    with pytest.raises(DriftError) as raised:
        async with open_world(rows_url, tmp_path / "data", install=False):
            pass
    assert any(trigger in str(raised.value) for trigger in triggers)
    async with open_world(rows_url, tmp_path / "data") as store:  # a deployment puts them back
        assert await triggers_of(store, "songs") == triggers
        await store.integrity.repair(await store.integrity.verify())
        await assert_converged(store)
        await assert_contents(store)


def _bound(store: Fourfold, key: UUID) -> object:
    return key.hex if store.engine.dialect.name == "sqlite" else key


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE songs DISABLE TRIGGER USER",
        "ALTER TABLE songs DISABLE TRIGGER ALL; ALTER TABLE songs ENABLE TRIGGER ALL",
    ],
    ids=["disabled", "downgraded"],
)
async def test_f16_disabled_and_downgraded_triggers_are_refused(postgresql_url, tmp_path, statement):
    async with open_world(postgresql_url, tmp_path / "data") as store:
        await fill_songs(store, 3)
        await store.drain()
        for part in statement.split(";"):
            await execute(store, part)
        if "ENABLE" in statement:  # fires for everybody but in a replication role
            async with store.engine.begin() as connection:
                await connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
                await connection.execute(sa.text("UPDATE songs SET title = 'unseen'"))
        else:
            await execute(store, "UPDATE songs SET title = 'unseen'")
        status = await store.status()
        assert not status.in_step
        assert any(problem.facts.get("trigger") for problem in status.problems), status.problems
        await store.drain()
        assert (await store.integrity.verify()).counts["graph", "stale"] == 3
    with pytest.raises(DriftError):
        async with open_world(postgresql_url, tmp_path / "data", install=False):
            pass
    async with open_world(postgresql_url, tmp_path / "data") as store:
        await store.integrity.repair(await store.integrity.verify())
        await assert_converged(store)
        await assert_contents(store)


@pytest.mark.postgres
async def test_f16_a_replication_role_does_not_bypass_capture(pg_store):
    await fill_songs(pg_store, 3)
    await pg_store.drain()
    async with pg_store.engine.begin() as connection:
        await connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        await connection.execute(sa.text("UPDATE songs SET title = 'seen'"))
    assert not (await pg_store.status()).in_step
    await assert_converged(pg_store)
    await assert_contents(pg_store)


class ShelfBase(DeclarativeBase):
    pass


class Book(ShelfBase):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    isbn: Mapped[str] = mapped_column(unique=True)
    __projections__ = (Node("Book", properties=("isbn",)), Point("books", text="isbn"))


@asynccontextmanager
async def open_models(
    base: type[DeclarativeBase], url: str, folder: Path, **changes: object
) -> AsyncIterator[Fourfold]:
    engine = open_engine(url)
    async with write_transaction(engine) as connection:
        await connection.run_sync(base.metadata.create_all)
    await engine.dispose()
    async with Fourfold(base, settings_for(url, folder, **changes), embedder=HashEmbedder()) as store:
        yield store


@pytest.mark.parametrize("whose", ["ours", "foreign"])
async def test_f17_or_replace_that_evicts_another_row_is_seen_or_found(sqlite_url, tmp_path, whose):
    async with open_models(ShelfBase, sqlite_url, tmp_path / "data") as store:
        await execute(store, "INSERT INTO books VALUES (1, 'one'), (2, 'two')")
        await store.drain()
        evicting = "INSERT OR REPLACE INTO books VALUES (3, 'one')"  # row 1 goes, by its other key
        if whose == "ours":
            await execute(store, evicting)
        else:
            with closing(sqlite3.connect(tmp_path / "rows.db")) as foreign, foreign:
                foreign.execute(evicting)
        await store.drain()
        report = await store.integrity.verify(deep=True)
        found = [(d.target, d.kind, d.key) for d in report.differences]
        if whose == "ours":
            assert not found
        else:
            assert sorted(found) == [("graph", "extra", "1"), ("vectors.books", "extra", "1")]
            assert await store.integrity.repair(report) == 2
            await store.drain()
        assert not (await store.integrity.verify(deep=True)).differs
        nodes = stored_contents_of_label(store, "Book")
        assert nodes == {2: "two", 3: "one"}


def stored_contents_of_label(store: Fourfold, label: str) -> dict[object, object]:
    with closing(sqlite3.connect(store.settings.data_folder / "graph.db")) as graph:
        rows = [json.loads(row[0]) for row in graph.execute("SELECT properties FROM node WHERE label = ?", (label,))]
    return {row["id"]: row.get("isbn", row.get("name")) for row in rows}


# ------------------------------------------------------------------------------------------------ F18, F20: many rows


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


# ------------------------------------------------------------------------------------- F33, F34: processes, requests

SERVING = """
import asyncio, sys
from pathlib import Path
from tests.world import Artist, Pair, Song, open_world
async def main(url, folder, name):
    async with open_world(url, Path(folder), relay=True) as store:
        for number in range(20):
            async with store.unit_of_work() as work:
                work.session.add(Song(title=f"{name} {number}", tracks=[{"title": "shared"}]))
                await work.session.merge(Pair(left=number, right="both", value=name))
            await work.settled(timeout=60)
asyncio.run(main(*sys.argv[1:]))
"""
READING = """
import asyncio, sys
from pathlib import Path
from tests.world import open_world
async def main(url, folder, name):
    async with open_world(url, Path(folder)) as store:
        for number in range(20):
            status = await store.status()
            assert not status.problems, status.problems
            await store.graph.statistics()
            await store.vectors.nearest("songs", "shared", limit=3)
asyncio.run(main(*sys.argv[1:]))
"""


async def run_python(script: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.slow
async def test_f33_two_serving_processes_and_a_reader_share_one_data_folder(sqlite_url, tmp_path):
    """Also the first start: three processes open an empty folder at once."""
    folder = str(tmp_path / "data")
    async with asyncio.timeout(100):
        await asyncio.gather(
            run_python(SERVING, sqlite_url, folder, "one"),
            run_python(SERVING, sqlite_url, folder, "two"),
            run_python(READING, sqlite_url, folder, "reader"),
        )
    async with open_world(sqlite_url, Path(folder)) as store:
        await assert_converged(store)
        await assert_contents(store)
        assert (await store.graph.statistics()).nodes == {"Song": 40, "Pair": 20, "Track": 1}
    for name in ("rows.db", "stage.db", "data/graph.db", "data/vectors.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


class GoneError(Exception):
    """The client went away."""


async def wait_idle(store: Fourfold) -> None:
    """Return when no connection is checked out any more."""
    async with asyncio.timeout(10):
        while not idle(store):
            await asyncio.sleep(0)


def idle(store: Fourfold) -> bool:
    return store.engine.pool.checkedout() == 0 and store.stores.stage_engine.pool.checkedout() == 0


@pytest.mark.parametrize("point", ["objects.before_stage", "objects.after_stage", "objects.after_upload"])
async def test_f34_a_cancelled_unit_leaves_no_connection_and_no_half_of_itself(store, point):
    async def request() -> None:
        async with store.unit_of_work() as work:
            work.session.add(Pair(left=1, right="half", value="v"))
            if not str(store.engine.url).startswith("sqlite"):
                await work.session.flush()  # on SQLite an upload after the first write has the stage's own file
            await work.files.put(b"bytes")
            work.session.add(Pair(left=2, right="other half", value="v"))

    for _ in range(5):
        with FaultPoints() as points:
            pause = points.pause(point)
            task = asyncio.create_task(request())
            await pause.wait_reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert idle(store)
    assert await scalar(store, "SELECT count(*) FROM pairs") == 0
    async with write_transaction(store.stores.stage_engine) as connection:
        await connection.execute(sa.text("UPDATE fourfold_stage SET lease_until = 0"))
    await store.collect(grace_seconds=0)
    await assert_converged(store)
    assert idle(store)


async def test_f34_an_exception_inside_a_unit_undoes_rows_and_files_and_frees_its_connection(store):
    async def leave_early() -> None:
        async with store.unit_of_work() as work:
            file = await work.files.put(b"bytes")
            work.session.add(Song(title="half", file_key=file.key))
            await work.session.flush()
            raise GoneError

    for _ in range(12):
        async with asyncio.timeout(15):
            with pytest.raises(GoneError):
                await leave_early()
    assert idle(store)
    assert await scalar(store, "SELECT count(*) FROM songs") == 0
    assert await scalar(store, "SELECT count(*) FROM fourfold_change") == 0
    assert await scalar(store, "SELECT count(*) FROM fourfold_object") == 0
    await store.collect(grace_seconds=0)
    await assert_converged(store)


async def test_f34_a_cancelled_waiter_and_a_cancelled_relay_leave_no_connection(store):
    await fill_songs(store, 3)
    for point in ("relay.dispatch_taken", "relay.read_before", "relay.write_before", "relay.settle_before_commit"):
        with FaultPoints() as points:
            pause = points.pause(point)
            task = asyncio.create_task(store.drain())
            await pause.wait_reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await wait_idle(store)
        await end_leases(store)
        await execute(store, "UPDATE songs SET title = title || '.'")
    async with store.unit_of_work() as work:
        work.session.add(Pair(left=1, right="r", value="v"))
    waiter = asyncio.create_task(work.settled(timeout=60))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await end_leases(store)
    await assert_converged(store)
    await assert_contents(store)
    assert idle(store)


async def test_f34_a_drain_that_ends_leaves_no_task_of_its_own_behind(store):
    await fill_songs(store, 1)
    before = len(asyncio.all_tasks())
    with FaultPoints() as points:
        pause = points.pause("vectors.before_write")
        points.fail("relay.settle_after_commit", asyncio.CancelledError(), times=2)  # files have no work: the graph's
        with pytest.raises(asyncio.CancelledError):
            await store.drain()  # the vectors' task stands at its point by then, or never comes so far
        left = len(asyncio.all_tasks()) - before
        pause.resume()
    await wait_idle(store)
    assert not left


# -------------------------------------------------------------------------------- F37, F38, I8: shared, old, honest


@pytest.mark.slow
async def test_f37_a_value_node_is_there_if_and_only_if_an_edge_needs_it(store):
    """One owner leaves while the other arrives, each in another worker's hands."""
    rounds = int(os.environ.get("FOURFOLD_ROUNDS", "40"))
    [one, other] = await fill_songs(store, 2)
    await store.drain()
    relays = [store.new_relay(name) for name in ("one", "two")]
    for relay in relays:
        relay._deliveries["graph"].lot_size = 1  # so that each worker has one of the two owners
    shared, nothing = [{"title": "shared"}], []
    for number in range(rounds):
        wanted = {one: shared if number % 2 else nothing, other: nothing if number % 3 else shared}
        async with store.unit_of_work() as work:
            for key, tracks in wanted.items():
                song = await work.session.get_one(Song, key)
                song.tracks, song.title = tracks, f"round {number}"
        await relays[0].dispatch_once()
        await asyncio.gather(*(relay.bring_once(relay._deliveries["graph"]) for relay in relays))
        stored = stored_contents(store.settings.data_folder)
        needed = sum(bool(tracks) for tracks in wanted.values())
        assert (("Track", "shared") in stored.nodes) == (needed > 0), number
        edges = sum(count for found in stored.edges.values() for edge, count in found.items() if edge[0] == "HAS")
        assert edges == needed, number
    await assert_converged(store)
    await assert_contents(store)


def shop(*, new: bool, collection: str = "things") -> type[DeclarativeBase]:
    """The same tables, with the declarations of one release or the next."""

    class Shop(DeclarativeBase):
        pass

    class Maker(Shop):
        __tablename__ = "makers"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        __projections__ = (Node("Maker" if new else "Firm", properties=("name",)),)

    class Thing(Shop):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        colour: Mapped[str | None]
        maker_id: Mapped[int | None] = mapped_column(sa.ForeignKey("makers.id"))
        __projections__ = (
            (Node("Thing", properties=("name", "colour")), Edge("MADE_BY", "maker_id"), Point(collection, text="name"))
            if new
            else (Node("Item", properties=("name",)), Edge("FROM", "maker_id"), Point("things", text="colour"))
        )

    Shop.Maker, Shop.Thing = Maker, Thing
    return Shop


async def test_f38_old_and_new_declarations_at_work_together_drop_nothing_and_leave_nothing(rows_url, tmp_path):
    old_base, new_base, folder = shop(new=False), shop(new=True), tmp_path / "data"
    async with open_models(old_base, rows_url, folder) as old:
        async with write_transaction(old.engine) as connection:
            await connection.execute(sa.insert(old_base.Maker.__table__), [{"id": 1, "name": "m"}])
            rows = [{"id": number, "name": f"t{number}", "colour": "red", "maker_id": 1} for number in range(5)]
            await connection.execute(sa.insert(old_base.Thing.__table__), rows)
        await old.drain()
        await execute(old, "UPDATE things SET name = 'changed' WHERE id = 1")
        with FaultPoints() as points:
            pause = points.pause("relay.write_before")  # a lot of the old shape is under way
            old_work = asyncio.create_task(old.drain())
            await pause.wait_reached()
            async with open_models(new_base, rows_url, folder) as new:
                await execute(old, "UPDATE things SET name = 'by the old' WHERE id = 2")
                await execute(new, "INSERT INTO things (id, name, colour, maker_id) VALUES (9, 'new', 'blue', 1)")
                await old.drain()  # neither dispatches nor claims any more
                assert await scalar(new, "SELECT count(*) FROM fourfold_change") > 0
                assert not (await old.status()).in_step
                await new.drain()
                pause.resume()
                await old_work
                await old.drain()
                await end_leases(new)
                await execute(new, "UPDATE fourfold_target SET paused_until = NULL")
                await new.drain()
                await old.drain()
                status = await new.status()
                assert status.in_step, status
                statistics = await new.graph.statistics()
                assert dict(statistics.nodes) == {"Maker": 1, "Thing": 6}
                assert dict(statistics.edges) == {"MADE_BY": 6}
                assert await new.stores.collections["things"].count() == 6
                assert not (await new.integrity.verify(deep=True)).differs
                nodes = stored_contents_of_label(new, "Thing")
                assert nodes == {0: "t0", 1: "changed", 2: "by the old", 3: "t3", 4: "t4", 9: "new"}


async def test_f38_a_collection_that_is_no_longer_declared_holds_up_nothing_and_keeps_its_data(rows_url, tmp_path):
    old_base, new_base = shop(new=True, collection="before"), shop(new=True, collection="after")
    async with open_models(old_base, rows_url, tmp_path / "data") as old:
        await execute(old, "INSERT INTO things (id, name) VALUES (1, 'one')")
        await old.drain()
    async with open_models(new_base, rows_url, tmp_path / "data") as new:
        await new.drain()
        status = await new.status()
    with closing(sqlite3.connect(tmp_path / "data" / "vectors.db")) as vectors:
        assert vectors.execute("SELECT count(*) FROM point").fetchone() == (2,)  # the old one, and the new one
    assert status.in_step


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
