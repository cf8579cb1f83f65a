"""An embedder for tests: no model, no network, the same vectors everywhere. A testing tool, never a default."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import sqrt

from fourfold.errors import ValidationError

__all__ = ["HashEmbedder"]

_GRAM_CHARS = 3


class HashEmbedder:
    """Hashes words and their three-letter pieces into dimensions: texts that share words are near, others are not.

    It knows spelling, not meaning ("sea" is as far from "ocean" as from "techno"), so it stands for an embedder in
    tests of everything around one, and for nothing else.

    Args:
        dimension: Length of the vectors.
        model: Its name, to test with several.

    Example:
        >>> import asyncio
        >>> [one, two] = asyncio.run(HashEmbedder(8).embed(["calm sea", "Calm  sea"]))
        >>> one == two
        True
    """

    def __init__(self, dimension: int = 64, model: str = "hash-for-tests") -> None:
        self._dimension = dimension
        self._model = model

    @property
    def model(self) -> str:
        """The name given."""
        return self._model

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self._dimension

    async def embed(self, texts: Sequence[str], *, kind: str = "passage") -> list[tuple[float, ...]]:  # noqa: ARG002 - of the protocol
        """One vector of length 1 per text.

        Raises:
            ValidationError: Code `embedder.text`, a text is empty.
        """
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> tuple[float, ...]:
        if not text:
            raise ValidationError("a text is empty", code="embedder.text", hint="Leave it out")
        sums = [0.0] * self._dimension
        for word in text.lower().split() or [text]:
            padded = f"^{word}$"
            for gram in [word, *(padded[n : n + _GRAM_CHARS] for n in range(len(padded) - _GRAM_CHARS + 1))]:
                number = int.from_bytes(blake2b(gram.encode(), digest_size=8).digest(), "little")
                sums[number // 2 % self._dimension] += 1.0 if number % 2 else -1.0
        length = sqrt(sum(value * value for value in sums))
        return tuple(value / length for value in sums) if length else (1.0, *sums[1:])
