"""Pieces of SQL that join edges to nodes. Pure; `sqlite_compile` puts them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourfold.graph.sqlite_expressions import quote

if TYPE_CHECKING:
    from fourfold.graph.paths import Direction

__all__ = ["among", "from_where", "joining", "leaving", "possibly_same", "reached", "unused"]


def from_where(tables: list[str], wheres: list[str]) -> str:
    """Join by commas: SQLite's planner chooses the order."""
    return f"FROM {', '.join(tables)}" + (f" WHERE {' AND '.join(wheres)}" if wheres else "")


def among(value: str, names: tuple[str, ...]) -> str:
    """The value is one of the names."""
    # One name as `=`: only so does SQLite see that the condition of a label's property index holds.
    if len(names) == 1:
        return f"{value} = {quote(names[0])}"
    return f"{value} IN ({', '.join(map(quote, names))})"


def joining(edge: str, direction: Direction, left: str, right: str) -> str:
    """The edge connects left and right."""
    forward = f"{edge}.source = {left} AND {edge}.target = {right}"
    backward = f"{edge}.source = {right} AND {edge}.target = {left}"
    return {"out": forward, "into": backward}.get(direction, f"(({forward}) OR ({backward}))")


def leaving(direction: Direction, edge: str, here: str) -> str:
    """The edge can be followed from here."""
    return {"out": f"{edge}.source = {here}", "into": f"{edge}.target = {here}"}.get(
        direction, f"({edge}.source = {here} OR {edge}.target = {here})"
    )


def reached(direction: Direction, edge: str, here: str) -> str:
    """The node that following the edge from here leads to."""
    return {"out": f"{edge}.target", "into": f"{edge}.source"}.get(
        direction, f"CASE WHEN {edge}.source = {here} THEN {edge}.target ELSE {edge}.source END"
    )


def possibly_same(used: list[tuple[str, tuple[str, ...]]], types: tuple[str, ...]) -> list[str]:
    """Earlier edges of the path that could be the same: their types overlap."""
    return [column for column, theirs in used if not types or not theirs or set(types) & set(theirs)]


def unused(edge: str, other: str, column: str) -> str:
    """The edge is not the other one (of column e…), or not in the text of edges gone (of column v…)."""
    return f"{edge} <> {other}" if column.startswith("e") else f"instr({other}, ',' || {edge} || ',') = 0"
