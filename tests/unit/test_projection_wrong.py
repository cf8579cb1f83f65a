"""Every wrong declaration is refused when mappers are configured or the plan is compiled, all of them at once."""

from __future__ import annotations

import pickle
from typing import ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, configure_mappers, relationship

from fourfold.errors import ConfigurationError
from fourfold.projection import (
    CollectionPlan,
    Edge,
    EdgeList,
    File,
    LinkedFile,
    Node,
    Point,
    Projection,
    ValueNode,
    compile_plan,
)


def emit(_row):
    return ()


ARTIST = (Node("Artist"),)


def models(things=(), *, artists=ARTIST, tags=(), key=sa.Integer):
    """Three related tables; what `Thing`, `Artist` and `Tag` declare is the test's."""

    class Base(DeclarativeBase):
        pass

    class Artist(Base):
        __tablename__ = "artists"
        id = sa.Column(sa.Integer, primary_key=True)
        slug = sa.Column(sa.Text, unique=True)
        __projections__ = artists

    class Tag(Base):
        __tablename__ = "tags"
        thing_id = sa.Column(key, sa.ForeignKey("things.id"), primary_key=True)
        name = sa.Column(sa.Text, primary_key=True)
        __projections__ = tags

    class Thing(Base):
        __tablename__ = "things"
        id = sa.Column(key, primary_key=True)
        title = sa.Column(sa.Text)
        size = sa.Column(sa.Integer)
        artist_id = sa.Column(sa.Integer, sa.ForeignKey("artists.id"))
        artist_slug = sa.Column(sa.Text, sa.ForeignKey("artists.slug"))
        loose = sa.Column(sa.Integer)
        lost = sa.Column(sa.Integer, sa.ForeignKey("nowhere.id"))
        items = sa.Column(sa.JSON)
        artist = relationship(Artist, foreign_keys=[artist_id])
        by_slug = relationship(Artist, foreign_keys=[artist_slug])
        tags = relationship(Tag)
        many = relationship(Tag, lazy="dynamic", viewonly=True)
        friends = relationship(
            "Thing",
            secondary=sa.Table(
                "friends",
                Base.metadata,
                sa.Column("a", sa.ForeignKey("things.id"), primary_key=True),
                sa.Column("b", sa.ForeignKey("things.id"), primary_key=True),
            ),
            primaryjoin="Thing.id == friends.c.a",
            secondaryjoin="Thing.id == friends.c.b",
        )
        __projections__ = things

        def method(self): ...

        @property
        def text(self): ...

    return [Artist, Tag, Thing]


def problems_of(found):
    with pytest.raises(ConfigurationError) as caught:
        compile_plan(found)
    assert caught.value.code == "projection.declaration"
    return caught.value.problems


NODE = Node("Thing")
WRONG = {
    "attribute": (Node("Thing", properties=("titel",)), "no attribute 'titel' on Thing; did you mean 'title'?"),
    "property near": (Point("things", text="tekst"), "text: no attribute 'tekst' on Thing; did you mean 'text'?"),
    "nothing near": (Node("Thing", properties=("zzz",)), "it has artist_id, artist_slug"),
    "relationship as property": (
        Node("Thing", properties=("artist",)),
        "is a relationship; expected a column (its own: 'artist_id')",
    ),
    "method": (Node("Thing", properties=("method",)), "'method' is a method; make it a property"),
    "unnamed": (Node("Thing", properties=(sa.Column(sa.Text),)), "a Column has no name yet inside the class body"),
    "label no text": (Node(7), "label is 7; expected a non-empty text"),
    "label empty": (Node(""), "label is ''; expected a non-empty text"),
    "label NUL": (Node("a\0"), "no NUL"),
    "label surrogate": (Node("a\ud800"), "no lone surrogates"),
    "reserved": (Node("Thing", properties={"fourfold_owner": "title"}), "'fourfold_owner' is reserved"),
    "label twice": ((Node("A"), Node("A", properties=("title",))), "label 'A' is declared twice"),
    "identity as property": (Node("Thing", properties=("id",)), "property 'id' is its identity already"),
    "property twice": (Node("Thing", properties=("title", "title")), "properties has 'title' twice"),
    "label of another": (Node("Artist"), "label 'Artist' belongs to Artist already"),
    "unhashable": (Node(["Thing"]), "can't be hashed"),
    "declared twice": ((NODE, NODE), "is declared twice; leave one out"),
    "no declaration": ((NODE, "Edge"), "is no declaration; expected one of Edge"),
    "no tuple": (NODE, "expected a tuple: write (Node(…),)", "raw"),
    "unknown relationship": (
        Point("c", text="text", depends_on=("artists",)),
        "no relationship 'artists'; did you mean 'artist'?",
    ),
    "column as relationship": (
        Point("c", text="text", depends_on=("size",)),
        "depends_on: no relationship 'size'; it has",
    ),
    "unnamed relationship": (Node("Thing", depends_on=(sa.Column(sa.Text),)), "depends_on: a Column has no name yet"),
    "secondary": (Point("c", text="text", depends_on=("friends",)), "map that table as a class and depend on it"),
    "non-primary key": (Point("c", text="text", depends_on=("by_slug",)), "not the primary key (artists.id)"),
    "dynamic": (
        Point("c", text="text", depends_on=("many",)),
        "is dynamic; only a relationship that can be loaded whole",
    ),
    "no foreign key": (Edge("E", "loose"), "has no foreign key; add ForeignKey(…) to it, or name the label"),
    "unknown to": (Edge("E", "loose", to="Artits"), "did you mean 'Artist'?"),
    "foreign key to nowhere": (Edge("E", "lost"), "its foreign key leads nowhere"),
    "foreign key to no key": (Edge("E", "artist_slug"), "references artists.slug, not the primary key"),
    "edge via property": (Edge("E", "text"), "via 'text' is no column; expected a mapped column"),
    "edge via nothing": (Edge("E", ()), "via is empty"),
    "label not theirs": (
        Edge("E", "artist_id", to="Artits"),
        "to='Artits' is no label of Artist; it has Artist; did you mean 'Artist'?",
    ),
    "identity too short": (
        Edge("E", ("title", "size"), to=ValueNode("V", "a")),
        "via has 2 attributes, the identity of V 1",
    ),
    "identity empty": (Edge("E", "title", to=ValueNode("V", ())), "expected distinct property names, one at least"),
    "value node is a node": (
        Edge("E", "title", to=ValueNode("Artist")),
        "label 'Artist' belongs to the rows of Artist",
    ),
    "two identities": (
        (NODE, Edge("E", "title", to=ValueNode("V", "a")), Edge("F", "title", to=ValueNode("V", "b"))),
        "label 'V' is identified by ('b',) here, by ('a',) in Thing",
    ),
    "list without value node": (EdgeList("E", "items", to="V"), "expected a ValueNode"),
    "text and vector": (Point("c", text="text", vector="items"), "has both of text= and vector=; give one"),
    "neither": (Point("c"), "has neither of text= and vector=; give one"),
    "lambda": (Projection(lambda _row: (), labels={"X": "id"}), "define it with def"),
    "emits nothing": (Projection(emit), "declares nothing that it yields"),
    "function's column": (Projection(emit, labels={"X": "id"}, columns=("tite",)), "columns: no attribute 'tite'"),
    "function's end": (
        Projection(emit, edges={"E": [("Thing", "Thingy")]}),
        "ends at label 'Thingy', which nothing declares",
    ),
    "function's label": (Projection(emit, labels={"Artist": "id"}), "label 'Artist' belongs to Artist already"),
    "function's collection": (Projection(emit, collections=("c",)), "expected CollectionPlan(name, dimension)"),
    "text here, vector there": (
        (Point("c", text="title"), Projection(emit, collections=(CollectionPlan("c", dimension=3),))),
        "collection 'c' takes vectors of 3 here, texts in Thing; use two collections",
    ),
    "file of no text": (File("size"), "expected text, which can hold an object key"),
    "file twice": ((File("title"), LinkedFile("title")), "is a File and a LinkedFile"),
}


def declared(case):
    wrong = WRONG[case]
    if len(wrong) == 3:
        return wrong[0]
    own = wrong[0] if isinstance(wrong[0], tuple) else (wrong[0],)
    needs_node = not any(isinstance(declaration, Node) for declaration in own)
    return (NODE, *own) if needs_node else own


@pytest.mark.parametrize("case", WRONG)
def test_wrong_declaration_names_class_argument_and_fix(case):
    problems = problems_of(models(declared(case)))
    assert any(WRONG[case][1] in problem for problem in problems), problems
    assert all(problem.startswith("Thing") for problem in problems)


@pytest.mark.parametrize("case", sorted(set(WRONG) - {"unknown to"}))  # its label may still come with projections=
def test_wrong_declaration_fails_when_mappers_are_configured(case):
    kept = models(declared(case))  # mappers are weakly held: what nobody holds may be gone before it is configured
    assert kept
    if case == "function's end":
        configure_mappers()  # as above
        return
    with pytest.raises(ConfigurationError) as caught:
        configure_mappers()
    assert caught.value.code == "projection.declaration"
    configure_mappers()  # told once: other applications in the process go on


def test_all_problems_are_told_at_once():
    wrong = (
        Node("Thing", properties=("titel", "siez")),
        Edge("E", "loose"),
        Point("c", text="tekst", depends_on=("artists",)),
        Point("d", text="tekst"),
    )
    found = models(wrong, tags=(Node("Tag", properties=("nam",)),))
    problems = problems_of(found)
    for part in (
        "'titel'",
        "'siez'",
        "'loose'",
        "'tekst'",
        "'artists'",
        "Tag: Node('Tag'): properties: no attribute 'nam'",
    ):
        assert any(part in problem for problem in problems), part


def test_error_counts_and_lists_problems_and_pickles():
    with pytest.raises(ConfigurationError) as caught:
        compile_plan(models((Node("Thing", properties=("titel",)),)))
    assert str(caught.value).startswith("1 wrong declaration:\n- Thing: Node('Thing'): properties: no attribute")
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems  # noqa: S301 - our own


@pytest.mark.parametrize("key", [sa.Float, sa.Numeric, sa.JSON])
def test_key_that_has_no_single_text_is_refused(key):
    assert any("no single text per value" in problem for problem in problems_of(models((NODE,), key=key)))


def test_key_type_of_a_table_that_nothing_needs_is_no_problem():
    compile_plan(models((), key=sa.Float))


def test_key_whose_decorator_rewrites_values_is_refused_unless_it_says_it_does_not():
    class Guid(sa.TypeDecorator):
        impl = sa.String
        cache_ok = True

        def process_bind_param(self, value, dialect):
            return value and value.hex

    class Checked(Guid):
        cache_ok = True
        fourfold_key_as_is = True

    assert any("Guid rewrites values" in problem for problem in problems_of(models((NODE,), key=Guid)))
    compile_plan(models((NODE,), key=Checked))


def test_referenced_class_without_node_names_both_fixes():
    problems = problems_of(models((NODE, Edge("BY", "artist_id")), artists=()))
    fix = 'add Node("Artist") to its __projections__, or give to="Artist" for a node of its key alone'
    assert problems == [f"Thing: Edge('BY', 'artist_id'): references Artist, which has no Node; {fix}"]


def test_referenced_class_without_node_may_still_get_one_after_configuration():
    found = models((NODE, Edge("BY", "artist_id")), artists=())
    configure_mappers()
    plan = compile_plan(found, extra={found[0]: (Node("Person", id="uuid"),)})
    assert plan.edges == {"BY": frozenset({("Thing", "Person")})}


def test_referenced_class_with_two_labels_needs_to():
    two = (Node("Artist"), Node("Person"))
    assert "several labels (Artist, Person)" in problems_of(models((NODE, Edge("BY", "artist_id")), artists=two))[0]
    plan = compile_plan(models((NODE, Edge("BY", "artist_id", to="Person")), artists=two))
    assert plan.edges == {"BY": frozenset({("Thing", "Person")})}


def test_stub_label_of_another_class_is_refused():
    found = models((NODE, Edge("BY", "artist_id", to="Tag")), artists=(), tags=(Node("Tag"),))
    assert "to='Tag' is the label of Tag, but the foreign key references Artist" in problems_of(found)[0]


def test_class_without_node_needs_from():
    found = models((Edge("BY", "artist_id"),))
    assert "name another foreign key with from_=" in problems_of(found)[0]


def test_loose_key_needs_the_columns_and_types_of_the_primary_key():
    one = problems_of(models((NODE, Edge("E", "loose", to="Tag")), tags=(Node("Tag"),)))
    assert "has 1 columns, but the primary key of 'tags' has 2" in one[0]
    two = problems_of(models((NODE, Edge("E", "title", to="Artist"))))
    assert "column 'title' is text, the key it names is integer" in two[0]


def test_attribute_of_another_class_is_refused():
    found = models()
    artist, _, thing = found
    with pytest.raises(ConfigurationError) as caught:
        compile_plan(found, extra={thing: (Node("Thing", properties=(artist.slug,)),)})
    assert "Artist.slug belongs to another class; expected an attribute of Thing" in caught.value.problems[0]


def test_what_is_not_mapped_is_refused():
    class Plain:
        pass

    assert problems_of([Plain]) == ["Plain: is not a mapped class; map it with SQLAlchemy or SQLModel (table=True)"]


def test_table_without_primary_key_is_refused():
    class Base(DeclarativeBase):
        pass

    table = sa.Table("logs", Base.metadata, sa.Column("at", sa.Integer), sa.Column("text", sa.Text))

    class Log(Base):
        __table__ = table
        __mapper_args__: ClassVar = {"primary_key": [table.c.at]}
        __projections__ = (Node("Log"),)

    assert problems_of([Log])[0] == "Log: table 'logs' has no primary key; rows without one can't be followed: add one"


def test_mapped_join_is_refused():
    class Base(DeclarativeBase):
        pass

    table = sa.Table("logs", Base.metadata, sa.Column("id", sa.Integer, primary_key=True))

    class Log(Base):
        __table__ = sa.select(table).subquery()
        __mapper_args__: ClassVar = {"primary_key": [__table__.c.id]}
        __projections__ = (Node("Log"),)

    assert problems_of([Log]) == ["Log: is not mapped to a table; only tables can be captured"]


def test_two_classes_on_one_table_and_two_tables_of_one_name_are_refused():
    class Base(DeclarativeBase):
        pass

    class A(Base):
        __tablename__ = "a"
        id = sa.Column(sa.Integer, primary_key=True)
        __projections__ = (Node("A"),)

    class B(Base):
        __table__ = A.__table__
        __projections__ = (Node("B"),)

    class C(Base):
        __tablename__ = "a"
        __table_args__: ClassVar = {"schema": "other"}
        id = sa.Column(sa.Integer, primary_key=True)
        __projections__ = (Node("C"),)

    class D(Base):
        __tablename__ = "d:e"
        id = sa.Column(sa.Integer, primary_key=True)
        __projections__ = (Node("D"),)

    problems = problems_of([A, B, C, D])
    assert "B: is a second class on table 'a', beside A" in problems
    assert "C: tables 'a' and 'other.a' have one name; owners are told apart by it: rename one" in problems
    assert any("has a colon" in problem for problem in problems)


def test_subclass_states_its_own():
    class Base(DeclarativeBase):
        pass

    class Media(Base):
        __tablename__ = "media"
        id = sa.Column(sa.Integer, primary_key=True)
        kind = sa.Column(sa.Text)
        __mapper_args__: ClassVar = {"polymorphic_on": kind, "polymorphic_identity": "media"}
        __projections__ = (Node("Media"),)

    class Song(Media):
        __mapper_args__: ClassVar = {"polymorphic_identity": "song"}

    text = "Song: inherits the projections of Media; subclasses state their own `__projections__` or ()"
    assert problems_of([Media, Song]) == [text]


def test_joined_inheritance_needs_a_discriminator():
    class Base(DeclarativeBase):
        pass

    class Media(Base):
        __tablename__ = "media"
        id = sa.Column(sa.Integer, primary_key=True)

    class Song(Media):
        __tablename__ = "songs"
        id = sa.Column(sa.Integer, sa.ForeignKey("media.id"), primary_key=True)
        __projections__ = (Node("Song"),)

    assert "needs polymorphic_on" in problems_of([Media, Song])[0]
