"""Files as an application sees them: `work.files` in a unit of work, `store.files` for reading outside of one.

`put` uploads first and promotes later, in the unit's own transaction: at its first statement, or, where it has begun
already, at once. So an upload holds no lock of the rows unless the unit took one before. What rolls back was never put:
its bytes go with the next collection. A whole read is checked against the registered hash before its last byte is given
out (S03); a part is checked by the object's size alone.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only

from fourfold.errors import ConflictError, FourfoldError, IntegrityError, NotFoundError, ValidationError
from fourfold.faultpoints import reach
from fourfold.objects.inspection import check_object
from fourfold.objects.upload import ObjectDigest
from fourfold.rows.engine import read_transaction
from fourfold.rows.errors import mapped_errors
from fourfold.rows.tables import object_

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from fourfold.objects.registry import ObjectReference, ObjectRegistry
    from fourfold.objects.source import Source
    from fourfold.objects.store import ByteRange, ObjectStore
    from fourfold.objects.upload import StoredObject, Uploader

__all__ = ["Files", "OpenFile", "StoredFiles"]


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file opened for reading: what it is, which of its bytes follow (before `stop`), and these bytes, once."""

    info: StoredObject
    start: int
    stop: int
    chunks: AsyncIterator[bytes]


class StoredFiles:
    """Reads registered objects, each call in a short read transaction of its own.

    Args:
        engine: Of the rows.
        store: Where the bytes are.
        registry: What is known of them.
    """

    def __init__(self, engine: AsyncEngine, store: ObjectStore, registry: ObjectRegistry) -> None:
        self._engine = engine
        self._store = store
        self._registry = registry

    async def info(self, key: str) -> StoredObject:
        """Return hash, size, type and name of a file.

        Raises:
            NotFoundError: Code `objects.not_found`.
            ValidationError: Code `objects.key_form`.
        """
        async with read_transaction(self._engine) as connection:
            return await self._registry.info(connection, key)

    async def references(self, key: str) -> list[ObjectReference]:
        """Return the rows that name a file, as of the last commit."""
        async with read_transaction(self._engine) as connection:
            return await self._registry.references(connection, key)

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenFile:
        """Open a file for reading in chunks of about a mebibyte.

        Args:
            key: Its key.
            byte_range: All of it by default.

        Returns:
            The open file. When all of it is read, its last chunk comes only after the hash was found right.

        Raises:
            NotFoundError: Code `objects.not_found`.
            ValidationError: Codes `objects.key_form`, `objects.range`.
            IntegrityError: Codes `objects.missing`, `objects.size`; from the chunks `objects.altered`, too.
            StoreUnavailableError: Code `objects.unavailable`; from the chunks, too.
        """
        info = await self.info(key)
        if byte_range is not None:
            byte_range.resolve(info.size_bytes)
        try:
            reading = await self._store.open(key, byte_range)
        except NotFoundError:
            await self.info(key)  # removed since: then it is not found, and nothing is damaged
            raise _damaged(info, "missing", "is missing in the object store") from None
        except ValidationError:  # the range is in what was stored, so the store has less
            raise _damaged(info, "size", f"ends before {byte_range}; expected {info.size_bytes} bytes") from None
        if reading.head.size_bytes != info.size_bytes:
            raise _damaged(info, "size", f"has {reading.head.size_bytes} bytes; expected {info.size_bytes}")
        chunks = reading.chunks if byte_range is not None else _checked(reading.chunks, info)
        return OpenFile(info, reading.start, reading.stop, chunks)

    async def read(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        """Return the bytes of a file, or a part of them.

        Raises:
            FourfoldError: As `open`.

        Example:
            >>> await store.files.read(file.key, ByteRange(suffix=4))  # doctest: +SKIP
            b'song'
        """
        return b"".join([chunk async for chunk in (await self.open(key, byte_range)).chunks])

    async def stream(self, key: str, byte_range: ByteRange | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes of a file, or a part of them, in chunks.

        Raises:
            FourfoldError: As `open`, at the first chunk or later.
        """
        async for chunk in (await self.open(key, byte_range)).chunks:
            yield chunk


class Files(StoredFiles):
    """The files of one unit of work.

    Args:
        session: The unit's session; its first transaction has not begun, or puts promote at once.
        engine: Of the rows, the one that the session is bound to.
        uploader: Stores and stages.
        registry: Promotes and references.

    Example:
        >>> file = await work.files.put(path)  # doctest: +SKIP
        >>> work.session.add(Recording(title="Opening", file_key=file.key))  # doctest: +SKIP
    """

    def __init__(
        self, session: AsyncSession, *, engine: AsyncEngine, uploader: Uploader, registry: ObjectRegistry
    ) -> None:
        super().__init__(engine, uploader.store, registry)
        self._session = session
        self._uploader = uploader
        self._begun = session.in_transaction()  # begun before us: whether it has a connection yet can't be known
        self._pending: dict[str, StoredObject] = {}
        self._keys: set[str] = set()
        for name, listener in self._listeners():
            event.listen(session.sync_session, name, listener)

    async def put(
        self,
        source: Source,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        expected_sha256: str | None = None,
        deduplicate: bool = False,
    ) -> StoredObject:
        """Store a file that rows of this unit may name.

        Args:
            source: A path, bytes, a binary file, or a plain or async iterable of bytes.
            filename: For people and for guessing the type; a path's own name by default.
            content_type: Guessed from the name, then from the first bytes, by default.
            expected_sha256: 64 hexadecimal digits that the bytes must have.
            deduplicate: Return an object of equal bytes that is there, as it was stored; this begins the transaction.

        Returns:
            What was stored; name its `key` in a row of this unit.

        Raises:
            ValidationError: Codes `objects.too_large`, `objects.sha256`, `objects.filename`, `objects.content_type`,
                `objects.source`; nothing is left.
            NotFoundError: Code `objects.no_source`.
            ConflictError: Code `objects.stage_lost`: the upload, or the unit, stood still for longer than its lease;
                where the transaction begins later, from its first statement.
            StoreUnavailableError: Codes `objects.unavailable`, `objects.disk_full`.
            StoreRejectedError: Code `objects.denied`.

        Example:
            >>> file = await work.files.put(b"first", filename="notes.txt")  # doctest: +SKIP
            >>> file.size_bytes, file.content_type  # doctest: +SKIP
            (5, 'text/plain')
        """
        stored = await self._uploader.put(
            source, filename=filename, content_type=content_type, expected_sha256=expected_sha256
        )
        self._keys.add(stored.key)
        if deduplicate:
            return await self._promote_or_reuse(stored)
        self._pending[stored.key] = stored
        if self._begun:
            await self._promote_pending(await self._connection())
        return stored

    async def info(self, key: str) -> StoredObject:
        """Return hash, size, type and name of a file, also of one that this unit has put.

        Raises:
            NotFoundError: Code `objects.not_found`.
        """
        if self._begun or self._pending:
            return await self._registry.info(await self._connection(), key)
        return await super().info(key)  # reading alone begins no write transaction

    async def link(self, table: str, row_key: str, column: str, key: str) -> None:
        """Say that a row names a file, where its column isn't a `FileKey` or there is no column.

        Raises:
            ConflictError: Code `objects.unknown`.
        """
        await self._registry.link(await self._connection(), table, row_key, column, key)

    async def unlink(self, table: str, row_key: str, column: str) -> str | None:
        """Take back what `link` said, and return the key, or None."""
        return await self._registry.unlink(await self._connection(), table, row_key, column)

    async def remove(self, key: str) -> None:
        """Remove a file that nothing names; its bytes go when the unit has committed.

        Raises:
            NotFoundError: Code `objects.not_found`.
            ConflictError: Code `objects.referenced`: a row or a pin names it.
        """
        await self._registry.remove(await self._connection(), key)

    async def close(self) -> None:
        """Tidy up behind the unit's commit or rollback: stages of what was committed go, leases of the rest end now.

        Which is which, the registry says: a savepoint may have been rolled back, a commit's answer lost. What fails
        here collection does later; the unit's outcome stands, and no error of this hides it.
        """
        for name, listener in self._listeners():
            event.remove(self._session.sync_session, name, listener)
        await reach("objects.after_unit")
        keys, self._keys = self._keys, set()
        self._pending.clear()
        if not keys:
            return
        with suppress(FourfoldError):
            async with read_transaction(self._engine) as connection:
                registered = set(await connection.scalars(sa.select(object_.c.key).where(object_.c.key.in_(keys))))
            if registered and self._registry.stages.is_apart:
                await self._registry.stages.drop(registered)
            if lost := keys - registered:
                await self._registry.stages.release(lost)

    async def _connection(self) -> AsyncConnection:
        with mapped_errors():
            return await self._session.connection()

    async def _promote_or_reuse(self, stored: StoredObject) -> StoredObject:
        async def is_whole(live: StoredObject) -> bool:
            return await check_object(self._store, live) is None

        try:
            live = await self._registry.promote_or_reuse(await self._connection(), stored, is_whole=is_whole)
        except ConflictError:
            await self._uploader.take_back(stored.key)
            raise
        if live.key != stored.key:
            await self._uploader.take_back(stored.key)
        return live

    async def _promote_pending(self, connection: AsyncConnection) -> None:
        while self._pending:
            _, stored = self._pending.popitem()
            try:
                await self._registry.promote(connection, stored)
            except ConflictError:
                # Nobody will ever name it. Collection may have been through before the last byte came.
                await self._uploader.take_back(stored.key)
                raise

    def _listeners(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("after_begin", self._after_begin),
            ("before_commit", self._before_commit),
            ("after_transaction_end", self._after_end),
        )

    def _after_begin(self, _session: Any, _transaction: Any, connection: sa.Connection) -> None:
        # The first statement of a transaction, whatever it is, comes after this: a row that names a pending file
        # included.
        self._begun = True
        if self._pending:
            await_only(self._promote_pending(AsyncConnection(self._engine, connection)))

    def _before_commit(self, session: Any) -> None:
        if self._pending:
            session.connection()  # nothing was said to the database yet: begin, for the files' sake

    def _after_end(self, _session: Any, transaction: Any) -> None:
        if transaction.parent is None:
            self._begun = False


async def _checked(chunks: AsyncIterator[bytes], info: StoredObject) -> AsyncIterator[bytes]:
    digest = ObjectDigest()
    held: bytes | None = None
    async for chunk in chunks:
        digest.update(chunk)
        if held is not None:
            yield held
        held = chunk
    if digest.sha256 != info.sha256:
        raise _damaged(info, "altered", f"has SHA-256 {digest.sha256}; expected {info.sha256}")
    if held is not None:
        yield held


def _damaged(info: StoredObject, problem: str, what: str) -> IntegrityError:
    hint = "Run `fourfold verify --deep`, and restore the object from a backup"
    return IntegrityError(f"object {info.key} {what}", code=f"objects.{problem}", hint=hint, key=info.key)
