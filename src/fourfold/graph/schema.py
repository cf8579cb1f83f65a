"""What a graph may hold: labels with their identity, edge types, indexed properties. Made from the declarations.

Pure values. A store makes constraints and indexes from a schema, and refuses what is outside it; a query is checked
against it when there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fourfold.errors import ConfigurationError, ValidationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fourfold.projection.items import NodeRef

__all__ = ["EdgeSchema", "GraphSchema", "NodeSchema", "check_name"]

_NAME_CHARACTERS = 1_000  # far beyond any real name; Neo4j's own limit is 16,383


def check_name(name: object, what: str) -> str:
    """Return `name` if it can name a label, type, property or column, in any store.

    Quotes, backticks, semicolons and the like are fine: stores bind or quote names, so they are only ever names.

    Raises:
        ValidationError: Code `graph.name`: not a string, empty, too long, or with characters no store can hold.
    """
    hint = f"Name the {what} by plain text"
    if not isinstance(name, str) or not name:
        message = f"{what} is {name!r:.80}; expected a non-empty str"
        raise ValidationError(message, code="graph.name", hint=hint, value=name)
    if len(name) > _NAME_CHARACTERS or "\x00" in name or not _is_unicode(name):
        message = f"{what} is {name!r:.80}; expected at most {_NAME_CHARACTERS} characters, no NUL, no lone surrogates"
        raise ValidationError(message, code="graph.name", hint=hint, value=name)
    return name


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class NodeSchema:
    """A label: the names of its identity's properties (unique together), and further properties to index."""

    label: str
    identity: tuple[str, ...]
    indexed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeSchema:
    """An edge type: the (source label, target label) pairs it connects."""

    type: str
    ends: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class GraphSchema:
    """All labels and edge types of a graph.

    Raises:
        ConfigurationError: Code `graph.schema`: a label or type twice, without identity, or an end without its label.

    Example:
        >>> schema = GraphSchema((NodeSchema("Track", ("artist", "title")),), ())
        >>> schema.identity_of("Track")
        ('artist', 'title')
    """

    nodes: tuple[NodeSchema, ...] = ()
    edges: tuple[EdgeSchema, ...] = ()

    def __post_init__(self) -> None:
        _check_once("label", [node.label for node in self.nodes])
        _check_once("edge type", [edge.type for edge in self.edges])
        for node in self.nodes:
            if not node.identity:
                raise _refuse(f"Label {node.label!r} has no identity; expected one property name or more")
            _check_once(f"identity property of {node.label!r}", node.identity)
            _check_once(f"indexed property of {node.label!r}", node.indexed)
        for edge in self.edges:
            for label in {label for pair in edge.ends for label in pair} - self.labels.keys():
                seen = did_you_mean(label, self.labels)
                raise _refuse(f"Edge type {edge.type!r} ends at label {label!r}, which is not declared{seen}")

    @cached_property
    def labels(self) -> Mapping[str, NodeSchema]:
        """Labels by name."""
        return {node.label: node for node in self.nodes}

    @cached_property
    def types(self) -> Mapping[str, EdgeSchema]:
        """Edge types by name."""
        return {edge.type: edge for edge in self.edges}

    def identity_of(self, label: str) -> tuple[str, ...] | None:
        """Names of the label's identity properties, sorted; None for an unknown label."""
        return self._identities.get(label)

    @cached_property
    def _identities(self) -> Mapping[str, tuple[str, ...]]:
        return {node.label: tuple(sorted(node.identity)) for node in self.nodes}

    def check_ref(self, ref: NodeRef) -> None:
        """Refuse a node whose label is unknown or whose identity has other names.

        Raises:
            ConfigurationError: Code `graph.schema`; the relay works under other declarations than the store knows.
        """
        expected = self.identity_of(ref.label)
        if expected is None:
            raise _refuse(f"Label {ref.label!r} is not declared{did_you_mean(ref.label, self.labels)}")
        names = tuple([name for name, _ in ref.identity])  # a list, not a generator: asked for each node of a bulk load
        if names != expected:
            raise _refuse(f"A node of label {ref.label!r} is identified by {names}; expected {expected}")

    def check_type(self, edge_type: str) -> None:
        """Refuse an unknown edge type.

        Raises:
            ConfigurationError: Code `graph.schema`.
        """
        if edge_type not in self.types:
            raise _refuse(f"Edge type {edge_type!r} is not declared{did_you_mean(edge_type, self.types)}")


def _check_once(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if check_name(name, what) in seen:
            raise _refuse(f"{what} {name!r} is declared twice; expected once")
        seen.add(name)


def _refuse(message: str) -> ConfigurationError:
    return ConfigurationError(message, code="graph.schema", hint="Correct the declarations (__projections__)")
