"""Declarations of one class, bound to its mapper: rules, or problems. All of a class's problems are found in one go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from fourfold.errors import did_you_mean
from fourfold.projection.attributes import AttributeRef, pairs, ref, refs, words
from fourfold.projection.declarations import (
    CollectionPlan,
    Declaration,
    Edge,
    EdgeList,
    File,
    LinkedFile,
    Node,
    Point,
    Projection,
    ValueNode,
)
from fourfold.projection.families import Families, Family, Member
from fourfold.projection.problems import Problems
from fourfold.projection.readers import check_identifier, column_of, reads_of
from fourfold.projection.references import NotProjected, Wrong, foreign_key, loose_key
from fourfold.projection.rules import (
    EdgeListRule,
    EdgeRule,
    End,
    FunctionRule,
    KeyEnd,
    Names,
    NodeRule,
    PointRule,
    Reads,
    Rule,
    ValueEnd,
)

__all__ = ["Binder"]

_STUB_ID = "id"  # of a label that no class declares


class Binder:
    """Binds the declarations of one class.

    Args:
        member: The class.
        family: Its family.
        families: All of them, for what foreign keys name.
        problems: Takes what is wrong.
        partial: True while further declarations may still come (`projections=`): what they could mend is no problem
            yet.
    """

    def __init__(
        self, member: Member, family: Family, families: Families, problems: Problems, *, partial: bool
    ) -> None:
        self.member, self.family, self.families = member, family, families
        self.problems, self.partial = problems, partial
        self.labels: list[tuple[str, tuple[str, ...]]] = []  # value nodes and stubs that the rules name
        self.files: dict[sa.Column[Any], bool] = {}  # column → managed_only
        self.linked: list[sa.Column[Any]] = []

    def rules(self) -> Iterator[Rule]:
        """Return the rules, in the order of the declarations."""
        for declaration in self.member.declarations:
            rule = None
            with self._noting(declaration):
                rule = self._bind(declaration)
            if rule is not None:
                yield rule

    @contextlib.contextmanager
    def _noting(self, declaration: Declaration) -> Iterator[None]:
        try:
            yield
        except NotProjected as problem:
            if not self.partial:
                self._note(declaration, problem)
        except Wrong as problem:
            self._note(declaration, problem)

    def _note(self, declaration: Declaration, problem: object) -> None:
        self.problems.add(self.member.model, declaration, str(problem))

    def _bind(self, declaration: Declaration) -> Rule | None:
        match declaration:
            case Node():
                return self._node(declaration)
            case Edge():
                return self._edge(declaration)
            case EdgeList():
                return self._edge_list(declaration)
            case Point():
                return self._point(declaration)
            case Projection():
                return self._function(declaration)
            case File():
                column = column_of(self.member.mapper, ref(declaration.column), "column")
                _check_text(column)
                self.files[column] = declaration.managed_only
            case LinkedFile():
                self.linked.append(column_of(self.member.mapper, ref(declaration.column), "column"))
        return None

    # Each argument is looked at by itself, and noted by itself: the user is told of every wrong one, not of the first.

    def _identifier(self, declaration: Declaration, name: object, what: str) -> None:
        with self._noting(declaration):
            check_identifier(name, what)

    # ------------------------------------------------------------------------------------------- nodes and edges

    def _node(self, node: Node) -> NodeRule:
        self._identifier(node, node.label, "label")
        self._identifier(node, node.id, "id")
        names, reads = self._names(node, pairs(node.properties), "properties")
        if node.id in dict(names):
            self._note(node, f"property {node.id!r} is its identity already; name one of the two differently")
        reads |= self._dependencies(node, refs(node.depends_on))
        return NodeRule(self._own(node.label), names, self._where, reads)

    def _own(self, label: str) -> KeyEnd:
        if self.family.key is None:
            raise Wrong(self.family.fault)
        return KeyEnd(label, self.family.node_ids.get(label, _STUB_ID), self.family.key)

    def _edge(self, edge: Edge) -> EdgeRule | None:
        self._identifier(edge, edge.type, "type")
        names, reads = self._names(edge, pairs(edge.properties), "properties")
        ends: list[tuple[End, Reads]] = []
        with self._noting(edge):
            ends.append(self._start(edge.from_))
        with self._noting(edge):
            ends.append(self._end(refs(edge.via), edge.to, "via"))
        if len(ends) < 2:  # noqa: PLR2004 - an edge has two ends
            return None
        (source, from_reads), (target, to_reads) = ends
        if edge.reverse:
            source, target = target, source
        return EdgeRule(edge.type, source, target, names, self._where, reads | from_reads | to_reads)

    def _edge_list(self, edges: EdgeList) -> EdgeListRule:
        self._identifier(edges, edges.type, "type")
        properties = tuple((name, str(member)) for name, member in pairs(edges.properties))
        for name, _ in properties:
            self._identifier(edges, name, "property")
        reads = Reads()
        with self._noting(edges):
            reads |= reads_of(self.member.mapper, ref(edges.items), "items")
        if not isinstance(edges.to, ValueNode):
            raise Wrong(f"to is {edges.to!r:.80}; expected a ValueNode, since items of a list have no keys")
        identity = self._value_node(edges.to)
        source, from_reads = self._start(edges.from_)
        name, reads = str(ref(edges.items)), reads | from_reads
        return EdgeListRule(edges.type, source, name, edges.to.label, identity, properties, self._where, reads)

    def _start(self, from_: object) -> tuple[End, Reads]:
        """Where an edge starts: the row's own node, or what another foreign key names."""
        own = {node.label for node in self.member.declarations if isinstance(node, Node)}
        names = () if from_ is None else refs(from_)
        if len(names) == 1 and names[0] in own:
            return self._own(names[0]), Reads()
        if names:
            return self._end(names, None, "from_")
        first = next((node.label for node in self.member.declarations if isinstance(node, Node)), None)
        if first is None:
            text = (
                "the class has no Node for the edge to start from; declare one, or name another foreign key with from_="
            )
            raise NotProjected(text) if self.partial and not self.family.node_ids else Wrong(text)
        return self._own(first), Reads()

    def _end(self, names: tuple[AttributeRef, ...], to: str | ValueNode | None, argument: str) -> tuple[End, Reads]:
        if not names:
            raise Wrong(f"{argument} is empty; expected the foreign key's attribute")
        if isinstance(to, ValueNode):
            identity = self._value_node(to)
            if len(identity) != len(names):
                raise Wrong(
                    f"{argument} has {len(names)} attributes, the identity of {to.label} {len(identity)}; give as many"
                )
            reads = Reads()
            for name in names:
                reads |= reads_of(self.member.mapper, name, argument)
            return ValueEnd(to.label, tuple(zip(identity, map(str, names), strict=True))), reads
        columns = [column_of(self.member.mapper, name, argument) for name in names]
        end = self._key_end(columns, to, argument)
        return end, Reads(frozenset(end.key.columns), frozenset(end.key.attributes))

    def _key_end(self, columns: list[sa.Column[Any]], to: str | None, argument: str) -> KeyEnd:
        if to is not None:
            check_identifier(to, "to")
        try:
            referenced = foreign_key(self.member, columns, self.families)
        except Wrong as error:
            raise type(error)(f"{argument} {str(columns[0].key)!r} {error}") from error
        if referenced is not None:
            label, name = self._label(referenced.family, to)
            return KeyEnd(label, name, referenced.key)
        owner = None if to is None else self.families.owner_of_label(to)
        if to is None or owner is None:
            near = did_you_mean(to, self._known_labels()) if to else ""
            fix = "add ForeignKey(…) to it, or name the label of a declared Node with to="
            text = f"{argument} {str(columns[0].key)!r} has no foreign key; {fix}{near}"
            raise NotProjected(text) if to else Wrong(text)
        key = loose_key(self.member, columns, owner)
        return KeyEnd(to, owner.node_ids[to], key)

    def _label(self, family: Family, to: str | None) -> tuple[str, str]:
        known = family.node_ids
        name = family.model.__name__
        if to is None:
            if len(known) == 1:
                return next(iter(known.items()))
            if known:
                raise Wrong(f"references {name}, which has several labels ({', '.join(known)}); say which with to=")
            fix = f'add Node("{name}") to its __projections__, or give to="{name}" for a node of its key alone'
            text = f"references {name}, which has no Node; {fix}"
            raise (Wrong if family.declares else NotProjected)(text)
        if to in known:
            return to, known[to]
        if known:
            raise Wrong(f"to={to!r} is no label of {name}; it has {', '.join(known)}{did_you_mean(to, known)}")
        owner = self.families.owner_of_label(to)
        if owner is not None:
            raise Wrong(f"to={to!r} is the label of {owner.model.__name__}, but the foreign key references {name}")
        self.labels.append((to, (_STUB_ID,)))
        return to, _STUB_ID

    def _known_labels(self) -> list[str]:
        return [label for family in self.families.sorted() for label in family.node_ids]

    def _value_node(self, node: ValueNode) -> tuple[str, ...]:
        check_identifier(node.label, "label")
        identity = words(node.identity)
        if not identity or len(set(identity)) < len(identity):
            raise Wrong(f"the identity of {node.label} is {identity!r}; expected distinct property names, one at least")
        for name in identity:
            check_identifier(name, "identity")
        self.labels.append((node.label, tuple(sorted(identity))))
        return identity

    # -------------------------------------------------------------------------------------- points and functions

    def _point(self, point: Point) -> PointRule:
        self._identifier(point, point.collection, "collection")
        names, reads = self._names(point, pairs(point.payload), "payload")
        reads |= self._dependencies(point, refs(point.depends_on))
        given = [
            (name, ref(value)) for name, value in (("text", point.text), ("vector", point.vector)) if value is not None
        ]
        for name, value in given:
            with self._noting(point):
                reads |= reads_of(self.member.mapper, value, name)
        if len(given) != 1:
            raise Wrong(f"has {'both' if given else 'neither'} of text= and vector=; give one")
        if point.dimension < 0 or (point.vector is None) != (not point.dimension):
            raise Wrong(f"has dimension={point.dimension}; give the vectors' length with vector=, and none with text=")
        sources = {name: str(value) for name, value in given}
        text, vector = sources.get("text"), sources.get("vector")
        return PointRule(point.collection, text, vector, point.dimension, names, self._where, reads)

    def _function(self, projection: Projection) -> FunctionRule:
        name = getattr(projection.function, "__qualname__", "")
        if not callable(projection.function) or not name or "<lambda>" in name:
            self._note(
                projection, "the function has no name of its own; define it with def: hashes know it by its name"
            )
        rule = FunctionRule(
            projection.function,
            str(projection.version),
            {label: tuple(sorted(words(identity))) for label, identity in dict(projection.labels).items()},
            {node.label: tuple(sorted(self._value_node(node))) for node in projection.values},
            {edge: tuple(sorted(ends)) for edge, ends in dict(projection.edges).items()},
            tuple(self._collections(projection)),
            self._where,
            self._function_reads(projection),
        )
        for label in rule.labels:
            self._identifier(projection, label, "label")
        for edge in rule.edges:
            self._identifier(projection, edge, "type")
        if not (rule.labels or rule.edges or rule.collections):
            raise Wrong("declares nothing that it yields; give labels=, edges= or collections=")
        return rule

    def _function_reads(self, projection: Projection) -> Reads:
        reads = self._dependencies(projection, refs(projection.depends_on))
        if projection.columns is None:
            return reads | Reads(columns=None)
        for name in refs(projection.columns):
            with self._noting(projection):
                reads |= Reads(frozenset({column_of(self.member.mapper, name, "columns")}), frozenset({str(name)}))
        return reads

    def _collections(self, projection: Projection) -> Iterator[CollectionPlan]:
        for collection in projection.collections:
            if isinstance(collection, CollectionPlan):
                self._identifier(projection, collection.name, "collection")
                yield collection
            else:
                seen = f"collections has {collection!r:.80}"
                self._note(projection, f"{seen}; expected CollectionPlan(name, dimension)")

    # ------------------------------------------------------------------------------------------------ attributes

    @property
    def _where(self) -> str:
        return self.member.model.__name__

    def _names(
        self, declaration: Declaration, found: tuple[tuple[str, AttributeRef], ...], argument: str
    ) -> tuple[Names, Reads]:
        reads, seen = Reads(), set[str]()
        for name, attribute in found:
            with self._noting(declaration):
                reads |= reads_of(self.member.mapper, attribute, argument)
                check_identifier(name, argument)
                if name in seen:
                    self._note(declaration, f"{argument} has {name!r} twice")
            seen.add(name)
        return tuple((name, str(attribute)) for name, attribute in found), reads

    def _dependencies(self, declaration: Declaration, names: tuple[AttributeRef, ...]) -> Reads:
        relations = self.member.mapper.relationships
        for name in names:
            if name.problem:
                self._note(declaration, f"depends_on: {name.problem}")
            elif name not in relations:
                near = did_you_mean(name, relations.keys()) or f"; it has {', '.join(relations.keys()) or 'none'}"
                self._note(declaration, f"depends_on: no relationship {str(name)!r}{near}")
        return Reads(relationships=tuple(sorted(str(name) for name in names if name in relations)))


def _check_text(column: sa.Column[Any]) -> None:
    kind = column.type.impl_instance if isinstance(column.type, sa.TypeDecorator) else column.type
    if not isinstance(kind, sa.String):
        raise Wrong(f"column {column.name!r} is of type {column.type!r}; expected text, which can hold an object key")
