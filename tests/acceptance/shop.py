"""An application of its own for the command line: `--app tests.acceptance.shop:Base`. No texts, so no embedder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fourfold.projection import Edge, Node, Point
from fourfold.rows.engine import open_engine, write_transaction
from fourfold.rows.types import FileKey

APP = "tests.acceptance.shop:Base"


class Base(DeclarativeBase): ...


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    portrait: Mapped[str | None] = mapped_column(FileKey)
    __projections__ = (Node("Customer", properties=("name",)),)


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customers.id"))
    taste: Mapped[list[float] | None] = mapped_column(sa.JSON)
    __projections__ = (
        Node("Order"),
        Edge("OF", "customer_id"),
        Point("orders", vector="taste", dimension=2),
    )


def execute(folder: Path, *statements: str) -> None:
    """Run SQL on the rows of a data folder as somebody does who knows nothing of Fourfold's Python."""

    async def run() -> None:
        engine = open_engine(f"sqlite:///{folder / 'rows.db'}")
        try:
            async with write_transaction(engine) as connection:
                for statement in statements:
                    await connection.exec_driver_sql(statement)
        finally:
            await engine.dispose()

    asyncio.run(run())


def make_tables(folder: Path) -> None:
    """What the application's own migrations would do."""

    async def run() -> None:
        engine = open_engine(f"sqlite:///{folder / 'rows.db'}")
        try:
            async with write_transaction(engine) as connection:
                await connection.run_sync(Base.metadata.create_all)
        finally:
            await engine.dispose()

    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(run())


CUSTOMERS = "INSERT INTO customers (id, name) VALUES (1, 'Ada'), (2, 'Grace')"
ORDERS = "INSERT INTO orders (id, customer_id, taste) VALUES (10, 1, '[1.0, 0.0]'), (11, 2, '[0.0, 1.0]')"
