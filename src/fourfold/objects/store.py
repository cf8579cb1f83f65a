"""One client for every object store, over obstore: write, read, ranges, head, delete, list, and a marker with its name.

Guaranteed: what `ObjectWriter.finish` acknowledged is durable; an object is seen whole or not at all; a key that isn't
a UUID reaches no store; every failure is one of Fourfold's errors. Not guaranteed: that the bytes are those that were
written (the registry knows their hash), and that the store is the right one (`read_marker`, checked by
`objects.marker`).

A `file:` store writes through `objects.disk`, which syncs; everything else is obstore's generic interface, and runs
unchanged on `memory:` (tests) and on a bucket. Called by `objects.upload`, `.files`, `.collection`; no transaction is
held here.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.store import LocalStore, MemoryStore

from fourfold.errors import ConfigurationError, NotFoundError, ValidationError, did_you_mean
from fourfold.faultpoints import reach
from fourfold.objects.disk import Data, Disk, DiskFile
from fourfold.objects.key import OBJECTS_PREFIX, key_of_path, path_of
from fourfold.objects.store_errors import mapped_store_errors

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Callable

    from obstore import GetOptions

__all__ = ["ByteRange", "ObjectHead", "ObjectReading", "ObjectStore", "ObjectWriter", "open_object_store"]

PART_BYTES: Final = 8 * 1024 * 1024  # multipart above this; S3 takes parts of 5 MiB to 5 GiB, 10,000 of them: 80 GB
CONCURRENT_PARTS: Final = 4  # 32 MiB in memory for one upload at most
CHUNK_BYTES: Final = 1024 * 1024  # least size of a piece of a stream
MARKER: Final = "store-id"
_MARKER_BYTES: Final = 1024  # more is no marker

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of an object, as HTTP has it: from `start` to before `stop`, or the last `suffix` bytes.

    Args:
        start: First byte, from 0.
        stop: Byte behind the last one; None or a place behind the end means the end.
        suffix: Number of bytes at the end; excludes the other two.

    Example:
        >>> ByteRange(start=2, stop=100).resolve(10)
        (2, 10)
        >>> ByteRange(suffix=3).resolve(10)
        (7, 10)
    """

    start: int = 0
    stop: int | None = None
    suffix: int | None = None

    def resolve(self, size_bytes: int) -> tuple[int, int]:
        """Return start and stop within an object of this size.

        Raises:
            ValidationError: Code `objects.range`, when no byte of the object is in the range (HTTP's 416).
        """
        if self.suffix is not None:
            start, stop = max(size_bytes - self.suffix, 0), size_bytes
            good = self.suffix > 0 and self.start == 0 and self.stop is None
        else:
            start, stop = self.start, size_bytes if self.stop is None else min(self.stop, size_bytes)
            good = start >= 0
        if good and start < stop:
            return start, stop
        message = f"{self} names no byte of an object of {size_bytes} bytes"
        raise ValidationError(message, code="objects.range", hint="Ask for bytes that it has", size_bytes=size_bytes)


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What a store says of an object: its key, size in bytes, and when it was written (the store's clock)."""

    key: str
    size_bytes: int
    modified_at: dt.datetime


@dataclass(frozen=True, slots=True)
class ObjectReading:
    """An object opened for reading: its head, the place of the bytes that follow, and these bytes, once."""

    head: ObjectHead
    start: int
    stop: int
    chunks: AsyncIterator[bytes]


class ObjectWriter(Protocol):
    """Bytes on their way into a store."""

    async def write(self, data: Data) -> None:
        """Append all of `data`."""
        ...

    async def finish(self) -> None:
        """Make the object visible, whole and durable."""
        ...

    async def abort(self) -> None:
        """Drop what was written; harmless after `finish`."""
        ...


class ObjectStore:
    """Objects under UUID names, in a folder or a bucket. Use `open_object_store`.

    Args:
        client: obstore's store.
        url: Where it is, without secrets; named in errors.
        disk: For a local folder: what writes to it.

    Example:
        >>> open_object_store("memory:///").url
        'memory:///'
    """

    def __init__(self, client: Any, *, url: str, disk: Disk | None = None) -> None:
        self._client = client
        self._disk = disk
        self.url = url

    async def prepare(self) -> None:
        """Make a local store's folders where they are missing; never its marker.

        Raises:
            StoreRejectedError: Code `objects.denied`.
        """
        if self._disk is not None:
            with mapped_store_errors("prepare", self.url):
                await _in_thread(self._disk.prepare)

    @asynccontextmanager
    async def write(self, key: str) -> AsyncIterator[ObjectWriter]:
        """Write a new object; leaving the block without `finish` leaves nothing.

        Args:
            key: A new UUID.

        Raises:
            ValidationError: Code `objects.key_form`.
            StoreUnavailableError: Codes `objects.unavailable`, `objects.disk_full`.
        """
        path = path_of(key)
        writer: ObjectWriter
        if self._disk is None:
            writer = _ClientWriter(self._client, key, path)
        else:
            with mapped_store_errors("write", key):
                writer = _DiskWriter(await _in_thread(self._disk.create, key, discard=DiskFile.abort), key)
        try:
            yield writer
        finally:
            await writer.abort()

    async def open(self, key: str, byte_range: ByteRange | None = None) -> ObjectReading:
        """Open an object, or a part of it.

        Args:
            key: Its UUID.
            byte_range: All of it by default; then one more request asks for the size first.

        Raises:
            NotFoundError: Code `objects.not_found`.
            ValidationError: Codes `objects.key_form`, `objects.range`.
            StoreUnavailableError: Code `objects.unavailable`; may come from the chunks, too.
        """
        path = path_of(key)
        options: GetOptions = {}
        if byte_range is not None:
            options["range"] = byte_range.resolve((await self.head(key)).size_bytes)
        with mapped_store_errors("read", key):
            await self._check(path)
            await reach("objects.before_read")
            result = await obstore.get_async(self._client, path, options=options)
        start, stop = result.range
        return ObjectReading(_head(result.meta, key), start, stop, _chunks(result, key))

    async def read(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        """Return the bytes of an object, or of a part of it, unchecked.

        Raises:
            FourfoldError: As `open`.
        """
        reading = await self.open(key, byte_range)
        return b"".join([chunk async for chunk in reading.chunks])

    async def head(self, key: str) -> ObjectHead:
        """Return size and time of an object.

        Raises:
            NotFoundError: Code `objects.not_found`.
        """
        path = path_of(key)
        with mapped_store_errors("look at", key):
            await self._check(path)
            return _head(await obstore.head_async(self._client, path), key)

    async def delete(self, key: str) -> None:
        """Remove an object and what an unfinished upload of it left, durably; absent is fine."""
        path = path_of(key)
        with mapped_store_errors("remove", key):
            if self._disk is not None:
                await _in_thread(self._disk.delete, key)
                return
            try:
                await obstore.delete_async(self._client, path)
            except FileNotFoundError:
                return  # some stores say so, some don't

    async def list(self) -> AsyncIterator[ObjectHead]:
        """Every object, in no order to rely on; memory is bounded. Links and foreign files aren't listed."""
        with mapped_store_errors("list", self.url):
            async for page in obstore.list(self._client, prefix=OBJECTS_PREFIX, chunk_size=1000):
                for meta in page:
                    key = key_of_path(meta["path"])
                    if key is not None and (self._disk is None or self._disk.is_plain(meta["path"])):
                        yield _head(meta, key)

    async def read_marker(self) -> str | None:
        """Return the name that was written into the store, or None where there is none."""
        with mapped_store_errors("read", MARKER):
            await self._check(MARKER)
            try:
                result = await obstore.get_async(self._client, MARKER)
            except FileNotFoundError:
                return None
            if result.meta["size"] > _MARKER_BYTES:
                return ""  # somebody's file, and no store's name
            return bytes(await result.bytes_async()).decode(errors="replace").strip()

    async def write_marker(self, store_id: str) -> None:
        """Name the store, durably."""
        data = f"{store_id}\n".encode()
        with mapped_store_errors("write", MARKER):
            if self._disk is not None:
                await _in_thread(self._disk.put, MARKER, data)
            else:
                await obstore.put_async(self._client, MARKER, data)

    async def is_empty(self) -> bool:
        """Return whether no object is there."""
        async for _ in self.list():
            return False
        return True

    async def exists(self, key: str) -> bool:
        """Return whether an object is there."""
        try:
            await self.head(key)
        except NotFoundError:
            return False
        return True

    async def _check(self, path: str) -> None:
        if self._disk is not None:
            self._disk.check(path)  # two or three lstat of hot folders: a thread would cost more


def open_object_store(url: str) -> ObjectStore:
    """Open the store at `url`; a local folder is made where it is missing, nothing else is done yet.

    Args:
        url: `file:///absolute/folder`, or `memory:///` for tests.

    Raises:
        ConfigurationError: Code `objects.url`.
        StoreRejectedError: Code `objects.denied`.

    Example:
        >>> open_object_store("memory:///").url
        'memory:///'
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return ObjectStore(MemoryStore(), url="memory:///")
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
        # Resolved once: a linked data folder is the owner's choice, a link that appears below it later isn't.
        root = Path(url2pathname(parts.path)).resolve()
        shown = f"file://{parts.path}"
        with mapped_store_errors("open", shown):
            disk = Disk(root)
            disk.make_root()  # not obstore's mkdir: it syncs nothing, and lets the world in
            return ObjectStore(LocalStore(prefix=root), url=shown, disk=disk)
    near = did_you_mean(parts.scheme, ["file", "memory"])
    message = f"no object store at a URL of scheme {parts.scheme!r}; expected file:///absolute/folder{near}"
    raise ConfigurationError(message, code="objects.url", hint="Check the object store's URL in the settings")


class _DiskWriter:
    def __init__(self, file: DiskFile, key: str) -> None:
        self._file = file
        self._key = key

    async def write(self, data: Data) -> None:
        with mapped_store_errors("write", self._key):
            await _in_thread(self._file.write, data)

    async def finish(self) -> None:
        with mapped_store_errors("write", self._key):
            await _in_thread(self._file.finish)

    async def abort(self) -> None:
        with mapped_store_errors("write", self._key):
            await _in_thread(self._file.abort)


class _ClientWriter:
    """obstore's buffered writer: one PUT up to `PART_BYTES`, multipart above. Dropping it unclosed makes no object."""

    def __init__(self, client: Any, key: str, path: str) -> None:
        self._key = key
        self._writer = obstore.open_writer_async(client, path, buffer_size=PART_BYTES, max_concurrency=CONCURRENT_PARTS)

    async def write(self, data: Data) -> None:
        with mapped_store_errors("write", self._key):
            await reach("objects.before_write")
            await self._writer.write(data)

    async def finish(self) -> None:
        with mapped_store_errors("write", self._key):
            await reach("objects.before_sync")
            await self._writer.close()

    async def abort(self) -> None:
        del self._writer


async def _chunks(result: Any, key: str) -> AsyncIterator[bytes]:
    with mapped_store_errors("read", key):
        async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)


def _head(meta: Any, key: str) -> ObjectHead:
    return ObjectHead(key, meta["size"], meta["last_modified"])


async def _in_thread(
    call: Callable[..., _Result], *arguments: object, discard: Callable[[_Result], None] | None = None
) -> _Result:
    # A cancelled await doesn't stop its thread. We stay until it is through: else the clean-up that follows would close
    # a file that the thread still writes to, and the number may be another file's by then. What nobody will get now is
    # given to `discard`.
    task = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # being cancelled, it leaves the task alone
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if task.exception() is None and discard is not None:  # asked for in any case, or asyncio logs that nobody did
        discard(task.result())
    raise cancelled
