"""The plan is a function of the declarations, whatever their order; every argument counts; fragments are pure."""

from __future__ import annotations

import copy
import dataclasses
import random

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, relationship

from fourfold.errors import ConfigurationError, ValidationError
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

CLASSES = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


class Base(DeclarativeBase):
    pass


class Artist(Base):
    __tablename__ = "artists"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text)


class Child(Base):
    __tablename__ = "children"
    id = sa.Column(sa.Integer, primary_key=True)
    thing_id = sa.Column(sa.Integer, sa.ForeignKey("things.id"))


class Thing(Base):
    __tablename__ = "things"
    id = sa.Column(sa.Integer, primary_key=True)
    a = sa.Column(sa.Text)
    b = sa.Column(sa.Integer)
    c = sa.Column(sa.Text)
    d = sa.Column(sa.Text)
    items = sa.Column(sa.JSON)
    vector = sa.Column(sa.JSON)
    artist_id = sa.Column(sa.Integer, sa.ForeignKey("artists.id"))
    other_id = sa.Column(sa.Integer, sa.ForeignKey("artists.id"))
    artist = relationship(Artist, foreign_keys=[artist_id])
    children = relationship(Child)


def emit(_row):
    return ()


def emit_other(_row):
    return ()


MODELS = [Artist, Child, Thing]
TRACK = ValueNode("Track", ("t", "u"))
BASIS = {
    "artist": (Artist, Node("Artist", properties=("name",))),
    "node": (Thing, Node("Thing", properties=("a",))),
    "edge": (Thing, Edge("BY", "artist_id")),
    "genre": (Thing, Edge("IN", "a", to=ValueNode("Genre"))),
    "list": (Thing, EdgeList("HAS", "items", to=TRACK, properties=("s",))),
    "text": (Thing, Point("texts", text="a", payload=("b",))),
    "vector": (Thing, Point("vectors", vector="vector", dimension=2)),
    "function": (
        Thing,
        Projection(emit, columns="a", labels={"X": "id"}, edges={"E": [("X", "Y")]}, values=(ValueNode("Y"),)),
    ),
    "points": (Thing, Projection(emit, collections=(CollectionPlan("own"),))),
    "file": (Thing, File("c")),
    "linked": (Thing, LinkedFile("d")),
}
CHANGES = [
    ("node", {"label": "Other"}),
    ("node", {"id": "uuid"}),
    ("node", {"properties": ("b",)}),
    ("node", {"properties": {"x": "a"}}),
    ("node", {"properties": ()}),
    ("node", {"depends_on": "artist"}),
    ("artist", {"id": "uuid"}),
    ("edge", {"type": "OF"}),
    ("edge", {"via": "other_id"}),
    ("edge", {"to": ValueNode("Number")}),
    ("edge", {"from_": "other_id"}),
    ("edge", {"reverse": True}),
    ("edge", {"properties": ("b",)}),
    ("genre", {"via": "c"}),
    ("genre", {"to": ValueNode("Style")}),
    ("genre", {"to": ValueNode("Genre", "title")}),
    ("list", {"type": "OF"}),
    ("list", {"items": "vector"}),
    ("list", {"to": ValueNode("Song", ("t", "u"))}),
    ("list", {"to": ValueNode("Track", ("t", "v"))}),
    ("list", {"from_": "artist_id"}),
    ("list", {"properties": ("r",)}),
    ("list", {"properties": {"s": "r"}}),
    ("text", {"collection": "other"}),
    ("text", {"text": "c"}),
    ("text", {"text": None, "vector": "vector", "dimension": 2}),
    ("text", {"payload": ("a",)}),
    ("text", {"payload": {"x": "b"}}),
    ("text", {"depends_on": "artist"}),
    ("text", {"depends_on": "children"}),
    ("vector", {"vector": "items"}),
    ("vector", {"dimension": 3}),
    ("function", {"function": emit_other}),
    ("function", {"columns": "b"}),
    ("function", {"columns": None}),
    ("function", {"labels": {"X": "key"}}),
    ("function", {"values": (ValueNode("Y", "key"),)}),
    ("function", {"edges": {"E": [("Y", "X")]}}),
    ("function", {"collections": (CollectionPlan("more"),)}),
    ("function", {"depends_on": "children"}),
    ("function", {"version": "2"}),
    ("points", {"collections": (CollectionPlan("own", dimension=3),)}),
    ("points", {"collections": (CollectionPlan("own", payload=("x",)),)}),
    ("file", {"column": "a"}),
    ("file", {"managed_only": True}),
    ("linked", {"column": "a"}),
]


def compiled(declared, models=MODELS):
    extra = {}
    for model, declaration in declared:
        extra.setdefault(model, []).append(declaration)
    return compile_plan(models, extra=extra)


def facts(plan):
    return (plan.digest, dict(plan.interests()), plan.captures, plan.labels, plan.edges, plan.collections, plan.targets)


WHOLE = compiled(BASIS.values())


@CLASSES
@given(st.permutations(list(BASIS.values())), st.permutations(MODELS))
def test_plan_does_not_depend_on_the_order_of_classes_and_declarations(declared, models):
    assert facts(compiled(declared, models)) == facts(WHOLE)


@pytest.mark.parametrize(("name", "changed"), CHANGES, ids=lambda value: str(value)[:40])
def test_digest_changes_when_any_argument_changes(name, changed):
    model, declaration = BASIS[name]
    plan = compiled((BASIS | {name: (model, dataclasses.replace(declaration, **changed))}).values())
    assert plan.digest != WHOLE.digest
    if name not in {"file", "linked"}:
        assert plan.interests() != WHOLE.interests()


@pytest.mark.parametrize("kind", [Edge, EdgeList, File, LinkedFile, Node, Point, Projection])
def test_changes_cover_every_argument(kind):
    fields = {field.name for field in dataclasses.fields(kind)}
    changed = {name for key, change in CHANGES if isinstance(BASIS[key][1], kind) for name in change}
    assert changed == fields


@pytest.mark.parametrize("name", sorted(set(BASIS) - {"artist", "node"}))
def test_digest_changes_when_a_declaration_is_left_out(name):
    assert compiled(BASIS[key] for key in BASIS if key != name).digest != WHOLE.digest


def test_order_of_points_in_one_collection_counts_because_it_is_their_ordinal():
    points = [(Thing, Point("texts", text="a")), (Thing, Point("texts", text="c"))]
    assert compiled(points).digest != compiled(points[::-1]).digest


def test_digest_and_interests_are_told_apart_by_what_changed():
    change = (Thing, dataclasses.replace(BASIS["text"][1], text="c"))
    changed = compiled((BASIS | {"text": change}).values()).interests()
    assert {key for key in changed if changed[key] != WHOLE.interests()[key]} == {("vectors.texts", "things")}


# ------------------------------------------------------------------------------------------ all errors at once

WRONG = [
    (Node("Wrong1", properties=("aa1",)), "'aa1'"),
    (Edge("E", "b"), "has no foreign key"),
    (Edge("E", "bb2"), "'bb2'"),
    (EdgeList("E", "cc3", to=TRACK), "'cc3'"),
    (Point("p1", text="dd4"), "'dd4'"),
    (Point("p2"), "neither of text= and vector="),
    (Point("p3", text="a", depends_on="ee5"), "'ee5'"),
    (Projection(emit, labels={"Z": "id"}, columns=("ff6",)), "'ff6'"),
    (Projection(emit), "declares nothing"),
    (File("b"), "expected text"),
    (LinkedFile("gg7"), "'gg7'"),
    (Node("Artist"), "belongs to Artist already"),
    (Edge("E", "a", to=ValueNode("Thing")), "belongs to the rows of Thing"),
    ("no declaration", "is no declaration"),
]


@CLASSES
@given(st.lists(st.sampled_from(range(len(WRONG))), min_size=1, unique=True))
def test_every_wrong_declaration_is_told_at_once(chosen):
    declared = [BASIS["artist"], BASIS["node"], *((Thing, WRONG[index][0]) for index in chosen)]
    with pytest.raises(ConfigurationError) as caught:
        compiled(declared)
    problems = caught.value.problems
    for index in chosen:
        assert any(WRONG[index][1] in problem for problem in problems), WRONG[index]
    assert len(problems) == len(chosen)


# ------------------------------------------------------------------------------------------------- fragments

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
ITEM = st.fixed_dictionaries({"t": TEXT, "u": TEXT}, optional={"s": st.one_of(st.none(), TEXT, st.integers(0, 9))})
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(1, 2**40),
        "a": st.one_of(st.none(), TEXT),
        "b": st.one_of(st.none(), st.integers(-5, 5)),
        "items": st.one_of(st.none(), st.lists(ITEM, max_size=4)),
        "vector": st.one_of(
            st.none(), st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)
        ),
        "artist_id": st.one_of(st.none(), st.integers(1, 5)),
    }
)


def fragments(instance):
    table = WHOLE.tables["things"]
    return [table.fragment(target, table.key_of(instance), instance, {"texts": "m"}) for target in table.targets]


def loaded(instance):
    return {name: value for name, value in vars(instance).items() if not name.startswith("_sa_")}


@given(ROWS)
def test_fragment_is_a_pure_function_of_the_row(values):
    row, twin = Thing(**copy.deepcopy(values)), Thing(**copy.deepcopy(values))
    before = copy.deepcopy(loaded(row))
    first = fragments(row)
    assert first == fragments(row) == fragments(twin)
    assert [fragment.digest for fragment in first] == [fragment.digest for fragment in fragments(twin)]
    assert loaded(row) == before


@given(ROWS)
def test_fragment_holds_only_what_the_plan_declares(values):
    graph = fragments(Thing(**values))[0]
    for node in graph.nodes:
        assert tuple(name for name, _ in node.ref.identity) == WHOLE.labels[node.ref.label]
    for edge in graph.edges:
        assert (edge.source.label, edge.target.label) in WHOLE.edges[edge.type]
        for end in (edge.source, edge.target):
            assert tuple(name for name, _ in end.identity) == WHOLE.labels[end.label]


@given(ROWS, st.sampled_from(["t", "u"]), st.data())
def test_item_without_identity_is_refused_by_index_and_member(values, member, data):
    items = data.draw(st.lists(ITEM, min_size=1, max_size=4))
    index = data.draw(st.integers(0, len(items) - 1))
    del items[index][member]
    row = Thing(**values | {"items": items})
    with pytest.raises(ValidationError) as caught:
        fragments(row)
    assert caught.value.where == f"Thing.items[{index}].{member}"


@given(ROWS, st.randoms(use_true_random=False))
def test_digest_does_not_depend_on_the_order_of_items(values, chance: random.Random):
    items = list(values["items"] or ())
    chance.shuffle(items)
    one, other = fragments(Thing(**values)), fragments(Thing(**values | {"items": items}))
    assert one[0].digest == other[0].digest
