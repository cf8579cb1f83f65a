"""The contract of a graph store, as tests: what every `GraphStore`, embedded, server or a third party's, must pass.

Subclass it in your tests, with two fixtures and two methods:

```python
class TestMyStore(GraphStoreContract):
    @pytest.fixture
    async def store(self, tmp_path):  # an empty graph
        store = MyStore(tmp_path)
        yield store
        await store.close()

    @pytest.fixture
    async def second(self, store, tmp_path): ...  # another connection to the same graph

    async def set_property(self, store, ref, name, value): ...  # behind the store's back
    async def add_foreign(self, store, ref): ...  # a node without owner mark
```

One long file, because it is one class: what a store must pass is read, and run, in one place.
"""

# ruff: noqa: D102, PLR2004 - a test's name states the behaviour, and the expected value is the point

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fourfold.errors import ConfigurationError, ConflictError, RevokedError, ValidationError
from fourfold.graph.patterns import (
    average,
    both,
    collect,
    count,
    desc,
    into,
    length,
    match,
    maximum,
    minimum,
    node,
    out,
    prop,
    total,
)
from fourfold.graph.schema import EdgeSchema, GraphSchema, NodeSchema
from fourfold.projection.items import EdgeItem, GraphFragment, NodeItem, NodeRef, Owner
from fourfold.projection.target import WriteResult

if TYPE_CHECKING:
    from fourfold.graph.patterns import Query
    from fourfold.graph.store import GraphStore
    from fourfold.projection.items import Scalar, Value

__all__ = ["SCHEMA", "GraphStoreContract", "contents", "mix", "recording", "tracklist"]

SCHEMA = GraphSchema(
    (
        NodeSchema("Recording", ("uuid",), ("name",)),
        NodeSchema("Tracklist", ("id",)),
        NodeSchema("Track", ("title", "artist")),
        NodeSchema("Person", ("id",)),
    ),
    (
        EdgeSchema("HAS_TRACKLIST", (("Recording", "Tracklist"),)),
        EdgeSchema("CONTAINS_TRACK", (("Tracklist", "Track"),)),
        EdgeSchema("KNOWS", (("Person", "Person"),)),
    ),
)
TOKEN, OTHER_TOKEN = 1, 2


def recording(key: str, **properties: Value) -> GraphFragment:
    """A recording's node, owned by its row."""
    return GraphFragment(Owner("recordings", key), (NodeItem(NodeRef.of("Recording", uuid=key), properties),))


def tracklist(key: str, *titles: str) -> GraphFragment:
    """A tracklist's node, the edge from its recording, and edges to tracks, which are value nodes."""
    here = NodeRef.of("Tracklist", id=key)
    tracks = tuple(
        EdgeItem("CONTAINS_TRACK", here, NodeRef.of("Track", title=title, artist="Ada"), {"start": position})
        for position, title in enumerate(titles)
    )
    has = EdgeItem("HAS_TRACKLIST", NodeRef.of("Recording", uuid=key), here)
    return GraphFragment(Owner("tracklists", key), (NodeItem(here, {"source": "cue"}),), (has, *tracks))


def person(key: str, *knows: str, **properties: Value) -> GraphFragment:
    """A person's node and whom he knows."""
    here = NodeRef.of("Person", id=key)
    edges = tuple(EdgeItem("KNOWS", here, NodeRef.of("Person", id=other)) for other in knows)
    return GraphFragment(Owner("people", key), (NodeItem(here, properties),), edges)


def mix() -> list[GraphFragment]:
    """Three recordings, of which a and b share two tracks; c has none."""
    return [
        recording("a", name="Opening", year=2020, rating=4.5),
        recording("b", name="Closing", year=2021, live=True),
        recording("c", name="closing", tags=("x", "y")),
        tracklist("a", "Dawn", "Noon", "Dusk", "Dawn"),
        tracklist("b", "Dusk", "Dawn", "Night"),
    ]


def gone(*fragments: GraphFragment) -> list[GraphFragment]:
    """The removal of each."""
    return [GraphFragment(fragment.owner) for fragment in fragments]


async def contents(store: GraphStore) -> tuple[Counter[Any], Counter[Any]]:
    """Every node, and every edge with its ends, as multisets."""
    nodes = await store.match(match(node(as_="n")))
    edges = await store.match(match(node(as_="a"), out(as_="e"), node(as_="b")))
    return Counter(row["n"] for row in nodes), Counter((row["a"], row["e"], row["b"]) for row in edges)


class GraphStoreContract:
    """The suite. It needs the fixtures `store` and `second`, and the methods `set_property` and `add_foreign`."""

    rounds = 1_000  # of F37; a store behind a network may take fewer

    @pytest.fixture
    async def ready(self, store: GraphStore) -> GraphStore:
        await store.ensure_schema(SCHEMA)
        await store.create_token(TOKEN)
        return store

    async def set_property(self, store: GraphStore, ref: NodeRef, name: str, value: Scalar) -> None:
        """Change a node's property behind the store's back: the digest that was written with it stays."""
        raise NotImplementedError

    async def add_foreign(self, store: GraphStore, ref: NodeRef) -> None:
        """Add a node that has no owner mark, as another program would."""
        raise NotImplementedError

    # ------------------------------------------------------------------ fence and replay

    async def test_absent_token_is_refused_and_nothing_written(self, ready: GraphStore) -> None:
        with pytest.raises(RevokedError):
            await ready.write(99, mix())
        assert await contents(ready) == (Counter(), Counter())

    async def test_revoked_token_is_refused_and_revoking_again_is_fine(self, ready: GraphStore) -> None:
        await ready.create_token(TOKEN)
        await ready.revoke_tokens([TOKEN, 77])
        await ready.revoke_tokens([TOKEN])
        with pytest.raises(RevokedError):
            await ready.write(TOKEN, mix())

    async def test_fence_holds_for_another_connection(self, ready: GraphStore, second: GraphStore) -> None:
        await second.revoke_tokens([TOKEN])
        with pytest.raises(RevokedError):
            await ready.write(TOKEN, mix())

    async def test_replay_writes_nothing(self, ready: GraphStore) -> None:
        assert await ready.write(TOKEN, mix()) == WriteResult(5, 0)
        before = await contents(ready)
        assert await ready.write(TOKEN, mix()) == WriteResult(0, 5)
        assert await ready.write(TOKEN, gone(recording("never"))) == WriteResult(0, 1)
        assert await contents(ready) == before

    # ------------------------------------------------------------------ replacement, stubs, value nodes

    async def test_write_replaces_what_the_owner_had(self, ready: GraphStore) -> None:
        await ready.write(TOKEN, mix())
        await ready.write(TOKEN, [recording("a", name="New"), tracklist("a", "Dusk")])
        rows = await ready.match(
            match(node("Recording", as_="r", uuid="a"), out(), node(), out(as_="c"), node(as_="t"))
        )
        assert [(dict(row["r"].properties), row["t"]["title"], row["c"]["start"]) for row in rows] == [
            ({"uuid": "a", "name": "New"}, "Dusk", 0)
        ]
        assert await ready.match(match(node("Track", as_="t", title="Noon"))) == []

    async def test_removal_of_all_leaves_nothing(self, ready: GraphStore) -> None:
        await ready.write(TOKEN, mix())
        assert await ready.write(TOKEN, gone(*mix())) == WriteResult(5, 0)
        assert await contents(ready) == (Counter(), Counter())
        assert [found async for found in ready.scan_owners()] == []

    async def test_edge_without_end_makes_a_stub_that_is_filled_and_falls_back(self, ready: GraphStore) -> None:
        async def found() -> list[dict[str, Value]]:
            rows = await ready.match(match(node("Recording", as_="r")))
            return [dict(row["r"].properties) for row in rows]

        await ready.write(TOKEN, [tracklist("a", "Dawn")])
        assert await found() == [{"uuid": "a"}]
        await ready.write(TOKEN, [recording("a", name="Opening")])
        assert await found() == [{"uuid": "a", "name": "Opening"}]
        await ready.write(TOKEN, gone(recording("a")))
        assert await found() == [{"uuid": "a"}]
        assert (await ready.statistics()).stubs == {"Recording": 1, "Track": 1}
        await ready.write(TOKEN, gone(tracklist("a")))
        assert await contents(ready) == (Counter(), Counter())

    async def test_any_order_of_owners_gives_the_same_graph(self, ready: GraphStore) -> None:
        graphs = []
        for order in itertools.permutations(mix()[1:]):
            for fragment in order:
                await ready.write(TOKEN, [fragment])
            graphs.append(await contents(ready))
            await ready.write(TOKEN, gone(*order))
        assert all(graph == graphs[0] for graph in graphs)

    async def test_value_node_is_one_and_stays_while_an_owner_needs_it(self, ready: GraphStore) -> None:
        await ready.write(TOKEN, [tracklist("a", "Dawn"), tracklist("b", "Dawn")])
        tracks = match(node("Track", as_="t"))
        assert len(await ready.match(tracks)) == 1
        await ready.write(TOKEN, gone(tracklist("a")))
        assert len(await ready.match(tracks)) == 1
        await ready.write(TOKEN, gone(tracklist("b")))
        assert await ready.match(tracks) == []

    async def test_same_edge_twice_is_kept_twice(self, ready: GraphStore) -> None:
        here, there = NodeRef.of("Tracklist", id="a"), NodeRef.of("Track", title="Dawn", artist="Ada")
        edges = [EdgeItem("CONTAINS_TRACK", here, there, {"start": start}) for start in (0, 0, 7)]
        await ready.write(TOKEN, [GraphFragment(Owner("tracklists", "a"), (), tuple(edges))])
        await ready.write(TOKEN, [GraphFragment(Owner("tracklists", "a"), (), tuple(edges[1:]))])
        rows = await ready.match(match(node("Tracklist"), out(as_="e"), node("Track")).order_by(prop("e", "start")))
        assert [row["e"]["start"] for row in rows] == [0, 7]

    async def test_edges_of_two_owners_between_the_same_nodes_are_theirs(self, ready: GraphStore) -> None:
        edge = EdgeItem("KNOWS", NodeRef.of("Person", id="x"), NodeRef.of("Person", id="y"))
        both_have = [GraphFragment(Owner("friends", key), (), (edge,)) for key in ("1", "2")]
        await ready.write(TOKEN, both_have)
        assert (await ready.statistics()).edges == {"KNOWS": 2}
        await ready.write(TOKEN, gone(both_have[0]))
        assert (await ready.statistics()).edges == {"KNOWS": 1}

    # ------------------------------------------------------------------ conflicts

    async def test_node_of_another_owner_is_a_conflict_and_nothing_is_written(self, ready: GraphStore) -> None:
        await ready.write(TOKEN, [recording("a", name="Opening")])
        thief = GraphFragment(Owner("thieves", "1"), recording("a").nodes)
        with pytest.raises(ConflictError) as caught:
            await ready.write(TOKEN, [recording("b"), thief])
        assert (caught.value.code, caught.value.owner, caught.value.other) == (
            "graph.conflict",
            thief.owner,
            Owner("recordings", "a"),
        )
        assert (await ready.statistics()).nodes == {"Recording": 1}
        with pytest.raises(ConflictError):
            await ready.write(TOKEN, [recording("n"), GraphFragment(Owner("thieves", "2"), recording("n").nodes)])

    async def test_node_moves_between_owners_in_one_write(self, ready: GraphStore) -> None:
        a, b = recording("a", name="A").nodes, recording("b", name="B").nodes
        one, two = Owner("recordings", "1"), Owner("recordings", "2")
        await ready.write(TOKEN, [GraphFragment(one, a)])
        await ready.write(TOKEN, [GraphFragment(two, a), GraphFragment(one)])
        await ready.write(TOKEN, [GraphFragment(one, b)])
        await ready.write(TOKEN, [GraphFragment(one, a), GraphFragment(two, b)])  # swapped
        assert await ready.read_owners([one, two]) == {
            one: GraphFragment(one, a).digest,
            two: GraphFragment(two, b).digest,
        }

    async def test_foreign_node_is_a_conflict_reported_and_left_alone(self, ready: GraphStore) -> None:
        await self.add_foreign(ready, NodeRef.of("Recording", uuid="a"))
        with pytest.raises(ConflictError) as caught:
            await ready.write(TOKEN, [recording("a")])
        assert caught.value.code == "graph.foreign"
        assert await ready.remove_orphans() == 0
        assert [(item.kind, item.name) async for item in ready.foreign()] == [("node", "Recording")]

    @pytest.mark.parametrize(
        "fragment",
        [
            GraphFragment(Owner("x", "1"), (NodeItem(NodeRef.of("Recordin", uuid="1")),)),
            GraphFragment(Owner("x", "1"), (NodeItem(NodeRef.of("Recording", id="1")),)),
            GraphFragment(
                Owner("x", "1"), (), (EdgeItem("KNOW", NodeRef.of("Person", id="1"), NodeRef.of("Person", id="2")),)
            ),
        ],
    )
    async def test_what_the_schema_lacks_is_refused(self, ready: GraphStore, fragment: GraphFragment) -> None:
        with pytest.raises(ConfigurationError) as caught:
            await ready.write(TOKEN, [fragment])
        assert caught.value.code == "graph.schema"
        assert await contents(ready) == (Counter(), Counter())

    async def test_owner_or_node_twice_is_refused(self, ready: GraphStore) -> None:
        twice = GraphFragment(Owner("x", "1"), recording("a").nodes * 2)
        for fragments in ([recording("a"), recording("a")], [twice]):
            with pytest.raises(ValidationError):
                await ready.write(TOKEN, fragments)

    # ------------------------------------------------------------------ verify

    async def test_scan_is_ascending_by_hash_with_pages_and_tables(self, ready: GraphStore) -> None:
        fragments = [*mix(), *(recording(str(number)) for number in range(30))]
        await ready.write(TOKEN, fragments)
        expected = sorted(fragments, key=lambda fragment: fragment.owner.hash)
        found = [(item.owner, item.digest) async for item in ready.scan_owners()]
        assert found == [(fragment.owner, fragment.digest) for fragment in expected]
        after, pages = None, []
        while page := [item async for item in ready.scan_owners(table="recordings", after=after, limit=7)]:
            assert len(page) <= 7
            pages += [item.owner for item in page]
            after = page[-1].owner.hash
        assert pages == [fragment.owner for fragment in expected if fragment.owner.table == "recordings"]

    async def test_deep_digest_sees_a_changed_property_and_a_write_mends_it(self, ready: GraphStore) -> None:
        fragments = [*mix(), recording("e", number=1, text="1", flag=True, real=1.0, big=2**62, tiny=5e-324)]
        await ready.write(TOKEN, fragments)
        owners = {fragment.owner: fragment.digest for fragment in fragments}
        assert await ready.read_owners([*owners, Owner("recordings", "none")]) == owners
        before = await contents(ready)
        await self.set_property(ready, NodeRef.of("Recording", uuid="a"), "name", "forged")
        await self.set_property(ready, NodeRef.of("Track", title="Noon", artist="Ada"), "title", "forged")
        differing = {owner for owner, digest in (await ready.read_owners(owners)).items() if digest != owners[owner]}
        assert differing == {Owner("recordings", "a"), Owner("tracklists", "a")}
        await ready.invalidate([*differing, Owner("recordings", "none")])
        assert {found.owner async for found in ready.scan_owners() if not found.digest} == differing
        assert await ready.write(TOKEN, fragments) == WriteResult(2, 4)
        assert await ready.read_owners(owners) == owners
        assert await contents(ready) == before
        await ready.invalidate(None)
        assert await ready.write(TOKEN, fragments) == WriteResult(6, 0)
        assert await contents(ready) == before

    async def test_statistics_count_by_label_type_and_table(self, ready: GraphStore) -> None:
        await ready.write(TOKEN, mix())
        found = await ready.statistics()
        assert found.nodes == {"Recording": 3, "Tracklist": 2, "Track": 4}
        assert found.edges == {"HAS_TRACKLIST": 2, "CONTAINS_TRACK": 7}
        assert (found.stubs, found.owners) == ({"Track": 4}, {"recordings": 3, "tracklists": 2})
        assert await ready.remove_orphans() == 0

    async def test_f37_shared_value_node_under_two_writers(self, ready: GraphStore, second: GraphStore) -> None:
        await second.ensure_schema(SCHEMA)
        await second.create_token(OTHER_TOKEN)
        await ready.write(TOKEN, [tracklist("a", "Dawn")])
        shared = match(node("Tracklist"), out("CONTAINS_TRACK"), node("Track", as_="t")).select(prop("t", "title"))
        for number in range(self.rounds):
            leaves, arrives = ("a", "b") if number % 2 == 0 else ("b", "a")
            writes = [
                ready.write(TOKEN, gone(tracklist(leaves))),
                second.write(OTHER_TOKEN, [tracklist(arrives, "Dawn")]),
            ]
            await asyncio.gather(*(writes if number % 4 < 2 else reversed(writes)))
            assert await ready.match(shared) == [{"t.title": "Dawn"}], f"round {number}"
            assert len(await second.match(match(node("Track", as_="t")))) == 1, f"round {number}"
        await ready.write(TOKEN, gone(tracklist("a"), tracklist("b")))
        assert await contents(ready) == (Counter(), Counter())

    # ------------------------------------------------------------------ patterns

    async def ask(self, store: GraphStore, query: Query) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in await store.match(query)]

    async def test_recordings_are_joined_by_shared_tracks(self, ready: GraphStore) -> None:
        await ready.write(TOKEN, mix())
        query = (
            match(
                node("Recording", as_="a", uuid="a"), out("HAS_TRACKLIST"), node("Tracklist"), out("CONTAINS_TRACK"),
                node("Track", as_="t"),
                into("CONTAINS_TRACK"), node("Tracklist"), into("HAS_TRACKLIST"), node("Recording", as_="b"),
            )
            .where(prop("a", "uuid") != prop("b", "uuid"))
            .select(prop("b", "uuid"), count("t"), count("t", distinct=True), collect(prop("t", "title")))
        )  # fmt: skip
        assert await self.ask(ready, query) == [("b", 3, 2, ("Dawn", "Dawn", "Dusk"))]
        # The same edge isn't used twice in one path, so from a track back to its own list there is no way but a second
        # edge: Dawn stands in a's list twice.
        own = match(node("Tracklist", id="a"), out(), node("Track", as_="t"), into(), node("Tracklist", id="a"))
        assert await self.ask(ready, own.select(prop("t", "title"))) == [("Dawn",)] * 2

    async def test_conditions_on_typed_values_and_null(self, ready: GraphStore) -> None:
        values: dict[str, Value] = {"int": 1, "real": 1.0, "text": "1", "bool": True, "list": (1,)}
        await ready.write(TOKEN, [recording(key, v=value) for key, value in values.items()] + [recording("none")])
        value = prop("r", "v")
        for condition, expected in (
            (value == 1, {"int", "real"}),
            (value != 1, {"text", "bool", "list"}),
            (~(value == 1), {"text", "bool", "list"}),
            (value == "1", {"text"}),
            (value == True, {"bool"}),  # noqa: E712 - a condition, not a truth value
            (value < 2, {"int", "real"}),
            (~(value < 2), set()),
            (value >= "0", {"text"}),
            (value > False, {"bool"}),
            (value.in_([1, "1"]), {"int", "real", "text"}),
            (value.in_([]), set()),
            (~value.in_([]), {*values, "none"}),
            (value.is_null(), {"none"}),
            (~value.is_null() & ~(value == "1"), {"int", "real", "bool", "list"}),
            (value.contains("1"), {"text"}),
            (~value.starts_with("2"), {"text"}),
            ((value == 1) | value.is_null(), {"int", "real", "none"}),
            (value == value, set(values)),  # noqa: PLR0124 - null is the one that isn't equal to itself
        ):
            found = await self.ask(ready, match(node("Recording", as_="r")).where(condition).select(prop("r", "uuid")))
            assert {key for (key,) in found} == expected, condition

    async def test_order_limit_distinct_and_aggregates(self, ready: GraphStore) -> None:
        values: list[Value] = [2, 1.5, "b", "a", True, False, 2.0]
        await ready.write(TOKEN, [*(recording(str(key), v=v) for key, v in enumerate(values)), recording("none")])
        base, value = match(node("Recording", as_="r")), prop("r", "v")
        ascending = ["a", "b", False, True, 1.5, 2, 2, None]
        for query, expected in (
            (base.select(v=value).order_by("v"), ascending),
            (base.select(v=value).order_by(desc("v")), ascending[::-1]),
            (base.select(v=value).order_by(value, prop("r", "uuid")).skip(2).limit(3), [False, True, 1.5]),
            (base.select(v=value).distinct().order_by("v"), ["a", "b", False, True, 1.5, 2, None]),
            (base.select(count()), [8]),
            (base.select(count(value)), [7]),
            (base.select(count(value, distinct=True)), [6]),
            (base.select(collect(value, distinct=True)), [("a", "b", False, True, 1.5, 2)]),
            (base.select(minimum(value)), ["a"]),
            (base.select(maximum(value)), [2]),
            (base.select(total(value)), [5.5]),
            (base.select(average(value)), [5.5 / 3]),
            (base.where(value == "none").select(total(value)), [0]),
            (base.where(value == "none").select(average(value)), [None]),
            (base.where(value == "none").select(collect(value)), [()]),
        ):
            found = [row[0] for row in await self.ask(ready, query)]
            assert [(type(item), item) for item in map(_real, found)] == [
                (type(item), item) for item in map(_real, expected)
            ], query

    async def test_hops_and_shortest_paths_end_on_cycles(self, ready: GraphStore) -> None:
        ring = [person(str(key), str((key + 1) % 6), age=key) for key in range(6)] + [person("alone")]
        await ready.write(TOKEN, ring)
        start, end = node("Person", id="0"), node("Person", as_="p")
        for edge, expected in (
            (out("KNOWS", hops=2), [("2", 2)]),
            (out("KNOWS", hops=(0, 2)), [("0", 0), ("1", 1), ("2", 2)]),
            (into("KNOWS", hops=(1, 2)), [("4", 2), ("5", 1)]),
            (out("KNOWS", hops=(1, None)), [("0", 6), ("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5)]),
            (both("KNOWS", hops=(1, None), shortest=True), [("1", 1), ("2", 2), ("3", 3), ("4", 2), ("5", 1)]),
            (out("KNOWS", hops=(1, 3), shortest=True), [("1", 1), ("2", 2), ("3", 3)]),
        ):
            query = match(start, edge, end, as_="way").select(prop("p", "id"), length("way")).order_by(prop("p", "id"))
            assert await self.ask(ready, query) == expected, edge
        (row,) = await ready.match(
            match(start, both("KNOWS", as_="k", hops=(1, None), shortest=True), node("Person", id="4"), as_="way")
        )
        assert [found["id"] for found in row["way"].nodes] == ["0", "5", "4"]
        assert row["way"].edges == row["k"]
        nowhere = match(start, both("KNOWS", hops=(1, None), shortest=True), node("Person", id="alone"), as_="way")
        assert await ready.match(nowhere) == []

    async def test_s05_names_are_only_names(self, ready: GraphStore) -> None:
        await ready.write(TOKEN, mix())
        for odd in ("a'b", 'a"b', "a`b", "a;--", "]", "\\", "$.x", "ü\n", "a.b"):
            written = recording("odd", **{odd: odd, f"{odd}2": 2})
            await ready.write(TOKEN, [written])
            query = match(node("Recording", as_=odd)).where(prop(odd, odd) == odd).select(**{odd: prop(odd, f"{odd}2")})
            assert await ready.match(query.order_by(prop(odd, odd))) == [{odd: 2}]
            assert await ready.read_owners([written.owner]) == {written.owner: written.digest}
            for unknown in (match(node(odd, as_="n")), match(node(as_="n"), out(odd), node())):
                with pytest.raises(ValidationError):
                    await ready.match(unknown)
        with pytest.raises(ValidationError, match="did you mean 'Recording'"):
            await ready.match(match(node("Recordin", as_="n")))


def _real(value: Any) -> Any:
    """1 and 1.0 are one value, True is another."""
    if isinstance(value, tuple):
        return tuple(map(_real, value))
    return value if value is None or isinstance(value, (str, bool)) else float(value)
