"""What turns texts into vectors. Implementations: `vectors.embedders`; a user's own is any class with these members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Embedder"]


@runtime_checkable
class Embedder(Protocol):
    """Embeds texts; the same text under the same `model` gives the same vector, so results are cached by content."""

    @property
    def model(self) -> str:
        """Name and version of the model, as stored with collections and cache entries."""
        ...

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        ...

    async def embed(self, texts: Sequence[str], *, kind: str = "passage") -> list[tuple[float, ...]]:
        """One vector of `dimension` finite floats per text, in order.

        Args:
            texts: Non-empty texts.
            kind: `passage` for what is stored, `query` for what is searched with; models that don't tell ignore it.

        Raises:
            StoreUnavailableError: The provider is away, slow or limits the rate (retryable).
            StoreRejectedError: It refused this text.
        """
        ...
