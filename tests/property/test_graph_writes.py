"""Any order of writes and removals gives the graph of a plain dict."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.errors import ConflictError
from fourfold.graph import SqliteGraphStore
from fourfold.graph.patterns import match, node
from fourfold.graph.sqlite_plan import dump, dump_key
from fourfold.projection.items import EdgeItem, GraphFragment, NodeItem, NodeRef, Owner
from fourfold.testing.graph import SCHEMA, contents

ids = st.sampled_from(["1", "2", "ü", "'\"`;"])
values = st.one_of(
    st.integers(-3, 3), st.booleans(), st.sampled_from(["", "x", "1"]), st.floats(-2, 2, allow_nan=False)
)
properties = st.dictionaries(st.sampled_from(["a", "b", 'c"']), values | st.tuples(st.just("t")), max_size=2)
people = st.builds(lambda key: NodeRef.of("Person", id=key), ids)
tracks = st.builds(lambda title, artist: NodeRef.of("Track", title=title, artist=artist), ids, ids)
edges = st.one_of(
    st.builds(EdgeItem, st.just("KNOWS"), people, people, properties),
    st.builds(EdgeItem, st.just("CONTAINS_TRACK"), people, tracks, properties),
)
owners = st.builds(Owner, st.sampled_from(["people", "other"]), ids)
fragments = st.builds(
    GraphFragment,
    owners,
    st.lists(st.builds(NodeItem, people, properties), max_size=2, unique_by=lambda item: item.ref).map(tuple),
    st.lists(edges, max_size=4).map(tuple),
)
writes = st.lists(st.lists(fragments, max_size=4, unique_by=lambda fragment: fragment.owner), max_size=8)


def apply(model, lot):
    """The dict after the lot, or None when two owners want one node."""
    after = {**model, **{fragment.owner: fragment for fragment in lot}}
    taken = [item.ref for fragment in after.values() for item in fragment.nodes]
    return (
        None
        if len(set(taken)) < len(taken)
        else {o: fragment for o, fragment in after.items() if not fragment.is_empty}
    )


def expected(model):
    nodes = {}
    for fragment in model.values():
        for edge in fragment.edges:
            for ref in (edge.source, edge.target):
                nodes.setdefault(ref, {})
    for fragment in model.values():
        nodes.update({item.ref: item.properties for item in fragment.nodes})
    written = Counter(
        (edge.source, edge.type, dump(edge.properties), edge.target)
        for fragment in model.values()
        for edge in fragment.edges
    )
    return Counter((ref.label, dump({**dict(ref.identity), **more})) for ref, more in nodes.items()), written


async def found(store):
    nodes, edges = await contents(store)

    def ref(item):
        names = SCHEMA.identity_of(item.label)
        return NodeRef(item.label, tuple((name, item[name]) for name in names))

    return (
        Counter({(item.label, dump(item.properties)): count for item, count in nodes.items()}),
        Counter({(ref(a), e.type, dump(e.properties), ref(b)): count for (a, e, b), count in edges.items()}),
    )


async def check(lots):
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteGraphStore(Path(folder) / "graph.db", synchronous="NORMAL")
        await store.ensure_schema(SCHEMA)
        await store.create_token(1)
        model = {}
        for lot in lots:
            after = apply(model, lot)
            before = await found(store)
            try:
                result = await store.write(1, lot)
            except ConflictError:
                assert after is None
                assert await found(store) == before
                continue
            assert after is not None
            same = [fragment for fragment in lot if _digest(model, fragment) == _digest(after, fragment)]
            assert result.unchanged == len(same)
            model = after
            assert await found(store) == expected(model)
            assert await store.read_owners([fragment.owner for fragment in lot]) == {
                fragment.owner: fragment.digest for fragment in lot if not fragment.is_empty
            }
        assert await store.remove_orphans() == 0
        await store.write(1, [GraphFragment(owner) for owner in model])
        assert await store.match(match(node(as_="n"))) == []
        await store.close()


def _digest(model, fragment):
    held = model.get(fragment.owner)
    return held and held.digest


@settings(max_examples=100, deadline=None)
@given(writes)
def test_any_order_of_writes_gives_the_graph_of_a_dict(lots):
    asyncio.run(check(lots))


@given(st.builds(lambda title, artist: NodeRef.of("Track", title=title, artist=artist), values, st.text()))
def test_key_text_is_the_refs(ref):
    assert dump_key(ref) == ref.key
