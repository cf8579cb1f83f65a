"""Drivers' errors, mapped into Fourfold's tree by class, SQLSTATE or SQLite's error code, never by text.

`mapped_errors()` stands at the border of everything that talks to the database. A message names the constraint, the
table and the code, never a value: drivers quote the offending row.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from fourfold.errors import (
    ConfigurationError,
    ConflictError,
    FourfoldError,
    IntegrityError,
    StoreRejectedError,
    StoreUnavailableError,
    ValidationError,
)

__all__ = ["OBJECT_REFERENCED", "OBJECT_UNKNOWN", "map_error", "mapped_errors"]

# What our own SQLite triggers raise: RAISE(ABORT) can carry nothing but a text, so these two are compared, whole.
OBJECT_UNKNOWN: Final = "fourfold: objects.unknown"
OBJECT_REFERENCED: Final = "fourfold: objects.referenced"

_SQLITE_ERRORS: Final = (sqlite3.Error, sqlite3.Warning)
_Outcome = tuple[type[FourfoldError], str, str, str]  # class, code, what failed, hint

_UNKNOWN: Final[_Outcome] = (
    ConflictError,
    "objects.unknown",
    "a row names a file that isn't stored, or a file was to be forgotten that a row still names",
    "Store the file first (files.put) in the same unit of work and use its key",
)
_REFERENCED: Final[_Outcome] = (
    ConflictError,
    "objects.referenced",
    "a file was to be forgotten that a row or a pin still names",
    "Remove the reference first",
)
_DUPLICATE: Final[_Outcome] = (ConflictError, "rows.duplicate", "a row with this unique key is there already", "")
_REFERENCE: Final[_Outcome] = (ConflictError, "rows.reference", "a foreign key doesn't hold", "")
_INVALID: Final[_Outcome] = (ValidationError, "rows.invalid", "a value breaks a constraint of its column or table", "")
_VALUE: Final[_Outcome] = (ValidationError, "rows.value", "a value doesn't fit the column's type", "")
_BUSY: Final[_Outcome] = (StoreUnavailableError, "rows.busy", "the database is locked by another writer", "Try again")
_GONE: Final[_Outcome] = (
    StoreUnavailableError,
    "rows.unavailable",
    "the database can't be reached or the connection was lost; the outcome of the last commit is unknown",
    "Check that it runs, then try again",
)
_TIMEOUT: Final[_Outcome] = (StoreUnavailableError, "rows.timeout", "the statement was cancelled or took too long", "")
_POOL: Final[_Outcome] = (
    StoreUnavailableError,
    "rows.pool_timeout",
    "no connection became free in time",
    "Raise the pool size, or look for units of work that stay open",
)
_FULL: Final[_Outcome] = (
    StoreUnavailableError,
    "rows.disk_full",
    "the database's disk is full",
    "Make room, then go on",
)
_MEMORY: Final[_Outcome] = (StoreUnavailableError, "rows.resources", "the database is out of memory or connections", "")
_IO: Final[_Outcome] = (
    StoreUnavailableError,
    "rows.io",
    "the database could not read or write its files",
    "Check disk",
)
_SERIALIZATION: Final[_Outcome] = (
    StoreUnavailableError,
    "rows.serialization",
    "a concurrent transaction came first; nothing was written",
    "Run the unit of work again",
)
_DEADLOCK: Final[_Outcome] = (
    StoreUnavailableError,
    "rows.deadlock",
    "two transactions waited for each other; this one was rolled back",
    "Run the unit of work again",
)
_READ_ONLY: Final[_Outcome] = (StoreRejectedError, "rows.read_only", "the database or transaction is read-only", "")
_DENIED: Final[_Outcome] = (
    StoreRejectedError,
    "rows.denied",
    "the database role lacks a right",
    "Grant it, or use another",
)
_LOGIN: Final[_Outcome] = (ConfigurationError, "rows.login", "the database refused the login", "Check DATABASE_URL")
_NO_DATABASE: Final[_Outcome] = (ConfigurationError, "rows.no_database", "there is no such database", "Create it first")
_CORRUPT: Final[_Outcome] = (
    IntegrityError,
    "rows.corrupt",
    "the database's file or index is damaged",
    "Restore a backup",
)
_STATEMENT: Final[_Outcome] = (StoreRejectedError, "rows.statement", "the database refused the statement", "")

# SQLSTATE: five characters first, then the class of two.
_STATES: Final[dict[str, _Outcome]] = {
    "23505": _DUPLICATE,
    "23P01": _DUPLICATE,
    "23503": _REFERENCE,
    "23001": _REFERENCE,
    "23": _INVALID,
    "44": _INVALID,
    "22": _VALUE,
    "08": _GONE,
    "57P": _GONE,
    "57014": _TIMEOUT,
    "57": _GONE,
    "25P03": _GONE,  # idle_in_transaction_session_timeout
    "25P04": _TIMEOUT,
    "25006": _READ_ONLY,
    "55P03": _BUSY,
    "55006": _BUSY,
    "53100": _FULL,
    "53": _MEMORY,
    "54": _STATEMENT,
    "58": _IO,
    "40P01": _DEADLOCK,
    "40003": _GONE,  # completion unknown
    "40": _SERIALIZATION,
    "28": _LOGIN,
    "3D": _NO_DATABASE,
    "42501": _DENIED,
    "XX001": _CORRUPT,
    "XX002": _CORRUPT,
}
# Primary codes (the low byte), and extended ones where they say more.
_CODES: Final[dict[int, _Outcome]] = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: _DUPLICATE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: _DUPLICATE,
    sqlite3.SQLITE_CONSTRAINT_ROWID: _DUPLICATE,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: _REFERENCE,
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: _STATEMENT,
    sqlite3.SQLITE_CONSTRAINT: _INVALID,
    sqlite3.SQLITE_MISMATCH: _VALUE,
    sqlite3.SQLITE_TOOBIG: _VALUE,
    sqlite3.SQLITE_RANGE: _STATEMENT,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_SCHEMA: _BUSY,
    sqlite3.SQLITE_INTERRUPT: _TIMEOUT,
    sqlite3.SQLITE_ABORT: _TIMEOUT,
    sqlite3.SQLITE_NOMEM: _MEMORY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: _IO,
    sqlite3.SQLITE_CANTOPEN: _GONE,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_AUTH: _DENIED,
    sqlite3.SQLITE_CORRUPT: _CORRUPT,
    sqlite3.SQLITE_NOTADB: _CORRUPT,
}
# DB-API classes, for errors without a code: the driver raised them by itself. Most special first.
_CLASSES: Final[tuple[tuple[str, _Outcome], ...]] = (
    ("IntegrityError", _INVALID),
    ("DataError", _VALUE),
    ("OperationalError", _GONE),
    ("InterfaceError", _GONE),
    ("ProgrammingError", _STATEMENT),
    ("NotSupportedError", _STATEMENT),
    ("InternalError", _STATEMENT),
    ("DatabaseError", _STATEMENT),
    ("Warning", _STATEMENT),
    ("Error", _STATEMENT),
)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise what the database's drivers raise inside as Fourfold's errors; everything else passes.

    Raises:
        FourfoldError: See `map_error`.
    """
    try:
        yield
    except Exception as error:
        # Looked at here: psycopg's classes exist only once somebody has imported it.
        if not isinstance(error, (sa.exc.StatementError, sa.exc.TimeoutError, *_driver_errors())):
            raise
        raise map_error(error) from error


def map_error(exc: BaseException) -> FourfoldError:
    """Return Fourfold's error for a driver's or SQLAlchemy's; raise it `from` the original.

    Args:
        exc: An error of sqlite3, aiosqlite or psycopg, SQLAlchemy's wrapping of one, or one of ours (returned as is).

    Raises:
        TypeError: It is none of these: a defect of the caller, not of the store.

    Example:
        >>> map_error(sa.exc.TimeoutError()).code
        'rows.pool_timeout'
    """
    if isinstance(exc, FourfoldError):
        return exc
    if isinstance(exc, sa.exc.StatementError):
        return _map_statement(exc)
    if isinstance(exc, _SQLITE_ERRORS):
        return _map_sqlite(exc)
    if isinstance(exc, _driver_errors()):
        return _map_postgresql(exc)
    if isinstance(exc, sa.exc.SQLAlchemyError):
        return _error(_POOL if isinstance(exc, sa.exc.TimeoutError) else _STATEMENT)
    message = f"not an error of a database: {type(exc).__name__}"
    raise TypeError(message) from exc


def _map_statement(exc: sa.exc.StatementError) -> FourfoldError:
    if isinstance(exc, sa.exc.DBAPIError) and exc.connection_invalidated:
        return _error(_GONE)
    if exc.orig is None:
        return _error(_STATEMENT)
    if isinstance(exc.orig, (FourfoldError, sa.exc.SQLAlchemyError, *_driver_errors())):
        return map_error(exc.orig)
    return _error(_VALUE)  # a column type refused the value before it was sent


def _driver_errors() -> tuple[type[BaseException], ...]:
    psycopg = sys.modules.get("psycopg")  # not imported: then it can't have raised anything
    return _SQLITE_ERRORS if psycopg is None else (*_SQLITE_ERRORS, psycopg.Error, psycopg.Warning)


def _map_sqlite(exc: sqlite3.Error | sqlite3.Warning) -> FourfoldError:
    code = getattr(exc, "sqlite_errorcode", None)
    if code is None:
        return _by_class(exc)
    if code == sqlite3.SQLITE_CONSTRAINT_TRIGGER and exc.args:
        ours = {OBJECT_UNKNOWN: _UNKNOWN, OBJECT_REFERENCED: _REFERENCED}.get(exc.args[0])
        if ours is not None:
            return _error(ours)
    outcome = _CODES.get(code) or _CODES.get(code & 0xFF) or _STATEMENT
    return _error(outcome, sqlite_error=getattr(exc, "sqlite_errorname", str(code)))


def _map_postgresql(exc: BaseException) -> FourfoldError:
    state = getattr(exc, "sqlstate", None)
    if state is None:
        return _by_class(exc)
    diagnostics = getattr(exc, "diag", None)
    facts = {
        name: value
        for name in ("table_name", "constraint_name", "column_name")
        if (value := getattr(diagnostics, name, None))
    }
    if state == "23503" and facts.get("table_name") == "fourfold_object_ref":
        return _error(_UNKNOWN, sqlstate=state)
    outcome = _STATES.get(state) or _STATES.get(state[:3]) or _STATES.get(state[:2]) or _STATEMENT
    return _error(outcome, sqlstate=state, **facts)


def _by_class(exc: BaseException) -> FourfoldError:
    names = {kind.__name__ for kind in type(exc).__mro__}
    outcome = next((outcome for name, outcome in _CLASSES if name in names), _STATEMENT)
    return _error(outcome, driver_error=type(exc).__name__)


def _error(outcome: _Outcome, **facts: Any) -> FourfoldError:
    kind, code, what, hint = outcome
    seen = ", ".join(f"{name}={value}" for name, value in facts.items())
    return kind(f"{what} ({seen})" if seen else what, code=code, hint=hint, **facts)
