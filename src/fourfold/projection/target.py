"""What a target promises to the relay: fenced, idempotent replacement of fragments, and a scan of what it holds.

The relay calls it; `graph.store.GraphStore` and a collection of a `vectors.store.VectorStore` are targets, a user's
own may be. The fence: a write carries a *token*; a token that is **absent means revoked**, and the check and the write
are one atomic step that excludes the token's removal. So a late write can't win, whoever sends it and however long he
slept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from fourfold.projection.items import Fragment, Owner, OwnerDigest

__all__ = ["FragmentT_contra", "Target", "WriteResult"]


FragmentT_contra = TypeVar("FragmentT_contra", bound="Fragment", contravariant=True)


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did: fragments that it changed, and those that were there already (a replay: all of them, I7)."""

    written: int
    unchanged: int


class Target(Protocol[FragmentT_contra]):
    """Something that takes fragments.

    All methods raise `StoreUnavailableError` when the outcome is unknown or the store is away, `StoreRejectedError` or
    `ConflictError` when the store refused.
    """

    @property
    def name(self) -> str:
        """Stable name: `graph`, `vectors.recordings`; stands in the queue and in `status`."""
        ...

    async def create_token(self, token: int) -> None:
        """Make `token` known, durably; from now on writes under it are accepted. Idempotent."""
        ...

    async def revoke_tokens(self, tokens: Collection[int]) -> None:
        """Remove tokens, durably; later writes under them are refused. Absent ones are fine."""
        ...

    async def write(self, token: int, fragments: Sequence[FragmentT_contra]) -> WriteResult:
        """Replace what each fragment's owner has by the fragment, atomically for all of them, durable on return.

        What the owner no longer has goes; an equal digest writes nothing; an empty fragment removes. Owners are
        distinct.

        Raises:
            RevokedError: The token is absent; nothing was written.
            ConflictError: A node is owned by somebody else (code `graph.conflict`); nothing was written.
        """
        ...

    def scan_owners(
        self, *, table: str | None = None, after: bytes | None = None, limit: int | None = None
    ) -> AsyncIterator[OwnerDigest]:
        """Owners and their digests, ascending by `Owner.hash`, from behind hash `after`; memory is bounded."""
        ...

    async def read_owners(self, owners: Collection[Owner]) -> Mapping[Owner, bytes]:
        """Digests **recomputed from the stored contents**, for deep verify; an owner without contents is absent."""
        ...

    async def invalidate(self, owners: Collection[Owner] | None) -> None:
        """Forget the digests of these owners (None: of all), so that their next write replaces whatever is there.

        Contents stay as they are and stay visible. Quick verify calls such an owner stale until it was written again.
        """
        ...

    async def close(self) -> None:
        """Release connections; safe to call twice."""
        ...
