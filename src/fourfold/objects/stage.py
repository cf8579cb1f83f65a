"""Objects on their way in: a row with a lease, made before the first byte is stored, so that no byte is ever nobody's.

A stage row says: bytes under this key belong to an upload, and until its lease ends nobody removes them. It is written
in short transactions of its own on the *stage engine*: on SQLite a file of its own (`stage.db`), for an upload must not
wait for the rows' one writer, and on PostgreSQL the same database through a small pool of its own, for an upload must
not wait for a connection that its own unit holds (F40). Leases are measured by the database's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from fourfold.errors import ConflictError
from fourfold.faultpoints import reach
from fourfold.rows.clock import now_sql
from fourfold.rows.engine import read_transaction, write_transaction
from fourfold.rows.tables import stage

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["StageRegistry", "stage_lost"]


class StageRegistry:
    """The staged uploads of one database.

    Args:
        engine: The stage engine, migrated (`rows.migrate`).

    Example:
        >>> StageRegistry(engine).is_apart  # doctest: +SKIP
        True
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._now: sa.ColumnElement[float] = sa.literal_column(now_sql(engine.dialect.name), sa.Double)

    @property
    def is_apart(self) -> bool:
        """True where stages lie in a file of their own and no transaction spans both (SQLite)."""
        return self.engine.dialect.name == "sqlite"

    async def register(self, key: str, lease_seconds: float) -> None:
        """Say that bytes will come under `key`; durable on return.

        Args:
            key: A new key.
            lease_seconds: How long nobody removes them, from now; 0 or less has run out at once.
        """
        await reach("objects.before_stage")
        values = {"key": key, "lease_until": self._now + lease_seconds, "created_at": self._now}
        async with write_transaction(self.engine) as connection:
            await connection.execute(sa.insert(stage).values(values))
        await reach("objects.after_stage")

    async def renew(self, key: str, lease_seconds: float) -> None:
        """Let the lease run from now on; also one that has run out and that nobody took.

        Raises:
            ConflictError: Code `objects.stage_lost`: collection has taken it.
        """
        change = sa.update(stage).where(stage.c.key == key).values(lease_until=self._now + lease_seconds)
        async with write_transaction(self.engine) as connection:
            renewed = (await connection.execute(change)).rowcount
        if not renewed:
            raise stage_lost(key)
        await reach("objects.after_renew")

    async def release(self, keys: Collection[str]) -> None:
        """End leases now: what was uploaded for nothing goes with the next collection."""
        change = sa.update(stage).where(stage.c.key.in_(keys)).values(lease_until=self._now)
        async with write_transaction(self.engine) as connection:
            await connection.execute(change)

    async def drop(self, keys: Collection[str]) -> None:
        """Forget stages; whoever calls says what becomes of the bytes."""
        await reach("objects.before_unstage")
        async with write_transaction(self.engine) as connection:
            await connection.execute(sa.delete(stage).where(stage.c.key.in_(keys)))

    async def held(self, keys: Collection[str]) -> set[str]:
        """Return those of `keys` that are staged, whether their leases have run out or not."""
        async with read_transaction(self.engine) as connection:
            return set(await connection.scalars(sa.select(stage.c.key).where(stage.c.key.in_(keys))))

    async def expired(self, limit: int, *, after: str = "") -> list[str]:
        """Return up to `limit` keys whose leases have run out, sorted, from behind the key `after`."""
        over = sa.select(stage.c.key).where(stage.c.lease_until <= self._now, stage.c.key > after)
        query = over.order_by(stage.c.key).limit(limit)
        async with read_transaction(self.engine) as connection:
            return list(await connection.scalars(query))


def stage_lost(key: str) -> ConflictError:
    """Return the error of an upload whose bytes collection has taken."""
    message = f"object {key} is staged no more: its lease ran out and collection has taken it"
    hint = "Upload it again; raise the stage's lease if units of work take longer"
    return ConflictError(message, code="objects.stage_lost", hint=hint, key=key)
