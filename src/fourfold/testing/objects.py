"""For tests of object stores and of what uses them: a contract suite, a complete set of parts, and crash points.

`ObjectStoreContract` is what `ObjectStore` promises on any kind of store; derive from it and say how to open an empty
one. `open_objects` puts together engine, stages, store, uploader, registry and files target as an application does.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from fourfold import faultpoints
from fourfold.errors import ConfigurationError, NotFoundError, ValidationError
from fourfold.objects.collection import CollectionReport, FilesTarget, collect
from fourfold.objects.files import Files, StoredFiles
from fourfold.objects.key import new_key
from fourfold.objects.marker import bind_store
from fourfold.objects.registry import ObjectRegistry
from fourfold.objects.stage import StageRegistry
from fourfold.objects.store import PART_BYTES, ByteRange, ObjectStore, open_object_store
from fourfold.objects.upload import LEASE_SECONDS, Uploader
from fourfold.rows.engine import open_engine, read_transaction, write_transaction
from fourfold.rows.migrate import migrate
from fourfold.rows.tables import object_, work

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ObjectStoreContract", "Objects", "Pause", "at_points", "open_objects", "pausing"]

_Action = Callable[[], Awaitable[None] | None]


@contextmanager
def at_points(actions: Mapping[str, _Action]) -> Iterator[Counter[str]]:
    """Run an action wherever a named point is reached (`fourfold.faultpoints`), and count all points.

    Args:
        actions: Point → function or coroutine function; it may wait, raise or kill. In a thread only a plain one runs.

    Example:
        >>> with at_points({}) as seen:
        ...     faultpoints.reach_sync("objects.before_sync")
        >>> seen["objects.before_sync"]
        1
    """
    seen: Counter[str] = Counter()

    async def hook(point: str) -> None:
        seen[point] += 1
        if point in actions:
            result = actions[point]()
            if inspect.isawaitable(result):
                await result

    def hook_sync(point: str) -> None:
        seen[point] += 1
        if point in actions:
            actions[point]()

    faultpoints.set_hooks(hook, hook_sync)
    try:
        yield seen
    finally:
        faultpoints.set_hooks(None)


class Pause:
    """Who comes first to a point waits there until he may go on; who comes later passes."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> None:
        """Wait, the first time."""
        if not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()


@contextmanager
def pausing(point: str) -> Iterator[Pause]:
    """Stop the first task that reaches `point`; it goes on at the end of the block at the latest."""
    pause = Pause()
    with at_points({point: pause}):
        try:
            yield pause
        finally:
            pause.go_on.set()


@dataclass(frozen=True, slots=True)
class Objects:
    """All parts of the files layer on one database and one store."""

    engine: AsyncEngine
    store: ObjectStore
    stages: StageRegistry
    uploader: Uploader
    registry: ObjectRegistry
    target: FilesTarget

    @property
    def stored(self) -> StoredFiles:
        """Reading outside of units."""
        return StoredFiles(self.engine, self.store, self.registry)

    @asynccontextmanager
    async def unit(self, *, uploader: Uploader | None = None) -> AsyncIterator[Files]:
        """One unit of work: commits at the end, rolls back on an exception, tidies up behind either."""
        async with AsyncSession(self.engine) as session:
            files = Files(session, engine=self.engine, uploader=uploader or self.uploader, registry=self.registry)
            try:
                yield files
                await session.commit()
            except BaseException:
                await session.rollback()
                raise
            finally:
                await files.close()

    async def collect(self, **options: Any) -> CollectionReport:
        """One pass of collection, without a time of grace unless it is given."""
        return await collect(self.engine, self.stages, self.store, **({"grace_seconds": 0.0} | options))

    async def queued(self) -> list[str]:
        """Keys whose bytes are queued for removal."""
        query = sa.select(work.c.key).where(work.c.target == self.target.name).order_by(work.c.key)
        async with read_transaction(self.engine) as connection:
            return list(await connection.scalars(query))

    async def settle(self) -> list[str]:
        """Do what the relay does for the target `files`: remove, then take the work rows away."""
        keys = await self.queued()
        await self.target.remove(keys)
        async with write_transaction(self.engine) as connection:
            await connection.execute(sa.delete(work).where(work.c.target == self.target.name, work.c.key.in_(keys)))
        return keys

    async def registered(self) -> list[str]:
        """Keys of all registered objects."""
        async with read_transaction(self.engine) as connection:
            return list(await connection.scalars(sa.select(object_.c.key).order_by(object_.c.key)))

    async def kept(self) -> list[str]:
        """Keys of all objects in the store."""
        return sorted([head.key async for head in self.store.list()])


@asynccontextmanager
async def open_objects(
    engine: AsyncEngine, folder: Path, *, url: str | None = None, lease_seconds: float = LEASE_SECONDS
) -> AsyncIterator[Objects]:
    """Put the parts together: a store in `folder`, stages in a file of their own (SQLite) or a small pool (PostgreSQL).

    Args:
        engine: Of the rows, migrated.
        folder: For the objects, and for `stage.db`.
        url: Of another store.
        lease_seconds: Of every upload's stage.
    """
    apart = engine.dialect.name == "sqlite"
    stage_url = f"sqlite:///{folder / 'stage.db'}" if apart else engine.url.render_as_string(hide_password=False)
    stage_engine = open_engine(stage_url, pool_size=2, max_overflow=0)
    try:
        await migrate(engine, stage_engine=stage_engine)
        store = open_object_store(url or (folder / "store").as_uri())
        await bind_store(engine, store)
        stages = StageRegistry(stage_engine)
        yield Objects(
            engine=engine,
            store=store,
            stages=stages,
            uploader=Uploader(store, stages, lease_seconds=lease_seconds),
            registry=ObjectRegistry(stages),
            target=FilesTarget(engine, stages, store),
        )
    finally:
        await stage_engine.dispose()


class ObjectStoreContract:
    """What every object store does. Override the fixture `store` with an empty one that is prepared."""

    @pytest.fixture
    async def store(self) -> ObjectStore:
        """An empty store."""
        raise NotImplementedError

    async def _put(self, store: ObjectStore, data: bytes) -> str:
        key = new_key()
        async with store.write(key) as writer:
            await writer.write(data)
            await writer.finish()
        return key

    async def test_what_was_written_is_read(self, store: ObjectStore) -> None:
        """The bytes come back, and the head says their number."""
        data = b"first song of the night"
        key = await self._put(store, data)
        assert await store.read(key) == data
        assert (await store.head(key)).size_bytes == len(data)
        assert (await store.head(key)).key == key

    async def test_an_empty_object_is_an_object(self, store: ObjectStore) -> None:
        """No bytes are bytes, too."""
        key = await self._put(store, b"")
        assert await store.read(key) == b""
        assert (await store.head(key)).size_bytes == 0

    async def test_an_object_above_the_multipart_threshold(self, store: ObjectStore) -> None:
        """Parts come together in order."""
        pieces = [bytes([number]) * (PART_BYTES // 2 + 1) for number in range(5)]
        key = new_key()
        async with store.write(key) as writer:
            for piece in pieces:
                await writer.write(piece)
            await writer.finish()
        assert await store.read(key) == b"".join(pieces)

    async def test_nothing_is_seen_before_finish(self, store: ObjectStore) -> None:
        """Neither by its key nor in the list."""
        key = new_key()
        async with store.write(key) as writer:
            await writer.write(b"half")
            assert not await store.exists(key)
            assert await store.is_empty()
            await writer.finish()
        assert await store.exists(key)

    async def test_an_abandoned_write_leaves_nothing(self, store: ObjectStore) -> None:
        """Leaving the block without `finish` drops the bytes."""
        key = new_key()
        async with store.write(key) as writer:
            await writer.write(b"half" * PART_BYTES)
        assert not await store.exists(key)
        assert await store.is_empty()

    @pytest.mark.parametrize(
        ("byte_range", "expected"),
        [
            (ByteRange(0, 4), b"0123"),
            (ByteRange(4), b"456789"),
            (ByteRange(4, 100), b"456789"),
            (ByteRange(9, 10), b"9"),
            (ByteRange(suffix=3), b"789"),
            (ByteRange(suffix=100), b"0123456789"),
        ],
    )
    async def test_a_range_is_read(self, store: ObjectStore, byte_range: ByteRange, expected: bytes) -> None:
        """Ends behind the object are its end."""
        data = b"0123456789"
        key = await self._put(store, data)
        assert await store.read(key, byte_range) == expected
        reading = await store.open(key, byte_range)
        assert data[reading.start : reading.stop] == expected
        assert reading.head.size_bytes == len(data)

    @pytest.mark.parametrize(
        "byte_range",
        [ByteRange(10), ByteRange(11, 20), ByteRange(4, 4), ByteRange(-1), ByteRange(suffix=0), ByteRange(1, suffix=2)],
    )
    async def test_a_range_without_bytes_is_refused(self, store: ObjectStore, byte_range: ByteRange) -> None:
        """With the size, for the header of a 416."""
        data = b"0123456789"
        key = await self._put(store, data)
        with pytest.raises(ValidationError) as caught:
            await store.open(key, byte_range)
        assert caught.value.code == "objects.range"
        assert caught.value.size_bytes == len(data)

    async def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        """By every way of reading."""
        for call in (store.read, store.head, store.open):
            with pytest.raises(NotFoundError) as caught:
                await call(new_key())
            assert caught.value.code == "objects.not_found"
        with pytest.raises(NotFoundError):
            await store.read(new_key(), ByteRange(0, 1))

    async def test_delete_removes_and_absent_is_fine(self, store: ObjectStore) -> None:
        """Twice is as once."""
        key, other = await self._put(store, b"a"), await self._put(store, b"b")
        await store.delete(key)
        await store.delete(key)
        assert not await store.exists(key)
        assert await store.read(other) == b"b"

    async def test_list_names_every_object_once(self, store: ObjectStore) -> None:
        """With its size, and not the marker."""
        await store.write_marker("a-store")
        keys = {await self._put(store, bytes(size)): size for size in range(20)}
        assert {head.key: head.size_bytes async for head in store.list()} == keys
        assert not await store.is_empty()

    async def test_the_marker_names_the_store(self, store: ObjectStore) -> None:
        """It can be written again."""
        assert await store.read_marker() is None
        await store.write_marker("one")
        await store.write_marker("two")
        assert await store.read_marker() == "two"

    @pytest.mark.parametrize("key", ["../x", "/etc/passwd", "", "a" * 4096, "3C6E0B8A-9C15-4224-A822-8B9AD1E4A5B1"])
    async def test_s01_only_a_uuid_is_a_key(self, store: ObjectStore, key: str) -> None:
        """No call takes another name."""
        for call in (store.read, store.head, store.open, store.delete, store.exists):
            with pytest.raises(ValidationError) as caught:
                await call(key)
            assert caught.value.code == "objects.key_form"
        with pytest.raises(ValidationError):
            async with store.write(key):
                pass

    async def test_many_writers_at_once(self, store: ObjectStore) -> None:
        """Each object is its own."""
        keys = await asyncio.gather(*(self._put(store, str(number).encode()) for number in range(40)))
        assert [await store.read(key) for key in keys] == [str(number).encode() for number in range(40)]

    def test_a_url_that_is_no_store_is_refused(self) -> None:
        """With what it should be."""
        for url in ("ftp://host/x", "file://host/share", "file:relative", "/srv/objects", "fil:///srv"):
            with pytest.raises(ConfigurationError) as caught:
                open_object_store(url)
            assert caught.value.code == "objects.url"
