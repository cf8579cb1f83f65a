"""What writers do: each kind of statement once in the model, and once or twice in the database, by Core and by ORM.

An effect reads the model and writes nothing; it returns what the statement would write, so that the caller applies it
when the transaction commits, or never. Every text that an operation writes ends in `#` and the operation's number:
whoever reads it knows how old it is.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tests.world import Artist, Note, Pair, Rows, Song, SongRow

SONGS = [UUID(int=number) for number in range(1, 6)]
RIGHTS = ["a", "b,c", "d\\"]
TRACKS = [(), ("x",), ("x", "y"), ("x", "x"), ("z",)]

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


def number_in(text: str) -> int:
    """The number of the operation that wrote this text."""
    return int(text.rpartition("#")[2])


# --------------------------------------------------------------------------------------------------------- in the model


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

# ------------------------------------------------------------------------------------------------------ in the database

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
