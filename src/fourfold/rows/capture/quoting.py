"""The one place where names and texts become part of an SQL statement.

Triggers can't take parameters, so the names of the user's tables and columns stand in their bodies. Everything that is
put into a statement by this package passes here, whatever quotes, dollars or percent signs it holds (S05).
"""

from __future__ import annotations

from fourfold.errors import ConfigurationError

__all__ = ["dollar_quoted", "identifier", "literal", "qualified"]


def identifier(name: str) -> str:
    """Return `name` as a quoted SQL identifier, the same on both dialects.

    Raises:
        ConfigurationError: Code `rows.name`, for an empty name or one with a NUL character.

    Example:
        >>> identifier("title")
        '"title"'
    """
    if not name or "\x00" in name:
        message = f"{name!r} can't be the name of a table or column"
        raise ConfigurationError(message, code="rows.name", hint="Rename it")
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def qualified(schema: str | None, name: str) -> str:
    """Return `"schema"."name"`, or `"name"` alone without a schema.

    Example:
        >>> qualified("app", "songs")
        '"app"."songs"'
    """
    return identifier(name) if schema is None else f"{identifier(schema)}.{identifier(name)}"


def literal(text: str, dialect_name: str) -> str:
    """Return `text` as an SQL string.

    On PostgreSQL a backslash needs the E form, which means the same whatever `standard_conforming_strings` is.

    Example:
        >>> literal("it's", "sqlite")
        "'it''s'"
    """
    if "\x00" in text:
        message = f"{text!r} has a NUL character, which no SQL text can hold"
        raise ConfigurationError(message, code="rows.name", hint="Rename it")
    doubled = text.replace("'", "''")
    if dialect_name == "postgresql" and "\\" in doubled:
        return "E'" + doubled.replace("\\", "\\\\") + "'"
    return f"'{doubled}'"


def dollar_quoted(body: str) -> str:
    """Return a function's body in PostgreSQL's dollar quotes, with a tag that the body doesn't hold.

    Example:
        >>> dollar_quoted("BEGIN END")
        '$fourfold$BEGIN END$fourfold$'
    """
    tag, number = "$fourfold$", 0
    while tag in body:
        number += 1
        tag = f"$fourfold{number}$"
    return f"{tag}{body}{tag}"
