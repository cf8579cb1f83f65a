"""Which declarations a command works with: a catalog by its name, or an application's own as `module:Base`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from fourfold.errors import ConfigurationError, did_you_mean
from fourfold.settings import EnvironmentSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["CATALOGS", "Application", "CommandSettings", "load_application"]

CATALOGS: Final = ("recordings",)


class CommandSettings(EnvironmentSettings):
    """What only the command line asks for; read like `Settings`.

    Args:
        app: A catalog's name, or `module:Base` for an application's own declarations.
        web_host: Address that `serve` listens on.
        web_port: Port that `serve` listens on; a free one where it is taken.
        web_token: What `serve` wants to be shown when others than this machine can reach it.
    """

    model_config = SettingsConfigDict(
        env_prefix="FOURFOLD_", env_file=".env", extra="ignore", hide_input_in_errors=True, populate_by_name=True
    )

    app: str = "recordings"
    web_host: str = "127.0.0.1"
    web_port: Annotated[int, Field(ge=0, le=65_535)] = 8321
    web_token: str = ""


@dataclass(frozen=True, slots=True)
class Application:
    """Declarations, and who makes their tables.

    Args:
        name: As it was given.
        models: For `Fourfold(models)`.
        make_tables: Migrates the tables; None where that is the application's own business.
    """

    name: str
    models: Any
    make_tables: Callable[[AsyncEngine], Awaitable[None]] | None = None


def load_application(name: str | None = None) -> Application:
    """Load declarations.

    Args:
        name: A catalog, or `module:Base` (a declarative base, registry or `MetaData`); None asks FOURFOLD_APP.

    Raises:
        ConfigurationError: Code `cli.app`: there is no such catalog, module or name in it, or it can't be imported.
    """
    name = name or CommandSettings().app
    if name == "recordings":
        from fourfold.catalogs.recordings.migrate import upgrade
        from fourfold.catalogs.recordings.models import Base

        return Application(name, Base, upgrade)
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        message = f"no catalog {name!r}{did_you_mean(name, CATALOGS)}"
        hint = f"--app takes a catalog ({', '.join(CATALOGS)}) or your own declarations as module:Base"
        raise ConfigurationError(message, code="cli.app", hint=hint, app=name)
    return Application(name, _attribute(name, _import(name, module_name), attribute))


def _import(name: str, module_name: str) -> Any:
    # An installed command doesn't look into the folder that it is called in; the application is most often there.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        message = f"--app {name}: module {module_name!r} can't be imported: {type(error).__name__}: {error}"
        hint = "Call it in the folder that the module is in, or install it; --verbose shows where it failed"
        raise ConfigurationError(message, code="cli.app", hint=hint, app=name) from error


def _attribute(name: str, module: Any, path: str) -> Any:
    found = module
    for part in path.split("."):
        if not hasattr(found, part):
            message = f"--app {name}: there is no {part!r} in {module.__name__}{did_you_mean(part, dir(found))}"
            hint = "Name a declarative base, a registry or a MetaData"
            raise ConfigurationError(message, code="cli.app", hint=hint, app=name)
        found = getattr(found, part)
    return found
