"""Vectors in memory, and exact cosine similarity over them. The only module that imports numpy.

A `PointMatrix` never changes: adding or dropping points makes another one that shares the blocks that stayed as they
were. So a search goes on undisturbed while another brings the collection up to date. Memory is that of the vectors as
32-bit floats, 8 bytes for each id, and while blocks are rewritten one block more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PointMatrix", "parse_ids"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]

# What a change copies at most, and what is held twice meanwhile. Few large blocks, because each product wakes the
# threads of numpy's BLAS and waits for them: with blocks of 3 MB a search took ten times as long on a busy machine.
BLOCK_BYTES = 64 * 2**20
_TAIL_RATIO = 4  # a block is merged with the next when less than this many times larger: so small blocks are few
_SPARSE = 4  # below one row in four, gathering the wanted rows beats computing all of a block


@dataclass(frozen=True, slots=True)
class _Block:
    """Up to BLOCK_BYTES of points: ids ascending, vectors of length 1 (or 0)."""

    ids: Ids
    vectors: Floats

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self, query: Floats, wanted: Ids | None) -> tuple[Ids, Floats]:
        """Return rows (positions in the block) and their similarity, of all or of the wanted ids."""
        if wanted is None:
            return np.arange(len(self.ids)), self.vectors @ query
        near = wanted[np.searchsorted(wanted, self.ids[0]) : np.searchsorted(wanted, self.ids[-1], side="right")]
        rows = np.searchsorted(self.ids, near)
        rows = rows[self.ids[rows] == near]
        if len(rows) * _SPARSE < len(self.ids):
            return rows, self.vectors[rows] @ query
        return rows, (self.vectors @ query)[rows]


class PointMatrix:
    """The vectors of a collection at one generation.

    Args:
        dimension: Length of each vector.

    Example:
        >>> matrix = PointMatrix(2).extended([(1, np.array([[3, 4]], "<f4").tobytes())])
        >>> matrix.best((6.0, 8.0), 1)
        [(1, 1.0)]
    """

    def __init__(self, dimension: int, blocks: Sequence[_Block] = ()) -> None:
        self.dimension = dimension
        self._blocks = tuple(blocks)
        self._block_rows = max(1, BLOCK_BYTES // (dimension * 4))

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    @property
    def size_bytes(self) -> int:
        """Memory of vectors and ids."""
        return sum(block.ids.nbytes + block.vectors.nbytes for block in self._blocks)

    def extended(self, points: Iterable[tuple[int, bytes]]) -> PointMatrix:
        """Add points whose ids ascend and lie above all that are there.

        Args:
            points: Id and vector (little-endian 32-bit floats) of each; far less than BLOCK_BYTES of them.

        Raises:
            ValueError: A vector has another length, or holds NaN or infinity; the arguments are the ids.
        """
        listed = list(points)
        if not listed:
            return self
        width = self.dimension * 4
        damaged = [number for number, vector in listed if not isinstance(vector, bytes) or len(vector) != width]
        if damaged:
            raise ValueError(*damaged)
        ids = np.array([number for number, _ in listed], np.int64)
        raw = np.frombuffer(b"".join(vector for _, vector in listed), "<f4").reshape(len(ids), self.dimension)
        finite = np.isfinite(raw).all(axis=1)
        if not finite.all():
            raise ValueError(*ids[~finite].tolist())
        added = _Block(ids, _normalised(raw))
        blocks = list(self._blocks)
        while (
            blocks and len(blocks[-1]) < _TAIL_RATIO * len(added) and len(blocks[-1]) + len(added) <= self._block_rows
        ):
            added = _merged(blocks.pop(), added)
        return PointMatrix(self.dimension, [*blocks, added])

    def packed(self) -> PointMatrix:
        """Merge neighbouring blocks where they fit in one: after many additions, or many losses."""
        blocks: list[_Block] = []
        for block in self._blocks:
            fits = blocks and len(blocks[-1]) + len(block) <= self._block_rows
            blocks.append(_merged(blocks.pop(), block) if fits else block)
        return PointMatrix(self.dimension, blocks)

    def kept(self, live: Ids) -> PointMatrix:
        """Drop every point whose id isn't in `live` (ascending)."""
        blocks: list[_Block] = []
        for block in self._blocks:
            keep = np.isin(block.ids, live, assume_unique=True)
            if keep.all():
                blocks.append(block)
            elif keep.any():
                blocks.append(_Block(block.ids[keep], block.vectors[keep]))
        return PointMatrix(self.dimension, blocks).packed()

    def best(self, query: Sequence[float], limit: int, wanted: Ids | None = None) -> list[tuple[int, float]]:
        """Ids and similarity of the `limit` nearest, and of all that tie with the last; in no particular order.

        Args:
            query: A vector of this dimension; one of zeros is as near to everything (0.0).
            limit: How many at least, where there are so many.
            wanted: Ids (ascending, distinct) to choose from; None for all.

        Ties are exact: 32-bit products find the candidates, with a margin above their rounding error, and each is
        computed again in 64 bits by a sum that doesn't depend on where the point lies. Equal vectors score equally.
        """
        exact = _unit(query)
        rounded = exact.astype(np.float32)
        found = [(block, *block.scores(rounded, wanted)) for block in self._blocks]
        scores = np.concatenate([part for _, _, part in found]) if found else np.empty(0, np.float32)
        if not len(scores):
            return []
        cut = len(scores) - min(limit, len(scores))
        least = np.partition(scores, cut)[cut] - _margin(self.dimension)
        best: list[tuple[int, float]] = []
        for block, rows, part in found:
            near = rows[part >= least]
            if len(near):
                again = (block.vectors[near].astype(np.float64) * exact).sum(axis=1).clip(-1.0, 1.0)
                best += zip(block.ids[near].tolist(), again.tolist(), strict=True)
        if len(best) <= limit:
            return best
        last = sorted((score for _, score in best), reverse=True)[limit - 1]
        return [each for each in best if each[1] >= last]


def parse_ids(text: str | None) -> Ids:
    """Ids from SQL's `group_concat`, ascending and distinct; four times faster than a row for each."""
    ids: Ids = np.fromstring(text, np.int64, sep=",") if text else np.empty(0, np.int64)
    if (ids[1:] > ids[:-1]).all():  # as a rule they are, and to look is far cheaper than to sort
        return ids
    return np.unique(ids)


def _margin(dimension: int) -> float:
    # Two dot products of unit vectors in 32 bits, each off by at most dimension × 2⁻²⁴ (Higham, Accuracy and Stability,
    # 3.1), and the rounding of both factors.
    return (2 * dimension + 4) * 2.0**-24


def _unit(vector: Sequence[float]) -> NDArray[np.float64]:
    exact = np.asarray(vector, np.float64)
    largest = np.abs(exact).max()
    if largest == 0:
        return exact
    exact = exact / largest  # first, or squares of tiny or huge numbers leave the range of 64 bits
    unit: NDArray[np.float64] = exact / np.sqrt((exact * exact).sum())
    return unit


def _normalised(raw: Floats) -> Floats:
    # Lengths in 64 bits: squares of large or tiny 32-bit floats leave the range of 32 bits.
    lengths = np.sqrt(np.einsum("ij,ij->i", raw, raw, dtype=np.float64))[:, None]
    normalised = np.zeros(raw.shape, np.float32)
    np.divide(raw, lengths, out=normalised, where=lengths > 0, casting="same_kind")
    return normalised


def _merged(first: _Block, second: _Block) -> _Block:
    return _Block(np.concatenate([first.ids, second.ids]), np.concatenate([first.vectors, second.vectors]))
