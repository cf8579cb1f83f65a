"""The parts of a path pattern: nodes, edges, runs of edges. Pure; `graph.patterns` is what users import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fourfold.errors import ValidationError
from fourfold.graph.expressions import scalar
from fourfold.graph.schema import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fourfold.projection.items import Scalar

__all__ = [
    "Direction",
    "EdgePattern",
    "NodePattern",
    "PathPattern",
    "both",
    "into",
    "natural",
    "node",
    "out",
    "path_of",
    "refuse",
]

Direction = Literal["out", "into", "both"]
_ONE_HOP = (1, 1)
_PATTERN_PARTS = 41  # SQLite joins 64 tables at most; twenty hops written out leave room for the rest


@dataclass(frozen=True, slots=True)
class NodePattern:
    """A node to find: one of the labels (any without), with these property values; see `node`."""

    labels: tuple[str, ...]
    name: str | None
    properties: tuple[tuple[str, Scalar], ...]


@dataclass(frozen=True, slots=True)
class EdgePattern:
    """An edge, or a run of `hops` edges, to follow; see `out`, `into`, `both`. `None` as upper bound is without end."""

    direction: Direction
    types: tuple[str, ...]
    name: str | None
    properties: tuple[tuple[str, Scalar], ...]
    hops: tuple[int, int | None]
    shortest: bool

    @property
    def is_variable(self) -> bool:
        """True when it is a run of edges."""
        return self.hops != _ONE_HOP or self.shortest


@dataclass(frozen=True, slots=True)
class PathPattern:
    """Nodes and edges in turn, and the path's name."""

    nodes: tuple[NodePattern, ...]
    edges: tuple[EdgePattern, ...]
    name: str | None


def node(*labels: str, as_: str | None = None, **properties: Scalar) -> NodePattern:
    """Find a node.

    Args:
        *labels: It has one of them; any label without.
        as_: Its name in the pattern; the same name again means the same node.
        **properties: It has these values; for other comparisons see `Query.where`.
    """
    return NodePattern(_names(labels, "label"), _name(as_), _properties(properties))


def out(
    *types: str,
    as_: str | None = None,
    hops: int | tuple[int, int | None] = 1,
    shortest: bool = False,
    **properties: Scalar,
) -> EdgePattern:
    """Follow an edge forward.

    Args:
        *types: It has one of them; any type without.
        as_: Its name in the pattern.
        hops: How many edges one after another: a number, or from–to; `(1, None)` has no end. From 0: the node itself
            too.
        shortest: Only one shortest run for each pair of different nodes; which one of equally short ones is open. The
            path then is node, edge, node, and hops start at 1.
        **properties: Each edge has these values.
    """
    return _edge("out", types, as_, hops, shortest=shortest, properties=properties)


def into(
    *types: str,
    as_: str | None = None,
    hops: int | tuple[int, int | None] = 1,
    shortest: bool = False,
    **properties: Scalar,
) -> EdgePattern:
    """Follow an edge backward; arguments as for `out`."""
    return _edge("into", types, as_, hops, shortest=shortest, properties=properties)


def both(
    *types: str,
    as_: str | None = None,
    hops: int | tuple[int, int | None] = 1,
    shortest: bool = False,
    **properties: Scalar,
) -> EdgePattern:
    """Follow an edge in either direction; arguments as for `out`."""
    return _edge("both", types, as_, hops, shortest=shortest, properties=properties)


def path_of(parts: Sequence[NodePattern | EdgePattern], name: str | None) -> PathPattern:
    """Build a path from nodes and edges in turn."""
    hint = "Write match(node(…), out(…), node(…))"
    for position, part in enumerate(parts):
        expected = EdgePattern if position % 2 else NodePattern
        if not isinstance(part, expected):
            message = f"Part {position} of the path is {part!r:.80}; expected {'an edge' if position % 2 else 'a node'}"
            raise ValidationError(message, code="graph.pattern", hint=hint)
    if len(parts) % 2 == 0 or len(parts) > _PATTERN_PARTS:
        message = f"The path has {len(parts)} parts; expected nodes and edges in turn, a node at both ends, at most 41"
        raise ValidationError(message, code="graph.pattern", hint=hint)
    nodes = tuple(part for part in parts if isinstance(part, NodePattern))
    edges = tuple(part for part in parts if isinstance(part, EdgePattern))
    if any(edge.shortest for edge in edges) and len(edges) > 1:
        message = "A shortest run stands in a path with other edges; expected node, edge, node"
        raise ValidationError(message, code="graph.pattern", hint="Give the other edges their own match()")
    return PathPattern(nodes, edges, _name(name))


def _edge(
    direction: Direction,
    types: tuple[str, ...],
    name: str | None,
    hops: int | tuple[int, int | None],
    *,
    shortest: bool,
    properties: Mapping[str, Scalar],
) -> EdgePattern:
    low, high = hops if isinstance(hops, tuple) and len(hops) == 2 else (hops, hops)  # noqa: PLR2004 - from, to
    hint = "Give hops=3, hops=(1, 3) or hops=(1, None)"
    first = natural(low, "hops", hint)
    last = None if high is None and isinstance(hops, tuple) else natural(high, "hops", hint)
    if last is not None and (last < first or last < 1):
        raise refuse(f"hops go from {first} to {last}; expected from ≤ to, and to ≥ 1", hint)
    if shortest and first != 1:
        raise refuse(f"A shortest run starts at {first} hops; expected 1", "Give hops=(1, …)")
    kind = _names(types, "edge type")
    return EdgePattern(direction, kind, _name(name), _properties(properties), (first, last), shortest)


def natural(value: object, what: str, hint: str = "") -> int:
    """Return `value` if it is a whole number that every store can count to."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise refuse(f"{what} is {value!r:.80}; expected a whole number of 0 or more", hint or f"Give {what} as int")
    return value


def _names(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(check_name(name, what) for name in names))


def _name(name: str | None) -> str | None:
    return None if name is None else check_name(name, "name in the pattern")


def _properties(properties: Mapping[str, Scalar]) -> tuple[tuple[str, Scalar], ...]:
    return tuple((check_name(name, "property"), scalar(value, name)) for name, value in properties.items())


def refuse(message: str, hint: str) -> ValidationError:
    """Make the error of a query that is not well formed."""
    return ValidationError(message, code="graph.query", hint=hint)
