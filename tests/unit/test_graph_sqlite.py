from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from fourfold import faultpoints
from fourfold.embedded import map_error
from fourfold.errors import (
    ConfigurationError,
    ConflictError,
    FourfoldError,
    IntegrityError,
    StoreRejectedError,
    StoreUnavailableError,
)
from fourfold.graph import SqliteGraphStore
from fourfold.graph.patterns import both, count, match, node, out, prop
from fourfold.graph.sqlite_compile import compile_query
from fourfold.graph.sqlite_file import GRAPH_FILE
from fourfold.graph.sqlite_functions import register
from fourfold.projection.items import GraphFragment, Owner
from fourfold.testing.graph import SCHEMA, contents, gone, mix, person, recording

ALL = match(node(as_="n"))


@pytest.fixture
async def store(tmp_path):
    store = SqliteGraphStore(tmp_path / "graph.db")
    await store.ensure_schema(SCHEMA)
    await store.create_token(1)
    yield store
    await store.close()


@pytest.fixture
def raw(store, tmp_path):
    with closing(sqlite3.connect(tmp_path / "graph.db", isolation_level=None)) as connection:
        register(connection)
        yield connection


@pytest.fixture
def hooks():
    yield faultpoints.set_hooks
    faultpoints.set_hooks(None)


# ---------------------------------------------------------------------- opening


@pytest.mark.parametrize("path", ["", ":memory:", "file:x?mode=ro"])
def test_a_path_that_is_no_file_is_refused(path):
    with pytest.raises(ConfigurationError, match="expected a file"):
        SqliteGraphStore(path)


def test_an_unknown_synchronous_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'NORMAL'"):
        SqliteGraphStore(tmp_path / "graph.db", synchronous="NORML")


async def refused(path, code):
    store = SqliteGraphStore(path)
    with pytest.raises(FourfoldError) as caught:
        await store.statistics()
    await store.close()
    assert caught.value.code == code
    return caught.value


async def test_a_missing_folder_is_unavailable(tmp_path):
    error = await refused(tmp_path / "none" / "graph.db", "graph.open")
    assert error.retryable  # it may be a disk that isn't mounted yet


async def test_a_newer_format_is_refused_and_untouched(store, raw, tmp_path):
    raw.execute(f"PRAGMA user_version = {GRAPH_FILE.version + 1}")
    error = await refused(tmp_path / "graph.db", "graph.format")
    assert (error.seen, error.expected) == (GRAPH_FILE.version + 1, GRAPH_FILE.version)


async def test_another_programs_file_is_refused_and_untouched(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE mine (id)")
        connection.commit()
        await refused(tmp_path / "other.db", "graph.foreign_file")
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("mine",)]


async def test_a_file_that_is_no_database_is_an_integrity_error(tmp_path):
    (tmp_path / "graph.db").write_bytes(b"no database, but long enough to be looked at" * 100)
    error = await refused(tmp_path / "graph.db", "graph.corrupt")
    assert isinstance(error, IntegrityError)


async def test_a_damaged_page_is_an_integrity_error(store, tmp_path):
    await store.write(1, [recording(str(number), text="x" * 500) for number in range(200)])
    await store.close()
    damaged = bytearray((tmp_path / "graph.db").read_bytes())
    damaged[4096 * 5 :] = b"\xff" * (len(damaged) - 4096 * 5)
    (tmp_path / "graph.db").write_bytes(damaged)
    again = SqliteGraphStore(tmp_path / "graph.db")
    with pytest.raises(IntegrityError):
        await again.match(ALL)
    await again.close()


async def test_many_open_a_new_file_at_once(tmp_path):
    stores = [SqliteGraphStore(tmp_path / "graph.db") for _ in range(8)]
    await asyncio.gather(*(store.create_token(number) for number, store in enumerate(stores)))
    assert await stores[0].write(7, mix())
    for store in stores:
        await store.close()


async def test_the_log_is_on_and_commits_reach_the_disk(store, raw):
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    read = store._connections.write(lambda connection: connection.execute("PRAGMA synchronous").fetchone())
    assert await read == (2,)


async def test_a_closed_store_says_so(store):
    await store.close()
    await store.close()
    for use in (store.statistics(), store.create_token(2), store.match(ALL)):
        with pytest.raises(StoreUnavailableError) as caught:
            await use
        assert caught.value.code == "graph.closed"


def test_a_store_serves_one_event_loop_after_another(tmp_path):
    store = SqliteGraphStore(tmp_path / "graph.db")
    asyncio.run(store.create_token(1))
    asyncio.run(store.write(1, mix()))
    assert len(asyncio.run(store.match(ALL))) == 9
    asyncio.run(store.close())


# ---------------------------------------------------------------------- errors at the border


def test_every_result_code_and_class_of_sqlite_is_mapped():
    codes = {name: getattr(sqlite3, name) for name in dir(sqlite3) if name.startswith("SQLITE_")}
    path = Path("graph.db")
    for name in ("BUSY", "LOCKED", "FULL", "IOERR", "NOMEM", "INTERRUPT", "CORRUPT", "NOTADB", "READONLY", "CANTOPEN"):
        error = sqlite3.OperationalError("text that nobody reads")
        error.sqlite_errorcode, error.sqlite_errorname = codes[f"SQLITE_{name}"] | (7 << 8), f"SQLITE_{name}"
        assert map_error(error, path, GRAPH_FILE.outcomes).code != "graph.rejected"
    for kind in vars(sqlite3).values():
        if isinstance(kind, type) and issubclass(kind, (sqlite3.Error, sqlite3.Warning)):
            assert isinstance(map_error(kind("x"), path, GRAPH_FILE.outcomes), StoreRejectedError)


async def set_pragma(store, pragma):
    await store._connections.write(lambda connection: connection.execute(f"PRAGMA {pragma}").fetchall())


async def test_a_held_lock_is_unavailable_and_retryable(store, raw):
    await set_pragma(store, "busy_timeout = 1")
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError) as caught:
        await store.write(1, mix())
    assert (caught.value.code, caught.value.retryable) == ("graph.busy", True)
    raw.execute("ROLLBACK")
    assert (await store.write(1, mix())).written == 5


async def test_f28_disk_full_at_every_page_leaves_nothing_half_written(store, raw):
    await store.write(1, mix())
    before = await contents(store)
    lot = [recording(str(number), text="x" * 3_000) for number in range(20)]
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    full = 0
    for room in range(100):
        await set_pragma(store, f"max_page_count = {pages + room}")
        with contextlib.suppress(StoreUnavailableError):
            await store.write(1, lot)
            break
        assert await contents(store) == before
        full += 1
        await set_pragma(store, f"max_page_count = {pages + room}")  # again: a connection that failed is dropped
        with pytest.raises(StoreUnavailableError) as caught:
            await store.write(1, lot)
        assert caught.value.code == "graph.full"
    assert full > 5
    assert (await store.statistics()).nodes["Recording"] == 23


async def test_a_read_only_store_is_unavailable_until_the_right_is_back(store):
    await set_pragma(store, "query_only = ON")
    with pytest.raises(StoreUnavailableError) as caught:
        await store.write(1, mix())
    assert caught.value.code == "graph.readonly"


# ---------------------------------------------------------------------- writes


async def test_a_replay_changes_no_byte(store, raw):
    await store.write(1, mix())
    (before,) = raw.execute("PRAGMA data_version").fetchone()
    await store.write(1, mix())
    assert raw.execute("PRAGMA data_version").fetchone() == (before,)


@pytest.mark.parametrize(
    ("point", "written"), [("graph.before_write", 0), ("graph.before_commit", 0), ("graph.after_commit", 9)]
)
async def test_a_failure_at_each_point_leaves_all_or_nothing(store, hooks, point, written):
    reached = []

    def stop(name):
        reached.append(name)
        if name == point:
            raise StoreUnavailableError("the answer is lost")

    async def stop_async(name):
        stop(name)

    hooks(stop_async, stop)
    with pytest.raises(StoreUnavailableError):
        await store.write(1, mix())
    hooks(None)
    assert reached[-1] == point
    assert len(await store.match(ALL)) == written
    assert (await store.write(1, mix())).unchanged == (5 if written else 0)


async def test_conflict_names_an_owner_of_the_same_lot(store):
    thief = GraphFragment(Owner("thieves", "1"), recording("a").nodes)
    with pytest.raises(ConflictError) as caught:
        await store.write(1, [recording("a"), thief])
    assert {caught.value.owner, caught.value.other} == {thief.owner, Owner("recordings", "a")}


async def test_edges_whose_end_was_removed_behind_the_back_are_mended(store, raw):
    fragments = [person("1", "2", "3"), person("2"), person("3")]
    await store.write(1, fragments)
    raw.execute("""DELETE FROM node WHERE key = '["3"]'""")
    raw.execute("DELETE FROM edge WHERE target = (SELECT id FROM node WHERE key = '[\"2\"]')")
    digests = await store.read_owners([fragment.owner for fragment in fragments])
    wrong = [fragment.owner for fragment in fragments if digests.get(fragment.owner) != fragment.digest]
    assert wrong == [Owner("people", "1"), Owner("people", "3")]
    await store.invalidate(wrong)
    await store.write(1, fragments)
    expected = {fragment.owner: fragment.digest for fragment in fragments}
    assert await store.read_owners(expected) == expected
    assert raw.execute("SELECT count(*) FROM edge").fetchone() == (2,)


@pytest.mark.parametrize("damage", ["no json", "[1]"])
async def test_unreadable_properties_are_a_difference_and_no_crash(store, raw, damage):
    await store.write(1, [recording("a", name="x")])
    for (index,) in raw.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'property%'").fetchall():
        raw.execute(f"DROP INDEX {index}")
    raw.execute("UPDATE node SET properties = ?", (damage,))
    owner = Owner("recordings", "a")
    assert (await store.read_owners([owner]))[owner] != recording("a", name="x").digest
    await store.invalidate([owner])
    await store.write(1, [recording("a", name="x")])
    assert (await store.read_owners([owner]))[owner] == recording("a", name="x").digest


@pytest.mark.parametrize(
    ("column", "damage"),
    [
        ("identity", "no json"),
        ("identity", "5"),
        ("identity", "[[1]]"),
        ("properties", '{"id":"a","name":9e999}'),
        ("properties", '{"id":"a","name":{"x":[1]}}'),
    ],
)
async def test_other_damage_is_a_difference_and_no_crash(store, raw, column, damage):
    fragments = [recording("a", name="x"), recording("b", name="y")]
    await store.write(1, fragments)
    raw.execute(f"UPDATE node SET {column} = ? WHERE key = '[\"a\"]'", (damage,))
    digests = await store.read_owners([fragment.owner for fragment in fragments])
    assert [digests[fragment.owner] == fragment.digest for fragment in fragments] == [False, True]


async def test_invalidated_owners_are_stale_in_a_scan(store):
    await store.write(1, [recording("a")])
    await store.invalidate([Owner("recordings", "a")])
    assert [item.digest for item in [item async for item in store.scan_owners()]] == [b""]


async def test_orphans_are_removed_once(store, raw):
    for number in range(3):
        raw.execute(
            "INSERT INTO node (label, key, identity, properties, stub) VALUES ('Person', ?, '[\"id\"]', ?, 1)",
            (f'["{number}"]', f'{{"id":"{number}"}}'),
        )
    raw.execute("INSERT INTO node (label, key, identity, properties) VALUES ('Person', '[\"f\"]', '[\"id\"]', '{}')")
    raw.execute(
        "INSERT INTO edge (type, source, target, properties) SELECT 'KNOWS', id, id, '{\"a\":[1]}' FROM node LIMIT 1"
    )
    assert await store.count_orphans() == 2
    assert await store.remove_orphans() == 2
    assert await store.remove_orphans() == 0
    foreign = [(item.kind, item.name, dict(item.properties)) async for item in store.foreign()]
    assert foreign == [("node", "Person", {}), ("edge", "KNOWS", {"a": (1,)})]


# ---------------------------------------------------------------------- queries


def plan_of(raw, query):
    compiled = compile_query(query, SCHEMA)
    return " | ".join(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {compiled.sql}", compiled.parameters))


async def test_identities_indexed_properties_and_edges_are_looked_up(store, raw):
    await store.write(1, mix())
    by_key = match(node("Recording", as_="r", uuid="a"), out("HAS_TRACKLIST"), node("Tracklist"), out(), node(as_="t"))
    assert "SCAN" not in plan_of(raw, by_key)
    assert "label=? AND key=?" in plan_of(raw, by_key)
    by_track = match(node("Recording"), out(), node(), out(), node("Track", as_="t")).where(
        prop("t", "title") == "Dawn", prop("t", "artist") == "Ada"
    )
    assert "SCAN" not in plan_of(raw, by_track)
    assert "property_" in plan_of(raw, match(node("Recording", as_="r", name="Opening")))
    assert "property_" in plan_of(raw, match(node("Recording", as_="r")).where(prop("r", "name").in_(["a", "b"])))
    assert "SCAN" not in plan_of(raw, match(node("Person", id="1"), both("KNOWS"), node(as_="b")))


async def test_a_cancelled_query_stops_and_its_connection_works_on(store):
    await store.write(1, [person(str(number), *map(str, range(12))) for number in range(12)])
    endless = match(node(), out(hops=(0, None)), node(as_="n")).select(count())
    for _ in range(6):  # more than there are readers
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.match(endless)
    assert len(await store.match(ALL)) == 12
    assert threading.active_count() < 20


async def test_queries_of_one_run_beside_a_write_of_another(store, hooks):
    """A reader sees the state before, and doesn't wait."""
    await store.write(1, [recording("a", name="old")])
    inside, go_on = threading.Event(), threading.Event()

    def hold(name):
        if name == "graph.before_commit":
            inside.set()
            go_on.wait(30)

    hooks(None, hold)
    write = asyncio.ensure_future(store.write(1, [recording("a", name="new"), *gone(recording("b"))]))
    await asyncio.to_thread(inside.wait, 30)
    names = match(node("Recording", as_="r")).select(prop("r", "name"))
    assert await store.match(names) == [{"r.name": "old"}]
    go_on.set()
    await write
    assert await store.match(names) == [{"r.name": "new"}]
