"""What brings a lot of keys to its target, whatever the target is.

A `Delivery` hides how a target's truth is read and written; claim, settle and worker are the same for all. `bring`
returns the keys that failed *alone*; it raises `StoreUnavailableError` when the target (or the embedder) is away or
the outcome is unknown, and `RevokedError` when the lot is no longer ours. `FragmentDelivery` serves graph and vector
collections (fenced), `RemovalDelivery` the bytes of files that no row names (no fence needed: a UUID is never written
twice).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from fourfold.errors import FourfoldError, RevokedError
from fourfold.faultpoints import reach
from fourfold.pieces import halves
from fourfold.projection.items import PointFragment
from fourfold.relay.project import project
from fourfold.relay.settle import Failure, concerns_all
from fourfold.rows.engine import read_transaction

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.objects.collection import FilesTarget
    from fourfold.projection.items import Fragment
    from fourfold.projection.plan import Plan
    from fourfold.projection.target import Target
    from fourfold.relay.claim import WorkKey
    from fourfold.relay.embedding import EmbeddingCache

__all__ = ["Delivery", "FragmentDelivery", "RemovalDelivery"]


class Delivery(Protocol):
    """The relay's view of one target."""

    @property
    def name(self) -> str:
        """Name of the target, as in the queue."""
        ...

    @property
    def lot_size(self) -> int:
        """Most keys of one claim."""
        ...

    async def create_token(self, token: int) -> None:
        """Make a token known in the target."""
        ...

    async def revoke_tokens(self, tokens: Collection[int]) -> None:
        """Remove tokens from the target."""
        ...

    async def bring(self, token: int, keys: Sequence[WorkKey]) -> list[Failure]:
        """Bring keys up to date, durably; return those that failed alone."""
        ...


class FragmentDelivery:
    """Reads rows, projects them, embeds texts, and replaces fragments in a fenced target.

    Args:
        engine: Of the rows; always the primary.
        plan: The declarations.
        target: The graph, or a vector collection.
        models: Embedding model of each collection.
        embedding: Embeds texts with a cache; None where no declaration needs it.
        lot_size: Most keys of one claim.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        plan: Plan,
        target: Target[Any],
        *,
        models: Mapping[str, str],
        embedding: EmbeddingCache | None = None,
        lot_size: int = 500,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self.target = target
        self._models = models
        self._embedding = embedding
        self.lot_size = lot_size

    @property
    def name(self) -> str:
        """Name of the target."""
        return self.target.name

    async def create_token(self, token: int) -> None:
        """Make a token known in the target."""
        await self.target.create_token(token)

    async def revoke_tokens(self, tokens: Collection[int]) -> None:
        """Remove tokens from the target."""
        await self.target.revoke_tokens(tokens)

    async def bring(self, token: int, keys: Sequence[WorkKey]) -> list[Failure]:
        """Read in a new snapshot, project, write."""
        async with read_transaction(self._engine) as connection:
            await reach("relay.read_before")
            fragments, failures = await project(connection, self._plan, self.name, keys, self._models)
        await reach("relay.read_after")
        works = {(work.table, work.key): work for work in keys}
        embedded, unembedded = await self._embed(fragments, works)
        return [*failures, *unembedded, *await self._write(token, embedded, works)]

    async def _embed(
        self, fragments: Sequence[Fragment], works: Mapping[tuple[str, str], WorkKey]
    ) -> tuple[Sequence[Fragment], list[Failure]]:
        if self._embedding is None:
            return fragments, []
        try:
            return await _with_vectors(self._embedding, fragments), []
        except FourfoldError as error:
            if not await self._embedding.is_a_texts_fault(error):
                raise
            if len(fragments) == 1:
                owner = fragments[0].owner
                return [], [Failure(works[owner.table, owner.key], error.code, str(error))]
        embedded: list[Fragment] = []
        failures: list[Failure] = []
        for half in halves(fragments):
            done, failed = await self._embed(half, works)
            embedded += done
            failures += failed
        return embedded, failures

    async def _write(
        self, token: int, fragments: Sequence[Fragment], works: Mapping[tuple[str, str], WorkKey]
    ) -> list[Failure]:
        if not fragments:
            return []
        try:
            await reach("relay.write_before")
            await self.target.write(token, fragments)
            await reach("relay.write_after")
        except RevokedError:
            raise
        except FourfoldError as error:
            # Refused as a whole, nothing written, outcome known: split to find who it was, under the same token.
            if concerns_all(error):
                raise
            if len(fragments) == 1:
                owner = fragments[0].owner
                return [Failure(works[owner.table, owner.key], error.code, str(error))]
        else:
            return []
        failures = []
        for half in halves(fragments):
            failures += await self._write(token, half, works)
        return failures


async def _with_vectors(embedding: EmbeddingCache, fragments: Sequence[Fragment]) -> Sequence[Fragment]:
    texts = [
        point.text
        for fragment in fragments
        if isinstance(fragment, PointFragment)
        for point in fragment.points
        if point.vector is None and point.text is not None
    ]
    if not texts:
        return fragments
    vectors = iter(await embedding.embed(texts))
    return [
        replace(
            fragment,
            points=tuple(
                replace(point, vector=next(vectors)) if point.vector is None and point.text is not None else point
                for point in fragment.points
            ),
        )
        if isinstance(fragment, PointFragment)
        else fragment
        for fragment in fragments
    ]


class RemovalDelivery:
    """Removes the bytes of objects whose registry row is gone; the truth is `fourfold_object`."""

    name = "files"
    lot_size = 100

    def __init__(self, files: FilesTarget) -> None:
        self._files = files

    async def create_token(self, token: int) -> None:
        """Nothing to fence: a UUID name is never written twice, and removing twice is harmless."""

    async def revoke_tokens(self, tokens: Collection[int]) -> None:
        """Nothing to fence."""

    async def bring(self, token: int, keys: Sequence[WorkKey]) -> list[Failure]:
        """Remove what is neither registered nor staged."""
        try:
            await self._files.remove([work.key for work in keys])
        except FourfoldError as error:
            if concerns_all(error):
                raise
            if len(keys) == 1:
                return [Failure(keys[0], error.code, str(error))]
        else:
            return []
        return [failure for work in keys for failure in await self.bring(token, [work])]
