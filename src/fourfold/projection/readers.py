"""Attribute names of declarations, looked up in a mapped class: what may be read, and which columns that is."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import ColumnProperty, Mapper, RelationshipProperty

from fourfold.errors import did_you_mean
from fourfold.projection.attributes import AttributeRef
from fourfold.projection.references import Wrong
from fourfold.projection.rules import Reads

__all__ = ["check_identifier", "column_of", "reads_of"]

_NAME_CHARACTERS = 1_000  # as graph.schema: far beyond any real name
_RESERVED = ("fourfold_", "_fourfold")  # stores keep owner and digest under such names, beside the user's own


def check_identifier(name: object, what: str) -> None:
    """Refuse what can't name a label, type, property or collection in any store.

    Quotes, blanks and the like are fine: stores bind or quote names.

    Raises:
        Wrong: Not a text, empty, too long, with NUL or lone surrogates, or reserved.
    """
    if not isinstance(name, str) or not name:
        raise Wrong(f"{what} is {name!r:.80}; expected a non-empty text")
    if len(name) > _NAME_CHARACTERS or "\x00" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise Wrong(
            f"{what} is {name!r:.80}; expected at most {_NAME_CHARACTERS} characters, no NUL, no lone surrogates"
        )
    if name.lower().startswith(_RESERVED):
        raise Wrong(f"{what} {name!r} is reserved: names that begin with {' or '.join(_RESERVED)} are Fourfold's own")


def column_of(mapper: Mapper[Any], name: AttributeRef, argument: str) -> sa.Column[Any]:
    """Return the column of a mapped attribute.

    Raises:
        Wrong: There is no such attribute, or it is no column.
    """
    columns = reads_of(mapper, name, argument).columns
    if not columns:
        raise Wrong(f"{argument} {str(name)!r} is no column; expected a mapped column{_near(name, _columns(mapper))}")
    return next(column for column in mapper.attrs[name].columns if column in columns)


def reads_of(mapper: Mapper[Any], name: AttributeRef, argument: str) -> Reads:
    """Return what reading an attribute looks at: its column, or anything for a property.

    Raises:
        Wrong: There is no such attribute, or it is a relationship or a method.
    """
    if name.problem:
        raise Wrong(f"{argument}: {name.problem}")
    if name.owner is not None and not issubclass(mapper.class_, name.owner):
        seen = f"{argument} {name.owner.__name__}.{name} belongs to another class"
        raise Wrong(f"{seen}; expected an attribute of {mapper.class_.__name__}")
    found = mapper.attrs.get(name)
    if isinstance(found, RelationshipProperty):
        local = ", ".join(repr(mapper.get_property_by_column(column).key) for column in _local(found))
        raise Wrong(
            f"{argument} {str(name)!r} is a relationship; expected a column (its own: {local or 'none'}) or a property"
        )
    if isinstance(found, ColumnProperty):
        own = [
            column for column in found.columns if isinstance(column, sa.Column) and isinstance(column.table, sa.Table)
        ]
        # An expression may read other tables; what it looks at is known to the database alone.
        return Reads(frozenset(own) if len(own) == len(found.columns) else None, frozenset({str(name)}))
    static = inspect.getattr_static(mapper.class_, name, None)
    if found is None and (
        static is None or isinstance(static, (staticmethod, classmethod)) or inspect.isroutine(static)
    ):
        if static is not None:
            raise Wrong(f"{argument} {str(name)!r} is a method; make it a property")
        near = _near(name, _readable(mapper))
        raise Wrong(f"{argument}: no attribute {str(name)!r} on {mapper.class_.__name__}{near}")
    return Reads(None, frozenset({str(name)}))


def _local(relation: RelationshipProperty[Any]) -> Iterable[Any]:
    return sorted(relation.local_columns, key=str)


def _columns(mapper: Mapper[Any]) -> list[str]:
    return [attribute.key for attribute in mapper.column_attrs]


def _readable(mapper: Mapper[Any]) -> list[str]:
    properties = (name for base in mapper.class_.__mro__ for name, member in vars(base).items() if _is_property(member))
    return [*_columns(mapper), *properties]


def _is_property(member: object) -> bool:
    return isinstance(member, property)


def _near(name: str, known: list[str]) -> str:
    return did_you_mean(name, known) or f"; it has {', '.join(sorted(known)[:12])}"
