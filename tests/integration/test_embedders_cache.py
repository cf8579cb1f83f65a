"""Embedding by way of the table, on both dialects; F36: a provider that is slow, limits the rate or returns junk."""

from __future__ import annotations

import asyncio
import struct
import sys

import pytest
import sqlalchemy as sa

from fourfold.errors import StoreRejectedError, StoreUnavailableError, ValidationError
from fourfold.relay.embedding import EmbeddingCache, content_hash
from fourfold.rows.engine import read_transaction, write_transaction
from fourfold.rows.tables import embedding
from fourfold.testing.embedders import HashEmbedder


class Provider(HashEmbedder):
    """Notes its calls; each may first meet a trouble."""

    def __init__(self, *troubles, dimension=8):
        super().__init__(dimension)
        self.troubles = list(troubles)
        self.calls = []

    async def embed(self, texts, *, kind="passage"):
        self.calls.append((kind, list(texts)))
        trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, BaseException):
            raise trouble
        if trouble is not None:
            return await trouble(texts)
        return await super().embed(texts, kind=kind)


class Clock:
    def __init__(self):
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(engine, clock):
    def make(provider, **options):
        return EmbeddingCache(engine, provider, sleep=clock.sleep, **options)

    return make


def rounded(vectors):
    return [struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector)) for vector in vectors]


async def lines(engine):
    async with read_transaction(engine) as connection:
        return (await connection.execute(sa.select(embedding))).all()


def limited(**facts):
    return StoreUnavailableError("429", code="embedder.rate", **facts)


async def test_each_text_is_embedded_once_and_comes_back_in_order(engine, cache):
    provider = Provider()
    texts = ["calm sea", "loud techno", "calm sea"]
    vectors = await cache(provider).embed(texts)
    assert vectors == rounded(await HashEmbedder(8).embed(texts))
    assert [sorted(asked) for _, asked in provider.calls] == [["calm sea", "loud techno"]]
    again = Provider()
    assert await cache(again).embed(["loud techno", "new"]) == rounded(
        await HashEmbedder(8).embed(["loud techno", "new"])
    )
    assert again.calls == [("passage", ["new"])]
    stored = await lines(engine)
    assert {line.content_hash for line in stored} == {content_hash(text) for text in [*texts, "new"]}
    assert all(line.model == provider.model and line.created_at > 1.7e9 for line in stored)


async def test_nothing_asked_is_nothing_done(cache):
    provider = Provider()
    assert await cache(provider).embed([]) == []
    assert provider.calls == []


async def test_models_are_apart(cache):
    one, other = Provider(), HashEmbedder(4, "another")
    assert len((await cache(one).embed(["calm sea"]))[0]) == 8
    assert len((await cache(other).embed(["calm sea"]))[0]) == 4


async def test_missing_texts_are_asked_for_in_batches_and_looked_up_by_hundreds(cache):
    provider = Provider()
    texts = [f"song {n}" for n in range(1201)]
    assert await cache(provider, batch_size=500).embed(texts) == rounded(await HashEmbedder(8).embed(texts))
    assert [len(asked) for _, asked in provider.calls] == [500, 500, 201]
    await cache(provider).embed(texts)
    assert len(provider.calls) == 3


async def test_queries_are_not_stored(engine, cache):
    provider = Provider()
    for _ in range(2):
        await cache(provider).embed(["calm sea"], kind="query")
    assert [kind for kind, _ in provider.calls] == ["query", "query"]
    assert await lines(engine) == []


async def test_the_vector_stored_first_stays_when_two_workers_embed_at_once(engine, cache):
    both = asyncio.Barrier(2)

    def differing(value):
        async def answer(texts):
            await both.wait()
            return [(float(value),) * 8 for _ in texts]

        return answer

    texts = [f"song {n}" for n in range(50)]
    one, other = await asyncio.gather(
        cache(Provider(differing(1)), batch_size=50).embed(texts),
        cache(Provider(differing(2)), batch_size=50).embed(texts[::-1]),
    )
    assert one == other[::-1]
    assert len(await lines(engine)) == 50


async def test_line_of_another_length_is_asked_for_again_and_replaced(engine, cache):
    await cache(Provider()).embed(["calm sea"])
    async with write_transaction(engine) as connection:
        await connection.execute(sa.update(embedding).values(vector=b"\x00" * 12))
    provider = Provider()
    expected = rounded(await HashEmbedder(8).embed(["calm sea"]))
    assert await cache(provider).embed(["calm sea"]) == expected
    assert await cache(provider).embed(["calm sea"]) == expected
    assert len(provider.calls) == 1


@pytest.mark.parametrize("text", ["", "\ud800"])
async def test_text_that_cant_be_embedded_is_named_by_position(cache, text):
    with pytest.raises(ValidationError, match="text 1"):
        await cache(Provider()).embed(["calm sea", text])


async def test_rate_limit_is_waited_for_with_growing_delays_f36(cache, clock):
    provider = Provider(limited(), limited(), limited(retry_after_seconds=7), limited(retry_after_seconds=3600))
    await cache(provider).embed(["calm sea"])
    assert clock.slept == [0.5, 1.0, 7, 30.0]
    assert len(provider.calls) == 5


async def test_provider_that_stays_away_is_given_up_and_what_was_done_is_kept_f36(engine, cache, clock):
    provider = Provider(None, *[limited() for _ in range(5)])
    texts = ["one", "two"]
    with pytest.raises(StoreUnavailableError) as caught:
        await cache(provider, batch_size=1).embed(texts)
    assert caught.value.code == "embedder.rate"
    assert clock.slept == [0.5, 1.0, 2.0, 4.0]
    assert len(await lines(engine)) == 1
    await cache(provider, batch_size=1).embed(texts)
    assert len(provider.calls) == 7


async def test_slow_provider_is_cut_off_and_asked_again_f36(cache, clock):
    async def never(_texts):
        await asyncio.Event().wait()

    await cache(Provider(never), timeout_seconds=0.01).embed(["calm sea"])
    assert len(clock.slept) == 1
    provider = Provider(never, never)
    with pytest.raises(StoreUnavailableError) as caught:
        await cache(provider, timeout_seconds=0.01).embed(["loud techno"])
    assert (caught.value.code, caught.value.retryable, len(provider.calls)) == ("embedder.timeout", True, 2)


async def test_a_provider_is_asked_for_a_sign_of_life_once(cache, clock):
    provider = Provider(StoreUnavailableError("busy", code="embedder.away"))
    asked = cache(provider)
    assert not await asked.answers()
    assert await asked.answers()
    assert (len(provider.calls), clock.slept) == (2, [])


@pytest.mark.parametrize(
    ("answer", "code", "named"),
    [
        ([(1.0,) * 9], "embedder.dimension", "9 .*8"),
        ([(1.0,) * 8] * 2, "embedder.count", "2 vectors for 1"),
        ([(float("nan"),) * 8], "embedder.not_finite", "NaN"),
        ([(1e39,) * 8], "embedder.not_finite", "NaN"),
    ],
)
async def test_wrong_answer_is_refused_once_and_nothing_stored_f36(engine, cache, clock, answer, code, named):
    async def wrong(_texts):
        return answer

    for kind in ("passage", "query"):
        provider = Provider(wrong)
        with pytest.raises(StoreRejectedError, match=named) as caught:
            await cache(provider).embed(["calm sea"], kind=kind)
        assert caught.value.code == code
        assert len(provider.calls) == 1
    assert clock.slept == []
    assert await lines(engine) == []


async def test_refused_text_is_not_asked_for_again(cache, clock):
    with pytest.raises(StoreRejectedError):
        await cache(Provider(StoreRejectedError("too long", code="embedder.refused"))).embed(["calm sea"])
    assert clock.slept == []


async def test_big_endian_machine_stores_the_same_bytes_and_reads_them_back(engine, cache, monkeypatch):
    async def answer(_texts):
        return [(1.0, -2.5, *[0.0] * 6)]

    monkeypatch.setattr(sys, "byteorder", "big" if sys.byteorder == "little" else "little")  # floats are then swapped
    assert await cache(Provider(answer)).embed(["calm sea"]) == [(1.0, -2.5, *[0.0] * 6)]
    [line] = await lines(engine)
    assert line.vector == struct.pack(">8f" if sys.byteorder == "big" else "<8f", 1.0, -2.5, *[0.0] * 6)
