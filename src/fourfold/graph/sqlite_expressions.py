"""Properties and conditions of the pattern language as SQL over a JSON column. Pure.

Values are always bound. Names become literals through `quote`, the one quoting function, because SQLite uses an index
on an expression only where the query spells the same expression.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from fourfold.graph.expressions import (
    And,
    Comparison,
    Condition,
    IsNull,
    Length,
    Membership,
    Not,
    Or,
    Property,
    TextMatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fourfold.graph.expressions import Expression
    from fourfold.projection.items import Scalar

__all__ = [
    "Parameters",
    "Term",
    "condition_sql",
    "is_plain",
    "joined",
    "key_sql",
    "order_sql",
    "property_term",
    "quote",
]

_TEXT, _NUMBERS, _BOOLEANS = "('text')", "('integer', 'real')", "('true', 'false')"
_CONTROL_END = 0x20  # JSON escapes what is below, and SQLite's paths can't spell an escape
_SQL_OPERATORS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def quote(text: str) -> str:
    """Return a SQL string literal; a quote within is doubled, nothing else has a meaning in it."""
    return "'" + text.replace("'", "''") + "'"


class Parameters:
    """Values to bind, by name: the parts of a statement are written in another order than they stand in."""

    def __init__(self) -> None:
        self.values: dict[str, Scalar] = {}

    def bind(self, value: Scalar) -> str:
        """Return the SQL that stands for `value`."""
        name = f"p{len(self.values)}"
        if isinstance(value, float):
            # Read by the same routine as the stored text: SQLite's own isn't exact, but then wrong by the same digit.
            self.values[name] = json.dumps(value)
            return f"json_extract(:{name}, '$')"
        self.values[name] = int(value) if isinstance(value, bool) else value
        return f":{name}"


class Term(NamedTuple):
    """An expression in SQL: its value, its JSON type (NULL when not there), its exact JSON text."""

    value: str
    type: str
    json: str


def is_plain(name: str) -> bool:
    """Return whether SQLite's JSON paths can spell a property's name."""
    return not any(character in '"\\' or ord(character) < _CONTROL_END for character in name)


def property_term(properties: str, name: str, parameters: Parameters) -> Term:
    """Return the SQL of a property; `properties` is the SQL of the JSON column."""
    if is_plain(name):
        path = quote(f'$."{name}"')
        return Term(
            f"json_extract({properties}, {path})", f"json_type({properties}, {path})", f"({properties} -> {path})"
        )
    text = f"fourfold_property({properties}, {parameters.bind(name)})"
    return Term(f"json_extract({text}, '$')", f"json_type({text})", text)


def key_sql(term: Term) -> str:
    """Return one SQL value that is equal exactly where the language's values are, to group by and to count."""
    return (
        f"CASE {term.type} WHEN 'integer' THEN {term.value} WHEN 'real' THEN {term.value}"
        f" WHEN 'text' THEN 't' || {term.value} WHEN 'array' THEN 'a' || {term.value}"
        f" WHEN 'true' THEN 'b1' WHEN 'false' THEN 'b0' END"
    )


def order_sql(term: Term, *, descending: bool) -> str:
    """Return terms of ORDER BY: lists, texts, booleans, numbers, nothing."""
    rank = (
        f"CASE {term.type} WHEN 'array' THEN 0 WHEN 'text' THEN 1 WHEN 'true' THEN 2 WHEN 'false' THEN 2"
        f" WHEN 'integer' THEN 3 WHEN 'real' THEN 3 ELSE 5 END"
    )
    direction = " DESC" if descending else ""
    return f"{rank}{direction}, {term.value}{direction}"


def condition_sql(
    condition: Condition, term_of: Callable[[Expression], Term], parameters: Parameters, *, exact: bool = False
) -> str:
    """Return the SQL of a condition.

    Args:
        condition: What to translate.
        term_of: Gives the SQL of a property or length.
        parameters: Takes the values.
        exact: Keep null apart from false. Needed below `~` only: where a condition is asked for directly, both drop the
            row, and the plain form can use an index.
    """
    if isinstance(condition, (And, Or)):
        word, nothing = ("AND", "1") if isinstance(condition, And) else ("OR", "0")
        parts = [condition_sql(part, term_of, parameters, exact=exact) for part in condition.parts]
        return joined(word, parts) if parts else nothing
    if isinstance(condition, Not):
        return f"(NOT {condition_sql(condition.part, term_of, parameters, exact=True)})"
    if isinstance(condition, IsNull):
        return f"({term_of(condition.left).type} IS NULL)"
    if isinstance(condition, Membership):
        return _membership(term_of(condition.left), condition.values, parameters)
    if isinstance(condition, TextMatch):
        term, text = term_of(condition.left), parameters.bind(condition.text)
        found = (
            f"instr({term.value}, {text}) > 0"
            if condition.how == "contains"
            else f"substr({term.value}, 1, length({text})) = {text}"
        )
        return _guarded(f"{term.type} = 'text'", found, exact=exact)
    assert isinstance(condition, Comparison)  # noqa: S101 - the last kind; tells mypy
    return _comparison(condition, term_of, parameters, exact=exact)


def joined(word: str, parts: Sequence[str]) -> str:
    """Join by AND or OR as a balanced tree: SQLite allows a depth of 1,000."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({joined(word, parts[:middle])} {word} {joined(word, parts[middle:])})"


def _guarded(guard: str, test: str, *, exact: bool) -> str:
    return f"CASE WHEN {guard} THEN {test} END" if exact else f"({guard} AND {test})"


def _comparison(
    condition: Comparison, term_of: Callable[[Expression], Term], parameters: Parameters, *, exact: bool
) -> str:
    left, operator = term_of(condition.left), _SQL_OPERATORS[condition.operator]
    if isinstance(condition.right, (Property, Length)):
        return _two_terms(left, operator, term_of(condition.right), exact=exact)
    types = _types(condition.right)
    value = parameters.bind(condition.right)
    equal = f"({left.type} IN {types} AND {left.value} = {value})"
    if operator == "=":
        return equal
    if operator == "<>":
        return f"(NOT {equal})"
    return _guarded(f"{left.type} IN {types}", f"{left.value} {operator} {value}", exact=exact)


def _two_terms(left: Term, operator: str, right: Term, *, exact: bool) -> str:
    groups = _group(left), _group(right)
    equal = f"({left.value} = {right.value} AND {groups[0]} = {groups[1]})"
    if operator == "=":
        return equal
    if operator == "<>":
        return f"(NOT {equal})"
    guard = f"{groups[0]} = {groups[1]} AND {groups[0]} <> 'array'"
    return _guarded(guard, f"{left.value} {operator} {right.value}", exact=exact)


def _group(term: Term) -> str:
    # One name for each group of types whose values can be equal.
    return f"CASE {term.type} WHEN 'real' THEN 'integer' WHEN 'false' THEN 'true' ELSE {term.type} END"


def _types(value: Scalar) -> str:
    if isinstance(value, str):
        return _TEXT
    return _BOOLEANS if isinstance(value, bool) else _NUMBERS


def _membership(term: Term, values: Sequence[Scalar], parameters: Parameters) -> str:
    if not values:
        return "0"  # also for null, as in Cypher
    parts = []
    for types in (_TEXT, _NUMBERS, _BOOLEANS):
        members = [value for value in values if _types(value) == types]
        if members:  # as one parameter: any number of values is the same statement
            name = parameters.bind(json.dumps(members, ensure_ascii=False))
            parts.append(f"({term.type} IN {types} AND {term.value} IN (SELECT value FROM json_each({name})))")
    return joined("OR", parts)
