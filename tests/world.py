"""A small application that declares all there is to declare, hands to change it, and an oracle of its targets."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fourfold.fourfold import Fourfold
from fourfold.projection import Edge, EdgeList, Node, Point, ValueNode
from fourfold.rows.engine import open_engine, write_transaction
from fourfold.rows.types import FileKey, JSONType
from fourfold.settings import Settings
from fourfold.testing.embedders import HashEmbedder

__all__ = [
    "Artist",
    "Base",
    "Contents",
    "Note",
    "Pair",
    "Rows",
    "Song",
    "SongRow",
    "assert_contents",
    "assert_converged",
    "end_leases",
    "execute",
    "expected_contents",
    "fill_songs",
    "graph_of",
    "open_models",
    "open_world",
    "property_in_graph",
    "rows_of",
    "scalar",
    "settings_for",
    "stored_contents",
]


class Base(DeclarativeBase):
    pass


class Artist(Base):
    __tablename__ = "artists"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    __projections__ = (Node("Artist", properties=("name",)),)


class Song(Base):
    __tablename__ = "songs"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    title: Mapped[str]
    artist_id: Mapped[int | None] = mapped_column(sa.ForeignKey("artists.id", ondelete="SET NULL"))
    tracks: Mapped[list[dict[str, str]]] = mapped_column(JSONType, default=list)
    file_key: Mapped[str | None] = mapped_column(FileKey)
    artist: Mapped[Artist | None] = relationship(passive_deletes=True)
    notes: Mapped[list[Note]] = relationship(passive_deletes=True, order_by="Note.id")
    __projections__ = (
        Node("Song", properties=("title",)),
        Edge("BY", "artist_id"),
        EdgeList("HAS", "tracks", to=ValueNode("Track", identity=("title",))),
        Point("songs", text="text", payload=("title",), depends_on=("artist", "notes")),
    )

    @property
    def text(self) -> str:
        if self.title == "poison":
            message = "this title can't be embedded"
            raise ValueError(message)
        names = [self.title, self.artist.name if self.artist else "", *(note.text for note in self.notes)]
        return " ".join(name for name in names if name)


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    song_id: Mapped[UUID] = mapped_column(sa.ForeignKey("songs.id", ondelete="CASCADE"))
    text: Mapped[str]
    __projections__ = (Node("Note", properties=("text",)), Edge("ABOUT", "song_id"))


class Pair(Base):
    __tablename__ = "pairs"
    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str | None]
    __projections__ = (Node("Pair", properties=("value",)),)


def settings_for(rows_url: str, folder: Path, **changes: object) -> Settings:
    values = {"data_folder": folder, "rows_url": rows_url, "install": True, "relay": False, "lot_size": 100}
    return Settings(**(values | changes))


@asynccontextmanager
async def open_world(rows_url: str, folder: Path, **changes: object) -> AsyncIterator[Fourfold]:
    """A Fourfold over the tables above; without a relay, unless the settings ask for one."""
    async with open_models(Base, rows_url, folder, **changes) as store:
        yield store


@asynccontextmanager
async def open_models(
    base: type[DeclarativeBase], rows_url: str, folder: Path, **changes: object
) -> AsyncIterator[Fourfold]:
    """The same over other declarations, whose tables are made where they are missing."""
    engine = open_engine(rows_url)
    async with write_transaction(engine) as connection:
        await connection.run_sync(base.metadata.create_all)
    await engine.dispose()
    async with Fourfold(base, settings_for(rows_url, folder, **changes), embedder=HashEmbedder()) as store:
        yield store


async def execute(store: Fourfold, statement: str, **parameters: object) -> None:
    """A statement in a transaction of its own."""
    async with write_transaction(store.engine) as connection:
        await connection.execute(sa.text(statement), parameters)


async def scalar(store: Fourfold, statement: str) -> object:
    async with store.engine.connect() as connection:
        return await connection.scalar(sa.text(statement))


async def fill_songs(store: Fourfold, count: int, **columns: object) -> list[UUID]:
    """The artist 1, and songs with the keys 1, 2, …, which are returned; nothing is drained."""
    keys = [UUID(int=number + 1) for number in range(count)]
    async with store.unit_of_work() as work:
        await work.session.merge(Artist(id=1, name="artist"))
        await work.session.flush()
        work.session.add_all(Song(id=key, title=f"song {key.int}", **columns) for key in keys)
    return keys


async def end_leases(store: Fourfold) -> None:
    """What is in work may be claimed by anybody, as when its worker has been gone for long."""
    await execute(store, "UPDATE fourfold_work SET lease_until = 0 WHERE token IS NOT NULL")


async def graph_of(store: Fourfold) -> dict[str, object]:
    """What the rows say the graph must hold, worked out without Fourfold's projection."""
    async with store.session() as session:
        songs = (await session.scalars(sa.select(Song))).all()
        artists = (await session.scalars(sa.select(Artist))).all()
        notes = (await session.scalars(sa.select(Note))).all()
        pairs = (await session.scalars(sa.select(Pair))).all()
    tracks = {track["title"] for song in songs for track in song.tracks}
    # Nothing refers to what doesn't exist here (foreign keys), so value nodes are the only nodes without a row.
    nodes = {"Artist": len(artists), "Song": len(songs), "Note": len(notes), "Pair": len(pairs), "Track": len(tracks)}
    edges = {
        "BY": sum(song.artist_id is not None for song in songs),
        "HAS": sum(len(song.tracks) for song in songs),
        "ABOUT": len(notes),
    }
    return {
        "nodes": {label: count for label, count in nodes.items() if count},
        "edges": {kind: count for kind, count in edges.items() if count},
        "points": len(songs),
    }


async def assert_converged(store: Fourfold) -> None:
    """Drain, then compare with a count of our own and with a deep verify (I1, I5)."""
    await store.drain()
    status = await store.status()
    assert status.in_step, status
    statistics = await store.graph.statistics()
    points = await store.stores.collections["songs"].count()
    seen = {"nodes": dict(statistics.nodes), "edges": dict(statistics.edges), "points": points}
    assert seen == await graph_of(store)
    report = await store.integrity.verify(deep=True)
    assert not report.differs, report.differences[:10]
    assert not report.in_flight
    async with store.engine.connect() as connection:
        for table in ("fourfold_change", "fourfold_work", "fourfold_quarantine"):
            assert not await connection.scalar(sa.text(f"SELECT count(*) FROM {table}")), table


@dataclass(frozen=True)
class SongRow:
    """A song as a plain value."""

    title: str
    artist: int | None = None
    tracks: tuple[str, ...] = ()
    file_key: str | None = None


@dataclass
class Rows:
    """All rows as plain dicts: what tests keep beside the database as their model of it."""

    artists: dict[int, str] = field(default_factory=dict)
    songs: dict[UUID, SongRow] = field(default_factory=dict)
    notes: dict[int, tuple[UUID, str]] = field(default_factory=dict)
    pairs: dict[tuple[int, str], str | None] = field(default_factory=dict)

    def copy(self) -> Rows:
        return Rows(dict(self.artists), dict(self.songs), dict(self.notes), dict(self.pairs))


Edge_ = tuple[str, tuple[str, object], tuple[str, object]]


@dataclass
class Contents:
    """What graph and vectors hold, per owner and without digests, read or worked out without Fourfold's code.

    `nodes` by (label, id) with all properties; `owners` the owner of each ("table:key"), None for a stub; `edges` by
    owner; `points` by song with payload, text and the vector's bytes.
    """

    nodes: dict[tuple[str, object], dict[str, object]] = field(default_factory=dict)
    owners: dict[tuple[str, object], str | None] = field(default_factory=dict)
    edges: dict[str, Counter[Edge_]] = field(default_factory=dict)
    points: dict[str, tuple[dict[str, object], str | None, bytes]] = field(default_factory=dict)


def pair_key(left: int, right: str) -> str:
    """A composite key as the owner's text has it."""
    escaped = right.replace("\\", "\\\\").replace(",", "\\,")
    return f"{left},{escaped}"


def expected_contents(rows: Rows) -> Contents:
    """What the targets must hold for these rows; written down once more, by hand, for the declarations above."""
    found = Contents()

    def node(label: str, table: str, key: object, properties: dict[str, object]) -> None:
        found.nodes[label, key] = {"id": key} | {name: value for name, value in properties.items() if value is not None}
        found.owners[label, key] = f"{table}:{key}"

    for artist, name in rows.artists.items():
        node("Artist", "artists", artist, {"name": name})
    for (left, right), value in rows.pairs.items():
        node("Pair", "pairs", pair_key(left, right), {"value": value})
    notes_of: dict[UUID, list[str]] = {}
    for note, (song, text) in sorted(rows.notes.items()):
        node("Note", "notes", note, {"text": text})
        found.edges[f"notes:{note}"] = Counter([("ABOUT", ("Note", note), ("Song", str(song)))])
        notes_of.setdefault(song, []).append(text)
    texts = {}
    for song, row in rows.songs.items():
        here = ("Song", str(song))
        node("Song", "songs", str(song), {"title": row.title})
        edges = Counter([("HAS", here, ("Track", track)) for track in row.tracks])
        if row.artist is not None:
            edges["BY", here, ("Artist", row.artist)] += 1
        if edges:
            found.edges[f"songs:{song}"] = edges
        for track in row.tracks:
            found.nodes["Track", track] = {"title": track}
            found.owners["Track", track] = None
        words = [row.title, rows.artists[row.artist] if row.artist is not None else "", *notes_of.get(song, [])]
        texts[song] = " ".join(word for word in words if word)
    embedder = HashEmbedder()
    for song, text in texts.items():
        vector = embedder._vector(text)
        packed = struct.pack(f"<{len(vector)}f", *vector)
        found.points[str(song)] = ({"title": rows.songs[song].title}, text, packed)
    return found


def stored_contents(folder: Path) -> Contents:
    """What the embedded graph and vectors hold, read from their files with plain SQL."""
    found = Contents()
    with closing(sqlite3.connect(folder / "graph.db", timeout=30, isolation_level=None)) as graph:
        graph.execute("BEGIN")
        owners = dict(graph.execute("SELECT id, owner FROM owner"))
        places = {}
        for number, label, properties, owner in graph.execute("SELECT id, label, properties, owner FROM node"):
            values = json.loads(properties)
            places[number] = (label, values.get("id", values.get("title")))
            assert places[number] not in found.nodes, f"{places[number]} is there twice"
            found.nodes[places[number]] = values
            found.owners[places[number]] = None if owner is None else owners[owner]
        for kind, source, target, owner in graph.execute("SELECT type, source, target, owner FROM edge"):
            edge = (kind, places[source], places[target])  # a KeyError is a dangling edge
            found.edges.setdefault(owners[owner], Counter())[edge] += 1
    with closing(sqlite3.connect(folder / "vectors.db", timeout=30, isolation_level=None)) as vectors:
        query = "SELECT o.key, p.payload, p.text, p.vector FROM point AS p JOIN owner AS o ON o.id = p.owner_id"
        for key, payload, text, vector in vectors.execute(query):
            assert key not in found.points, f"two points of {key}"
            found.points[key] = (json.loads(payload), text, vector)
    return found


def property_in_graph(store: Fourfold, label: str, name: str) -> dict[object, object]:
    """A property of each node of a label, by the node's id, read with plain SQL."""
    with closing(sqlite3.connect(store.settings.data_folder / "graph.db")) as graph:
        rows = [json.loads(row[0]) for row in graph.execute("SELECT properties FROM node WHERE label = ?", (label,))]
    return {row["id"]: row.get(name) for row in rows}


async def rows_of(store: Fourfold) -> Rows:
    """All rows, by Core statements on the tables."""
    rows = Rows()
    async with store.engine.connect() as connection:
        for key, name in await connection.execute(sa.select(Artist.__table__)):
            rows.artists[key] = name
        for key, title, artist, tracks, file_key in await connection.execute(sa.select(Song.__table__)):
            rows.songs[key] = SongRow(title, artist, tuple(track["title"] for track in tracks), file_key)
        for key, song, text in await connection.execute(sa.select(Note.__table__)):
            rows.notes[key] = (song, text)
        for left, right, value in await connection.execute(sa.select(Pair.__table__)):
            rows.pairs[left, right] = value
    return rows


async def assert_contents(store: Fourfold, rows: Rows | None = None) -> None:
    """Rows are as the model says (where one is given), and both targets hold exactly what follows from them."""
    seen = await rows_of(store)
    if rows is not None:
        assert seen == rows
    expected, stored = expected_contents(seen), stored_contents(store.settings.data_folder)
    assert stored.nodes == expected.nodes
    assert stored.owners == expected.owners
    assert stored.edges == expected.edges
    assert stored.points == expected.points
