"""F15, F16 and F17: changes that no row trigger saw.

What the database can still tell (TRUNCATE, a replication role, an eviction on our own connection) reaches the targets.
What it can't is named by `status`, refused at the next opening, found by `verify` and mended by `repair`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fourfold.errors import DriftError
from fourfold.fourfold import Fourfold
from fourfold.projection import Node, Point
from tests.world import (
    Note,
    Pair,
    Song,
    assert_contents,
    assert_converged,
    execute,
    fill_songs,
    open_models,
    open_world,
    property_in_graph,
)


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
        nodes = property_in_graph(store, "Book", "isbn")
        assert nodes == {2: "two", 3: "one"}
