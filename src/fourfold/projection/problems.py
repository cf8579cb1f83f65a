"""What is wrong with declarations, gathered so that all of it is told at once."""

from __future__ import annotations

import dataclasses

from fourfold.errors import ConfigurationError

__all__ = ["Problems"]


class Problems:
    """Gathers problems while declarations are bound to mapped classes; raises once, with all of them."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}  # ordered, and each text once: a base's problem shows in every subclass

    def add(self, model: type, declaration: object, text: str) -> None:
        """Note that `declaration` (None: the class as such) of `model` is wrong."""
        where = model.__name__ if declaration is None else f"{model.__name__}: {_title(declaration)}"
        self._found[f"{where}: {text}"] = None

    def raise_any(self) -> None:
        """Raise if there are problems.

        Raises:
            ConfigurationError: Code `projection.declaration`; `problems` lists every one.
        """
        if not self._found:
            return
        found = list(self._found)
        message = f"{len(found)} wrong declaration{'s' if len(found) > 1 else ''}:\n" + "\n".join(
            f"- {t}" for t in found
        )
        raise ConfigurationError(message, code="projection.declaration", problems=found)


def _title(declaration: object) -> str:
    if not dataclasses.is_dataclass(declaration):
        return f"{declaration!r:.80}"
    names = [field.name for field in dataclasses.fields(declaration) if not field.kw_only]
    values = [getattr(declaration, name) for name in names]
    return f"{type(declaration).__name__}({', '.join(_text(value) for value in values)})"


def _text(value: object) -> str:
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return f"{str(value)!r}" if isinstance(value, str) else f"{value!r:.80}"
