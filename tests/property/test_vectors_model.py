"""Random writes, removals, revocations and searches, from two processes' view, against a dict and brute force."""

from __future__ import annotations

import asyncio
import math
import struct
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fourfold.errors import RevokedError
from fourfold.projection.items import Owner, PointFragment, PointItem
from fourfold.vectors import CollectionSpec, SqliteVectorStore
from fourfold.vectors.sqlite import search

SPEC = CollectionSpec("songs", "model-1", 3, ("genre", "year", "tags"))

coordinates = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-100, 100, width=32))
vectors = st.tuples(coordinates, coordinates, coordinates)
genres = st.sampled_from(["dub", "ambient", ""])
years = st.one_of(st.integers(1998, 2000), st.just(1999.0), st.booleans())
payloads = st.fixed_dictionaries(
    {}, optional={"genre": genres, "year": years, "tags": st.lists(genres, max_size=2).map(tuple)}
)
points = st.builds(PointItem, vectors, st.one_of(st.none(), st.text("ab", min_size=1, max_size=3)), payloads)
owners = st.builds(Owner, st.sampled_from(["songs", "albums"]), st.sampled_from(list("0123456789")))
fragments = st.builds(
    PointFragment, owners, st.just("songs"), st.lists(points, max_size=3).map(tuple), st.just("model-1")
)
lots = st.lists(fragments, max_size=6, unique_by=lambda each: each.owner)
wheres = st.fixed_dictionaries(
    {},
    optional={
        "genre": st.one_of(genres, st.lists(genres, max_size=2)),
        "year": st.one_of(years, st.lists(years, max_size=2)),
        "tags": genres,
    },
)


def rounded(vector):
    return struct.unpack("<3f", struct.pack("<3f", *vector))


def cosine(one, other):
    lengths = math.hypot(*one) * math.hypot(*other)
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def same(stored, wanted):
    return stored == wanted and isinstance(stored, bool) == isinstance(wanted, bool)


def matches(payload, where):
    for field, wanted in where.items():
        stored = payload.get(field, ())
        members = stored if isinstance(stored, tuple) else (stored,)
        choices = wanted if isinstance(wanted, list) else [wanted]
        if not any(same(member, choice) for member in members for choice in choices):
            return False
    return True


class VectorsModel(RuleBasedStateMachine):
    @initialize()
    def open(self):
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.before, search._MAX_GHOSTS = search._MAX_GHOSTS, 4  # so that memory is cleared in short runs too
        path = Path(self.folder.name) / "vectors.db"
        self.stores = [SqliteVectorStore(path, synchronous="OFF") for _ in range(2)]
        self.collections = [self.run(store.ensure_collection(SPEC)) for store in self.stores]
        self.held: dict[Owner, PointFragment] = {}
        self.token = 0
        self.renew()

    def run(self, awaitable):
        async def wait():
            return await awaitable

        return self.runner.run(wait())

    @rule()
    def renew(self):
        """The token is revoked, and a late write under it does nothing."""
        self.run(self.collections[0].revoke_tokens([self.token]))
        try:
            self.run(self.collections[1].write(self.token, [PointFragment(owner, "songs") for owner in self.held]))
        except RevokedError:
            self.token += 1
        else:
            raise AssertionError("a revoked token wrote")
        self.run(self.collections[1].create_token(self.token))

    @rule(lot=lots, by=st.integers(0, 1))
    def write(self, lot, by):
        differs = [self.held.get(each.owner, PointFragment(each.owner, "songs")).digest != each.digest for each in lot]
        result = self.run(self.collections[by].write(self.token, lot))
        # A vector of a text isn't in the digest, but what is stored is compared too.
        assert sum(differs) <= result.written <= len(lot)
        assert result.written + result.unchanged == len(lot)
        assert self.run(self.collections[1 - by].write(self.token, lot)).written == 0
        for each in lot:
            self.held.pop(each.owner, None)
            if each.points:
                self.held[each.owner] = each

    @rule(query=vectors, limit=st.integers(1, 12), where=wheres, by=st.integers(0, 1))
    def nearest(self, query, limit, where, by):
        expected = {
            (owner, ordinal): cosine(query, rounded(point.vector))
            for owner, fragment in self.held.items()
            for ordinal, point in enumerate(fragment.points)
            if matches(point.payload, where)
        }
        hits = self.run(self.collections[by].nearest(query, limit=limit, where=where))
        found = [(hit.owner, hit.ordinal) for hit in hits]
        assert len(set(found)) == len(found) == min(limit, len(expected))
        for hit in hits:
            assert math.isclose(hit.score, expected[hit.owner, hit.ordinal], abs_tol=1e-6)
            assert hit.payload == self.held[hit.owner].points[hit.ordinal].payload
        assert found == sorted(found, key=lambda each: (-scores(hits)[each], each))
        left_out = [score for place, score in expected.items() if place not in found]
        assert not left_out or not hits or max(left_out) <= hits[-1].score + 1e-6
        for place in found:  # equal vectors come by owner and ordinal: none before it was left out
            twins = [other for other in expected if self.vector(other) == self.vector(place) and other < place]
            assert all(twin in found for twin in twins)

    def vector(self, place):
        return rounded(self.held[place[0]].points[place[1]].vector)

    @invariant()
    def store_agrees_with_dict(self):
        if not hasattr(self, "held"):
            return
        for collection in self.collections:
            scanned = self.run(gather(collection.scan_owners()))
            assert {each.owner: each.digest for each in scanned} == {
                owner: fragment.digest for owner, fragment in self.held.items()
            }
            assert self.run(collection.count()) == sum(len(each.points) for each in self.held.values())
        assert self.run(collection.read_owners(list(self.held))) == {
            owner: fragment.digest for owner, fragment in self.held.items()
        }
        assert self.run(collection.read_vectors(list(self.held))) == {
            owner: tuple(rounded(point.vector) for point in fragment.points) for owner, fragment in self.held.items()
        }

    def teardown(self):
        if hasattr(self, "stores"):
            for store in self.stores:
                self.run(store.close())
            self.runner.close()
            self.folder.cleanup()
            search._MAX_GHOSTS = self.before


def scores(hits):
    return {(hit.owner, hit.ordinal): hit.score for hit in hits}


async def gather(members):
    return [each async for each in members]


TestVectorsModel = VectorsModel.TestCase
TestVectorsModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
