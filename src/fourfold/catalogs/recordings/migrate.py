"""Migrations of the catalog's tables, with a version table of their own: never a branch of the user's Alembic.

No `alembic.ini` and no `env.py` take part, the revisions travel in the wheel. Each call is one transaction, under an
advisory lock on PostgreSQL and BEGIN IMMEDIATE on SQLite: of two processes at once the second finds nothing to do. The
functions that end in `_connection` run inside the caller's transaction, which he commits. The triggers of capture
aren't made here: `Fourfold` installs and checks them when it opens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from sqlalchemy.ext.asyncio import AsyncEngine

from fourfold.catalogs.recordings.models import Base
from fourfold.errors import ConfigurationError
from fourfold.rows.engine import write_transaction

__all__ = [
    "VERSION_TABLE",
    "adopt",
    "adopt_connection",
    "current_version",
    "downgrade",
    "downgrade_connection",
    "upgrade",
    "upgrade_connection",
]

VERSION_TABLE: Final = "fourfold_recordings_version"

_FOLDER: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x7265636F7264  # "record"; any number that other programs don't take
_OPTIONS: Final = {"version_table": VERSION_TABLE}

_T = TypeVar("_T")


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Make the catalog's tables, or bring them up to this release; nothing happens when they are.

    Args:
        engine: The rows' database. On PostgreSQL its role needs the right to create extension uuid-ossp where that is
            missing.
        revision: Alembic's name of the version, `head` for this release's.

    Raises:
        ConfigurationError: Codes `recordings.table_clash` (a table of one of these names is there and not ours; nothing
            was changed), `recordings.newer_version`, `recordings.extension`.
        FourfoldError: Driver errors, mapped.

    Example:
        ```python
        await upgrade(open_engine("sqlite:///rows.db"))
        ```
    """
    await _in_transaction(engine, lambda connection: upgrade_connection(connection, revision))


async def downgrade(engine: AsyncEngine, revision: str = "base") -> None:
    """Go back to `revision`; `base` removes the tables with all they hold, and uuid-ossp if it came with them.

    Args:
        engine: The rows' database.
        revision: Alembic's name of the version.

    Raises:
        FourfoldError: Driver errors, mapped.
    """
    await _in_transaction(engine, lambda connection: downgrade_connection(connection, revision))


async def adopt(engine: AsyncEngine) -> None:
    """Take over the tables that the source system made: only the version is recorded, no table is changed.

    Raises:
        ConfigurationError: Code `recordings.adopt`: a table or column is missing, or of another type; all are named.
        FourfoldError: Driver errors, mapped.
    """
    await _in_transaction(engine, adopt_connection)


async def current_version(engine: AsyncEngine) -> str | None:
    """Return the version of the catalog's tables, None where they aren't there.

    Raises:
        FourfoldError: Driver errors, mapped.
    """
    return await _in_transaction(engine, _current)


async def _in_transaction(engine: AsyncEngine, step: Callable[[sa.Connection], _T]) -> _T:
    async with write_transaction(engine) as connection:
        return await connection.run_sync(step)


def upgrade_connection(connection: sa.Connection, revision: str = "head") -> None:
    """As `upgrade`, in the transaction of a connection that isn't async; driver errors aren't mapped."""
    _lock(connection)
    script = ScriptDirectory(str(_FOLDER))
    seen = _current(connection)
    if seen is None:
        _refuse_clash(connection)
    else:
        _refuse_newer(script, seen)
    _run(connection, script, lambda current: script._upgrade_revs(revision, current))  # noqa: SLF001 - as alembic.command


def downgrade_connection(connection: sa.Connection, revision: str = "base") -> None:
    """As `downgrade`, in the transaction of a connection that isn't async; driver errors aren't mapped."""
    _lock(connection)
    script = ScriptDirectory(str(_FOLDER))
    _run(connection, script, lambda current: script._downgrade_revs(revision, current))  # noqa: SLF001 - as above


def adopt_connection(connection: sa.Connection) -> None:
    """As `adopt`, in the transaction of a connection that isn't async; driver errors aren't mapped."""
    _lock(connection)
    if _current(connection) is not None:
        return
    problems = _differences(connection)
    if problems:
        message = f"the tables that are there aren't those of the recordings catalog: {'; '.join(problems)}"
        hint = "Change them by hand, or use another database"
        raise ConfigurationError(message, code="recordings.adopt", hint=hint, problems=problems)
    script = ScriptDirectory(str(_FOLDER))
    MigrationContext.configure(connection, opts=_OPTIONS).stamp(script, "head")


def _run(connection: sa.Connection, script: ScriptDirectory, plan: Callable[[Any], list[Any]]) -> None:
    def steps(current: Any, _context: MigrationContext) -> list[RevisionStep]:
        return list(plan(current))

    context = MigrationContext.configure(connection, opts={**_OPTIONS, "fn": steps, "script": script})
    with Operations.context(context):
        context.run_migrations()


def _lock(connection: sa.Connection) -> None:
    # For the transaction: released by commit, by rollback and by a lost connection alike. The version is read after it.
    # SQLite has its only write lock already.
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def _current(connection: sa.Connection) -> str | None:
    # Looked up before asked: a failing SELECT would abort a PostgreSQL transaction.
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return MigrationContext.configure(connection, opts=_OPTIONS).get_current_revision()


def _refuse_clash(connection: sa.Connection) -> None:
    there = set(sa.inspect(connection).get_table_names()) & set(Base.metadata.tables)
    if there:
        names = ", ".join(sorted(there))
        message = f"the recordings catalog needs tables that are there already and not its own: {names}"
        hint = "Use another database, rename them, or, if the source system made them, adopt them (migrate.adopt)"
        raise ConfigurationError(message, code="recordings.table_clash", hint=hint, tables=sorted(there))


def _refuse_newer(script: ScriptDirectory, seen: str) -> None:
    try:
        script.revision_map.get_revision(seen)
    except ResolutionError as error:
        head = script.get_current_head()
        message = f"the recordings catalog's tables are at version {seen!r}, this release knows up to {head!r}"
        hint = "Install the newer release; going back needs a backup that the older one made"
        code = "recordings.newer_version"
        raise ConfigurationError(message, code=code, hint=hint, seen=seen, expected=head) from error


def _differences(connection: sa.Connection) -> list[str]:
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names())
    problems: list[str] = []
    for table in Base.metadata.sorted_tables:
        if table.name not in tables:
            problems.append(f"table {table.name} is missing")
            continue
        seen = {column["name"]: column["type"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            expected = column.type.compile(connection.dialect)
            found = seen[column.name].compile(connection.dialect) if column.name in seen else "missing"
            if found != expected:
                problems.append(f"{table.name}.{column.name} is {found}, expected {expected}")
    return problems
