"""The embedded graph against a hand-written loader of bare tables, in the same run on the same disk.

The bare loader does what nobody should live with: `INSERT … ON CONFLICT` of nodes and edges by their keys, without
owners, digests, tokens, stubs or removals. What Fourfold costs above it is the ratio. Best of the rounds; files are new
in each. The processor's seconds stand beside: on a machine that others use too, they are what can be compared.

    python benchmarks/graph_sqlite.py [--nodes 100000] [--edges 300000] [--batch 5000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sqlite3
import tempfile
import time
from contextlib import contextmanager
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
SELECT ?, (SELECT id FROM node WHERE label = 'Thing' AND key = ?),
    (SELECT id FROM node WHERE label = 'Thing' AND key = ?), ?
ON CONFLICT (source, type, target) DO UPDATE SET properties = excluded.properties"""


class Figures(dict):
    """Seconds by the clock and of the processor, by what was done."""

    @contextmanager
    def timed(self, what, share=1):
        start = time.perf_counter(), time.process_time()
        yield
        self[what] = ((time.perf_counter() - start[0]) / share, (time.process_time() - start[1]) / share)


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
    figures = Figures()
    for what, statement, rows in (
        ("nodes, new", BARE_NODE, [("Thing", f'["{n}"]', json.dumps({"id": str(n), **properties(n)})) for n in nodes]),
        ("edges, new", BARE_EDGE, [("NEXT", f'["{s}"]', f'["{t}"]', json.dumps({"at": p})) for s, t, p in edges]),
    ):
        with figures.timed(what):
            for part in batches(rows, batch):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(statement, part)
                connection.execute("COMMIT")
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
    figures = Figures()
    gc.collect()
    gc.freeze()  # the input of all lots at once is the benchmark's, and would be looked through at each collection

    async def load(what, items, size):
        with figures.timed(what):
            for part in batches(items, size):
                await store.write(1, part)

    await load("nodes, new", whole, batch)
    await load("edges, new", links, batch // per_link)
    await load("nodes, replay", whole, batch)
    await load("nodes, changed", changed, batch)
    await load("edges, replay", links, batch // per_link)
    await queries(store, nodes, figures)
    with figures.timed("scan of all owners"):
        owners = [found async for found in store.scan_owners()]
    with figures.timed("deep digests of all"):
        for part in batches([found.owner for found in owners], 1_000):
            await store.read_owners(part)
    await load("removal of all", [GraphFragment(found.owner) for found in owners], batch)
    await store.close()
    gc.unfreeze()
    return figures


async def queries(store, nodes, figures):
    """Seconds per query, the thread and event loop included."""
    picked = random.Random(1).sample(list(nodes), 200)
    kinds = {
        "query: two hops": lambda n: match(node("Thing", id=str(n)), out("NEXT"), node(), out("NEXT"), node(as_="b")),
        "query: one to three hops": lambda n: match(
            node("Thing", id=str(n)), out("NEXT", hops=(1, 3)), node(as_="b")
        ).select(prop("b", "id")),
        "query: by indexed property": lambda n: match(node("Thing", as_="a", name=f"thing {n}")),
    }
    for what, make in kinds.items():
        await store.match(make(picked[0]))
        with figures.timed(what, len(picked)):
            for number in picked:
                await store.match(make(number))
    ends = list(zip(picked[:5], picked[5:10], strict=True))
    with figures.timed("query: shortest path", len(ends)):
        for one, other in ends:
            hop = out("NEXT", hops=(1, None), shortest=True)
            await store.match(match(node("Thing", id=str(one)), hop, node("Thing", id=str(other)), as_="p"))


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
                    into[what] = tuple(map(min, seconds, into.get(what, seconds)))
    print(f"{'':26}{'seconds':>10}{'(cpu)':>10}{'bare':>10}{'(cpu)':>10}{'ratio':>8}{'(cpu)':>8}")
    for what, seconds in best.items():
        line = "".join(f"{second:>10.4f}" for second in seconds)
        if what in best_bare:
            line += "".join(f"{second:>10.4f}" for second in best_bare[what])
            line += "".join(f"{ours / theirs:>8.2f}" for ours, theirs in zip(seconds, best_bare[what], strict=True))
        print(f"{what:26}{line}")


if __name__ == "__main__":
    main()
