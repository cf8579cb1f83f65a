"""Migrations of Fourfold's own tables, with version tables of their own: never a branch of the user's Alembic.

A second head would break his `upgrade head`. The revisions travel in the wheel; no `alembic.ini` and no `env.py` take
part. Each migration is one transaction, under an advisory lock on PostgreSQL and BEGIN IMMEDIATE on SQLite: of two
processes that migrate at once the second finds nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError

from fourfold.errors import ConfigurationError
from fourfold.rows.engine import read_transaction, write_transaction

if TYPE_CHECKING:
    from alembic.runtime.migration import RevisionStep
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["STAGE_VERSION_TABLE", "VERSION_TABLE", "check_version", "downgrade", "migrate"]

VERSION_TABLE: Final = "fourfold_version"
STAGE_VERSION_TABLE: Final = "fourfold_stage_version"

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x666F757266  # "fourf"; any number that other programs don't take


@dataclass(frozen=True, slots=True)
class _Chain:
    folder: Path
    version_table: str

    @property
    def script(self) -> ScriptDirectory:
        return ScriptDirectory(str(self.folder))


_ROWS: Final = _Chain(_MIGRATIONS, VERSION_TABLE)
_STAGE: Final = _Chain(_MIGRATIONS / "stage", STAGE_VERSION_TABLE)


async def migrate(engine: AsyncEngine, *, stage_engine: AsyncEngine | None = None) -> None:
    """Bring Fourfold's tables up to this release; nothing happens when they are.

    Args:
        engine: The rows' database; its role owns the tables, and later the trigger functions.
        stage_engine: Where `fourfold_stage` lives: on SQLite a database of its own, so that an upload waits for no
            writer. None puts it beside the rows.

    Raises:
        ConfigurationError: Code `rows.newer_version`, when a newer release has migrated it; nothing was changed.
        FourfoldError: Driver errors, mapped.
    """
    await _run(engine, _ROWS, "head")
    await _run(stage_engine or engine, _STAGE, "head")


async def downgrade(engine: AsyncEngine, *, stage_engine: AsyncEngine | None = None, revision: str = "base") -> None:
    """Take Fourfold's tables back to `revision`, `base` removes them with all they hold.

    Capture must be removed before.

    Raises:
        FourfoldError: Driver errors, mapped.
    """
    await _run(stage_engine or engine, _STAGE, revision, down=True)
    await _run(engine, _ROWS, revision, down=True)


async def check_version(engine: AsyncEngine, *, stage_engine: AsyncEngine | None = None) -> None:
    """Return if the tables are those of this release.

    Raises:
        ConfigurationError: Code `rows.not_migrated` (missing or older) or `rows.newer_version`.
        FourfoldError: Driver errors, mapped.
    """
    for chain, where in ((_ROWS, engine), (_STAGE, stage_engine or engine)):
        async with read_transaction(where) as connection:
            seen = await connection.run_sync(_current, chain)
        _compare(seen, chain)


def _current(connection: sa.Connection, chain: _Chain) -> str | None:
    # Looked up before asked: a failing SELECT would abort a PostgreSQL transaction.
    if not sa.inspect(connection).has_table(chain.version_table):
        return None
    return MigrationContext.configure(connection, opts=_options(chain)).get_current_revision()


def _compare(seen: str | None, chain: _Chain) -> None:
    script = chain.script
    head = script.get_current_head()
    if seen == head:
        return
    if seen is not None and not _is_known(script, seen):
        message = (
            f"Fourfold's tables are at version {seen!r} ({chain.version_table}), this release knows up to {head!r}"
        )
        hint = "Install the newer release; going back needs a backup that the older one made"
        raise ConfigurationError(message, code="rows.newer_version", hint=hint, seen=seen, expected=head)
    what = "are not there" if seen is None else f"are at version {seen!r}"
    message = f"Fourfold's tables {what} ({chain.version_table}); expected version {head!r}"
    raise ConfigurationError(message, code="rows.not_migrated", hint="Run: fourfold migrate", seen=seen, expected=head)


def _is_known(script: ScriptDirectory, revision: str) -> bool:
    try:
        return script.revision_map.get_revision(revision) is not None
    except ResolutionError:
        return False


async def _run(engine: AsyncEngine, chain: _Chain, revision: str, *, down: bool = False) -> None:
    async with write_transaction(engine) as connection:
        await connection.run_sync(_run_sync, chain, revision, down)


def _run_sync(connection: sa.Connection, chain: _Chain, revision: str, down: bool) -> None:  # noqa: FBT001 - by run_sync
    if connection.dialect.name == "postgresql":
        # For the transaction: released by commit, by rollback and by a lost connection alike. The version is read
        # after.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    script = chain.script
    seen = _current(connection, chain)
    if not down and seen is not None and not _is_known(script, seen):
        _compare(seen, chain)

    def steps(current: Any, _context: MigrationContext) -> list[RevisionStep]:
        plan = script._downgrade_revs if down else script._upgrade_revs  # noqa: SLF001 - what alembic.command calls, too
        return list(plan(revision, current))

    context = MigrationContext.configure(connection, opts={**_options(chain), "fn": steps, "script": script})
    with Operations.context(context):
        context.run_migrations()


def _options(chain: _Chain) -> dict[str, Any]:
    return {"version_table": chain.version_table}
