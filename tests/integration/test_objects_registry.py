"""References, pins, removal and collection, as of the last commit; and what a unit of work sees of its files."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from fourfold.errors import ConflictError, FourfoldError, NotFoundError, StoreUnavailableError, ValidationError
from fourfold.objects.files import Files
from fourfold.objects.inspection import check_object, orphans, scan_registry
from fourfold.objects.key import new_key
from fourfold.objects.registry import ObjectReference, queue_removal
from fourfold.objects.store import ByteRange
from fourfold.objects.upload import StoredObject, Uploader
from fourfold.rows.engine import read_transaction, write_transaction
from fourfold.rows.tables import object_, object_ref, pin, stage
from fourfold.testing.objects import at_points, open_objects, pausing


@pytest.fixture
async def objects(engine, tmp_path):
    async with open_objects(engine, tmp_path) as parts:
        yield parts


async def put(parts, data=b"x", row="1", **options):
    async with parts.unit() as files:
        stored = await files.put(data, **options)
        if row:
            await files.link("songs", row, "file", stored.key)
    return stored


async def unlink(parts, row="1"):
    async with parts.unit() as files:
        return await files.unlink("songs", row, "file")


async def staged(parts):
    async with read_transaction(parts.stages.engine) as connection:
        return list(await connection.scalars(sa.select(stage.c.key)))


def naming(key, row="1"):
    return sa.insert(object_ref).values(table_name="t", row_key=row, column_name="c", object_key=key)


# units ---------------------------------------------------------------------------------------------------------------


async def test_what_a_unit_put_is_registered_when_it_committed(objects):
    stored = await put(objects, b"first", filename="notes.txt")
    assert await objects.stored.info(stored.key) == stored
    assert await objects.stored.read(stored.key) == b"first"
    assert await objects.stored.references(stored.key) == [ObjectReference("songs", "1", "file")]
    assert await staged(objects) == []


async def test_a_unit_that_says_nothing_else_keeps_its_files_too(objects):
    stored = await put(objects, row=None)
    assert await objects.registered() == [stored.key]


async def test_the_first_statement_of_any_kind_finds_the_file_promoted(objects):
    async with AsyncSession(objects.engine) as session:
        files = Files(session, engine=objects.engine, uploader=objects.uploader, registry=objects.registry)
        stored = await files.put(b"x")
        assert not session.in_transaction()  # the upload held no lock
        await session.execute(naming(stored.key))
        second = await files.put(b"y")  # the transaction has begun: promoted at once
        await session.execute(naming(second.key, "2"))
        assert await files.read(second.key) == b"y"
        await session.commit()
        third = await files.put(b"z")  # and the next one has not
        assert not session.in_transaction()
        assert await files.read(third.key) == b"z"  # asking for it begins it
        await session.commit()
        await files.close()
    assert sorted(await objects.registered()) == sorted([stored.key, second.key, third.key])
    assert await staged(objects) == []


async def test_a_session_that_has_begun_before_promotes_at_once(objects):
    async with AsyncSession(objects.engine) as session, session.begin():
        files = Files(session, engine=objects.engine, uploader=objects.uploader, registry=objects.registry)
        stored = await files.put(b"x")
        await session.execute(naming(stored.key))
    assert await objects.registered() == [stored.key]


async def test_what_rolls_back_was_never_put_and_its_bytes_go_with_the_next_collection(objects):
    async def promoted():
        async with objects.unit() as files:
            first = await files.put(b"at the first statement")
            await files.link("songs", "1", "file", first.key)
            await files.put(b"at once")
            raise ZeroDivisionError

    async def pending():
        async with objects.unit() as files:
            await files.put(b"never")
            raise ZeroDivisionError

    for unit in (promoted, pending):
        with pytest.raises(ZeroDivisionError):
            await unit()
    assert await objects.registered() == []
    assert len(await objects.kept()) == 3
    report = await objects.collect()
    assert len(report.stages_queued) == 3
    await objects.settle()
    assert await objects.kept() == []
    assert await staged(objects) == []


@pytest.mark.parametrize("begun", [True, False])
async def test_what_a_savepoint_rolls_back_is_named_by_nothing(objects, begun):
    async with AsyncSession(objects.engine) as session:
        files = Files(session, engine=objects.engine, uploader=objects.uploader, registry=objects.registry)
        before = await files.put(b"before")
        if begun:
            await files.link("songs", "1", "file", before.key)
        savepoint = await session.begin_nested()
        inside = await files.put(b"inside")
        await files.link("songs", "2", "file", inside.key)
        await savepoint.rollback()
        after = await files.put(b"after")
        await files.link("songs", "1", "file", before.key)
        await files.link("songs", "3", "file", after.key)
        await session.commit()
        await files.close()
    registered = {before.key, after.key} | (set() if begun else {inside.key})  # where the transaction began, it stays
    assert set(await objects.registered()) == registered
    await objects.collect()
    await objects.settle()
    assert sorted(await objects.kept()) == sorted([before.key, after.key])
    assert await staged(objects) == []


@pytest.mark.parametrize("deduplicate", [False, True])
async def test_a_lost_stage_is_refused_and_its_bytes_go(objects, deduplicate):
    async def unit():
        async with objects.unit() as files:
            with pausing("objects.before_promote") as pause:
                putting = asyncio.create_task(files.put(b"x", deduplicate=deduplicate))
                if not deduplicate:
                    stored = await putting
                    putting = asyncio.create_task(files.link("songs", "1", "file", stored.key))
                await pause.reached.wait()
                await objects.stages.drop(await staged(objects))  # and the bytes are an orphan, if nobody looks
                pause.go_on.set()
                await putting

    with pytest.raises(ConflictError) as caught:
        await unit()
    assert caught.value.code == "objects.stage_lost"
    assert await objects.kept() == await objects.registered() == []


async def test_a_tidying_up_that_fails_hides_no_outcome(objects):
    def away():
        raise StoreUnavailableError("away")

    with at_points({"objects.before_unstage": away}):
        stored = await put(objects)
    assert await objects.registered() == [stored.key]
    if objects.stages.is_apart:
        assert await staged(objects) == [stored.key]
        async with write_transaction(objects.stages.engine) as connection:
            await connection.execute(sa.update(stage).values(lease_until=0.0))
    report = await objects.collect()
    assert report.stages_dropped == ([stored.key] if objects.stages.is_apart else [])
    assert report.stages_queued == []
    assert await objects.stored.read(stored.key) == b"x"


async def test_promoting_again_is_harmless(objects):
    stored = await objects.uploader.put(b"x")
    for _ in range(2):
        async with write_transaction(objects.engine) as connection:
            await objects.registry.promote(connection, stored)
            await objects.registry.promote(connection, stored)
    await objects.stages.drop([stored.key])
    async with write_transaction(objects.engine) as connection:
        await objects.registry.promote(connection, stored)
    assert await objects.registered() == [stored.key]


async def test_what_was_never_stored_is_not_promoted(objects):
    made_up = StoredObject(new_key(), "0" * 64, "0" * 32, 1, "text/plain")
    async with write_transaction(objects.engine) as connection:
        with pytest.raises(ConflictError) as caught:
            await objects.registry.promote(connection, made_up)
    assert caught.value.code == "objects.stage_lost"
    assert await objects.registered() == []


# reading -------------------------------------------------------------------------------------------------------------


async def test_a_file_is_read_whole_in_parts_and_in_chunks(objects):
    data = bytes(range(256)) * 20_000
    stored = await put(objects, data)
    assert await objects.stored.read(stored.key) == data
    assert await objects.stored.read(stored.key, ByteRange(1000, 1010)) == data[1000:1010]
    opened = await objects.stored.open(stored.key, ByteRange(suffix=10))
    assert (opened.info, opened.start, opened.stop) == (stored, len(data) - 10, len(data))
    chunks = [chunk async for chunk in objects.stored.stream(stored.key)]
    assert b"".join(chunks) == data
    assert len(chunks) > 1
    with pytest.raises(ValidationError) as caught:
        await objects.stored.open(stored.key, ByteRange(len(data)))
    assert caught.value.code == "objects.range"
    async with objects.unit() as files:
        assert await files.read(stored.key) == data
        assert not files._begun  # reading alone takes no write lock


async def test_an_empty_file_is_a_file(objects):
    stored = await put(objects, b"")
    assert stored.size_bytes == 0
    assert await objects.stored.read(stored.key) == b""


async def test_a_file_that_is_removed_while_it_is_opened_is_not_found(objects):
    stored = await put(objects, row=None)
    with pausing("objects.before_read") as pause:
        reading = asyncio.create_task(objects.stored.read(stored.key))
        await pause.reached.wait()
        await objects.collect()
        await objects.settle()
        pause.go_on.set()
        with pytest.raises(NotFoundError) as caught:
            await reading
    assert caught.value.code == "objects.not_found"


async def test_what_is_not_registered_is_not_found(objects):
    for call in (objects.stored.info, objects.stored.read):
        with pytest.raises(NotFoundError):
            await call(new_key())
    with pytest.raises(ValidationError):
        await objects.stored.info("../x")


# references and pins -------------------------------------------------------------------------------------------------


async def test_a_link_replaces_the_column_s_last_and_unlink_says_what_it_was(objects):
    first, second = await put(objects, b"1"), await put(objects, b"2")
    assert await objects.stored.references(first.key) == []
    assert await objects.stored.references(second.key) == [ObjectReference("songs", "1", "file")]
    assert await unlink(objects) == second.key
    assert await unlink(objects) is None


async def test_a_link_to_what_is_not_there_is_refused_and_the_unit_goes_on(objects):
    async with objects.unit() as files:
        with pytest.raises(ConflictError) as caught:
            await files.link("songs", "1", "file", new_key())
        assert caught.value.code == "objects.unknown"
        with pytest.raises(ValidationError):
            await files.link("songs", "1", "file", "../x")
        stored = await files.put(b"x")
        await files.link("songs", "1", "file", stored.key)
    assert await objects.registered() == [stored.key]


async def test_removing_a_file_that_a_row_names_is_refused_and_names_the_row(objects):
    stored = await put(objects)
    async with objects.unit() as files:
        with pytest.raises(ConflictError) as caught:
            await files.remove(stored.key)
    assert caught.value.code == "objects.referenced"
    assert "songs 1" in str(caught.value)
    await unlink(objects)
    async with write_transaction(objects.engine) as connection:
        await objects.registry.pin(connection, stored.key, "user")
    async with objects.unit() as files:
        with pytest.raises(ConflictError, match="a pin"):
            await files.remove(stored.key)
    assert await objects.stored.read(stored.key) == b"x"


async def test_a_removed_file_is_gone_at_the_commit_and_its_bytes_when_settled(objects):
    stored = await put(objects, row=None)

    async def changes_its_mind():
        async with objects.unit() as files:
            await files.remove(stored.key)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await changes_its_mind()
    assert await objects.stored.read(stored.key) == b"x"
    async with objects.unit() as files:
        await files.remove(stored.key)
        with pytest.raises(NotFoundError):
            await files.remove(stored.key)
    assert await objects.registered() == []
    assert await objects.settle() == [stored.key]
    assert await objects.kept() == []


async def test_a_pin_keeps_an_object_until_it_is_taken_back_or_runs_out(objects):
    stored = await put(objects, row=None)
    async with write_transaction(objects.engine) as connection:
        await objects.registry.pin(connection, stored.key, "backup:1")
        await objects.registry.pin(connection, stored.key, "user", seconds=3600.0)
    assert (await objects.collect()).removed == []
    async with write_transaction(objects.engine) as connection:
        await objects.registry.unpin(connection, stored.key, "backup:1")
    assert (await objects.collect()).removed == []
    async with write_transaction(objects.engine) as connection:
        await objects.registry.pin(connection, stored.key, "user", seconds=-1.0)
    assert (await objects.collect()).removed == [stored.key]
    async with read_transaction(objects.engine) as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(pin)) == 0
    with pytest.raises(NotFoundError):
        async with write_transaction(objects.engine) as connection:
            await objects.registry.pin(connection, stored.key, "user")


# collection ----------------------------------------------------------------------------------------------------------


async def test_an_object_goes_a_time_of_grace_after_it_was_found_unnamed(objects):
    stored = await put(objects)
    assert (await objects.collect()).marked == 0
    await unlink(objects)
    report = await objects.collect(grace_seconds=3600.0)
    assert (report.marked, report.removed) == (1, [])
    report = await objects.collect(grace_seconds=3600.0)
    assert (report.marked, report.removed) == (0, [])
    async with write_transaction(objects.engine) as connection:
        await connection.execute(sa.update(object_).values(unreferenced_since=object_.c.unreferenced_since - 3601.0))
    assert (await objects.collect(grace_seconds=3600.0)).removed == [stored.key]
    assert await objects.kept() == [stored.key]  # the bytes are the relay's
    assert await objects.settle() == [stored.key]
    assert await objects.kept() == []


async def test_a_reference_clears_the_mark_at_the_next_pass(objects):
    stored = await put(objects, row=None)
    assert (await objects.collect(grace_seconds=3600.0)).marked == 1
    async with objects.unit() as files:
        await files.link("songs", "1", "file", stored.key)
    report = await objects.collect(grace_seconds=0.0)
    assert (report.unmarked, report.marked, report.removed) == (1, 0, [])
    await unlink(objects)
    assert (await objects.collect(grace_seconds=3600.0)).marked == 1  # grace begins anew


async def test_a_pass_removes_no_more_than_its_limit(objects):
    stored = [await put(objects, bytes([number]), row=None) for number in range(7)]
    for _ in range(3):
        await objects.uploader.stages.register(new_key(), -1.0)
    report = await objects.collect(limit=2)
    assert len(report.removed) == 2
    assert len(report.stages_queued) == 2
    assert len((await objects.collect(limit=100)).removed) == 5
    assert await objects.registered() == []
    await objects.settle()
    assert await objects.kept() == []
    assert len(stored) == 7


async def test_a_deleted_row_can_free_its_file_at_once(objects):
    gone, kept = await put(objects, b"1"), await put(objects, b"2", row="2")
    unnamed = await put(objects, b"3", row=None)
    await objects.stages.register(new_key(), -1.0)
    await unlink(objects)
    report = await objects.collect(only=[gone.key, kept.key, new_key()])
    assert report.removed == [gone.key]
    assert report.stages_queued == []
    assert await objects.registered() == sorted([kept.key, unnamed.key])
    assert (await objects.collect(only=[])).removed == []
    with pytest.raises(ValidationError):
        await objects.collect(only=["../x"])


async def test_a_live_stage_is_kept_and_one_that_ran_out_goes(objects):
    live = await objects.uploader.put(b"live")
    over = await Uploader(objects.store, objects.stages, lease_seconds=-1.0).put(b"over")
    assert (await objects.collect()).stages_queued == [over.key]
    await objects.settle()
    assert await objects.kept() == [live.key]
    assert await staged(objects) == [live.key]


async def test_the_target_leaves_what_is_registered_and_tries_every_key(objects):
    stored = await put(objects)
    over = [await Uploader(objects.store, objects.stages, lease_seconds=-1.0).put(bytes([n])) for n in range(3)]
    await objects.collect()
    failures = iter([StoreUnavailableError("away")])

    def fail_once():
        for error in failures:
            raise error

    keys = [stored.key, *(one.key for one in over)]
    with at_points({"objects.before_remove_bytes": fail_once}), pytest.raises(StoreUnavailableError, match="away"):
        await objects.target.remove(keys)
    assert len(await objects.kept()) == 2
    await objects.target.remove(keys)
    await objects.target.remove(keys)
    assert await objects.kept() == [stored.key]
    with pytest.raises(ValidationError):
        await objects.target.remove([""])


# inspection ----------------------------------------------------------------------------------------------------------


async def test_the_registry_is_read_in_pages(objects):
    stored = sorted([await put(objects, bytes([number]), row=str(number)) for number in range(5)], key=lambda o: o.key)
    page = await scan_registry(objects.engine, limit=3)
    assert page == stored[:3]
    assert await scan_registry(objects.engine, after=page[-1].key) == stored[3:]
    assert await check_object(objects.store, stored[0], deep=True) is None


async def test_orphans_are_what_nobody_knows(objects, monkeypatch):
    monkeypatch.setattr("fourfold.objects.inspection._PAGE", 2)
    stored = await put(objects)
    live = await objects.uploader.put(b"live")
    over = await Uploader(objects.store, objects.stages, lease_seconds=-1.0).put(b"over")
    await objects.collect()
    unknown = sorted(new_key() for _ in range(3))
    for key in unknown:
        async with objects.store.write(key) as writer:
            await writer.write(b"?")
            await writer.finish()
    known = {stored.key, live.key, over.key}
    assert set(await objects.kept()) == {*unknown, *known}
    found = [key async for key in orphans(objects.engine, objects.stages, objects.store, min_age_seconds=-60)]
    assert sorted(found) == unknown
    assert [key async for key in orphans(objects.engine, objects.stages, objects.store)] == []  # too young
    async with write_transaction(objects.engine) as connection:
        await queue_removal(connection, found)
    await objects.settle()
    assert set(await objects.kept()) == {stored.key, live.key}


async def test_an_object_that_moves_on_meanwhile_is_no_orphan(objects):
    stored = await objects.uploader.put(b"x")
    with pausing("objects.after_stages_read") as pause:
        looking = asyncio.create_task(
            anext(orphans(objects.engine, objects.stages, objects.store, min_age_seconds=-60), None)
        )
        await pause.reached.wait()
        async with write_transaction(objects.engine) as connection:
            await objects.registry.promote(connection, stored)
        await objects.stages.drop([stored.key])
        pause.go_on.set()
        assert await looking is None


async def test_driver_errors_leave_the_layer_mapped(objects):
    stored = await put(objects)
    async with write_transaction(objects.engine) as connection:
        await connection.execute(sa.text("ALTER TABLE fourfold_object_ref RENAME TO gone"))
    with pytest.raises(FourfoldError):
        await objects.stored.references(stored.key)
