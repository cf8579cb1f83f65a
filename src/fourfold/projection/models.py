"""Mapped classes of an application; and the check of their declarations at the moment the mappers are configured.

SQLAlchemy configures mappers at their first use. A wrong declaration raises there, once; afterwards whoever compiles a
plan gets the same error. Listeners are registered when `fourfold.projection` is imported, which the declarations do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapper, configure_mappers, registry
from sqlalchemy.orm.exc import UnmappedClassError

from fourfold.errors import ConfigurationError
from fourfold.projection.plan import check_models

__all__ = ["models_of"]

_configured: WeakSet[Mapper[Any]] = WeakSet()
_unchecked: WeakSet[Mapper[Any]] = WeakSet()


def models_of(source: sa.MetaData | registry | type | Iterable[type]) -> list[type]:
    """Return the mapped classes of a MetaData, a registry, or a declarative base (its subclasses).

    Args:
        source: `Base.metadata`, `Base.registry`, `Base`; `SQLModel` or `SQLModel.metadata`; or the classes themselves.

    Returns:
        The classes, by qualified name. For a MetaData: those configured after Fourfold was imported, or derived from a
        `DeclarativeBase`; give the base or the registry where that isn't so.

    Raises:
        ConfigurationError: Code `projection.models`, for something else; `projection.declaration`, when a class that is
            configured now declares something wrong.

    Example:
        >>> class Base(DeclarativeBase): ...
        >>> class Artist(Base):
        ...     __tablename__ = "artists"
        ...     id = sa.Column(sa.Integer, primary_key=True)
        >>> [model.__name__ for model in models_of(Base)]
        ['Artist']
    """
    if isinstance(source, Iterable) and not isinstance(source, type):
        classes = list(source)
        if all(isinstance(model, type) for model in classes):
            return classes  # what isn't mapped among them is told with all other problems
    base = source if isinstance(source, type) else object
    found = source if isinstance(source, registry) else _registry_of(base)
    if isinstance(source, sa.MetaData):
        configure_mappers()  # of the whole process: which registries map its tables is known afterwards only
        mappers = _mappers_on(source)
    elif found is not None:
        found.configure(cascade=True)
        mappers = {mapper for mapper in found.mappers if issubclass(mapper.class_, base)}
    else:
        message = (
            f"{source!r:.80} has no mapped classes; expected a MetaData, a registry or a declarative base, or classes"
        )
        hint = "Pass Base.metadata, or SQLModel.metadata"
        raise ConfigurationError(message, code="projection.models", hint=hint)
    return _sorted(mappers)


def _registry_of(base: type) -> registry | None:
    # DeclarativeBase has `registry`; SQLModel only SQLAlchemy's own mark.
    found = getattr(base, "registry", None) or getattr(base, "_sa_registry", None)
    return found if isinstance(found, registry) else None


def _mappers_on(metadata: sa.MetaData) -> set[Mapper[Any]]:
    known = set(_configured)
    # A base whose mappers were configured before this module was imported fired no event that we saw.
    for base in DeclarativeBase.__subclasses__():
        if "registry" in vars(base):
            with contextlib.suppress(UnmappedClassError):  # a class whose mapping failed half-way is nobody's model
                known |= set(base.registry.mappers)
    return {mapper for mapper in known if _metadata_of(mapper) is metadata}


def _metadata_of(mapper: Mapper[Any]) -> sa.MetaData | None:
    return mapper.local_table.metadata if isinstance(mapper.local_table, sa.Table) else None


def _sorted(mappers: set[Mapper[Any]]) -> list[type]:
    found = {mapper.class_ for mapper in mappers if isinstance(mapper.local_table, sa.Table)}
    return sorted(found, key=lambda model: (model.__module__, model.__qualname__))


@event.listens_for(Mapper, "mapper_configured")
def _remember(mapper: Mapper[Any], _model: type) -> None:
    _configured.add(mapper)
    _unchecked.add(mapper)


@event.listens_for(Mapper, "after_configured")
def _check() -> None:
    fresh = [_metadata_of(mapper) for mapper in _unchecked]
    # Forgotten before the check, not after: a wrong class must not fail every other application of the process for
    # ever.
    _unchecked.clear()
    for metadata in {id(metadata): metadata for metadata in fresh if metadata is not None}.values():
        check_models(_sorted(_mappers_on(metadata)))
