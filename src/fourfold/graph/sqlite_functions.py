"""Functions that each connection to the embedded graph knows besides SQLite's own. Values come and go as JSON text.

Aggregates are ours because SQLite's don't have the pattern language's meaning: its `max` puts text above numbers and
reads floats back with an error in the last digit, and its `sum` adds text as zero.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, cast

from fourfold.graph.values import order_key

if TYPE_CHECKING:
    import sqlite3

__all__ = ["register"]


def register(connection: sqlite3.Connection) -> None:
    """Make the functions known to `connection`."""
    connection.create_function("fourfold_bytes", 1, bytes.fromhex, deterministic=True)  # unhex() came with 3.41 only
    connection.create_function("fourfold_property", 2, _property, deterministic=True)
    connection.create_aggregate("fourfold_minimum", 1, cast("Any", _Minimum))  # typeshed knows aggregates of int only
    connection.create_aggregate("fourfold_maximum", 1, cast("Any", _Maximum))
    connection.create_aggregate("fourfold_total", 1, cast("Any", _Total))
    connection.create_aggregate("fourfold_average", 1, cast("Any", _Average))
    connection.create_aggregate("fourfold_collect", 2, cast("Any", _Collect))


def _property(properties: str, name: str) -> str | None:
    """Return a property whose name SQLite's JSON paths can't spell: it has quotes, backslashes or the like."""
    found = json.loads(properties)
    return json.dumps(found[name], ensure_ascii=False) if name in found else None


class _Extreme:
    """Keeps the first or last value in the language's order."""

    sign = 1

    def __init__(self) -> None:
        self._text: str | None = None
        self._key: tuple[Any, ...] = ()

    def step(self, text: str | None, /) -> None:
        if text is None:
            return
        key = order_key(json.loads(text))
        if self._text is None or (key > self._key if self.sign > 0 else key < self._key):
            self._text, self._key = text, key

    def finalize(self) -> str | None:
        return self._text


class _Maximum(_Extreme):
    pass


class _Minimum(_Extreme):
    sign = -1


class _Numbers:
    """Keeps numbers, to add them exactly: the sum doesn't depend on the order of rows."""

    def __init__(self) -> None:
        self._numbers: list[int | float] = []

    def step(self, text: str | None, /) -> None:
        value = None if text is None else json.loads(text)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self._numbers.append(value)

    def sum(self) -> int | float:
        if all(isinstance(number, int) for number in self._numbers):
            return sum(self._numbers)
        try:
            return math.fsum(self._numbers)
        except OverflowError:
            return math.copysign(math.inf, sum(self._numbers))


class _Total(_Numbers):
    def finalize(self) -> str:
        return _number(self.sum())


class _Average(_Numbers):
    def finalize(self) -> str | None:
        return _number(self.sum() / len(self._numbers)) if self._numbers else None


def _number(value: float) -> str:
    if math.isinf(value):
        return "9e999" if value > 0 else "-9e999"  # JSON has no infinity; SQLite and Python read these as it
    return json.dumps(value)


class _Collect:
    """Joins JSON texts to a list; with a key, equal keys once."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._keys: set[tuple[type, object]] = set()

    def step(self, text: str | None, key: object) -> None:
        if text is None:
            return
        if key is not None:
            known = (str if isinstance(key, str) else float, key)  # 1 and 1.0 are one value
            if known in self._keys:
                return
            self._keys.add(known)
        self._texts.append(text)

    def finalize(self) -> str:
        return f"[{','.join(self._texts)}]"
