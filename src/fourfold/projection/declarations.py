"""What a user writes in `__projections__`: which nodes, edges, points and files the rows of a class become.

Values only: nothing is looked up here, and nothing raises. They are bound to mapped classes, and checked all at once,
by `projection.plan` when the mappers are configured. Attributes are given by name, as `Recording.title`, or as a
property.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from fourfold.projection.attributes import Attribute, Attributes, Named, pairs, ref, refs, words
from fourfold.projection.items import EdgeItem, NodeItem, PointItem

__all__ = [
    "CollectionPlan",
    "Declaration",
    "Edge",
    "EdgeList",
    "File",
    "LinkedFile",
    "Node",
    "Point",
    "Projection",
    "ValueNode",
]

Emitted = NodeItem | EdgeItem | PointItem | tuple[str, PointItem]


def _set(declaration: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(declaration, name, value)  # frozen: only while it is being made


@dataclass(frozen=True, slots=True)
class Node:
    """The row becomes a node.

    Args:
        label: Its label; one class owns a label.
        id: Name of the property that identifies it: an integer key as it is, any other key as its text, a composite one
            as the text of all its parts.
        properties: Attributes to copy, or a mapping of property names to attributes. None values are left out.
        depends_on: Relationships that properties read; a change there projects this row again.

    Example:
        >>> Node("Recording", id="uuid", properties={"name": "file_name"}).properties
        (('name', 'file_name'),)
    """

    label: str
    _: KW_ONLY
    id: str = "id"
    properties: Named = ()
    depends_on: Attributes = ()

    def __post_init__(self) -> None:
        _set(self, properties=pairs(self.properties), depends_on=refs(self.depends_on))


@dataclass(frozen=True, slots=True)
class ValueNode:
    """A node that is nothing but its identity, shared by all who name it: a track, a genre, a tag.

    It lives as long as an edge needs it. As the `to=` of an `Edge` the identity comes from the columns of `via` in
    their order, of an `EdgeList` from the members of each item.

    Example:
        >>> ValueNode("Track", identity=("title", "artist")).identity
        ('title', 'artist')
    """

    label: str
    identity: Sequence[str] = ("name",)

    def __post_init__(self) -> None:
        _set(self, identity=words(self.identity))


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge from the row's node to what a foreign key names, or to a value node.

    Args:
        type: Its type.
        via: The foreign key's attribute (a tuple of attributes for a composite one). NULL: no edge. With a `ValueNode`,
            the attributes that hold its identity.
        to: The label at the other end, where the referenced class has several or none (then: a stub with its `id`), or
            where the column has no foreign key constraint; or a `ValueNode`.
        from_: Where it starts: another foreign key's attribute, for a class without a node (an association table); or
            one of the class's own labels, where it has several (default: the first).
        reverse: Turn it: from what the foreign key names to this row's node.
        properties: Attributes to copy to the edge, as in `Node`.

    Example:
        >>> edge = Edge("HAS_METADATA", "recording_id", reverse=True)
        >>> genre = Edge("IN_GENRE", "genre", to=ValueNode("Genre"))
        >>> friend = Edge("KNOWS", "person2_id", from_="person1_id", properties=("since",))
    """

    type: str
    via: Attributes
    _: KW_ONLY
    to: str | ValueNode | None = None
    from_: Attributes | None = None
    reverse: bool = False
    properties: Named = ()

    def __post_init__(self) -> None:
        _set(self, via=refs(self.via), properties=pairs(self.properties))
        _set(self, from_=None if self.from_ is None else refs(self.from_))


@dataclass(frozen=True, slots=True)
class EdgeList:
    """Edges from the row's node to value nodes, one per item of a list (JSON or array column); NULL is an empty list.

    Args:
        type: Their type.
        items: The attribute that holds the list: objects, or plain values where the identity is one property.
        to: The value node; each member of its identity must be in each item, else the row is refused when it is
            projected, naming index and member.
        from_: As in `Edge`.
        properties: Members of the items to copy to the edges, or a mapping of property names to members.

    Example:
        >>> tracks = EdgeList(
        ...     "CONTAINS_TRACK", "tracks", to=ValueNode("Track", ("title", "artist")), properties=("start_time",)
        ... )
        >>> tags = EdgeList("TAGGED", "keywords", to=ValueNode("Tag"))
    """

    type: str
    items: Attribute
    _: KW_ONLY
    to: ValueNode
    from_: Attributes | None = None
    properties: str | Sequence[str] | Mapping[str, str] | Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        _set(self, items=ref(self.items), properties=pairs(self.properties))
        _set(self, from_=None if self.from_ is None else refs(self.from_))


@dataclass(frozen=True, slots=True)
class Point:
    """A point in a vector collection, made from a text (embedded) or a vector that the row holds.

    Args:
        collection: Its name; a collection takes texts or vectors, not both.
        text: Attribute or property with the text; None or blank: no point.
        vector: Attribute or property with the vector; None: no point.
        dimension: Length of the vectors, with `vector`; with `text` the embedder knows it.
        payload: Attributes to store with it, for filters, as `properties` in `Node`.
        depends_on: Relationships that text, vector or payload read.

    Example:
        >>> point = Point("recordings", text="search_text", payload=("file_name",), depends_on=("tracklist",))
    """

    collection: str
    _: KW_ONLY
    text: Attribute | None = None
    vector: Attribute | None = None
    dimension: int = 0
    payload: Named = ()
    depends_on: Attributes = ()

    def __post_init__(self) -> None:
        _set(self, payload=pairs(self.payload), depends_on=refs(self.depends_on))
        _set(self, text=None if self.text is None else ref(self.text))
        _set(self, vector=None if self.vector is None else ref(self.vector))


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """What the declarations say of a vector collection.

    Args:
        name: Its name.
        dimension: Length of the vectors that its rows hold; 0 for a collection of texts, where the embedder knows it.
        payload: Names of the payload's fields.
    """

    name: str
    dimension: int = 0
    payload: Sequence[str] = ()

    def __post_init__(self) -> None:
        _set(self, payload=words(self.payload))

    @property
    def uses_text(self) -> bool:
        """Whether texts are embedded for it."""
        return not self.dimension


@dataclass(frozen=True, slots=True)
class Projection:
    """A function of the row, for what the other declarations don't cover.

    It must be pure: the same row gives the same items, on any machine. It is called once per target and yields
    `NodeItem`, `EdgeItem`, and `(collection, PointItem)` (or just `PointItem`, where it declares one collection). What
    it doesn't declare here, it may not yield. Values are taken as everywhere: dates become text, None is left out.

    Args:
        function: Takes the instance, returns items. It needs a name of its own (no lambda): name and `version` stand
            for it in the hash by which workers recognize each other's declarations.
        columns: Attributes that it reads; a change elsewhere doesn't call it. None: any column.
        labels: Label → identity property names, of nodes that it yields.
        values: Value nodes that its edges name.
        edges: Type → pairs of (label at the start, label at the end).
        collections: Collections that it yields points for.
        depends_on: Relationships that it reads.
        version: Change it when the function gives something else for the same row: its source isn't looked at, because
            a comment or another Python version would project every row again, and what it calls wouldn't be seen.

    Example:
        >>> def near(place): ...
        >>> projection = Projection(
        ...     near, columns=("lat", "lon"), labels={"Cell": "id"}, edges={"IN": [("Place", "Cell")]}
        ... )
        >>> projection.edges
        (('IN', (('Place', 'Cell'),)),)
    """

    function: Callable[[Any], Iterable[Emitted]]
    _: KW_ONLY
    columns: Attributes | None = None
    labels: Mapping[str, str | Sequence[str]] | Sequence[tuple[str, Sequence[str]]] = ()
    values: Sequence[ValueNode] = ()
    edges: Mapping[str, Iterable[tuple[str, str]]] | Sequence[tuple[str, Iterable[tuple[str, str]]]] = ()
    collections: Sequence[CollectionPlan] = ()
    depends_on: Attributes = ()
    version: str = "1"

    def __post_init__(self) -> None:
        labels = self.labels.items() if isinstance(self.labels, Mapping) else self.labels
        edges = self.edges.items() if isinstance(self.edges, Mapping) else self.edges
        _set(
            self,
            columns=None if self.columns is None else refs(self.columns),
            labels=tuple((label, words(identity)) for label, identity in labels),
            values=tuple(self.values),
            edges=tuple((name, tuple((source, end) for source, end in ends)) for name, ends in edges),
            collections=tuple(self.collections),
            depends_on=refs(self.depends_on),
        )


@dataclass(frozen=True, slots=True)
class File:
    """A text column that names objects: mirrored into the registry, so that no row names a file that isn't there.

    Columns of type `FileKey` need no declaration.

    Args:
        column: The attribute.
        managed_only: False (default): it may hold outside paths too; what has the form of an object key is an object.

    Example:
        >>> File("file_path").managed_only
        False
    """

    column: Attribute
    _: KW_ONLY
    managed_only: bool = False

    def __post_init__(self) -> None:
        _set(self, column=ref(self.column))


@dataclass(frozen=True, slots=True)
class LinkedFile:
    """A column such as `file_path`, whose managed file is linked by the repository (`files.link`), not by its value.

    The link goes when the row goes or the column's value changes.

    Example:
        >>> linked = LinkedFile("file_path")
    """

    column: Attribute

    def __post_init__(self) -> None:
        _set(self, column=ref(self.column))


Declaration = Node | Edge | EdgeList | Point | Projection | File | LinkedFile
