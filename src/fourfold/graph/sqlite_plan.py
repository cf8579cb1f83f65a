"""What a write has to do to the tables: wanted fragments minus what their owners have. Pure; `sqlite` runs it.

The caller holds the write lock from the reading of the state to the commit, so ids can be given here and nothing
changes between. Whatever the written owners no longer have is given up before anything is taken: a node may move
between owners. Texts are made by `dump`, key and values at once: it runs for each of hundreds of thousands of items.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, NamedTuple

from fourfold.errors import ConfigurationError, ConflictError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fourfold.graph.schema import GraphSchema
    from fourfold.projection.items import GraphFragment, NodeRef, Owner

__all__ = [
    "Changed",
    "Edge",
    "HeldEdge",
    "HeldNode",
    "Place",
    "Plan",
    "State",
    "Wanted",
    "dump",
    "dump_key",
    "plan",
    "rows",
    "want",
]

_FOREIGN = 0  # no row of ours: owner ids begin at 1

Place = tuple[str, str]  # label and key: where a node stands
Edge = tuple[str, int, int, str]  # type, source, target, properties


def dump(properties: Mapping[str, Any]) -> str:
    """Return the canonical JSON text of properties: sorted, no spaces, exact floats.

    Example:
        >>> dump({"b": (1, 2.0), "a": "x"})
        '{"a":"x","b":[1,2.0]}'
    """
    if not properties:
        return "{}"
    return "{" + ",".join([f"{encode_basestring(name)}:{_text(properties[name])}" for name in sorted(properties)]) + "}"


def dump_key(ref: NodeRef) -> str:
    """Return `ref.key`, several times as fast."""
    return "[" + ",".join([_text(value) for _, value in ref.identity]) + "]"


def _text(value: Any) -> str:
    # json.dumps builds an encoder for each call with options: more than these few lines do.
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is int or kind is float:
        return repr(value)
    if kind is bool:
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(slots=True)
class HeldNode:
    """A node in the table: `owner` is None for a stub, 0 for a foreign node; `properties` only if they're compared."""

    id: int
    owner: int | None
    identity: str
    properties: str | None
    place: Place


class HeldEdge(NamedTuple):
    """An edge in the table."""

    id: int
    owner: int
    content: Edge


class Changed(NamedTuple):
    """A fragment to write, under the id of its owner, old or new."""

    owner_id: int
    fragment: GraphFragment
    hash: bytes


class WantedNode(NamedTuple):
    """A node as its owner wants it."""

    place: Place
    owner_id: int
    identity: str
    properties: str
    ref: NodeRef


@dataclass(slots=True)
class Wanted:
    """The contents of the fragments that changed, as rows. Owners are ids: a row key is slow to look up."""

    owners: dict[int, Owner] = field(default_factory=dict)
    nodes: list[WantedNode] = field(default_factory=list)
    edges: list[tuple[int, list[tuple[str, Place, Place, str]]]] = field(default_factory=list)  # by owner
    ends: dict[Place, NodeRef] = field(default_factory=dict)  # of edges

    def keys(self) -> Mapping[str, set[str]]:
        """Every node that is spoken of: keys by label."""
        keys: defaultdict[str, set[str]] = defaultdict(set)
        for node in self.nodes:
            label, key = node.place
            keys[label].add(key)
        for label, key in self.ends:
            keys[label].add(key)
        return keys


@dataclass(slots=True)
class State:
    """What the tables hold of it: the owners' own items, these and others' nodes by their places, free ids."""

    own_nodes: list[HeldNode]
    own_edges: list[HeldEdge]
    places: dict[Place, HeldNode]
    next_node: int
    next_edge: int


@dataclass(slots=True)
class Plan:
    """Rows to write, in the order of the statements' parameters."""

    insert_nodes: list[tuple[int, str, str, str, str, int | None, int]] = field(default_factory=list)
    rewrite_nodes: list[tuple[str, int]] = field(default_factory=list)  # properties, id
    own_nodes: list[tuple[str, int | None, int, int]] = field(default_factory=list)  # properties, owner, stub, id
    insert_edges: list[tuple[int, str, int, int, str, int]] = field(default_factory=list)
    delete_edges: list[int] = field(default_factory=list)
    loose: set[int] = field(default_factory=set)  # nodes that may be stubs without edges afterwards


def want(changed: Sequence[Changed], schema: GraphSchema | None) -> Wanted:
    """Turn fragments into rows.

    Raises:
        ConfigurationError: Code `graph.schema`, for what the schema doesn't know.
        ValidationError: Code `graph.fragment`: a node twice, or an identity's property among the others.
    """
    wanted = Wanted()
    types: set[str] = set()
    for owner_id, fragment, _ in changed:
        wanted.owners[owner_id] = fragment.owner
        wanted.nodes += _want_nodes(owner_id, fragment, schema)
        edges = []
        for edge in fragment.edges:
            types.add(edge.type)
            source = edge.source.label, dump_key(edge.source)
            target = edge.target.label, dump_key(edge.target)
            for place, ref in ((source, edge.source), (target, edge.target)):
                if place not in wanted.ends:
                    if schema is not None:
                        schema.check_ref(ref)
                    wanted.ends[place] = ref
            edges.append((edge.type, source, target, dump(edge.properties)))
        wanted.edges.append((owner_id, edges))
    if schema is not None:
        for edge_type in types:
            schema.check_type(edge_type)
    wanted.nodes.sort()  # ids are given, and rows written, in the order of the unique index: neighbours share its pages
    return wanted


def _want_nodes(owner_id: int, fragment: GraphFragment, schema: GraphSchema | None) -> Iterable[WantedNode]:
    nodes: dict[Place, WantedNode] = {}
    for item in fragment.nodes:
        ref = item.ref
        if schema is not None:
            schema.check_ref(ref)
        place = ref.label, dump_key(ref)
        properties = {**dict(ref.identity), **item.properties}
        if place in nodes or len(properties) < len(ref.identity) + len(item.properties):
            problem = "is in it twice" if place in nodes else "repeats properties of its identity"
            message = f"Fragment of {str(fragment.owner)!r}: node {place[0]} {place[1]} {problem}"
            hint = "Correct the projection"
            raise ValidationError(message, code="graph.fragment", hint=hint, owner=fragment.owner)
        nodes[place] = WantedNode(place, owner_id, _names(ref), dump(properties), ref)
    return nodes.values()


def _names(ref: NodeRef) -> str:
    return "[" + ",".join([encode_basestring(name) for name, _ in ref.identity]) + "]"


def plan(wanted: Wanted, state: State) -> Plan:
    """Return what to do.

    Raises:
        ConflictError: Code `graph.conflict` (fact `other` is the other owner's id), `graph.foreign`.
        ConfigurationError: Code `graph.schema`: the node there is identified by properties of other names.
    """
    made = Plan()
    released = _release(wanted, state)
    for node in wanted.nodes:
        _take(node, wanted, state, made, released)
    for held in released.values():
        names, values = json.loads(held.identity), json.loads(held.place[1])
        held.owner, held.properties = None, dump(dict(zip(names, values, strict=True)))
        made.own_nodes.append((held.properties, None, 1, held.id))
        made.loose.add(held.id)
    _connect(wanted, state, made)
    return made


def _release(wanted: Wanted, state: State) -> dict[int, HeldNode]:
    """Give up the nodes that the written owners no longer want; they are anybody's now."""
    kept = {(node.owner_id, node.place) for node in wanted.nodes}
    released: dict[int, HeldNode] = {}
    for held in state.own_nodes:
        if (held.owner, held.place) not in kept:
            released[held.id] = held
    return released


def _take(node: WantedNode, wanted: Wanted, state: State, made: Plan, released: dict[int, HeldNode]) -> None:
    owner_id = node.owner_id
    held = state.places.get(node.place)
    if held is None:
        state.places[node.place] = HeldNode(state.next_node, owner_id, node.identity, node.properties, node.place)
        made.insert_nodes.append((state.next_node, *node.place, node.identity, node.properties, owner_id, 0))
        state.next_node += 1
        return
    _check_identity(node.identity, held)
    if held.owner == owner_id and held.id not in released:
        if held.properties != node.properties:
            made.rewrite_nodes.append((node.properties, held.id))
        return
    if held.owner is not None and held.id not in released:
        raise _conflict(wanted, node, held)
    released.pop(held.id, None)
    held.owner, held.properties = owner_id, node.properties
    made.own_nodes.append((node.properties, owner_id, 0, held.id))


def _conflict(wanted: Wanted, node: WantedNode, held: HeldNode) -> ConflictError:
    owner, ref = wanted.owners[node.owner_id], node.ref
    where = f"node {held.place[0]} {held.place[1]}"
    if held.owner == _FOREIGN:
        message = f"Row {str(owner)!r} wants {where}, but a node without owner mark is there"
        hint = "Remove that node, or project the row to another label"
        return ConflictError(message, code="graph.foreign", hint=hint, owner=owner, node=ref)
    message = f"Row {str(owner)!r} wants {where}, but another row has it"
    hint = "Two rows project to one node: give them different identities"
    return ConflictError(message, code="graph.conflict", hint=hint, owner=owner, other=held.owner, node=ref)


def _check_identity(identity: str, held: HeldNode) -> None:
    if identity != held.identity:
        message = f"Label {held.place[0]!r} is identified by {identity}; the graph has it by {held.identity}"
        hint = "Identify a label by the same properties everywhere; after a change run `fourfold rebuild`"
        raise ConfigurationError(message, code="graph.schema", hint=hint)


def _connect(wanted: Wanted, state: State, made: Plan) -> None:
    """Find or make the ends, and compare edges as multisets: an owner may have an edge twice."""
    ids = {place: _end(place, ref, state, made) for place, ref in wanted.ends.items()}
    held: defaultdict[int, list[HeldEdge]] = defaultdict(list)
    for edge in state.own_edges:
        held[edge.owner].append(edge)
    for owner_id, edges in wanted.edges:
        contents: Iterable[Edge] = [(kind, ids[source], ids[target], text) for kind, source, target, text in edges]
        if owner_id in held:
            missing = Counter(contents)
            for edge in held[owner_id]:
                if missing.get(edge.content):
                    missing[edge.content] -= 1
                else:
                    made.delete_edges.append(edge.id)
                    made.loose.update(edge.content[1:3])
            contents = missing.elements()
        for content in contents:
            made.insert_edges.append((state.next_edge, *content, owner_id))
            state.next_edge += 1


def _end(place: Place, ref: NodeRef, state: State, made: Plan) -> int:
    held = state.places.get(place)
    if held is not None and held.owner is not None:
        return held.id
    properties = dump(dict(ref.identity))
    if held is None:
        held = HeldNode(state.next_node, None, _names(ref), properties, place)
        state.places[place] = held
        state.next_node += 1
        made.insert_nodes.append((held.id, *place, held.identity, properties, None, 1))
    elif held.properties != properties:  # altered behind our back: deep verify sent us
        _check_identity(_names(ref), held)
        made.rewrite_nodes.append((properties, held.id))
    return held.id


def rows(values: Iterable[object]) -> str:
    """Return values as a JSON list, to be bound as one parameter and unfolded by `json_each`."""
    return json.dumps(list(values), ensure_ascii=False)
