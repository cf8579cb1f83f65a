r"""One text per primary key, the same in every session, process and SQL dialect.

A key of one column is that column's text; a composite key is its parts joined by commas, with `\` and `,` escaped. The
encoding of each column type is fixed here, in Python, and once more per dialect in `rows.capture`, where triggers
write it; a property test holds the three together. Types whose equal values have several texts (floats, decimals,
JSON, arrays) are refused at declaration, never in a user's write.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from fourfold.errors import ConfigurationError

__all__ = ["KeyCodec", "KeyColumn", "KeyKind", "key_kind"]

KeyKind = Literal["integer", "text", "uuid", "bytes", "date", "timestamp", "boolean"]


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of a key and how it is written as text."""

    name: str
    kind: KeyKind


def key_kind(column: sa.Column[Any]) -> KeyKind:
    """Return how a column is encoded in keys.

    Raises:
        ConfigurationError: Code `projection.key_type`, for types without one text per value.

    Example:
        >>> key_kind(sa.Column("id", sa.Integer()))
        'integer'
    """
    kind = column.type
    while isinstance(kind, sa.TypeDecorator):
        kind = kind.impl_instance
    matches: Sequence[tuple[type[Any], KeyKind]] = (
        (sa.Boolean, "boolean"),
        (sa.Integer, "integer"),
        (sa.Uuid, "uuid"),
        (sa.Enum, "text"),
        (sa.String, "text"),
        (sa.LargeBinary, "bytes"),
        (sa.DateTime, "timestamp"),
        (sa.Date, "date"),
    )
    for sql_type, name in matches:
        if isinstance(kind, sql_type):
            return name
    message = f"{column}: a key of type {column.type!r} has no single text per value"
    hint = "Use an integer, text, UUID, bytes, date, timestamp or boolean key"
    raise ConfigurationError(message, code="projection.key_type", hint=hint)


def _encode_timestamp(value: dt.datetime) -> str:
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return value.isoformat(" ", "microseconds")  # strftime pads no year


_ENCODE: dict[KeyKind, Callable[[Any], str]] = {
    "integer": lambda value: str(int(value)),
    "text": str,
    "uuid": lambda value: str(value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))),
    "bytes": lambda value: bytes(value).hex(),
    "date": lambda value: value.isoformat(),
    "timestamp": _encode_timestamp,
    "boolean": lambda value: "1" if value else "0",
}
_DECODE: dict[KeyKind, Callable[[str], Any]] = {
    "integer": int,
    "text": str,
    "uuid": uuid.UUID,
    "bytes": bytes.fromhex,
    "date": dt.date.fromisoformat,
    "timestamp": lambda text: dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC),
    "boolean": lambda text: text == "1",
}


@dataclass(frozen=True, slots=True)
class KeyCodec:
    r"""Encodes and decodes the primary key of one table.

    Example:
        >>> codec = KeyCodec((KeyColumn("a", "integer"), KeyColumn("b", "text")))
        >>> codec.encode((7, "x,y"))
        '7,x\\,y'
        >>> codec.decode(codec.encode((7, "x,y")))
        (7, 'x,y')
    """

    columns: tuple[KeyColumn, ...]

    def encode(self, values: Sequence[Any]) -> str:
        """Return the key's text; `values` in the order of the primary key."""
        parts = [_ENCODE[column.kind](value) for column, value in zip(self.columns, values, strict=True)]
        if len(parts) == 1:
            return parts[0]
        return ",".join(part.replace("\\", "\\\\").replace(",", "\\,") for part in parts)

    def decode(self, text: str) -> tuple[Any, ...]:
        """Return the values of a key's text; timestamps come back in UTC."""
        parts = [text] if len(self.columns) == 1 else _split(text)
        return tuple(_DECODE[column.kind](part) for column, part in zip(self.columns, parts, strict=True))


def _split(text: str) -> list[str]:
    parts, current, escaped = [], [], False
    for character in text:
        if escaped:
            current.append(character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ",":
            parts.append("".join(current))
            current = []
        else:
            current.append(character)
    return [*parts, "".join(current)]
