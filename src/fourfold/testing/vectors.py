"""What every vector store must do: a suite that the embedded one passes, and that a third party's can run too.

Subclass `VectorStoreContract` in a test module under a name that begins with `Test`, and say how a store is opened and
how stored data is damaged behind its back; pytest (with pytest-asyncio in auto mode) runs the rest.

```python
class TestMyStore(VectorStoreContract):
    @pytest.fixture
    async def store(self):
        store = MyStore(...)
        yield store
        await store.close()

    async def tamper(self, store, spec, owner, ordinal, *, payload=None, vector=None): ...
```
"""
# ruff: noqa: D102, PLR2004 - a test's name states the behaviour, and the expected value is the point

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fourfold.errors import ConfigurationError, RevokedError, ValidationError
from fourfold.projection.items import Owner, OwnerDigest, PointFragment, PointItem, Value
from fourfold.projection.target import WriteResult
from fourfold.vectors.store import CollectionSpec, VectorCollection, VectorStore

__all__ = ["VectorStoreContract"]

SPEC = CollectionSpec("songs", "model-1", 3, ("genre", "year", "live", "rating", "tags"))
TOKEN = 7

EAST, NORTH, UP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
NORTH_EAST = (1.0, 1.0, 0.0)
NOWHERE = (0.0, 0.0, 0.0)


def owner(key: object, table: str = "songs") -> Owner:
    """A row of the suite's table."""
    return Owner(table, str(key))


def fragment(key: object, *points: PointItem | Sequence[float], model: str = SPEC.model) -> PointFragment:
    """A fragment of the suite's collection; a bare vector stands for a point without payload."""
    items = tuple(point if isinstance(point, PointItem) else PointItem(tuple(point)) for point in points)
    return PointFragment(key if isinstance(key, Owner) else owner(key), SPEC.name, items, model)


def point(vector: Sequence[float] = EAST, text: str | None = None, **payload: Value) -> PointItem:
    """A point with a payload."""
    return PointItem(tuple(vector), text, payload)


class VectorStoreContract:
    """The suite. It needs the fixture `store` (a fresh, empty store) and the method `tamper`."""

    async def tamper(
        self,
        store: Any,
        spec: CollectionSpec,
        owner: Owner,
        ordinal: int,
        *,
        payload: Mapping[str, Value] | None = None,
        vector: Sequence[float] | None = None,
    ) -> None:
        """Change what the store holds of a point, leaving the digest that was written with it."""
        raise NotImplementedError

    @pytest.fixture
    async def songs(self, store: VectorStore) -> VectorCollection:
        """The suite's collection, with a token."""
        collection = await store.ensure_collection(SPEC)
        await collection.create_token(TOKEN)
        return collection

    # --- collections

    async def test_collection_is_a_target_named_after_it(self, songs: VectorCollection) -> None:
        assert songs.name == "vectors.songs"
        assert songs.spec == SPEC

    async def test_ensuring_twice_keeps_the_points(self, store: VectorStore, songs: VectorCollection) -> None:
        await songs.write(TOKEN, [fragment(1, EAST)])
        again = await store.ensure_collection(SPEC)
        assert await again.count() == 1
        assert [spec async for spec in store.collections()] == [SPEC]

    async def test_other_dimension_or_model_is_refused_and_names_both(self, store: VectorStore) -> None:
        await store.ensure_collection(SPEC)
        with pytest.raises(ConfigurationError, match=r"3 .*4 ") as caught:
            await store.ensure_collection(CollectionSpec(SPEC.name, SPEC.model, 4))
        assert caught.value.code == "vectors.collection"
        with pytest.raises(ConfigurationError, match=r"model-1.*model-2"):
            await store.ensure_collection(CollectionSpec(SPEC.name, "model-2", 3))

    async def test_collections_are_apart(self, store: VectorStore, songs: VectorCollection) -> None:
        other = await store.ensure_collection(CollectionSpec("faces", "model-2", 2))
        await songs.write(TOKEN, [fragment(1, EAST)])
        assert (await songs.count(), await other.count()) == (1, 0)
        assert await other.nearest((1.0, 0.0)) == []
        with pytest.raises(RevokedError):  # a token is one collection's
            await other.write(TOKEN, [PointFragment(owner(1), "faces", (PointItem((1.0, 0.0)),))])

    # --- the fence

    async def test_without_its_token_nothing_is_written(self, songs: VectorCollection) -> None:
        with pytest.raises(RevokedError):
            await songs.write(TOKEN + 1, [fragment(1, EAST)])
        assert await songs.count() == 0

    async def test_late_write_after_revocation_neither_writes_nor_removes(self, songs: VectorCollection) -> None:
        await songs.write(TOKEN, [fragment(1, EAST)])
        await songs.revoke_tokens([TOKEN, 99])
        for late in (fragment(1, NORTH), fragment(1), fragment(2, UP)):
            with pytest.raises(RevokedError):
                await songs.write(TOKEN, [late])
        assert await songs.read_owners([owner(1), owner(2)]) == {owner(1): fragment(1, EAST).digest}

    async def test_tokens_are_made_and_revoked_twice_without_complaint(self, songs: VectorCollection) -> None:
        await songs.create_token(TOKEN)
        await songs.write(TOKEN, [fragment(1, EAST)])
        for _ in range(2):
            await songs.revoke_tokens([TOKEN])

    # --- writing

    async def test_replay_writes_nothing(self, songs: VectorCollection) -> None:
        both = [fragment(1, point(EAST, "dawn", genre="dub")), fragment(2, EAST, NORTH)]
        assert await songs.write(TOKEN, both) == WriteResult(2, 0)
        assert await songs.write(TOKEN, both) == WriteResult(0, 2)
        assert await songs.write(TOKEN, [fragment(3)]) == WriteResult(0, 1)

    async def test_replacement_takes_what_the_owner_no_longer_has(self, songs: VectorCollection) -> None:
        await songs.write(TOKEN, [fragment(1, EAST, NORTH, UP), fragment(2, EAST)])
        assert await songs.write(TOKEN, [fragment(1, point(UP, year=1999))]) == WriteResult(1, 0)
        assert await songs.count() == 2
        hits = await songs.nearest(UP)
        assert [(hit.owner, hit.ordinal, hit.payload) for hit in hits] == [
            (owner(1), 0, {"year": 1999}),
            (owner(2), 0, {}),
        ]

    async def test_empty_fragment_removes(self, songs: VectorCollection) -> None:
        await songs.write(TOKEN, [fragment(1, point(EAST, genre="dub")), fragment(2, point(EAST, genre="dub"))])
        assert await songs.write(TOKEN, [fragment(1)]) == WriteResult(1, 0)
        assert [hit.owner for hit in await songs.nearest(EAST, where={"genre": "dub"})] == [owner(2)]
        assert [each.owner async for each in songs.scan_owners()] == [owner(2)]
        assert await songs.count() == 1

    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            (fragment(2, (1.0, 0.0)), "vectors.dimension"),
            (fragment(2, (1.0, float("nan"), 0.0)), "vectors.not_finite"),
            (fragment(2, (1.0, float("inf"), float("-inf"))), "vectors.not_finite"),
            (fragment(2, (1e39, 0.0, 0.0)), "vectors.not_finite"),  # beyond 32-bit floats
            (fragment(2, PointItem(text="dawn")), "vectors.missing_vector"),
            (fragment(2, point(EAST, "dawn"), model="model-2"), "vectors.model"),
            (fragment(1, NORTH), "vectors.duplicate_owner"),
        ],
    )
    async def test_bad_fragment_is_named_and_nothing_written(
        self, songs: VectorCollection, bad: PointFragment, code: str
    ) -> None:
        with pytest.raises(ValidationError, match=str(bad.owner)) as caught:
            await songs.write(TOKEN, [fragment(1, EAST), bad])
        assert caught.value.code == code
        assert await songs.count() == 0

    async def test_payload_comes_back_as_it_was(self, songs: VectorCollection) -> None:
        payload: dict[str, Value] = {
            "genre": "düb ’n’ “bass” 🎚",
            "year": 2**63 - 1,
            "live": True,
            "rating": 1.0,
            "tags": ("a", ""),
            "numbers": (1, -(2**63)),
            "none": (),
            "tenth": 0.1,
            "tiny": 5e-324,
        }
        await songs.write(TOKEN, [fragment(1, PointItem(EAST, None, payload))])
        [hit] = await songs.nearest(EAST)
        assert dict(hit.payload) == payload
        assert {name: repr(value) for name, value in hit.payload.items()} == {
            name: repr(value) for name, value in payload.items()
        }

    # --- nearest

    async def test_nearest_is_by_cosine_best_first(self, songs: VectorCollection) -> None:
        await songs.write(TOKEN, [fragment(1, (9.0, 0.0, 0.0)), fragment(2, (0.1, 0.1, 0.0)), fragment(3, (-1, 0, 0))])
        hits = await songs.nearest(EAST)
        assert [hit.owner.key for hit in hits] == ["1", "2", "3"]
        assert [hit.score for hit in hits] == pytest.approx([1.0, 0.5**0.5, -1.0], abs=1e-6)
        assert [hit.owner.key for hit in await songs.nearest(NORTH_EAST, limit=1)] == ["2"]

    async def test_ties_come_by_owner_and_ordinal(self, songs: VectorCollection) -> None:
        rows = [fragment(Owner("songs", key), EAST, EAST) for key in ("b", "a", "10", "9")]
        await songs.write(TOKEN, [*rows, fragment(Owner("albums", "z"), EAST)])
        hits = await songs.nearest(EAST, limit=6)
        assert [(str(hit.owner), hit.ordinal) for hit in hits] == [
            ("albums:z", 0),
            ("songs:10", 0),
            ("songs:10", 1),
            ("songs:9", 0),
            ("songs:9", 1),
            ("songs:a", 0),
        ]

    async def test_zero_vectors_are_near_to_nothing(self, songs: VectorCollection) -> None:
        await songs.write(TOKEN, [fragment(1, NOWHERE), fragment(2, EAST), fragment(3, (-1.0, 0.0, 0.0))])
        assert [(hit.owner.key, hit.score) for hit in await songs.nearest(EAST)] == [
            ("2", pytest.approx(1.0)),
            ("1", 0.0),
            ("3", pytest.approx(-1.0)),
        ]
        assert [(hit.owner.key, hit.score) for hit in await songs.nearest(NOWHERE)] == [("1", 0), ("2", 0), ("3", 0)]

    @pytest.mark.parametrize(
        ("where", "keys"),
        [
            ({"genre": "dub"}, "13"),
            ({"genre": ["dub", "ambient"]}, "123"),
            ({"genre": []}, ""),
            ({"year": 1999}, "12"),
            ({"year": 1999.0}, "12"),  # numbers compare as numbers
            ({"year": "1999"}, ""),
            ({"live": True}, "1"),
            ({"live": 1}, "3"),  # and booleans are none
            ({"tags": "late"}, "12"),
            ({"tags": ["late", "slow"]}, "123"),
            ({"genre": "dub", "year": 1999}, "1"),
            ({"genre": ["dub", "ambient"], "tags": "late", "live": False}, "2"),
            ({"rating": 0.1}, ""),
            ({"genre": "dub' OR '1'='1"}, ""),
            ({}, "1234"),
        ],
    )
    async def test_filters(self, songs: VectorCollection, where: dict[str, Any], keys: str) -> None:
        rows = [
            fragment(1, point(genre="dub", year=1999, live=True, tags=("late", "night"))),
            fragment(2, point(genre="ambient", year=1999, live=False, tags=("late", "late"))),
            fragment(3, point(genre="dub", live=1, tags=("slow",))),
            fragment(4, EAST),
        ]
        await songs.write(TOKEN, rows)
        assert "".join(hit.owner.key for hit in await songs.nearest(EAST, where=where)) == keys

    async def test_unknown_field_gets_a_did_you_mean(self, songs: VectorCollection) -> None:
        with pytest.raises(ValidationError, match="did you mean 'genre'") as caught:
            await songs.nearest(EAST, where={"gnere": "dub"})
        assert caught.value.code == "vectors.unknown_field"

    @pytest.mark.parametrize("value", [{"$ne": "dub"}, [{"gt": 1}], [["dub"]], None, b"dub", float("nan"), 2**63])
    async def test_operators_and_other_kinds_are_no_filter_s06(self, songs: VectorCollection, value: Any) -> None:
        with pytest.raises(ValidationError):
            await songs.nearest(EAST, where={"genre": value})

    @pytest.mark.parametrize("vector", [(1.0,), (1.0, float("nan"), 0.0), (1e39, 0.0, 0.0)])
    async def test_bad_query_is_refused(self, songs: VectorCollection, vector: tuple[float, ...]) -> None:
        with pytest.raises(ValidationError):
            await songs.nearest(vector)
        with pytest.raises(ValidationError):
            await songs.nearest(EAST, limit=0)

    # --- verify

    async def test_scan_is_by_hash_in_pages_and_by_table(self, songs: VectorCollection) -> None:
        rows = [fragment(Owner(f"table{n % 3}", str(n)), EAST) for n in range(30)]
        await songs.write(TOKEN, rows)
        expected = sorted(((row.owner, row.digest) for row in rows), key=lambda pair: pair[0].hash)
        assert [(each.owner, each.digest) async for each in songs.scan_owners()] == expected
        paged: list[OwnerDigest] = []
        while page := [
            each async for each in songs.scan_owners(after=paged[-1].owner.hash if paged else None, limit=7)
        ]:
            paged += page
        assert [(each.owner, each.digest) for each in paged] == expected
        only = [each.owner async for each in songs.scan_owners(table="table1", after=expected[9][0].hash)]
        assert only == [row for row, _ in expected[10:] if row.table == "table1"]

    async def test_digest_is_the_same_before_and_after_embedding(self, songs: VectorCollection) -> None:
        before = fragment(1, PointItem(text="dawn", payload={"year": 1999}))
        await songs.write(TOKEN, [fragment(1, point(NORTH, "dawn", year=1999))])
        assert await songs.read_owners([owner(1), owner(2)]) == {owner(1): before.digest}
        assert [each.digest async for each in songs.scan_owners()] == [before.digest]

    async def test_deep_digest_sees_an_altered_payload_and_writing_mends_it(
        self, store: VectorStore, songs: VectorCollection
    ) -> None:
        right = fragment(1, point(EAST, "dawn", genre="dub"))
        await songs.write(TOKEN, [right])
        await self.tamper(store, SPEC, owner(1), 0, payload={"genre": "rock"})
        assert (await songs.read_owners([owner(1)]))[owner(1)] != right.digest
        assert [each.digest async for each in songs.scan_owners()] == [right.digest]  # quick verify's blind spot
        assert await songs.write(TOKEN, [right]) == WriteResult(1, 0)
        assert await songs.read_owners([owner(1)]) == {owner(1): right.digest}

    async def test_altered_vector_is_seen_and_writing_mends_it(
        self, store: VectorStore, songs: VectorCollection
    ) -> None:
        right = [fragment(1, point(EAST, "dawn")), fragment(2, EAST)]
        await songs.write(TOKEN, right)
        for each in right:
            await self.tamper(store, SPEC, each.owner, 0, vector=NORTH)
        assert await songs.read_vectors([owner(1)]) == {owner(1): (NORTH,)}
        assert (await songs.read_owners([owner(2)]))[owner(2)] != right[1].digest  # given, so it is in the digest
        assert await songs.write(TOKEN, right) == WriteResult(2, 0)
        assert await songs.read_vectors([owner(1), owner(2), owner(3)]) == {owner(1): (EAST,), owner(2): (EAST,)}

    async def test_vectors_come_back_by_ordinal(self, songs: VectorCollection) -> None:
        await songs.write(TOKEN, [fragment(1, UP, (0.5, -0.25, 3.0))])
        assert await songs.read_vectors([owner(1)]) == {owner(1): (UP, (0.5, -0.25, 3.0))}

    async def test_closing_twice_is_fine(self, store: VectorStore, songs: VectorCollection) -> None:
        for _ in range(2):
            await songs.close()
            await store.close()
