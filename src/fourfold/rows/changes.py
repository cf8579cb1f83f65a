"""The queue's lines: written by hand where no trigger does it, and found again by the transaction that wrote them.

Both run inside the caller's transaction: a line commits with what it stands for, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from fourfold.errors import ConfigurationError
from fourfold.pieces import pieces
from fourfold.rows import tables
from fourfold.rows.clock import now_sql
from fourfold.rows.errors import mapped_errors

__all__ = [
    "EXACT_LINES",
    "KEYS_PER_LINE",
    "OwnLines",
    "append_changes",
    "mark_begin",
    "mark_begin_sync",
    "own_changes",
    "own_changes_sync",
    "request_resync",
    "request_resync_sync",
]

KEYS_PER_LINE: Final = 1000  # what dispatch takes as one row stays below 100 kB with keys of a UUID's length
EXACT_KEYS: Final = 1000  # beyond, a quarantined key isn't looked for by name
_IDS_PER_QUERY: Final = 500
EXACT_LINES: Final = 10_000  # beyond, a unit of work waits for a range of lines instead of a list: 80 kB of ids

_FIRST: Final = sa.text("SELECT pg_catalog.current_setting('fourfold.first_change', true)")
_REMEMBER: Final = sa.text(
    "SELECT pg_catalog.set_config('fourfold.first_change', :line, true)"
    " WHERE COALESCE(pg_catalog.current_setting('fourfold.first_change', true), '') = ''"
)
_OWN: Final = {
    # The first line's id bounds the search to what was queued since; the transaction's number tells ours from others'.
    "postgresql": "FROM fourfold_change WHERE id >= :first"
    " AND transaction_id = CAST(pg_catalog.pg_current_xact_id() AS text)",
    # BEGIN IMMEDIATE: nobody else can have written since.
    "sqlite": "FROM fourfold_change WHERE id >= :first",
}
_SEQUENCE: Final = sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'fourfold_change'")

# By transaction, so that a mark can't outlive it; SQLite only.
_marks: WeakKeyDictionary[sa.Transaction, int] = WeakKeyDictionary()


async def append_changes(
    connection: AsyncConnection | AsyncSession, table: str, keys: Iterable[str], *, lane: int = 0
) -> None:
    """Queue keys of a table as a trigger would, in lines of a thousand.

    Args:
        connection: In a transaction that writes.
        table: The table's name, as its fragments' owner.
        keys: Encoded keys.
        lane: 0 for users' changes, 1 for repairs and rebuilds.

    Raises:
        FourfoldError: Driver errors, mapped.
    """
    with mapped_errors():
        target = await _connection(connection)
        await target.run_sync(_append, table, list(keys), lane)


async def request_resync(connection: AsyncConnection | AsyncSession, table: str, *, lane: int = 1) -> None:
    """Queue a resync: every key of the table, and every owner that the targets have of it, is compared.

    Args:
        connection: In a transaction that writes.
        table: The table's name.
        lane: As in `append_changes`.

    Raises:
        FourfoldError: Driver errors, mapped.
    """
    with mapped_errors():
        target = await _connection(connection)
        await target.run_sync(request_resync_sync, table, lane)


async def mark_begin(connection: AsyncConnection | AsyncSession) -> None:
    """Remember on SQLite where this transaction's lines begin; call it before its first write. On PostgreSQL: nothing.

    Raises:
        FourfoldError: Driver errors, mapped.
    """
    with mapped_errors():
        target = await _connection(connection)
        await target.run_sync(mark_begin_sync)


@dataclass(frozen=True, slots=True)
class OwnLines:
    """The lines that one transaction wrote.

    Args:
        first: Lowest id.
        last: Highest id.
        ids: All of them in order; empty for more than 10,000, then the range stands for them.
        keys: Their keys as (table, key), sorted; empty for more than 1,000.
    """

    first: int
    last: int
    ids: tuple[int, ...]
    keys: tuple[tuple[str, str], ...]


async def own_changes(connection: AsyncConnection | AsyncSession) -> OwnLines | None:
    """Return the lines that this transaction has written so far; call it after the flush and before the commit.

    Returns:
        None when there are no lines.

    Raises:
        ConfigurationError: Code `rows.not_marked`, on SQLite without `mark_begin` in this transaction.
        FourfoldError: Driver errors, mapped.
    """
    with mapped_errors():
        target = await _connection(connection)
        return await target.run_sync(own_changes_sync)


def request_resync_sync(connection: sa.Connection, table: str, lane: int = 1) -> None:
    """As `request_resync`, for `run_sync` and Alembic."""
    _write(connection, table, [], kind="resync", lane=lane)


async def _connection(target: AsyncConnection | AsyncSession) -> AsyncConnection:
    return await target.connection() if isinstance(target, AsyncSession) else target


def _append(connection: sa.Connection, table: str, keys: list[str], lane: int) -> None:
    for piece in pieces(keys, KEYS_PER_LINE):
        _write(connection, table, piece, kind="keys", lane=lane)


def _write(connection: sa.Connection, table: str, keys: Sequence[str], *, kind: str, lane: int) -> None:
    dialect = connection.dialect.name
    values: dict[str, object] = {"table_name": table, "keys": keys, "kind": kind, "lane": lane}
    values["created_at"] = sa.literal_column(now_sql(dialect))
    if dialect == "postgresql":
        values["transaction_id"] = sa.literal_column("CAST(pg_catalog.pg_current_xact_id() AS text)")
    line = connection.execute(sa.insert(tables.change).values(values).returning(tables.change.c.id)).scalar_one()
    if dialect == "postgresql":
        connection.execute(_REMEMBER, {"line": str(line)})


def mark_begin_sync(connection: sa.Connection) -> None:
    """As `mark_begin`, for events of sessions."""
    if connection.dialect.name == "sqlite":
        transaction = _transaction(connection)
        if transaction not in _marks:
            _marks[transaction] = (connection.execute(_SEQUENCE).scalar() or 0) + 1


def own_changes_sync(connection: sa.Connection) -> OwnLines | None:
    """As `own_changes`, for events of sessions."""
    first = _first(connection)
    if first is None:
        return None
    own = _OWN[connection.dialect.name]
    listed = sa.text(f"SELECT id {own} ORDER BY id LIMIT {EXACT_LINES + 1}")
    ids = tuple(connection.execute(listed, {"first": first}).scalars())
    if not ids:
        return None
    if len(ids) <= EXACT_LINES:
        return OwnLines(ids[0], ids[-1], ids, _keys(connection, ids))
    last = connection.execute(sa.text(f"SELECT max(id) {own}"), {"first": first}).scalar_one()
    return OwnLines(ids[0], last, (), ())


def _keys(connection: sa.Connection, ids: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    if len(ids) > EXACT_KEYS:
        return ()
    change = tables.change.c
    found: set[tuple[str, str]] = set()
    for piece in pieces(ids, _IDS_PER_QUERY):
        query = sa.select(change.table_name, change["keys"]).where(change.id.in_(piece))
        for table, keys in connection.execute(query):
            found.update((table, key) for key in keys)
            if len(found) > EXACT_KEYS:
                return ()
    return tuple(sorted(found))


def _first(connection: sa.Connection) -> int | None:
    if connection.dialect.name == "postgresql":
        seen = connection.execute(_FIRST).scalar()
        return int(seen) if seen else None  # '' is what a session shows when an earlier transaction had set it
    first = _marks.get(_transaction(connection))
    if first is None:
        message = "this transaction's first line is not known"
        raise ConfigurationError(message, code="rows.not_marked", hint="Call mark_begin before the first write")
    return first


def _transaction(connection: sa.Connection) -> sa.Transaction:
    transaction = connection.get_transaction()
    if transaction is None:
        message = "no transaction has begun on this connection"
        raise ConfigurationError(message, code="rows.not_marked", hint="Begin one first")
    return transaction
