"""Engines and transactions for the rows, on SQLite and PostgreSQL.

Guaranteed on each connection:

- SQLite: WAL, `synchronous=FULL`, `foreign_keys`, `recursive_triggers`, busy time-out 30 s, each one read back. Writers
  begin with BEGIN IMMEDIATE: a deferred transaction that turns into a writer is refused at once, whatever the time-out.
  With the execution option `fourfold_read_only=True` a transaction begins plainly, sees one snapshot, and can't write.
- PostgreSQL: psycopg 3, tested before use, renewed after an hour; parameters appear in no error and no log.

Not guaranteed: anything about connections that others open. What a foreign SQLite connection did without
`recursive_triggers`, verify finds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fourfold.errors import ConfigurationError, did_you_mean
from fourfold.rows.errors import mapped_errors

__all__ = [
    "READ_ONLY",
    "open_engine",
    "open_engine_beside",
    "open_sync_engine",
    "read_options",
    "read_transaction",
    "write_transaction",
]

READ_ONLY: Final = "fourfold_read_only"  # execution option of a connection, a session's connection or an engine

_BUSY_SECONDS: Final = 30
_RECYCLE_SECONDS: Final = 3600  # serverless PostgreSQL and firewalls drop idle connections silently
_CONNECT_SECONDS: Final = 10
_PLAIN: Final = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}
_DRIVERS: Final = {
    ("sqlite", True): "sqlite+aiosqlite",
    ("sqlite", False): "sqlite+pysqlite",
    ("postgresql", True): "postgresql+psycopg",
    ("postgresql", False): "postgresql+psycopg",
}
_ACCEPTED: Final = {"aiosqlite", "pysqlite", "psycopg"}
_PGBOUNCER: Final = "pgbouncer"
# Execution option of an engine: a pooler is between; its URL doesn't say so any more.
_POOLED: Final = "fourfold_pooled"


def open_engine(url: str | sa.URL, *, pool_size: int = 10, max_overflow: int = 20, echo: bool = False) -> AsyncEngine:
    """Open an async engine that keeps the promises above; nothing is connected yet.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`, or the same with our driver named. With
            `?pgbouncer=true` nothing is prepared on the server, as a pooler of transactions wants it.
        pool_size: Connections that stay open.
        max_overflow: Connections beyond, closed when idle.
        echo: Log the SQL (never its parameters).

    Raises:
        ConfigurationError: Codes `rows.url`, `rows.driver`, `rows.memory`, `rows.extra` (psycopg isn't installed).

    Example:
        >>> open_engine("sqlite:///rows.db").url.drivername
        'sqlite+aiosqlite'
    """
    target, arguments = _normalise(url, is_async=True)
    options = _options(target, arguments, pool_size=pool_size, max_overflow=max_overflow, echo=echo)
    engine = create_async_engine(target, **options)
    _listen(engine.sync_engine)
    return engine


def open_engine_beside(engine: AsyncEngine, *, sqlite_file: str, pool_size: int, max_overflow: int) -> AsyncEngine:
    """Open a second engine with a pool of its own, for what must not wait for the first one's connections.

    Args:
        engine: Made by `open_engine`, or as it would have made it.
        sqlite_file: On SQLite, name of the file in the same folder: a database of its own has a write lock of its own.
            On PostgreSQL it is the same database.
        pool_size: Connections that stay open.
        max_overflow: Connections beyond, closed when idle.

    Example:
        >>> open_engine_beside(open_engine("sqlite:///a/rows.db"), sqlite_file="b.db", pool_size=1, max_overflow=0).url
        sqlite+aiosqlite:///a/b.db
    """
    url = engine.url
    if engine.dialect.name == "sqlite":
        url = url.set(database=str(Path(url.database or "").with_name(sqlite_file)))
    elif engine.sync_engine.get_execution_options().get(_POOLED):
        url = url.update_query_dict({_PGBOUNCER: "true"})
    return open_engine(url, pool_size=pool_size, max_overflow=max_overflow)


def open_sync_engine(
    url: str | sa.URL, *, pool_size: int = 10, max_overflow: int = 20, echo: bool = False
) -> sa.Engine:
    """As `open_engine`, for scripts, `def` endpoints and Alembic.

    Args:
        url: As `open_engine`.
        pool_size: Connections that stay open.
        max_overflow: Connections beyond, closed when idle.
        echo: Log the SQL (never its parameters).

    Raises:
        ConfigurationError: As `open_engine`.

    Example:
        >>> open_sync_engine("sqlite:///rows.db").url.drivername
        'sqlite+pysqlite'
    """
    target, arguments = _normalise(url, is_async=False)
    options = _options(target, arguments, pool_size=pool_size, max_overflow=max_overflow, echo=echo)
    engine = sa.create_engine(target, **options)
    _listen(engine)
    return engine


@asynccontextmanager
async def write_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction that may write: committed at the end, rolled back on an exception.

    On SQLite it holds the database's only write lock from its first statement on: keep it short.

    Args:
        engine: Made by `open_engine`.

    Raises:
        FourfoldError: Driver errors, mapped (`rows.errors`); also the commit's.
    """
    with mapped_errors():
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def read_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction that reads one snapshot and can't write; it waits for no writer and makes none wait.

    Args:
        engine: Made by `open_engine`.

    Raises:
        FourfoldError: Driver errors, mapped; a write fails with code `rows.read_only`.
    """
    with mapped_errors():
        async with engine.connect() as connection:
            configured = await connection.execution_options(**read_options(engine.dialect.name))
            async with configured.begin():
                yield configured


def read_options(dialect_name: str) -> dict[str, Any]:
    """Execution options of an engine or connection whose transactions read one snapshot and can't write.

    Args:
        dialect_name: `sqlite` or `postgresql`.

    Example:
        >>> read_options("sqlite")
        {'fourfold_read_only': True}
    """
    if dialect_name != "postgresql":
        return {READ_ONLY: True}
    # READ COMMITTED would take a new snapshot per statement. Both are part of BEGIN: no session state, so that it holds
    # behind PgBouncer too.
    return {READ_ONLY: True, "isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def _normalise(url: str | sa.URL, *, is_async: bool) -> tuple[sa.URL, dict[str, Any]]:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        # The driver's message would quote the URL, and with it the password.
        message = "the database URL can't be read; expected sqlite:///path or postgresql://user:password@host/name"
        raise ConfigurationError(message, code="rows.url", hint="Check DATABASE_URL") from None
    scheme, _, driver = parsed.drivername.partition("+")
    backend = _PLAIN.get(scheme)
    if backend is None:
        message = f"no rows on {scheme!r}; expected sqlite or postgresql{did_you_mean(scheme, _PLAIN)}"
        raise ConfigurationError(message, code="rows.url", hint="Check DATABASE_URL")
    if driver and driver not in _ACCEPTED:
        message = (
            f"driver {driver!r} is not supported; expected {backend}:// (which takes {_DRIVERS[backend, is_async]})"
        )
        raise ConfigurationError(message, code="rows.driver", hint="Leave the driver out of DATABASE_URL")
    parsed = parsed.set(drivername=_DRIVERS[backend, is_async])
    if backend == "sqlite":
        if _is_in_memory(parsed):
            message = "SQLite in memory gives each connection a database of its own; expected a file"
            raise ConfigurationError(message, code="rows.memory", hint="Use sqlite:///path/rows.db")
        return parsed, {"isolation_level": None}  # the driver begins nothing by itself; _begin_sqlite does
    if find_spec("psycopg") is None:
        message = "PostgreSQL needs psycopg, which is not installed"
        raise ConfigurationError(message, code="rows.extra", hint="pip install 'fourfold[postgres]'")
    return _postgresql_arguments(parsed)


def _is_in_memory(url: sa.URL) -> bool:
    name = (url.database or "").removeprefix("file:").partition("?")[0]
    return name in {"", ":memory:"} or "memory" in url.query.get("mode", "")


def _postgresql_arguments(parsed: sa.URL) -> tuple[sa.URL, dict[str, Any]]:
    arguments: dict[str, Any] = {}
    if "connect_timeout" not in parsed.query:
        arguments["connect_timeout"] = _CONNECT_SECONDS
    word = str(parsed.query.get(_PGBOUNCER, "")).lower()
    if word in {"1", "true", "on"} or "pooler" in (parsed.host or ""):
        # A transaction pooler hands each transaction another server session: a statement prepared in one is unknown
        # in the next. `pgbouncer` is a word of URLs only, libpq refuses it.
        arguments["prepare_threshold"] = None
    return parsed.difference_update_query([_PGBOUNCER]), arguments


def _options(
    url: sa.URL, arguments: dict[str, Any], *, pool_size: int, max_overflow: int, echo: bool
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "echo": echo,
        "hide_parameters": True,
        "connect_args": arguments,
    }
    if url.get_backend_name() == "postgresql":
        options |= {"pool_pre_ping": True, "pool_recycle": _RECYCLE_SECONDS}
        options["execution_options"] = {_POOLED: "prepare_threshold" in arguments}
    return options


class _RollingBack(sqlite3.Connection):
    """Ends its transaction before it is closed.

    SQLite closes a connection in earnest only when its last statement is finalized. A cancelled task's statement lives
    as long as the traceback that names it, and would keep the transaction, and with it the write lock, just as long.
    """

    def close(self) -> None:
        with suppress(sqlite3.Error):  # closed already, or damaged: closing says so itself
            self.rollback()
        super().close()


def _use_rolling_back(_dialect: Any, _record: Any, _positional: Any, arguments: dict[str, Any]) -> None:
    arguments.setdefault("factory", _RollingBack)


def _listen(engine: sa.Engine) -> None:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "do_connect", _use_rolling_back)
        event.listen(engine, "connect", _connect_sqlite)
        event.listen(engine, "begin", _begin_sqlite)


# busy_timeout first: the others may have to wait. Expected is what SQLite answers when asked again.
_PRAGMAS: Final = (
    ("busy_timeout", str(_BUSY_SECONDS * 1000), _BUSY_SECONDS * 1000),
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
    ("recursive_triggers", "ON", 1),
)


def _connect_sqlite(dbapi_connection: Any, _record: Any) -> None:
    cursor = dbapi_connection.cursor()
    try:
        for name, value, expected in _PRAGMAS:
            _set_pragma(cursor, name, value)
            cursor.execute(f"PRAGMA {name}")
            seen = cursor.fetchone()[0]
            if seen != expected:
                message = f"SQLite refused PRAGMA {name}={value}: it says {seen!r}, expected {expected!r}"
                hint = "Use a local disk and a file that this user may write, with SQLite 3.38 or newer"
                raise ConfigurationError(message, code="rows.pragma", hint=hint, pragma=name, seen=seen)
    finally:
        cursor.close()


def _set_pragma(cursor: Any, name: str, value: str) -> None:
    # The first change to WAL needs the file alone and doesn't call the busy handler: of two processes that open a new
    # folder at once one is refused immediately. It is WAL as soon as the other is through, microseconds later.
    deadline = monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute(f"PRAGMA {name}={value}")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    read_only = bool(connection.get_execution_options().get(READ_ONLY, False))
    # query_only turns the promise "can't write" into an error; set only when it changes, it costs a round trip.
    if connection.info.get(READ_ONLY, False) != read_only:
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        connection.info[READ_ONLY] = read_only
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
