"""What a pattern's answer is made of: plain immutable nodes, edges and paths, and the order of values.

Pure values. They are copies: changing the graph later doesn't change them, and they hold no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fourfold.projection.items import Value

__all__ = ["Answer", "GraphEdge", "GraphNode", "GraphPath", "Row", "order_key"]

# Ascending order across types, as Cypher's: lists, strings, booleans, numbers; nothing comes last.
_LIST, _TEXT, _BOOLEAN, _NUMBER, _ITEM, _NOTHING = range(6)


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node: its label, and its properties, those of the identity included.

    Example:
        >>> GraphNode("Track", {"title": "Dawn"})["title"]
        'Dawn'
    """

    label: str
    properties: Mapping[str, Value]

    def __post_init__(self) -> None:
        object.__setattr__(self, "properties", MappingProxyType(dict(self.properties)))

    def __getitem__(self, name: str) -> Value:
        return self.properties[name]

    def __hash__(self) -> int:
        return hash((self.label, frozenset(self.properties.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphNode, (self.label, dict(self.properties))  # a mapping proxy doesn't pickle


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """An edge: its type and its properties."""

    type: str
    properties: Mapping[str, Value]

    def __post_init__(self) -> None:
        object.__setattr__(self, "properties", MappingProxyType(dict(self.properties)))

    def __getitem__(self, name: str) -> Value:
        return self.properties[name]

    def __hash__(self) -> int:
        return hash((self.type, frozenset(self.properties.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphEdge, (self.type, dict(self.properties))


@dataclass(frozen=True, slots=True)
class GraphPath:
    """A path: its nodes in the order of the pattern, and the edges between them (one fewer).

    Example:
        >>> len(GraphPath((GraphNode("A", {}),), ()))
        0
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]

    def __len__(self) -> int:
        return len(self.edges)

    def __bool__(self) -> bool:
        return True  # a path of no hops is a path


Answer = Value | GraphNode | GraphEdge | GraphPath | tuple[Any, ...] | None
Row = dict[str, Any]  # column name → Answer; Any spares every reader a cast


def order_key(value: Any) -> tuple[Any, ...]:  # noqa: PLR0911 - a line per kind of value
    """Return the key that sorts values ascending: lists, strings (by code point), booleans, numbers, then None.

    Nodes, edges and paths come between numbers and None, by type and content, so that collected ones have one order.

    Example:
        >>> sorted([None, 2, "a", True, 1.5], key=order_key)
        ['a', True, 1.5, 2, None]
    """
    if value is None:
        return (_NOTHING,)
    if isinstance(value, bool):
        return (_BOOLEAN, value)
    if isinstance(value, (int, float)):
        return (_NUMBER, value)
    if isinstance(value, str):
        return (_TEXT, value)
    if isinstance(value, GraphNode):
        return (_ITEM, 0, value.label, _properties_key(value.properties))
    if isinstance(value, GraphEdge):
        return (_ITEM, 1, value.type, _properties_key(value.properties))
    if isinstance(value, GraphPath):
        return (_ITEM, 2, tuple(map(order_key, value.nodes)), tuple(map(order_key, value.edges)))
    return (_LIST, tuple(order_key(member) for member in value))


def _properties_key(properties: Mapping[str, Value]) -> tuple[Any, ...]:
    return tuple((name, order_key(value)) for name, value in sorted(properties.items()))
