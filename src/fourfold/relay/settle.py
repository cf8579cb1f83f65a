"""The end of a lot: what the target holds leaves the queue, what failed is freed or quarantined.

One transaction. A work row goes where the token is ours *and* nothing came in since the claim (`version`); with
something newer it is freed; under another token it is left alone, whoever has it brings it up to date. Rows are locked
in the order in which dispatch locks them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.errors import DriftError, IntegrityError
from fourfold.faultpoints import reach
from fourfold.relay.dialect import statement
from fourfold.relay.enqueue import share_work
from fourfold.rows import tables
from fourfold.rows.engine import write_transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fourfold.errors import FourfoldError
    from fourfold.relay.claim import Lot, WorkKey

__all__ = ["Failure", "Settlement", "concerns_all", "fail", "pause", "settle"]

_BACKOFF_SECONDS = 0.5  # doubled per failure in a row
_BACKOFF_MOST_SECONDS = 30.0
_BACKOFF_DOUBLINGS = 6  # 0.5 s · 2^6 is above the most

_LOCK_OURS = "SELECT 1 FROM fourfold_work WHERE token = :token ORDER BY target, table_name, key {for_update}"

_UNQUARANTINE = """
DELETE FROM fourfold_quarantine WHERE target = :target AND (table_name, key) IN
    (SELECT table_name, key FROM fourfold_work WHERE token = :token AND (table_name, key) NOT IN {each_pair:failed})
"""

_SETTLE = """
DELETE FROM fourfold_work
WHERE token = :token AND version = claimed_version AND (table_name, key) NOT IN {each_pair:failed}
"""

# What is left under our token has a newer change, or was given back: every token that could write it is known to be
# finished.
_FREE_OURS = """
UPDATE fourfold_work SET token = NULL, lease_until = NULL, claimed_version = NULL, unrevoked = '', attempts = 0,
    first_change = coalesce(pending_first, first_change), pending_first = NULL,
    queued_at = coalesce(pending_since, queued_at), pending_since = NULL
WHERE token = :token
"""

# After a failure of unknown outcome the token stays remembered: a request under it may still be on its way.
_GIVE_BACK = """
UPDATE fourfold_work SET
    unrevoked = CASE WHEN unrevoked = '' THEN CAST(token AS text) ELSE unrevoked || ',' || CAST(token AS text) END,
    token = NULL, lease_until = NULL, claimed_version = NULL,
    first_change = CASE WHEN pending_first IS NOT NULL AND pending_first < first_change
        THEN pending_first ELSE first_change END,
    pending_first = NULL, pending_since = NULL
WHERE token = :token
"""

_QUARANTINE = """
INSERT INTO fourfold_quarantine
    (target, table_name, key, code, cause, attempts, first_change, last_change, quarantined_at)
VALUES (:target, :table_name, :key, :code, :cause, :attempts, :first, :last, {now})
ON CONFLICT (target, table_name, key) DO UPDATE SET code = excluded.code, cause = excluded.cause,
    attempts = fourfold_quarantine.attempts + excluded.attempts,
    last_change = {greatest}(fourfold_quarantine.last_change, excluded.last_change),
    quarantined_at = excluded.quarantined_at
"""

_TARGET_OK = """
INSERT INTO fourfold_target (name, failures, last_settled_at) VALUES (:target, 0, {now})
ON CONFLICT (name) DO UPDATE SET failures = 0, paused_until = NULL, last_error = NULL, last_settled_at = {now}
"""

_TARGET_FAILED = """
INSERT INTO fourfold_target (name, failures, paused_until, last_error) VALUES (:target, 1, {now} + :first_pause, :error)
ON CONFLICT (name) DO UPDATE SET failures = fourfold_target.failures + 1, last_error = :error,
    paused_until = {now} + {least}(:most_pause, :first_pause * (1 << {least}(fourfold_target.failures, :doublings)))
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """A key that failed alone, and why."""

    work: WorkKey
    code: str
    cause: str


def concerns_all(error: FourfoldError) -> bool:
    """Whether an error is the whole store's: looking for the key at fault would put every key into quarantine."""
    return error.retryable or isinstance(error, (DriftError, IntegrityError))


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a lot's keys: they left the queue, were freed (or taken over) for something newer, or failed."""

    settled: int
    freed: int
    quarantined: int


async def settle(engine: AsyncEngine, lot: Lot, failures: Sequence[Failure] = ()) -> Settlement:
    """Clear what the target has on disk now; quarantine what failed alone.

    A failed key with a newer change isn't quarantined but freed: its next try may succeed.
    """
    await reach("relay.settle_before")
    failed = json.dumps([[failure.work.table, failure.work.key] for failure in failures])
    async with write_transaction(engine) as connection:
        dialect = connection.dialect.name
        ours = {"target": lot.target, "token": lot.token}
        await share_work(connection)
        await connection.execute(statement(_LOCK_OURS, dialect), {"token": lot.token})
        await connection.execute(statement(_UNQUARANTINE, dialect), {**ours, "failed": failed})
        parameters = {"token": lot.token, "failed": failed}
        settled = (await connection.execute(statement(_SETTLE, dialect), parameters)).rowcount
        quarantined = [failure for failure in failures if await _quarantine(connection, lot, failure)]
        await connection.execute(statement(_FREE_OURS, dialect), {"token": lot.token})
        await connection.execute(statement(_TARGET_OK, dialect), {"target": lot.target})
        await reach("relay.settle_before_commit")
    await reach("relay.settle_after_commit")
    return Settlement(settled, len(lot.keys) - settled - len(quarantined), len(quarantined))


async def _quarantine(connection: AsyncConnection, lot: Lot, failure: Failure) -> bool:
    work = tables.work.c
    gone = await connection.execute(
        sa.delete(tables.work).where(
            work.target == lot.target,
            work.table_name == failure.work.table,
            work.key == failure.work.key,
            work.token == lot.token,
            work.version == work.claimed_version,
        )
    )
    if not gone.rowcount:
        return False
    parameters = {
        "target": lot.target,
        "table_name": failure.work.table,
        "key": failure.work.key,
        "code": failure.code,
        "cause": failure.cause,
        "first": failure.work.first_change,
        "last": failure.work.last_change,
        "attempts": failure.work.attempts,
    }
    await connection.execute(statement(_QUARANTINE, connection.dialect.name), parameters)
    return True


async def fail(engine: AsyncEngine, lot: Lot, error: Exception, *, pause_target: bool) -> None:
    """Give a lot back after an error of the whole lot, and let the target rest when the error was the target's.

    The pause doubles with each failure in a row, up to 30 s; other targets don't notice. The token stays remembered on
    the rows (the outcome may be unknown), so whoever claims next revokes it first: we go on under a new one.
    """
    async with write_transaction(engine) as connection:
        dialect = connection.dialect.name
        await share_work(connection)
        await connection.execute(statement(_LOCK_OURS, dialect), {"token": lot.token})
        await connection.execute(statement(_GIVE_BACK, dialect), {"token": lot.token})
        if pause_target:
            await pause(connection, lot.target, error)


async def pause(connection: AsyncConnection, target: str, error: Exception) -> None:
    """Let a target rest after `error`."""
    parameters = {
        "target": target,
        "error": f"{type(error).__name__}: {error}"[:1000],
        "first_pause": _BACKOFF_SECONDS,
        "most_pause": _BACKOFF_MOST_SECONDS,
        "doublings": _BACKOFF_DOUBLINGS,
    }
    await connection.execute(statement(_TARGET_FAILED, connection.dialect.name), parameters)
