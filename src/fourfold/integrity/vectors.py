"""Vectors that are not what their texts embed to: deep verify's look at what a digest of texts can't show.

A fragment's digest covers texts, not vectors, so that a row can be compared without asking the embedder. The cache by
content has the vectors that were written; what a collection holds must be the same, up to the rounding of a model that
ran again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourfold.errors import FourfoldError
from fourfold.pieces import halves
from fourfold.projection.items import PointFragment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fourfold.projection.items import Fragment, Owner
    from fourfold.relay.embedding import EmbeddingCache
    from fourfold.vectors.store import VectorCollection

__all__ = ["altered_vectors"]

_TOLERANCE = 1e-4  # of a component; unit vectors of 384 dimensions have components around 0.05


async def altered_vectors(
    collection: VectorCollection, embedding: EmbeddingCache, fragments: Sequence[Fragment]
) -> set[Owner]:
    """Owners with a stored vector that differs from what its text embeds to.

    Args:
        collection: Whose vectors are looked at.
        embedding: The cache, and behind it the embedder.
        fragments: What the owners should have; those not stored at all are passed over (they are missing, not altered).
    """
    found = [fragment for fragment in fragments if isinstance(fragment, PointFragment) and fragment.points]
    stored = await collection.read_vectors([fragment.owner for fragment in found])
    found = [fragment for fragment in found if fragment.owner in stored]
    embedded = await _embedded(embedding, [text for fragment in found for text in _texts(fragment)])
    altered: set[Owner] = set()
    for fragment in found:
        for point, vector in zip(fragment.points, stored[fragment.owner], strict=False):
            wanted = point.vector or () if point.text is None else embedded.get(point.text)
            # A text that is refused was never written: its owner's digest says so, its vector can't.
            if wanted is not None and not _equal(vector, wanted):
                altered.add(fragment.owner)
    return altered


def _texts(fragment: PointFragment) -> list[str]:
    return [point.text for point in fragment.points if point.text is not None]


async def _embedded(embedding: EmbeddingCache, texts: Sequence[str]) -> dict[str, Sequence[float]]:
    """Vectors by text; where the embedder refuses a text, those of the others."""
    if not texts:
        return {}
    try:
        return dict(zip(texts, await embedding.embed(texts), strict=True))
    except FourfoldError as error:
        if not await embedding.is_a_texts_fault(error):
            raise
        if len(texts) == 1:
            return {}
    first, second = halves(texts)
    return {**await _embedded(embedding, first), **await _embedded(embedding, second)}


def _equal(left: Sequence[float], right: Sequence[float]) -> bool:
    return len(left) == len(right) and all(abs(a - b) <= _TOLERANCE for a, b in zip(left, right, strict=True))
