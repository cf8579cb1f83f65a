"""What rows become: nodes, edges, lists, points, functions; and what is refused when a row is projected."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, relationship

from fourfold.errors import ValidationError
from fourfold.projection import (
    CollectionPlan,
    Edge,
    EdgeItem,
    EdgeList,
    Node,
    NodeItem,
    NodeRef,
    Point,
    PointItem,
    Projection,
    ValueNode,
    compile_plan,
)
from fourfold.projection.values import property_value, text_value, vector_value


class Base(DeclarativeBase):
    pass


class Artist(Base):
    __tablename__ = "artists"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text)
    __projections__ = (Node("Artist", properties=("name",)),)


def cells(song):
    if song.year is None:
        return
    decade = NodeRef.of("Decade", year=song.year // 10 * 10)
    yield NodeItem(decade)
    yield EdgeItem("FROM", NodeRef.of("Song", id=str(song.id)), decade)
    yield "years", PointItem(vector=(float(song.year), 1.0))


class Tag(Base):
    __tablename__ = "tags"
    song_id = sa.Column(sa.Uuid, sa.ForeignKey("songs.id"), primary_key=True)
    name = sa.Column(sa.Text, primary_key=True)
    colour = sa.Column(sa.Text)
    __projections__ = (Node("Tag", id="key"), Edge("ON", "song_id", properties={"in": "colour"}))


class Likes(Base):
    __tablename__ = "likes"
    id = sa.Column(sa.Integer, primary_key=True)
    artist_id = sa.Column(sa.Integer, sa.ForeignKey("artists.id"))
    song_id = sa.Column(sa.Uuid, sa.ForeignKey("songs.id"))
    since = sa.Column(sa.Date)
    __projections__ = (Edge("LIKES", "song_id", from_="artist_id", properties=("since",)),)


class Song(Base):
    __tablename__ = "songs"
    id = sa.Column(sa.Uuid, primary_key=True)
    title = sa.Column(sa.Text)
    year = sa.Column(sa.Integer)
    genre = sa.Column(sa.Text)
    artist_id = sa.Column(sa.Integer, sa.ForeignKey("artists.id"))
    parts = sa.Column(sa.JSON)
    words = sa.Column(sa.JSON)
    embedding = sa.Column(sa.JSON)
    notes = sa.orm.deferred(sa.Column(sa.Text))
    artist = relationship(Artist)
    tags = relationship(Tag, order_by=Tag.name)

    @property
    def search_text(self):
        return (
            f"{self.title} {self.artist.name if self.artist else ''} {' '.join(tag.name for tag in self.tags)}".strip()
        )

    @property
    def undeclared(self):
        return self.artist.name

    __projections__ = (
        Node("Song", properties={"title": title.key or "title", "published": "year"}),
        Edge("BY", "artist_id"),
        Edge("MADE", "artist_id", reverse=True),
        Edge("IN", "genre", to=ValueNode("Genre", "name")),
        Edge("OF", ("genre", "year"), to=ValueNode("Wave", ("genre", "year"))),
        EdgeList("HAS", "parts", to=ValueNode("Part", ("title", "artist")), properties=("start",)),
        EdgeList("SAYS", "words", to=ValueNode("Word", "text")),
        Point("songs", text="search_text", payload=("year",), depends_on=("artist", "tags")),
        Point("faces", vector="embedding", dimension=2),
        Projection(
            cells,
            columns=("year",),
            labels={"Decade": "year"},
            edges={"FROM": [("Song", "Decade")]},
            collections=(CollectionPlan("years", dimension=2),),
        ),
    )


PLAN = compile_plan([Artist, Likes, Song, Tag])
KEY = "3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1"
ME = NodeRef.of("Song", id=KEY)


def song(**values):
    return Song(id=uuid.UUID(KEY), **values)


def graph(instance, table="songs"):
    plan = PLAN.tables[table]
    return plan.fragment("graph", plan.key_of(instance), instance)


def edges(instance, edge_type, table="songs"):
    return [edge for edge in graph(instance, table).edges if edge.type == edge_type]


def test_row_becomes_a_node_with_its_key_as_text():
    assert graph(song(title="Dawn", year=1999)).nodes[0] == NodeItem(ME, {"title": "Dawn", "published": 1999})


def test_integer_key_is_a_number():
    assert graph(Artist(id=7), "artists").nodes == (NodeItem(NodeRef.of("Artist", id=7)),)


def test_composite_key_is_one_text():
    tag = Tag(song_id=uuid.UUID(KEY), name="a,b", colour="red")
    assert graph(tag, "tags").nodes[0].ref == NodeRef.of("Tag", key=f"{KEY},a\\,b")
    assert edges(tag, "ON", "tags")[0].properties == {"in": "red"}


def test_none_is_left_out():
    assert graph(song()).nodes[0].properties == {}


def test_edges_follow_the_foreign_key_both_ways():
    row = song(artist_id=7)
    assert edges(row, "BY") == [EdgeItem("BY", ME, NodeRef.of("Artist", id=7))]
    assert edges(row, "MADE") == [EdgeItem("MADE", NodeRef.of("Artist", id=7), ME)]


def test_null_makes_no_edge():
    assert graph(song()).edges == ()


def test_association_row_connects_two_foreign_keys_and_has_no_node():
    row = Likes(id=1, artist_id=7, song_id=uuid.UUID(KEY), since=dt.date(2024, 5, 1))
    expected = EdgeItem("LIKES", NodeRef.of("Artist", id=7), ME, {"since": "2024-05-01"})
    assert graph(row, "likes").nodes == ()
    assert graph(row, "likes").edges == (expected,)
    row.artist_id = None
    assert graph(row, "likes").is_empty


def test_value_nodes_come_from_columns():
    assert edges(song(genre="Dub"), "IN") == [EdgeItem("IN", ME, NodeRef.of("Genre", name="Dub"))]
    assert edges(song(genre="Dub"), "OF") == []
    assert edges(song(genre="Dub", year=1), "OF")[0].target == NodeRef.of("Wave", genre="Dub", year=1)


def test_list_becomes_edges_and_keeps_duplicates():
    part = {"title": "A", "artist": "B", "start": "00:01", "other": 1}
    found = edges(song(parts=[part, part, {"title": "C", "artist": "D"}]), "HAS")
    assert found[0] == found[1] == EdgeItem("HAS", ME, NodeRef.of("Part", title="A", artist="B"), {"start": "00:01"})
    assert found[2].properties == {}
    assert [edge.target.identity for edge in edges(song(words=["a", {"text": "b"}]), "SAYS")] == [
        (("text", "a"),),
        (("text", "b"),),
    ]


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"parts": [{"title": "A", "artist": "B"}, {"title": "A"}]}, "Song.parts[1].artist is missing"),
        ({"parts": [{"title": "A", "artist": None}]}, "Song.parts[0].artist is missing"),
        ({"parts": ["A"]}, "Song.parts[0] is 'A'; expected an object with title, artist, start"),
        ({"parts": "A"}, "Song.parts is 'A'; expected a list"),
        ({"parts": [{"title": ["A"], "artist": "B"}]}, "Song.parts[0].title is a list"),
        ({"words": [None]}, "Song.words[0].text is missing"),
        ({"genre": ["a"]}, "Song.genre is a list"),
        ({"title": b"x"}, "Song.title: b'x' is of type bytes"),
    ],
)
def test_what_targets_cannot_hold_is_refused_by_name(values, where):
    with pytest.raises(ValidationError, match=where.replace("[", r"\[")) as caught:
        graph(song(**values))
    assert caught.value.code == "projection.value"


def test_missing_row_is_an_empty_fragment():
    plan = PLAN.tables["songs"]
    assert plan.fragment("graph", KEY, None).is_empty
    points = plan.fragment("vectors.songs", KEY, None, {"songs": "m"})
    assert (points.is_empty, points.collection, points.model) == (True, "songs", "m")


def test_points_have_text_or_vector_and_payload():
    plan, row = PLAN.tables["songs"], song(title="Dawn", year=1999, embedding=[1, 2])
    row.tags = [Tag(name="slow")]
    row.artist = Artist(name="Ada")
    texts = plan.fragment("vectors.songs", KEY, row, {"songs": "m"})
    assert (texts.points, texts.model) == ((PointItem(text="Dawn Ada slow", payload={"year": 1999}),), "m")
    assert plan.fragment("vectors.faces", KEY, row).points == (PointItem(vector=(1.0, 2.0)),)


def test_empty_text_or_vector_is_no_point():
    plan, row = PLAN.tables["songs"], song(title="")
    assert plan.fragment("vectors.songs", KEY, row).is_empty
    assert plan.fragment("vectors.faces", KEY, row).is_empty


def test_function_serves_each_target():
    plan, row = PLAN.tables["songs"], song(year=1999, title="a")
    decade = NodeRef.of("Decade", year=1990)
    assert NodeItem(decade) in graph(row).nodes
    assert edges(row, "FROM") == [EdgeItem("FROM", ME, decade)]
    assert plan.fragment("vectors.years", KEY, row).points == (PointItem(vector=(1999.0, 1.0)),)
    assert plan.fragment("vectors.years", KEY, song()).is_empty


def emitting(*items, **declared):
    class Own(DeclarativeBase):
        pass

    def emit(_row):
        return items

    class Row(Own):
        __tablename__ = "rows"
        id = sa.Column(sa.Integer, primary_key=True)
        __projections__ = (Projection(emit, **declared),)

    plan = compile_plan([Row])
    return lambda: [plan.tables["rows"].fragment(target, "1", Row(id=1)) for target in plan.targets]


X, Y = NodeRef.of("X", id=1), NodeRef.of("Y", id=1)
X_EDGES = {"E": [("X", "X")]}


@pytest.mark.parametrize(
    ("item", "part"),
    [
        (NodeItem(Y), "yielded node 'Y'"),
        (NodeItem(NodeRef.of("X", name=1)), "yielded node 'X' identified by ('name',)"),
        (EdgeItem("F", X, X), "yielded edge 'F' from 'X' to 'X'"),
        (EdgeItem("E", X, Y), "yielded edge 'E' from 'X' to 'Y'"),
        (("b", PointItem()), "yielded collection 'b'"),
    ],
)
def test_function_may_not_yield_what_it_does_not_declare(item, part):
    with pytest.raises(ValidationError) as caught:
        emitting(item, labels={"X": "id"}, edges=X_EDGES, collections=(CollectionPlan("a"),))()
    assert part in str(caught.value)
    assert caught.value.code == "projection.undeclared"


@pytest.mark.parametrize("item", ["x", ("a", 1), None])
def test_function_must_yield_items(item):
    with pytest.raises(ValidationError, match=r"expected NodeItem, EdgeItem or \(collection, PointItem\)"):
        emitting(item, labels={"X": "id"})()


def test_function_with_one_collection_yields_bare_points():
    assert emitting(PointItem(text="a"), collections=(CollectionPlan("c"),))()[0].points == (PointItem(text="a"),)
    with pytest.raises(ValidationError, match="expected NodeItem"):
        emitting(PointItem(text="a"), collections=(CollectionPlan("c"), CollectionPlan("d")))()


def test_values_of_a_function_are_taken_as_those_of_the_other_declarations():
    moment, key = dt.datetime(2024, 5, 1, tzinfo=dt.UTC), uuid.UUID(KEY)
    given = {"at": moment, "none": None, "list": ["a"]}
    taken = {"at": "2024-05-01T00:00:00.000000Z", "list": ("a",)}
    me = NodeRef.of("X", id=key)
    items = (NodeItem(me, given), EdgeItem("E", me, me, given), PointItem(text="a", payload=given), PointItem(text=" "))
    graph, points = emitting(*items, labels={"X": "id"}, edges=X_EDGES, collections=(CollectionPlan("c"),))()
    me = NodeRef.of("X", id=KEY)
    assert graph.nodes == (NodeItem(me, taken),)
    assert graph.edges == (EdgeItem("E", me, me, taken),)
    assert points.points == (PointItem(text="a", payload=taken),)


@pytest.mark.parametrize(
    "item",
    [
        NodeItem(X, {"p": float("nan")}),
        NodeItem(X, {"p": 1 << 70}),
        NodeItem(X, {"p": "a\x00"}),
        NodeItem(X, {"p": b"bytes"}),
        NodeItem(NodeRef.of("X", id=None)),
        EdgeItem("E", X, NodeRef.of("X", id=(1, 2))),
        PointItem(vector=(float("inf"),)),
        PointItem(text="a", payload={"p": object()}),
    ],
)
def test_a_function_that_yields_what_no_target_holds_fails_its_row_alone(item):
    with pytest.raises(ValidationError) as caught:
        emitting(item, labels={"X": "id"}, edges=X_EDGES, collections=(CollectionPlan("a"),))()
    assert caught.value.code == "projection.value"


# ------------------------------------------------------------------------------------------------ loading


@pytest.fixture
def session():
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        row = song(title="Dawn", artist=Artist(id=7, name="Ada"), tags=[Tag(name="b"), Tag(name="a,c")], notes="n")
        opened.add(row)
        opened.commit()
        opened.expunge_all()
        yield opened
    engine.dispose()


def load(session, target, keys=(KEY,), table="songs"):
    plan = PLAN.tables[table]
    return session.scalars(plan.statement(keys).options(*plan.load_options(target))).unique().all()


def test_rows_are_read_with_what_they_depend_on(session):
    (row,) = load(session, "vectors.songs")
    session.expunge_all()
    assert PLAN.tables["songs"].fragment("vectors.songs", KEY, row).points[0].text == "Dawn Ada a,c b"


def test_composite_keys_are_read(session):
    plan = PLAN.tables["tags"]
    keys = [f"{KEY},b", f"{KEY},a\\,c", f"{KEY},absent"]
    assert sorted(plan.key_of(row) for row in load(session, "graph", keys, "tags")) == sorted(keys[:2])


def test_nothing_is_loaded_that_the_target_does_not_need(session):
    (row,) = load(session, "graph")
    assert {"artist", "tags", "notes"} <= sa.inspect(row).unloaded


def test_property_may_read_deferred_columns(session):
    (row,) = load(session, "vectors.songs")
    assert "notes" not in sa.inspect(row).unloaded


@pytest.mark.parametrize("detached", [True, False])
def test_undeclared_relationship_raises_and_is_named(session, detached):
    extra = {Song: (Point("p", text="undeclared"),)}
    plan = compile_plan([Artist, Likes, Song, Tag], extra=extra).tables["songs"]
    row = session.scalars(plan.statement([KEY]).options(*plan.load_options("vectors.p"))).one()
    if detached:
        session.expunge_all()
    with pytest.raises(ValidationError) as caught:
        plan.fragment("vectors.p", KEY, row)
    assert caught.value.code == "projection.undeclared"
    assert caught.value.relationships == ("artist",)
    assert "depends_on=('artist',)" in caught.value.hint


def test_key_that_is_none_of_the_table_is_refused():
    with pytest.raises(ValidationError, match=r"'x' is no key of 'songs'; expected the text of \(id uuid\)"):
        PLAN.tables["songs"].statement(["x"])
    with pytest.raises(ValidationError, match="is no key of 'tags'"):
        PLAN.tables["tags"].statement([KEY])


def test_instance_without_key_is_refused():
    with pytest.raises(ValidationError, match="flush it first"):
        PLAN.tables["artists"].key_of(Artist())


# ------------------------------------------------------------------------------------------------- values


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


ZONE = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (uuid.UUID(KEY), KEY),
        (Colour.RED, "red"),
        (Colour.ONE, "ONE"),
        (dt.datetime(2024, 5, 1, 12, tzinfo=ZONE), "2024-05-01T10:00:00.000000Z"),
        (dt.datetime.fromisoformat("2024-05-01T12:00:00.000001"), "2024-05-01T12:00:00.000001"),
        (dt.date(2024, 5, 1), "2024-05-01"),
        (dt.time(1, 2), "01:02:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (decimal.Decimal("1E+2"), "100"),
        ({"b": [1, None], "a": {"ä": 1}}, '{"a":{"ä":1},"b":[1,null]}'),
        ([uuid.UUID(KEY), uuid.UUID(KEY)], (KEY, KEY)),
        ([], ()),
    ],
)
def test_values_are_converted(value, expected):
    assert property_value(value, "A.b") == expected


@pytest.mark.parametrize(
    "value",
    [
        *(b"x", bytearray(), [[1]], [{"a": 1}], [1, "a"], [None], {1, 2}, {"a": b"x"}, {"a": float("nan")}),
        *(float("inf"), 2**63, "\0", "\ud800", object(), {"a": 1, 2: 3}),
    ],
)
def test_other_values_are_refused(value):
    with pytest.raises(ValidationError, match=r"^A\.b") as caught:
        property_value(value, "A.b")
    assert caught.value.code == "projection.value"


@pytest.mark.parametrize("value", [7, b"x", "a\0", "\ud800"])
def test_text_that_is_none_is_refused(value):
    with pytest.raises(ValidationError, match=r"^A\.b"):
        text_value(value, "A.b")


@pytest.mark.parametrize("value", ["12", b"12", {1: 2}, 7, [], [True], ["a"], [float("nan")], [1e39], [None]])
def test_vector_that_is_none_is_refused(value):
    with pytest.raises(ValidationError, match=r"^A\.b"):
        vector_value(value, "A.b")


def test_vector_is_taken_from_numpy():
    numpy = pytest.importorskip("numpy")
    assert vector_value(numpy.array([1, 0.5], dtype="float32"), "A.b") == (1.0, 0.5)
