"""The outcome of the last verify, kept in the rows (`fourfold_checkpoint`), so that the status page can tell of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fourfold.rows import tables
from fourfold.rows.clock import now_sql
from fourfold.rows.engine import read_transaction, write_transaction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.integrity.report import VerifyReport

__all__ = ["LastVerify", "last_verify", "record_verify"]

_NAME: Final = "verify:last"
_KEPT: Final = 20  # differences that the page shows
_SET: Final = """
INSERT INTO fourfold_checkpoint (name, state, updated_at) VALUES (:name, :state, {now})
ON CONFLICT (name) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at
"""


@dataclass(frozen=True, slots=True)
class LastVerify:
    """When verify ran last, on what, and what it found.

    Args:
        at: Seconds since 1970, by the database's clock.
        deep: It looked at contents too.
        checked: Owners or objects by target.
        counts: (target, kind, number) of what differed.
        differences: The first of them: target, kind, table, key, detail.
    """

    at: float
    deep: bool
    checked: Mapping[str, int]
    counts: tuple[tuple[str, str, int], ...]
    differences: tuple[Mapping[str, str], ...]

    @property
    def differs(self) -> bool:
        """Something differed; foreign items don't count."""
        return any(number for _, kind, number in self.counts if kind != "foreign")


async def record_verify(engine: AsyncEngine, report: VerifyReport) -> None:
    """Keep the outcome of a run."""
    state = {
        "deep": report.deep,
        "checked": report.checked,
        "counts": [[target, kind, number] for (target, kind), number in sorted(report.counts.items()) if number],
        "differences": [
            {"target": each.target, "kind": each.kind, "table": each.table, "key": each.key, "detail": each.detail}
            for each in report.differences[:_KEPT]
        ],
    }
    async with write_transaction(engine) as connection:
        statement = sa.text(_SET.format(now=now_sql(connection.dialect.name)))
        await connection.execute(statement, {"name": _NAME, "state": json.dumps(state)})


async def last_verify(engine: AsyncEngine) -> LastVerify | None:
    """Return the outcome of the last run, None where there was none."""
    c = tables.checkpoint.c
    async with read_transaction(engine) as connection:
        row = (await connection.execute(sa.select(c.state, c.updated_at).where(c.name == _NAME))).one_or_none()
    return None if row is None else _read(json.loads(row.state), row.updated_at)


def _read(state: Mapping[str, Any], at: float) -> LastVerify:
    return LastVerify(
        at=at,
        deep=bool(state["deep"]),
        checked=dict(state["checked"]),
        counts=tuple((target, kind, number) for target, kind, number in state["counts"]),
        differences=tuple(state["differences"]),
    )
