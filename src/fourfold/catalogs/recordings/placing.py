"""What a file that was read becomes in the rows: added, updated, moved, a duplicate, or nothing at all.

Each function is one unit of work: the file in the store, its row, and the link between them in one commit, so that a
process may die anywhere and the next run goes on. What a run has to remember of a file (size, time of change, path)
stands in metadata, for the catalog's tables stay as they are: `file_state` and `cue_state` of the recording, and for
each duplicate `duplicate_path` with a `duplicate_state`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from fourfold.catalogs.recordings.models import Metadata, Recording, Tracklist
from fourfold.catalogs.recordings.paths import decode_path, encode_path
from fourfold.catalogs.recordings.source import CUE_SOURCE, CueTracks, SourceFile
from fourfold.catalogs.recordings.tags import PROPERTY_KEYS, TAG_KEYS
from fourfold.errors import NotFoundError
from fourfold.rows.errors import mapped_errors
from fourfold.rows.tables import object_ref

if TYPE_CHECKING:
    from fourfold.fourfold import Fourfold
    from fourfold.unit_of_work import UnitOfWork

__all__ = [
    "CUE_STATE",
    "DUPLICATE_PATH",
    "DUPLICATE_STATE",
    "FILE_STATE",
    "add_recording",
    "add_tracks",
    "mark_duplicate",
    "object_of",
    "replace_content",
    "still_there",
    "take_over",
]

FILE_STATE: Final = "file_state"
CUE_STATE: Final = "cue_state"
DUPLICATE_PATH: Final = "duplicate_path"
DUPLICATE_STATE: Final = "duplicate_state"

_OF_FILE: Final = TAG_KEYS | set(PROPERTY_KEYS) | {FILE_STATE}  # replaced when the file is read again
_OF_CONTENT: Final = _OF_FILE | {DUPLICATE_PATH, DUPLICATE_STATE}  # also when its bytes are others


async def add_recording(store: Fourfold, source: SourceFile) -> int:
    """Insert a recording with its file; return the bytes stored.

    Raises:
        ConflictError: Code `rows.duplicate`: somebody else has just added these bytes; nothing was written.
        FourfoldError: Of the stores, and what `files.put` refuses.
    """
    with mapped_errors():
        async with store.unit_of_work() as work:
            # Before the first statement: an upload of an hour holds no lock.
            stored = await work.files.put(source.found.path, expected_sha256=source.sha256)
            await _forget_duplicate(work.session, source.path_text)
            recording = Recording(
                id=uuid.uuid4(),
                file_path=source.path_text,
                file_name=source.name_text,
                sha256_hash=stored.sha256,
                xxh128_hash=stored.xxh128,
                metadata_items=[],
                tracklist=None,
            )
            work.session.add(recording)
            _replace_items(recording, _file_items(source), _OF_FILE)
            _set_tracks(recording, source.cue)
            await _link(work, recording, stored.key)
    return stored.size_bytes


async def replace_content(store: Fourfold, recording_id: uuid.UUID, source: SourceFile) -> tuple[int, list[str]]:
    """Give a recording the new bytes, tags and tracks of the file at its path.

    Returns:
        The bytes stored, and the paths of its former duplicates: they have bytes now that no recording has.

    Raises:
        NotFoundError: Code `recordings.not_found`: it was deleted meanwhile; nothing was written.
        ConflictError: As `add_recording`.
        FourfoldError: As `add_recording`.
    """
    with mapped_errors():
        async with store.unit_of_work() as work:
            stored = await work.files.put(source.found.path, expected_sha256=source.sha256)
            await _forget_duplicate(work.session, source.path_text)
            recording = await _locked(work.session, recording_id)
            dropped = recording.values_of(DUPLICATE_PATH)
            recording.sha256_hash, recording.xxh128_hash = stored.sha256, stored.xxh128
            _replace_items(recording, _file_items(source), _OF_CONTENT)
            _set_tracks(recording, source.cue)
            await _link(work, recording, stored.key)
    return stored.size_bytes, dropped


async def take_over(store: Fourfold, recording_id: uuid.UUID, source: SourceFile) -> None:
    """Let a recording follow its bytes to the file's path, with the file's tags and tracks; the object stays.

    Raises:
        NotFoundError: Code `recordings.not_found`: it was deleted meanwhile; nothing was written.
        FourfoldError: Of the stores.
    """
    with mapped_errors():
        async with store.unit_of_work() as work:
            await _forget_duplicate(work.session, source.path_text)
            recording = await _locked(work.session, recording_id)
            object_key = await work.session.scalar(object_of(recording_id))
            recording.file_path, recording.file_name = source.path_text, source.name_text
            _replace_items(recording, _file_items(source), _OF_FILE)
            _set_tracks(recording, source.cue)
            if object_key is not None:  # the link goes when the path changes, by trigger: make it again
                await _link(work, recording, object_key)


async def mark_duplicate(store: Fourfold, recording_id: uuid.UUID, source: SourceFile) -> None:
    """Note at a recording that the file has the same bytes.

    Raises:
        NotFoundError: Code `recordings.not_found`: it was deleted meanwhile; nothing was written.
        FourfoldError: Of the stores.
    """
    with mapped_errors():
        async with store.unit_of_work() as work:
            await _locked(work.session, recording_id)
            await _forget_duplicate(work.session, source.path_text)
            rows = {DUPLICATE_PATH: source.path_text, DUPLICATE_STATE: str(source.found.state)}
            await work.session.execute(
                sa.insert(Metadata),
                [{"recording_id": recording_id, "key": key, "value": value} for key, value in rows.items()],
            )


async def add_tracks(store: Fourfold, recording_id: uuid.UUID, cue: CueTracks) -> None:
    """Give a recording the tracks of its cue sheet.

    Raises:
        NotFoundError: Code `recordings.not_found`: it was deleted meanwhile; nothing was written.
        FourfoldError: Of the stores.
    """
    with mapped_errors():
        async with store.unit_of_work() as work:
            _set_tracks(await _locked(work.session, recording_id), cue)


async def _locked(session: AsyncSession, recording_id: uuid.UUID) -> Recording:
    # FOR UPDATE: of two ingests that change one recording's metadata the second sees what the first wrote. SQLite's
    # writers come one after the other anyway.
    recording = await session.get(Recording, recording_id, with_for_update=True, populate_existing=True)
    if recording is None:
        message = f"the recording {recording_id} was deleted meanwhile"
        raise NotFoundError(message, code="recordings.not_found", hint="Run again", recording_id=str(recording_id))
    return recording


def _file_items(source: SourceFile) -> list[tuple[str, str]]:
    return [*source.tags.rows(), (FILE_STATE, str(source.found.state))]


def _replace_items(recording: Recording, items: Iterable[tuple[str, str]], owned: Iterable[str]) -> None:
    """Replace the metadata under the keys `owned`; equal rows stay the same rows, and a user's own are left."""
    wanted = list(dict.fromkeys(items))
    keys = set(owned)
    kept = [item for item in recording.metadata_items if item.key not in keys or (item.key, item.value) in wanted]
    there = {(item.key, item.value) for item in kept}
    new = [Metadata(id=uuid.uuid4(), key=key, value=value) for key, value in wanted if (key, value) not in there]
    recording.metadata_items = [*kept, *new]


def _set_tracks(recording: Recording, cue: CueTracks | None) -> None:
    if cue is None:
        return
    path = encode_path(cue.state.path)
    _replace_items(recording, [(CUE_STATE, str(cue.state))], {CUE_STATE})
    if recording.tracklist is None:
        tracks: Any = cue.tracks
        recording.tracklist = Tracklist(id=uuid.uuid4(), source=CUE_SOURCE, tracks=tracks, cue_file_path=path)
    elif recording.tracklist.source == CUE_SOURCE:
        recording.tracklist.tracks, recording.tracklist.cue_file_path = cue.tracks, path


async def _link(work: UnitOfWork, recording: Recording, object_key: str) -> None:
    await work.session.flush()  # the row first: its triggers look after the link from now on
    await work.files.link("recordings", str(recording.id), "file_path", object_key)


def object_of(recording_id: uuid.UUID) -> sa.Select[Any]:
    """Return the statement that finds the key of a recording's managed file."""
    ref = object_ref.c
    mine = (ref.table_name == "recordings", ref.row_key == str(recording_id), ref.column_name == "file_path")
    return sa.select(ref.object_key).where(*mine)


async def _forget_duplicate(session: AsyncSession, path: str) -> None:
    """Remove what says that the file at `path` has some recording's bytes: it has others now, or says so anew."""
    of_path = sa.select(Metadata.recording_id).where(Metadata.key == DUPLICATE_PATH, Metadata.value == path)
    for recording_id in (await session.scalars(of_path)).all():
        items = await session.scalars(
            sa.select(Metadata).where(
                Metadata.recording_id == recording_id, Metadata.key.in_((DUPLICATE_PATH, DUPLICATE_STATE))
            )
        )
        for item in items:
            if (item.value if item.key == DUPLICATE_PATH else item.value.split(" ", 2)[-1]) == path:
                await session.delete(item)
    await session.flush()


def still_there(path_text: str) -> bool:
    """Return whether the file of a row is where the row says; only a clear "no such file" is a no."""
    try:
        os.stat(decode_path(path_text))  # noqa: PTH116 - the path may not be valid Unicode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
