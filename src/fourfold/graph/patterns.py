"""The pattern language: what to look for in a graph, as a pure immutable value that every `GraphStore.match` answers.

A pattern is a path of nodes and edges in turn; further paths join it by shared names. Within one path no edge is used
twice (Cypher's rule); nodes may be. Everything is checked when it is built, so what reaches a store is well formed;
names of labels, types and properties are values, never query text. The meaning of conditions stands in
`graph.expressions`.

Example:
    Recordings that share a track with one, the most similar first:

    >>> query = (
    ...     match(
    ...         node("Recording", as_="a", uuid="7"),
    ...         out("HAS_TRACKLIST"),
    ...         node("Tracklist"),
    ...         out("CONTAINS_TRACK"),
    ...         node("Track", as_="t"),
    ...         into("CONTAINS_TRACK"),
    ...         node("Tracklist"),
    ...         into("HAS_TRACKLIST"),
    ...         node("Recording", as_="b"),
    ...     )
    ...     .where(prop("b", "uuid") != prop("a", "uuid"))
    ...     .select(uuid=prop("b", "uuid"), shared=count("t", distinct=True))
    ...     .order_by(desc("shared"), "uuid")
    ...     .limit(10)
    ... )
    >>> query.column_names
    ('uuid', 'shared')
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from fourfold.errors import ValidationError, did_you_mean
from fourfold.graph.expressions import (
    Aggregate,
    And,
    Condition,
    Expression,
    Length,
    Property,
    Whole,
    average,
    collect,
    count,
    length,
    maximum,
    minimum,
    prop,
    total,
)
from fourfold.graph.paths import EdgePattern, NodePattern, PathPattern, both, into, natural, node, out, path_of, refuse
from fourfold.graph.schema import check_name
from fourfold.graph.values import GraphEdge, GraphNode, GraphPath

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fourfold.graph.schema import GraphSchema

__all__ = [
    "Column",
    "EdgePattern",
    "GraphEdge",
    "GraphNode",
    "GraphPath",
    "NodePattern",
    "Order",
    "PathPattern",
    "Query",
    "average",
    "both",
    "check_query",
    "collect",
    "count",
    "desc",
    "into",
    "length",
    "match",
    "maximum",
    "minimum",
    "node",
    "out",
    "prop",
    "total",
]

Kind = Literal["node", "edge", "hops", "path"]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of the answer."""

    name: str
    value: Expression | Whole | Aggregate


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """What to sort by: a column's name, or a property."""

    by: str | Property | Length
    descending: bool


def desc(by: str | Property | Length) -> Order:
    """Sort descending (null first): the exact reverse of ascending."""
    return Order(by, descending=True)


def match(*parts: NodePattern | EdgePattern, as_: str | None = None) -> Query:
    """Begin a query with a path: a node, then an edge and a node as often as wanted. `as_` names the path.

    Raises:
        ValidationError: Code `graph.pattern` or `graph.name`.
    """
    return Query((path_of(parts, as_),))


@dataclass(frozen=True)
class Query:
    """A question to a graph; each method returns a new one. Begin with `match`.

    Raises:
        ValidationError: Code `graph.pattern`, `graph.query`, `graph.value` or `graph.name`, by the call that is wrong.
    """

    paths: tuple[PathPattern, ...]
    condition: Condition | None = None
    columns: tuple[Column, ...] = ()
    order: tuple[Order, ...] = ()
    is_distinct: bool = False
    rows_limit: int | None = None
    rows_skip: int = 0
    kinds: Mapping[str, Kind] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", _kinds(self.paths))

    @property
    def selected(self) -> tuple[Column, ...]:
        """The columns; without `select`, every named thing in order of appearance."""
        return self.columns or tuple(Column(name, Whole(name)) for name in self.kinds)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.selected)

    @property
    def is_aggregated(self) -> bool:
        """True when one row may come from many matches."""
        return any(isinstance(column.value, Aggregate) for column in self.columns)

    def match(self, *parts: NodePattern | EdgePattern, as_: str | None = None) -> Query:
        """Add a path, joined by the names it shares; edges may be used again in another path."""
        return replace(self, paths=(*self.paths, path_of(parts, as_)))

    def where(self, *conditions: Condition) -> Query:
        """Keep matches for which all conditions are true."""
        for condition in conditions:
            if not isinstance(condition, Condition):
                message = f"where() got {condition!r:.80}; expected a condition like prop('a', 'title') == 'x'"
                raise ValidationError(message, code="graph.condition", hint="Both sides plain values? Use prop()")
            for name in sorted(condition.names):
                self._kind(name)
            _check_expressions(condition, self)
        known = () if self.condition is None else (self.condition,)
        return replace(self, condition=And((*known, *conditions)))

    def select(self, *values: Expression | Aggregate | str, **named: Expression | Aggregate | str) -> Query:
        """Say what the answer's columns are; a string is a whole node, edge or path.

        Columns without a keyword are called as they read: `a`, `a.title`, `count(*)`. With an aggregate among them, the
        others are what matches are grouped by.
        """
        pairs = [(None, value) for value in values] + list(named.items())
        columns = tuple(self._column(name, value) for name, value in pairs)
        names = [column.name for column in columns]
        for name in names:
            if names.count(name) > 1:
                raise refuse(f"Column {name!r} is selected twice; expected once", "Name one by a keyword")
        if not columns:
            raise refuse("select() got nothing; expected a column or more", "Leave it out to get all named things")
        return replace(self, columns=columns)

    def distinct(self) -> Query:
        """Give equal rows once."""
        return replace(self, is_distinct=True)

    def order_by(self, *orders: str | Property | Length | Order) -> Query:
        """Sort by columns (by name) or properties: lists, strings, booleans, numbers, null; `desc` reverses.

        Without it the order of rows is open. Whole nodes, edges and paths have no order.
        """
        return replace(self, order=tuple(self._order(order) for order in orders))

    def limit(self, rows: int) -> Query:
        """Give at most so many rows."""
        return replace(self, rows_limit=natural(rows, "limit"))

    def skip(self, rows: int) -> Query:
        """Leave out so many rows at the start."""
        return replace(self, rows_skip=natural(rows, "skip"))

    def _kind(self, name: str) -> Kind:
        kind = self.kinds.get(name)
        if kind is None:
            message = f"Nothing in the pattern is called {name!r}{did_you_mean(name, self.kinds)}"
            raise refuse(message, "Name it with as_=")
        return kind

    def _column(self, name: str | None, value: Expression | Aggregate | str) -> Column:
        if isinstance(value, str):
            column: Expression | Whole | Aggregate = Whole(check_name(value, "name in the pattern"))
        elif isinstance(value, (Expression, Aggregate)):
            column = value
        else:
            raise refuse(
                f"select() got {value!r:.80}; expected a name, prop() or an aggregate", "See prop() and count()"
            )
        _check_expression(column, self)
        return Column(check_name(name or column.title, "column"), column)

    def _order(self, order: str | Property | Length | Order) -> Order:
        order = order if isinstance(order, Order) else Order(order, descending=False)
        if isinstance(order.by, str):
            _check_column_order(order.by, self)
        elif not isinstance(order.by, (Property, Length)):
            raise refuse(
                f"order_by() got {order.by!r:.80}; expected a column's name or prop()", "Use desc() to reverse"
            )
        else:
            _check_expression(order.by, self)
        return order


def check_query(query: Query, schema: GraphSchema | None) -> None:
    """Refuse what can't be answered; stores call it first.

    Raises:
        ValidationError: Code `graph.unknown` for a label or type that `schema` doesn't have; `graph.query` for a query
            that selects nothing, or that sorts groups by what is not selected.
    """
    if not query.selected:
        raise refuse("The query selects nothing; expected a named thing or select()", "Name a node with as_=")
    grouped = query.is_aggregated or query.is_distinct
    for order in query.order:
        if grouped and not isinstance(order.by, str):
            raise refuse(f"Rows are grouped; {order.by.title!r} is no column of theirs", "Select it, sort by its name")
        if isinstance(order.by, str):
            _check_column_order(order.by, query)  # again: what the name stands for may have been selected anew
    if schema is None:
        return
    for path in query.paths:
        for what, names, known in (
            ("label", (label for part in path.nodes for label in part.labels), schema.labels),
            ("edge type", (name for part in path.edges for name in part.types), schema.types),
        ):
            _check_known(what, names, known)


def _check_column_order(name: str, query: Query) -> None:
    columns = {column.name: column.value for column in query.selected}
    if name not in columns:
        seen = did_you_mean(name, columns)
        raise refuse(f"order_by() names column {name!r}, which is not selected{seen}", "Select it before")
    value = columns[name]
    if isinstance(value, Whole) or (isinstance(value, Aggregate) and value.function == "collect"):
        raise refuse(f"Column {name!r} has no order", "Sort by a property, a count or the like")


def _check_known(what: str, names: Iterator[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            message = f"The graph has no {what} {name!r}{did_you_mean(name, known)}"
            raise ValidationError(message, code="graph.unknown", hint="Name a declared one", name=name)


def _check_expressions(condition: object, query: Query) -> None:
    """Check every property that a condition speaks of, wherever it stands."""
    for part in getattr(condition, "parts", ()) or [getattr(condition, "part", None)]:
        if part is not None:
            _check_expressions(part, query)
    for side in (getattr(condition, "left", None), getattr(condition, "right", None)):
        if isinstance(side, Expression):
            _check_expression(side, query)


def _check_expression(value: Expression | Whole | Aggregate, query: Query) -> None:
    if isinstance(value, Aggregate):
        if value.of is not None:
            _check_expression(value.of, query)
        return
    kind = query._kind(value.name)  # noqa: SLF001 - same module
    if isinstance(value, Property) and kind not in {"node", "edge"}:
        raise refuse(f"{value.title!r} asks a {kind} for a property; expected a node or a single edge", "Name a node")
    if isinstance(value, Length) and kind not in {"hops", "path"}:
        raise refuse(f"{value.title!r} asks a {kind} for its hops; expected a path or variable hops", "Name the path")


def _kinds(paths: Sequence[PathPattern]) -> Mapping[str, Kind]:
    kinds: dict[str, Kind] = {}
    for path in paths:
        parts: list[tuple[str | None, Kind]] = [(path.name, "path")]
        for position, part in enumerate(path.nodes):
            parts.append((part.name, "node"))
            if position < len(path.edges):
                edge = path.edges[position]
                parts.append((edge.name, "hops" if edge.is_variable else "edge"))
        for name, kind in parts:
            if name is not None and name in kinds and (kind, kinds[name]) != ("node", "node"):
                message = f"{name!r} names a {kinds[name]} and a {kind}; expected one thing (a node may be named again)"
                raise ValidationError(message, code="graph.pattern", hint="Give each its own name")
            if name is not None:
                kinds[name] = kind
    return kinds
