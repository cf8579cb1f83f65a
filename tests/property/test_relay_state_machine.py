"""I1–I8 by chance: writers, workers, crashes and redeliveries in any order, against a plain dict.

One store serves all scripts of a dialect; between them every table and file is emptied. A worker is a task that may
stand at a fault point, go on later, or be cancelled there (a crash). After each step a reader looks: what is neither
queued nor in work is right, and nothing older than what was settled is ever seen. A script is a list of plain values
made from its number; one that fails is cut down to what the failure needs, and printed. `FOURFOLD_ROUNDS` sets how
many are played.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from fourfold.errors import FourfoldError, StoreUnavailableError
from fourfold.fourfold import Fourfold
from fourfold.relay.claim import sweep_tokens
from fourfold.rows.engine import read_transaction, write_transaction
from fourfold.testing.faults import FaultPoints, Pause
from tests.conftest import BOTH
from tests.world import (
    Artist,
    Note,
    Pair,
    Rows,
    Song,
    SongRow,
    assert_contents,
    assert_converged,
    expected_contents,
    open_world,
    pair_key,
    stored_contents,
)

# By 40 scripts each of four broken relays was found (no fence, no version check, …); a PostgreSQL script takes longer.
ROUNDS = {"sqlite": 40, "postgresql": 15}
if "FOURFOLD_ROUNDS" in os.environ:
    ROUNDS = dict.fromkeys(ROUNDS, int(os.environ["FOURFOLD_ROUNDS"]))
STEPS = 40
_MOST_OPEN = 3
_HANG_SECONDS = 60.0  # a step takes milliseconds
LOCK_MILLISECONDS = 20  # how long a writer waits for another one's open transaction before it gives up

SONGS = [UUID(int=number) for number in range(1, 6)]
RIGHTS = ["a", "b,c", "d\\"]
TRACKS = [(), ("x",), ("x", "y"), ("x", "x"), ("z",)]
TARGETS = ["graph", "vectors.songs"]


# ------------------------------------------------------------------------------------------------ what writers do

Write = tuple[str, object, object]  # table, key, new value or None: gone


class Unchanged(Exception):  # noqa: N818 - no error: the operation has nothing to do in this state
    """The operation doesn't apply to the rows as they are."""


def need(condition: object) -> None:
    if not condition:
        raise Unchanged


@dataclass(frozen=True)
class Operation:
    """One statement, or one change of a session: what it does to the model, and the same to the database."""

    kind: str
    arguments: tuple[object, ...]

    def effect(self, view: Rows, number: int) -> list[Write]:
        """Writes in the model; raises `Unchanged`."""
        return _EFFECTS[self.kind](view, number, *self.arguments)

    async def run(self, session: AsyncSession, view: Rows, number: int, *, orm: bool) -> None:
        """The same in the database."""
        how = _ORM.get(self.kind) if orm else None
        await (how or _CORE[self.kind])(session, view, number, *self.arguments)
        if orm:
            await session.flush()
            session.expire_all()


def _artist_put(view: Rows, number: int, key: int) -> list[Write]:
    return [("artists", key, f"artist#{number}")]


def _artist_delete(view: Rows, number: int, key: int) -> list[Write]:
    need(key in view.artists)
    return [("artists", key, None), *_without_artist(view, key)]


def _without_artist(view: Rows, key: int) -> list[Write]:
    return [("songs", song, replace(row, artist=None)) for song, row in view.songs.items() if row.artist == key]


def _artist_replace(view: Rows, number: int, key: int) -> list[Write]:
    """INSERT OR REPLACE deletes and inserts: the foreign key acts in between."""
    gone = _without_artist(view, key) if key in view.artists else []
    return [*gone, ("artists", key, f"artist#{number}")]


def _artists_rename(view: Rows, number: int, most: int) -> list[Write]:
    return [("artists", key, f"artist#{number}") for key in view.artists if key <= most]


def _song_put(view: Rows, number: int, key: UUID, artist: int | None, tracks: tuple[str, ...]) -> list[Write]:
    need(artist is None or artist in view.artists)
    before = view.songs.get(key, SongRow(""))
    return [("songs", key, SongRow(f"song#{number}", artist, tracks, before.file_key))]


def _song_delete(view: Rows, number: int, key: UUID) -> list[Write]:
    need(key in view.songs)
    gone: list[Write] = [("notes", note_, None) for note_, (song, _) in view.notes.items() if song == key]
    return [*gone, ("songs", key, None)]


def _songs_retitle(view: Rows, number: int) -> list[Write]:
    return [("songs", key, replace(row, title=f"song#{number}")) for key, row in view.songs.items()]


def _songs_tracks(view: Rows, number: int, tracks: tuple[str, ...]) -> list[Write]:
    return [("songs", key, replace(row, tracks=tracks)) for key, row in view.songs.items()]


def _song_rekey(view: Rows, number: int, old: UUID, new: UUID) -> list[Write]:
    need(old in view.songs and new not in view.songs and old != new)
    need(all(song != old for song, _ in view.notes.values()))
    return [("songs", old, None), ("songs", new, replace(view.songs[old], title=f"song#{number}"))]


def _song_unname(view: Rows, number: int, key: UUID) -> list[Write]:
    need(key in view.songs and view.songs[key].file_key)
    return [("songs", key, replace(view.songs[key], file_key=None))]


def _note_put(view: Rows, number: int, key: int, song: UUID) -> list[Write]:
    need(song in view.songs)
    return [("notes", key, (song, f"note#{number}"))]


def _note_delete(view: Rows, number: int, key: int) -> list[Write]:
    need(key in view.notes)
    return [("notes", key, None)]


def _notes_delete(view: Rows, number: int, most: int) -> list[Write]:
    return [("notes", key, None) for key in view.notes if key <= most]


def _pairs_put(view: Rows, number: int, keys: tuple[tuple[int, str], ...]) -> list[Write]:
    return [("pairs", key, f"pair#{number}") for key in keys]


def _pair_delete(view: Rows, number: int, key: tuple[int, str]) -> list[Write]:
    need(key in view.pairs)
    return [("pairs", key, None)]


def _pairs_swap(view: Rows, number: int, one: tuple[int, str], other: tuple[int, str]) -> list[Write]:
    need(one != other and one in view.pairs and other in view.pairs)
    return [("pairs", one, f"other#{number}"), ("pairs", other, f"one#{number}")]


def _truncate(view: Rows, number: int, table: str) -> list[Write]:
    tables = {"songs": ("songs", "notes"), "artists": ("artists", "songs", "notes")}.get(table, (table,))
    return [(name, key, None) for name in tables for key in getattr(view, name)]


_EFFECTS: dict[str, Callable[..., list[Write]]] = {
    "artist_put": _artist_put,
    "artist_delete": _artist_delete,
    "artist_replace": _artist_replace,
    "artists_rename": _artists_rename,
    "song_put": _song_put,
    "song_delete": _song_delete,
    "songs_retitle": _songs_retitle,
    "songs_tracks": _songs_tracks,
    "song_rekey": _song_rekey,
    "song_unname": _song_unname,
    "note_put": _note_put,
    "note_delete": _note_delete,
    "notes_delete": _notes_delete,
    "pairs_put": _pairs_put,
    "pair_delete": _pair_delete,
    "pairs_swap": _pairs_swap,
    "truncate": _truncate,
}

ARTIST, SONG, NOTE, PAIR = Artist.__table__, Song.__table__, Note.__table__, Pair.__table__


def json_tracks(tracks: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"title": track} for track in tracks]


def _upsert(session: AsyncSession | AsyncConnection, table: sa.Table):
    dialect = session.dialect if isinstance(session, AsyncConnection) else session.get_bind().dialect
    return (postgresql if dialect.name == "postgresql" else sqlite).insert(table)


async def _put(session: AsyncSession, table: sa.Table, rows: list[dict[str, object]]) -> None:
    keys = [column.name for column in table.primary_key]
    insert = _upsert(session, table).values(rows)
    new = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    await session.execute(insert.on_conflict_do_update(index_elements=keys, set_=new))


async def _core_artist_put(session, view, number, key):
    await _put(session, ARTIST, [{"id": key, "name": f"artist#{number}"}])


async def _core_artist_delete(session, view, number, key):
    await session.execute(sa.delete(ARTIST).where(ARTIST.c.id == key))


async def _core_artist_replace(session, view, number, key):
    row = {"id": key, "name": f"artist#{number}"}
    await session.execute(sa.text("INSERT OR REPLACE INTO artists (id, name) VALUES (:id, :name)"), row)


async def _core_artists_rename(session, view, number, most):
    await session.execute(sa.update(ARTIST).where(ARTIST.c.id <= most).values(name=f"artist#{number}"))


async def _core_song_put(session, view, number, key, artist, tracks):
    row = {"id": key, "title": f"song#{number}", "artist_id": artist, "tracks": json_tracks(tracks)}
    await _put(session, SONG, [row])


async def _core_song_delete(session, view, number, key):
    await session.execute(sa.delete(SONG).where(SONG.c.id == key))


async def _core_songs_retitle(session, view, number):
    await session.execute(sa.update(SONG).values(title=f"song#{number}"))


async def _core_songs_tracks(session, view, number, tracks):
    await session.execute(sa.update(SONG).values(tracks=json_tracks(tracks)))


async def _core_song_rekey(session, view, number, old, new):
    await session.execute(sa.update(SONG).where(SONG.c.id == old).values(id=new, title=f"song#{number}"))


async def _core_song_unname(session, view, number, key):
    await session.execute(sa.update(SONG).where(SONG.c.id == key).values(file_key=None))


async def _core_note_put(session, view, number, key, song):
    await _put(session, NOTE, [{"id": key, "song_id": song, "text": f"note#{number}"}])


async def _core_note_delete(session, view, number, key):
    await session.execute(sa.delete(NOTE).where(NOTE.c.id == key))


async def _core_notes_delete(session, view, number, most):
    await session.execute(sa.delete(NOTE).where(NOTE.c.id <= most))


async def _core_pairs_put(session, view, number, keys):
    rows = [{"left": left, "right": right, "value": f"pair#{number}"} for left, right in keys]
    await _put(session, PAIR, rows)


async def _core_pair_delete(session, view, number, key):
    await session.execute(sa.delete(PAIR).where(PAIR.c.left == key[0], PAIR.c.right == key[1]))


async def _core_pairs_swap(session, view, number, one, other):
    aside = (99, "aside")
    for old, new, text in ((one, aside, "one"), (other, one, "other"), (aside, other, "one")):
        moved = sa.update(PAIR).where(PAIR.c.left == old[0], PAIR.c.right == old[1])
        await session.execute(moved.values(left=new[0], right=new[1], value=f"{text}#{number}"))


async def _core_truncate(session, view, number, table):
    await session.execute(sa.text(f"TRUNCATE {table} CASCADE"))


async def _orm_artist_put(session, view, number, key):
    await session.merge(Artist(id=key, name=f"artist#{number}"))


async def _orm_artist_delete(session, view, number, key):
    await session.delete(await session.get(Artist, key))


async def _orm_song_put(session, view, number, key, artist, tracks):
    await session.merge(Song(id=key, title=f"song#{number}", artist_id=artist, tracks=json_tracks(tracks)))


async def _orm_song_delete(session, view, number, key):
    await session.delete(await session.get(Song, key))


async def _orm_note_put(session, view, number, key, song):
    await session.merge(Note(id=key, song_id=song, text=f"note#{number}"))


async def _orm_note_delete(session, view, number, key):
    await session.delete(await session.get(Note, key))


_CORE: dict[str, Callable[..., Awaitable[None]]] = {
    name.removeprefix("_core_"): found for name, found in list(globals().items()) if name.startswith("_core_")
}
_ORM: dict[str, Callable[..., Awaitable[None]]] = {
    name.removeprefix("_orm_"): found for name, found in list(globals().items()) if name.startswith("_orm_")
}


def an_operation(chance: random.Random, dialect: str) -> Operation:
    """Any that may be part of a transaction; keys are few, so that they meet."""
    artist, song, other, note = chance.randint(1, 4), chance.choice(SONGS), chance.choice(SONGS), chance.randint(1, 5)
    pairs = [(left, right) for left in (1, 2) for right in RIGHTS]
    found: dict[str, tuple[object, ...]] = {
        "artist_put": (artist,),
        "artist_delete": (artist,),
        "artists_rename": (artist,),
        "song_put": (song, chance.choice([None, artist]), chance.choice(TRACKS)),
        "song_delete": (song,),
        "songs_retitle": (),
        "songs_tracks": (chance.choice(TRACKS),),
        "song_rekey": (song, other),
        "song_unname": (song,),
        "note_put": (note, song),
        "note_delete": (note,),
        "notes_delete": (note,),
        "pairs_put": (tuple(chance.sample(pairs, chance.randint(1, 4))),),
        "pair_delete": (chance.choice(pairs),),
        "pairs_swap": tuple(chance.sample(pairs, 2)),
    }
    if dialect == "sqlite":
        found["artist_replace"] = (artist,)
    more = ["artist_put", "song_put", "song_put", "note_put", "pairs_put"]  # else there is rarely anything to change
    kind = chance.choice([*found, *more])
    return Operation(kind, found[kind])


def apply(rows: Rows, writes: list[Write]) -> None:
    for table, key, value in writes:
        if value is None:
            getattr(rows, table).pop(key, None)
        else:
            getattr(rows, table)[key] = value


# ------------------------------------------------------------------------------------------- what workers suffer

_ANYWHERE = [
    "relay.claim_after_number",
    "relay.claim_after_token",
    "relay.claim_after_lease",
    "relay.revoke_before",
    "relay.revoke_after",
    "relay.read_before",
    "relay.read_after",
    "relay.write_before",
    "relay.write_after",
    "relay.settle_before",
    "relay.settle_after_commit",
    "graph.before_write",
    "graph.after_commit",
    "vectors.before_write",
    "vectors.after_commit",
]
# Inside a write transaction a worker may die or fail; if it stood there, whoever needs the same lock would wait for it.
_IN_TRANSACTION = ["relay.settle_before_commit"]
_IN_THREAD = ["graph.before_commit", "vectors.before_commit"]
_DISPATCH = ["relay.dispatch_taken", "relay.dispatch_before_commit", "relay.dispatch_after_commit"]


@dataclass
class Paused:
    """A worker that stands at a point."""

    task: asyncio.Task[object]
    pause: Pause
    point: str


@dataclass
class Open:
    """A transaction that is still open (PostgreSQL), and what it wrote."""

    connection: AsyncConnection
    writes: list[Write] = field(default_factory=list)
    numbers: list[tuple[int, list[Write]]] = field(default_factory=list)


class World:
    """The store, the model, and everybody who works on them."""

    def __init__(self, store: Fourfold, points: FaultPoints) -> None:
        self.store = store
        self.points = points
        self.relays = [store.new_relay("one"), store.new_relay("two")]
        self.postgresql = store.engine.dialect.name == "postgresql"
        self.counts: dict[str, int] = defaultdict(int)
        self.reset_model()

    def reset_model(self) -> None:
        self.rows = Rows()
        self.number = 0
        self.opened: list[Open] = []
        self.paused: list[Paused] = []
        self.last_write: dict[str, int] = {}  # owner → number of its last committed write, deletions included
        self.deleted: dict[str, int] = {}  # owner → number of its last committed deletion
        self.floor: dict[str, int] = {}  # owner → number of the write that was settled in the graph
        self.files: dict[str, bytes] = {}

    # ------------------------------------------------------------------------------------------------- writers

    def commit_model(self, number: int, writes: list[Write]) -> None:
        apply(self.rows, writes)
        for table, key, value in writes:
            name = pair_key(*key) if table == "pairs" else str(key)
            owner = f"{table}:{name}"
            if value is None:
                self.deleted[owner] = self.last_write[owner] = number
            else:
                self.last_write[owner] = _number_in(_text_of(table, value))

    def view(self, opened: Open | None = None) -> Rows:
        rows = self.rows.copy()
        if opened is not None:
            apply(rows, opened.writes)
        return rows

    async def unit(self, operations: list[Operation], *, orm: bool, commit: bool = True) -> None:
        """One transaction from beginning to end; nothing happens when another one's locks are in the way."""
        view = self.view()
        done: list[tuple[int, list[Write]]] = []
        try:
            async with self.store.unit_of_work() as work:
                await self._wait_briefly(work.session)
                for operation in operations:
                    self.number += 1
                    try:
                        writes = operation.effect(view, self.number)
                    except Unchanged:
                        continue
                    await operation.run(work.session, view, self.number, orm=orm)
                    apply(view, writes)
                    done.append((self.number, writes))
                need(commit)
        except Unchanged:
            return
        except (FourfoldError, sa.exc.DBAPIError) as error:
            if not _is_lock(error):
                raise
            return
        for number, writes in done:
            self.commit_model(number, writes)
        self.counts["units"] += 1

    async def _wait_briefly(self, session: AsyncSession | AsyncConnection) -> None:
        if self.postgresql:
            await session.execute(sa.text(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))

    async def begin(self) -> None:
        connection = await self.store.engine.connect()
        await self._wait_briefly(connection)
        self.opened.append(Open(connection))

    async def work_in(self, opened: Open, operation: Operation) -> None:
        """A statement in an open transaction."""
        view = self.view(opened)
        self.number += 1
        try:
            writes = operation.effect(view, self.number)
        except Unchanged:
            return
        try:
            async with opened.connection.begin_nested():
                await operation.run(opened.connection, view, self.number, orm=False)
        except sa.exc.DBAPIError as error:
            if not _is_lock(error):
                raise
            return
        opened.writes += writes
        opened.numbers.append((self.number, writes))

    async def end(self, opened: Open, *, commit: bool) -> None:
        self.opened.remove(opened)
        if commit:
            await opened.connection.commit()
            for number, writes in opened.numbers:
                self.commit_model(number, writes)
            self.counts["late commits"] += 1
        await opened.connection.close()

    async def put_file(self, song: UUID, *, commit: bool) -> None:
        self.number += 1
        number, data = self.number, f"bytes {self.number}".encode()
        before = self.rows.songs.get(song)
        if before is None:
            return
        try:
            async with self.store.unit_of_work() as work:
                file = await work.files.put(data, filename="a.txt")
                await self._wait_briefly(work.session)
                (await work.session.get(Song, song)).file_key = file.key
                await work.session.flush()
                need(commit)
        except Unchanged:
            return
        except (FourfoldError, sa.exc.DBAPIError) as error:
            if not _is_lock(error):
                raise
            return
        self.files[file.key] = data
        self.commit_model(number, [("songs", song, replace(before, file_key=file.key))])

    async def collect(self) -> None:
        try:
            report = await self.store.collect(grace_seconds=0)
        except FourfoldError as error:
            if not _is_lock(error):
                raise
            return
        named = {row.file_key for row in self.rows.songs.values()}
        assert not named & set(report.removed)  # I6
        self.counts["collected"] += len(report.removed)

    # ------------------------------------------------------------------------------------------------- workers

    async def step(self, work: Callable[[], Awaitable[object]], mode: str, point: str) -> None:
        """Let a worker do one step: whole, or up to a point where it stands, crashes or fails."""
        if mode == "whole":
            await self._finish(asyncio.create_task(_call(work)))
            return
        if mode == "fail" or point in _IN_THREAD:
            error = StoreUnavailableError("the answer was lost") if mode == "fail" else Crash()
            self.points.fail(point, error)
            await self._finish(asyncio.create_task(_call(work)))
            self.points._errors.pop(point, None)
            self.counts[mode] += 1
            return
        pause = self.points.pause(point)
        task = asyncio.create_task(_call(work))
        reached = asyncio.create_task(pause.wait_reached())
        await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        with suppress(asyncio.CancelledError):
            await reached
        self.points._pauses.pop(point, None)
        if task.done():
            await self._finish(task)
        elif mode == "pause":
            self.paused.append(Paused(task, pause, point))
        else:
            await self.abandon(Paused(task, pause, point))

    async def _finish(self, task: asyncio.Task[object]) -> None:
        with suppress(Crash, StoreUnavailableError):
            await task

    async def resume(self, paused: Paused) -> None:
        if paused in self.paused:
            self.paused.remove(paused)
        paused.pause.resume()
        self.counts["resumed"] += 1
        await self._finish(paused.task)

    async def abandon(self, paused: Paused) -> None:
        """A crash: nothing that comes after the point is done any more."""
        if paused in self.paused:
            self.paused.remove(paused)
        paused.task.cancel()
        self.counts["crashed"] += 1
        with suppress(asyncio.CancelledError):
            await paused.task

    async def execute(self, statement: str, **parameters: object) -> None:
        async with write_transaction(self.store.engine) as connection:
            await connection.execute(sa.text(statement), parameters)

    async def expire(self) -> None:
        await self.execute("UPDATE fourfold_work SET lease_until = 0 WHERE token IS NOT NULL")

    async def unpause(self) -> None:
        await self.execute("UPDATE fourfold_target SET paused_until = NULL")

    async def redeliver(self, target: str, owner: str) -> None:
        table, _, key = owner.partition(":")
        if target != "graph" and table != "songs":
            return
        await self.execute(
            "INSERT INTO fourfold_work (target, table_name, key, first_change, last_change, queued_at)"
            " VALUES (:target, :table_name, :key, 0, 0, 0)"
            " ON CONFLICT (target, table_name, key) DO UPDATE SET version = fourfold_work.version + 1",
            target=target,
            table_name=table,
            key=key,
        )

    # ----------------------------------------------------------------------------------------------- invariants

    async def look(self) -> None:
        """What a reader may see now: I2, I3, I4 and I8."""
        async with read_transaction(self.store.engine) as connection:
            lines = (await connection.execute(sa.text("SELECT table_name, kind, keys FROM fourfold_change"))).all()
            work = (await connection.execute(sa.text("SELECT target, table_name, key FROM fourfold_work"))).all()
        queued = {f"{line.table_name}:{key}" for line in lines for key in _keys(line.keys)}
        tables = {line.table_name for line in lines}
        swept = any(line.kind == "resync" for line in lines)
        in_work = {
            target: {f"{row.table_name}:{row.key}" for row in work if row.target == target} for target in TARGETS
        }
        sweeping = {target for target, found in in_work.items() if any(name.startswith("sweep:") for name in found)}
        stored, expected = stored_contents(self.store.settings.data_folder), expected_contents(self.rows)
        by_owner = {owner: place for place, owner in stored.owners.items() if owner}
        for owner in self.last_write.keys() | by_owner.keys():
            place = by_owner.get(owner)
            seen = None if place is None else _number_in(_text_in(stored.nodes[place]))
            self._check_age(owner, seen)
            if swept or "graph" in sweeping or owner in queued or owner in in_work["graph"]:
                continue
            wanted = {node: expected.nodes[node] for node, name in expected.owners.items() if name == owner}
            assert ({} if place is None else {place: stored.nodes[place]}) == wanted, f"graph: {owner}"
            assert stored.edges.get(owner) == expected.edges.get(owner), f"graph: edges of {owner}"
            self.floor[owner] = self.last_write.get(owner, 0)
        if swept or "vectors.songs" in sweeping or tables & {"artists", "notes"}:
            return
        for key in stored.points.keys() | expected.points.keys():
            owner = f"songs:{key}"
            if owner not in queued and owner not in in_work["vectors.songs"]:
                assert stored.points.get(key) == expected.points.get(key), f"vectors: {owner}"

    def _check_age(self, owner: str, seen: int | None) -> None:
        floor = self.floor.get(owner, 0)
        if seen is not None:
            assert seen >= floor, f"{owner}: {seen} is older than the settled {floor}"
            return
        if floor and self.deleted.get(owner, 0) < floor:
            pytest.fail(f"{owner}: was settled at {floor}, never deleted since, and is not there")

    async def settle(self) -> None:
        """Everything comes to rest: twice, the second time after those who slept have woken up."""
        for opened in list(self.opened):
            await self.end(opened, commit=True)
        for paused in [p for p in self.paused if p.point in _DISPATCH]:
            await self.abandon(paused)  # holds the dispatcher's lock; a dead one's connection would be gone
        await self._drain()
        await assert_contents(self.store, self.rows)
        await self.look()
        woken = list(self.paused)
        for paused in woken:
            await self.resume(paused)
            await self.look()
        if woken:
            await self._drain()
            await assert_contents(self.store, self.rows)
        await assert_converged(self.store)
        for row in self.rows.songs.values():
            if row.file_key is not None:
                assert await self.store.files.read(row.file_key) == self.files[row.file_key]  # I5
        self.counts["settled"] += 1

    async def _drain(self) -> None:
        await self.unpause()
        await self.expire()
        await self.store.drain()

    async def replay_writes_nothing(self) -> None:
        """I7, after `settle`."""
        owners = [(t, o) for o in self.last_write for t in TARGETS if t == "graph" or o.startswith("songs:")]
        for target, owner in owners:
            await self.redeliver(target, owner)
        results = []
        with _recorded_writes(self.store, results):
            await self.store.drain()
        assert sum(result.written for result in results) == 0, results

    async def clean(self) -> None:
        """Empty everything, for the next example."""
        for paused in list(self.paused):
            await self.abandon(paused)
        for opened in list(self.opened):
            with suppress(sa.exc.DBAPIError):
                await self.end(opened, commit=False)
        self.points._pauses.clear()
        self.points._errors.clear()
        own = ["change", "work", "token", "quarantine", "target", "object_ref", "pin", "object", "embedding"]
        async with write_transaction(self.store.engine) as connection:
            for table in ("notes", "songs", "artists", "pairs", *(f"fourfold_{name}" for name in own)):
                await connection.execute(sa.text(f"DELETE FROM {table}"))
        async with write_transaction(self.store.stores.stage_engine) as connection:
            await connection.execute(sa.text("DELETE FROM fourfold_stage"))
        async with write_transaction(self.store.engine) as connection:  # what the deletions above queued
            await connection.execute(sa.text("DELETE FROM fourfold_change"))
        folder = self.store.settings.data_folder
        _empty(folder / "graph.db", "token", "owner", "edge", "node")
        _empty(folder / "vectors.db", "token", "owner", "point", "term")
        shutil.rmtree(folder / "files" / "objects", ignore_errors=True)
        (folder / "files" / "objects").mkdir()
        self.reset_model()


class Crash(BaseException):
    """Passes every `except Exception`, as a killed process does."""


async def _call(work: Callable[[], Awaitable[object]]) -> object:
    return await work()


def _keys(keys: object) -> list[str]:
    import json

    return json.loads(keys) if isinstance(keys, str) else list(keys)


def _text_of(table: str, value: object) -> str:
    if table == "songs":
        return value.title
    return value[1] if table == "notes" else str(value)


def _text_in(properties: dict[str, object]) -> str:
    return str(next(properties[name] for name in ("title", "name", "text", "value") if name in properties))


def _number_in(text: str) -> int:
    return int(text.rpartition("#")[2])


def _is_lock(error: Exception) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if getattr(getattr(cause, "orig", cause), "sqlstate", None) == "55P03":
            return True
        cause = cause.__cause__
    return False


def _empty(path: Path, *tables: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        for table in tables:
            connection.execute(f"DELETE FROM {table}")
        if path.name == "vectors.db":
            connection.execute("UPDATE collection SET generation = generation + 1, points = 0")


@contextmanager
def _recorded_writes(store: Fourfold, results: list) -> Iterator[None]:
    originals = {target: target.write for target in store.stores.targets.values()}

    def record(original):
        async def write(token, fragments):
            results.append(await original(token, fragments))
            return results[-1]

        return write

    for target, original in originals.items():
        target.write = record(original)
    try:
        yield
    finally:
        for target in originals:
            del target.write


# ----------------------------------------------------------------------------------------------------- the scripts

Action = tuple[object, ...]


# How often each happens, relative to the others.
_WEIGHTS = {
    "write": 8,
    "dispatch": 2,
    "bring": 10,
    "wake": 3,
    "leases run out": 2,
    "put file": 2,
    "collect": 1,
    "redeliver": 1,
    "sweep tokens": 1,
    "settle": 0.5,
}
_POSTGRESQL_WEIGHTS = {"begin": 2, "go on": 1, "end": 2, "truncate": 0.5}


def a_script(number: int, dialect: str) -> list[Action]:
    """The script of a number; the same in every run."""
    chance = random.Random(number)
    weights = _WEIGHTS | (_POSTGRESQL_WEIGHTS if dialect == "postgresql" else {})
    kinds = chance.choices(list(weights), weights=list(weights.values()), k=STEPS)
    return [_an_action(kind, chance, dialect) for kind in kinds]


def _an_action(kind: str, chance: random.Random, dialect: str) -> Action:
    def some(most: int) -> list[Operation]:
        return [an_operation(chance, dialect) for _ in range(chance.randint(1, most))]

    commit, which, target = chance.random() < 0.85, chance.randrange(6), chance.choice(TARGETS)
    mode = chance.choice(["whole", "whole", "pause", "pause", "crash", "fail"])
    arguments: dict[str, Callable[[], Action]] = {
        "write": lambda: (some(4), chance.random() < 0.5, commit),
        "begin": lambda: (some(3),),
        "go on": lambda: (which, an_operation(chance, dialect)),
        "end": lambda: (which, commit),
        "truncate": lambda: (chance.choice(["songs", "artists", "notes", "pairs"]),),
        "dispatch": lambda: (which % 2, mode, chance.choice(_DISPATCH)),
        "bring": lambda: (
            which % 2,
            chance.choice([*TARGETS, *TARGETS, "files"]),
            mode,
            chance.choice(_ANYWHERE + _IN_TRANSACTION + _IN_THREAD),
            chance.random() < 0.7,
        ),
        "wake": lambda: (which, chance.random() < 0.3),
        "put file": lambda: (chance.choice(SONGS), commit),
        "redeliver": lambda: (target, chance.randrange(20)),
        "sweep tokens": lambda: (target,),
    }
    return (kind, *arguments.get(kind, tuple)())


async def perform(world: World, action: Action) -> None:  # noqa: C901, PLR0912 - one case per kind of action
    match action:
        case ("write", work, orm, commit):
            await world.unit(work, orm=orm, commit=commit)
        case ("begin", work) if len(world.opened) < _MOST_OPEN:
            await world.begin()
            for operation in work:
                await world.work_in(world.opened[-1], operation)
        case ("go on", which, operation) if world.opened:
            await world.work_in(world.opened[which % len(world.opened)], operation)
        case ("end", which, commit) if world.opened:
            await world.end(world.opened[which % len(world.opened)], commit=commit)
        case ("truncate", table) if not world.opened:
            await world.unit([Operation("truncate", (table,))], orm=False)
        case ("put file", song, commit):
            await world.put_file(song, commit=commit)
        case ("collect",):
            await world.collect()
        case ("dispatch", worker, mode, point):
            inside = mode == "pause" and point != "relay.dispatch_after_commit"
            await world.step(world.relays[worker].dispatch_once, "crash" if inside else mode, point)
        case ("bring", worker, target, mode, point, dispatch_first):
            if dispatch_first:
                await world.relays[worker].dispatch_once()
            inside = mode == "pause" and point in _IN_TRANSACTION + _IN_THREAD
            relay = world.relays[worker]
            await world.step(lambda: relay.bring_once(relay._deliveries[target]), "crash" if inside else mode, point)
        case ("wake", which, crash) if world.paused:
            paused = world.paused[which % len(world.paused)]
            await (world.abandon(paused) if crash else world.resume(paused))
        case ("leases run out",):
            await world.expire()
            await world.unpause()
        case ("redeliver", target, which) if world.last_write:
            owners = sorted(world.last_write)
            await world.redeliver(target, owners[which % len(owners)])
        case ("sweep tokens", target):
            await sweep_tokens(world.store.engine, world.relays[0]._deliveries[target], age_seconds=-1)
        case ("settle",):
            await world.settle()


async def play(world: World, script: list[Action]) -> None:
    """One example: every action, a look after each, rest at the end, and nothing left to write."""
    await world.clean()
    try:
        for action in script:
            async with asyncio.timeout(_HANG_SECONDS):
                await perform(world, action)
                await world.look()
        async with asyncio.timeout(_HANG_SECONDS):
            await world.settle()
            await world.replay_writes_nothing()
    finally:
        await world.clean()


async def shortest(world: World, script: list[Action]) -> tuple[list[Action], Exception]:
    """Leave out what the failure doesn't need."""
    error = await _failure(world, script)
    assert error is not None, "it doesn't fail a second time: the failure depends on time"
    size = len(script) // 2
    while size:
        start = 0
        while start < len(script):
            shorter = script[:start] + script[start + size :]
            found = await _failure(world, shorter)
            if found is None:
                start += size
            else:
                script, error = shorter, found
        size //= 2
    return script, error


async def _failure(world: World, script: list[Action]) -> Exception | None:
    try:
        await play(world, script)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is, it is what we look for
        return error
    return None


async def play_rounds(rows_url: str, folder: Path, numbers: Iterable[int]) -> dict[str, int]:
    """Play the scripts of these numbers on one database; returns counts of what happened.

    Raises:
        AssertionError: A script failed; the message is the shortest form of it.
    """
    with FaultPoints() as points:
        async with open_world(rows_url, folder, lot_size=3) as store:
            await store.drain()
            world = World(store, points)
            for number in numbers:
                script = a_script(number, store.engine.dialect.name)
                if await _failure(world, script) is not None:
                    script, error = await shortest(world, script)
                    lines = "\n".join(f"    {action}," for action in script)
                    message = f"script {number} on {store.engine.dialect.name}: {error}\n[\n{lines}\n]"
                    raise AssertionError(message) from error
                world.counts["scripts"] += 1
            return dict(world.counts)


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: this test is about orders, the kill tests are about disks."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(params=BOTH)
def quick_rows_url(request: pytest.FixtureRequest, quick_folder: Path) -> str:
    """A migrated database that doesn't wait for the disk."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
        return f"sqlite:///{shutil.copy(sa.make_url(url).database, quick_folder)}"
    url = request.getfixturevalue("postgresql_url")
    name = sa.make_url(url).database
    request.getfixturevalue("postgresql_cluster").execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    return url


@pytest.mark.slow
@pytest.mark.timeout(max(300, ROUNDS["postgresql"] * 15))
async def test_i1_i2_i3_i4_i7_any_order_of_writes_work_and_crashes_converges(quick_rows_url, quick_folder):
    rounds = ROUNDS[quick_rows_url.partition(":")[0]]
    counts = await play_rounds(quick_rows_url, quick_folder / "data", range(rounds))
    for happened in ("units", "resumed", "crashed", "fail", "settled"):  # where nothing happens nothing is proved
        assert counts[happened] >= rounds // 2, counts
