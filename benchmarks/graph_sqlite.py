"""The embedded graph against a hand-written loader of bare tables, in the same run on the same disk.

The bare loader does what nobody should live with: `INSERT … ON CONFLICT` of nodes and edges by their keys, without owners,
digests, tokens, stubs or removals. What Fourfold costs above it is the ratio. Best of the rounds; files are new in each.

    PYTHONPATH=src python benchmarks/graph_sqlite.py [--nodes 100000] [--edges 300000] [--batch 5000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import tempfile
import time
from pathlib import Path

from fourfold.graph import EdgeSchema, GraphSchema, NodeSchema, SqliteGraphStore
from fourfold.graph.patterns import match, node, out, prop
from fourfold.projection.items import EdgeItem, GraphFragment, NodeItem, NodeRef, Owner

SCHEMA = GraphSchema((NodeSchema("Thing", ("id",), ("name",)),), (EdgeSchema("NEXT", (("Thing", "Thing"),)),))

BARE = """
CREATE TABLE node (id INTEGER PRIMARY KEY, label TEXT NOT NULL, key TEXT NOT NULL, properties TEXT NOT NULL,
    UNIQUE (label, key));
CREATE TABLE edge (id INTEGER PRIMARY KEY, type TEXT NOT NULL, source INTEGER NOT NULL, target INTEGER NOT NULL,
    properties TEXT NOT NULL, UNIQUE (source, type, target));
CREATE INDEX edge_target ON edge (target, type, source);
"""
BARE_NODE = """
INSERT INTO node (label, key, properties) VALUES (?, ?, ?)
ON CONFLICT (label, key) DO UPDATE SET properties = excluded.properties"""
BARE_EDGE = """
INSERT INTO edge (type, source, target, properties)
SELECT ?, (SELECT id FROM node WHERE label = 'Thing' AND key = ?), (SELECT id FROM node WHERE label = 'Thing' AND key = ?), ?
ON CONFLICT (source, type, target) DO UPDATE SET properties = excluded.properties"""


def properties(number):
    return {"name": f"thing {number}", "year": 1900 + number % 200, "rating": number / 7, "live": number % 2 == 0}


def batches(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


def bare(folder, nodes, edges, batch):
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    for pragma in ("synchronous = FULL", "cache_size = -65536", "wal_autocheckpoint = 8000", "secure_delete = FAST"):
        connection.execute(f"PRAGMA {pragma}")  # the same chances as ours
    connection.executescript(BARE)
    figures = {}
    for what, statement, rows in (
        ("nodes, new", BARE_NODE, [("Thing", f'["{n}"]', json.dumps({"id": str(n), **properties(n)})) for n in nodes]),
        ("edges, new", BARE_EDGE, [("NEXT", f'["{s}"]', f'["{t}"]', json.dumps({"at": p})) for s, t, p in edges]),
    ):
        start = time.perf_counter()
        for part in batches(rows, batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, part)
            connection.execute("COMMIT")
        figures[what] = time.perf_counter() - start
    connection.close()
    return figures


def ref(number):
    return NodeRef("Thing", (("id", str(number)),))


def fragments(nodes, edges, *, year=0):
    whole = [
        GraphFragment(Owner("things", str(n)), (NodeItem(ref(n), {**properties(n), "edition": year}),)) for n in nodes
    ]
    by_source = {}
    for source, target, position in edges:
        by_source.setdefault(source, []).append(EdgeItem("NEXT", ref(source), ref(target), {"at": position}))
    links = [GraphFragment(Owner("links", str(source)), (), tuple(items)) for source, items in by_source.items()]
    return whole, links


async def fourfold(folder, nodes, edges, batch):
    store = SqliteGraphStore(folder / "graph.db")
    await store.ensure_schema(SCHEMA)
    await store.create_token(1)
    whole, links = fragments(nodes, edges)
    changed, _ = fragments(nodes, [], year=1)
    per_link = max(1, len(edges) // len(links))
    figures = {}

    async def load(what, items, size):
        start = time.perf_counter()
        for part in batches(items, size):
            await store.write(1, part)
        figures[what] = time.perf_counter() - start

    await load("nodes, new", whole, batch)
    await load("edges, new", links, batch // per_link)
    await load("nodes, replay", whole, batch)
    await load("nodes, changed", changed, batch)
    await load("edges, replay", links, batch // per_link)
    figures.update(await queries(store, nodes))
    start = time.perf_counter()
    owners = [found async for found in store.scan_owners()]
    figures["scan of all owners"] = time.perf_counter() - start
    start = time.perf_counter()
    for part in batches([found.owner for found in owners], 1_000):
        await store.read_owners(part)
    figures["deep digests of all"] = time.perf_counter() - start
    await load("removal of all", [GraphFragment(found.owner) for found in owners], batch)
    await store.close()
    return figures


async def queries(store, nodes):
    """Seconds per query, the thread and event loop included."""
    picked = random.Random(1).sample(list(nodes), 200)
    figures = {}
    kinds = {
        "query: two hops": lambda n: match(node("Thing", id=str(n)), out("NEXT"), node(), out("NEXT"), node(as_="b")),
        "query: one to three hops": lambda n: match(
            node("Thing", id=str(n)), out("NEXT", hops=(1, 3)), node(as_="b")
        ).select(prop("b", "id")),
        "query: by indexed property": lambda n: match(node("Thing", as_="a", name=f"thing {n}")),
    }
    for what, make in kinds.items():
        await store.match(make(picked[0]))
        start = time.perf_counter()
        for number in picked:
            await store.match(make(number))
        figures[what] = (time.perf_counter() - start) / len(picked)
    ends = list(zip(picked[:5], picked[5:10], strict=True))
    start = time.perf_counter()
    for one, other in ends:
        hop = out("NEXT", hops=(1, None), shortest=True)
        await store.match(match(node("Thing", id=str(one)), hop, node("Thing", id=str(other)), as_="p"))
    figures["query: shortest path"] = (time.perf_counter() - start) / len(ends)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("nodes", 100_000), ("edges", 300_000), ("batch", 5_000), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    generator = random.Random(7)
    nodes = range(options.nodes)
    # Three per node to anywhere, as in the comparison of engines: no locality that would flatter the page cache.
    edges = [
        (position % options.nodes, generator.randrange(options.nodes), position) for position in range(options.edges)
    ]
    edges.sort()
    best, best_bare = {}, {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            for found, into in (
                (bare(Path(folder), nodes, edges, options.batch), best_bare),
                (asyncio.run(fourfold(Path(folder), nodes, edges, options.batch)), best),
            ):
                for what, seconds in found.items():
                    into[what] = min(seconds, into.get(what, seconds))
    print(f"{'':28}{'fourfold':>12}{'bare':>12}{'ratio':>8}")
    for what, seconds in best.items():
        ratio = f"{best_bare[what]:>11.2f}s{seconds / best_bare[what]:>8.2f}" if what in best_bare else ""
        shown = f"{seconds * 1000:>10.3f}ms" if what.startswith("query") else f"{seconds:>11.2f}s"
        print(f"{what:28}{shown}{ratio}")


if __name__ == "__main__":
    main()
