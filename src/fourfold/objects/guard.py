"""Stops all that deletes when the store doesn't look like ours: a wrong mount, an empty bucket, a large loss (F32).

An object store that lost half of its objects is a matter for a person: with every pass of collection the rows that
could tell what is missing get fewer. The share is estimated from a sample; keys are random, so a run of neighbours is a
random sample.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fourfold.errors import DriftError
from fourfold.objects.marker import check_marker
from fourfold.rows.engine import read_transaction
from fourfold.rows.tables import object_

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fourfold.objects.store import ObjectStore

__all__ = ["MAX_MISSING_SHARE", "guard_store"]

MAX_MISSING_SHARE: Final = 0.05
_SAMPLE: Final = (
    64  # a store that lost 20 % passes a limit of 5 % with a probability below 0.1 % (binomial, at most 3 of 64)
)
_CONCURRENT_HEADS: Final = 16


async def guard_store(
    engine: AsyncEngine, store: ObjectStore, *, max_missing_share: float = MAX_MISSING_SHARE, sample: int = _SAMPLE
) -> None:
    """Return if the store carries our marker and seems to hold what is registered.

    Args:
        engine: Of the rows.
        store: The object store.
        max_missing_share: Share of the sample (0 to 1) that may be missing; 1 looks at the marker alone.
        sample: How many registered objects are looked for.

    Raises:
        DriftError: Codes `objects.marker`, `objects.store_missing`.
        StoreUnavailableError: The store is away: that is no loss.
    """
    await check_marker(engine, store)
    if max_missing_share >= 1:
        return
    async with read_transaction(engine) as connection:
        keys = await _sample(connection, sample)
    gate = asyncio.Semaphore(_CONCURRENT_HEADS)

    async def is_missing(key: str) -> bool:
        async with gate:
            return not await store.exists(key)

    absent = [key for key, gone in zip(keys, await asyncio.gather(*map(is_missing, keys)), strict=True) if gone]
    # Another process may have collected some since: what is missing is what is registered after the look, too.
    async with read_transaction(engine) as connection:
        missing = sorted(await connection.scalars(sa.select(object_.c.key).where(object_.c.key.in_(absent))))
    if len(missing) <= max_missing_share * len(keys):
        return
    message = (
        f"{len(missing)} of {len(keys)} registered objects that were looked for are missing in {store.url} "
        f"({missing[0]} is one); at most {max_missing_share:.0%} may be"
    )
    hint = "Nothing was deleted. Is the right folder mounted? Run `fourfold verify`, or accept it: max_missing_share=1"
    raise DriftError(message, code="objects.store_missing", hint=hint, missing=missing, looked_at=len(keys))


async def _sample(connection: AsyncConnection, count: int) -> list[str]:
    begin = str(uuid.uuid4())
    query = sa.select(object_.c.key).order_by(object_.c.key)
    keys = list(await connection.scalars(query.where(object_.c.key >= begin).limit(count)))
    return keys + list(await connection.scalars(query.where(object_.c.key < begin).limit(count - len(keys))))
