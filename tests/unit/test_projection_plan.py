"""What is captured, who depends on whom, which keys are read; hierarchies, SQLModel, the recordings catalog's shape."""

from __future__ import annotations

import datetime as dt
import enum
import json
import os
import subprocess
import sys
import uuid
from typing import ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, column_property, registry, relationship
from sqlmodel import Field, SQLModel

from fourfold.errors import ConfigurationError
from fourfold.projection import (
    CaptureSpec,
    CollectionPlan,
    Edge,
    EdgeList,
    File,
    FileColumn,
    KeyColumn,
    LinkedFile,
    Node,
    NodeRef,
    ParentKey,
    Point,
    Projection,
    ValueNode,
    compile_plan,
    models_of,
)


class FileKey(sa.TypeDecorator):
    """As `rows.types.FileKey`, which this layer may not know."""

    impl = sa.String
    cache_ok = True
    fourfold_file_key = True

    def process_bind_param(self, value, dialect):
        return value


class Base(DeclarativeBase):
    pass


class Label(Base):
    __tablename__ = "labels"
    id = sa.Column(sa.Integer, primary_key=True)
    logo = sa.Column(FileKey)


class Metadata(Base):
    __tablename__ = "metadata"
    id = sa.Column(sa.Uuid, primary_key=True)
    recording_id = sa.Column(sa.ForeignKey("recordings.id"))
    key = sa.Column(sa.Text)
    other = sa.Column(sa.Text)
    __projections__ = (Node("Metadata", properties=("key",)), Edge("HAS", "recording_id", reverse=True))


class Cue(Base):
    __tablename__ = "cues"
    id = sa.Column(sa.Integer, primary_key=True)
    recording_id = sa.Column(sa.Uuid, sa.ForeignKey("recordings.id"))


class Recording(Base):
    __tablename__ = "recordings"
    id = sa.Column(sa.Uuid, primary_key=True)
    file_path = sa.Column(sa.Text)
    cover = sa.Column(sa.Text)
    title = sa.Column(sa.Text)
    unread = sa.Column(sa.Text)
    label_id = sa.Column(sa.Integer, sa.ForeignKey("labels.id"))
    items = relationship(Metadata)
    cues = relationship(Cue)
    label = relationship(Label)
    __projections__ = (
        Node("Recording", properties=("title",)),
        Point("recordings", text="title", depends_on=("items", "cues", "label")),
        File("cover"),
        LinkedFile("file_path"),
    )


MODELS = [Cue, Label, Metadata, Recording]
PLAN = compile_plan(MODELS)
SPECS = {spec.table: spec for spec in PLAN.captures}
UUID_KEY = (KeyColumn("id", "uuid"),)
PARENT = (ParentKey("recordings", (KeyColumn("recording_id", "uuid"),)),)


def test_projected_table_watches_what_its_declarations_read():
    assert SPECS["recordings"] == CaptureSpec(
        "recordings",
        UUID_KEY,
        watched=("id", "title", "label_id"),
        files=(FileColumn("cover", managed_only=False),),
        linked=("file_path",),
    )


def test_child_writes_its_parents_keys_even_when_it_is_not_projected():
    assert SPECS["cues"] == CaptureSpec(
        "cues", (KeyColumn("id", "integer"),), projected=False, watched=None, parents=PARENT
    )
    assert SPECS["metadata"] == CaptureSpec("metadata", UUID_KEY, watched=None, parents=PARENT)
    assert PLAN.parents_of("cues") == {"recordings": ("vectors.recordings",)}
    assert PLAN.parents_of("labels") == {}


def test_referenced_table_is_captured_and_its_dependents_are_looked_up():
    assert SPECS["labels"] == CaptureSpec(
        "labels", (KeyColumn("id", "integer"),), watched=None, files=(FileColumn("logo"),)
    )
    (dependent,) = PLAN.dependents_of("labels")
    assert (dependent.table, dependent.columns, dependent.targets) == (
        "recordings",
        (KeyColumn("label_id", "integer"),),
        ("vectors.recordings",),
    )
    assert PLAN.dependents_of("recordings") == ()
    statement = dependent.statement(PLAN.tables["recordings"], ["7", "junk"])
    text = str(statement.compile(compile_kwargs={"literal_binds": True}))
    assert text.split() == [
        "SELECT",
        "recordings.id",
        "FROM",
        "recordings",
        "WHERE",
        "recordings.label_id",
        "IN",
        "(7)",
    ]


def test_targets_and_interests():
    assert PLAN.targets == ("graph", "vectors.recordings")
    assert PLAN.targets_of("recordings") == ("graph", "vectors.recordings")
    assert PLAN.targets_of("metadata") == ("graph",)
    assert PLAN.targets_of("labels") == ()
    assert set(PLAN.interests()) == {
        ("graph", "metadata"),
        ("graph", "recordings"),
        ("vectors.recordings", "recordings"),
    }
    assert dict(PLAN.labels) == {"Metadata": ("id",), "Recording": ("id",)}
    assert dict(PLAN.edges) == {"HAS": frozenset({("Recording", "Metadata")})}
    assert dict(PLAN.collections) == {"recordings": CollectionPlan("recordings")}


def test_plan_cannot_be_changed():
    with pytest.raises(TypeError):
        PLAN.tables["x"] = 1
    with pytest.raises(AttributeError):
        PLAN.digest = ""


def test_a_table_that_nothing_concerns_is_not_captured():
    class Own(DeclarativeBase):
        pass

    class Quiet(Own):
        __tablename__ = "quiet"
        id = sa.Column(sa.Float, primary_key=True)

    plan = compile_plan([Quiet])
    assert (plan.captures, plan.targets, dict(plan.tables)) == ((), (), {})


def test_opaque_reads_watch_every_column():
    def watched(*declarations, **columns):
        class Own(DeclarativeBase):
            pass

        class Row(Own):
            __tablename__ = "rows"
            id = sa.Column(sa.Integer, primary_key=True)
            title = sa.Column(sa.Text)
            size = sa.Column(sa.Integer)
            double = column_property(size * 2)
            text = property(lambda self: self.title)
            __projections__ = declarations

        return compile_plan([Row]).captures[0].watched

    def emit(_row):
        return ()

    assert watched(Node("Row")) == ("id",)
    assert watched(Node("Row", properties=("title",))) == ("id", "title")
    assert watched(Node("Row", properties=("double",))) is None
    assert watched(Point("c", text="text")) is None
    assert watched(Projection(emit, labels={"X": "id"})) is None
    assert watched(Projection(emit, labels={"X": "id"}, columns="size")) == ("id", "size")
    assert watched(LinkedFile("title")) == ()


def test_declarations_for_classes_that_cannot_be_edited():
    extra = {Label: (Node("Label"),), Recording: (Edge("ON", "label_id"),)}
    plan = compile_plan(MODELS, extra=extra)
    assert plan.edges["ON"] == frozenset({("Recording", "Label")})
    assert plan.labels["Label"] == ("id",)
    assert plan.digest != PLAN.digest
    assert compile_plan(MODELS).digest == PLAN.digest


def test_attribute_objects_are_names():
    named = Node("Label", properties=("id",), id="key"), Edge("ON", "label_id")
    objects = Node("Label", properties=(Label.id,), id="key"), Edge("ON", Recording.label_id)
    assert named == objects
    assert hash(named) == hash(objects)
    plans = [compile_plan(MODELS, extra={Label: pair[:1], Recording: pair[1:]}) for pair in (named, objects)]
    assert plans[0].digest == plans[1].digest
    assert Point("c", text=Sized.text).text == "text"


class Sized:
    @property
    def text(self): ...


def test_one_name_alone_is_no_sequence_of_letters():
    assert Node("A", properties="title").properties == (("title", "title"),)
    assert Point("c", text="a", payload="year", depends_on="tags").depends_on == ("tags",)
    assert Projection(len, columns="size", labels={"X": "id"}).labels == (("X", ("id",)),)


def test_label_for_a_column_without_constraint_and_for_a_class_without_node():
    plan = compile_plan(MODELS, extra={Recording: (Edge("ON", "label_id", to="Label"),)})
    edge = plan.tables["recordings"].fragment("graph", "k", Recording(id=uuid.uuid4(), label_id=3)).edges[0]
    assert edge.target == NodeRef.of("Label", id=3)
    assert plan.labels["Label"] == ("id",)
    extra = {Label: (Node("Label", id="n"),), Cue: (Edge("AT", "id", to="Label", from_="recording_id"),)}
    loose = compile_plan(MODELS, extra=extra)
    row = Cue(id=4, recording_id=uuid.UUID(int=1))
    assert loose.tables["cues"].fragment("graph", "4", row).edges[0].target == NodeRef.of("Label", n=4)


def test_from_chooses_one_of_the_classes_own_labels():
    plan = compile_plan(MODELS, extra={Metadata: (Node("Media"), Edge("IN", "recording_id", from_="Media"))})
    assert plan.edges["IN"] == frozenset({("Media", "Recording")})


def test_self_reference_depends_both_ways():
    class Own(DeclarativeBase):
        pass

    class Part(Own):
        __tablename__ = "parts"
        id = sa.Column(sa.Integer, primary_key=True)
        name = sa.Column(sa.Text)
        whole_id = sa.Column(sa.Integer, sa.ForeignKey("parts.id"))
        whole = relationship("Part", remote_side="Part.id", back_populates="parts")
        parts = relationship("Part", back_populates="whole")
        __projections__ = (Node("Part", properties="name", depends_on=("whole", "parts")), Edge("IN", "whole_id"))

    plan = compile_plan([Part])
    (spec,) = plan.captures
    assert spec.parents == (ParentKey("parts", (KeyColumn("whole_id", "integer"),)),)
    assert [dependent.table for dependent in plan.dependents_of("parts")] == ["parts"]
    assert plan.edges["IN"] == frozenset({("Part", "Part")})


def test_composite_foreign_key_is_spelled_in_the_order_of_the_primary_key():
    class Own(DeclarativeBase):
        pass

    class Page(Own):
        __tablename__ = "pages"
        book = sa.Column(sa.Text, primary_key=True)
        number = sa.Column(sa.Integer, primary_key=True)
        __projections__ = (Node("Page"),)

    class Note(Own):
        __tablename__ = "notes"
        id = sa.Column(sa.Integer, primary_key=True)
        n = sa.Column(sa.Integer)
        b = sa.Column(sa.Text)
        page = relationship(Page)
        __table_args__ = (sa.ForeignKeyConstraint(["n", "b"], ["pages.number", "pages.book"]),)
        __projections__ = (Node("Note", depends_on="page"), Edge("ON", ("n", "b")), Edge("AT", "n"))

    plan = compile_plan([Note, Page])
    found = plan.tables["notes"].fragment("graph", "1", Note(id=1, n=5, b="x,y")).edges
    assert {edge.target for edge in found} == {NodeRef.of("Page", id="x\\,y,5")}
    assert plan.tables["notes"].fragment("graph", "1", Note(id=1, n=5)).edges == ()
    (dependent,) = plan.dependents_of("pages")
    assert dependent.columns == (KeyColumn("b", "text"), KeyColumn("n", "integer"))


class Kind(enum.Enum):
    A = "a,1"
    B = "b"


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (sa.Enum(Kind), Kind.A, "A"),
        (sa.Enum(Kind, values_callable=lambda kinds: [kind.value for kind in kinds]), Kind.A, "a,1"),
        (sa.Uuid(as_uuid=False), str(uuid.UUID(int=5)), str(uuid.UUID(int=5))),
        (sa.DateTime(), dt.datetime.fromisoformat("2024-05-01T12:00:00.000005"), "2024-05-01 12:00:00.000005"),
        (sa.Date(), dt.date(2024, 5, 1), "2024-05-01"),
        (sa.LargeBinary(), b"\x00\xff", "00ff"),
        (sa.Boolean(), True, "1"),
        (FileKey(36), str(uuid.UUID(int=5)), str(uuid.UUID(int=5))),
    ],
)
def test_rows_are_found_again_by_their_keys(column, value, text):
    class Own(DeclarativeBase):
        pass

    class Row(Own):
        __tablename__ = "rows"
        a = sa.Column(column, primary_key=True)
        b = sa.Column(column, primary_key=True)
        __projections__ = (Node("Row"),)

    table = compile_plan([Row]).tables["rows"]
    escaped = text.replace(",", "\\,")
    key = f"{escaped},{escaped}"
    assert table.key_of(Row(a=value, b=value)) == key
    engine = sa.create_engine("sqlite://")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Row(a=value, b=value))
        session.commit()
        assert [table.key_of(row) for row in session.scalars(table.statement([key]))] == [key]
    engine.dispose()


# ------------------------------------------------------------------------------------------------ hierarchies


class Zoo(DeclarativeBase):
    pass


class Food(Zoo):
    __tablename__ = "food"
    id = sa.Column(sa.Integer, primary_key=True)
    dog_id = sa.Column(sa.Integer, sa.ForeignKey("dogs.id"))
    name = sa.Column(sa.Text)


class Animal(Zoo):
    __tablename__ = "animals"
    id = sa.Column(sa.Integer, primary_key=True)
    kind = sa.Column(sa.Text)
    name = sa.Column(sa.Text)
    __mapper_args__: ClassVar = {"polymorphic_on": kind, "polymorphic_identity": "animal"}
    __projections__ = (Node("Animal", properties=("name",)),)


class Dog(Animal):
    __tablename__ = "dogs"
    id = sa.Column(sa.Integer, sa.ForeignKey("animals.id"), primary_key=True)
    breed = sa.Column(sa.Text)
    food = relationship(Food, order_by=Food.id)
    __mapper_args__: ClassVar = {"polymorphic_identity": "dog"}
    __projections__ = (
        Node("Animal", properties=("name", "breed")),
        Point("dogs", text="meals", depends_on=("food",)),
    )

    @property
    def meals(self):
        return " ".join(food.name for food in self.food)


class Cat(Animal):
    lives = sa.Column(sa.Integer)
    __mapper_args__: ClassVar = {"polymorphic_identity": "cat"}
    __projections__ = (Node("Cat", properties=("lives",)),)


class Ghost(Animal):
    __mapper_args__: ClassVar = {"polymorphic_identity": "ghost"}
    __projections__ = ()


ANIMALS = [Animal, Cat, Dog, Food, Ghost]


def test_hierarchy_has_one_owner_and_a_subclass_table_writes_its_key():
    plan = compile_plan(ANIMALS)
    specs = {spec.table: spec for spec in plan.captures}
    assert list(plan.tables) == ["animals"]
    assert specs["dogs"].parents == (ParentKey("animals", (KeyColumn("id", "integer"),)),)
    assert specs["dogs"].projected is False
    assert specs["food"].parents == (ParentKey("animals", (KeyColumn("dog_id", "integer"),)),)
    assert plan.labels == {"Animal": ("id",), "Cat": ("id",)}


def test_rows_of_a_hierarchy_become_what_their_class_says():
    table = compile_plan(ANIMALS).tables["animals"]
    engine = sa.create_engine("sqlite://")
    Zoo.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([
            Animal(id=1, name="a"),
            Dog(id=2, name="d", breed="b", food=[Food(name="x"), Food(name="y")]),
            Cat(id=3, name="c", lives=9),
            Ghost(id=4),
        ])  # fmt: skip
        session.commit()
        session.expunge_all()
        found = {}
        for target in table.targets:
            statement = table.statement(["1", "2", "3", "4"]).options(*table.load_options(target))
            rows = {table.key_of(row): row for row in session.scalars(statement).unique()}
            session.expunge_all()
            found[target] = {key: table.fragment(target, key, row) for key, row in rows.items()}
    engine.dispose()
    nodes = {
        key: [(n.ref.label, dict(n.properties)) for n in fragment.nodes] for key, fragment in found["graph"].items()
    }
    assert nodes == {
        "1": [("Animal", {"name": "a"})],
        "2": [("Animal", {"name": "d", "breed": "b"})],
        "3": [("Cat", {"lives": 9})],
        "4": [],
    }
    assert [point.text for point in found["vectors.dogs"]["2"].points] == ["x y"]
    assert found["vectors.dogs"]["1"].is_empty


def test_dependency_on_joined_inheritance_is_refused():
    class Own(DeclarativeBase):
        pass

    class Keeper(Own):
        __tablename__ = "keepers"
        id = sa.Column(sa.Integer, primary_key=True)
        beasts = relationship("Beast")
        __projections__ = (Node("Keeper", depends_on="beasts"),)

    class Beast(Own):
        __tablename__ = "beasts"
        id = sa.Column(sa.Integer, primary_key=True)
        keeper_id = sa.Column(sa.Integer, sa.ForeignKey("keepers.id"))
        keeper = relationship(Keeper, viewonly=True)
        kind = sa.Column(sa.Text)
        __mapper_args__: ClassVar = {"polymorphic_on": kind, "polymorphic_identity": "beast"}
        __projections__ = ()

    class Bird(Beast):
        __tablename__ = "birds"
        id = sa.Column(sa.Integer, sa.ForeignKey("beasts.id"), primary_key=True)
        __mapper_args__: ClassVar = {"polymorphic_identity": "bird"}
        __projections__ = ()

    with pytest.raises(ConfigurationError, match="leads to joined inheritance"):
        compile_plan([Beast, Bird, Keeper])


# ------------------------------------------------------------------------------------------ SQLModel, models_of


class Venue(SQLModel, table=True):
    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    name: str
    photo: str | None = Field(default=None, sa_type=FileKey)
    __projections__: ClassVar = (Node("Venue", properties=("name",)), Point("venues", text="name"))


class Concert(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    venue_id: uuid.UUID = Field(foreign_key="venue.id")
    bands: list[str] = Field(sa_type=sa.JSON)
    __projections__: ClassVar = (
        Node("Concert"),
        Edge("AT", "venue_id"),
        EdgeList("WITH", "bands", to=ValueNode("Band")),
    )


def test_sqlmodel_classes_are_projected():
    plan = compile_plan([Concert, Venue])
    venue = Venue(name="Saltmarsh")
    row = Concert(id=1, venue_id=venue.id, bands=["Ada"])
    found = plan.tables["concert"].fragment("graph", "1", row)
    assert [(edge.type, edge.target) for edge in found.edges] == [
        ("AT", NodeRef.of("Venue", id=str(venue.id))),
        ("WITH", NodeRef.of("Band", name="Ada")),
    ]
    assert {spec.table: spec.files for spec in plan.captures}["venue"] == (FileColumn("photo"),)


@pytest.mark.parametrize("source", [SQLModel, SQLModel.metadata])
def test_models_of_sqlmodel(source):
    assert {Concert, Venue} <= set(models_of(source))


@pytest.mark.parametrize("source", [Base, Base.metadata, Base.registry])
def test_models_of_a_declarative_base(source):
    assert models_of(source) == MODELS


def test_models_of_classes_are_these_classes():
    assert models_of([MODELS[0]]) == models_of(model for model in MODELS[:1]) == MODELS[:1]
    for wrong in ("Base", ["Base"], None):
        with pytest.raises(ConfigurationError) as caught:
            models_of(wrong)
        assert caught.value.code == "projection.models"


def test_models_of_an_imperative_registry():
    mapped = registry()

    class Thing:
        pass

    mapped.map_imperatively(Thing, sa.Table("things", mapped.metadata, sa.Column("id", sa.Integer, primary_key=True)))
    assert models_of(mapped) == models_of(mapped.metadata) == [Thing]


@pytest.mark.parametrize("source", ["Base", int, None])
def test_models_of_something_else_is_refused(source):
    with pytest.raises(ConfigurationError, match="expected a MetaData, a registry or a declarative base"):
        models_of(source)


def test_first_use_of_a_wrong_class_raises():
    class Own(DeclarativeBase):
        pass

    class Row(Own):
        __tablename__ = "rows"
        id = sa.Column(sa.Integer, primary_key=True)
        __projections__ = (Node("Row", properties=("nmae",)),)

    with pytest.raises(ConfigurationError, match="no attribute 'nmae'"):
        Row(id=1)
    Row(id=1)  # told once; the plan tells it again
    with pytest.raises(ConfigurationError, match="no attribute 'nmae'"):
        compile_plan(models_of(Own))


# ------------------------------------------------------------------------------------------------ processes

_PROGRAM = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("other_name", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["other_name"] = module
spec.loader.exec_module(module)
plans = [module.PLAN, module.compile_plan(module.ANIMALS), module.compile_plan([module.Concert, module.Venue])]
print(json.dumps([[plan.digest, sorted([*key, value] for key, value in plan.interests().items())] for plan in plans]))
"""


def test_digest_is_the_same_in_other_processes():
    plans = [PLAN, compile_plan(ANIMALS), compile_plan([Concert, Venue])]
    here = [[plan.digest, sorted([*key, value] for key, value in plan.interests().items())] for plan in plans]
    for seed in ("1", "2"):
        command = [sys.executable, "-c", _PROGRAM, __file__]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        output = subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout
        assert json.loads(output) == here
