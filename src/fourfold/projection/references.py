"""What foreign keys and relationships of a class lead to: the other row's key, spelled by columns of this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, MapperProperty, RelationshipDirection, RelationshipProperty

from fourfold.errors import ConfigurationError
from fourfold.projection.families import Families, Family, Member
from fourfold.projection.keys import KeyCodec, KeyColumn
from fourfold.projection.row_key import RowKey, column_kind, table_key

__all__ = ["Children", "NotProjected", "Referenced", "Wrong", "foreign_key", "loose_key", "relationship_of"]


class Wrong(Exception):  # noqa: N818 - never leaves the package: it becomes one line of a ConfigurationError
    """What is wrong with one argument, and the fix."""


class NotProjected(Wrong):
    """A class is missing that `projections=` may still bring: wrong when the plan is compiled, not before."""


@dataclass(frozen=True, slots=True)
class Referenced:
    """A row that this row names: its family, and its key spelled by this row's columns."""

    family: Family
    key: RowKey


@dataclass(frozen=True, slots=True)
class Children:
    """Rows that name this row: their table, and this row's key spelled by their columns."""

    table: sa.Table
    columns: tuple[KeyColumn, ...]


def foreign_key(member: Member, columns: Sequence[sa.Column[Any]], families: Families) -> Referenced | None:
    """Return what the foreign key on `columns` names; None when no constraint is on them.

    Raises:
        Wrong: The constraint is ambiguous, names no known table, or no primary key.
    """
    constraint = _constraint(columns)
    if constraint is None:
        return None
    try:
        named = {element.column: element.parent for element in constraint.elements}
    except sa.exc.NoReferenceError as error:
        raise Wrong(f"its foreign key leads nowhere ({error}); map that table too") from error
    table = next(iter(named)).table
    family = families.by_table.get(table)
    if family is None:
        text = f"references table {table.name!r}, which none of the projected classes maps; map it, or add its class"
        raise NotProjected(text)
    return Referenced(family, _spelled(member.mapper, family, table, named))


def loose_key(member: Member, columns: Sequence[sa.Column[Any]], family: Family) -> RowKey:
    """Return the key of a row of `family`, spelled by columns without a constraint, in the order of its primary key.

    Raises:
        Wrong: Number or types of columns differ from those of the primary key.
    """
    key = list(family.table.primary_key.columns)
    if len(key) != len(columns):
        raise Wrong(f"has {len(columns)} columns, but the primary key of {family.table.name!r} has {len(key)}")
    return _spelled(member.mapper, family, family.table, dict(zip(key, columns, strict=True)))


def relationship_of(member: Member, name: str, family: Family, families: Families) -> Referenced | Children:
    """Return where the relationship `name` leads.

    Raises:
        Wrong: It is no relationship that can be followed; says what to do instead.
    """
    relation: MapperProperty[Any] | None = member.mapper.attrs.get(name)
    if not isinstance(relation, RelationshipProperty):
        raise Wrong(f"depends_on {name!r} is no relationship")
    if relation.secondary is not None:
        raise Wrong(f"depends_on {name!r} goes through a secondary table; map that table as a class and depend on it")
    if relation.lazy in {"dynamic", "write_only"}:
        raise Wrong(f"depends_on {name!r} is {relation.lazy}; only a relationship that can be loaded whole will do")
    other = relation.mapper
    pairs = [(near, far) for near, far in relation.local_remote_pairs or () if near is not None and far is not None]
    if relation.direction is RelationshipDirection.MANYTOONE:
        return _many_to_one(member, name, {far: near for near, far in pairs}, family, families)
    tables = {mapper.local_table for mapper in other.base_mapper.self_and_descendants}
    if len(tables) > 1:
        raise Wrong(
            f"depends_on {name!r} leads to joined inheritance ({other.class_.__name__}), whose triggers can't tell"
        )
    return _one_to_many(name, dict(pairs), family)


def _many_to_one(member: Member, name: str, named: dict[Any, Any], family: Family, families: Families) -> Referenced:
    table = next(iter(named)).table
    referenced = families.by_table.get(table)
    if referenced is None or any(other.table is not referenced.table for other in referenced.members):
        raise Wrong(
            f"depends_on {name!r} leads to table {table.name!r}, which is not that of one projected class alone"
        )
    if any(column.table is not family.table for column in named.values()):
        raise Wrong(
            f"depends_on {name!r}: its foreign key must be a column of {family.table.name!r}, to be looked up by"
        )
    try:
        return Referenced(referenced, _spelled(member.mapper, referenced, table, named))
    except Wrong as error:
        raise Wrong(f"depends_on {name!r} {error}") from error


def _one_to_many(name: str, named: dict[Any, Any], family: Family) -> Children:
    own: Any = next(iter(named)).table
    if set(named) != set(own.primary_key.columns):
        columns = ", ".join(str(column) for column in named)
        raise Wrong(f"depends_on {name!r} is by {columns}, not by the whole primary key; only that names a row")
    children = [named[column] for column in own.primary_key.columns]
    table = children[0].table
    if not isinstance(table, sa.Table) or not table.primary_key.columns:
        raise Wrong(f"depends_on {name!r} leads to no table with a primary key")
    try:
        key = table_key(family.table)
        table_key(table)
        spelled = tuple(KeyColumn(child.name, part.kind) for child, part in zip(children, key, strict=True))
        _same_kinds(children, key)
    except (ConfigurationError, Wrong) as error:
        raise Wrong(f"depends_on {name!r}: {error}") from error
    return Children(table, spelled)


def _constraint(columns: Sequence[sa.Column[Any]]) -> sa.ForeignKeyConstraint | None:
    table, wanted = columns[0].table, set(columns)
    if not isinstance(table, sa.Table):
        return None
    around = [constraint for constraint in table.foreign_key_constraints if wanted <= set(constraint.columns)]
    exact = [constraint for constraint in around if wanted == set(constraint.columns)]
    found = exact or around
    if len(found) > 1:
        names = ", ".join(sorted(constraint.referred_table.name for constraint in found))
        raise Wrong(f"is in several foreign keys (to {names}); give all columns of the one that is meant, as a tuple")
    return found[0] if found else None


def _spelled(mapper: Mapper[Any], family: Family, table: sa.FromClause, named: dict[Any, Any]) -> RowKey:
    """The key of `family`, spelled by the columns that `named` gives for each of the key's columns in `table`."""
    primary: list[Any] = list(table.primary_key)
    if family.key is None:
        raise Wrong(f"references {family.table.name!r}: {family.fault}")
    if set(primary) != set(named):
        seen = ", ".join(str(column) for column in named)
        wanted = ", ".join(str(column) for column in primary)
        raise Wrong(
            f"references {seen}, not the primary key ({wanted}); only that names a row: use a Projection function"
        )
    columns = tuple(named[column] for column in primary)
    _same_kinds(columns, family.key.codec.columns)
    try:
        attributes = tuple(mapper.get_property_by_column(column).key for column in columns)
    except sa.orm.exc.UnmappedColumnError as error:
        raise Wrong(f"its foreign key has an unmapped column ({error}); map it") from error
    kinds = tuple(
        KeyColumn(column.name, part.kind) for column, part in zip(columns, family.key.codec.columns, strict=True)
    )
    return RowKey(KeyCodec(kinds), columns, attributes)


def _same_kinds(columns: Sequence[sa.Column[Any]], key: Sequence[KeyColumn]) -> None:
    # The trigger writes the foreign key's text, the row's own trigger the primary key's: they must be one text.
    for column, part in zip(columns, key, strict=True):
        try:
            kind = column_kind(column)
        except ConfigurationError as error:
            raise Wrong(str(error)) from error
        if kind != part.kind:
            raise Wrong(f"column {column.name!r} is {kind}, the key it names is {part.kind}; give both one type")
