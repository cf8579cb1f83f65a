"""The synchronous door of the catalog: an engine with its pool, sessions, and retries that can't do a thing twice.

For scripts and services that aren't async. The rows are the same, and so is what follows them: the triggers record each
change, whichever door it came through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Annotated, Final, Self, TypeVar

import sqlalchemy as sa
from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import SettingsConfigDict
from sqlalchemy import event
from sqlalchemy.orm import Session

from fourfold.errors import ConfigurationError, StoreUnavailableError
from fourfold.rows.engine import open_sync_engine, read_options
from fourfold.rows.errors import mapped_errors
from fourfold.settings import EnvironmentSettings

__all__ = ["DatabaseManager", "RecordingsSettings", "get_db_session"]

_POOL_SIZE: Final = 10
_POOL_OVERFLOW: Final = 20
_STATEMENT_SECONDS: Final = 30
_LONGEST_DELAY_SECONDS: Final = 60.0

_T = TypeVar("_T")


class RecordingsSettings(EnvironmentSettings):
    """The environment names of the source system; a value given in code wins over them, they over `.env`.

    Args:
        database_url: The rows: `DATABASE_URL`.
        retry_attempts: How often a connection is tried in all: `DB_RETRY_ATTEMPTS`.
        retry_delay_seconds: Before the second try, doubled before each further one: `DB_RETRY_DELAY`.
        echo_sql: Log SQL statements, without their parameters: `SQLALCHEMY_ECHO`.

    Example:
        >>> RecordingsSettings(database_url="sqlite:///rows.db").retry_attempts
        5
    """

    model_config = SettingsConfigDict(
        env_prefix="RECORDINGS_",
        env_file=".env",
        extra="ignore",
        hide_input_in_errors=True,
        populate_by_name=True,
        validate_default=True,
    )

    database_url: Annotated[SecretStr | None, Field(validation_alias=AliasChoices("DATABASE_URL"))] = None
    retry_attempts: Annotated[int, Field(ge=1, le=100, validation_alias=AliasChoices("DB_RETRY_ATTEMPTS"))] = 5
    retry_delay_seconds: Annotated[float, Field(ge=0, validation_alias=AliasChoices("DB_RETRY_DELAY"))] = 2.0
    echo_sql: Annotated[bool, Field(validation_alias=AliasChoices("SQLALCHEMY_ECHO"))] = False


class DatabaseManager:
    """Engine, sessions and retries; safe to share between threads. Close it, or use it in a `with` block.

    PostgreSQL: a pool of 10 + 20 connections, tested before use and renewed after an hour, 10 s to connect, 30 s for a
    statement. SQLite as everywhere in Fourfold (WAL, synchronous=FULL, foreign keys).

    Args:
        url: The rows; default `DATABASE_URL`.
        settings: Default from the environment and `.env`.
        sleep: Waits between two tries; tests give their own.

    Raises:
        ConfigurationError: Code `recordings.database_url`, without any URL; those of `open_sync_engine`.

    Example:
        ```python
        with DatabaseManager("sqlite:///rows.db") as manager:
            recordings = RecordingRepository(manager).get_all(limit=10)
        ```
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: RecordingsSettings | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.settings = settings or RecordingsSettings()
        if url is None and self.settings.database_url is not None:
            url = self.settings.database_url.get_secret_value()
        if not url:
            hint = "Set DATABASE_URL, for example sqlite:///rows.db"
            raise ConfigurationError("no database was given", code="recordings.database_url", hint=hint)
        self.engine = open_sync_engine(
            url, pool_size=_POOL_SIZE, max_overflow=_POOL_OVERFLOW, echo=self.settings.echo_sql
        )
        if self.engine.dialect.name == "postgresql":
            event.listen(self.engine, "begin", _limit_statements)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pool; safe to call twice."""
        self.engine.dispose()

    @contextmanager
    def get_db_session(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back on an exception.

        Connecting is retried; the block isn't, for it may have done more than SQL. On SQLite it holds the write lock.

        Raises:
            StoreUnavailableError: The database can't be reached after all tries.
            FourfoldError: Driver errors, mapped; also the commit's.
        """
        with Session(self.engine, expire_on_commit=False) as session, mapped_errors():
            self._retry(session.connection)
            yield session
            session.commit()

    def run(self, work: Callable[[Session], _T], *, read_only: bool = False) -> _T:
        """Call `work` in a transaction of its own, again where the connection was lost before the commit was sent.

        Args:
            work: Does SQL only, through the session: it may run more than once, in a new transaction each time.
            read_only: One snapshot, without waiting for writers.

        Returns:
            What `work` returns.

        Raises:
            StoreUnavailableError: After all tries; code `recordings.commit_unknown` where the connection was lost in
                the commit, which is never tried again: it may have happened.
            FourfoldError: Driver errors, mapped, at once: a unique violation stays one.
        """
        return self._retry(lambda: self._run_once(work, read_only=read_only))

    def _run_once(self, work: Callable[[Session], _T], *, read_only: bool) -> _T:
        options = read_options(self.engine.dialect.name) if read_only else {}
        with Session(self.engine, expire_on_commit=False) as session:
            with mapped_errors():
                session.connection(execution_options=options)
                result = work(session)
                session.flush()
            try:
                with mapped_errors():
                    session.commit()
            except StoreUnavailableError as error:
                if error.code != "rows.unavailable" or read_only:
                    raise
                message = "the connection was lost in the commit: it may have happened or not"
                hint = "Look whether the change is there before trying again"
                raise StoreUnavailableError(message, code="recordings.commit_unknown", hint=hint) from error
        return result

    def _retry(self, step: Callable[[], _T]) -> _T:
        delay_seconds = self.settings.retry_delay_seconds
        for _ in range(self.settings.retry_attempts - 1):
            try:
                with mapped_errors():
                    return step()
            except StoreUnavailableError as error:
                if error.code != "rows.unavailable":
                    raise
            # The pool drops the connection that broke; others that the same outage broke fail their test before use.
            self._sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, _LONGEST_DELAY_SECONDS)
        with mapped_errors():
            return step()


def _limit_statements(connection: sa.Connection) -> None:
    # For the transaction, not for the session: behind PgBouncer a session's settings reach somebody else's.
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_STATEMENT_SECONDS}s'")


@cache
def _default_manager() -> DatabaseManager:
    return DatabaseManager()


def get_db_session() -> AbstractContextManager[Session]:
    """As `DatabaseManager.get_db_session`, of one manager per process that takes its settings from the environment.

    Raises:
        ConfigurationError: Code `recordings.database_url`.

    Example:
        ```python
        with get_db_session() as session:
            session.add(Recording(file_path="/sets/dawn.mp3", file_name="dawn.mp3"))
        ```
    """
    return _default_manager().get_db_session()
