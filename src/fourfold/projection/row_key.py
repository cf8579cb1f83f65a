"""A row's key, read from an instance, and back: from key texts to the condition that selects the rows.

Triggers write the *database's* value of a key, instances hold Python's. Where the two differ (enums) they are brought
together here; where nobody can know (a type decorator that rewrites values) the type is refused at declaration.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fourfold.errors import ConfigurationError, ValidationError
from fourfold.projection.items import Scalar
from fourfold.projection.keys import KeyCodec, KeyColumn, KeyKind, key_kind

__all__ = ["RowKey", "column_kind", "is_file_key", "table_key"]


def is_file_key(column: sa.Column[Any]) -> bool:
    """Whether the column's type is `rows.types.FileKey`, told by a mark: this layer can't import that one."""
    return bool(getattr(column.type, "fourfold_file_key", False))


def column_kind(column: sa.Column[Any]) -> KeyKind:
    """Return how a column is encoded in keys.

    Raises:
        ConfigurationError: Code `projection.key_type`, for types without one text per value, and for decorators that
            rewrite values: what triggers see isn't what instances hold. One that only checks values says so by
            `fourfold_key_as_is = True`.
    """
    kind = column.type
    rewrites = isinstance(kind, sa.TypeDecorator) and (
        type(kind).process_bind_param is not sa.TypeDecorator.process_bind_param
    )
    if rewrites and not (is_file_key(column) or getattr(kind, "fourfold_key_as_is", False)):
        message = (
            f"{column}: the type decorator {type(kind).__name__} rewrites values, so the database's key isn't Python's"
        )
        hint = "Use a plain type for key columns (sa.Uuid instead of a GUID decorator)"
        raise ConfigurationError(message, code="projection.key_type", hint=hint)
    return key_kind(column)


def table_key(table: sa.Table) -> tuple[KeyColumn, ...]:
    """Return the primary key's columns, in order.

    Raises:
        ConfigurationError: Code `projection.key_type`.
    """
    return tuple(KeyColumn(column.name, column_kind(column)) for column in table.primary_key.columns)


@dataclass(frozen=True, slots=True)
class RowKey:
    """A key spelled by columns of a table: its own primary key, or a foreign key to another's.

    Args:
        codec: Encodes; its kinds are those of the primary key.
        columns: The columns that hold the parts, in the order of the primary key.
        attributes: The mapped attributes of these columns.
    """

    codec: KeyCodec
    columns: tuple[sa.Column[Any], ...]
    attributes: tuple[str, ...]

    def text(self, instance: object) -> str | None:
        """Return the key's text; None when a part is None."""
        values = [getattr(instance, name) for name in self.attributes]
        if any(value is None for value in values):
            return None
        return self.text_of(values)

    def text_of(self, values: Sequence[Any]) -> str:
        """Return the text of a key's Python values, as a SELECT of its columns gives them."""
        stored = [_stored(column.type, value) for column, value in zip(self.columns, values, strict=True)]
        return self.codec.encode(stored)

    def node_id(self, text: str) -> Scalar:
        """Return a key's text as a node's id: an integer key as a number, any other as it is."""
        single = len(self.codec.columns) == 1 and self.codec.columns[0].kind == "integer"
        return int(text) if single else text

    def condition(self, keys: Sequence[str]) -> sa.ColumnElement[bool]:
        """Return the condition that selects the rows of `keys`.

        Raises:
            ValidationError: Code `projection.key`, for a text that is no key of this table.
        """
        rows = [self._values(key) for key in keys]
        if len(self.columns) == 1:
            return self.columns[0].in_([row[0] for row in rows])
        return sa.tuple_(*self.columns).in_(rows)

    def readable(self, keys: Sequence[str]) -> list[str]:
        """Return those of `keys` that can be decoded; any other (junk that SQLite lets in) names no row."""
        return [key for key in keys if self._decodes(key)]

    def _decodes(self, key: str) -> bool:
        try:
            self.codec.decode(key)
        except ValueError:
            return False
        return True

    def _values(self, key: str) -> tuple[Any, ...]:
        try:
            values = self.codec.decode(key)
        except ValueError as error:
            names = ", ".join(f"{column.name} {column.kind}" for column in self.codec.columns)
            table = self.columns[0].table.name
            message = f"{key!r:.200} is no key of {table!r}; expected the text of ({names})"
            raise ValidationError(message, code="projection.key", table=table, key=key) from error
        return tuple(_bound(column.type, value) for column, value in zip(self.columns, values, strict=True))


def _enum_texts(kind: sa.Enum) -> list[tuple[enum.Enum, str]]:
    # `enums` are the database's texts (names, or what `values_callable` says), without aliases, in order of definition.
    return list(zip(kind.enum_class, kind.enums, strict=True)) if kind.enum_class else []


def _stored(kind: sa.types.TypeEngine[Any], value: object) -> object:
    if isinstance(kind, sa.Enum):
        return next((text for member, text in _enum_texts(kind) if member is value), value)
    return value


def _bound(kind: sa.types.TypeEngine[Any], value: Any) -> Any:
    if isinstance(kind, sa.Enum):
        return next((member for member, text in _enum_texts(kind) if text == value), value)
    if isinstance(kind, sa.Uuid) and not kind.as_uuid and isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(kind, sa.DateTime) and not kind.timezone and isinstance(value, dt.datetime):
        return value.replace(tzinfo=None)  # else PostgreSQL would shift it by the session's time zone
    return value
