"""What a row becomes in a target: nodes, edges, points, gathered in fragments with an owner and a digest.

Pure values, no I/O. A fragment is all that one row (its *owner*) has in one target; writing it replaces what the owner
had there before, an empty fragment removes it. The digest is a function of the content alone: the same on every
machine, in every process, in either store, so that verify can compare digests instead of contents.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from types import MappingProxyType

from fourfold.errors import ValidationError

__all__ = [
    "DIGEST_BYTES",
    "EdgeItem",
    "Fragment",
    "GraphFragment",
    "NodeItem",
    "NodeRef",
    "Owner",
    "OwnerDigest",
    "PointFragment",
    "PointItem",
    "Scalar",
    "Value",
    "check_value",
]

DIGEST_BYTES = 16  # 128 bits: for 2^40 fragments the chance of any two colliding is below 2^-48 (birthday bound)

Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...]
Properties = Mapping[str, Value]

# Made once: dumps() makes one a call.
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_INT_MAX = 2**63 - 1  # Neo4j, SQLite and Qdrant all hold signed 64-bit integers
_NOTHING: Properties = MappingProxyType({})


def check_value(value: object, where: str) -> Value:
    """Return `value` as a property value, lists as tuples.

    Args:
        value: str, bool, int of 64 bits, finite float, or a list of one of these types.
        where: Named in the error, as `Recording.title`.

    Raises:
        ValidationError: Code `projection.value`, for what some target can't hold.

    Example:
        >>> check_value(["a", "b"], "Photo.tags")
        ('a', 'b')
    """
    if isinstance(value, (list, tuple)):
        members = tuple(_check_scalar(member, where) for member in value)
        if len({type(member) for member in members}) > 1:
            message = f"{where}: a list of mixed types ({value!r:.80}) can't be stored in a graph"
            raise ValidationError(message, code="projection.value", hint="Use members of one type", where=where)
        return members
    return _check_scalar(value, where)


def _check_scalar(value: object, where: str) -> Scalar:
    problem = ""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if -_INT_MAX - 1 <= value <= _INT_MAX:
            return value
        problem = "is beyond 64 bits"
    elif isinstance(value, float):
        if math.isfinite(value):
            return value
        problem = "is not a finite number"
    elif isinstance(value, str):
        if "\x00" not in value and value.isascii():
            return value
        try:
            value.encode()
        except UnicodeEncodeError:
            problem = "has lone surrogates"
        else:
            if "\x00" not in value:
                return value
            problem = "has a NUL character"
    else:
        problem = f"is of type {type(value).__name__}"
    expected = "expected str, bool, 64-bit int, finite float, or a list of one of these"
    message = f"{where}: {value!r:.80} {problem}; {expected}"
    raise ValidationError(message, code="projection.value", hint="Convert it in the projection", where=where)


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """The row that a fragment comes from: table and encoded primary key.

    Example:
        >>> str(Owner("recordings", "7"))
        'recordings:7'
    """

    table: str
    key: str

    def __str__(self) -> str:
        return f"{self.table}:{self.key}"

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Read what `str(owner)` wrote; a table's name has no colon."""
        table, _, key = text.partition(":")
        return cls(table, key)

    @property
    def hash(self) -> bytes:
        """128 bits to order owners by: stores sort text differently, but bytes and hexadecimal digits alike."""
        return blake2b(str(self).encode(), digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class OwnerDigest:
    """What a target says of one owner: whose it is, and the digest that was written with the data."""

    owner: Owner
    digest: bytes


@dataclass(frozen=True, slots=True)
class NodeRef:
    """Names a node: a label, and the properties that identify it under that label (sorted by name).

    Example:
        >>> NodeRef.of("Track", title="Dawn", artist="Ada").key
        '["Ada","Dawn"]'
    """

    label: str
    identity: tuple[tuple[str, Scalar], ...]

    @classmethod
    def of(cls, label: str, **identity: Scalar) -> NodeRef:
        """Build one from keyword arguments."""
        return cls(label, tuple(sorted(identity.items())))

    @property
    def key(self) -> str:
        """Canonical text of the identity's values, unique under the label."""
        return _JSON.encode([value for _, value in self.identity])


@dataclass(frozen=True, slots=True)
class NodeItem:
    """A node that its owner's row becomes.

    Args:
        ref: Its label and identity.
        properties: Its other properties, without those of the identity.

    Example:
        >>> NodeItem(NodeRef.of("Cell", id="u281z"), {"level": 5}).properties["level"]
        5
    """

    ref: NodeRef
    properties: Properties = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class EdgeItem:
    """A typed edge between two nodes; either end may not be there yet (it becomes a stub until its owner writes it).

    Args:
        type: Its type.
        source: Where it starts.
        target: Where it ends.
        properties: Its properties.

    Example:
        >>> EdgeItem("IN", NodeRef.of("Place", id=7), NodeRef.of("Cell", id="u281z")).target.label
        'Cell'
    """

    type: str
    source: NodeRef
    target: NodeRef
    properties: Properties = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class PointItem:
    """A point in a vector collection; with neither vector nor text there is none.

    Args:
        vector: Of the collection's dimension.
        text: To embed, where there is no vector.
        payload: What filters may ask for.

    Example:
        >>> PointItem(text="first song of the night", payload={"year": 2024}).vector is None
        True
    """

    vector: tuple[float, ...] | None = None
    text: str | None = None
    payload: Properties = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True)
class GraphFragment:
    """All that one owner has in the graph. Order of items is kept: it is their ordinal."""

    owner: Owner
    nodes: tuple[NodeItem, ...] = ()
    edges: tuple[EdgeItem, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when the owner has nothing in the target (its row is gone, or projects to nothing)."""
        return not (self.nodes or self.edges)

    @cached_property
    def digest(self) -> bytes:
        """128 bits of the content; independent of the order of items and of properties."""
        nodes = sorted(_canonical([n.ref.label, n.ref.identity, sorted(n.properties.items())]) for n in self.nodes)
        edges = sorted(
            _canonical(
                [
                    e.type,
                    e.source.label,
                    e.source.identity,
                    e.target.label,
                    e.target.identity,
                    sorted(e.properties.items()),
                ]
            )
            for e in self.edges
        )
        return _digest(nodes, edges)


@dataclass(frozen=True)
class PointFragment:
    """All that one owner has in one vector collection; `model` names what embeds its texts."""

    owner: Owner
    collection: str
    points: tuple[PointItem, ...] = ()
    model: str = ""

    @property
    def is_empty(self) -> bool:
        """True when the owner has nothing in the target."""
        return not self.points

    @cached_property
    def digest(self) -> bytes:
        """128 bits of what the points come from; order counts: it is the ordinal.

        A point with a text counts as model, text and payload, without its vector: the same before and after embedding,
        and whatever the provider's last digits were. A point without one counts as its given vector (as 32-bit floats)
        and payload. So an altered vector of a text is found by comparing vectors (`VectorCollection.read_vectors`).
        """
        return _digest(
            [
                _canonical(
                    [
                        "" if point.text is None else self.model,
                        point.text,
                        _vector_hex(point.vector) if point.text is None else None,
                        sorted(point.payload.items()),
                    ]
                )
                for point in self.points
            ]
        )


Fragment = GraphFragment | PointFragment


def _vector_hex(vector: tuple[float, ...] | None) -> str | None:
    return None if vector is None else struct.pack(f"<{len(vector)}f", *vector).hex()


def _canonical(value: object) -> bytes:
    # JSON tells 1, 1.0, true and "1" apart, and Python's repr of a float is the shortest that reads back: exact.
    return _JSON.encode(value).encode()


def _digest(*groups: list[bytes]) -> bytes:
    state = blake2b(digest_size=DIGEST_BYTES)
    for group in groups:
        state.update(struct.pack("<Q", len(group)))
        for member in group:
            state.update(struct.pack("<Q", len(member)))
            state.update(member)
    return state.digest()
