"""What `status` says of the relay: per target how far behind, per key what failed.

Never "in step" while something is due. Lag is counted from the change line on: the oldest thing that a target doesn't
have yet, by the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fourfold.relay.declare import declarations_match
from fourfold.relay.dialect import statement
from fourfold.rows import tables
from fourfold.rows.engine import read_transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fourfold.projection.plan import Plan

__all__ = ["QuarantinedKey", "RelayStatus", "TargetStatus", "quarantined_keys", "relay_status"]

_QUEUE = "SELECT count(*), coalesce({now} - min(created_at), 0) FROM fourfold_change"

_WORK = """
SELECT target, count(*), coalesce({now} - min(queued_at), 0) FROM fourfold_work GROUP BY target
"""

_TARGETS = "SELECT name, failures, paused_until - {now}, last_error, last_settled_at FROM fourfold_target"

# A transaction that stays open keeps its lines unseen: nothing is skipped, but what it wrote is waiting.
_OLDEST_TRANSACTION = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity
WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One target: keys waiting, age of the oldest in seconds, keys in quarantine, and its last error."""

    name: str
    keys: int
    lag_seconds: float
    quarantined: int
    failures: int
    paused_seconds: float
    last_error: str
    last_settled_at: float | None


@dataclass(frozen=True, slots=True)
class QuarantinedKey:
    """A key that can't be projected, and why."""

    target: str
    table: str
    key: str
    code: str
    cause: str
    attempts: int
    quarantined_at: float


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """The queue and every target, read in one snapshot."""

    lines: int
    oldest_line_seconds: float
    oldest_transaction_seconds: float
    declarations_match: bool
    targets: tuple[TargetStatus, ...]

    @property
    def in_step(self) -> bool:
        """True only when no change that Fourfold saw is missing in any target (I8)."""
        return (
            self.declarations_match
            and not self.lines
            and not any(target.keys or target.quarantined for target in self.targets)
        )


async def relay_status(engine: AsyncEngine, plan: Plan, targets: tuple[str, ...]) -> RelayStatus:
    """Read the state of the queue and of `targets` (and of any other that still has work)."""
    async with read_transaction(engine) as connection:
        dialect = connection.dialect.name
        lines, oldest = (await connection.execute(statement(_QUEUE, dialect))).one()
        work = {row[0]: (row[1], row[2]) for row in await connection.execute(statement(_WORK, dialect))}
        known = {row[0]: row for row in await connection.execute(statement(_TARGETS, dialect))}
        quarantined = await _quarantined_counts(connection)
        transaction = await connection.scalar(sa.text(_OLDEST_TRANSACTION)) if dialect == "postgresql" else 0
        matches = await declarations_match(connection, plan, hold=False)
    names = sorted({*targets, *work, *quarantined})
    return RelayStatus(
        lines=lines,
        oldest_line_seconds=float(oldest),
        oldest_transaction_seconds=float(transaction or 0),
        declarations_match=matches,
        targets=tuple(
            _target(name, work.get(name, (0, 0.0)), known.get(name), quarantined.get(name, 0)) for name in names
        ),
    )


async def _quarantined_counts(connection: AsyncConnection) -> dict[str, int]:
    column = tables.quarantine.c.target
    rows = await connection.execute(sa.select(column, sa.func.count()).group_by(column))
    return {row[0]: row[1] for row in rows}


def _target(name: str, work: tuple[int, float], known: Sequence[Any] | None, bad: int) -> TargetStatus:
    _, failures, paused, error, settled_at = known or (name, 0, 0, "", None)
    return TargetStatus(
        name=name,
        keys=work[0],
        lag_seconds=float(work[1]),
        quarantined=bad,
        failures=failures,
        paused_seconds=max(0.0, float(paused or 0)),
        last_error=error or "",
        last_settled_at=settled_at,
    )


async def quarantined_keys(engine: AsyncEngine, *, limit: int = 100) -> list[QuarantinedKey]:
    """The keys in quarantine, newest first."""
    c = tables.quarantine.c
    columns = (c.target, c.table_name, c.key, c.code, c.cause, c.attempts, c.quarantined_at)
    async with read_transaction(engine) as connection:
        rows = await connection.execute(sa.select(*columns).order_by(c.quarantined_at.desc()).limit(limit))
        return [QuarantinedKey(*row) for row in rows]
