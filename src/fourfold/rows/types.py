"""Column types that behave the same on both dialects; for Declarative and for SQLModel's `Field(sa_type=…)`."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from fourfold.errors import ValidationError

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

__all__ = ["FileKey", "JSONType", "TextArray", "UTCDateTime", "UUIDType"]

_OBJECT_KEY: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OBJECT_KEY_CHARACTERS: Final = 36


class FileKey(sa.TypeDecorator[str]):
    """The key of a stored object: a lower-case UUID as text of 36 characters.

    That the object is there is the database's business: the column is mirrored into `fourfold_object_ref`, and a commit
    that names an unknown object fails (code `objects.unknown`).

    Raises:
        ValidationError: Code `objects.key_form`, when a value has another form; nothing was sent.

    Example:
        >>> FileKey().process_bind_param("3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1", None)
        '3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1'
    """

    impl = sa.String
    cache_ok = True
    fourfold_file_key = True  # how `projection`, which can't import this module, knows the type

    def __init__(self) -> None:
        super().__init__(_OBJECT_KEY_CHARACTERS)

    def process_bind_param(self, value: Any, dialect: Dialect | None) -> str | None:  # noqa: ARG002 - same on both
        """Check the form; a `uuid.UUID` becomes its text."""
        if value is None:
            return None
        text = str(value) if isinstance(value, uuid.UUID) else value
        if not isinstance(text, str) or _OBJECT_KEY.fullmatch(text) is None:
            message = (
                f"{value!r:.80} is no object key; expected a lower-case UUID of {_OBJECT_KEY_CHARACTERS} characters"
            )
            raise ValidationError(message, code="objects.key_form", hint="Use the key that files.put returned")
        return text


class UTCDateTime(sa.TypeDecorator[dt.datetime]):
    """A moment: aware in, aware in UTC out; a naive value is refused, for it means another moment on each machine.

    Args:
        timezone: False for an existing `timestamp without time zone` column whose values are UTC by convention.

    Raises:
        ValidationError: Code `rows.naive_datetime`.

    Example:
        >>> UTCDateTime().process_result_value(dt.datetime(2024, 5, 1), None).tzinfo
        datetime.timezone.utc
    """

    impl = sa.DateTime
    cache_ok = True

    def __init__(self, *, timezone: bool = True) -> None:
        super().__init__(timezone=timezone)
        self.timezone = timezone

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect | None) -> dt.datetime | None:
        """Return the moment in UTC, without zone where the column has none."""
        if value is None:
            return None
        if not isinstance(value, dt.datetime) or value.utcoffset() is None:
            message = f"{value!r:.80} is no moment: it has no time zone; expected an aware datetime"
            raise ValidationError(
                message, code="rows.naive_datetime", hint="Use datetime.now(UTC) or .replace(tzinfo=…)"
            )
        moment = value.astimezone(dt.UTC)
        keeps_zone = self.timezone and dialect is not None and dialect.name == "postgresql"
        return moment if keeps_zone else moment.replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect | None) -> dt.datetime | None:  # noqa: ARG002
        """Return the moment in UTC, whatever the session's time zone is."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class JSONType(sa.TypeDecorator[Any]):
    """JSON: `jsonb` on PostgreSQL, JSON text on SQLite.

    None is SQL NULL on both; JSON's null is stored inside values only.

    Example:
        >>> isinstance(JSONType().load_dialect_impl(postgresql.dialect()), postgresql.JSONB)
        True
    """

    impl = sa.JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the dialect's own type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB(none_as_null=True))
        return dialect.type_descriptor(sa.JSON(none_as_null=True))


class TextArray(sa.TypeDecorator[list[str]]):
    """A list of texts: `text[]` on PostgreSQL, a JSON array on SQLite.

    Raises:
        ValidationError: Code `rows.text_array`, when a value is no list of texts (None among its members included).

    Example:
        >>> TextArray().process_bind_param(("a", "b"), None)
        ['a', 'b']
    """

    impl = sa.JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the dialect's own type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.ARRAY(sa.Text))
        return dialect.type_descriptor(sa.JSON(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: Dialect | None) -> list[str] | None:  # noqa: ARG002 - same on both
        """Check the members; any sequence of texts but a text becomes a list."""
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(member, str) for member in value):
            message = f"{value!r:.80} is no list of texts"
            raise ValidationError(message, code="rows.text_array", hint="Pass a list of str")
        return list(value)


class UUIDType(sa.Uuid[uuid.UUID]):
    """A UUID: `uuid` on PostgreSQL, CHAR(32) on SQLite (SQLAlchemy's own form), `uuid.UUID` in Python.

    Example:
        >>> UUIDType().as_uuid
        True
    """

    def __init__(self) -> None:
        super().__init__(as_uuid=True, native_uuid=True)
