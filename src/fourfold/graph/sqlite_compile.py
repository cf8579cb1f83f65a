"""A pattern as one parameterised SQL statement over the tables of `sqlite_schema.sql`. Pure.

Edges written out become joins. A run of variable hops becomes a recursive table that carries the edges gone, so that
none is used twice and cycles end; what was joined before it becomes a stage (a common table) that seeds it, with every
condition that can be asked there already asked. A shortest run is a breadth-first search: a row per level with its
frontier and all nodes seen, so each node is visited once per start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from fourfold.graph.expressions import Aggregate, And, Comparison, Condition, Length, Property, Whole
from fourfold.graph.sqlite_answer import Compiled, PathColumns, RunColumns, compile_answer
from fourfold.graph.sqlite_expressions import Parameters, Term, condition_sql, is_plain, property_term, quote
from fourfold.graph.sqlite_joins import among, from_where, joining, leaving, possibly_same, reached, unused
from fourfold.projection.items import NodeRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fourfold.graph.expressions import Expression
    from fourfold.graph.paths import Direction, EdgePattern, NodePattern, PathPattern
    from fourfold.graph.patterns import Query
    from fourfold.graph.schema import GraphSchema
    from fourfold.projection.items import Scalar

__all__ = ["compile_query", "index_statements"]

_OPPOSITE: dict[Direction, Direction] = {"out": "into", "into": "out", "both": "both"}
_BOUND, _IDENTIFIED, _EQUAL, _OPEN = 3, 2, 1, 0  # how few nodes an end of a path may be; a search starts at the higher


def index_statements(schema: GraphSchema) -> dict[str, str]:
    """Return the statements that make the schema's indexes, by index name."""
    statements = {}
    for node in schema.nodes:
        for name in node.indexed:
            if is_plain(name):  # SQLite can't index what its paths can't spell; the query still works
                value = property_term("properties", name, Parameters()).value
                # With the label as a column the planner prefers it to the one of labels and keys, also for in_().
                rule = f"ON node (label, {value}) WHERE label = {quote(node.label)}"
                index = "property_" + blake2b(rule.encode(), digest_size=8).hexdigest()  # another rule, another index
                statements[index] = f"CREATE INDEX IF NOT EXISTS {index} {rule}"
    return statements


def compile_query(query: Query, schema: GraphSchema | None) -> Compiled:
    """Translate a query that `check_query` passed; the schema lets identities be looked up."""
    compiler = _Compiler(query, schema)
    for path in query.paths:
        compiler.add_path(path)
    return compile_answer(query, compiler)


@dataclass(slots=True)
class _Stage:
    """Tables that are joined in one SELECT; `prior` is the common table with what was found before."""

    prior: str | None = None
    tables: list[str] = field(default_factory=list)
    wheres: list[str] = field(default_factory=list)
    local: set[str] = field(default_factory=set)


class _Hop(NamedTuple):
    """An edge pattern to join: from a column found before to a node pattern; `used` are the path's edges so far."""

    edge: EdgePattern
    left: str
    right: NodePattern
    used: list[tuple[str, tuple[str, ...]]]
    trail: bool  # the edges gone are asked for
    backward: bool


class _Compiler:
    """Builds the statement path by path. Columns: n0, e1 (ids), v2 (edges gone), o2 (nodes passed), d2 (hops)."""

    def __init__(self, query: Query, schema: GraphSchema | None) -> None:
        self.parameters = Parameters()
        self.tables: list[str] = []  # common tables
        self.stage = _Stage()
        self.nodes: dict[str, str] = {}  # name → column
        self.edges: dict[str, str] = {}
        self.runs: dict[str, RunColumns] = {}
        self.paths: dict[str, PathColumns] = {}
        self._schema = schema
        self._columns: list[str] = []
        self._count = 0
        self._pending = _conjuncts(query.condition)
        self._equal = _equalities(self._pending)
        values = [column.value.of if isinstance(column.value, Aggregate) else column.value for column in query.selected]
        self._whole = {value.of for value in values if isinstance(value, Whole)}

    # ------------------------------------------------------------------ what the answer asks for

    def row(self, column: str) -> str:
        """Return an alias of the node's or edge's row, joined here if it was found in an earlier stage."""
        stage = self.stage
        if column not in stage.local:
            table = "node" if column.startswith("n") else "edge"
            stage.tables.append(f"{table} AS {column}")
            stage.wheres.append(f"{column}.id = {stage.prior}.{column}")
            stage.local.add(column)
        return column

    def at(self, column: str) -> str:
        """Return the SQL of a column of what was found."""
        return f"{column}.id" if column in self.stage.local else f"{self.stage.prior}.{column}"

    def term(self, expression: Expression) -> Term:
        """Return the SQL of a property or length."""
        if isinstance(expression, Property):
            column = self.nodes.get(expression.of) or self.edges[expression.of]
            return property_term(f"{self.row(column)}.properties", expression.key, self.parameters)
        assert isinstance(expression, Length)  # noqa: S101 - the only other kind; tells mypy
        if expression.of in self.runs:
            hops = self.at(self.runs[expression.of].hops)
        else:
            path = self.paths[expression.of]
            runs = [f" + {self.at(step.hops)}" for step in path.steps if isinstance(step, RunColumns)]
            written = sum(isinstance(step, str) for step in path.steps)
            hops = f"({written} + 0{''.join(runs)})"  # a bare number in ORDER BY would be a column's
        return Term(hops, "'integer'", f"CAST({hops} AS TEXT)")

    # ------------------------------------------------------------------ paths

    def add_path(self, path: PathPattern) -> None:
        """Join one path."""
        nodes, edges = path.nodes, path.edges
        backward = any(edge.is_variable for edge in edges) and self._score(nodes[-1]) > self._score(nodes[0])
        if backward:  # search from the end that may be fewer nodes
            nodes = nodes[::-1]
            edges = tuple(replace(edge, direction=_OPPOSITE[edge.direction]) for edge in reversed(edges))
        found = [self._add_node(nodes[0])]
        steps: list[str | RunColumns] = []
        used: list[tuple[str, tuple[str, ...]]] = []
        for edge, right in zip(edges, nodes[1:], strict=True):
            if edge.is_variable:
                trail = path.name is not None or edge.name in self._whole
                hop = _Hop(edge, found[-1], right, used, trail, backward)
                column, run = self._add_shortest(hop) if edge.shortest else self._add_run(hop)
                steps.append(run)
                used.append((run.edges, edge.types))
                if edge.name:
                    self.runs[edge.name] = run
            else:
                column, step = self._add_edge(_Hop(edge, found[-1], right, used, trail=False, backward=backward))
                steps.append(step)
                used.append((step, edge.types))
                if edge.name:
                    self.edges[edge.name] = step
            found.append(column)
            self._ask()
        if path.name:
            order = -1 if backward else 1
            self.paths[path.name] = PathColumns(tuple(found[::order]), tuple(steps[::order]))
            self._ask()

    def _add_node(self, pattern: NodePattern, at: str | None = None) -> str:
        """Join a node, the one with id `at` if given; one that was named before is the same."""
        column = self.nodes.get(pattern.name) if pattern.name else None
        if column is None:
            column = self._name("n")
            self.stage.tables.append(f"node AS {column}")
            self.stage.local.add(column)
            self._columns.append(column)
            if pattern.name:
                self.nodes[pattern.name] = column
        if at is not None:
            self.stage.wheres.append(f"{self.at(column)} = {at}")
        if pattern.labels:
            self.stage.wheres.append(among(f"{self.row(column)}.label", pattern.labels))
        self._ask_properties(column, pattern.properties)
        key = self._key(pattern)
        if key is not None:
            self.stage.wheres.append(f"{self.row(column)}.key = {self.parameters.bind(key)}")
        self._ask()
        return column

    def _add_edge(self, hop: _Hop) -> tuple[str, str]:
        edge = hop.edge
        target = self._add_node(hop.right)
        column = self._name("e")
        self.stage.tables.append(f"edge AS {column}")
        self.stage.local.add(column)
        self._columns.append(column)
        self.stage.wheres.append(joining(column, edge.direction, self.at(hop.left), self.at(target)))
        if edge.types:
            self.stage.wheres.append(among(f"{column}.type", edge.types))
        self._ask_properties(column, edge.properties)
        self.stage.wheres += [
            unused(f"{column}.id", self.at(other), other) for other in possibly_same(hop.used, edge.types)
        ]
        return target, column

    def _add_run(self, hop: _Hop) -> tuple[str, RunColumns]:
        edge = hop.edge
        seed = self._close()
        walk, gone, passed, hops = self._name("w"), self._name("v"), self._name("o"), self._name("d")
        carried = self._columns
        start = [*(f"{seed}.{column}" for column in carried), f"{seed}.{hop.left}", "0", "','", "','"]
        following = reached(edge.direction, "e", "w.here")
        step = [
            *(f"w.{column}" for column in carried),
            following,
            f"w.{hops} + 1",
            f"w.{gone} || e.id || ','",
            f"w.{passed} || {following} || ','" if hop.trail else f"w.{passed}",
        ]
        wheres = [leaving(edge.direction, "e", "w.here"), *self._edge_conditions("e", edge)]
        wheres += [unused("e.id", f"w.{gone}", gone)]
        wheres += [unused("e.id", f"w.{other}", other) for other in possibly_same(hop.used, edge.types)]
        low, high = edge.hops
        if high is not None:
            wheres.append(f"w.{hops} < {high}")
        names = ", ".join([*carried, "here", hops, gone, passed])
        self.tables.append(
            f"{walk} ({names}) AS (SELECT {', '.join(start)} FROM {seed}"
            f" UNION ALL SELECT {', '.join(step)} FROM {walk} AS w, edge AS e WHERE {' AND '.join(wheres)})"
        )
        self.stage = _Stage(walk, [walk], [f"{walk}.{hops} >= {low}"])
        self._columns = [*carried, hops, gone, passed]
        return self._add_node(hop.right, f"{walk}.here"), RunColumns(gone, passed, hops, hop.backward)

    def _add_shortest(self, hop: _Hop) -> tuple[str, RunColumns]:
        edge = hop.edge
        # An end that is few nodes is joined before the search, which then stops where it meets it.
        goal = self._add_node(hop.right) if self._score(hop.right) >= _IDENTIFIED else None
        seed, levels = self._close(), self._name("l")
        number, hops, gone, passed = self._name("q"), self._name("d"), self._name("v"), self._name("o")
        carried = self._columns
        wheres = ["l.frontier <> '[]'"]
        if edge.hops[1] is not None:
            wheres.append(f"l.{hops} < {edge.hops[1]}")
        if goal is not None:
            wheres.append(f"l.{goal} NOT IN (SELECT value FROM json_each(l.frontier))")
        old = ", ".join(f"{seed}.{column}" for column in carried)
        new = ", ".join(f"l.{column}" for column in carried)
        self.tables.append(
            f"{levels} ({', '.join(carried)}, {number}, {hops}, frontier, seen) AS ("
            # -1 is no node: so the list of those seen never begins with a comma
            f"SELECT {old}, row_number() OVER (), 0, '[' || {seed}.{hop.left} || ']', '[-1' FROM {seed} UNION ALL"
            f" SELECT {new}, l.{number}, l.{hops} + 1, ({self._frontier(edge)}),"
            " l.seen || ',' || substr(l.frontier, 2, length(l.frontier) - 2)"
            f" FROM {levels} AS l WHERE {' AND '.join(wheres)})"
        )
        self.stage = _Stage(
            levels, [levels, f"json_each({levels}.frontier) AS end_{levels}"], [f"{levels}.{hops} >= 1"]
        )
        self._columns = [*carried, number, hops]
        target = self._add_node(hop.right, f"end_{levels}.value")
        if hop.trail:
            self._go_back(edge, levels, target, (number, hops, gone, passed))
        return target, RunColumns(gone, passed, hops, hop.backward)

    def _frontier(self, edge: EdgePattern) -> str:
        """Nodes one step from level `l` that were not seen."""
        wheres = " AND ".join(["1", *self._edge_conditions("e", edge)])
        ends = {"out": [("source", "target")], "into": [("target", "source")]}
        steps = [
            f"SELECT e.{there} AS found FROM json_each(l.frontier) AS f CROSS JOIN edge AS e"
            f" WHERE e.{here} = f.value AND {wheres}"
            for here, there in ends.get(edge.direction, ends["out"] + ends["into"])
        ]
        # EXCEPT, not NOT IN: it sorts the nodes seen once per level instead of once per edge.
        return (
            f"SELECT json_group_array(found) FROM ({' UNION ALL '.join(steps)}"
            " EXCEPT SELECT value FROM json_each(l.seen || ']') EXCEPT SELECT value FROM json_each(l.frontier))"
        )

    def _go_back(self, edge: EdgePattern, levels: str, target: str, names: tuple[str, str, str, str]) -> None:
        """Find the edges of the way from its end, level by level; of several the one with the lowest id."""
        number, hops, gone, passed = names
        self._ask()
        hits, back, carried = self._close(), self._name("b"), self._columns
        wheres = " AND ".join(
            [
                f"l.{number} = b.{number} AND l.{hops} = b.remaining - 1",
                joining("x", edge.direction, "f.value", "b.here"),
                *self._edge_conditions("x", edge),
            ]
        )
        choice = f"SELECT min(x.id) FROM {levels} AS l, json_each(l.frontier) AS f, edge AS x WHERE {wheres}"
        before = {"out": "e.source", "into": "e.target"}.get(
            edge.direction, "CASE WHEN e.target = b.here THEN e.source ELSE e.target END"
        )
        self.tables.append(
            f"{back} ({', '.join(carried)}, here, remaining, {gone}, {passed}) AS ("
            f"SELECT {', '.join(f'{hits}.{column}' for column in carried)}, {hits}.{target}, {hits}.{hops}, ',', ','"
            f" FROM {hits}"
            f" UNION ALL SELECT {', '.join(f'b.{column}' for column in carried)}, {before}, b.remaining - 1,"
            f" ',' || e.id || b.{gone}, ',' || b.here || b.{passed}"
            f" FROM {back} AS b, edge AS e WHERE b.remaining > 0 AND e.id = ({choice}))"
        )
        self.stage = _Stage(back, [back], [f"{back}.remaining = 0"])
        self._columns = [*carried, gone, passed]

    # ------------------------------------------------------------------ conditions and stages

    def _edge_conditions(self, alias: str, edge: EdgePattern) -> list[str]:
        conditions = [among(f"{alias}.type", edge.types)] if edge.types else []
        return conditions + [self._equals(alias, name, value) for name, value in edge.properties]

    def _ask_properties(self, column: str, properties: Iterable[tuple[str, Scalar]]) -> None:
        for name, value in properties:
            self.stage.wheres.append(self._equals(self.row(column), name, value))

    def _equals(self, alias: str, name: str, value: Scalar) -> str:
        term = property_term(f"{alias}.properties", name, self.parameters)
        return condition_sql(Comparison(Property(alias, name), "==", value), lambda _: term, self.parameters)

    def _ask(self) -> None:
        """Put each condition where first all that it speaks of is known."""
        known = self.nodes.keys() | self.edges.keys() | self.runs.keys() | self.paths.keys()
        ready = [condition for condition in self._pending if condition.names <= known]
        self._pending = [condition for condition in self._pending if not condition.names <= known]
        self.stage.wheres += [condition_sql(condition, self.term, self.parameters) for condition in ready]

    def _key(self, pattern: NodePattern) -> str | None:
        """Return the key of a node whose whole identity is given as text, so that it is looked up and not searched."""
        identity = self._schema.identity_of(pattern.labels[0]) if self._schema and len(pattern.labels) == 1 else None
        if identity is None:
            return None
        given = {**self._equal.get(pattern.name or "", {}), **dict(pattern.properties)}
        values = tuple((name, given[name]) for name in identity if isinstance(given.get(name), str))
        return NodeRef(pattern.labels[0], values).key if len(values) == len(identity) else None

    def _score(self, pattern: NodePattern) -> int:
        if pattern.name in self.nodes:
            return _BOUND
        if self._key(pattern) is not None:
            return _IDENTIFIED
        return _EQUAL if pattern.properties or self._equal.get(pattern.name or "") else _OPEN

    def _close(self) -> str:
        """Make the stage a common table, and begin another on it."""
        name, stage = self._name("s"), self.stage
        columns = ", ".join(f"{self.at(column)} AS {column}" for column in self._columns)
        self.tables.append(f"{name} AS (SELECT {columns} {from_where(stage.tables, stage.wheres)})")
        self.stage = _Stage(name, [name])
        return name

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"


def _conjuncts(condition: Condition | None) -> list[Condition]:
    if isinstance(condition, And):
        return [inner for part in condition.parts for inner in _conjuncts(part)]
    return [] if condition is None else [condition]


def _equalities(conditions: list[Condition]) -> dict[str, dict[str, Scalar]]:
    """Properties that must have one value, by name."""
    found: dict[str, dict[str, Scalar]] = {}
    for condition in conditions:
        if isinstance(condition, Comparison) and condition.operator == "==" and isinstance(condition.left, Property):
            left, right = condition.left, condition.right
            if not isinstance(right, (Property, Length)):
                found.setdefault(left.of, {})[left.key] = right
    return found
