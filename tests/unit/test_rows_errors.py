"""Every exception class of the drivers has a place in Fourfold's tree."""

import inspect
import sqlite3

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors as psycopg_errors

from fourfold.errors import ConflictError, FourfoldError, IntegrityError, StoreUnavailableError, ValidationError
from fourfold.rows.errors import OBJECT_REFERENCED, OBJECT_UNKNOWN, map_error, mapped_errors

PSYCOPG = sorted(
    {
        kind
        for module in (psycopg, psycopg_errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, (psycopg.Error, psycopg.Warning))
    },
    key=lambda kind: (kind.__name__, getattr(kind, "sqlstate", None) or ""),
)
SQLITE = [
    kind
    for _, kind in inspect.getmembers(sqlite3, inspect.isclass)
    if issubclass(kind, (sqlite3.Error, sqlite3.Warning))
]
SQLITE_CODES = {
    name: code
    for name, code in inspect.getmembers(sqlite3, lambda value: isinstance(value, int))
    if name.startswith(
        ("SQLITE_BUSY", "SQLITE_CONSTRAINT", "SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_READONLY", "SQLITE_CANTOPEN")
    )
}
RETRYABLE_STATES = {"08006", "40001", "40P01", "53100", "53300", "55P03", "57P01"}


def wrapped(original):
    return sa.exc.DBAPIError.instance("SELECT 1", {}, original, Exception, hide_parameters=True)


@pytest.mark.parametrize("kind", PSYCOPG, ids=lambda kind: kind.__name__)
def test_every_class_of_psycopg_is_mapped(kind):
    mapped = map_error(kind("secret in the text"))
    assert isinstance(mapped, FourfoldError)
    assert mapped.code.startswith("rows.")
    assert "secret" not in str(mapped)
    if getattr(kind, "sqlstate", None) in RETRYABLE_STATES:
        assert isinstance(mapped, StoreUnavailableError)
    assert mapped.code == map_error(wrapped(kind("secret"))).code


@pytest.mark.parametrize("kind", SQLITE, ids=lambda kind: kind.__name__)
def test_every_class_of_sqlite3_is_mapped(kind):
    mapped = map_error(kind("secret in the text"))
    assert mapped.code.startswith("rows.")
    assert "secret" not in str(mapped)


@pytest.mark.parametrize("name", SQLITE_CODES)
def test_every_code_of_sqlite_is_mapped_by_its_number(name):
    error = sqlite3.OperationalError("anything")
    error.sqlite_errorcode, error.sqlite_errorname = SQLITE_CODES[name], name
    expected = {
        "SQLITE_BUSY": "rows.busy",
        "SQLITE_IOERR": "rows.io",
        "SQLITE_CORRUPT": "rows.corrupt",
        "SQLITE_READONLY": "rows.read_only",
        "SQLITE_CANTOPEN": "rows.unavailable",
    }
    code = next((code for start, code in expected.items() if name.startswith(start)), None)
    assert map_error(error).code == code or name.startswith("SQLITE_CONSTRAINT")


@pytest.mark.parametrize(
    ("state", "kind", "code"),
    [
        ("23505", ConflictError, "rows.duplicate"),
        ("23503", ConflictError, "rows.reference"),
        ("23502", ValidationError, "rows.invalid"),
        ("22001", ValidationError, "rows.value"),
        ("40001", StoreUnavailableError, "rows.serialization"),
        ("40P01", StoreUnavailableError, "rows.deadlock"),
        ("53100", StoreUnavailableError, "rows.disk_full"),
        ("57P01", StoreUnavailableError, "rows.unavailable"),
        ("57014", StoreUnavailableError, "rows.timeout"),
        ("XX001", IntegrityError, "rows.corrupt"),
    ],
)
def test_sqlstates_say_what_the_caller_does(state, kind, code):
    mapped = map_error(psycopg_errors.lookup(state)("x"))
    assert type(mapped) is kind
    assert mapped.code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [(OBJECT_UNKNOWN, "objects.unknown"), (OBJECT_REFERENCED, "objects.referenced"), ("x", "rows.statement")],
)
def test_our_own_sqlite_triggers_are_known_by_their_whole_text(text, code):
    error = sqlite3.IntegrityError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CONSTRAINT_TRIGGER
    assert map_error(error).code == code


def test_what_is_no_database_error_passes_and_is_refused_by_the_mapper():
    with pytest.raises(KeyError), mapped_errors():
        raise KeyError
    with pytest.raises(TypeError):
        map_error(KeyError())


def test_our_own_errors_inside_sqlalchemys_come_out():
    ours = ValidationError("no", code="objects.key_form")
    assert map_error(sa.exc.StatementError("x", "SELECT 1", {}, ours)) is ours
    assert map_error(sa.exc.StatementError("x", "SELECT 1", {}, TypeError())).code == "rows.value"
    assert map_error(sa.exc.StatementError("x", "SELECT 1", {}, None)).code == "rows.statement"
    assert map_error(sa.exc.InvalidRequestError()).code == "rows.statement"
    assert map_error(ours) is ours
