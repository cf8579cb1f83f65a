"""Looks at registry and store, and says what is wrong; repairs and deletes nothing. For verify, backup and `status`.

Safe beside writers: what is found wrong was wrong at one moment; whoever acts on it looks again. Reads go in short
pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa

from fourfold.errors import NotFoundError
from fourfold.faultpoints import reach
from fourfold.objects.registry import OBJECT_TABLE, STORED_COLUMNS, TARGET
from fourfold.objects.upload import ObjectDigest, StoredObject
from fourfold.rows.clock import now_sql
from fourfold.rows.engine import read_transaction
from fourfold.rows.tables import object_, work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.objects.stage import StageRegistry
    from fourfold.objects.store import ObjectStore

__all__ = ["ObjectProblem", "check_object", "orphans", "scan_registry"]

_PAGE: Final = 500
_YOUNG_SECONDS: Final = 3600.0  # the store's clock may differ from the database's; nobody waits for an orphan's end


@dataclass(frozen=True, slots=True)
class ObjectProblem:
    """What is wrong with a registered object's bytes.

    Attributes:
        key: Of the object.
        kind: `missing`, `size` (short or long), or `altered` (right size, another hash; a deep check only).
        seen: What the store has, empty when it is missing.
        expected: What the registry has.
    """

    key: str
    kind: Literal["missing", "size", "altered"]
    seen: str
    expected: str


async def scan_registry(engine: AsyncEngine, *, after: str = "", limit: int = _PAGE) -> list[StoredObject]:
    """Return up to `limit` registered objects by ascending key, from behind the key `after`.

    Example:
        >>> page = await scan_registry(engine, after=page[-1].key)  # doctest: +SKIP
    """
    query = sa.select(*STORED_COLUMNS).where(object_.c.key > after).order_by(object_.c.key).limit(limit)
    async with read_transaction(engine) as connection:
        return [StoredObject(*row) for row in await connection.execute(query)]


async def check_object(store: ObjectStore, stored: StoredObject, *, deep: bool = False) -> ObjectProblem | None:
    """Compare an object's bytes with its registry row.

    Args:
        store: Where the bytes are.
        stored: What they should be.
        deep: Read and hash all bytes; else size alone is compared, and an alteration of equal size goes unseen.

    Returns:
        None when nothing is wrong.

    Raises:
        StoreUnavailableError: The store is away; that says nothing of the object.
    """
    try:
        if not deep:
            size_bytes = (await store.head(stored.key)).size_bytes
            return None if size_bytes == stored.size_bytes else _size(stored, size_bytes)
        digest = ObjectDigest()
        async for chunk in (await store.open(stored.key)).chunks:
            digest.update(chunk)
    except NotFoundError:
        return ObjectProblem(stored.key, "missing", "", f"{stored.size_bytes} bytes")
    if digest.size_bytes != stored.size_bytes:
        return _size(stored, digest.size_bytes)
    if digest.sha256 != stored.sha256:
        return ObjectProblem(stored.key, "altered", f"SHA-256 {digest.sha256}", f"SHA-256 {stored.sha256}")
    return None


def _size(stored: StoredObject, size_bytes: int) -> ObjectProblem:
    return ObjectProblem(stored.key, "size", f"{size_bytes} bytes", f"{stored.size_bytes} bytes")


async def orphans(
    engine: AsyncEngine, stages: StageRegistry, store: ObjectStore, *, min_age_seconds: float = _YOUNG_SECONDS
) -> AsyncIterator[str]:
    """Yield keys of the store that are neither registered, nor staged, nor queued for removal.

    None should be there: a stage precedes the first byte. They come from a store or database restored on its own. To
    remove them, queue them (`registry.queue_removal`): the files target looks once more.

    Args:
        engine: Of the rows.
        stages: The staged uploads.
        store: What is listed.
        min_age_seconds: Younger objects (the store's clock against the database's) are passed over.
    """
    async with read_transaction(engine) as connection:
        now = float(await connection.scalar(sa.select(sa.literal_column(now_sql(connection.dialect.name)))) or 0)
    async for page in _pages(store, now - min_age_seconds):
        for key in await _unknown(engine, stages, store, page):
            yield key


async def _pages(store: ObjectStore, before: float) -> AsyncIterator[list[str]]:
    page: list[str] = []
    async for head in store.list():
        if head.modified_at.timestamp() <= before:
            page.append(head.key)
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


async def _unknown(engine: AsyncEngine, stages: StageRegistry, store: ObjectStore, page: list[str]) -> list[str]:
    # In the order in which an object moves on: staged → registered → queued → gone. Asked in any other order, one that
    # moves meanwhile would be seen nowhere.
    left = set(page) - await stages.held(page)
    await reach("objects.after_stages_read")
    async with read_transaction(engine) as connection:
        left -= set(await connection.scalars(sa.select(object_.c.key).where(object_.c.key.in_(left))))
        queued = sa.select(work.c.key).where(
            work.c.target == TARGET, work.c.table_name == OBJECT_TABLE, work.c.key.in_(left)
        )
        left -= set(await connection.scalars(queued))
    return [key for key in sorted(left) if await store.exists(key)]
