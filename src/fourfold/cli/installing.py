"""Makes or updates what Fourfold needs in a database: tables, capture, declarations. For init and migrate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourfold.cli.opening import open_rows, plan_of

if TYPE_CHECKING:
    from fourfold.cli.application import Application
    from fourfold.settings import Settings

__all__ = ["Installed", "install_application"]


@dataclass(frozen=True, slots=True)
class Installed:
    """What was done.

    Args:
        was_new: Fourfold's tables weren't there before.
        done: For people, in the order in which it was done; empty when everything was there.
    """

    was_new: bool
    done: tuple[str, ...]


async def install_application(settings: Settings, application: Application) -> Installed:
    """Migrate and install; idempotent, and safe while others do the same.

    Raises:
        ConfigurationError: Codes `rows.newer_version`, `recordings.newer_version` (a newer release made this data;
            nothing was changed), `rows.no_table`, `recordings.table_clash` and others.
        DriftError: Code `objects.marker`: the files belong to another database.
    """
    from fourfold.errors import ConfigurationError
    from fourfold.installation import install
    from fourfold.rows.migrate import check_version

    plan = plan_of(application)
    async with open_rows(settings, plan) as stores:
        was_new, is_current = False, True
        try:
            await check_version(stores.engine, stage_engine=stores.stage_engine)
        except ConfigurationError as error:
            if error.code != "rows.not_migrated":
                raise  # before a table of the catalog is touched
            was_new, is_current = error.facts.get("seen") is None, False
        if application.make_tables is not None:
            await application.make_tables(stores.engine)
        done = await install(stores, plan)
    own = [] if is_current else ["Fourfold's own tables"]
    return Installed(was_new, (*own, *done))
