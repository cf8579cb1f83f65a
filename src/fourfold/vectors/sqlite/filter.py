"""`where` of a search, compiled to SQL over the terms of the payloads. Fields and values are bound, never assembled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fourfold.errors import ValidationError, did_you_mean
from fourfold.projection.items import Value, check_value
from fourfold.vectors.sqlite.payload import Term, term_value
from fourfold.vectors.store import CollectionSpec

__all__ = ["compile_filter"]

_MAX_VALUES = 10_000  # SQLite binds at most 32,766 values in a statement


def compile_filter(
    where: Mapping[str, Value | Sequence[Value]] | None, spec: CollectionSpec, collection_id: int
) -> tuple[str, list[Term]] | None:
    """Return a SELECT of the matching points' ids (possibly repeated) and what to bind; None without a filter.

    Args:
        where: Declared payload fields; a scalar is equality, a list is membership, all fields must hold.
        spec: Whose `payload` says which fields there are.
        collection_id: Bound into the statement.

    Raises:
        ValidationError: Code `vectors.unknown_field`, or `vectors.filter` for a value that is no scalar or list.

    Example:
        >>> spec = CollectionSpec("songs", "m", 3, payload=("genre",))
        >>> compile_filter({"genre": "dub"}, spec, 1)[1]
        [1, 'genre', 'dub']
    """
    if not where:
        return None
    conditions = sorted(
        ((field, _values(field, wanted, spec)) for field, wanted in where.items()), key=lambda each: len(each[1])
    )
    if sum(len(values) for _, values in conditions) > _MAX_VALUES:
        raise ValidationError(
            f"a filter of {sum(len(values) for _, values in conditions)} values, at most {_MAX_VALUES} are allowed",
            code="vectors.filter",
            hint="Search in several parts",
        )
    # The field with the fewest values leads, the others are looked up for each of its points.
    clauses: list[str] = []
    bound: list[Term] = []
    for number, (field, values) in enumerate(conditions):
        test = f"collection_id = ? AND field = ? AND value IN ({', '.join('?' * len(values))})"
        clauses.append(
            test if number == 0 else f"EXISTS (SELECT 1 FROM term WHERE {test} AND point_id = leading.point_id)"
        )
        bound += [collection_id, field, *values]
    return f"SELECT point_id FROM term AS leading WHERE {' AND '.join(clauses)}", bound


def _values(field: str, wanted: object, spec: CollectionSpec) -> list[Term]:
    if field not in spec.payload:
        declared = ", ".join(spec.payload) or "none"
        raise ValidationError(
            f"collection {spec.name!r} has no payload field {field!r} (declared: {declared})"
            f"{did_you_mean(str(field), spec.payload)}",
            code="vectors.unknown_field",
            hint="Declare it: Point(..., payload=(...))",
            field=field,
            collection=spec.name,
        )
    members = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
    return list(dict.fromkeys(term_value(_scalar(field, member)) for member in members))


def _scalar(field: str, member: object) -> str | int | float | bool:
    # A mapping or a nested list is where other stores take an operator: refused, wherever it came from (S06).
    if not isinstance(member, (str, int, float)):
        raise ValidationError(
            f"filter on {field!r}: {type(member).__name__} where a str, bool, int, float or a list of these belongs",
            code="vectors.filter",
            hint="Operators are not taken; give the value itself",
            field=field,
        )
    checked = check_value(member, f"filter on {field!r}")
    assert not isinstance(checked, tuple)  # noqa: S101 - a scalar went in
    return checked
