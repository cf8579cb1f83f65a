"""Vectors in memory: blocks, ties, and dropping points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fourfold.vectors.sqlite import matrix as module
from fourfold.vectors.sqlite.matrix import PointMatrix, parse_ids

rng = np.random.default_rng(5)


def filled(vectors, first=1):
    matrix = PointMatrix(vectors.shape[1])
    rows = [(first + n, vector.astype("<f4").tobytes()) for n, vector in enumerate(vectors)]
    for start in range(0, len(rows), matrix._block_rows):
        matrix = matrix.extended(rows[start : start + matrix._block_rows])
    return matrix


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 160)  # 20 rows of 2, or 8 of 5


def test_empty_matrix_finds_nothing():
    assert PointMatrix(3).best((1, 0, 0), 5) == []
    assert PointMatrix(3).extended([]).kept(parse_ids(None)).best((1, 0, 0), 5) == []


def test_equal_vectors_tie_exactly_wherever_they_lie():
    same = rng.standard_normal(384).astype(np.float32)
    vectors = rng.standard_normal((5000, 384)).astype(np.float32)
    places = rng.choice(5000, 40, replace=False)
    vectors[places] = same
    best = filled(vectors).best((same + 0.1).tolist(), 3)
    assert {number - 1 for number, _ in best} == set(places.tolist())
    assert len({score for _, score in best}) == 1


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
def test_best_of_wanted_equals_brute_force(small_blocks, share):
    vectors = rng.standard_normal((200, 5)).astype(np.float32)
    wanted = np.flatnonzero(rng.random(200) < share) + 1
    query = rng.standard_normal(5)
    exact = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    expected = sorted(wanted, key=lambda number: -exact[number - 1])[:10]
    best = sorted(filled(vectors).best(query.tolist(), 10, wanted), key=lambda each: -each[1])
    assert [number for number, _ in best] == expected
    assert [score for _, score in best] == pytest.approx([exact[number - 1] for number in expected], abs=1e-6)


def test_small_additions_make_few_blocks(small_blocks):
    matrix = PointMatrix(2)
    for number in range(1, 401):
        matrix = matrix.extended([(number, np.ones(2, "<f4").tobytes())])
    assert len(matrix) == 400
    assert len(matrix._blocks) <= 2 * 400 / 20 + 2
    sizes = [len(block) for block in matrix.packed()._blocks]
    assert all(one + next_ > 20 for one, next_ in itertools.pairwise(sizes))


def test_kept_drops_the_rest_and_packs_blocks(small_blocks):
    matrix = filled(rng.standard_normal((100, 2)))
    assert len(matrix._blocks) == 5
    live = np.arange(5, 101, 10)
    kept = matrix.kept(live)
    assert sorted(number for number, _ in kept.best((1, 0), 100)) == live.tolist()
    assert len(kept._blocks) == 1
    assert len(matrix) == 100  # the one before is as it was
    assert len(kept.kept(parse_ids(""))) == 0


def test_damaged_vectors_are_named_by_id():
    good = np.ones(2, "<f4").tobytes()
    with pytest.raises(ValueError, match=r"^7$"):
        PointMatrix(2).extended([(6, good), (7, good[:-1])])
    with pytest.raises(ValueError, match=r"^7$"):
        PointMatrix(2).extended([(6, good), (7, np.array([np.nan, 1], "<f4").tobytes())])


def test_ids_are_ascending_and_distinct():
    assert parse_ids("3,1,3,2").tolist() == [1, 2, 3]
    assert parse_ids("1,2,9007199254740993").tolist() == [1, 2, 9007199254740993]
