"""What a graph store promises: a target of the relay that also answers patterns and tells of itself.

`graph.sqlite.SqliteGraphStore` is the embedded one; `fourfold.testing.graph.GraphStoreContract` is the suite that each
must pass. A write is durable on return; there is nothing to flush. Only what carries an owner mark, and stubs, is ever
changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from fourfold.projection.items import GraphFragment
from fourfold.projection.target import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fourfold.graph.patterns import Query
    from fourfold.graph.schema import GraphSchema
    from fourfold.graph.values import Row
    from fourfold.projection.items import Value

__all__ = ["ForeignItem", "GraphStatistics", "GraphStore"]


@dataclass(frozen=True, slots=True)
class GraphStatistics:
    """What a graph holds: nodes and stubs by label (a stub is counted in both), edges by type, owners by table."""

    nodes: Mapping[str, int]
    edges: Mapping[str, int]
    stubs: Mapping[str, int]
    owners: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ForeignItem:
    """A node or edge that nobody's row owns and that is no stub: somebody else's. Reported, never touched."""

    kind: Literal["node", "edge"]
    name: str  # label or type
    properties: Mapping[str, Value]


class GraphStore(Target[GraphFragment], Protocol):
    """A graph of owned fragments.

    Any order of owners gives the same graph. An edge whose end isn't there makes a *stub* (the identity's properties
    only); the end's own fragment fills it; a deleted node that others' edges still need falls back to a stub; a stub
    that no edge needs goes. A *value node* (a track by title and artist) is a stub that nobody owns.

    `write` raises besides what `Target` says:
        ConflictError: Code `graph.conflict`, facts `owner`, `other`, `node`: another row has the node. Whatever the
            written owners no longer have is given up first, so a node may move between owners in one call.
        ConflictError: Code `graph.foreign`, facts `owner`, `node`: a node without owner mark is in the place.
        ConfigurationError: Code `graph.schema`: a label or type that the schema of `ensure_schema` doesn't know.
        ValidationError: Code `graph.fragment`: an owner twice in one call, or a node twice in one fragment.
    """

    async def ensure_schema(self, schema: GraphSchema) -> None:
        """Make what the schema needs (uniqueness, indexes), and check writes and queries against it from now on.

        Idempotent. Nothing is removed: another process may still work with older declarations.
        """
        ...

    async def match(self, query: Query) -> list[Row]:
        """Answer a pattern, from one snapshot.

        The answer is held in memory: give a `limit` where it may be large. When the waiting task is cancelled (a
        timeout), the query is stopped.

        Raises:
            ValidationError: Code `graph.unknown`: a label or type that the known schema doesn't have.
        """
        ...

    async def statistics(self) -> GraphStatistics:
        """Count nodes, edges, stubs and owners."""
        ...

    async def count_orphans(self) -> int:
        """Count stubs that no edge needs: there are none, unless somebody else removed an edge."""
        ...

    async def remove_orphans(self) -> int:
        """Remove stubs that no edge needs, and return their number. Idempotent; safe while others write."""
        ...

    def foreign(self) -> AsyncIterator[ForeignItem]:
        """Items without owner mark that are no stubs, for a report; memory is bounded."""
        ...
