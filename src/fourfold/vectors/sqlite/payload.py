"""Payloads on their way in and out of the file: exact JSON, and the terms that filters compare.

A term is what one field says, a row per member of a list. Numbers compare as numbers (1 equals 1.0, as in SQL and
Cypher), booleans and texts with their own kind only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b

from fourfold.projection.items import Scalar, Value

__all__ = ["Term", "encode_payload", "read_payload", "term_value", "terms_of"]

Term = str | int | float | bytes

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
_TEXT_CHARS = 64  # a longer text stands in the index as its 128-bit hash, so that a page of text costs 16 bytes there


def encode_payload(payload: Mapping[str, Value]) -> str:
    """Write a payload as JSON, fields sorted; equal payloads (types told apart) give equal text.

    Example:
        >>> encode_payload({"year": 1999, "live": True})
        '{"live":true,"year":1999}'
    """
    return _ENCODER.encode(dict(payload))


def read_payload(text: str) -> dict[str, Value]:
    """Read what `encode_payload` wrote, every type as it was.

    Raises:
        ValueError: It isn't that.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError(f"a payload is an object, not {type(fields).__name__}")  # noqa: TRY004 - as json's own error
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def term_value(value: Scalar) -> Term:
    r"""Return a scalar as it stands in the index: a boolean as one byte, a long text as its hash.

    Example:
        >>> term_value(True), term_value("ambient"), term_value(1.5)
        (b'\x01', 'ambient', 1.5)
    """
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, str) and len(value) > _TEXT_CHARS:
        return blake2b(value.encode(), digest_size=16).digest()
    return value


def terms_of(payload: Mapping[str, Value]) -> set[tuple[str, Term]]:
    """Every field with each of its values."""
    return {
        (name, term_value(member))
        for name, value in payload.items()
        for member in (value if isinstance(value, tuple) else (value,))
    }
