"""The SQL text of an encoded key: what `KeyCodec.encode` says in Python, once per dialect.

Used inside triggers and by the relay's INSERT … SELECT, so no setting of a session may change it: time zone, DateStyle,
standard_conforming_strings, float digits. A property test holds the three implementations together. It can't fail,
either: a key that can't be read as its declared kind is taken as its text, because an error here would be the user's
write failing.

Kept out of the text: `::` and `:name` (it may stand inside `sqlalchemy.text()`), `%` (psycopg), backslashes (see
`literal`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from fourfold.errors import ConfigurationError
from fourfold.projection.keys import KeyColumn, KeyKind
from fourfold.rows.capture.quoting import identifier

__all__ = ["key_expression", "key_parts_present"]


def key_expression(
    columns: Sequence[KeyColumn], dialect_name: str, alias: str, *, native_uuids: Collection[str] = ()
) -> str:
    """Return an SQL expression of the encoded key of a row.

    Args:
        columns: The key's columns, in the order of the primary key.
        dialect_name: `sqlite` or `postgresql`.
        alias: What the columns belong to, as it stands in the statement: an alias, a quoted table, or NEW and OLD.
        native_uuids: Names of columns known to be of PostgreSQL's type uuid, whose text needs no mending (a third of
            what capture costs a COPY).

    Raises:
        ConfigurationError: Code `rows.dialect`.

    Example:
        >>> key_expression((KeyColumn("id", "integer"),), "sqlite", "NEW")
        'CAST(NEW."id" AS TEXT)'
    """
    if dialect_name not in _KINDS:
        message = f"no rows on {dialect_name!r}; expected 'sqlite' or 'postgresql'"
        raise ConfigurationError(message, code="rows.dialect", hint="Use one of the two")
    kinds = _KINDS[dialect_name]
    parts = [
        (_pg_text if column.name in native_uuids else kinds[column.kind])(f"{alias}.{identifier(column.name)}")
        for column in columns
    ]
    if len(parts) == 1:
        return parts[0]
    escape = _ESCAPE[dialect_name]
    # Only texts can hold a comma or a backslash; the others are spared two calls per row.
    escaped = [escape(part) if column.kind == "text" else part for column, part in zip(columns, parts, strict=True)]
    return "(" + " || ',' || ".join(escaped) + ")"


def key_parts_present(columns: Sequence[KeyColumn], alias: str) -> str:
    """Return an SQL condition: none of the columns is NULL.

    Example:
        >>> key_parts_present((KeyColumn("a", "text"), KeyColumn("b", "text")), "n")
        'n."a" IS NOT NULL AND n."b" IS NOT NULL'
    """
    return " AND ".join(f"{alias}.{identifier(column.name)} IS NOT NULL" for column in columns)


# --------------------------------------------------------------------------------------------------- PostgreSQL


def _pg_text(x: str) -> str:
    return f"CAST({x} AS text)"


def _pg_characters(x: str) -> str:
    # The type's output, not a cast: a cast of char(n) to text strips the blanks that every reader gets.
    return f"pg_catalog.concat({x})"


def _pg_uuid(x: str) -> str:
    # Native, or char(32) as SQLAlchemy writes it elsewhere. No cast to uuid: a malformed text would fail the write.
    text = f"CAST({x} AS text)"
    dashed = " || '-' || ".join(
        f"pg_catalog.substr({text}, {start}, {length})"
        for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    )
    return f'pg_catalog.lower(CASE WHEN pg_catalog.length({text}) = 32 THEN {dashed} ELSE {text} END COLLATE "C")'


def _pg_date(x: str) -> str:
    # Through timestamp: to_char(date) would take the way over timestamptz and the session's time zone.
    return (
        f"CASE WHEN pg_catalog.isfinite({x}) THEN pg_catalog.to_char(CAST({x} AS timestamp), 'YYYY-MM-DD')"
        f" ELSE CAST({x} AS text) END"
    )


def _pg_timestamp(x: str) -> str:
    # EXTRACT(EPOCH) is the same count for `timestamp` taken as UTC and for `timestamptz`, in every session, and exact
    # (numeric since PostgreSQL 14). Days and microseconds apart: interval arithmetic goes through double precision,
    # which is exact below 2^53.
    micros = f"CAST(EXTRACT(EPOCH FROM {x}) * 1000000 AS bigint)"
    moment = (
        f"TIMESTAMP '1970-01-01 00:00:00' + ({micros} / 86400000000) * INTERVAL '1 day'"
        f" + pg_catalog.mod({micros}, 86400000000) * INTERVAL '1 microsecond'"
    )
    return (
        f"CASE WHEN pg_catalog.isfinite({x}) THEN pg_catalog.to_char({moment}, 'YYYY-MM-DD HH24:MI:SS.US')"
        f" ELSE CAST({x} AS text) END"
    )


def _pg_escape(part: str) -> str:
    # chr(92) is the backslash, whatever standard_conforming_strings says.
    return (
        f"pg_catalog.replace(pg_catalog.replace({part}, pg_catalog.chr(92), pg_catalog.repeat(pg_catalog.chr(92), 2)),"
        f" ',', pg_catalog.chr(92) || ',')"
    )


# ------------------------------------------------------------------------------------------------------- SQLite


def _lite_text(x: str) -> str:
    return f"CAST({x} AS TEXT)"


def _lite_uuid(x: str) -> str:
    # CHAR(32) as SQLAlchemy writes it, text of 36, or a blob of 16 bytes from others.
    text = f"(CASE typeof({x}) WHEN 'blob' THEN hex({x}) ELSE CAST({x} AS TEXT) END)"
    dashed = " || '-' || ".join(
        f"substr({text}, {start}, {length})" for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    )
    return f"lower(CASE length({text}) WHEN 32 THEN {dashed} ELSE {text} END)"


def _lite_timestamp(x: str) -> str:
    # SQLAlchemy writes 26 characters, UTC; others write CURRENT_TIMESTAMP, a T, fewer digits, an offset. strftime gets
    # no fraction: it would round to milliseconds. The digits are padded on the right to six; CAST reads the longest
    # run of digits, the leading 1 keeps zeros.
    seconds = f"strftime('%Y-%m-%d %H:%M:%S', substr({x}, 1, 19) || ltrim(substr({x}, 20), '.0123456789'))"
    digits = f"substr(CAST(CAST('1' || substr({x}, 21, 6) AS INTEGER) AS TEXT), 2)"
    fraction = f"CASE substr({x}, 20, 1) WHEN '.' THEN substr({digits} || '000000', 1, 6) ELSE '000000' END"
    return f"coalesce({seconds} || '.' || {fraction}, CAST({x} AS TEXT))"


def _lite_escape(part: str) -> str:
    return f"replace(replace({part}, '\\', '\\\\'), ',', '\\,')"


_KINDS: Final[dict[str, dict[KeyKind, Callable[[str], str]]]] = {
    "postgresql": {
        "integer": _pg_text,
        "text": _pg_characters,
        "uuid": _pg_uuid,
        "bytes": lambda x: f"pg_catalog.encode({x}, 'hex')",
        "date": _pg_date,
        "timestamp": _pg_timestamp,
        "boolean": lambda x: f"CASE WHEN {x} THEN '1' ELSE '0' END",
    },
    "sqlite": {
        "integer": _lite_text,
        "text": _lite_text,
        "uuid": _lite_uuid,
        "bytes": lambda x: f"lower(hex({x}))",
        "date": _lite_text,
        "timestamp": _lite_timestamp,
        "boolean": lambda x: f"CASE WHEN {x} THEN '1' ELSE '0' END",
    },
}
_ESCAPE: Final[dict[str, Callable[[str], str]]] = {"postgresql": _pg_escape, "sqlite": _lite_escape}
