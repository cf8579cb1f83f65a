"""Questions to the catalog: what was played in several recordings (graph), and which recordings are alike (vectors).

Graph and vectors follow the rows and may lag; the rows have the last word: what was deleted doesn't come back here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fourfold.catalogs.recordings.models import Recording
from fourfold.errors import NotFoundError
from fourfold.graph.patterns import Query, into, match, node, out, prop
from fourfold.rows.errors import mapped_errors

if TYPE_CHECKING:
    from fourfold.fourfold import Fourfold

__all__ = ["COLLECTION", "SharedTrack", "SimilarRecording", "shared_tracks", "similar"]

COLLECTION: Final = "recordings"  # of points


@dataclass(frozen=True, slots=True)
class SharedTrack:
    """A track, and two recordings that have it; `first` is the one with the smaller id."""

    title: str
    artist: str
    first: uuid.UUID
    second: uuid.UUID


@dataclass(frozen=True, slots=True)
class SimilarRecording:
    """A recording and its likeness: cosine similarity, −1 to 1."""

    recording: Recording
    score: float


async def shared_tracks(
    store: Fourfold, recording_id: uuid.UUID | str | None = None, *, limit: int = 100
) -> list[SharedTrack]:
    """Return tracks that two recordings have, from the graph.

    Args:
        store: An open `Fourfold` over this catalog's models.
        recording_id: Only those that this recording shares; None for all pairs.
        limit: At most so many.

    Raises:
        FourfoldError: Of the graph.

    Example:
        ```python
        for track in await shared_tracks(store):
            print(track.artist, track.title, track.first, track.second)
        ```
    """
    rows = await store.graph.match(_shared_pattern(None if recording_id is None else str(recording_id)).limit(limit))
    return [
        SharedTrack(str(row["title"]), str(row["artist"]), uuid.UUID(str(row["first"])), uuid.UUID(str(row["second"])))
        for row in rows
    ]


def _shared_pattern(recording_id: str | None) -> Query:
    pairs = match(
        node("Recording", as_="a"),
        out("HAS_TRACKLIST"),
        node("Tracklist"),
        out("CONTAINS_TRACK"),
        node("Track", as_="t"),
        into("CONTAINS_TRACK"),
        node("Tracklist"),
        into("HAS_TRACKLIST"),
        node("Recording", as_="b"),
    ).where(prop("a", "uuid") < prop("b", "uuid"))  # each pair once
    if recording_id is not None:
        pairs = pairs.where((prop("a", "uuid") == recording_id) | (prop("b", "uuid") == recording_id))
    return (
        pairs.select(
            title=prop("t", "title"), artist=prop("t", "artist"), first=prop("a", "uuid"), second=prop("b", "uuid")
        )
        .distinct()  # a track may be played twice in a set
        .order_by("title", "artist", "first", "second")
    )


async def similar(store: Fourfold, to: uuid.UUID | str, *, limit: int = 10) -> list[SimilarRecording]:
    """Return the recordings most like a recording or a text, best first.

    Args:
        store: An open `Fourfold` over this catalog's models, with an embedder.
        to: A recording's id (it isn't in its own answer), or a text such as "calm morning by the sea".
        limit: At most so many.

    Raises:
        NotFoundError: Code `recordings.not_found`: there is no recording with this id.
        ConfigurationError: Code `vectors.no_embedder`.
        FourfoldError: Of the stores.

    Example:
        ```python
        for hit in await similar(store, "fast techno in a dark warehouse", limit=3):
            print(hit.recording.file_name, hit.score)
        ```
    """
    own = to if isinstance(to, uuid.UUID) else None
    text = to if isinstance(to, str) else await _search_text(store, to)
    hits = await store.vectors.nearest(COLLECTION, text, limit=limit + (own is not None))
    scores = {uuid.UUID(hit.owner.key): hit.score for hit in hits}
    rows = await _recordings(store, scores)
    found = [SimilarRecording(rows[key], score) for key, score in scores.items() if key in rows and key != own]
    return found[:limit]


async def _search_text(store: Fourfold, recording_id: uuid.UUID) -> str:
    found = await _recordings(store, [recording_id])
    if not found:
        message = f"there is no recording {recording_id}"
        raise NotFoundError(message, code="recordings.not_found", hint="Use a row's id", recording_id=str(recording_id))
    return found[recording_id].search_text


async def _recordings(store: Fourfold, keys: Iterable[uuid.UUID]) -> dict[uuid.UUID, Recording]:
    query = sa.select(Recording).where(Recording.id.in_(list(keys)))
    with mapped_errors():
        async with store.session() as session:
            return {recording.id: recording for recording in await session.scalars(query)}
