"""F23 to F25: uploads, commits, references and collection in every order, with processes that are killed for real."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from fourfold.errors import ConflictError, FourfoldError, NotFoundError
from fourfold.objects.inspection import check_object
from fourfold.objects.registry import ObjectRegistry
from fourfold.objects.stage import StageRegistry
from fourfold.objects.upload import Uploader
from fourfold.rows.engine import open_engine, read_transaction, write_transaction
from fourfold.rows.tables import object_ref, stage
from fourfold.testing.objects import at_points, open_objects, pausing

REPOSITORY = Path(__file__).parents[2]
ROUNDS = 200


@pytest.fixture
async def objects(engine, tmp_path):
    async with open_objects(engine, tmp_path) as parts:
        yield parts


async def lease_is_over(parts):
    async with write_transaction(parts.stages.engine) as connection:
        await connection.execute(sa.update(stage).values(lease_until=0.0))


async def staged(parts):
    async with read_transaction(parts.stages.engine) as connection:
        return set(await connection.scalars(sa.select(stage.c.key)))


async def named(parts):
    async with read_transaction(parts.engine) as connection:
        return set(await connection.scalars(sa.select(object_ref.c.object_key)))


async def nothing_dangles(parts):
    """I5 and I6: what a row names is registered, and its bytes are there, whole."""
    for key in await named(parts):
        assert await check_object(parts.store, await parts.stored.info(key), deep=True) is None


# F23: killed between upload and commit --------------------------------------------------------------------------------

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from fourfold.rows.engine import open_engine
from fourfold.testing.objects import at_points, open_objects

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def main(url, folder, point):
    engine = open_engine(url)
    async with open_objects(engine, Path(folder)) as objects:
        async with objects.unit() as files:
            with at_points({point: die}):
                stored = await files.put(b"x" * 3_000_000)
                await files.link("songs", "1", "file", stored.key)
                await files._session.commit()
                await files.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.kill
@pytest.mark.parametrize(
    ("point", "survives"),
    [
        ("objects.after_stage", False),
        ("objects.before_write", False),
        ("objects.before_sync", False),
        ("objects.before_rename", False),
        ("objects.after_rename", False),
        ("objects.after_upload", False),
        ("objects.before_promote", False),
        ("objects.after_promote", False),
        ("objects.after_unit", True),
    ],
)
async def test_f23_a_killed_upload_is_collected_after_its_lease_and_never_before(
    objects, rows_url, tmp_path, point, survives
):
    command = [sys.executable, "-c", CHILD, rows_url, str(tmp_path), point]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    child = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()

    there = await objects.kept()
    report = await objects.collect()
    await objects.settle()
    assert report.stages_queued == report.stages_dropped == report.removed == []
    assert await objects.kept() == there

    await lease_is_over(objects)
    report = await objects.collect()
    await objects.settle()
    assert bool(await objects.kept()) == bool(await objects.registered()) == survives
    assert list((tmp_path / "store" / "incoming").iterdir()) == []
    assert await staged(objects) == set()
    assert await objects.queued() == []
    assert bool(report.stages_queued) != survives
    await nothing_dangles(objects)


# promotion against collection of the stage, in every order ------------------------------------------------------------


async def commit_of(parts, stored):
    async with parts.unit() as files:
        files._pending[stored.key] = stored
        await files.link("songs", stored.key, "file", stored.key)
    return stored.key


@pytest.mark.parametrize(
    "point", ["objects.after_stage_lock", "objects.before_stage_commit", "objects.after_stage_commit"]
)
async def test_f23_promotion_while_collection_has_the_stage_fails_or_the_object_survives(objects, point):
    stored = await objects.uploader.put(b"x")
    await lease_is_over(objects)
    with pausing(point) as pause:
        collecting = asyncio.create_task(objects.collect())
        await pause.reached.wait()
        committing = asyncio.create_task(commit_of(objects, stored))
        await asyncio.wait([committing], timeout=0.3)  # on the lock, or refused already
        pause.go_on.set()
        await collecting
    await asyncio.wait([committing])
    assert isinstance(committing.exception(), ConflictError)
    assert committing.exception().code == "objects.stage_lost"
    await objects.settle()
    assert await objects.kept() == []
    assert await objects.registered() == []


@pytest.mark.parametrize("point", ["objects.before_promote", "objects.after_promote"])
async def test_f23_collection_while_a_unit_promotes(objects, point):
    stored = await objects.uploader.put(b"x")
    await lease_is_over(objects)
    with pausing(point) as pause:
        committing = asyncio.create_task(commit_of(objects, stored))
        await pause.reached.wait()
        collecting = asyncio.create_task(objects.collect())
        await asyncio.wait([collecting], timeout=0.3)
        pause.go_on.set()
        await asyncio.wait([committing, collecting])
    await objects.settle()
    await objects.collect()
    await objects.settle()
    if committing.exception() is None:
        assert await objects.kept() == await objects.registered() == [stored.key]
    else:
        assert committing.exception().code == "objects.stage_lost"
        assert await objects.kept() == await objects.registered() == []
    await nothing_dangles(objects)
    assert await staged(objects) == set()


@pytest.mark.parametrize(
    "point", ["objects.before_unstage", "objects.before_remove_bytes", "objects.after_remove_bytes"]
)
async def test_f23_removal_that_dies_at_any_step_begins_again_and_promotion_stays_refused(objects, point):
    class DiedError(Exception):
        pass

    def die():
        raise DiedError

    stored = await objects.uploader.put(b"x")
    await lease_is_over(objects)
    await objects.collect()
    with at_points({point: die}) as seen:
        try:
            await objects.target.remove(await objects.queued())
        except DiedError:
            assert seen[point] == 1
        else:
            assert seen[point] == 0  # PostgreSQL has no second file
    with pytest.raises(ConflictError) as caught:
        await commit_of(objects, stored)
    assert caught.value.code == "objects.stage_lost"
    await objects.settle()
    assert await objects.kept() == []
    assert await staged(objects) == set()


async def test_f23_the_stage_decides_when_the_work_row_was_quarantined(objects):
    """The tombstone is gone, the bytes may be: the stage row that went first tells."""
    first, second = await objects.uploader.put(b"1"), await objects.uploader.put(b"2")
    await lease_is_over(objects)
    await objects.collect()
    await objects.target.remove([first.key])
    async with write_transaction(objects.engine) as connection:
        await connection.execute(sa.text("DELETE FROM fourfold_work"))
    with pytest.raises(ConflictError):
        await commit_of(objects, first)
    if objects.stages.is_apart:  # nobody removed anything of the second one: promoting it is right
        await commit_of(objects, second)
        await objects.target.remove([second.key])  # a late worker
        assert await objects.store.read(second.key) == b"2"
    await nothing_dangles(objects)


async def test_f23_promotion_decides_under_the_write_lock_whoever_began_the_transaction(sqlite_url, tmp_path):
    """An application's own engine begins deferred; a stage looked up without the lock could be gone a moment later."""
    path = sqlite_url.removeprefix("sqlite:///")
    looked = []

    class Watching(StageRegistry):
        async def held(self, keys):
            connected = closing(sqlite3.connect(path, timeout=0, isolation_level=None))
            with connected as other, pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            looked.append(keys)
            return await super().held(keys)

    engine = open_engine(sqlite_url)
    foreign = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        async with open_objects(engine, tmp_path) as parts:
            stored = await parts.uploader.put(b"x")
            async with foreign.begin() as connection:
                await ObjectRegistry(Watching(parts.stages.engine)).promote(connection, stored)
            assert looked == [[stored.key]]
            assert await parts.registered() == [stored.key]
    finally:
        await foreign.dispose()
        await engine.dispose()


async def test_f23_a_late_removal_waits_for_the_promotion_that_it_meets(objects):
    """A work row for a staged object exists after no fault we know; the target looks all the same."""
    stored = await objects.uploader.put(b"x")
    with pausing("objects.after_promote") as pause:
        committing = asyncio.create_task(commit_of(objects, stored))
        await pause.reached.wait()
        removing = asyncio.create_task(objects.target.remove([stored.key]))
        done, _ = await asyncio.wait([removing], timeout=0.2)
        assert not done
        pause.go_on.set()
        await asyncio.gather(committing, removing)
    assert await objects.store.read(stored.key) == b"x"


@pytest.mark.slow
async def test_f23_random_rounds_of_promotions_leases_and_collections(objects):
    dice = random.Random(23)
    outcomes = {"committed": 0, "objects.stage_lost": 0}

    async def one(number):
        lease = dice.choice([0.0, 0.0, 3600.0])
        uploader = Uploader(objects.store, objects.stages, lease_seconds=lease)
        try:
            async with objects.unit(uploader=uploader) as files:
                stored = await files.put(str(number).encode())
                await files.link("songs", str(number), "file", stored.key)
            outcomes["committed"] += 1
        except ConflictError as error:
            outcomes[error.code] += 1

    async def collecting():
        while not over.is_set():
            await objects.collect()
            await objects.settle()

    over = asyncio.Event()
    collectors = [asyncio.create_task(collecting()) for _ in range(2)]
    for begin in range(0, ROUNDS, 10):
        await asyncio.gather(*(one(number) for number in range(begin, begin + 10)))
    over.set()
    await asyncio.gather(*collectors)
    await lease_is_over(objects)
    await objects.collect()
    await objects.settle()
    assert sum(outcomes.values()) == ROUNDS
    assert all(outcomes.values())
    assert len(await named(objects)) == outcomes["committed"]
    assert set(await objects.kept()) == await named(objects) == set(await objects.registered())
    await nothing_dangles(objects)


# F24: a reference against collection of the object --------------------------------------------------------------------


async def unnamed_object(parts, data=b"x"):
    async with parts.unit() as files:
        return await files.put(data)


async def reference(parts, key, row="1"):
    async with parts.unit() as files:
        await files.link("songs", row, "file", key)


@pytest.mark.parametrize("point", ["objects.after_candidates", "objects.before_collect_commit"])
async def test_f24_a_reference_after_collection_has_the_object_fails(objects, point):
    stored = await unnamed_object(objects)
    with pausing(point) as pause:
        collecting = asyncio.create_task(objects.collect())
        await pause.reached.wait()
        referencing = asyncio.create_task(reference(objects, stored.key))
        done, _ = await asyncio.wait([referencing], timeout=0.2)
        assert not done  # it waits for the lock, or for SQLite's writer
        pause.go_on.set()
        report = await collecting
    with pytest.raises(ConflictError) as caught:
        await referencing
    assert caught.value.code == "objects.unknown"
    assert report.removed == [stored.key]
    await objects.settle()
    assert await objects.kept() == []


async def test_f24_a_reference_before_collection_has_the_object_survives(objects):
    stored = await unnamed_object(objects)

    async def referencing_unit():
        async with objects.unit() as files:
            await files.link("songs", "1", "file", stored.key)
            held.set()
            await go_on.wait()

    held, go_on = asyncio.Event(), asyncio.Event()
    referencing = asyncio.create_task(referencing_unit())
    await held.wait()
    collecting = asyncio.create_task(objects.collect())
    await asyncio.wait([collecting], timeout=0.3)  # PostgreSQL skips the locked row; SQLite waits
    go_on.set()
    await referencing
    assert (await collecting).removed == []
    await objects.settle()
    await nothing_dangles(objects)
    assert await objects.kept() == [stored.key]


async def test_f24_an_insert_by_anybody_is_decided_by_the_foreign_key(objects):
    stored = await unnamed_object(objects)
    insert = sa.insert(object_ref).values(table_name="t", row_key="1", column_name="c", object_key=stored.key)

    async def foreign():
        async with write_transaction(objects.engine) as connection:
            await connection.execute(insert)

    with pausing("objects.after_candidates") as pause:
        collecting = asyncio.create_task(objects.collect())
        await pause.reached.wait()
        inserting = asyncio.create_task(foreign())
        await asyncio.wait([inserting], timeout=0.2)
        pause.go_on.set()
        await collecting
    with pytest.raises(FourfoldError):
        await inserting
    assert await named(objects) == set()


async def test_f24_one_racing_reference_does_not_undo_the_lot(objects):
    stored = [await unnamed_object(objects, bytes([number])) for number in range(5)]
    async with objects.unit() as files:
        await files.link("songs", "1", "file", stored[2].key)
        held = asyncio.create_task(objects.collect())
        await asyncio.wait([held], timeout=0.3)
    report = await held
    assert set(report.removed) == {one.key for one in stored} - {stored[2].key}
    await objects.settle()
    assert await objects.kept() == [stored[2].key]


@pytest.mark.slow
async def test_f24_random_rounds_of_references_and_collections(objects):
    dice = random.Random(24)
    outcomes = {"named": 0, "objects.unknown": 0}
    passes = 0
    passed = asyncio.Condition()

    async def one(number):
        stored = await unnamed_object(objects, str(number).encode())
        until = passes + dice.randrange(3)  # before, in, or behind a pass that takes it
        async with passed:
            await passed.wait_for(lambda: passes >= until)
        try:
            await reference(objects, stored.key, str(number))
            outcomes["named"] += 1
        except ConflictError as error:
            outcomes[error.code] += 1
            return
        if dice.random() < 0.3:
            async with objects.unit() as files:
                await files.unlink("songs", str(number), "file")

    async def collecting():
        nonlocal passes
        while not over.is_set():
            await objects.collect()
            await objects.settle()
            async with passed:
                passes += 1
                passed.notify_all()

    over = asyncio.Event()
    collectors = [asyncio.create_task(collecting()) for _ in range(2)]
    for begin in range(0, ROUNDS, 10):
        await asyncio.gather(*(one(number) for number in range(begin, begin + 10)))
    over.set()
    await asyncio.gather(*collectors)
    await objects.collect()
    await objects.settle()
    assert sum(outcomes.values()) == ROUNDS
    assert all(outcomes.values())
    assert set(await objects.kept()) == await named(objects) == set(await objects.registered())
    await nothing_dangles(objects)


# F25: equal bytes again while they are removed ------------------------------------------------------------------------


async def put_equal(parts, row, data=b"the same bytes"):
    async with parts.unit() as files:
        stored = await files.put(data, deduplicate=True)
        await files.link("songs", row, "file", stored.key)
    return stored


async def test_f25_equal_bytes_are_stored_once(objects):
    first, second = await put_equal(objects, "1"), await put_equal(objects, "2")
    assert second == first
    assert await objects.kept() == [first.key]
    assert await staged(objects) == set()
    other = await put_equal(objects, "3", b"other bytes")
    assert other.key != first.key


@pytest.mark.parametrize("point", ["objects.after_candidates", "objects.before_collect_commit"])
async def test_f25_equal_bytes_while_collection_has_the_object_are_stored_anew(objects, point):
    old = await unnamed_object(objects, b"the same bytes")
    with pausing(point) as pause:
        collecting = asyncio.create_task(objects.collect())
        await pause.reached.wait()
        putting = asyncio.create_task(put_equal(objects, "1"))
        done, _ = await asyncio.wait([putting], timeout=0.3)
        assert not done
        pause.go_on.set()
        report = await collecting
    new = await putting
    assert report.removed == [old.key]
    assert new.key != old.key
    await objects.settle()
    assert await objects.kept() == [new.key]
    await nothing_dangles(objects)


async def test_f25_equal_bytes_before_collection_keep_the_object(objects):
    old = await unnamed_object(objects, b"the same bytes")
    await objects.collect(grace_seconds=3600.0)  # marked
    with pausing("objects.before_reuse") as pause:
        putting = asyncio.create_task(put_equal(objects, "1"))
        await pause.reached.wait()
        collecting = asyncio.create_task(objects.collect())
        await asyncio.wait([collecting], timeout=0.3)
        pause.go_on.set()
        await asyncio.gather(putting, collecting)
    new = putting.result()
    assert (new.key == old.key) == (collecting.result().removed == [])
    await objects.settle()
    assert await objects.kept() == [new.key]
    await nothing_dangles(objects)


async def test_f25_a_damaged_object_is_not_given_out_again(objects, tmp_path):
    old = await unnamed_object(objects, b"the same bytes")
    (tmp_path / "store" / "objects" / old.key[:2] / old.key).write_bytes(b"the same")
    new = await put_equal(objects, "1")
    assert new.key != old.key
    await nothing_dangles(objects)


async def test_f25_equal_bytes_wait_for_the_unit_that_stores_them(objects):
    async with objects.unit() as files:
        first = await files.put(b"the same bytes", deduplicate=True)
        await files.link("songs", "1", "file", first.key)
        putting = asyncio.create_task(put_equal(objects, "2"))
        done, _ = await asyncio.wait([putting], timeout=0.3)
        assert not done
    assert (await putting).key == first.key
    assert await objects.kept() == [first.key]


async def test_f25_units_that_store_equal_bytes_at_once_share_one_object(objects):
    stored = await asyncio.gather(*(put_equal(objects, str(number)) for number in range(10)))
    assert len({one.key for one in stored}) == 1
    assert await objects.kept() == [stored[0].key]


@pytest.mark.slow
async def test_f25_random_rounds_of_equal_bytes_and_collections(objects):
    dice = random.Random(25)

    async def one(number):
        data = b"content %d" % dice.randrange(3)
        try:
            await put_equal(objects, str(number), data)
        except NotFoundError:
            pytest.fail("an object that was given out is gone")
        assert await objects.stored.read(await key_of(str(number))) == data
        if dice.random() < 0.8:
            async with objects.unit() as files:
                await files.unlink("songs", str(number), "file")

    async def key_of(row):
        async with read_transaction(objects.engine) as connection:
            return await connection.scalar(sa.select(object_ref.c.object_key).where(object_ref.c.row_key == row))

    async def collecting():
        while not over.is_set():
            await objects.collect()
            await objects.settle()

    over = asyncio.Event()
    collectors = [asyncio.create_task(collecting()) for _ in range(2)]
    for begin in range(0, ROUNDS, 10):
        await asyncio.gather(*(one(number) for number in range(begin, begin + 10)))
    over.set()
    await asyncio.gather(*collectors)
    await objects.collect()
    await objects.settle()
    assert set(await objects.kept()) == await named(objects) == set(await objects.registered())
    await nothing_dangles(objects)
