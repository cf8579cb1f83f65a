"""Declarations bound to a mapped class: what each of them makes of one instance. Pure; only loaded attributes are read.

`describe()` is what a rule is, as JSON: hashed into the declaration's digest, so it holds every argument that changes
what a row becomes, resolved (labels and id names, not class names), and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from fourfold.errors import ValidationError, did_you_mean
from fourfold.projection.declarations import CollectionPlan
from fourfold.projection.items import EdgeItem, NodeItem, NodeRef, PointItem, Scalar, Value
from fourfold.projection.row_key import RowKey
from fourfold.projection.values import property_value, text_value, vector_value

__all__ = [
    "GRAPH",
    "EdgeListRule",
    "EdgeRule",
    "FunctionRule",
    "Item",
    "KeyEnd",
    "NodeRule",
    "PointRule",
    "Reads",
    "Rule",
    "ValueEnd",
    "collection_target",
]

GRAPH = "graph"

Item = NodeItem | EdgeItem | PointItem
Names = tuple[tuple[str, str], ...]


def collection_target(collection: str) -> str:
    """Return the target's name of a collection.

    Example:
        >>> collection_target("recordings")
        'vectors.recordings'
    """
    return f"vectors.{collection}"


@dataclass(frozen=True, slots=True)
class Reads:
    """What a rule looks at: columns (None: unknown, so any), attributes by name, and relationships it depends on."""

    columns: frozenset[sa.Column[Any]] | None = frozenset()
    attributes: frozenset[str] = frozenset()
    relationships: tuple[str, ...] = ()

    def __or__(self, other: Reads) -> Reads:
        unknown = self.columns is None or other.columns is None
        return Reads(
            None if unknown else (self.columns or frozenset()) | (other.columns or frozenset()),
            self.attributes | other.attributes,
            tuple(sorted({*self.relationships, *other.relationships})),
        )


@dataclass(frozen=True, slots=True)
class KeyEnd:
    """An end that a row's key names: this row's own node, or what a foreign key names (None when it is NULL)."""

    label: str
    id: str
    key: RowKey

    def ref(self, instance: object, where: str) -> NodeRef | None:  # noqa: ARG002 - as ValueEnd's
        """Return the node at this end."""
        text = self.key.text(instance)
        return None if text is None else NodeRef(self.label, ((self.id, self.key.node_id(text)),))

    def describe(self) -> Sequence[Any]:
        """Return what it is."""
        kinds = [column.kind for column in self.key.codec.columns]
        return ["key", self.label, self.id, list(self.key.attributes), kinds]


@dataclass(frozen=True, slots=True)
class ValueEnd:
    """An end that is a value node, made from attributes (None when one is NULL)."""

    label: str
    identity: Names

    def ref(self, instance: object, where: str) -> NodeRef | None:
        """Return the node at this end."""
        values: dict[str, Scalar] = {}
        for name, attribute in self.identity:
            value = property_value(getattr(instance, attribute), f"{where}.{attribute}")
            if value is None:
                return None
            values[name] = _identity_value(value, f"{where}.{attribute}")
        return NodeRef.of(self.label, **values)

    def describe(self) -> Sequence[Any]:
        """Return what it is."""
        return ["value", self.label, [list(pair) for pair in self.identity]]


End = KeyEnd | ValueEnd


@dataclass(frozen=True, slots=True)
class NodeRule:
    """The row's own node."""

    end: KeyEnd
    properties: Names
    where: str
    reads: Reads

    def items(self, instance: object) -> Iterator[Item]:
        """Return the node."""
        node = self.end.ref(instance, self.where)
        if node is not None:  # a row that was read has a key
            yield NodeItem(node, _properties(instance, self.properties, self.where))

    def describe(self) -> Sequence[Any]:
        """Return what it is."""
        return ["node", self.end.describe(), sorted(self.properties), self.reads.relationships]


@dataclass(frozen=True, slots=True)
class EdgeRule:
    """One edge, or none when an end is NULL."""

    type: str
    source: End
    target: End
    properties: Names
    where: str
    reads: Reads

    def items(self, instance: object) -> Iterator[Item]:
        """Return the edge."""
        source, target = self.source.ref(instance, self.where), self.target.ref(instance, self.where)
        if source is not None and target is not None:
            yield EdgeItem(self.type, source, target, _properties(instance, self.properties, self.where))

    def describe(self) -> Sequence[Any]:
        """Return what it is."""
        return ["edge", self.type, self.source.describe(), self.target.describe(), sorted(self.properties)]


@dataclass(frozen=True, slots=True)
class EdgeListRule:
    """An edge per item of a list; two equal items are two edges."""

    type: str
    source: End
    attribute: str
    label: str
    identity: tuple[str, ...]
    properties: Names
    where: str
    reads: Reads

    def items(self, instance: object) -> Iterator[Item]:
        """Return the edges, in the order of the list."""
        values = getattr(instance, self.attribute)
        source = self.source.ref(instance, self.where)
        if values is None or source is None:
            return
        where = f"{self.where}.{self.attribute}"
        if not isinstance(values, (list, tuple)):
            raise _wrong(where, f"is {values!r:.80}; expected a list", "Store a list, or NULL for none")
        for index, item in enumerate(values):
            yield self._edge(source, item, f"{where}[{index}]")

    def _edge(self, source: NodeRef, item: object, where: str) -> EdgeItem:
        if not isinstance(item, Mapping):
            if len(self.identity) > 1 or self.properties:
                expected = ", ".join([*self.identity, *(member for _, member in self.properties)])
                raise _wrong(where, f"is {item!r:.80}; expected an object with {expected}", "Correct the row")
            item = {self.identity[0]: item}
        values: dict[str, Scalar] = {}
        for name in self.identity:
            value = property_value(item.get(name), f"{where}.{name}")
            if value is None:
                problem = f"is missing; a {self.label} is identified by {', '.join(self.identity)}"
                raise _wrong(f"{where}.{name}", problem, "Correct the row")
            values[name] = _identity_value(value, f"{where}.{name}")
        found = ((name, property_value(item.get(member), f"{where}.{member}")) for name, member in self.properties)
        return EdgeItem(self.type, source, NodeRef.of(self.label, **values), _present(found))

    def describe(self) -> Sequence[Any]:
        """Return what it is."""
        identity, properties = sorted(self.identity), sorted(self.properties)
        return ["edges", self.type, self.source.describe(), self.attribute, self.label, identity, properties]


@dataclass(frozen=True, slots=True)
class PointRule:
    """One point, or none when its text or vector is empty."""

    collection: str
    text: str | None
    vector: str | None
    dimension: int
    payload: Names
    where: str
    reads: Reads

    def items(self, instance: object) -> Iterator[Item]:
        """Return the point."""
        text = text_value(getattr(instance, self.text), f"{self.where}.{self.text}") if self.text else None
        vector = vector_value(getattr(instance, self.vector), f"{self.where}.{self.vector}") if self.vector else None
        if text is not None or vector is not None:
            yield PointItem(vector=vector, text=text, payload=_properties(instance, self.payload, self.where))

    def describe(self) -> Sequence[Any]:
        """Return what it is."""
        return ["point", self.text, self.vector, self.dimension, sorted(self.payload), self.reads.relationships]


@dataclass(frozen=True, slots=True)
class FunctionRule:
    """What a function yields; anything it didn't declare is refused."""

    function: Callable[[Any], Iterable[Any]]
    version: str
    labels: Mapping[str, tuple[str, ...]]
    values: Mapping[str, tuple[str, ...]]
    edges: Mapping[str, tuple[tuple[str, str], ...]]
    plans: tuple[CollectionPlan, ...]
    where: str
    reads: Reads

    @property
    def collections(self) -> tuple[str, ...]:
        """Names of the collections that it yields points for."""
        return tuple(plan.name for plan in self.plans)

    @property
    def name(self) -> str:
        """The function's name, without its module: a program run as `__main__` declares the same as when imported."""
        return self.function.__qualname__

    def items_for(self, target: str, instance: object) -> Iterator[Item]:
        """Return the items for one target."""
        for emitted in self.function(instance) or ():
            if isinstance(emitted, (NodeItem, EdgeItem)):
                self._check(emitted)
                if target == GRAPH:
                    yield self._checked(emitted)
                continue
            collection, point = self._point(emitted)
            if collection_target(collection) == target:
                yield from self._with_content(point)

    def _point(self, emitted: object) -> tuple[str, PointItem]:
        if isinstance(emitted, PointItem) and len(self.collections) == 1:
            return self.collections[0], emitted
        if isinstance(emitted, tuple) and len(emitted) == 2 and isinstance(emitted[1], PointItem):  # noqa: PLR2004 - a pair
            collection, point = emitted
            if collection not in self.collections:
                raise self._undeclared(f"collection {collection!r}", "collections", collection, self.collections)
            return collection, point
        raise _wrong(
            f"{self.where}: {self.name}",
            f"yielded {emitted!r:.80}; expected NodeItem, EdgeItem or (collection, PointItem)",
            "Correct the function",
        )

    # Values by the rules of the other declarations, and here: a target that met a wrong one would refuse the whole lot.

    def _checked(self, item: NodeItem | EdgeItem) -> NodeItem | EdgeItem:
        where = f"{self.where}: {self.name}"
        properties = _values(item.properties.items(), where)
        if isinstance(item, NodeItem):
            return NodeItem(_node(item.ref, where), properties)
        return EdgeItem(item.type, _node(item.source, where), _node(item.target, where), properties)

    def _with_content(self, point: PointItem) -> Iterator[PointItem]:
        where = f"{self.where}: {self.name}"
        text, vector = text_value(point.text, where), vector_value(point.vector, where)
        if text is not None or vector is not None:
            yield PointItem(vector, text, _values(point.payload.items(), where))

    def _check(self, item: NodeItem | EdgeItem) -> None:
        if isinstance(item, NodeItem):
            names = tuple(name for name, _ in item.ref.identity)
            if self.labels.get(item.ref.label) != names:
                what = f"node {item.ref.label!r} identified by {names}"
                raise self._undeclared(what, "labels", item.ref.label, self.labels)
        elif (item.source.label, item.target.label) not in self.edges.get(item.type, ()):
            what = f"edge {item.type!r} from {item.source.label!r} to {item.target.label!r}"
            raise self._undeclared(what, "edges", item.type, self.edges)

    def _undeclared(self, what: str, argument: str, name: str, known: Iterable[str]) -> ValidationError:
        message = f"{self.where}: {self.name} yielded {what}, which its {argument}= doesn't declare"
        near = did_you_mean(name, set(known) - {name})
        hint = f"Declare it in Projection({self.name}, {argument}=…)"
        return ValidationError(message + near, code="projection.undeclared", hint=hint, where=self.where)

    def describe(self) -> Sequence[Any]:
        """Return what it is."""
        attributes = None if self.reads.columns is None else sorted(self.reads.attributes)
        emitted = [sorted(self.labels.items()), sorted(self.values.items()), sorted(self.edges.items())]
        points = [[plan.name, plan.uses_text, list(plan.payload)] for plan in self.plans]
        return ["function", self.name, self.version, emitted, points, attributes, self.reads.relationships]


Rule = NodeRule | EdgeRule | EdgeListRule | PointRule | FunctionRule


def _properties(instance: object, names: Names, where: str) -> Mapping[str, Value]:
    found = ((name, property_value(getattr(instance, source), f"{where}.{source}")) for name, source in names)
    return _present(found)


def _values(items: Iterable[tuple[str, object]], where: str) -> Mapping[str, Value]:
    return _present((name, property_value(value, f"{where}.{name}")) for name, value in items)


def _present(found: Iterable[tuple[str, Value | None]]) -> Mapping[str, Value]:
    return MappingProxyType({name: value for name, value in found if value is not None})


def _node(ref: NodeRef, where: str) -> NodeRef:
    identity: list[tuple[str, Scalar]] = []
    for name, given in ref.identity:
        value = property_value(given, f"{where}.{name}")
        if value is None:
            raise _wrong(f"{where}.{name}", f"is missing in the identity of a {ref.label}", "Correct the function")
        identity.append((name, _identity_value(value, f"{where}.{name}")))
    return NodeRef(ref.label, tuple(identity))


def _identity_value(value: Value, where: str) -> Scalar:
    if isinstance(value, tuple):
        raise _wrong(where, f"is a list ({value!r:.80}); an identity is one value", "Use EdgeList for a list")
    return value


def _wrong(where: str, problem: str, hint: str) -> ValidationError:
    return ValidationError(f"{where} {problem}", code="projection.value", hint=hint, where=where)
