"""The embedded vector store at 100,000 × 384: load, and the nearest 10, as a ratio to hand-written numpy in one run.

Usage: python benchmarks/vectors.py [--points 100000] [--dimension 384] [--rounds 40] [--json]

The hand-written side holds a normalised float32 matrix and the filters' row numbers in memory, and does nothing but
multiply and `argpartition`: no store, no file, no look-up of what was found. The target is 1.5 times that, unfiltered.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fourfold.projection.items import Owner, PointFragment, PointItem
from fourfold.vectors import CollectionSpec, SqliteVectorStore

LIMIT = 10
BATCH = 500  # fragments per write: what the relay claims at once
FILTERS = {"plain": None, "10 %": {"tenth": 3}, "1 %": {"hundredth": 42}}


def fragments(vectors, model):
    for number, vector in enumerate(vectors):
        payload = {"tenth": number % 10, "hundredth": number % 100}
        point = PointItem(tuple(vector.tolist()), f"recording {number}", payload)
        yield PointFragment(Owner("recordings", str(number)), "recordings", (point,), model)


async def load(collection, vectors):
    await collection.create_token(1)
    seconds = 0.0
    made = fragments(vectors, collection.spec.model)
    while batch := list(itertools.islice(made, BATCH)):
        start = time.perf_counter()
        await collection.write(1, batch)
        seconds += time.perf_counter() - start
    return seconds


def hand_written(matrix, rows, query):
    chosen = matrix if rows is None else matrix[rows]
    scores = chosen @ (query / np.linalg.norm(query))
    best = np.argpartition(scores, -LIMIT)[-LIMIT:]
    return best[np.argsort(-scores[best])]


async def measure(collection, vectors, rounds):
    matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = {"plain": None, "10 %": np.arange(3, len(matrix), 10), "1 %": np.arange(42, len(matrix), 100)}
    queries = np.random.default_rng(2).standard_normal((rounds, vectors.shape[1])).astype(np.float32)
    figures = {}
    for name, where in FILTERS.items():
        ours, theirs = [], []
        for query in queries:  # in turns, so that what else the machine does hits both alike
            listed = query.tolist()
            start = time.perf_counter()
            hits = await collection.nearest(listed, limit=LIMIT, where=where)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            best = hand_written(matrix, rows[name], query)
            theirs.append(time.perf_counter() - start)
            chosen = best if rows[name] is None else rows[name][best]
            assert [int(hit.owner.key) for hit in hits] == chosen.tolist(), "another answer than by hand"
        mine, other = statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3
        figures[name] = {"fourfold_ms": mine, "numpy_ms": other, "ratio": mine / other}
    return figures


async def after_a_change(collection, vectors, rounds):
    """Search right after one point was replaced: what keeping memory up to date costs."""
    times = []
    for number in range(rounds):
        [fragment] = list(fragments(vectors[number : number + 1] + 1, collection.spec.model))
        await collection.write(1, [fragment])
        start = time.perf_counter()
        await collection.nearest(vectors[number].tolist(), limit=LIMIT)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


async def main(points, dimension, rounds):
    vectors = np.random.default_rng(1).standard_normal((points, dimension)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.db"
        store = SqliteVectorStore(path)
        spec = CollectionSpec("recordings", "random", dimension, ("tenth", "hundredth"))
        collection = await store.ensure_collection(spec)
        result = {"points": points, "dimension": dimension, "load_s": await load(collection, vectors)}
        start = time.perf_counter()
        await collection.nearest(vectors[0].tolist())
        result["first_search_s"] = time.perf_counter() - start
        result |= await measure(collection, vectors, rounds)
        result["after_a_change_ms"] = await after_a_change(collection, vectors, rounds)
        result["memory_mb"] = collection.statistics()["memory_bytes"] / 1e6
        await store.close()
        result["disk_mb"] = path.stat().st_size / 1e6
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return result


def table(result):
    print(f"{result['points']:,} points of {result['dimension']} dimensions, nearest {LIMIT}, p50")
    print(f"load {result['load_s']:.1f} s, first search (reads all) {result['first_search_s']:.2f} s,", end=" ")
    print(f"search after a change {result['after_a_change_ms']:.1f} ms,", end=" ")
    print(f"vectors in memory {result['memory_mb']:.0f} MB, file {result['disk_mb']:.0f} MB")
    print(f"{'filter':8} {'fourfold ms':>12} {'numpy ms':>10} {'ratio':>7}")
    for name in FILTERS:
        row = result[name]
        print(f"{name:8} {row['fourfold_ms']:12.2f} {row['numpy_ms']:10.2f} {row['ratio']:7.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcome = asyncio.run(main(options.points, options.dimension, options.rounds))
    if options.json:
        json.dump(outcome, sys.stdout, indent=2)
    else:
        table(outcome)
