"""What `fourfold demo` shows, step by step; each step says what it did, and whether that is what it should be."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fourfold.cli.commands.ingest import ingest_document, say_ingest
from fourfold.cli.commands.verify import say_report, tell_progress, verify_document
from fourfold.cli.settling import wait_in_step
from fourfold.errors import ConfigurationError

if TYPE_CHECKING:
    from fourfold.catalogs.recordings.models import Recording
    from fourfold.catalogs.recordings.queries import SharedTrack
    from fourfold.cli.output import Output
    from fourfold.fourfold import Fourfold

__all__ = ["Demonstration", "demonstrate"]

_QUESTIONS: Final = ("calm morning ambient by the sea", "fast techno in a dark warehouse")


@dataclass(slots=True)
class Demonstration:
    """What came out.

    Args:
        document: For programs.
        is_right: Every step had the outcome that it should have.
    """

    document: dict[str, Any] = field(default_factory=dict)
    is_right: bool = True

    def note(self, name: str, value: Any, *, right: bool) -> None:
        """Keep a step's outcome."""
        self.document[name] = value
        self.is_right = self.is_right and right


async def demonstrate(store: Fourfold, output: Output) -> Demonstration:
    """Run all steps.

    Args:
        store: Open, over the recordings catalog; empty, or as a demo left it.
        output: Of the command.

    Raises:
        ConfigurationError: Code `cli.demo_folder`: somebody's own recordings are there; nothing was done.
        FourfoldError: Of the stores.
    """
    await _refuse_others_data(store)
    shown = Demonstration()
    await _ingest(store, output, shown)
    shared = await _ask_graph(store, output, shown)
    await _ask_vectors(store, output, shown)
    if shared:
        await _delete_one(store, output, shown, shared[0].second)
    await _verify(store, output, shown)
    return shown


async def _refuse_others_data(store: Fourfold) -> None:
    # The demo deletes one of two recordings that share a track: among somebody's own it would be one of his.
    from fourfold.catalogs.recordings import Recording

    ours = [hashlib.sha256(path.read_bytes()).hexdigest() for path in _samples().iterdir()]
    others = sa.or_(Recording.sha256_hash.is_(None), Recording.sha256_hash.not_in(ours))
    async with store.session() as session:
        found = await session.scalar(sa.select(Recording.file_path).where(others).limit(1))
    if found is not None:
        message = f"this data folder isn't the demo's: it has the recording {found!r}"
        hint = "The demo deletes a recording. Give it a folder of its own, or leave --data-folder out"
        raise ConfigurationError(message, code="cli.demo_folder", hint=hint, path=found)


def _samples() -> Path:
    from fourfold.catalogs import recordings

    return Path(recordings.__file__).parent / "samples"


async def _ingest(store: Fourfold, output: Output, shown: Demonstration) -> None:
    from fourfold.catalogs import recordings

    output.line("\n1. Take eight sample recordings: bytes, tags and cue sheets, each file in one commit")
    report = await recordings.ingest(store, _samples())
    say_ingest(output, report)
    await wait_in_step(store, output.progress)
    status = await store.status()
    output.line(f"graph and vectors {'have everything' if status.in_step else 'are behind'}")
    shown.note("ingest", ingest_document(report), right=status.in_step and not report.problems)


async def _ask_graph(store: Fourfold, output: Output, shown: Demonstration) -> list[SharedTrack]:
    from fourfold.catalogs.recordings import shared_tracks

    output.line("\n2. Ask the graph: which two recordings share a track?")
    shared = await shared_tracks(store)
    names = {key: _title(await _read(store, key)) for track in shared for key in (track.first, track.second)}
    rows = [(track.title, track.artist, names[track.first], names[track.second]) for track in shared]
    output.table(("track", "artist", "in", "and in"), rows)
    shown.note("shared_tracks", shared, right=bool(shared))
    return shared


async def _ask_vectors(store: Fourfold, output: Output, shown: Demonstration) -> None:
    from fourfold.catalogs.recordings import similar

    output.line("\n3. Ask the vectors: which recordings are like a sentence?")
    answers = {}
    for question in _QUESTIONS:
        hits = [(_title(hit.recording), hit.score) for hit in await similar(store, question, limit=3)]
        output.line(f"“{question}”")
        output.table(("recording", "likeness"), [(title, f"{score:.3f}") for title, score in hits], indent="  ")
        answers[question] = [{"title": title, "score": score} for title, score in hits]
    shown.note("similar", answers, right=all(answers.values()))


async def _delete_one(store: Fourfold, output: Output, shown: Demonstration, key: uuid.UUID) -> None:
    from fourfold.catalogs.recordings import delete, shared_tracks

    output.line(f"\n4. Delete “{_title(await _read(store, key))}”: one row goes, the rest follows")
    object_key = await _object_key(store, key)
    before = await _presence(store, key, object_key)
    await delete(store, key)
    await wait_in_step(store, output.progress)
    after = await _presence(store, key, object_key)
    output.table(("store", "before", "after"), [(name, before[name], after[name]) for name in before])
    output.line(f"tracks that two recordings share now: {len(await shared_tracks(store))}")
    right = all(before.values()) and not any(after.values())
    shown.note("deleted", {"recording": key, "before": before, "after": after}, right=right)


async def _verify(store: Fourfold, output: Output, shown: Demonstration) -> None:
    from fourfold.web.verification import record_verify

    output.line("\n5. Verify deeply: read back every property, vector and byte, and compare with the rows")
    report = await store.integrity.verify(deep=True, progress=tell_progress(output))
    await record_verify(store.engine, report)
    say_report(output, report)
    shown.note("verify", verify_document(report), right=not report.differs and not report.in_flight)


async def _read(store: Fourfold, key: uuid.UUID) -> Recording | None:
    from fourfold.catalogs.recordings import Recording

    async with store.session() as session:
        return await session.get(Recording, key)


def _title(recording: Recording | None) -> str:
    if recording is None:
        return "(deleted)"
    return next(iter(recording.values_of("title")), recording.file_name)


async def _object_key(store: Fourfold, key: uuid.UUID) -> str:
    from fourfold.catalogs.recordings.placing import object_of

    async with store.session() as session:
        return str(await session.scalar(object_of(key)))


async def _presence(store: Fourfold, key: uuid.UUID, object_key: str) -> dict[str, int]:
    """How much of a recording each store holds."""
    from fourfold.catalogs.recordings.queries import COLLECTION
    from fourfold.projection.items import Owner

    owner = Owner("recordings", str(key))
    points = await store.stores.collections[COLLECTION].read_vectors([owner])
    return {
        "rows": int(await _read(store, key) is not None),
        "files": int(await store.stores.objects.exists(object_key)),
        "graph": len(await store.graph.read_owners([owner])),
        "vectors": sum(len(vectors) for vectors in points.values()),
    }
