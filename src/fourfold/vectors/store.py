"""What a vector store promises: collections that know their model and dimension, each of them a target of the relay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fourfold.projection.items import PointFragment
from fourfold.projection.target import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from fourfold.projection.items import Owner, Value

__all__ = ["CollectionSpec", "Hit", "VectorCollection", "VectorStore"]


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """A collection: name, what makes its vectors, their dimension, and the payload fields that filters may use."""

    name: str
    model: str
    dimension: int
    payload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A point found: whose it is, its ordinal under that owner, cosine similarity (−1 to 1), and its payload."""

    owner: Owner
    ordinal: int
    score: float
    payload: Mapping[str, Value] = field(default_factory=dict)


class VectorCollection(Target[PointFragment], Protocol):
    """One collection; fragments arrive here with every point's vector filled in."""

    @property
    def spec(self) -> CollectionSpec:
        """Model, dimension and payload fields."""
        ...

    async def nearest(
        self, vector: Sequence[float], *, limit: int = 10, where: Mapping[str, Value | Sequence[Value]] | None = None
    ) -> list[Hit]:
        """The `limit` points of highest cosine similarity, best first (ties by owner and ordinal).

        `where` filters by payload: a scalar is equality, a list is membership, a list-valued field matches by any
        member.
        """
        ...

    async def read_vectors(self, owners: Sequence[Owner]) -> Mapping[Owner, tuple[tuple[float, ...], ...]]:
        """The stored vectors by ordinal, for deep verify."""
        ...

    async def count(self) -> int:
        """Number of points."""
        ...


class VectorStore(Protocol):
    """Holds collections."""

    async def ensure_collection(self, spec: CollectionSpec) -> VectorCollection:
        """Make the collection if missing.

        Raises:
            ConfigurationError: Code `vectors.collection`, when one is there with another model or dimension; names
                both.
        """
        ...

    def collections(self) -> AsyncIterator[CollectionSpec]:
        """Every collection that is there."""
        ...

    async def close(self) -> None:
        """Release connections; safe to call twice."""
        ...
