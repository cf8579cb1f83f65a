"""Mapped classes by the table whose rows they are: a class alone, or an inheritance hierarchy with its root's table.

A row of a hierarchy has one key and one owner, the root's table, whichever class it is of; so the root's table is what
is projected, and the classes' rules are told apart by the instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from fourfold.errors import ConfigurationError
from fourfold.projection.declarations import (
    Declaration,
    Edge,
    EdgeList,
    File,
    LinkedFile,
    Node,
    Point,
    Projection,
)
from fourfold.projection.keys import KeyCodec
from fourfold.projection.problems import Problems
from fourfold.projection.row_key import RowKey, table_key

__all__ = ["Families", "Family", "Member", "gather"]

_KINDS = (Edge, EdgeList, File, LinkedFile, Node, Point, Projection)


@dataclass(frozen=True, slots=True)
class Member:
    """A mapped class and what it declares; `table` is the one that it adds to the hierarchy, or shares."""

    model: type
    mapper: Mapper[Any]
    table: sa.Table
    declarations: tuple[Declaration, ...]


@dataclass(slots=True)
class Family:
    """All classes whose rows are rows of one root table.

    `key` is None when the table's primary key can't be encoded; `fault` says why, to whoever needs the key.
    """

    table: sa.Table
    mapper: Mapper[Any]
    key: RowKey | None
    fault: str
    members: list[Member] = field(default_factory=list)
    node_ids: dict[str, str] = field(default_factory=dict)  # label → id property of its Node declarations

    @property
    def model(self) -> type:
        """The root class."""
        return self.mapper.class_

    @property
    def declares(self) -> bool:
        """Whether any of its classes declares something."""
        return any(member.declarations for member in self.members)

    def key_or_problem(self, model: type, declaration: object, problems: Problems) -> RowKey | None:
        """Return the key, or note the fault where it is needed."""
        if self.key is None:
            problems.add(model, declaration, self.fault)
        return self.key


class Families:
    """Families by root table, and by every table of theirs."""

    def __init__(self) -> None:
        self.by_root: dict[sa.Table, Family] = {}
        self.by_table: dict[sa.FromClause, Family] = {}

    def owner_of_label(self, label: str) -> Family | None:
        """Return the family with a `Node` of this label."""
        return next((family for family in self.by_root.values() if label in family.node_ids), None)

    def sorted(self) -> list[Family]:
        """All of them, by name of table: nothing may depend on the order in which classes were defined."""
        return sorted(self.by_root.values(), key=lambda family: family.table.fullname)


def gather(models: Iterable[type], extra: Mapping[type, Sequence[Declaration]], problems: Problems) -> Families:
    """Sort models into families, and read their declarations.

    Args:
        models: Mapped classes, in any order.
        extra: Further declarations, for classes that can't be edited.
        problems: Takes what is wrong.
    """
    families = Families()
    chosen = dict.fromkeys([*models, *extra])
    for model in sorted(chosen, key=lambda chosen_model: (chosen_model.__module__, chosen_model.__qualname__)):
        mapper: Any = sa.inspect(model, raiseerr=False)
        if not isinstance(mapper, Mapper):
            problems.add(model, None, "is not a mapped class; map it with SQLAlchemy or SQLModel (table=True)")
            continue
        declarations = _declarations(model, mapper, extra.get(model, ()), problems)
        root = _root(mapper)
        if not isinstance(mapper.local_table, sa.Table) or not isinstance(root.local_table, sa.Table):
            if declarations:
                problems.add(model, None, "is not mapped to a table; only tables can be captured")
            continue
        family = families.by_root.get(root.local_table)
        if family is None:
            family = families.by_root[root.local_table] = _family(root, root.local_table)
        elif family.mapper is not root and (declarations or family.declares):
            problems.add(
                model, None, f"is a second class on table {family.table.name!r}, beside {family.model.__name__}"
            )
            continue
        family.members.append(Member(model, mapper, mapper.local_table, declarations))
        families.by_table[mapper.local_table] = families.by_table[root.local_table] = family
    for family in families.sorted():
        _check(family, problems)
    _check_names(families, problems)
    return families


def _root(mapper: Mapper[Any]) -> Mapper[Any]:
    # A concrete subclass has rows, and keys, of its own.
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def _family(root: Mapper[Any], table: sa.Table) -> Family:
    if not table.primary_key.columns:
        fault = f"table {table.name!r} has no primary key; rows without one can't be followed: add one"
        return Family(table, root, None, fault)
    try:
        codec = KeyCodec(table_key(table))
    except ConfigurationError as error:
        return Family(table, root, None, str(error))
    columns = tuple(table.primary_key.columns)
    try:
        attributes = tuple(root.get_property_by_column(column).key for column in columns)
    except sa.orm.exc.UnmappedColumnError:
        return Family(table, root, None, f"a primary key column of {table.name!r} is not mapped: map it")
    return Family(table, root, RowKey(codec, columns, attributes), "")


def _declarations(
    model: type, mapper: Mapper[Any], extra: Sequence[Declaration], problems: Problems
) -> tuple[Declaration, ...]:
    own: Any = getattr(model, "__projections__", ())
    if mapper.inherits is not None and "__projections__" not in vars(model):
        if own and not extra:
            base = mapper.inherits.class_.__name__
            problems.add(
                model, None, f"inherits the projections of {base}; subclasses state their own `__projections__` or ()"
            )
        own = ()
    found: list[Declaration] = []
    for source, name in ((own, "__projections__"), (extra, "projections=")):
        if not isinstance(source, (list, tuple)):
            problems.add(
                model, None, f"{name} is {source!r:.80}; expected a tuple: write ({type(source).__name__}(…),)"
            )
            continue
        for declaration in source:
            if isinstance(declaration, _KINDS):
                found.append(declaration)
            else:
                kinds = ", ".join(kind.__name__ for kind in _KINDS)
                problems.add(model, declaration, f"is no declaration; expected one of {kinds}")
    return tuple(_once(model, found, problems))


def _once(model: type, declarations: Iterable[Declaration], problems: Problems) -> Iterable[Declaration]:
    seen: set[Declaration] = set()
    for declaration in declarations:
        try:
            repeated = declaration in seen
        except TypeError as error:
            problems.add(model, declaration, f"can't be hashed ({error}); give names as text and lists as tuples")
            continue
        if repeated:
            problems.add(model, declaration, "is declared twice; leave one out")
            continue
        seen.add(declaration)
        yield declaration


def _check(family: Family, problems: Problems) -> None:
    if not family.declares:
        return
    family.key_or_problem(family.model, None, problems)
    if ":" in family.table.name:
        problems.add(family.model, None, f"table {family.table.name!r} has a colon, which separates table and key")
    for member in family.members:
        if member.table is not family.table and family.mapper.polymorphic_on is None:
            text = f"joined inheritance from {family.model.__name__} needs polymorphic_on, or rows can't be told apart"
            problems.add(member.model, None, text)


def _check_names(families: Families, problems: Problems) -> None:
    # An owner is table and key, without schema, and case-folding stores must not confuse two of them either.
    seen: dict[str, Family] = {}
    for family in families.sorted():
        first = seen.setdefault(family.table.name, family)
        if first is not family and (first.declares or family.declares):
            names = f"{first.table.fullname!r} and {family.table.fullname!r}"
            problems.add(family.model, None, f"tables {names} have one name; owners are told apart by it: rename one")
