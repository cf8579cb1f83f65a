"""Capture while a migration runs: coarse triggers, which name no column and mark a table that is written to for resync.

So no change of shape can make a trigger fail, and with it the migration; and what the migration itself writes (`UPDATE
… SET`) isn't lost. Afterwards the fine triggers come back, and a table whose shape or storage changed is marked, too: a
rewriting ALTER TABLE fires nothing, Alembic's batch mode on SQLite drops a table with its triggers (F21).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from fourfold.errors import DriftError
from fourfold.projection.capture_spec import CaptureSpec
from fourfold.rows import tables as own
from fourfold.rows.capture.check import problems_of, relations_of, resolve
from fourfold.rows.capture.install import installed_specs, mark_for_resync, synchronise
from fourfold.rows.capture.postgresql import PostgresqlCapture
from fourfold.rows.capture.references import drop_references_of_missing_table
from fourfold.rows.capture.sqlite import SqliteCapture
from fourfold.rows.capture.verbatim import run_verbatim

__all__ = ["capture_suspended"]

_log = logging.getLogger(__name__)

# Columns with their types, and the files they lie in: a rewrite (ALTER TYPE, a volatile default, CLUSTER, TRUNCATE)
# takes a new one. Partitions are part of it, so one that is attached, detached or dropped counts.
_SHAPE: Final = """
SELECT c.oid, c.relfilenode, a.attname, a.attnum, a.atttypid, a.atttypmod, a.attisdropped
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.oid = ANY(CAST(:relations AS oid[])) ORDER BY c.oid, a.attnum"""

_Shape = tuple[object, ...]


@contextmanager
def capture_suspended(connection: sa.Connection, specs: Sequence[CaptureSpec] | None = None) -> Iterator[None]:
    """Run a migration inside, in the connection's transaction or in several of its own (Alembic's).

    Args:
        connection: The migration's; for `env.py` the one that `context.configure` gets.
        specs: Capture as it should be afterwards, from the declarations of the code that migrates. A table that isn't
            among them gets back what it had, None means all; one that has lost a column of it stays coarse, is marked,
            and `status` says so until it is declared.

    Raises:
        DriftError: Code `rows.capture`, when triggers are not whole afterwards.
        ConflictError: Code `objects.unknown`, when rows name files that aren't stored.

    Example:
        In `env.py`: `with connection.begin(), capture_suspended(connection, specs): context.run_migrations()`
    """
    if not _has_capture(connection):
        yield
        if specs is not None and _has_capture(connection):
            _put_back(connection, specs)
        return
    with _transaction(connection):
        before = {spec.table: (spec, _suspend(connection, spec)) for spec in installed_specs(connection)}
    # No finally: a failed migration of one transaction rolls this back, too. Where it was several, coarse triggers
    # stay: they lose nothing, `status` names them, and the next run puts the fine ones back.
    yield
    with _transaction(connection):
        _resume(connection, before, specs)


def _has_capture(connection: sa.Connection) -> bool:
    with _transaction(connection):
        return sa.inspect(connection).has_table(own.capture.name)


@contextmanager
def _transaction(connection: sa.Connection) -> Iterator[None]:
    """Take part in the transaction that is open, or have one: Alembic may commit per migration."""
    if connection.in_transaction():
        yield
    else:
        with connection.begin():
            yield


def _suspend(connection: sa.Connection, spec: CaptureSpec) -> _Shape | None:
    capture = resolve(connection, spec)
    if capture is None:
        return None
    if isinstance(capture, SqliteCapture):
        for statement in [*capture.drop_triggers(), *capture.coarse_triggers.values()]:
            run_verbatim(connection, statement)
    else:
        run_verbatim(connection, capture.create_function(coarse=True))
    return _shape(connection, capture)


def _shape(connection: sa.Connection, capture: PostgresqlCapture | SqliteCapture) -> _Shape:
    if isinstance(capture, SqliteCapture):
        # rootpage changes when a batch makes the table again, even to the same text.
        found = sa.text("SELECT sql, rootpage FROM sqlite_master WHERE type = 'table' AND name = :name COLLATE NOCASE")
        return tuple(tuple(row) for row in connection.execute(found, {"name": capture.spec.table}))
    relations = {"relations": list(relations_of(connection, capture))}
    return tuple(tuple(row) for row in connection.execute(sa.text(_SHAPE), relations))


def _resume(
    connection: sa.Connection,
    before: dict[str, tuple[CaptureSpec, _Shape | None]],
    specs: Sequence[CaptureSpec] | None,
) -> None:
    declared = {spec.table: spec for spec in specs or ()}
    wanted = {table: spec for table, (spec, _) in before.items()} | declared
    for table, (spec, shape) in before.items():
        capture = resolve(connection, spec)
        if capture is None:
            _forget(connection, spec)
            wanted.pop(table)
        elif _shape(connection, capture) != shape:
            mark_for_resync(connection, spec)
            if table not in declared and not _fits(connection, capture):
                _log.warning("capture of %s stays coarse: a column that it watches is gone; declare it again", table)
                _stay_coarse(connection, capture)
                wanted.pop(table)
    _put_back(connection, list(wanted.values()))


def _put_back(connection: sa.Connection, specs: Sequence[CaptureSpec]) -> None:
    synchronise(connection, specs)
    problems = [str(problem) for problem in problems_of(connection, specs) if problem.kind != "subscribed"]
    if problems:
        message = "capture is not whole after the migration: " + "; ".join(problems)
        raise DriftError(message, code="rows.capture", hint="Run: fourfold migrate", problems=tuple(problems))


def _fits(connection: sa.Connection, capture: PostgresqlCapture | SqliteCapture) -> bool:
    spec = capture.spec
    schema = capture.schema if isinstance(capture, PostgresqlCapture) else None
    found = {column["name"] for column in sa.inspect(connection).get_columns(spec.table, schema)}
    named = {column.name for column in spec.key} | {column.name for column in spec.files}
    named |= {*(spec.watched or ()), *spec.linked}
    named |= {column.name for parent in spec.parents for column in parent.columns}
    return named <= found


def _stay_coarse(connection: sa.Connection, capture: PostgresqlCapture | SqliteCapture) -> None:
    if isinstance(capture, SqliteCapture):
        statements = [*capture.drop_triggers(), *capture.coarse_triggers.values()]
    else:
        relations = relations_of(connection, capture).values()
        statements = [statement for relation in relations for statement in capture.create_triggers(relation)]
    for statement in statements:
        run_verbatim(connection, statement)


def _forget(connection: sa.Connection, spec: CaptureSpec) -> None:
    drop_references_of_missing_table(connection, spec.table)
    connection.execute(sa.delete(own.capture).where(own.capture.c.table_name == spec.table))
