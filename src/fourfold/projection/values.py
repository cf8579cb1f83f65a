"""Python values of rows as values that every target holds: one rule per type, so that digests agree everywhere."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import numbers
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from fourfold.errors import ValidationError
from fourfold.projection.items import Value, check_value

__all__ = ["property_value", "text_value", "vector_value"]

_FLOAT32_MAX = 3.4028234663852886e38  # (2 − 2⁻²³) × 2¹²⁷, IEEE 754: collections hold 32-bit floats


def property_value(value: object, where: str) -> Value | None:
    """Return `value` as a property of a node, an edge or a payload; None stays None and is left out.

    UUID, date, time and Decimal become text; a datetime becomes ISO 8601 with microseconds, in UTC with `Z` when it has
    a zone, as it is without; an enum member becomes its value if that is text, else its name; an object (dict) becomes
    canonical JSON text (sorted keys, no blanks), since no graph holds maps as properties.

    Args:
        value: What the attribute holds.
        where: Named in the error, as `Recording.title`.

    Raises:
        ValidationError: Code `projection.value`, for bytes, nested lists and what else no target holds.

    Example:
        >>> property_value(dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC), "Recording.created_at")
        '2024-05-01T12:00:00.000000Z'
        >>> property_value({"b": 1, "a": [2]}, "Place.properties")
        '{"a":[2],"b":1}'
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        return check_value(_json(value, where), where)
    if isinstance(value, (list, tuple)):
        return check_value(tuple(_plain(member) for member in value), where)
    return check_value(_plain(value), where)


def _plain(value: object) -> object:
    # Order matters: an IntEnum is an int, a datetime is a date.
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, dt.datetime):
        return _moment(value)
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")  # never an exponent: 1E+2 and 100 are one value
    return value


def _moment(value: dt.datetime) -> str:
    if value.tzinfo is None:
        return value.isoformat(timespec="microseconds")
    return value.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _json(value: Mapping[Any, Any], where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"{where}: {value!r:.80} is not a JSON object ({error})"
        hint = "Store JSON values only, or convert it in a Python property"
        raise ValidationError(message, code="projection.value", hint=hint, where=where) from error


def text_value(value: object, where: str) -> str | None:
    """Return a text to embed; None and blank texts are None: the row has no point.

    Raises:
        ValidationError: Code `projection.value`, when it is no text, or holds NUL or lone surrogates.

    Example:
        >>> text_value("  ", "Recording.title") is None
        True
    """
    if value is None:
        return None
    if not isinstance(value, str):
        message = f"{where}: {value!r:.80} is of type {type(value).__name__}; expected a text to embed"
        raise ValidationError(message, code="projection.value", hint="Make it a str in a Python property", where=where)
    check_value(value, where)
    return value if value.strip() else None


def vector_value(value: object, where: str) -> tuple[float, ...] | None:
    """Return a given vector as a tuple of finite floats within 32 bits; None stays None.

    Takes any iterable of numbers (list, array, numpy, pgvector).

    Raises:
        ValidationError: Code `projection.value`, naming the first member that is no such number.

    Example:
        >>> vector_value([1, 0.5], "Face.embedding")
        (1.0, 0.5)
    """
    if value is None:
        return None
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(value, Iterable):
        raise _vector_error(where, f"{value!r:.80} is of type {type(value).__name__}; expected a list of numbers")
    members = []
    for index, member in enumerate(value):
        number = float(member) if isinstance(member, numbers.Real) and not isinstance(member, bool) else math.nan
        if not abs(number) <= _FLOAT32_MAX:  # false for NaN too
            raise _vector_error(f"{where}[{index}]", f"{member!r:.80} is not a finite 32-bit float")
        members.append(number)
    if not members:
        raise _vector_error(where, "the vector is empty; expected the collection's dimension, or NULL for none")
    return tuple(members)


def _vector_error(where: str, problem: str) -> ValidationError:
    hint = "Correct the row, or give None for no point"
    return ValidationError(f"{where}: {problem}", code="projection.value", hint=hint, where=where)
