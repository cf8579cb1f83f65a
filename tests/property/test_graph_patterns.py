"""Random patterns over random graphs: the compiled SQL answers as a naive search in Python does."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fourfold.graph import GraphNode, GraphSchema, NodeSchema, SqliteGraphStore
from fourfold.graph import expressions as x
from fourfold.graph import patterns as p
from fourfold.graph.schema import EdgeSchema
from fourfold.graph.values import GraphEdge, GraphPath, order_key
from fourfold.projection.items import EdgeItem, GraphFragment, NodeItem, NodeRef, Owner

LABELS, TYPES, NAMES = ("A", "B"), ("R", "S"), ("v", 'w"')
SCHEMA = GraphSchema(
    tuple(NodeSchema(label, ("id",), ("v",)) for label in LABELS),
    tuple(EdgeSchema(name, tuple((a, b) for a in LABELS for b in LABELS)) for name in TYPES),
)

# ---------------------------------------------------------------------- graphs and patterns

values = st.sampled_from([0, 1, 1.0, 1.5, -0.1, "1", "x", "xy", "", True, False, 0.1 + 0.2])
bags = st.dictionaries(st.sampled_from(NAMES), values, max_size=2)


@st.composite
def graphs(draw):
    refs = [NodeRef.of(draw(st.sampled_from(LABELS)), id=str(number)) for number in range(draw(st.integers(1, 5)))]
    nodes = [NodeItem(ref, draw(bags)) for ref in refs]
    some = st.sampled_from(refs)
    edges = draw(st.lists(st.builds(EdgeItem, st.sampled_from(TYPES), some, some, bags), max_size=6))
    return nodes, edges


def inline(draw):
    return {"v": draw(values)} if draw(st.integers(0, 5)) == 0 else {}


@st.composite
def paths(draw, number):
    def some_node(position):
        named = draw(st.sampled_from([None, "a", "b", f"n{number}{position}"]))
        labels = draw(st.lists(st.sampled_from(LABELS), max_size=2, unique=True))
        more = {"id": draw(st.sampled_from("01"))} if draw(st.integers(0, 4)) == 0 else inline(draw)
        return p.node(*labels, as_=named, **more)

    def some_edge(position):
        way = draw(st.sampled_from([p.out, p.into, p.both]))
        types = draw(st.lists(st.sampled_from(TYPES), max_size=2, unique=True))
        # Two unjoined paths without end have millions of answers between them.
        ends = [1, 1, 1, 2, (0, 1), (1, 3), (0, None), (2, None)] if number == 0 else [1, 1, (0, 1)]
        hops = draw(st.sampled_from(ends))
        return way(*types, as_=draw(st.sampled_from([None, f"e{number}{position}"])), hops=hops, **inline(draw))

    if draw(st.integers(0, 4)) == 0:
        edge = draw(st.sampled_from([p.out, p.into, p.both]))(
            *draw(st.lists(st.sampled_from(TYPES), max_size=1)),
            as_=f"e{number}0",
            hops=draw(st.sampled_from([(1, None), (1, 2)])),
            shortest=True,
            **inline(draw),
        )
        return [some_node(0), edge, some_node(1)]
    parts = [some_node(0)]
    for position in range(draw(st.integers(0, 2))):
        parts += [some_edge(position), some_node(position + 1)]
    return parts


@st.composite
def conditions(draw, terms, depth=2):
    if depth and draw(st.booleans()):
        left, right = draw(conditions(terms, depth - 1)), draw(conditions(terms, depth - 1))
        return draw(st.sampled_from([lambda: left & right, lambda: left | right, lambda: ~left]))()
    term, other = draw(st.sampled_from(terms)), draw(st.one_of(values, st.sampled_from(terms)))
    return draw(
        st.sampled_from(
            [
                lambda: term == other,
                lambda: term != other,
                lambda: term < other,
                lambda: term >= other,
                lambda: term.in_([1, "x", True][: draw(st.integers(0, 3))]),
                lambda: term.contains("x"),
                lambda: term.starts_with("x"),
                term.is_null,
            ]
        )
    )()


@st.composite
def queries(draw):
    query = p.match(*draw(paths(0)), as_=draw(st.sampled_from([None, "p"])))
    if draw(st.integers(0, 2)) == 0:
        query = query.match(*draw(paths(1)))
    terms = [p.prop(name, key) for name, kind in query.kinds.items() if kind in {"node", "edge"} for key in NAMES]
    terms += [p.length(name) for name, kind in query.kinds.items() if kind in {"hops", "path"}]
    if not query.kinds:
        return query.select(p.count())
    if terms and draw(st.booleans()):
        query = query.where(draw(conditions(terms)))
    choices = [*terms, *query.kinds]
    if draw(st.integers(0, 2)) == 0 and terms:
        made = [p.minimum, p.maximum, p.total, p.average, p.collect, p.count]
        function, term = draw(st.sampled_from(made)), draw(st.sampled_from(terms))
        whole = draw(st.sampled_from(list(query.kinds)))
        different = draw(st.booleans())
        aggregates = [
            function(term),
            p.count(),
            p.count(whole, distinct=different),
            p.collect(whole, distinct=different),
        ]
        grouped_by = draw(st.lists(st.sampled_from(choices), max_size=1))
        return query.select(*grouped_by, **{f"g{number}": value for number, value in enumerate(aggregates)})
    query = query.select(**{f"c{number}": choice for number, choice in enumerate(choices)})
    return query.distinct() if draw(st.booleans()) else query


# ---------------------------------------------------------------------- the naive search

NULL = None


class Graph:
    def __init__(self, nodes, edges):
        self.nodes = [GraphNode(item.ref.label, {**dict(item.ref.identity), **item.properties}) for item in nodes]
        index = {item.ref: number for number, item in enumerate(nodes)}
        self.edges = [(index[edge.source], index[edge.target], GraphEdge(edge.type, edge.properties)) for edge in edges]

    def has(self, item, kinds, names, wanted):
        return (not names or kinds in names) and all(compare(item.properties.get(n), "==", v) for n, v in wanted)

    def steps(self, here, pattern):
        for number, (source, target, edge) in enumerate(self.edges):
            if not self.has(edge, edge.type, pattern.types, pattern.properties):
                continue
            if pattern.direction != "into" and source == here:
                yield number, target
            if pattern.direction != "out" and target == here and (source != target or pattern.direction == "into"):
                yield number, source

    def runs(self, here, pattern, used):
        """Every (edges, nodes) run from a node."""
        low, high = pattern.hops
        if pattern.shortest:
            yield from self.shortest(here, pattern)
            return
        stack = [((), (here,))]
        while stack:
            edges, nodes = stack.pop()
            if len(edges) >= low:
                yield edges, nodes
            if high is None or len(edges) < high:
                for edge, there in self.steps(nodes[-1], pattern):
                    if edge not in edges and edge not in used:
                        stack.append(((*edges, edge), (*nodes, there)))

    def shortest(self, here, pattern):
        seen, queue = {here}, deque([((), (here,))])
        while queue:
            edges, nodes = queue.popleft()
            if edges:
                yield edges, nodes
            if pattern.hops[1] is None or len(edges) < pattern.hops[1]:
                for edge, there in self.steps(nodes[-1], pattern):
                    if there not in seen:
                        seen.add(there)
                        queue.append(((*edges, edge), (*nodes, there)))

    def match(self, query):
        found = [{}]
        for path in query.paths:
            found = [more for names in found for more in self.path(path, names)]
        return found

    def path(self, path, names):
        def bind(names, name, value):
            if name is None:
                return names
            return (
                names
                if names.get(name, value) == value and name in names
                else (None if name in names else {**names, name: value})
            )

        def fits(number, pattern):
            item = self.nodes[number]
            return self.has(item, item.label, pattern.labels, pattern.properties)

        def go(position, here, names, used, nodes):
            if position == len(path.edges):
                yield names if path.name is None else {**names, path.name: ("path", used, nodes)}
                return
            pattern, right = path.edges[position], path.nodes[position + 1]
            for edges, passed in self.runs(here, pattern, used):
                there = passed[-1]
                if not fits(there, right):
                    continue
                after = bind(names, right.name, ("node", there))
                if after is None:
                    continue
                if pattern.name:
                    after = {**after, pattern.name: ("hops", edges) if pattern.is_variable else ("edge", edges[0])}
                yield from go(position + 1, there, after, (*used, *edges), (*nodes, *passed[1:]))

        for start in range(len(self.nodes)):
            after = bind(names, path.nodes[0].name, ("node", start)) if fits(start, path.nodes[0]) else None
            if after is not None:
                yield from go(0, start, after, (), (start,))

    def value(self, names, term):
        kind, *found = names[term.name]
        if isinstance(term, x.Property):
            item = self.nodes[found[0]] if kind == "node" else self.edges[found[0]][2]
            return item.properties.get(term.key)
        if isinstance(term, x.Length):
            return len(found[0])
        if kind == "node":
            return self.nodes[found[0]]
        if kind == "edge":
            return self.edges[found[0]][2]
        edges = tuple(self.edges[number][2] for number in found[0])
        return edges if kind == "hops" else GraphPath(tuple(self.nodes[number] for number in found[1]), edges)

    def key(self, names, term):
        """What makes it the same: the value of a property, the identity of an item."""
        if isinstance(term, x.Whole):
            return names[term.name]
        return order_key(self.value(names, term))


def compare(left, operator, right):
    if left is NULL or right is NULL:
        return NULL
    kinds = [order_key(side)[0] for side in (left, right)]
    same = kinds[0] == kinds[1]
    if operator in {"==", "!="}:
        return (same and left == right) == (operator == "==")
    if not same:
        return NULL
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]


def truth(condition, graph, names):  # noqa: PLR0911 - a line per kind of condition
    def value(term):
        return graph.value(names, term) if isinstance(term, x.Expression) else term

    if isinstance(condition, (x.And, x.Or)):
        parts = [truth(part, graph, names) for part in condition.parts]
        decisive = isinstance(condition, x.Or)
        return decisive if decisive in parts else (NULL if NULL in parts else not decisive)
    if isinstance(condition, x.Not):
        part = truth(condition.part, graph, names)
        return NULL if part is NULL else not part
    left = value(condition.left)
    if isinstance(condition, x.IsNull):
        return left is NULL
    if isinstance(condition, x.Membership):
        if not condition.values:
            return False
        return NULL if left is NULL else any(compare(left, "==", item) for item in condition.values)
    if isinstance(condition, x.TextMatch):
        if not isinstance(left, str):
            return NULL
        return condition.text in left if condition.how == "contains" else left.startswith(condition.text)
    return compare(left, condition.operator, value(condition.right))


def answer(graph, query):
    found = [n for n in graph.match(query) if query.condition is None or truth(query.condition, graph, n) is True]
    plain = [column.value for column in query.selected if not isinstance(column.value, x.Aggregate)]
    groups = {}
    for number, names in enumerate(found):
        grouped = query.is_aggregated or query.is_distinct
        key = tuple(graph.key(names, term) for term in plain) if grouped else number
        groups.setdefault(key, []).append(names)
    if query.is_aggregated and not plain:
        groups = groups or {(): []}
    return Counter(
        tuple(
            plainly(aggregated(graph, members, column.value))
            if isinstance(column.value, x.Aggregate)
            else plainly(graph.value(members[0], column.value))
            for column in query.selected
        )
        for members in groups.values()
    )


def aggregated(graph, members, aggregate):
    if aggregate.of is None:
        return len(members)
    pairs = {}
    for number, names in enumerate(members):
        value = graph.value(names, aggregate.of)
        if value is not NULL:
            pairs[graph.key(names, aggregate.of) if aggregate.distinct else number] = value
    values = sorted(pairs.values(), key=order_key)
    numbers = [value for value in values if order_key(value)[0] == order_key(0)[0]]
    return {
        "count": lambda: len(values),
        "collect": lambda: tuple(values),
        "minimum": lambda: values[0] if values else NULL,
        "maximum": lambda: values[-1] if values else NULL,
        "total": lambda: math.fsum(numbers),
        "average": lambda: math.fsum(numbers) / len(numbers) if numbers else NULL,
    }[aggregate.function]()


def plainly(value):
    """A value that Python compares as the language does (True is not 1), and that can be counted."""
    if isinstance(value, (GraphNode, GraphEdge)):
        return (
            "item",
            getattr(value, "label", None),
            tuple((n, order_key(v)) for n, v in sorted(value.properties.items())),
        )
    if isinstance(value, GraphPath):
        return "path", tuple(map(plainly, value.nodes)), tuple(map(plainly, value.edges))
    return tuple(map(plainly, value)) if isinstance(value, tuple) else order_key(value)


def depends_on_choice(query):
    """Which one of equally short ways is found is open; so is what is said of it."""
    open_names = {
        name for path in query.paths for edge in path.edges if edge.shortest for name in (edge.name, path.name)
    }
    return any(_of(column.value) in open_names - {None} for column in query.selected)


def _of(value):
    if isinstance(value, x.Aggregate):
        return None if value.of is None else value.of.name
    return value.name if isinstance(value, x.Whole) else None


async def check(store, nodes, edges, query):
    await store.write(1, [GraphFragment(Owner("all", "1"), tuple(nodes), tuple(edges))])
    rows = await store.match(query)
    expected = answer(Graph(nodes, edges), query)
    found = Counter(tuple(map(plainly, row.values())) for row in rows)
    if not depends_on_choice(query):
        assert found == expected
    elif not (query.is_aggregated or query.is_distinct):
        assert sum(found.values()) == sum(expected.values())


LOOP = NodeRef.of("A", id="0")
# Found by the search below, kept: the loop is the first run's or the second's, and the path is the same.
FOUND = [
    (
        ([NodeItem(LOOP)], [EdgeItem("R", LOOP, LOOP)]),
        p.match(p.node(), p.out(hops=(0, None)), p.node(id=end), p.out(hops=(0, None)), p.node(), as_="p").select(
            p.count("p", distinct=True), p.collect("p", distinct=True), p.count()
        ),
    )
    for end in ("0", "1")
]


def test_patterns_answer_as_a_naive_search(tmp_path):
    with asyncio.Runner() as runner:  # one store for all examples: making the file takes longer than a query
        store = SqliteGraphStore(tmp_path / "graph.db", synchronous="NORMAL")

        async def begin():
            await store.ensure_schema(SCHEMA)
            await store.create_token(1)

        @settings(max_examples=500, deadline=None)
        @given(graphs(), queries())
        def search(graph, query):
            runner.run(check(store, *graph, query))

        runner.run(begin())
        try:
            for found in FOUND:
                search = example(*found)(search)
            search()
        finally:
            runner.run(store.close())
