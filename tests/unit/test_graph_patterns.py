from __future__ import annotations

import pickle

import pytest

from fourfold.errors import ConfigurationError, ValidationError
from fourfold.graph import EdgeSchema, GraphEdge, GraphNode, GraphPath, GraphSchema, NodeSchema
from fourfold.graph.patterns import (
    both,
    check_query,
    collect,
    count,
    into,
    length,
    match,
    minimum,
    node,
    out,
    prop,
)
from fourfold.graph.sqlite_compile import compile_query
from fourfold.graph.sqlite_expressions import is_plain, quote
from fourfold.graph.values import order_key

PEOPLE = match(node("Person", as_="a"), out("KNOWS", as_="k"), node("Person", as_="b"), as_="way")
A = prop("a", "name")


@pytest.mark.parametrize(
    "value", [None, {"$gt": 1}, ["x"], ("x",), {1}, b"x", object(), float("nan"), 2**63, "\x00", "\ud800"]
)
def test_s06_only_plain_values_are_compared(value):
    for compare in (
        lambda: value == A,
        lambda: value > A,
        lambda: A.in_([value]),
        lambda: A.contains(value),
        lambda: node(name=value),
        lambda: out(since=value),
    ):
        with pytest.raises(ValidationError) as caught:
            compare()
        assert caught.value.code in {"graph.value", "projection.value"}


@pytest.mark.parametrize("values", ["abc", {"a": 1}, 7, None])
def test_in_takes_a_list_of_values(values):
    with pytest.raises(ValidationError, match="list of plain values"):
        A.in_(values)


@pytest.mark.parametrize("name", ["", None, 7, "\x00", "\ud800", "x" * 1_001, {"a": 1}, ["Person"]])
def test_names_are_text(name):
    for make in (lambda: node(name), lambda: prop("a", name), lambda: prop(name, "a"), lambda: out(name)):
        with pytest.raises(ValidationError) as caught:
            make()
        assert caught.value.code == "graph.name"


@pytest.mark.parametrize(
    "make",
    [
        match,
        lambda: match(node(), out()),
        lambda: match(node(), node()),
        lambda: match(out(), node(), out()),
        lambda: match(*[node(), out()] * 21, node()),
        lambda: match(node(), out(shortest=True), node(), out(), node()),
        lambda: match(node(as_="a"), out(as_="a"), node()),
        lambda: match(node(), out(as_="e"), node(), out(as_="e"), node()),
        lambda: match(node(as_="a"), as_="a"),
        lambda: out(hops=(2, 1)),
        lambda: out(hops=0),
        lambda: out(hops=-1),
        lambda: out(hops=True),
        lambda: out(hops=None),
        lambda: out(hops=(1, 2, 3)),
        lambda: out(hops=(0, 3), shortest=True),
        lambda: PEOPLE.limit(-1),
        lambda: PEOPLE.skip("1"),
        PEOPLE.select,
        lambda: PEOPLE.select("a", "a"),
        lambda: PEOPLE.select(7),
        lambda: PEOPLE.select("c"),
        lambda: PEOPLE.select(prop("way", "name")),
        lambda: PEOPLE.select(length("a")),
        lambda: PEOPLE.select(minimum("a")),
        lambda: PEOPLE.select(count(prop("c", "name"))),
        lambda: PEOPLE.where(prop("c", "name") == 1),
        lambda: PEOPLE.where(~(prop("way", "name") == prop("a", "name"))),
        lambda: PEOPLE.where("name == 1"),
        lambda: PEOPLE.where((A == 1) & True),
        lambda: PEOPLE.order_by("c"),
        lambda: PEOPLE.order_by("a"),
        lambda: PEOPLE.order_by(7),
        lambda: PEOPLE.select(n=collect("a")).order_by("n"),
        lambda: count(distinct=True),
        lambda: check_query(PEOPLE.select(count()).order_by(A), None),
        lambda: check_query(PEOPLE.select(n=A).order_by("n").select(m=A), None),
        lambda: check_query(PEOPLE.select(n=A).order_by("n").select(n="a"), None),
        lambda: check_query(PEOPLE.select(n=A).order_by("n").select(n=collect("a")), None),
        lambda: check_query(match(node()), None),
        lambda: bool(A == 1),
        lambda: (A == 1) and (A == 2),
        lambda: 1 < A < 2,
    ],
)
def test_malformed_queries_are_refused_when_they_are_built(make):
    with pytest.raises(ValidationError):
        make()


def test_unknown_names_get_a_suggestion():
    schema = GraphSchema((NodeSchema("Person", ("id",)),), (EdgeSchema("KNOWS", (("Person", "Person"),)),))
    check_query(PEOPLE, schema)
    with pytest.raises(ValidationError, match="did you mean 'Person'"):
        check_query(match(node("Persn", as_="a")), schema)
    with pytest.raises(ValidationError, match="did you mean 'KNOWS'"):
        check_query(match(node(as_="a"), both("KNOW"), node()), schema)
    with pytest.raises(ValidationError, match="did you mean 'a1'"):
        match(node(as_="a1")).select("a11")


@pytest.mark.parametrize(
    "make",
    [
        lambda: GraphSchema((NodeSchema("A", ()),)),
        lambda: GraphSchema((NodeSchema("A", ("id",)), NodeSchema("A", ("id",)))),
        lambda: GraphSchema((NodeSchema("A", ("id", "id")),)),
        lambda: GraphSchema((NodeSchema("A", ("id",)),), (EdgeSchema("R", (("A", "B"),)),)),
    ],
)
def test_a_wrong_schema_is_a_configuration_error(make):
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.code == "graph.schema"


def test_queries_are_values():
    first = PEOPLE.where(A == "x")
    assert first.where(prop("b", "name") == "y").condition is not first.condition
    assert PEOPLE.condition is None
    assert PEOPLE.column_names == ("way", "a", "k", "b")
    assert PEOPLE.select(A, n=count()).column_names == ("a.name", "n")
    assert first.limit(1).rows_limit == 1
    assert first.rows_limit is None


def test_answers_are_immutable_hashable_and_pickle():
    one = GraphNode("A", {"tags": ("x",)})
    path = GraphPath((one, one), (GraphEdge("R", {"n": 1}),))
    for value in (one, path):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 - our own
        assert len({value, value}) == 1
    with pytest.raises(TypeError):
        one.properties["tags"] = ()
    assert path
    assert len(path) == 1
    assert path.edges[0]["n"] == 1
    assert order_key(one) < order_key(path.edges[0]) < order_key(path) < order_key(None)


def test_s05_names_and_values_never_leave_their_literals():
    odd = "x' OR 1=1; DROP TABLE node; -- \" ` \\"
    query = (
        match(node(odd, as_=odd), out(odd, as_="e"), node(as_="n"))
        .where((prop(odd, odd) == odd) & prop("n", odd).contains(odd))
        .select(**{odd: prop("n", odd)})
        .order_by(odd)
    )
    compiled = compile_query(query, None)
    outside = compiled.sql.replace(quote(odd), "")
    assert "DROP" not in outside
    assert odd in compiled.parameters.values()
    assert quote("'") == "''''"
    assert [is_plain(name) for name in ("a.b", "a'b", 'a"b', "a\\b", "a\nb")] == [True, True, False, False, False]


def test_the_same_shape_is_the_same_statement():
    def sql(value, values):
        query = match(node("Person", as_="a", id=value), into("KNOWS", hops=(1, 3)), node(as_="b"))
        return compile_query(query.where(prop("b", "id").in_(values)).limit(len(values)), None).sql

    assert sql("1", ["x"]) == sql("'", ["y", "z", "'"])


def test_many_conditions_make_no_deep_expression():
    condition = A == "0"
    for number in range(1, 3_000):
        condition |= str(number) == A
    assert len(compile_query(PEOPLE.where(condition), None).parameters) == 3_000
