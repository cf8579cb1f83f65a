"""What the relay's SQL says differently on SQLite and on PostgreSQL; everything else is one text for both.

Lists travel as one JSON parameter: no statement is ever assembled from values, and a lot of any size is one statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.rows.clock import now_sql

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import TextClause

__all__ = ["statement"]


@dataclass(frozen=True, slots=True)
class _Words:
    now: str
    least: str
    greatest: str
    skip_locked: str
    for_update: str
    for_share: str
    each_int: str
    each_text: str
    each_pair: str
    line_keys: str


_SQLITE = _Words(
    now=now_sql("sqlite"),
    least="min",
    greatest="max",
    skip_locked="",  # BEGIN IMMEDIATE: one writer at a time
    for_update="",
    for_share="",
    each_int="(SELECT value FROM json_each(:{name}))",
    each_text="(SELECT value FROM json_each(:{name}))",
    each_pair="(SELECT json_extract(value, '$[0]') AS a, json_extract(value, '$[1]') AS b FROM json_each(:{name}))",
    line_keys="json_each(c.keys) AS k",
)
_POSTGRESQL = _Words(
    now=now_sql("postgresql"),
    least="LEAST",
    greatest="GREATEST",
    skip_locked="FOR UPDATE SKIP LOCKED",
    for_update="FOR UPDATE",
    for_share="FOR SHARE",
    each_int="(SELECT CAST(value AS bigint) AS value FROM jsonb_array_elements_text(CAST(:{name} AS jsonb)))",
    each_text="(SELECT value FROM jsonb_array_elements_text(CAST(:{name} AS jsonb)))",
    each_pair="(SELECT value->>0 AS a, value->>1 AS b FROM jsonb_array_elements(CAST(:{name} AS jsonb)))",
    line_keys="unnest(c.keys) AS k(value)",
)


@lru_cache(maxsize=256)
def statement(template: str, dialect_name: str) -> TextClause:
    """Fill a template's words for a dialect.

    Args:
        template: A module's constant with `{now}`, `{least}`, `{greatest}`, `{skip_locked}`, `{for_update}`,
            `{for_share}`, `{line_keys}`, and `{each_int:name}`, `{each_text:name}`, `{each_pair:name}` for a JSON list
            parameter.
        dialect_name: `sqlite` or `postgresql`.
    """
    words = _POSTGRESQL if dialect_name == "postgresql" else _SQLITE
    first, *parts = template.split("{")
    filled = [first]
    for part in parts:
        word, _, rest = part.partition("}")
        name, _, argument = word.partition(":")
        filled.append(getattr(words, name).replace("{name}", argument) + rest)
    return sa.text("".join(filled))
