"""F38: processes of the old and the new declarations at work together, and data that isn't declared any more."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fourfold.projection import Edge, Node, Point
from fourfold.rows.engine import write_transaction
from fourfold.testing.faults import FaultPoints
from tests.world import end_leases, execute, open_models, property_in_graph, scalar


def shop(*, new: bool, collection: str = "things") -> type[DeclarativeBase]:
    """The same tables, with the declarations of one release or the next."""

    class Shop(DeclarativeBase):
        pass

    class Maker(Shop):
        __tablename__ = "makers"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        __projections__ = (Node("Maker" if new else "Firm", properties=("name",)),)

    class Thing(Shop):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        colour: Mapped[str | None]
        maker_id: Mapped[int | None] = mapped_column(sa.ForeignKey("makers.id"))
        __projections__ = (
            (Node("Thing", properties=("name", "colour")), Edge("MADE_BY", "maker_id"), Point(collection, text="name"))
            if new
            else (Node("Item", properties=("name",)), Edge("FROM", "maker_id"), Point("things", text="colour"))
        )

    Shop.Maker, Shop.Thing = Maker, Thing
    return Shop


async def test_f38_old_and_new_declarations_at_work_together_drop_nothing_and_leave_nothing(rows_url, tmp_path):
    old_base, new_base, folder = shop(new=False), shop(new=True), tmp_path / "data"
    async with open_models(old_base, rows_url, folder) as old:
        async with write_transaction(old.engine) as connection:
            await connection.execute(sa.insert(old_base.Maker.__table__), [{"id": 1, "name": "m"}])
            rows = [{"id": number, "name": f"t{number}", "colour": "red", "maker_id": 1} for number in range(5)]
            await connection.execute(sa.insert(old_base.Thing.__table__), rows)
        await old.drain()
        await execute(old, "UPDATE things SET name = 'changed' WHERE id = 1")
        with FaultPoints() as points:
            pause = points.pause("relay.write_before")  # a lot of the old shape is under way
            old_work = asyncio.create_task(old.drain())
            await pause.wait_reached()
            async with open_models(new_base, rows_url, folder) as new:
                await execute(old, "UPDATE things SET name = 'by the old' WHERE id = 2")
                await execute(new, "INSERT INTO things (id, name, colour, maker_id) VALUES (9, 'new', 'blue', 1)")
                await old.drain()  # neither dispatches nor claims any more
                assert await scalar(new, "SELECT count(*) FROM fourfold_change") > 0
                assert not (await old.status()).in_step
                await new.drain()
                pause.resume()
                await old_work
                await old.drain()
                await end_leases(new)
                await execute(new, "UPDATE fourfold_target SET paused_until = NULL")
                await new.drain()
                await old.drain()
                status = await new.status()
                assert status.in_step, status
                statistics = await new.graph.statistics()
                assert dict(statistics.nodes) == {"Maker": 1, "Thing": 6}
                assert dict(statistics.edges) == {"MADE_BY": 6}
                assert await new.stores.collections["things"].count() == 6
                assert not (await new.integrity.verify(deep=True)).differs
                nodes = property_in_graph(new, "Thing", "name")
                assert nodes == {0: "t0", 1: "changed", 2: "by the old", 3: "t3", 4: "t4", 9: "new"}


async def test_f38_a_collection_that_is_no_longer_declared_holds_up_nothing_and_keeps_its_data(rows_url, tmp_path):
    old_base, new_base = shop(new=True, collection="before"), shop(new=True, collection="after")
    async with open_models(old_base, rows_url, tmp_path / "data") as old:
        await execute(old, "INSERT INTO things (id, name) VALUES (1, 'one')")
        await old.drain()
    async with open_models(new_base, rows_url, tmp_path / "data") as new:
        await new.drain()
        status = await new.status()
    with closing(sqlite3.connect(tmp_path / "data" / "vectors.db")) as vectors:
        assert vectors.execute("SELECT count(*) FROM point").fetchone() == (2,)  # the old one, and the new one
    assert status.in_step
