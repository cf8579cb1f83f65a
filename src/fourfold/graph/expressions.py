"""Expressions of the pattern language: properties, conditions, aggregates. Pure and immutable; no store is known here.

Meaning, the same in every store (it is Cypher's):
- A property that isn't there is null; comparing null gives null; `where` keeps only what is true; `~` of null is null.
- Values are typed as in JSON: 1 == 1.0, but "1" == 1 and True == 1 are false. `<` and its like between types, and text
  conditions on what is no text, give null.
- Strings are ordered by code point, False before True.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from fourfold.errors import ValidationError
from fourfold.graph.schema import check_name
from fourfold.projection.items import Scalar, check_value

__all__ = [
    "Aggregate",
    "And",
    "Comparison",
    "Condition",
    "Expression",
    "IsNull",
    "Length",
    "Membership",
    "Not",
    "Operator",
    "Or",
    "Property",
    "TextMatch",
    "Whole",
    "average",
    "collect",
    "count",
    "length",
    "maximum",
    "minimum",
    "prop",
    "scalar",
    "total",
]

Operator = Literal["==", "!=", "<", "<=", ">", ">="]
Function = Literal["count", "collect", "minimum", "maximum", "total", "average"]


def scalar(value: object, where: str) -> Scalar:
    """Return `value` if it is one value: str, bool, 64-bit int or finite float.

    Raises:
        ValidationError: Code `graph.value`, for None, lists, dicts, expressions and everything else.
    """
    plain = isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
    if not plain:
        message = (
            f"{where} is compared with {value!r:.80} of type {type(value).__name__}; expected a str, number or bool"
        )
        hint = "Use is_null()" if value is None else "Give one plain value, or in_() for several"
        raise ValidationError(message, code="graph.value", hint=hint, where=where)
    checked = check_value(value, where)
    assert not isinstance(checked, tuple)  # noqa: S101 - lists were refused above; tells mypy
    return checked


class Condition:
    """Something that is true, false or null for a match; join with `&`, `|`, `~`."""

    __slots__ = ()

    def __and__(self, other: Condition) -> Condition:
        return And((*_parts(self, And), *_parts(_condition(other), And)))

    def __or__(self, other: Condition) -> Condition:
        return Or((*_parts(self, Or), *_parts(_condition(other), Or)))

    def __invert__(self) -> Condition:
        return Not(self)

    def __bool__(self) -> NoReturn:
        # `and`, `or`, `not` and `1 < x < 2` ask for a bool and would silently drop half of the condition.
        message = "A condition has no truth value before it meets a graph"
        raise ValidationError(message, code="graph.condition", hint="Join conditions by & | ~, with parentheses")

    @property
    def names(self) -> frozenset[str]:
        """The pattern's names it speaks of."""
        raise NotImplementedError


def _parts(condition: Condition, kind: type[And | Or]) -> tuple[Condition, ...]:
    return condition.parts if isinstance(condition, kind) else (condition,)  # kept flat: a thousand parts are no depth


def _condition(value: object) -> Condition:
    if not isinstance(value, Condition):
        message = f"{value!r:.80} is no condition; expected something like prop('a', 'title') == 'x'"
        raise ValidationError(message, code="graph.condition", hint="Join conditions only with conditions")
    return value


class Expression:
    """Something that has a value for a match, and can be compared."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # == makes a condition, so it can't be looked up in a set

    @property
    def name(self) -> str:
        """The name it speaks of."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """The column's name unless one is given."""
        raise NotImplementedError

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("!=", other)

    def __lt__(self, other: object) -> Condition:
        return self._compare("<", other)

    def __le__(self, other: object) -> Condition:
        return self._compare("<=", other)

    def __gt__(self, other: object) -> Condition:
        return self._compare(">", other)

    def __ge__(self, other: object) -> Condition:
        return self._compare(">=", other)

    def _compare(self, operator: Operator, other: object) -> Condition:
        right = other if isinstance(other, (Property, Length)) else scalar(other, self.title)
        return Comparison(self, operator, right)

    def in_(self, values: Collection[Scalar]) -> Condition:
        """True when it equals one of `values`; false for none of them."""
        if isinstance(values, (str, bytes, dict)) or not isinstance(values, Collection):
            message = f"in_() of {self.title} got {values!r:.80}; expected a list of plain values"
            raise ValidationError(message, code="graph.value", hint="Give a list, or use ==", where=self.title)
        return Membership(self, tuple(scalar(value, self.title) for value in values))

    def contains(self, text: str) -> Condition:
        """True when its text has `text` within (case counts)."""
        return TextMatch(self, "contains", _text(text, self.title))

    def starts_with(self, text: str) -> Condition:
        """True when its text begins with `text` (case counts)."""
        return TextMatch(self, "starts_with", _text(text, self.title))

    def is_null(self) -> Condition:
        """True when there is no such property; use `~` for the opposite. Never null itself."""
        return IsNull(self)


def _text(value: object, where: str) -> str:
    checked = scalar(value, where)
    if not isinstance(checked, str):
        message = f"{where} is searched for {value!r:.80}; expected a str"
        raise ValidationError(message, code="graph.value", hint="Search for text", where=where)
    return checked


@dataclass(frozen=True, slots=True, eq=False)
class Property(Expression):
    """A property of a named node or edge."""

    of: str
    key: str

    @property
    def name(self) -> str:
        """The node or edge."""
        return self.of

    @property
    def title(self) -> str:
        """As `a.title`."""
        return f"{self.of}.{self.key}"


@dataclass(frozen=True, slots=True, eq=False)
class Length(Expression):
    """The number of hops of a named path, or of a named edge with variable hops."""

    of: str

    @property
    def name(self) -> str:
        """The path or edge."""
        return self.of

    @property
    def title(self) -> str:
        """As `length(p)`."""
        return f"length({self.of})"


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole node, edge (a tuple of edges where its hops vary) or path."""

    of: str

    @property
    def name(self) -> str:
        """The node, edge or path."""
        return self.of

    @property
    def title(self) -> str:
        """Its name."""
        return self.of


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """One value from many matches; the other columns are what they are grouped by."""

    function: Function
    of: Expression | Whole | None
    distinct: bool = False

    @property
    def title(self) -> str:
        """As `count(a.title)`."""
        return f"{self.function}({'distinct ' if self.distinct else ''}{self.of.title if self.of else '*'})"


@dataclass(frozen=True, slots=True, eq=False)
class Comparison(Condition):
    """Two values compared."""

    left: Expression
    operator: Operator
    right: Property | Length | Scalar

    @property
    def names(self) -> frozenset[str]:
        """Of both sides."""
        right = {self.right.name} if isinstance(self.right, Expression) else set()
        return frozenset({self.left.name} | right)


@dataclass(frozen=True, slots=True, eq=False)
class Membership(Condition):
    """A value among given ones."""

    left: Expression
    values: tuple[Scalar, ...]

    @property
    def names(self) -> frozenset[str]:
        """Of its left side."""
        return frozenset({self.left.name})


@dataclass(frozen=True, slots=True, eq=False)
class TextMatch(Condition):
    """A text within, or at the start of, another."""

    left: Expression
    how: Literal["contains", "starts_with"]
    text: str

    @property
    def names(self) -> frozenset[str]:
        """Of its left side."""
        return frozenset({self.left.name})


@dataclass(frozen=True, slots=True, eq=False)
class IsNull(Condition):
    """A property that isn't there."""

    left: Expression

    @property
    def names(self) -> frozenset[str]:
        """Of its left side."""
        return frozenset({self.left.name})


@dataclass(frozen=True, slots=True, eq=False)
class And(Condition):
    """All of them."""

    parts: tuple[Condition, ...]

    @property
    def names(self) -> frozenset[str]:
        """Of all parts."""
        return frozenset().union(*(part.names for part in self.parts))


@dataclass(frozen=True, slots=True, eq=False)
class Or(Condition):
    """Any of them."""

    parts: tuple[Condition, ...]

    @property
    def names(self) -> frozenset[str]:
        """Of all parts."""
        return frozenset().union(*(part.names for part in self.parts))


@dataclass(frozen=True, slots=True, eq=False)
class Not(Condition):
    """Its opposite; null stays null."""

    part: Condition

    @property
    def names(self) -> frozenset[str]:
        """Of its part."""
        return self.part.names


def prop(of: str, name: str) -> Property:
    """Return the property `name` of the node or edge that the pattern calls `of`.

    Example:
        >>> condition = (prop("a", "year") >= 2020) & prop("a", "title").starts_with("Op")
    """
    return Property(check_name(of, "name in the pattern"), check_name(name, "property"))


def length(of: str) -> Length:
    """Return the number of hops of the path, or edge with variable hops, that the pattern calls `of`."""
    return Length(check_name(of, "name in the pattern"))


def _operand(value: Expression | str) -> Expression | Whole:
    if isinstance(value, Expression):
        return value
    return Whole(check_name(value, "name in the pattern"))


def count(of: Expression | str | None = None, *, distinct: bool = False) -> Aggregate:
    """Count matches; or those where the property is there; or different values, nodes, edges, paths."""
    if of is None and distinct:
        raise ValidationError("count(distinct=True) of what?", code="graph.query", hint="Name a property or node")
    return Aggregate("count", None if of is None else _operand(of), distinct)


def collect(of: Expression | str, *, distinct: bool = False) -> Aggregate:
    """Gather values, without null, in a tuple sorted ascending (so that every store gives the same)."""
    return Aggregate("collect", _operand(of), distinct)


def minimum(of: Expression) -> Aggregate:
    """Lowest value in the order of `order_by`; None without any."""
    return Aggregate("minimum", _value(of))


def maximum(of: Expression) -> Aggregate:
    """Highest value in the order of `order_by` (numbers are above strings); None without any."""
    return Aggregate("maximum", _value(of))


def total(of: Expression) -> Aggregate:
    """Sum of the numbers; other values don't count; 0 without any."""
    return Aggregate("total", _value(of))


def average(of: Expression) -> Aggregate:
    """Mean of the numbers as a float; other values don't count; None without any."""
    return Aggregate("average", _value(of))


def _value(of: Any) -> Expression:
    if not isinstance(of, Expression):
        message = f"{of!r:.80} is no property; expected something like prop('a', 'year')"
        raise ValidationError(message, code="graph.query", hint="Aggregate a property")
    return of
