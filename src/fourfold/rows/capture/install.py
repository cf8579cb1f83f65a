"""Installs, removes and mends capture, in the caller's transaction.

Order matters on PostgreSQL: triggers first, then the look whether the table has rows. Making a trigger waits for
writers in flight and holds off new ones until the commit, so no row comes in between unseen.

Installing on a table that has rows, mending and changing what is captured each queue a resync of the table, and of the
tables whose rows depend on its rows, in the same transaction: what was written without triggers is found by comparing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from fourfold.errors import ConfigurationError
from fourfold.projection.capture_spec import CaptureSpec
from fourfold.rows import tables as own
from fourfold.rows.capture.check import CaptureProblem, problems_of, relations_of, require_own_tables, resolve
from fourfold.rows.capture.postgresql import PostgresqlCapture
from fourfold.rows.capture.references import drop_references_of_missing_table, synchronise_references
from fourfold.rows.capture.specs import spec_from_json, spec_to_json
from fourfold.rows.capture.sqlite import SqliteCapture
from fourfold.rows.capture.verbatim import run_verbatim
from fourfold.rows.changes import request_resync_sync
from fourfold.rows.clock import now_sql
from fourfold.rows.errors import mapped_errors

__all__ = ["check_capture", "install_capture", "installed_specs", "release", "remove_capture", "synchronise"]

_LOCK: Final = sa.text("SELECT pg_catalog.pg_advisory_xact_lock(439804651110)")  # one installer at a time
_BEYOND_REPAIR: Final = "subscribed"  # nothing to install against it


async def install_capture(connection: AsyncConnection, specs: Sequence[CaptureSpec]) -> list[str]:
    """Install capture where it is missing, altered, off or outdated; nothing happens where it is whole.

    Args:
        connection: In a transaction that writes; on PostgreSQL under the role that owns the tables.
        specs: One per table. Tables captured before that aren't among them stay captured.

    Returns:
        Names of the tables that were (re)installed.

    Raises:
        ConfigurationError: Codes `rows.not_migrated`, `rows.no_table`.
        ConflictError: Code `objects.unknown`, when rows of a new table name files that aren't stored.
        FourfoldError: Driver errors, mapped.
    """
    with mapped_errors():
        return await connection.run_sync(synchronise, specs)


async def remove_capture(connection: AsyncConnection, tables: Iterable[str] | None = None) -> None:
    """Remove capture from `tables`, or from all that are captured. References stay: they protect the rows' files.

    Raises:
        FourfoldError: Driver errors, mapped.
    """
    chosen = None if tables is None else list(tables)
    with mapped_errors():
        await connection.run_sync(release, chosen)


async def check_capture(connection: AsyncConnection, specs: Sequence[CaptureSpec]) -> list[CaptureProblem]:
    """Return what is wrong with capture; empty means that no change of these tables passes unseen.

    Raises:
        ConfigurationError: Code `rows.not_migrated`.
        FourfoldError: Driver errors, mapped.
    """
    with mapped_errors():
        return await connection.run_sync(problems_of, specs)


def synchronise(connection: sa.Connection, specs: Sequence[CaptureSpec], *, force: bool = False) -> list[str]:
    """As `install_capture`, for Alembic and `run_sync`.

    Args:
        connection: In a transaction that writes.
        specs: One per table.
        force: Install again even what looks whole.
    """
    require_own_tables(connection)
    _serialise(connection)
    known = {row.table_name: row.body_hash for row in connection.execute(sa.select(own.capture))}
    installed = []
    for spec in specs:
        capture = resolve(connection, spec)
        if capture is None:
            message = f"no table {spec.table!r} to capture"
            raise ConfigurationError(message, code="rows.no_table", hint="Run the application's migrations first")
        kinds = {problem.kind for problem in problems_of(connection, [spec])} - {_BEYOND_REPAIR}
        if kinds or force:
            is_known = spec.table in known
            has_rows = _install(connection, capture, is_known=is_known)
            installed.append(spec.table)
            # Coarse triggers have marked what was written meanwhile: with the same declarations nothing went unseen.
            saw_all = kinds == {"suspended"} and known.get(spec.table) == capture.body_hash
            # An empty table that was captured before may have had rows that went unseen: the targets still hold them.
            if (has_rows or is_known) and not saw_all:
                mark_for_resync(connection, spec)
    return installed


def release(connection: sa.Connection, tables: Sequence[str] | None = None) -> None:
    """As `remove_capture`, for Alembic and `run_sync`."""
    require_own_tables(connection)
    _serialise(connection)
    for spec in installed_specs(connection):
        if tables is not None and spec.table not in tables:
            continue
        capture = resolve(connection, spec)
        if capture is None:
            drop_references_of_missing_table(connection, spec.table)
        else:
            for statement in _drop_statements(connection, capture):
                run_verbatim(connection, statement)
        connection.execute(sa.delete(own.capture).where(own.capture.c.table_name == spec.table))


def installed_specs(connection: sa.Connection) -> list[CaptureSpec]:
    """Return what is captured now, as it was declared when it was installed."""
    texts = connection.execute(sa.select(own.capture.c.spec).order_by(own.capture.c.table_name)).scalars()
    return [spec_from_json(text) for text in texts]


def _serialise(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK)


def _install(connection: sa.Connection, capture: PostgresqlCapture | SqliteCapture, *, is_known: bool) -> bool:
    spec = capture.spec
    for statement in _create_statements(connection, capture):
        run_verbatim(connection, statement)
    has_rows = run_verbatim(connection, f"SELECT EXISTS (SELECT 1 FROM {capture.table})").scalar_one()
    synchronise_references(connection, spec, capture.table, refuse_unknown=not is_known)
    connection.execute(sa.delete(own.capture).where(own.capture.c.table_name == spec.table))
    connection.execute(
        sa.insert(own.capture).values(
            table_name=spec.table,
            body_hash=capture.body_hash,
            spec=spec_to_json(spec),
            installed_at=sa.literal_column(now_sql(connection.dialect.name)),
        )
    )
    return bool(has_rows)


def mark_for_resync(connection: sa.Connection, spec: CaptureSpec) -> None:
    """Queue a resync of a table and of the tables whose rows depend on its rows."""
    tables = [spec.table] if spec.projected else []
    for table in dict.fromkeys([*tables, *(parent.table for parent in spec.parents)]):
        request_resync_sync(connection, table)


def _create_statements(connection: sa.Connection, capture: PostgresqlCapture | SqliteCapture) -> list[str]:
    if isinstance(capture, SqliteCapture):
        return [*capture.drop_triggers(), *capture.triggers.values()]
    relations = relations_of(connection, capture).values()
    created = [statement for relation in relations for statement in capture.create_triggers(relation)]
    return [capture.create_function(), *created]


def _drop_statements(connection: sa.Connection, capture: PostgresqlCapture | SqliteCapture) -> list[str]:
    if isinstance(capture, SqliteCapture):
        return capture.drop_triggers()
    relations = relations_of(connection, capture).values()
    dropped = [statement for relation in relations for statement in capture.drop_triggers(relation)]
    return [*dropped, f"DROP FUNCTION IF EXISTS {capture.function}()"]
