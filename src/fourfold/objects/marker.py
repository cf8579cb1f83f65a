"""Binds a database to its object store, so that a wrong mount or an empty folder is seen before anything relies on it.

The rows name the store (`store_id` in `fourfold_meta`), a marker object in the store carries the same name. Order, when
both are new: the rows first. A crash in between leaves rows without a marker and without objects, which the next start
mends; the other order would leave a marker that no database knows, which looks like somebody else's store. Two
processes that start at once agree through the rows' unique key.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.errors import ConfigurationError, DriftError
from fourfold.faultpoints import reach
from fourfold.rows.engine import read_transaction, write_transaction
from fourfold.rows.tables import meta, object_

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fourfold.objects.store import ObjectStore

__all__ = ["STORE_ID", "bind_store", "check_marker"]

STORE_ID = "store_id"

_ADD = sa.text("INSERT INTO fourfold_meta (name, value) VALUES ('store_id', :value) ON CONFLICT (name) DO NOTHING")


async def bind_store(engine: AsyncEngine, store: ObjectStore, *, adopt: bool = False) -> str:
    """Check that the store is this database's, and name a new one; at start, before anything is stored.

    Args:
        engine: Of the rows, migrated.
        store: The object store; local folders are made where they are missing.
        adopt: Take a store that another database named (a restore into it, a move); the rows take its name over.

    Returns:
        The store's name.

    Raises:
        DriftError: Code `objects.marker`: another store is there, or an empty one though rows name objects.
        ConfigurationError: Code `objects.foreign_store`: the rows are new and the store has an owner.
    """
    await store.prepare()
    seen = await store.read_marker()
    if seen is not None and (adopt or await _expected(engine) is None):
        if not adopt:
            message = f"the object store at {store.url} belongs to another database (its name is {seen!r:.80})"
            hint = "Use an empty folder or bucket, or restore the database that it belongs to"
            raise ConfigurationError(message, code="objects.foreign_store", hint=hint, seen=seen, url=store.url)
        await _adopt(engine, seen)
        return seen
    async with write_transaction(engine) as connection:
        await connection.execute(_ADD, {"value": str(uuid.uuid4())})
        expected = await _stored(connection) or ""
        known = await connection.scalar(sa.select(sa.func.count()).select_from(object_))
    await reach("objects.after_store_id")
    if seen is None and not known:
        await store.write_marker(expected)
        return expected
    _compare(seen, expected, store)
    return expected


async def check_marker(engine: AsyncEngine, store: ObjectStore) -> None:
    """Return if the store carries the name that the rows know; before everything that deletes.

    Raises:
        DriftError: Code `objects.marker`.
    """
    _compare(await store.read_marker(), await _expected(engine), store)


def _compare(seen: str | None, expected: str | None, store: ObjectStore) -> None:
    if seen is not None and seen == expected:
        return
    what = "has no marker" if seen is None else f"is named {seen!r:.80}"
    message = f"the object store at {store.url} {what}; the rows expect {expected!r}"
    hint = "Is the right folder mounted, is it the right bucket? Nothing was deleted"
    raise DriftError(message, code="objects.marker", hint=hint, seen=seen, expected=expected, url=store.url)


async def _expected(engine: AsyncEngine) -> str | None:
    async with read_transaction(engine) as connection:
        return await _stored(connection)


async def _stored(connection: AsyncConnection) -> str | None:
    value = await connection.scalar(sa.select(meta.c.value).where(meta.c.name == STORE_ID))
    return None if value is None else str(value)


async def _adopt(engine: AsyncEngine, store_id: str) -> None:
    async with write_transaction(engine) as connection:
        await connection.execute(_ADD, {"value": store_id})
        await connection.execute(sa.update(meta).where(meta.c.name == STORE_ID).values(value=store_id))
