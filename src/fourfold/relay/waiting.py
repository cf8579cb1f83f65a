"""Waiting until what a unit of work changed has reached the targets.

A unit knows the ids of its own change lines. It is settled when none of them is in the queue and no work row of the
targets covers one of them; both are read in **one** statement, because dispatch moves them from one table to the
other. A work row covers the ids from its first to its last change, so the answer may come later than it could, never
sooner. A key of this unit in quarantine raises at once; that look-up is by key, so a neighbour's bad row is never
reported as ours.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourfold.errors import NotFoundError, QuarantinedError, SettleTimeoutError, did_you_mean
from fourfold.relay.dialect import statement
from fourfold.rows.changes import OwnLines
from fourfold.rows.engine import read_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["UnitChanges", "check_targets", "is_settled", "wait_settled"]

_POLL_LEAST_SECONDS = 0.005
_POLL_MOST_SECONDS = 0.25

# A line that isn't dispatched counts for every target: whom its dependents concern is known only then.
_PENDING = """
SELECT CAST(t.value AS text) AS target FROM fourfold_change AS c CROSS JOIN {each_text:targets} AS t
WHERE c.id BETWEEN :low AND :high
AND EXISTS (SELECT 1 FROM {each_pair:ranges} AS n WHERE c.id BETWEEN CAST(n.a AS bigint) AND CAST(n.b AS bigint))
UNION
SELECT w.target FROM fourfold_work AS w
WHERE w.target IN {each_text:targets} AND w.last_change >= :low
AND {least}(w.first_change, coalesce(w.pending_first, w.first_change)) <= :high
AND EXISTS (SELECT 1 FROM {each_pair:ranges} AS n WHERE CAST(n.a AS bigint) <= w.last_change
    AND CAST(n.b AS bigint) >= {least}(w.first_change, coalesce(w.pending_first, w.first_change)))
"""

_QUARANTINED = """
SELECT q.target, q.table_name, q.key, q.code, q.cause FROM fourfold_quarantine AS q
WHERE q.target IN {each_text:targets} AND (q.table_name, q.key) IN {each_pair:keys} AND q.last_change >= :low LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class UnitChanges:
    """What one committed unit of work wrote into the queue.

    Args:
        ranges: Its lines' ids, as ascending pairs of first and last.
        keys: Its own keys as (table, key); left out where they are too many to remember.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    keys: tuple[tuple[str, str], ...] = ()

    def extended(self, lines: OwnLines) -> UnitChanges:
        """These and another commit's lines of the same unit.

        Example:
            >>> UnitChanges().extended(OwnLines(4, 6, (4, 5, 6), ())).ranges
            ((4, 6),)
        """
        ranges = _ranges(lines.ids) if lines.ids else ((lines.first, lines.last),)
        return UnitChanges(self.ranges + ranges, self.keys + lines.keys)


def _ranges(ids: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for number in ids:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def check_targets(chosen: Collection[str] | None, known: Sequence[str]) -> Collection[str]:
    """Return the targets to wait for: all that are known where none were chosen.

    Raises:
        NotFoundError: Code `settle.unknown_target`; a misspelt one would never be missing anything.
    """
    for name in chosen or ():
        if name not in known:
            message = f"no target {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}"
            raise NotFoundError(message, code="settle.unknown_target", target=name)
    return known if chosen is None else chosen


async def is_settled(engine: AsyncEngine, changes: UnitChanges, targets: Collection[str]) -> set[str]:
    """Targets that have not got all of these changes yet; empty when settled.

    Raises:
        QuarantinedError: A key of these changes can't be projected.
    """
    listed = json.dumps(sorted(targets))
    async with read_transaction(engine) as connection:
        dialect = connection.dialect.name
        low = min(first for first, _ in changes.ranges)
        named = {"keys": json.dumps(changes.keys), "targets": listed, "low": low}
        bad = (await connection.execute(statement(_QUARANTINED, dialect), named)).first()
        parameters = {
            "ranges": json.dumps(changes.ranges),
            "targets": listed,
            "low": low,
            "high": max(last for _, last in changes.ranges),
        }
        pending = set((await connection.scalars(statement(_PENDING, dialect), parameters)).all())
    if bad is not None:
        message = f"{bad.table_name}:{bad.key} is in quarantine for {bad.target}: {bad.cause}"
        raise QuarantinedError(
            message,
            hint="Mend the row (its next change tries again) or run `fourfold retry`",
            owner=f"{bad.table_name}:{bad.key}",
            target=bad.target,
            cause_code=bad.code,
        )
    return pending


async def wait_settled(
    engine: AsyncEngine,
    changes: UnitChanges,
    targets: Collection[str],
    *,
    timeout: float,
    wake: Callable[[], None] | None = None,
) -> None:
    """Return when the changes have reached the targets.

    Args:
        engine: Of the rows.
        changes: Of a committed unit.
        targets: Names of targets; others aren't waited for.
        timeout: Seconds.
        wake: Called once, so that a relay in this process doesn't wait for its next poll.

    Raises:
        SettleTimeoutError: Not all have them yet; `targets` names which.
        QuarantinedError: A key of the unit can't be projected.
    """
    if not changes.ranges or not targets:
        return
    if wake is not None:
        wake()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause_seconds = _POLL_LEAST_SECONDS
    while missing := await is_settled(engine, changes, targets):
        remaining = deadline - loop.time()
        if remaining <= 0:
            names = ", ".join(sorted(missing))
            message = f"not settled after {timeout:g} s: {names}"
            hint = "The relay goes on; is one running? See `fourfold status`"
            raise SettleTimeoutError(message, hint=hint, targets=tuple(sorted(missing)))
        await asyncio.sleep(min(pause_seconds, remaining))
        pause_seconds = min(pause_seconds * 1.5, _POLL_MOST_SECONDS)
