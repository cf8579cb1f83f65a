"""One pass from a source into the store: hashes, size and type on the way, under a lease, in constant memory.

Order: (1) a stage row, (2) the bytes, renewing the lease, which also finds out whether it was lost, (3) after a long
upload the lease once more, so that the unit of work has time, (4) `StoredObject`. No transaction of the rows is open in
any of these. The object is *staged* then: invisible to rows until a unit of work promotes it (`objects.registry`), and
removed by collection when the lease ends before that. What fails before 4 leaves no bytes; what is killed before 4
leaves them to collection.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final
from unicodedata import category

import xxhash

from fourfold.errors import FourfoldError, StoreUnavailableError, ValidationError
from fourfold.faultpoints import reach
from fourfold.objects.content_type import HEAD_BYTES, check_content_type, guess_content_type
from fourfold.objects.key import new_key
from fourfold.objects.source import name_of, pieces_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fourfold.objects.disk import Data
    from fourfold.objects.source import Source
    from fourfold.objects.stage import StageRegistry
    from fourfold.objects.store import ObjectStore, ObjectWriter

__all__ = ["LEASE_SECONDS", "ObjectDigest", "StoredObject", "Uploader"]

LEASE_SECONDS: Final = 3600.0  # from the last byte to the commit; longer than any request, short for what is lost
_RENEWALS: Final = 3  # two renewals may fail to come in time before the lease ends
_INLINE_BYTES: Final = 64 * 1024  # hashing this takes 50 µs, as long as the hop into a thread would
_FILENAME_CHARACTERS: Final = 1024  # four times what file systems allow


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's bytes as they were stored: never changed afterwards.

    Attributes:
        key: Its name in the store.
        sha256: 64 hexadecimal digits.
        xxh128: 32 hexadecimal digits.
        size_bytes: Its length.
        content_type: As given, or guessed from name and first bytes.
        filename: As given or as the path had it; for people, nothing is ever opened by it.
    """

    key: str
    sha256: str
    xxh128: str
    size_bytes: int
    content_type: str
    filename: str | None = None


class ObjectDigest:
    """SHA-256, xxh128 and size of what passes."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._xxh128 = xxhash.xxh3_128()
        self.head = b""
        self.size_bytes = 0

    def update(self, data: Data) -> None:
        """Take the next bytes."""
        if len(self.head) < HEAD_BYTES:
            self.head += bytes(data[: HEAD_BYTES - len(self.head)])
        self.size_bytes += len(data)
        self._sha256.update(data)
        self._xxh128.update(data)

    @property
    def sha256(self) -> str:
        """Of all bytes so far, in hexadecimal digits."""
        return self._sha256.hexdigest()

    @property
    def xxh128(self) -> str:
        """Of all bytes so far, in hexadecimal digits."""
        return self._xxh128.hexdigest()


class Uploader:
    """Stores bytes under new names, staged.

    Args:
        store: Where the bytes go.
        stages: Where the leases are.
        max_size_bytes: Larger sources are refused as soon as they are seen to be; None takes any.
        lease_seconds: From the last byte on, the time that a unit of work has to commit.
    """

    def __init__(
        self,
        store: ObjectStore,
        stages: StageRegistry,
        *,
        max_size_bytes: int | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.store = store
        self.stages = stages
        self.max_size_bytes = max_size_bytes
        self.lease_seconds = lease_seconds

    async def put(
        self,
        source: Source,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        expected_sha256: str | None = None,
    ) -> StoredObject:
        """Store the bytes of a source and stage them, nothing more; arguments and errors are those of `Files.put`.

        Returns:
            The staged object; promote it in a unit of work before the lease ends.
        """
        name = _check_filename(name_of(source) if filename is None else filename)
        given = None if content_type is None else check_content_type(content_type)
        expected = None if expected_sha256 is None else _check_sha256(expected_sha256)
        key = new_key()
        digest = ObjectDigest()
        began = monotonic()
        await self.stages.register(key, self.lease_seconds)
        try:
            async with (
                self._renewed(key) as renewal,
                self.store.write(key) as writer,
                aclosing(pieces_of(source)) as pieces,
            ):
                async for piece in pieces:
                    if renewal.done():
                        renewal.result()  # lost, or the database is away: going on would write what nobody may keep
                    self._check_size(digest.size_bytes + len(piece))
                    await _store(piece, digest, writer)
                _compare(digest.sha256, expected)
                await reach("objects.before_finish")
                await self._finish(key, writer)
            await reach("objects.after_upload")
            if monotonic() - began >= self.lease_seconds / _RENEWALS:  # else most of it is left, and a commit is saved
                await self.stages.renew(key, self.lease_seconds)
        except BaseException:
            await self.take_back(key)
            raise
        kind = given or guess_content_type(name, digest.head)
        return StoredObject(key, digest.sha256, digest.xxh128, digest.size_bytes, kind, name)

    async def _finish(self, key: str, writer: ObjectWriter) -> None:
        try:
            await writer.finish()
        except StoreUnavailableError:
            await self.stages.renew(key, self.lease_seconds)  # taken by collection, and the bytes with it: the cause
            raise

    def _check_size(self, size_bytes: int) -> None:
        if self.max_size_bytes is None or size_bytes <= self.max_size_bytes:
            return
        message = f"the file has more than {self.max_size_bytes} bytes, the largest size that is taken"
        hint = "Raise the size limit in the settings, or split the file"
        raise ValidationError(message, code="objects.too_large", hint=hint, max_size_bytes=self.max_size_bytes)

    @asynccontextmanager
    async def _renewed(self, key: str) -> AsyncIterator[asyncio.Task[None]]:
        over = asyncio.Event()
        task = asyncio.create_task(self._renew_until(key, over))
        try:
            yield task
        finally:
            over.set()  # not cancelled: a cancelled statement costs its connection
            await asyncio.wait([task])
            _ = task.cancelled() or task.exception()  # seen: a lease that was lost, promotion finds out

    async def _renew_until(self, key: str, over: asyncio.Event) -> None:
        # A timer, not the pieces: a source that stands still for longer than a lease must not lose it.
        pause = self.lease_seconds / _RENEWALS if self.lease_seconds > 0 else None  # a lease that is over isn't renewed
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await over.wait()
            if over.is_set():
                return
            await self.stages.renew(key, self.lease_seconds)

    async def take_back(self, key: str) -> None:
        """Remove the bytes and the stage of an upload that no row will name; what fails is left to collection.

        Args:
            key: Of an object that is not, and will not be, promoted.
        """
        # Bytes first, then the stage: dying in between leaves a stage, which collection ends. What fails here, too, is
        # left to collection for the same reason; the caller gets the first error, which is the cause.
        with suppress(FourfoldError):
            await self.store.delete(key)
            await self.stages.drop([key])


async def _store(piece: Data, digest: ObjectDigest, writer: ObjectWriter) -> None:
    await reach("objects.before_piece")
    if len(piece) <= _INLINE_BYTES:
        digest.update(piece)
        await writer.write(piece)
        return
    # Both hashes release the GIL: hashing and writing a piece take place at the same time.
    hashing = asyncio.ensure_future(asyncio.to_thread(digest.update, piece))
    try:
        await writer.write(piece)
    finally:
        await asyncio.wait([hashing])
    hashing.result()


def _compare(sha256: str, expected: str | None) -> None:
    if expected in {None, sha256}:
        return
    message = f"the bytes have SHA-256 {sha256}; expected {expected}"
    hint = "They were altered or cut on their way: send them again"
    raise ValidationError(message, code="objects.sha256", hint=hint, sha256=sha256, expected=expected)


def _check_sha256(sha256: str) -> str:
    digits = sha256.lower()
    if len(digits) == hashlib.sha256().digest_size * 2 and set(digits) <= set("0123456789abcdef"):
        return digits
    message = f"{sha256!r:.80} is no SHA-256; expected 64 hexadecimal digits"
    raise ValidationError(message, code="objects.sha256", hint="Use hashlib.sha256(…).hexdigest()")


def _check_filename(filename: str | None) -> str | None:
    if filename is None:
        return None
    # Not isprintable(): it refuses no-break spaces and the joiners inside emoji, which real file names have.
    if 0 < len(filename) <= _FILENAME_CHARACTERS and not any(category(char) in {"Cc", "Cs"} for char in filename):
        return filename
    message = f"{filename!r:.80} can't be a file name; expected 1 to {_FILENAME_CHARACTERS} characters, none of control"
    raise ValidationError(message, code="objects.filename", hint="Leave it out, or clean it")
