"""A worker's right to bring some keys of one target up to date: a token, and a lease on work rows.

Order matters, and each step is durable before the next: (1) a number from the sequence, (2) the token made in the
target, (3) the lease. So no leased row ever names a token that the target doesn't know, and a token that nobody leased
with is swept at any age. A row remembers every earlier token until it is known to be revoked: a taker-over may die
before he revokes, and the first sleeper's late write must still not win.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourfold.faultpoints import reach
from fourfold.relay.declare import declarations_match
from fourfold.relay.dialect import statement
from fourfold.relay.enqueue import share_work, swept_table
from fourfold.rows.engine import read_transaction, write_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fourfold.projection.plan import Plan
    from fourfold.relay.delivery import Delivery

__all__ = ["Lot", "WorkKey", "claim", "end_token", "renew", "revoked", "sweep_tokens"]

_FREE = "(w.token IS NULL OR w.lease_until < {now})"
_AWAKE = "NOT EXISTS (SELECT 1 FROM fourfold_target AS t WHERE t.name = :target AND t.paused_until > {now})"

_ANY = f"SELECT 1 FROM fourfold_work AS w WHERE w.target = :target AND {_FREE} AND {_AWAKE} LIMIT 1"

_NUMBER = """
INSERT INTO fourfold_token (target, worker, created_at) VALUES (:target, :worker, {now}) RETURNING id
"""

# Locking and reading are two statements: a row that another worker changed while we waited is read as it is now.
_LOCK = f"""
SELECT w.table_name, w.key FROM fourfold_work AS w
WHERE w.target = :target AND {_FREE} ORDER BY w.lane, w.first_change LIMIT :limit {{skip_locked}}
"""

_LEASE = """
UPDATE fourfold_work SET
    unrevoked = CASE WHEN token IS NULL THEN unrevoked
        WHEN unrevoked = '' THEN CAST(token AS text) ELSE unrevoked || ',' || CAST(token AS text) END,
    token = :token, lease_until = {now} + :lease_seconds, claimed_version = version, attempts = attempts + 1,
    first_change = {least}(first_change, coalesce(pending_first, first_change)), pending_first = NULL,
    pending_since = NULL
WHERE target = :target AND (table_name, key) IN {each_pair:keys}
RETURNING table_name, key, first_change, last_change, attempts, unrevoked
"""

_REVOKED = "UPDATE fourfold_work SET unrevoked = '' WHERE token = :token"

_RENEW = "UPDATE fourfold_work SET lease_until = {now} + :lease_seconds WHERE token = :token"


@dataclass(frozen=True, slots=True)
class WorkKey:
    """A key of a table in one worker's hands."""

    table: str
    key: str
    first_change: int
    last_change: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Lot:
    """What one claim leased: keys under one token, and the tokens of those it was taken over from."""

    target: str
    token: int
    keys: tuple[WorkKey, ...]
    unrevoked: frozenset[int]


async def claim(
    engine: AsyncEngine, plan: Plan, delivery: Delivery, *, worker: str, limit: int, lease_seconds: float
) -> Lot | None:
    """Lease up to `limit` free or expired work rows of a delivery's target.

    Args:
        engine: Of the rows.
        plan: The worker's declarations; when the database's differ, nothing is claimed.
        delivery: Where the token is made.
        worker: Name for people; nothing relies on it being unique.
        limit: Most keys in the lot.
        lease_seconds: How long the keys are ours, by the database's clock.

    Returns:
        The lot, or None when there is nothing to do.
    """
    async with read_transaction(engine) as connection:
        if not await connection.scalar(statement(_ANY, connection.dialect.name), {"target": delivery.name}):
            return None
        if not await declarations_match(connection, plan, hold=False):  # again below, held: before a token is made
            return None
    async with write_transaction(engine) as connection:
        parameters = {"target": delivery.name, "worker": worker}
        token = int(await connection.scalar(statement(_NUMBER, connection.dialect.name), parameters))
    await reach("relay.claim_after_number")
    await delivery.create_token(token)
    await reach("relay.claim_after_token")
    async with write_transaction(engine) as connection:
        if not await declarations_match(connection, plan):
            return None
        lot = await _lease(connection, delivery.name, token, limit, lease_seconds)
    await reach("relay.claim_after_lease")
    return lot


async def _lease(connection: AsyncConnection, target: str, token: int, limit: int, lease_seconds: float) -> Lot | None:
    dialect = connection.dialect.name
    found = (await connection.execute(statement(_LOCK, dialect), {"target": target, "limit": limit})).all()
    if not found:
        return None
    # A sweep may take minutes: users' keys don't wait behind it, it is claimed when there is nothing else.
    found = [row for row in found if swept_table(row.table_name) is None] or found[:1]
    parameters = {
        "target": target,
        "token": token,
        "lease_seconds": lease_seconds,
        "keys": json.dumps([list(row) for row in found]),
    }
    leased = (await connection.execute(statement(_LEASE, dialect), parameters)).all()
    keys = sorted((WorkKey(*row[:5]) for row in leased), key=lambda work: (work.table, work.key))
    return Lot(target, token, tuple(keys), frozenset(_tokens(row.unrevoked for row in leased)))


def _tokens(texts: Iterable[str]) -> Iterable[int]:
    return (int(number) for text in texts if text for number in text.split(","))


async def revoked(engine: AsyncEngine, lot: Lot) -> None:
    """Forget the tokens that a lot's rows remembered: they are revoked, and a long outage must not pile them up."""
    async with write_transaction(engine) as connection:
        await share_work(connection)
        await connection.execute(statement(_REVOKED, connection.dialect.name), {"token": lot.token})


async def renew(engine: AsyncEngine, lot: Lot, *, lease_seconds: float) -> None:
    """Lengthen the lease on what is still ours; a heartbeat for slow targets, never a proof of possession."""
    async with write_transaction(engine) as connection:
        await share_work(connection)
        parameters = {"token": lot.token, "lease_seconds": lease_seconds}
        await connection.execute(statement(_RENEW, connection.dialect.name), parameters)


_TOKENS_IN_USE = (
    "SELECT token, unrevoked FROM fourfold_work WHERE target = :target AND (token IS NOT NULL OR unrevoked <> '')"
)

_OLD_TOKENS = "SELECT id FROM fourfold_token WHERE target = :target AND created_at < {now} - :age_seconds ORDER BY id"

_FORGET = "DELETE FROM fourfold_token WHERE id IN {each_int:tokens}"


async def end_token(engine: AsyncEngine, delivery: Delivery, token: int) -> None:
    """Remove a finished token from the target, then its number; in this order, so that a death between is swept."""
    await delivery.revoke_tokens([token])
    async with write_transaction(engine) as connection:
        await connection.execute(statement(_FORGET, connection.dialect.name), {"tokens": json.dumps([token])})


async def sweep_tokens(engine: AsyncEngine, delivery: Delivery, *, age_seconds: float) -> int:
    """Revoke and forget tokens that no work row names any more: their workers died between claim and settle.

    Safe at any age, because absent means revoked: a worker that is still about to lease with one is refused when it
    writes, and gives its keys back.

    Returns:
        How many were swept.
    """
    async with read_transaction(engine) as connection:
        dialect = connection.dialect.name
        rows = (await connection.execute(statement(_TOKENS_IN_USE, dialect), {"target": delivery.name})).all()
        in_use = set(_tokens(text for row in rows for text in (str(row.token or ""), row.unrevoked)))
        parameters = {"target": delivery.name, "age_seconds": age_seconds}
        old = set((await connection.scalars(statement(_OLD_TOKENS, dialect), parameters)).all()) - in_use
    if old:
        await delivery.revoke_tokens(old)
        async with write_transaction(engine) as connection:
            await connection.execute(statement(_FORGET, connection.dialect.name), {"tokens": json.dumps(sorted(old))})
    return len(old)
