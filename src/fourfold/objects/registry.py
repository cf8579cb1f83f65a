"""What rows may name: promotion of staged objects inside a unit's own transaction, references, pins, removal.

Everything here runs in the caller's transaction and is true when that commits. The races, failure sequence first:

**Promotion against collection of its stage.** *Bad: collection sees an expired lease, the unit promotes and commits a
row that names the object, collection removes the bytes; a committed row dangles (I5).*

- PostgreSQL, the stage beside the rows: promotion and collection both *delete the stage row*, each in one transaction
  with what it does (insert the object; queue the bytes' removal). Whoever comes second waits or skips, finds no row,
  and refuses.
- SQLite, the stage in a file of its own, and no commit spans two files. Everything that decides holds the write lock of
  the rows: (C1) collection finds the lease over and no such object, writes a work row (`files`, `fourfold_object`,
  key), commits. (C2) The relay's files target, again under that lock, sees no such object and deletes the stage row,
  then, without lock, the bytes. (P1) Promotion refuses where there is such a work row, (P2) or no stage row; else it
  inserts the object and keeps the lock until its unit commits. P before C1: collection sees the object and only drops
  the stage row. P between C1 and C2: refused by P1. P after C2: refused by P2, also where the work row has been settled
  or quarantined meanwhile. Died between C1 and C2, or between stage row and bytes: the work row is still queued, and C2
  begins again. Died after the unit's commit, before the stage row is dropped: collection sees the object, and drops the
  stage row alone.

**A reference against collection of the object.** Collection deletes the registry row first; a reference needs it
(foreign key), and takes a share lock on it. Whoever is first wins, the other one fails or skips: never both (F24).

**Two units that store equal bytes, `deduplicate=True`.** Serialised per content: SQLite by its one writer, PostgreSQL
by an advisory lock until the unit ends. It needs READ COMMITTED (the default), to see what the other one committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fourfold.errors import ConflictError, NotFoundError
from fourfold.faultpoints import reach
from fourfold.objects.key import check_key
from fourfold.objects.stage import stage_lost
from fourfold.objects.upload import StoredObject
from fourfold.rows.clock import now_sql
from fourfold.rows.errors import mapped_errors
from fourfold.rows.tables import object_, object_ref, pin, stage, work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from fourfold.objects.stage import StageRegistry

__all__ = [
    "OBJECT_TABLE",
    "STORED_COLUMNS",
    "TARGET",
    "ObjectReference",
    "ObjectRegistry",
    "delete_objects",
    "live_pin",
    "queue_removal",
    "referenced",
]

TARGET: Final = "files"  # name of the relay's target that removes bytes
OBJECT_TABLE: Final = "fourfold_object"

_QUEUE_REMOVAL = """
INSERT INTO fourfold_work (target, table_name, key, first_change, last_change, queued_at)
VALUES ('files', 'fourfold_object', :key, 0, 0, {now}) ON CONFLICT (target, table_name, key) DO NOTHING
"""

_LINK = sa.text("""
INSERT INTO fourfold_object_ref (table_name, row_key, column_name, object_key) VALUES (:table, :row_key, :column, :key)
ON CONFLICT (table_name, row_key, column_name) DO UPDATE SET object_key = excluded.object_key
""")

_PIN = """
INSERT INTO fourfold_pin (object_key, reason, pinned_at, until) VALUES (:key, :reason, {now}, {now} + :seconds)
ON CONFLICT (object_key, reason) DO UPDATE SET pinned_at = excluded.pinned_at, until = excluded.until
"""

# A statement that could write takes SQLite's write lock even when it changes nothing: whoever began the transaction,
# and however, from here on nobody else decides about objects. On PostgreSQL it touches no row.
_TAKE_WRITE_LOCK = sa.text("UPDATE fourfold_object SET key = key WHERE key IS NULL")

_LOCK_CONTENT = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('fourfold.content:' || :content, 0))")


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """A row that names an object: table, encoded primary key, column."""

    table: str
    row_key: str
    column: str


class ObjectRegistry:
    """The registered objects of one database. Every method works in the caller's transaction.

    Args:
        stages: Where promotion finds what was uploaded.
    """

    def __init__(self, stages: StageRegistry) -> None:
        self.stages = stages

    async def promote(self, connection: AsyncConnection, stored: StoredObject) -> None:
        """Let rows name a staged object, from this transaction on. Promoting it again is harmless.

        On SQLite the stage row stays until `StageRegistry.drop`, to be called after the commit, or collection drops it.

        Raises:
            ConflictError: Code `objects.stage_lost`: collection has taken it; nothing was written, upload it again.
            ValidationError: Code `objects.key_form`.
        """
        key = check_key(stored.key)
        await reach("objects.before_promote")
        with mapped_errors():
            if not await self._take_stage(connection, key) and not await _touch(connection, key):
                raise stage_lost(key)
            await _insert(connection, stored)
        await reach("objects.after_promote")

    async def promote_or_reuse(
        self, connection: AsyncConnection, stored: StoredObject, *, is_whole: Callable[[StoredObject], Awaitable[bool]]
    ) -> StoredObject:
        """Return a live object of equal SHA-256 and size, its time of grace begun anew; else promote `stored`.

        Args:
            connection: In the unit's transaction; the object found can't be collected before that ends.
            stored: The staged object; still staged when another one is returned.
            is_whole: Says whether the bytes of the one found are there: a damaged one is not given out again.

        Raises:
            ConflictError: Code `objects.stage_lost`.
        """
        with mapped_errors():
            if connection.dialect.name == "postgresql":
                await connection.execute(_LOCK_CONTENT, {"content": f"{stored.sha256}:{stored.size_bytes}"})
            else:
                await connection.execute(_TAKE_WRITE_LOCK)
            query = (
                sa.select(object_.c.key)
                .where(object_.c.sha256 == stored.sha256, object_.c.size_bytes == stored.size_bytes)
                .order_by(object_.c.created_at, object_.c.key)
            )
            for key in (await connection.scalars(query)).all():
                await reach("objects.before_reuse")
                # The update locks the row, or waits for a collection that has it and then finds nothing.
                if await _touch(connection, key) and await is_whole(live := await self.info(connection, key)):
                    return live
        await self.promote(connection, stored)
        return stored

    async def info(self, connection: AsyncConnection, key: str) -> StoredObject:
        """Return what is known of a registered object.

        Raises:
            NotFoundError: Code `objects.not_found`.
        """
        query = sa.select(*STORED_COLUMNS).where(object_.c.key == check_key(key))
        with mapped_errors():
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _unknown(key)
        return StoredObject(*row)

    async def link(self, connection: AsyncConnection, table: str, row_key: str, column: str, key: str) -> None:
        """Say that a row names an object, where no trigger does (its column isn't a `FileKey`); replaces the last.

        Args:
            connection: In the unit's transaction.
            table: Table of the row.
            row_key: Its encoded primary key.
            column: Column, or any word that tells this file of the row from its others.
            key: Of a registered object.

        Raises:
            ConflictError: Code `objects.unknown`: no such object, or collection was faster; nothing was written.
        """
        check_key(key)
        with mapped_errors():
            if not await _share(connection, key):
                message = f"{table} {row_key} can't name object {key}: it isn't registered"
                hint = "Store the file first (files.put) in the same unit of work and use its key"
                raise ConflictError(message, code="objects.unknown", hint=hint, key=key)
            values = {"table": table, "row_key": row_key, "column": column, "key": key}
            await connection.execute(_LINK, values)

    async def unlink(self, connection: AsyncConnection, table: str, row_key: str, column: str) -> str | None:
        """Take a reference back, and return the key that it named, or None."""
        gone = (
            sa.delete(object_ref)
            .where(
                object_ref.c.table_name == table, object_ref.c.row_key == row_key, object_ref.c.column_name == column
            )
            .returning(object_ref.c.object_key)
        )
        with mapped_errors():
            key: str | None = await connection.scalar(gone)
        return key

    async def references(self, connection: AsyncConnection, key: str) -> list[ObjectReference]:
        """Return the rows that name an object, sorted."""
        columns = (object_ref.c.table_name, object_ref.c.row_key, object_ref.c.column_name)
        query = sa.select(*columns).where(object_ref.c.object_key == check_key(key)).order_by(*columns)
        with mapped_errors():
            return [ObjectReference(*row) for row in await connection.execute(query)]

    async def pin(self, connection: AsyncConnection, key: str, reason: str, *, seconds: float | None = None) -> None:
        """Keep an object though no row names it; the same reason again changes the time.

        Args:
            connection: In a write transaction; the pin holds from its commit on.
            key: Of a registered object.
            reason: Who wants it: `backup:2024-05-01`, `user`.
            seconds: From now; None holds it until `unpin`.

        Raises:
            NotFoundError: Code `objects.not_found`.
        """
        with mapped_errors():
            if not await _share(connection, check_key(key)):
                raise _unknown(key)
            values = {"key": key, "reason": reason, "seconds": seconds}
            await connection.execute(_text(_PIN, connection), values)

    async def unpin(self, connection: AsyncConnection, key: str, reason: str) -> None:
        """Take a pin back; absent is fine."""
        gone = sa.delete(pin).where(pin.c.object_key == check_key(key), pin.c.reason == reason)
        with mapped_errors():
            await connection.execute(gone)

    async def remove(self, connection: AsyncConnection, key: str) -> None:
        """Forget an object, and have its bytes removed after the commit.

        Raises:
            NotFoundError: Code `objects.not_found`.
            ConflictError: Code `objects.referenced`: a row or a pin names it; nothing was written.
        """
        lock = sa.select(object_.c.key).where(object_.c.key == check_key(key)).with_for_update()
        with mapped_errors():
            await connection.execute(_TAKE_WRITE_LOCK)
            if await connection.scalar(lock) is None:
                raise _unknown(key)
            await reach("objects.after_remove_lock")
            named = sa.select(object_.c.key).where(object_.c.key == key, referenced() | live_pin(connection))
            if await connection.scalar(named) is not None:
                rows = (
                    ", ".join(f"{ref.table} {ref.row_key}" for ref in await self.references(connection, key)) or "a pin"
                )
                message = f"object {key} can't be removed: {rows:.200} names it"
                hint = "Delete the row or take the pin back first; the file follows by itself"
                raise ConflictError(message, code="objects.referenced", hint=hint, key=key)
            await delete_objects(connection, [key])

    async def _take_stage(self, connection: AsyncConnection, key: str) -> bool:
        if not self.stages.is_apart:
            taken = sa.delete(stage).where(stage.c.key == key).returning(stage.c.key)
            return await connection.scalar(taken) is not None
        await connection.execute(_TAKE_WRITE_LOCK)
        queued = sa.select(work.c.key).where(
            work.c.target == TARGET, work.c.table_name == OBJECT_TABLE, work.c.key == key
        )
        if await connection.scalar(queued) is not None:
            return False
        # Another file, read while the lock of this one is held: whoever deletes a stage row to remove bytes holds it
        # too.
        return bool(await self.stages.held([key]))


STORED_COLUMNS: Final = (
    object_.c.key,
    object_.c.sha256,
    object_.c.xxh128,
    object_.c.size_bytes,
    object_.c.content_type,
    object_.c.filename,
)


async def delete_objects(connection: AsyncConnection, keys: Collection[str]) -> None:
    """Delete registry rows that are locked and named by nothing, and queue their bytes, in one transaction."""
    over = pin.c.until <= _now(connection)
    await connection.execute(sa.delete(pin).where(pin.c.object_key.in_(keys), over))
    await connection.execute(sa.delete(object_).where(object_.c.key.in_(keys)))
    await queue_removal(connection, keys)


async def queue_removal(connection: AsyncConnection, keys: Iterable[str]) -> None:
    """Have the relay's files target remove the bytes of unregistered keys, after the commit."""
    if lot := [{"key": key} for key in sorted(keys)]:
        await connection.execute(_text(_QUEUE_REMOVAL, connection), lot)


def referenced() -> sa.ColumnElement[bool]:
    """Condition on `fourfold_object`: a row names it."""
    return sa.exists().where(object_ref.c.object_key == object_.c.key)


def live_pin(connection: AsyncConnection) -> sa.ColumnElement[bool]:
    """Condition on `fourfold_object`: a pin that has not run out names it."""
    return sa.exists().where(
        pin.c.object_key == object_.c.key, sa.or_(pin.c.until.is_(None), pin.c.until > _now(connection))
    )


async def _insert(connection: AsyncConnection, stored: StoredObject) -> None:
    known = sa.select(object_.c.key).where(object_.c.key == stored.key)
    if await connection.scalar(known) is None:
        values = {column.name: getattr(stored, column.name) for column in STORED_COLUMNS}
        await connection.execute(sa.insert(object_).values(**values, created_at=_now(connection)))


async def _touch(connection: AsyncConnection, key: str) -> bool:
    change = sa.update(object_).where(object_.c.key == key).values(unreferenced_since=None)
    return (await connection.execute(change)).rowcount > 0


async def _share(connection: AsyncConnection, key: str) -> bool:
    # What the foreign key would take at the insert, taken before: a violation would abort a PostgreSQL transaction.
    query = sa.select(object_.c.key).where(object_.c.key == key).with_for_update(read=True, key_share=True)
    return await connection.scalar(query) is not None


def _unknown(key: str) -> NotFoundError:
    return NotFoundError(f"there is no object {key}", code="objects.not_found", hint="It may be collected", key=key)


def _now(connection: AsyncConnection) -> sa.ColumnElement[float]:
    return sa.literal_column(now_sql(connection.dialect.name), sa.Double)


def _text(template: str, connection: AsyncConnection) -> sa.TextClause:
    return sa.text(template.replace("{now}", now_sql(connection.dialect.name)))
