"""What the rules need recorded: capture specifications per table, and who depends on whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from fourfold.errors import ConfigurationError
from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey
from fourfold.projection.families import Families, Family, Member
from fourfold.projection.keys import KeyColumn
from fourfold.projection.problems import Problems
from fourfold.projection.references import Children, NotProjected, Referenced, Wrong, relationship_of
from fourfold.projection.row_key import RowKey, is_file_key, table_key
from fourfold.projection.rules import Rule
from fourfold.projection.table_plan import TablePlan, rule_targets

__all__ = ["CapturePlan", "Dependent"]


@dataclass(frozen=True, slots=True)
class Dependent:
    """Rows that a changed row is looked up for: those whose foreign key names it.

    Args:
        table: Their table, a projected one.
        columns: Their foreign key, in the order of the changed row's primary key.
        targets: Those of their targets that depend on it.
        key: The same columns, with what decodes the changed row's key.
    """

    table: str
    columns: tuple[KeyColumn, ...]
    targets: tuple[str, ...]
    key: RowKey

    def statement(self, table_plan: TablePlan, changed: Sequence[str]) -> sa.Select[Any]:
        """Return the SELECT of the primary keys (in order) of the rows that name one of the `changed` keys."""
        return sa.select(*table_plan.row_key.columns).where(self.key.condition(self.key.readable(changed)))


@dataclass(slots=True)
class _Draft:
    projected: bool = False
    watched: set[str] | None = field(default_factory=set)
    parents: set[ParentKey] = field(default_factory=set)
    files: dict[str, bool] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)

    def watch(self, columns: Iterable[str] | None) -> None:
        """Add columns; None is all, and stays all."""
        self.watched = None if columns is None or self.watched is None else self.watched | set(columns)


class CapturePlan:
    """Gathers, class by class, what has to be recorded."""

    def __init__(self, families: Families, problems: Problems, *, partial: bool) -> None:
        self._families, self._problems, self._partial = families, problems, partial
        self._drafts: dict[sa.Table, _Draft] = {}
        self._dependents: dict[str, dict[tuple[str, tuple[KeyColumn, ...]], tuple[RowKey, set[str]]]] = {}
        self._parents: dict[str, dict[str, set[str]]] = {}

    def add_rules(self, member: Member, family: Family, rules: Sequence[Rule]) -> None:
        """Take what a class's rules read and depend on."""
        if not rules or family.key is None:
            return
        self._draft(family.table).projected = True
        if member.table is not family.table:
            self._add_joined(member, family, rules)
        for rule in rules:
            self._watch(member, family, rule.reads.columns)
            for name in rule.reads.relationships:
                try:
                    self._depend(member, family, name, rule)
                except NotProjected as problem:
                    if not self._partial:
                        self._problems.add(member.model, None, str(problem))
                except Wrong as problem:
                    self._problems.add(member.model, None, str(problem))

    def add_files(self, member: Member, files: dict[sa.Column[Any], bool], linked: Iterable[sa.Column[Any]]) -> None:
        """Take the columns that name objects: the declared ones, and those of type `FileKey`."""
        found = {column: True for column in member.table.columns if is_file_key(column)} | files
        linked = list(linked)
        for column in [*found, *linked]:
            if column in found and column in linked:
                text = f"column {column.name!r} is a File and a LinkedFile; its value names the object, or a link does"
                self._problems.add(member.model, None, text)
            self._has_key(member, column.table)
        for column, managed_only in found.items():
            self._draft(column.table).files[column.name] = managed_only
        for column in linked:
            self._draft(column.table).linked.add(column.name)

    def specs(self) -> tuple[CaptureSpec, ...]:
        """Return the specifications, by table."""
        drafts = sorted(self._drafts.items(), key=lambda item: (item[0].schema or "", item[0].name))
        return tuple(_spec(table, draft) for table, draft in drafts)

    def dependents(self) -> dict[str, tuple[Dependent, ...]]:
        """Return, by changed table, the rows to look up."""
        return {
            changed: tuple(
                Dependent(table, columns, tuple(sorted(targets)), key)
                for (table, columns), (key, targets) in sorted(found.items(), key=lambda item: str(item[0]))
            )
            for changed, found in self._dependents.items()
        }

    def parents(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return, by child table, the tables whose keys its triggers write, and the targets concerned."""
        return {
            child: {table: tuple(sorted(targets)) for table, targets in sorted(found.items())}
            for child, found in self._parents.items()
        }

    def _draft(self, table: sa.FromClause) -> _Draft:
        if not isinstance(table, sa.Table):
            raise Wrong(f"{table} is no table")
        return self._drafts.setdefault(table, _Draft())

    def _watch(self, member: Member, family: Family, columns: frozenset[sa.Column[Any]] | None) -> None:
        for table in {family.table, member.table}:
            own = None if columns is None else [column.name for column in columns if column.table is table]
            self._draft(table).watch(own)

    def _add_joined(self, member: Member, family: Family, rules: Sequence[Rule]) -> None:
        # Joined inheritance: a row of the class's own table is part of the root's row, whose key it has.
        targets = {target for rule in rules for target in rule_targets(rule)}
        kinds = table_key(family.table)
        names = [column.name for column in member.table.primary_key.columns]
        columns = tuple(KeyColumn(name, part.kind) for name, part in zip(names, kinds, strict=True))
        self._add_parent(member.table, ParentKey(family.table.name, columns), targets)

    def _add_parent(self, child: sa.Table, parent: ParentKey, targets: Iterable[str]) -> None:
        self._draft(child).parents.add(parent)
        self._parents.setdefault(child.name, {}).setdefault(parent.table, set()).update(targets)

    def _depend(self, member: Member, family: Family, name: str, rule: Rule) -> None:
        found = relationship_of(member, name, family, self._families)
        targets = rule_targets(rule)
        match found:
            case Children(table, columns):
                self._add_parent(table, ParentKey(family.table.name, columns), targets)
                self._draft(table).watch(None)  # which of the child's columns are read is unknown
            case Referenced(referenced, key):
                draft = self._draft(referenced.table)
                draft.projected = True  # its own keys are recorded, for the look-up
                draft.watch(None)
                self._draft(family.table).watch(column.name for column in key.columns)
                place = self._dependents.setdefault(referenced.table.name, {})
                place.setdefault((family.table.name, key.codec.columns), (key, set()))[1].update(targets)

    def _has_key(self, member: Member, table: sa.FromClause) -> None:
        try:
            if isinstance(table, sa.Table) and table_key(table):
                return
            fault = f"table {getattr(table, 'name', table)!r} has files, but no primary key; add one"
        except ConfigurationError as error:
            fault = str(error)
        self._problems.add(member.model, None, fault)


def _spec(table: sa.Table, draft: _Draft) -> CaptureSpec:
    key = table_key(table)
    watched: tuple[str, ...] | None = None
    if draft.watched is not None:
        # The key's columns always: whether a trigger compares keys or watched columns, a changed key is a change.
        names = draft.watched | {column.name for column in key} if draft.projected or draft.parents else set()
        watched = tuple(column.name for column in table.columns if column.name in names)
    return CaptureSpec(
        table=table.name,
        schema=table.schema,
        key=key,
        projected=draft.projected,
        watched=watched,
        parents=tuple(sorted(draft.parents, key=str)),
        files=tuple(FileColumn(name, managed_only) for name, managed_only in sorted(draft.files.items())),
        linked=tuple(sorted(draft.linked)),
    )
