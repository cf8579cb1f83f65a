"""The answer's side of a compiled pattern: columns, groups, order, and reading rows of SQL back. Pure.

Every column comes as JSON text (numbers as they are), so that types and floats arrive exactly as they were stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fourfold.graph.expressions import Aggregate, Expression, Whole
from fourfold.graph.sqlite_expressions import Parameters, Term, key_sql, order_sql
from fourfold.graph.values import GraphEdge, GraphNode, GraphPath, Row, order_key

if TYPE_CHECKING:
    from fourfold.graph.patterns import Order, Query

__all__ = ["Compiled", "PathColumns", "RunColumns", "compile_answer"]

Decoder = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class RunColumns:
    """Columns of a run of edges: ids of the edges, ids of the nodes behind each, number of hops."""

    edges: str
    passed: str
    hops: str
    backward: bool


@dataclass(frozen=True, slots=True)
class PathColumns:
    """Columns of a path in the order of the pattern: nodes, and between them edges or runs."""

    nodes: tuple[str, ...]
    steps: tuple[str | RunColumns, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A statement, its values, and what makes rows of its rows."""

    sql: str
    parameters: dict[str, Any]
    columns: tuple[tuple[str, Decoder], ...]

    def decode(self, row: tuple[Any, ...]) -> Row:
        """Return a row of the answer."""
        return {
            name: None if value is None else decode(json.loads(value) if isinstance(value, str) else value)
            for (name, decode), value in zip(self.columns, row, strict=True)
        }


class _StageLike(Protocol):
    tables: list[str]
    wheres: list[str]


class Found(Protocol):
    """What the compiler found: where names are."""

    parameters: Parameters
    tables: list[str]
    nodes: dict[str, str]
    edges: dict[str, str]
    runs: dict[str, RunColumns]
    paths: dict[str, PathColumns]

    @property
    def stage(self) -> _StageLike: ...
    def row(self, column: str) -> str: ...
    def at(self, column: str) -> str: ...
    def term(self, expression: Expression) -> Term: ...


class _Part(NamedTuple):
    """A column: its JSON text, what it is grouped by, how it is read."""

    json: str
    key: str
    decode: Decoder


def compile_answer(query: Query, found: Found) -> Compiled:
    """Write the last SELECT around what was found."""
    parts = [
        _aggregate(column.value, found) if isinstance(column.value, Aggregate) else _part(column.value, found)
        for column in query.selected
    ]
    plain = [
        part.key for column, part in zip(query.selected, parts, strict=True) if not isinstance(column.value, Aggregate)
    ]
    grouped = query.is_aggregated or query.is_distinct
    titles = {column.name: number for number, column in enumerate(query.selected)}
    if grouped:
        orders = [_column_order(order, titles) for order in query.order]
    else:
        orders = [_order(order, query, found) for order in query.order]
    # Only now: asking for columns may have joined further rows to the stage.
    columns = ", ".join(f"{part.json} AS c{number}" for number, part in enumerate(parts))
    sql = f"SELECT {columns} FROM {', '.join(found.stage.tables)}"
    if found.stage.wheres:
        sql += f" WHERE {' AND '.join(found.stage.wheres)}"
    if grouped:
        if plain:
            sql += f" GROUP BY {', '.join(plain)}"
        sql = f"SELECT {', '.join(f'c{number}' for number in range(len(parts)))} FROM ({sql})"
    if orders:
        sql += f" ORDER BY {', '.join(orders)}"
    if query.rows_limit is not None or query.rows_skip:
        limit = -1 if query.rows_limit is None else query.rows_limit  # SQLite's "no limit"
        sql += f" LIMIT {found.parameters.bind(limit)} OFFSET {found.parameters.bind(query.rows_skip)}"
    if found.tables:
        sql = f"WITH RECURSIVE {', '.join(found.tables)} {sql}"
    decoders = tuple((column.name, part.decode) for column, part in zip(query.selected, parts, strict=True))
    return Compiled(sql, found.parameters.values, decoders)


def _order(order: Order, query: Query, found: Found) -> str:
    by: Any = order.by
    if isinstance(by, str):
        by = next(column.value for column in query.selected if column.name == by)
    return order_sql(found.term(by), descending=order.descending)


def _column_order(order: Order, titles: dict[str, int]) -> str:
    column = f"c{titles[str(order.by)]}"
    return order_sql(Term(f"json_extract({column}, '$')", f"json_type({column})", column), descending=order.descending)


def _part(value: Expression | Whole, found: Found) -> _Part:
    if isinstance(value, Expression):
        term = found.term(value)
        return _Part(term.json, key_sql(term), _value)
    if value.of in found.nodes:
        column = found.nodes[value.of]
        return _Part(_item(found, column), found.at(column), _node)
    if value.of in found.edges:
        column = found.edges[value.of]
        return _Part(_item(found, column), found.at(column), _edge)
    if value.of in found.runs:
        run = found.runs[value.of]
        return _Part(
            _items(found, "edge", run.edges), found.at(run.edges), lambda items: _run(items, backward=run.backward)
        )
    return _path(found, found.paths[value.of])


def _item(found: Found, column: str) -> str:
    row = found.row(column)
    return f"json_array({row}.{'label' if column.startswith('n') else 'type'}, json({row}.properties))"


def _items(found: Found, table: str, column: str) -> str:
    """Rows of the ids in a text like `,5,7,`, each with its position: the order of the inner rows is SQLite's."""
    name = "label" if table == "node" else "type"
    ids = f"json_each('[' || trim({found.at(column)}, ',') || ']')"
    return (
        f"(SELECT json_group_array(json_array(i.key, t.{name}, json(t.properties)))"
        f" FROM {ids} AS i CROSS JOIN {table} AS t WHERE t.id = i.value)"
    )


def _path(found: Found, path: PathColumns) -> _Part:
    nodes = [_item(found, column) for column in path.nodes]
    steps = []
    for step in path.steps:
        if isinstance(step, str):
            steps.append(_item(found, step))
        else:
            steps.append(f"json_array({_json(found, 'edge', step.edges)}, {_json(found, 'node', step.passed)})")
    text = f"json_array(json_array({', '.join(nodes)}), json_array({', '.join(steps)}))"
    return _Part(text, _path_key(found, path), lambda parts: _whole_path(parts, path))


def _path_key(found: Found, path: PathColumns) -> str:
    """Where it starts and which edges it goes: two runs may share these differently, and are the same path."""
    backward = any(step.backward for step in path.steps if isinstance(step, RunColumns))
    order = -1 if backward else 1  # as it was searched: so the edges of its runs stand
    edges = [
        f"{found.at(step)} || ','" if isinstance(step, str) else f"ltrim({found.at(step.edges)}, ',')"
        for step in path.steps[::order]
    ]
    return " || ".join([f"{found.at(path.nodes[::order][0])} || ':'", *edges])


def _json(found: Found, table: str, column: str) -> str:
    return f"json({_items(found, table, column)})"  # a subquery's text has lost its mark of being JSON


def _aggregate(aggregate: Aggregate, found: Found) -> _Part:
    if aggregate.of is None:
        return _Part("count(*)", "", _value)
    part = _part(aggregate.of, found)
    if aggregate.function == "count":
        return _Part(f"count({'DISTINCT ' if aggregate.distinct else ''}{part.key})", "", _value)
    if aggregate.function == "collect":
        key = part.key if aggregate.distinct else "NULL"
        # Without any row SQLite doesn't ask the function at all.
        return _Part(
            f"coalesce(fourfold_collect({part.json}, {key}), '[]')", "", lambda items: _sorted(items, part.decode)
        )
    value = f"fourfold_{aggregate.function}({part.json})"
    return _Part(f"coalesce({value}, '0')" if aggregate.function == "total" else value, "", _value)


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _properties(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in properties.items()}


def _node(item: list[Any]) -> GraphNode:
    return GraphNode(item[0], _properties(item[1]))


def _edge(item: list[Any]) -> GraphEdge:
    return GraphEdge(item[0], _properties(item[1]))


def _in_order(items: list[list[Any]], *, backward: bool) -> list[list[Any]]:
    return [item[1:] for item in sorted(items, key=lambda item: item[0], reverse=backward)]


def _run(items: list[list[Any]], *, backward: bool) -> tuple[GraphEdge, ...]:
    return tuple(map(_edge, _in_order(items, backward=backward)))


def _sorted(items: list[Any], decode: Decoder) -> tuple[Any, ...]:
    return tuple(sorted(map(decode, items), key=order_key))


def _whole_path(parts: list[list[Any]], path: PathColumns) -> GraphPath:
    named, steps = parts
    nodes, edges = [_node(named[0])], []
    for step, columns, following in zip(steps, path.steps, named[1:], strict=True):
        if isinstance(columns, str):
            edges.append(_edge(step))
            nodes.append(_node(following))
            continue
        gone, passed = step
        edges += _run(gone, backward=columns.backward)
        # The last node that was passed is the run's end, which the pattern has itself; a run of no hops ends where it
        # began.
        between = _in_order([item for item in passed if item[0] < len(passed) - 1], backward=columns.backward)
        nodes += map(_node, between)
        if passed:
            nodes.append(_node(following))
    return GraphPath(tuple(nodes), tuple(edges))
