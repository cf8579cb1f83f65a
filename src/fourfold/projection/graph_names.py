"""Labels, edge types and collections of all classes together: each must mean one thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fourfold.errors import did_you_mean
from fourfold.projection.declarations import CollectionPlan, Node
from fourfold.projection.families import Family
from fourfold.projection.problems import Problems
from fourfold.projection.rules import EdgeListRule, EdgeRule, FunctionRule, PointRule, Rule

__all__ = ["GraphNames"]


class GraphNames:
    """Gathers names, and notes where two classes mean different things by one."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._owners: dict[str, tuple[Family, type]] = {}  # label → who makes nodes of it from rows
        self._labels: dict[str, tuple[tuple[str, ...], type]] = {}
        self._edges: dict[str, set[tuple[str, str]]] = {}
        self._ends: list[tuple[type, str, str]] = []  # (class, edge type, label) of functions
        self._dimensions: dict[str, tuple[int, type]] = {}
        self._payload: dict[str, set[str]] = {}

    def own(self, model: type, family: Family, node: Node) -> bool:
        """Take a label whose nodes are rows of `family`; False when it isn't to be had."""
        if not isinstance(node.label, str) or not isinstance(node.id, str):
            return True  # the binder says what is wrong with it
        siblings = [d for member in family.members if member.model is model for d in member.declarations]
        if sum(isinstance(other, Node) and other.label == node.label for other in siblings) > 1:
            self._problems.add(model, node, f"label {node.label!r} is declared twice; merge the two")
        return self._own(model, family, node.label, (node.id,), node)

    def add_rules(
        self, model: type, family: Family, rules: Sequence[Rule], named: Iterable[tuple[str, tuple[str, ...]]]
    ) -> None:
        """Take what a class's rules name, and the value nodes and stubs among it."""
        for rule in rules:
            match rule:
                case EdgeRule():
                    self._edges.setdefault(rule.type, set()).add((rule.source.label, rule.target.label))
                case EdgeListRule():
                    self._edges.setdefault(rule.type, set()).add((rule.source.label, rule.label))
                case PointRule():
                    fields = [name for name, _ in rule.payload]
                    self._collection(model, rule.collection, fields, rule.dimension)
                case FunctionRule():
                    self._function(model, family, rule)
                case _:
                    pass
        for label, identity in named:
            owner = self._owners.get(label)
            if owner is not None:
                text = f"label {label!r} belongs to the rows of {owner[1].__name__}; name the value node differently"
                self._problems.add(model, None, text)
            else:
                self._identity(model, label, identity)

    def check_edges(self, *, partial: bool) -> None:
        """Note labels at the ends of functions' edges that nobody declares."""
        for model, edge_type, label in self._ends:
            if label not in self._labels and not partial:
                near = did_you_mean(label, self._labels)
                fix = f"which nothing declares{near}; add it to labels= or values="
                text = f"edge {edge_type!r} ends at label {label!r}, {fix}"
                self._problems.add(model, None, text)

    def labels(self) -> dict[str, tuple[str, ...]]:
        """Return label → identity, by label."""
        return {label: identity for label, (identity, _) in sorted(self._labels.items())}

    def edges(self) -> dict[str, frozenset[tuple[str, str]]]:
        """Return type → pairs of labels, by type."""
        return {edge_type: frozenset(ends) for edge_type, ends in sorted(self._edges.items())}

    def collections(self) -> dict[str, CollectionPlan]:
        """Return the collections, by name."""
        return {
            name: CollectionPlan(name, dimension, tuple(sorted(self._payload[name])))
            for name, (dimension, _) in sorted(self._dimensions.items())
        }

    def _function(self, model: type, family: Family, rule: FunctionRule) -> None:
        for label, identity in rule.labels.items():
            self._own(model, family, label, identity, None)
        for edge_type, ends in rule.edges.items():
            self._edges.setdefault(edge_type, set()).update(ends)
            self._ends += [(model, edge_type, label) for pair in ends for label in pair]
        for collection in rule.plans:
            self._collection(model, collection.name, collection.payload, collection.dimension)

    def _own(self, model: type, family: Family, label: str, identity: tuple[str, ...], node: Node | None) -> bool:
        first = self._owners.setdefault(label, (family, model))
        if first[0] is not family:
            text = f"label {label!r} belongs to {first[1].__name__} already; two tables can't own one label: rename one"
            self._problems.add(model, node, text)
            return False
        return self._identity(model, label, identity)

    def _identity(self, model: type, label: str, identity: tuple[str, ...]) -> bool:
        known, first = self._labels.setdefault(label, (identity, model))
        if known != identity:
            seen = f"by {identity} here, by {known} in {first.__name__}"
            text = f"label {label!r} is identified {seen}; give both one identity"
            self._problems.add(model, None, text)
        return known == identity

    def _collection(self, model: type, name: str, payload: Iterable[str], dimension: int) -> None:
        self._payload.setdefault(name, set()).update(payload)
        known, first = self._dimensions.setdefault(name, (dimension, model))
        if known != dimension:
            seen = f"{_contents(dimension)} here, {_contents(known)} in {first.__name__}"
            text = f"collection {name!r} takes {seen}; use two collections"
            self._problems.add(model, None, text)


def _contents(dimension: int) -> str:
    return f"vectors of {dimension}" if dimension else "texts"
