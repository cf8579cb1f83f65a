"""Names of mapped attributes as declarations take them: text, `Recording.title`, or a Python property.

Attribute objects can't stay in a declaration: their `==` makes SQL, so declarations that hold them could neither be
compared nor hashed. What is wrong with a name is kept beside it, and reported with all other problems when the mappers
are configured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, cast

from sqlalchemy.orm import QueryableAttribute

__all__ = ["Attribute", "AttributeRef", "Attributes", "Named", "pairs", "ref", "refs", "words"]

Attribute = str | QueryableAttribute[Any] | property
Attributes = Attribute | Sequence[Attribute]
Named = Attributes | Mapping[str, Attribute] | Sequence[tuple[str, Attribute]]


class AttributeRef(str):
    """An attribute's name; `owner` is the class it was taken from, `problem` says why it names none."""

    __slots__ = ("owner", "problem")
    owner: type | None
    problem: str

    def __new__(cls, name: str, owner: type | None = None, problem: str = "") -> Self:
        """Make one from its name."""
        made = super().__new__(cls, name)
        made.owner, made.problem = owner, problem
        return made


def ref(value: object) -> AttributeRef:
    """Return the name that `value` stands for.

    Example:
        >>> ref("title")
        'title'
    """
    if isinstance(value, AttributeRef):
        return value
    if isinstance(value, str):
        return AttributeRef(value)
    if isinstance(value, QueryableAttribute):
        return AttributeRef(value.key, owner=cast("type", value.class_))
    if isinstance(value, property) and value.fget is not None:
        return AttributeRef(value.fget.__name__)
    # Inside a class body `title` is still a mapped_column() or Field(), which doesn't know its name yet.
    problem = f"a {type(value).__name__} has no name yet inside the class body; write the attribute's name as text"
    return AttributeRef(type(value).__name__, problem=problem)


def refs(values: object) -> tuple[AttributeRef, ...]:
    """Return the names in `values`; a single attribute is a tuple of one.

    Example:
        >>> refs("title"), refs(["title", "artist"])
        (('title',), ('title', 'artist'))
    """
    if isinstance(values, (list, tuple)):
        return tuple(ref(value) for value in values)
    return (ref(values),)


def pairs(values: object) -> tuple[tuple[str, AttributeRef], ...]:
    """Return (name in the target, attribute) for a sequence of attributes or a mapping of names to attributes.

    Example:
        >>> pairs(("title", "artist"))
        (('title', 'title'), ('artist', 'artist'))
        >>> pairs({"name": "title"})
        (('name', 'title'),)
    """
    if isinstance(values, Mapping):
        return tuple((str(name), ref(value)) for name, value in values.items())
    if not isinstance(values, (list, tuple)):
        values = (values,)
    return tuple(
        (str(value[0]), ref(value[1])) if isinstance(value, tuple) else (str(ref(value)), ref(value))
        for value in values
    )


def words(values: str | Iterable[str]) -> tuple[str, ...]:
    """Return names as a tuple; one name alone is a tuple of one, never its letters."""
    return (values,) if isinstance(values, str) else tuple(values)
