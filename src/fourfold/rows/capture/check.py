"""Is capture there, whole and always on? Compares what the database holds with what a `CaptureSpec` says.

Run at start, in `status`, on a timer and after each migration: capture that was dropped or switched off makes the
targets silently stale, so it is said loudly (F16). Reads only; what it needs is readable for every role.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from fourfold.errors import ConfigurationError
from fourfold.projection.capture_spec import CaptureSpec
from fourfold.rows.capture.postgresql import TRIGGER_TYPES, PostgresqlCapture
from fourfold.rows.capture.quoting import identifier, qualified
from fourfold.rows.capture.sqlite import SqliteCapture

__all__ = ["CaptureProblem", "problems_of", "relations_of", "require_own_tables", "resolve"]

_INSTALL: Final = "Run: fourfold migrate (it installs capture again and queues the table for resync)"
_TREE: Final = """
WITH RECURSIVE tree(oid) AS (
SELECT CAST(:table AS oid) UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN tree ON i.inhparent = tree.oid)
SELECT c.oid, n.nspname, c.relname FROM tree JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') ORDER BY c.oid"""
_TRIGGERS: Final = """
SELECT t.tgrelid, t.tgname, t.tgenabled, t.tgtype, t.tgqual IS NOT NULL AS has_condition, t.tgfoid
FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = ANY(CAST(:relations AS oid[])) AND NOT t.tgisinternal
AND t.tgname LIKE 'fourfold!_%' ESCAPE '!'"""
_FUNCTION: Final = """
SELECT p.oid, p.prosrc, p.prosecdef, p.proconfig FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = :schema AND p.proname = :name AND p.pronargs = 0"""
_SUBSCRIBED: Final = """
SELECT s.srrelid FROM pg_catalog.pg_subscription_rel AS s WHERE s.srrelid = ANY(CAST(:relations AS oid[]))"""
_RESOLVE: Final = """
SELECT c.oid, n.nspname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(:name)"""

_UUIDS: Final = """
SELECT a.attname FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = :table AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = CAST('pg_catalog.uuid' AS regtype)"""


@dataclass(frozen=True, slots=True)
class CaptureProblem:
    """Something that lets changes of a table pass unseen.

    Args:
        table: Whose changes.
        kind: `missing_table`, `missing`, `disabled`, `not_always`, `altered`, `suspended`, `not_installed` or
            `subscribed`.
        message: What was seen and what was expected.
        hint: The next step.
        trigger: Which one, where it is one.
    """

    table: str
    kind: str
    message: str
    hint: str
    trigger: str | None = None

    def __str__(self) -> str:
        return f"{self.table}: {self.message}. {self.hint}"


def resolve(connection: sa.Connection, spec: CaptureSpec) -> PostgresqlCapture | SqliteCapture | None:
    """Return the texts of a table's capture in this database, None when there is no such table.

    Raises:
        ConfigurationError: Code `rows.not_migrated`, when Fourfold's own tables are missing.
    """
    if connection.dialect.name == "sqlite":
        return SqliteCapture(spec) if _has_sqlite_table(connection, spec.table) else None
    own = connection.execute(sa.text(_RESOLVE), {"name": "fourfold_change"}).one_or_none()
    if own is None:
        raise _not_migrated()
    table = connection.execute(sa.text(_RESOLVE), {"name": qualified(spec.schema, spec.table)}).one_or_none()
    if table is None:
        return None
    uuids = frozenset(connection.execute(sa.text(_UUIDS), {"table": table.oid}).scalars())
    return PostgresqlCapture(spec, schema=table.nspname, own_schema=own.nspname, native_uuids=uuids)


def require_own_tables(connection: sa.Connection) -> None:
    """Return if Fourfold's own tables are there; looked up, because a failing SELECT would abort a transaction.

    Raises:
        ConfigurationError: Code `rows.not_migrated`.
    """
    if connection.dialect.name == "sqlite":
        is_there = _has_sqlite_table(connection, "fourfold_capture")
    else:
        is_there = connection.execute(sa.text(_RESOLVE), {"name": "fourfold_capture"}).one_or_none() is not None
    if not is_there:
        raise _not_migrated()


def _has_sqlite_table(connection: sa.Connection, name: str) -> bool:
    # SQLite's names ignore the case of ASCII letters.
    found = sa.text("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = :name COLLATE NOCASE")
    return bool(connection.execute(found, {"name": name}).scalar_one())


def _not_migrated() -> ConfigurationError:
    message = "Fourfold's own tables are not in this database (or not on the search_path)"
    return ConfigurationError(message, code="rows.not_migrated", hint="Run: fourfold migrate")


def relations_of(connection: sa.Connection, capture: PostgresqlCapture) -> dict[int, str]:
    """Return the table and all its partitions and children: oid → qualified name, the table itself first."""
    root = connection.execute(sa.text(_RESOLVE), {"name": capture.table}).scalar_one()
    rows = connection.execute(sa.text(_TREE), {"table": root}).all()
    named = {row.oid: qualified(row.nspname, row.relname) for row in rows}
    return {root: named.pop(root), **named}


def problems_of(connection: sa.Connection, specs: Sequence[CaptureSpec]) -> list[CaptureProblem]:
    """Return all that is wrong with the capture of these tables; empty means: every change of theirs is seen.

    Raises:
        ConfigurationError: Code `rows.not_migrated`.
    """
    require_own_tables(connection)
    rows = connection.execute(sa.text("SELECT table_name, body_hash FROM fourfold_capture")).all()
    installed = {row.table_name: row.body_hash for row in rows}
    found: list[CaptureProblem] = []
    for spec in specs:
        capture = resolve(connection, spec)
        if capture is None:
            message = "the table isn't there"
            found.append(CaptureProblem(spec.table, "missing_table", message, "Run the application's migrations"))
        else:
            wrong = list(_problems_of_one(connection, capture))
            if not wrong and installed.get(spec.table) != capture.body_hash:
                wrong.append(CaptureProblem(spec.table, "not_installed", "no record of its installation", _INSTALL))
            found += wrong
    return found


def _problems_of_one(connection: sa.Connection, capture: PostgresqlCapture | SqliteCapture) -> Iterator[CaptureProblem]:
    if isinstance(capture, SqliteCapture):
        yield from _sqlite_problems(connection, capture)
    else:
        yield from _postgresql_problems(connection, capture)


def _sqlite_problems(connection: sa.Connection, capture: SqliteCapture) -> Iterator[CaptureProblem]:
    table = capture.spec.table
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    seen = {row.name: row.sql for row in rows}
    for name, expected in capture.triggers.items():
        if name not in seen:
            yield CaptureProblem(table, "missing", f"trigger {name!r} is missing", _INSTALL, name)
        elif seen[name] == capture.coarse_triggers[name]:
            yield CaptureProblem(table, "suspended", f"trigger {name!r} only marks the table", _INSTALL, name)
        elif seen[name] != expected:
            yield CaptureProblem(table, "altered", f"trigger {name!r} isn't what the declarations say", _INSTALL, name)


def _postgresql_problems(connection: sa.Connection, capture: PostgresqlCapture) -> Iterator[CaptureProblem]:
    table = capture.spec.table
    where = {"schema": capture.own_schema, "name": capture.function_name}
    function = connection.execute(sa.text(_FUNCTION), where).one_or_none()
    if function is None:
        name = capture.function
        yield CaptureProblem(table, "missing", f"trigger function {name} is missing", _INSTALL, capture.function_name)
    else:
        yield from _function_problems(capture, function)
    relations = relations_of(connection, capture)
    oids = {"relations": list(relations)}
    seen = {(row.tgrelid, row.tgname): row for row in connection.execute(sa.text(_TRIGGERS), oids)}
    for oid, relation in relations.items():
        for name, kind in TRIGGER_TYPES.items():
            row = seen.get((oid, name))
            expected_function = None if function is None else function.oid
            yield from _trigger_problems(table, relation, name, row, (kind, expected_function))
    for oid in connection.execute(sa.text(_SUBSCRIBED), oids).scalars():
        # The apply worker of logical replication fires row triggers only, and ours are statement triggers.
        message = f"{relations[oid]} is filled by a subscription, whose changes fire no statement trigger"
        yield CaptureProblem(table, "subscribed", message, "Run Fourfold on the publisher, or drop the subscription")


def _function_problems(capture: PostgresqlCapture, function: Any) -> Iterator[CaptureProblem]:
    table, name = capture.spec.table, capture.function_name
    settings = {f"{key}={value}" for key, value in capture.settings.items()}
    if function.prosrc == capture.coarse_source:
        yield CaptureProblem(table, "suspended", f"function {name!r} only marks the table", _INSTALL, name)
    elif function.prosrc != capture.source or not function.prosecdef or set(function.proconfig or ()) != settings:
        yield CaptureProblem(table, "altered", f"function {name!r} isn't what the declarations say", _INSTALL, name)


def _trigger_problems(
    table: str, relation: str, name: str, row: Any, expected: tuple[int, int | None]
) -> Iterator[CaptureProblem]:
    what = f"trigger {name!r} on {relation}"
    if row is None:
        yield CaptureProblem(table, "missing", f"{what} is missing", _INSTALL, name)
        return
    if row.tgenabled == "D":
        yield CaptureProblem(table, "disabled", f"{what} is disabled", _INSTALL, name)
    elif row.tgenabled != "A":
        # As after DISABLE TRIGGER ALL; ENABLE TRIGGER ALL.
        message = f"{what} is enabled as {row.tgenabled!r}, expected 'A' (ALWAYS)"
        hint = f"ALTER TABLE {relation} ENABLE ALWAYS TRIGGER {identifier(name)}, or run: fourfold migrate"
        yield CaptureProblem(table, "not_always", message, hint, name)
    if (row.tgtype, row.tgfoid) != expected or row.has_condition:
        yield CaptureProblem(table, "altered", f"{what} isn't what was installed", _INSTALL, name)
