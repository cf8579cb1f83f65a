"""Repositories for synchronous code. What they return is complete and usable after its session.

Ids are UUIDs or their text; another text is a `ValidationError` of code `recordings.id`, everywhere. Each call is one
transaction; a lost connection is tried again (`DatabaseManager.run`), a conflict never is. Deleting a row releases its
managed file, which collection then removes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from fourfold.catalogs.recordings.database import DatabaseManager
from fourfold.catalogs.recordings.models import Base, Metadata, Recording, Tracklist
from fourfold.catalogs.recordings.tracks import Track
from fourfold.errors import ConflictError, NotFoundError, ValidationError, did_you_mean

__all__ = ["Id", "MetadataRepository", "RecordingRepository", "TracklistRepository"]

Id = uuid.UUID | str

_T = TypeVar("_T")
_Row = TypeVar("_Row", bound=Base)

_RECORDING_FIELDS: Final = ("file_path", "file_name", "sha256_hash", "xxh128_hash")
_TRACKLIST_FIELDS: Final = ("source", "tracks", "cue_file_path")
# Of two transactions that look for one path at once the second waits, and finds what the first made: no constraint of
# the schema would stop it. SQLite's writers come one after the other anyway.
_LOCK_PATH: Final = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:path, 7365))")


class RecordingRepository:
    """Recordings, with their metadata and tracklist.

    Args:
        manager: Whose database and retries are used.

    Example:
        ```python
        repository = RecordingRepository(manager)
        recording = repository.create("/sets/dawn.mp3", "dawn.mp3")
        ```
    """

    def __init__(self, manager: DatabaseManager) -> None:
        self._manager = manager

    def create(
        self, file_path: str, file_name: str, sha256_hash: str | None = None, xxh128_hash: str | None = None
    ) -> Recording:
        """Insert a recording.

        Args:
            file_path: Where the file is; several recordings may have one path.
            file_name: Its last part.
            sha256_hash: Of its bytes, 64 hexadecimal digits; unique.
            xxh128_hash: Of its bytes, 32 hexadecimal digits; unique.

        Returns:
            The row, with the id and the time that it got.

        Raises:
            ConflictError: Code `rows.duplicate`: another one has one of the hashes.
        """
        new_id = uuid.uuid4()  # outside: a second try inserts the same row, not a second one

        def work(session: Session) -> Recording:
            return _add(session, _new_recording(new_id, file_path, file_name, sha256_hash, xxh128_hash))

        return self._manager.run(work)

    def get_by_id(self, recording_id: Id) -> Recording | None:
        """Return a recording, None where there is none."""
        key = _uuid(recording_id)
        return self._manager.run(lambda session: session.get(Recording, key), read_only=True)

    def get_by_file_path(self, file_path: str) -> Recording | None:
        """Return the recording of a path; of several the oldest, None where there is none."""
        return self._manager.run(lambda session: _find_path(session, file_path), read_only=True)

    def get_all(self, limit: int | None = None, offset: int = 0) -> list[Recording]:
        """Return recordings, oldest first.

        Args:
            limit: At most so many; None for all.
            offset: How many to pass over.
        """
        statement = sa.select(Recording).order_by(Recording.created_at, Recording.id).limit(limit).offset(offset)
        return self._manager.run(lambda session: list(session.scalars(statement)), read_only=True)

    def update(self, recording_id: Id, **changes: str | None) -> Recording | None:
        """Change `file_path`, `file_name`, `sha256_hash` or `xxh128_hash`; return the row, None where there is none.

        A new `file_path` releases the managed file of the old one: it is linked to the row and the column's value.

        Args:
            recording_id: Which.
            **changes: New values by field.

        Raises:
            ValidationError: Codes `recordings.field` (there is no such field) and `recordings.id` (no UUID).
            ConflictError: Code `rows.duplicate`: another one has one of the hashes.
        """
        _check_fields(changes, _RECORDING_FIELDS)
        return self._manager.run(lambda session: _update(session, Recording, recording_id, changes))

    def delete(self, recording_id: Id) -> bool:
        """Delete a recording with its metadata and tracklist; return whether it was there."""
        return self._manager.run(lambda session: _delete(session, Recording, recording_id))

    def bulk_create(self, recordings: Iterable[Mapping[str, str | None]]) -> list[Recording]:
        """Insert many in one transaction: all, or none.

        Args:
            recordings: `file_path`, `file_name`, and the hashes where known, of each.

        Returns:
            The rows, in the order given.

        Raises:
            ValidationError: Code `recordings.field`.
            ConflictError: Code `rows.duplicate`.
        """
        prepared = [(uuid.uuid4(), dict(recording)) for recording in recordings]
        for _, values in prepared:
            _check_fields(values, _RECORDING_FIELDS, required=("file_path", "file_name"))

        def work(session: Session) -> list[Recording]:
            return _add_all(session, [_new_recording(key, **values) for key, values in prepared])  # type: ignore[arg-type]

        return self._manager.run(work)

    def create_with_fallback(
        self, file_path: str, file_name: str, sha256_hash: str | None = None, xxh128_hash: str | None = None
    ) -> Recording:
        """Return the recording that has the path already, else insert one.

        Args:
            file_path: As in `create`; with it the recording is looked for.
            file_name: As in `create`; a recording that is there keeps its own, and its hashes.
            sha256_hash: As in `create`.
            xxh128_hash: As in `create`.

        Raises:
            ConflictError: Code `rows.duplicate`: a recording at another path has one of the hashes.
        """
        new_id = uuid.uuid4()

        def work(session: Session) -> Recording:
            if session.get_bind().dialect.name == "postgresql":
                session.execute(_LOCK_PATH, {"path": file_path})
            there = _find_path(session, file_path)
            if there is not None:
                return there
            return _add(session, _new_recording(new_id, file_path, file_name, sha256_hash, xxh128_hash))

        return self._manager.run(work)


class MetadataRepository:
    """Keys and values of recordings; a key may have several values.

    Args:
        manager: Whose database and retries are used.

    Example:
        ```python
        MetadataRepository(manager).create(recording.id, "venue", "Harbour Hall")
        ```
    """

    def __init__(self, manager: DatabaseManager) -> None:
        self._manager = manager

    def create(self, recording_id: Id, key: str, value: str) -> Metadata:
        """Insert a value.

        Args:
            recording_id: Whose.
            key: 1 to 255 characters.
            value: Any text, without NUL.

        Raises:
            NotFoundError: Code `recordings.not_found`: there is no such recording.
            ValidationError: Code `recordings.name`: the key is empty or longer than 255 characters.
        """
        return self.bulk_create([{"recording_id": recording_id, "key": key, "value": value}])[0]

    def get_by_recording(self, recording_id: Id) -> list[Metadata]:
        """Return all values of a recording, by key."""
        statement = _metadata_of(recording_id)
        return self._manager.run(lambda session: list(session.scalars(statement)), read_only=True)

    def get_by_key(self, recording_id: Id, key: str) -> Metadata | None:
        """Return a recording's value of a key (of several always the same one), None where there is none."""
        statement = _metadata_of(recording_id).where(Metadata.key == key).limit(1)

        def work(session: Session) -> Metadata | None:
            return session.scalars(statement).first()

        return self._manager.run(work, read_only=True)

    def update(self, metadata_id: Id, value: str) -> Metadata | None:
        """Change a value; return the row, None where there is none."""
        return self._manager.run(lambda session: _update(session, Metadata, metadata_id, {"value": value}))

    def delete(self, metadata_id: Id) -> bool:
        """Delete a value; return whether it was there."""
        return self._manager.run(lambda session: _delete(session, Metadata, metadata_id))

    def bulk_create(self, items: Iterable[Mapping[str, Any]]) -> list[Metadata]:
        """Insert many in one transaction: all, or none.

        Args:
            items: `recording_id`, `key` and `value` of each.

        Returns:
            The rows, in the order given.

        Raises:
            NotFoundError: Code `recordings.not_found`.
            ValidationError: Codes `recordings.name`, `recordings.field`.
        """
        prepared = [(uuid.uuid4(), dict(item)) for item in items]
        for _, values in prepared:
            _check_fields(values, fields := ("recording_id", "key", "value"), required=fields)
            values["recording_id"] = _uuid(values["recording_id"])

        def work(session: Session) -> list[Metadata]:
            return _add_all(session, [Metadata(id=key, **values) for key, values in prepared])

        return _of_recording(self._manager, work)


class TracklistRepository:
    """Tracklists, one per recording.

    Args:
        manager: Whose database and retries are used.

    Example:
        ```python
        tracks = [{"title": "Low Tide", "artist": "Mira Solvane", "start_time": "00:00"}]
        TracklistRepository(manager).create(recording.id, "manual", tracks)
        ```
    """

    def __init__(self, manager: DatabaseManager) -> None:
        self._manager = manager

    def create(
        self, recording_id: Id, source: str, tracks: Sequence[Track] | None = None, cue_file_path: str | None = None
    ) -> Tracklist:
        """Insert a tracklist.

        Args:
            recording_id: Whose.
            source: Where it is from, 1 to 255 characters; the importer's is `cue`, and replaces only its own.
            tracks: As `validate_tracks` takes them, in playing order; None where they aren't known.
            cue_file_path: Of the sheet that it was read from.

        Raises:
            ValidationError: Code `recordings.tracks`, with `index` and `field`.
            ConflictError: Code `rows.duplicate`: the recording has one.
            NotFoundError: Code `recordings.not_found`: there is no such recording.
        """
        new_id, parent = uuid.uuid4(), _uuid(recording_id)

        def work(session: Session) -> Tracklist:
            values = {"source": source, "tracks": tracks, "cue_file_path": cue_file_path}
            return _add(session, Tracklist(id=new_id, recording_id=parent, **values))

        return _of_recording(self._manager, work)

    def get_by_recording(self, recording_id: Id) -> Tracklist | None:
        """Return a recording's tracklist, None where there is none."""
        statement = sa.select(Tracklist).where(Tracklist.recording_id == _uuid(recording_id))
        return self._manager.run(lambda session: session.scalars(statement).one_or_none(), read_only=True)

    def get_by_id(self, tracklist_id: Id) -> Tracklist | None:
        """Return a tracklist, None where there is none."""
        key = _uuid(tracklist_id)
        return self._manager.run(lambda session: session.get(Tracklist, key), read_only=True)

    def update(self, tracklist_id: Id, **changes: Any) -> Tracklist | None:
        """Change `source`, `tracks` or `cue_file_path`; return the row, None where there is none.

        Args:
            tracklist_id: Which.
            **changes: New values by field.

        Raises:
            ValidationError: Codes `recordings.tracks`, `recordings.field`.
        """
        _check_fields(changes, _TRACKLIST_FIELDS)
        return self._manager.run(lambda session: _update(session, Tracklist, tracklist_id, changes))

    def delete(self, tracklist_id: Id) -> bool:
        """Delete a tracklist; return whether it was there."""
        return self._manager.run(lambda session: _delete(session, Tracklist, tracklist_id))


def _new_recording(
    key: uuid.UUID, file_path: str, file_name: str, sha256_hash: str | None = None, xxh128_hash: str | None = None
) -> Recording:
    # The relationships are set, though empty: what was never set would be loaded on access, after the session.
    hashes = {"sha256_hash": sha256_hash, "xxh128_hash": xxh128_hash}
    return Recording(id=key, file_path=file_path, file_name=file_name, **hashes, metadata_items=[], tracklist=None)


def _add(session: Session, row: _Row) -> _Row:
    return _add_all(session, [row])[0]


def _add_all(session: Session, rows: list[_Row]) -> list[_Row]:
    session.add_all(rows)
    session.flush()
    return rows


def _find_path(session: Session, file_path: str) -> Recording | None:
    statement = sa.select(Recording).where(Recording.file_path == file_path)
    return session.scalars(statement.order_by(Recording.created_at, Recording.id).limit(1)).first()


def _metadata_of(recording_id: Id) -> sa.Select[Any]:
    statement = sa.select(Metadata).where(Metadata.recording_id == _uuid(recording_id))
    return statement.order_by(Metadata.key, Metadata.id)


def _update(session: Session, kind: type[_Row], key: Id, changes: Mapping[str, Any]) -> _Row | None:
    row = session.get(kind, _uuid(key), with_for_update=True)
    if row is not None:
        for name, value in changes.items():
            setattr(row, name, value)
    return row


def _delete(session: Session, kind: type[_Row], key: Id) -> bool:
    row = session.get(kind, _uuid(key))
    if row is None:
        return False
    session.delete(row)
    return True


def _of_recording(manager: DatabaseManager, work: Callable[[Session], _T]) -> _T:
    try:
        return manager.run(work)
    except ConflictError as error:
        if error.code != "rows.reference":
            raise
        message = "there is no such recording: a row was to belong to one that isn't there"
        raise NotFoundError(message, code="recordings.not_found", hint="Create the recording first") from error


def _uuid(value: Id) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(value)
    except ValueError as error:
        message = f"{value!r:.80} is no id; expected a UUID"
        raise ValidationError(message, code="recordings.id", hint="Use the row's id") from error


def _check_fields(values: Iterable[str], known: Sequence[str], *, required: Sequence[str] = ()) -> None:
    names = list(values)
    for name in names:
        if name not in known:
            message = f"there is no field {name!r:.80}{did_you_mean(name, known)}"
            raise ValidationError(message, code="recordings.field", hint=f"Expected {', '.join(known)}")
    missing = [name for name in required if name not in names]
    if missing:
        message = f"{', '.join(missing)} must be given"
        raise ValidationError(message, code="recordings.field", hint=f"Expected {', '.join(known)}")
