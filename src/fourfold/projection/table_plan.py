"""One projected table: how its rows are read, and what each becomes in each target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, raiseload, selectin_polymorphic, selectinload, undefer
from sqlalchemy.orm.exc import DetachedInstanceError
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.orm.state import InstanceState

from fourfold.errors import ValidationError
from fourfold.projection.items import EdgeItem, GraphFragment, NodeItem, Owner, PointFragment, PointItem
from fourfold.projection.keys import KeyCodec
from fourfold.projection.row_key import RowKey
from fourfold.projection.rules import GRAPH, FunctionRule, Item, PointRule, Reads, Rule, collection_target

__all__ = ["TablePlan", "rule_targets"]

_NO_MODELS: Mapping[str, str] = MappingProxyType({})


def rule_targets(rule: Rule) -> tuple[str, ...]:
    """Return the targets that a rule has something for."""
    if isinstance(rule, PointRule):
        return (collection_target(rule.collection),)
    if isinstance(rule, FunctionRule):
        graph = (GRAPH,) if rule.labels or rule.edges else ()
        return (*graph, *map(collection_target, rule.collections))
    return (GRAPH,)


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What the rows of one table become.

    Args:
        table: The table; of a hierarchy, the root's.
        model: The class that is selected; of a hierarchy, the root.
        row_key: Its primary key.
        rules: By class: what its instances become, in the order of the declarations.
        targets: All targets concerned: `graph` first, then `vectors.<collection>` by name.
    """

    table: sa.Table
    model: type[Any]
    row_key: RowKey
    rules: Mapping[type, tuple[Rule, ...]]
    targets: tuple[str, ...]

    @property
    def key(self) -> KeyCodec:
        """Encodes and decodes the primary key."""
        return self.row_key.codec

    def key_of(self, instance: object) -> str:
        """Return the key of an instance that has one.

        Raises:
            ValidationError: Code `projection.key`, when a part of it is None (not flushed yet).
        """
        text = self.row_key.text(instance)
        if text is None:
            message = f"{type(instance).__name__}: an instance without a primary key has no row; flush it first"
            raise ValidationError(message, code="projection.key", table=self.table.name)
        return text

    def statement(self, keys: Sequence[str]) -> sa.Select[Any]:
        """Return the SELECT of the instances of `keys`; add `load_options(target)` to it.

        One parameter per key and part of it: keep `keys` at 500 or below (SQLite's limit is 32,766).

        Raises:
            ValidationError: Code `projection.key`, for a text that is no key of this table.
        """
        return sa.select(self.model).where(self.row_key.condition(keys))

    def load_options(self, target: str) -> tuple[ORMOption, ...]:
        """Return options that load all that the rules for `target` may read; any other relationship raises."""
        options: list[Any] = []
        subclasses = [model for model in self.rules if model is not self.model]
        if subclasses:
            options.append(selectin_polymorphic(self.model, subclasses))
        for model in self.rules:
            reads = self._reads(model, target)
            options += [selectinload(getattr(model, name)) for name in reads.relationships]
            options += [undefer(getattr(model, name)) for name in _deferred(model, reads)]
        # Last, and for all entities: a property that reads further than depends_on would be stale later, unnoticed.
        return (*options, raiseload("*"))

    def fragment(
        self, target: str, key: str, instance: object | None, model_names: Mapping[str, str] = _NO_MODELS
    ) -> GraphFragment | PointFragment:
        """Return what the row has in `target`; a pure function of the instance, which is not changed.

        Args:
            target: `graph` or `vectors.<collection>`.
            key: The row's key.
            instance: The row, loaded with `load_options(target)`; None when it is gone: the fragment is empty.
            model_names: Collection → name of what embeds its texts.

        Raises:
            ValidationError: `projection.value`: a value that targets can't hold, or an item without identity;
                `projection.undeclared`: a relationship that `depends_on` doesn't name was read, or a function yielded
                what it doesn't declare. What a user's own property or function raises comes out as it is.
        """
        owner = Owner(self.table.name, key)
        items = [] if instance is None else self._items(target, instance)
        if target == GRAPH:
            nodes = tuple(item for item in items if isinstance(item, NodeItem))
            return GraphFragment(owner, nodes, tuple(item for item in items if isinstance(item, EdgeItem)))
        collection = target.removeprefix("vectors.")
        points = tuple(item for item in items if isinstance(item, PointItem))
        return PointFragment(owner, collection, points, model_names.get(collection, ""))

    def rules_for(self, model: type, target: str) -> tuple[Rule, ...]:
        """Return a class's rules for one target; a class that isn't known has those of its nearest base."""
        rules = next((self.rules[base] for base in model.__mro__ if base in self.rules), ())
        return tuple(rule for rule in rules if target in rule_targets(rule))

    def _items(self, target: str, instance: object) -> list[Item]:
        found: list[Item] = []
        for rule in self.rules_for(type(instance), target):
            try:
                found += _emit(rule, target, instance)
            except (sa.exc.InvalidRequestError, DetachedInstanceError) as error:
                raise _undeclared(rule, instance, error) from error
        return found

    def _reads(self, model: type, target: str) -> Reads:
        reads = Reads()
        for rule in self.rules_for(model, target):
            reads |= rule.reads
        return reads


def _emit(rule: Rule, target: str, instance: object) -> Iterator[Item]:
    return rule.items_for(target, instance) if isinstance(rule, FunctionRule) else rule.items(instance)


def _deferred(model: type, reads: Reads) -> list[str]:
    # What a property reads is unknown, so then all of them: a deferred column would be fetched while projecting.
    mapper: Mapper[Any] = sa.inspect(model)
    deferred = [attribute.key for attribute in mapper.column_attrs if attribute.deferred]
    return [name for name in deferred if reads.columns is None or name in reads.attributes]


def _undeclared(rule: Rule, instance: object, error: Exception) -> ValidationError:
    state: InstanceState[Any] = sa.inspect(instance)
    relations = state.mapper.relationships
    absent = [relation for relation in relations if relation.key in state.unloaded]
    # SQLAlchemy names the relationship in its text only; the text chooses what the hint names, never whether it is one.
    named = [relation.key for relation in absent if str(relation) in str(error)]
    names = named or [relation.key for relation in absent]
    what = ", ".join(repr(name) for name in names) or "of a related class"
    declared = tuple(sorted({*rule.reads.relationships, *named}))
    message = f"{rule.where}: its projection reads relationship {what}, which depends_on doesn't name ({error})"
    hint = f"Add depends_on={declared!r}, so that a change there projects this row again; it reaches one step"
    return ValidationError(
        message, code="projection.undeclared", hint=hint, where=rule.where, relationships=tuple(names)
    )
