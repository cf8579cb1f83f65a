"""All declarations of an application, checked and compiled: what is captured, who depends on whom, what rows become.

Immutable and pure; the same declarations give the same plan, and the same digest, in every process and whatever the
order in which classes were defined. The relay, verify, capture and the stores' schemas all read it, and nobody else
decides what a row becomes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import registry as Registry  # noqa: N812 - `registry` names instances here

from fourfold.projection.binding import Binder
from fourfold.projection.capture_plan import CapturePlan, Dependent
from fourfold.projection.capture_spec import CaptureSpec
from fourfold.projection.declarations import CollectionPlan, Declaration, Node
from fourfold.projection.families import Family, gather
from fourfold.projection.graph_names import GraphNames
from fourfold.projection.problems import Problems
from fourfold.projection.rules import GRAPH, Rule
from fourfold.projection.table_plan import TablePlan, rule_targets

__all__ = ["Dependent", "Plan", "TablePlan", "check_models", "compile_plan"]

# What our own code makes of a declaration. Raise it when a release makes something else of the same one (the text of a
# Decimal, say): every digest changes, so every row is projected again.
_FORMAT = 1

_NOTHING: Mapping[type, Sequence[Declaration]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Plan:
    """The compiled declarations.

    Args:
        tables: Projected tables by name.
        captures: What triggers have to record, per table; also of tables that others depend on, or that name files.
        labels: Label → names of its identity's properties, sorted; value nodes included.
        edges: Type → pairs of (label at the start, label at the end).
        collections: Vector collections by name.
        targets: `graph` if anything is declared for it, then `vectors.<collection>` by name.
        digest: Hash of all declarations.
    """

    tables: Mapping[str, TablePlan]
    captures: tuple[CaptureSpec, ...]
    labels: Mapping[str, tuple[str, ...]]
    edges: Mapping[str, frozenset[tuple[str, str]]]
    collections: Mapping[str, CollectionPlan]
    targets: tuple[str, ...]
    digest: str
    _interests: Mapping[tuple[str, str], str] = field(repr=False)
    _dependents: Mapping[str, tuple[Dependent, ...]] = field(repr=False)
    _parents: Mapping[str, Mapping[str, tuple[str, ...]]] = field(repr=False)

    def interests(self) -> Mapping[tuple[str, str], str]:
        """Return, by (target, table), the hash of what the table's rows become there."""
        return self._interests

    def dependents_of(self, table: str) -> tuple[Dependent, ...]:
        """Return the rows to look up when rows of `table` changed: those that point at them (many-to-one)."""
        return self._dependents.get(table, ())

    def parents_of(self, table: str) -> Mapping[str, tuple[str, ...]]:
        """Return table → targets of the rows whose keys the triggers of `table` write (one-to-many)."""
        return self._parents.get(table, {})

    def targets_of(self, table: str) -> tuple[str, ...]:
        """Return the targets of a table's own rows; none for a table that isn't projected."""
        found = self.tables.get(table)
        return found.targets if found else ()


def compile_plan(models: Iterable[type], *, extra: Mapping[type, Sequence[Declaration]] = _NOTHING) -> Plan:
    """Check all declarations and compile them.

    Args:
        models: Mapped classes (see `models_of`); those without declarations may be referenced by others.
        extra: Declarations for classes that can't be edited, in addition to their own.

    Raises:
        ConfigurationError: Code `projection.declaration`; `problems` lists everything that is wrong.

    Example:
        >>> import sqlalchemy as sa
        >>> from sqlalchemy.orm import DeclarativeBase
        >>> class Base(DeclarativeBase): ...
        >>> class Artist(Base):
        ...     __tablename__ = "artists"
        ...     id = sa.Column(sa.Integer, primary_key=True)
        ...     name = sa.Column(sa.Text)
        ...     __projections__ = (Node("Artist", properties=("name",)),)
        >>> plan = compile_plan([Artist])
        >>> plan.tables["artists"].fragment("graph", "7", Artist(id=7, name="Ada")).nodes[0].properties["name"]
        'Ada'
    """
    models = list(models)
    # Only theirs: a class elsewhere in the process that can't be mapped is no concern of this plan.
    for registry in {id(found): found for found in map(_registry_of, [*models, *extra]) if found is not None}.values():
        registry.configure(cascade=True)
    problems = Problems()
    plan = _compile(models, extra, problems, partial=False)
    problems.raise_any()
    return plan


def _registry_of(model: type) -> Registry | None:
    mapper: Any = sa.inspect(model, raiseerr=False)
    return getattr(mapper, "registry", None)  # what isn't mapped is told with the other problems


def check_models(models: Iterable[type]) -> None:
    """Check declarations when mappers are configured, without what `projections=` may still add to them.

    Raises:
        ConfigurationError: As `compile_plan`.
    """
    problems = Problems()
    _compile(models, _NOTHING, problems, partial=True)
    problems.raise_any()


def _compile(
    models: Iterable[type], extra: Mapping[type, Sequence[Declaration]], problems: Problems, *, partial: bool
) -> Plan:
    families = gather(models, extra, problems)
    names = GraphNames(problems)
    captures = CapturePlan(families, problems, partial=partial)
    for family in families.sorted():
        _read_labels(family, names)
    tables: dict[str, TablePlan] = {}
    for family in families.sorted():
        rules = {}
        for member in family.members:
            binder = Binder(member, family, families, problems, partial=partial)
            found = rules[member.model] = tuple(binder.rules())
            names.add_rules(member.model, family, found, binder.labels)
            captures.add_rules(member, family, found)
            captures.add_files(member, binder.files, binder.linked)
        table = _table_plan(family, rules)
        if table is not None:
            tables[family.table.name] = table
    names.check_edges(partial=partial)
    problems.raise_any()  # the rest is made of what is known to be right
    return _plan(tables, names, captures)


def _read_labels(family: Family, names: GraphNames) -> None:
    # Before anything is bound: an edge may name a label of any class.
    for member in family.members:
        for declaration in member.declarations:
            if isinstance(declaration, Node) and names.own(member.model, family, declaration):
                family.node_ids[declaration.label] = declaration.id


def _table_plan(family: Family, rules: Mapping[type, tuple[Rule, ...]]) -> TablePlan | None:
    targets = {target for found in rules.values() for rule in found for target in rule_targets(rule)}
    if not targets or family.key is None:
        return None
    return TablePlan(family.table, family.model, family.key, MappingProxyType(dict(rules)), _in_order(targets))


def _plan(tables: dict[str, TablePlan], names: GraphNames, captures: CapturePlan) -> Plan:
    interests = {
        (target, name): _hash([_FORMAT, target, *_description(table, target)])
        for name, table in sorted(tables.items())
        for target in table.targets
    }
    specs = captures.specs()
    collections = names.collections()
    described = [
        sorted([target, table, digest] for (target, table), digest in interests.items()),
        [dataclasses.asdict(spec) for spec in specs],
        sorted([name, sorted(collection.payload)] for name, collection in collections.items()),
    ]
    return Plan(
        tables=MappingProxyType(dict(sorted(tables.items()))),
        captures=specs,
        labels=MappingProxyType(names.labels()),
        edges=MappingProxyType(names.edges()),
        collections=MappingProxyType(collections),
        targets=_in_order({target for target, _ in interests}),
        digest=_hash(described),
        _interests=MappingProxyType(interests),
        _dependents=MappingProxyType(captures.dependents()),
        _parents=MappingProxyType(captures.parents()),
    )


def _description(table: TablePlan, target: str) -> Sequence[Any]:
    key = [[column.name, column.kind] for column in table.key.columns]
    classes = []
    for model in table.rules:
        rules = [_json(rule.describe()) for rule in table.rules_for(model, target)]
        if rules:
            # In the graph a row's items have no order; in a collection it is their ordinal, so it counts.
            classes.append([_identity(table, model), sorted(rules) if target == GRAPH else rules])
    return [key, sorted(classes)]


def _identity(table: TablePlan, model: type) -> str:
    # The database's name of a class in a hierarchy; a class's Python name may change without consequence.
    mapper: Any = model.__mapper__  # type: ignore[attr-defined]
    return "" if len(table.rules) == 1 else f"{mapper.polymorphic_identity!r}"


def _in_order(targets: set[str]) -> tuple[str, ...]:
    return tuple(sorted(targets, key=lambda target: (target != GRAPH, target)))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _hash(value: object) -> str:
    return blake2b(_json(value).encode(), digest_size=16).hexdigest()
