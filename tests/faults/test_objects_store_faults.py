"""F26, F28, F32, F40, S02, S03 on a local store: short and altered bytes, full disks, wrong mounts, links, crowds."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import shutil
import threading

import pytest

from fourfold.errors import (
    ConfigurationError,
    DriftError,
    IntegrityError,
    NotFoundError,
    StoreRejectedError,
    StoreUnavailableError,
)
from fourfold.objects import disk
from fourfold.objects.guard import guard_store
from fourfold.objects.inspection import check_object
from fourfold.objects.key import new_key
from fourfold.objects.marker import bind_store, check_marker
from fourfold.objects.store import ByteRange, open_object_store
from fourfold.rows.engine import open_engine
from fourfold.testing.objects import at_points, open_objects

DATA = os.urandom(3 * 1024 * 1024 + 5)  # four pieces
MIB = 1024 * 1024


@pytest.fixture
async def objects(engine, tmp_path):
    async with open_objects(engine, tmp_path) as parts:
        yield parts


@pytest.fixture
async def local(sqlite_url, tmp_path):
    """On SQLite alone, for what no database has a part in."""
    engine = open_engine(sqlite_url)
    async with open_objects(engine, tmp_path) as parts:
        yield parts
    await engine.dispose()


async def put(parts, data=DATA, **options):
    async with parts.unit() as files:
        stored = await files.put(data, **options)
        await files.link("songs", stored.key, "file", stored.key)
    return stored


async def gather(chunks, given):
    async for chunk in chunks:
        given += chunk


def place_of(tmp_path, key):
    return tmp_path / "store" / "objects" / key[:2] / key


def failing(number):
    def fail():
        raise OSError(number, os.strerror(number))

    return fail


class Nth:
    """Fails at the n-th time."""

    def __init__(self, n, number):
        self.left = n
        self.fail = failing(number)

    def __call__(self):
        self.left -= 1
        if self.left == 0:
            self.fail()


# F26, S03: bytes that are not those that were stored -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "code", "kind"),
    [
        (lambda place: place.unlink(), "objects.missing", "missing"),
        (lambda place: place.write_bytes(DATA[:-1]), "objects.size", "size"),
        (lambda place: place.write_bytes(DATA + b"x"), "objects.size", "size"),
        (lambda place: place.write_bytes(b"x" + DATA[1:]), "objects.altered", "altered"),
        (lambda place: place.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1])), "objects.altered", "altered"),
    ],
    ids=["missing", "short", "long", "first byte", "last bit"],
)
async def test_f26_s03_damaged_bytes_are_never_given_out_as_whole(objects, tmp_path, damage, code, kind):
    stored = await put(objects)
    assert await objects.stored.read(stored.key) == DATA
    damage(place_of(tmp_path, stored.key))
    given = bytearray()
    with pytest.raises(IntegrityError) as caught:
        await gather(objects.stored.stream(stored.key), given)
    assert caught.value.code == code
    assert caught.value.key == stored.key
    assert len(given) < len(DATA)
    problem = await check_object(objects.store, stored, deep=True)
    assert problem.kind == kind
    quick = await check_object(objects.store, stored)
    assert (quick is None) == (kind == "altered")


async def test_s03_a_part_is_checked_by_the_size_of_the_whole(local, tmp_path):
    stored = await put(local)
    place_of(tmp_path, stored.key).write_bytes(DATA[:-1])
    with pytest.raises(IntegrityError) as caught:
        await local.stored.read(stored.key, ByteRange(0, 10))
    assert caught.value.code == "objects.size"


async def test_s03_a_part_behind_the_end_of_a_cut_object_is_damage_and_no_wrong_range(local, tmp_path):
    stored = await put(local)
    place_of(tmp_path, stored.key).write_bytes(DATA[:5])
    with pytest.raises(IntegrityError) as caught:
        await local.stored.read(stored.key, ByteRange(10, 20))
    assert caught.value.code == "objects.size"


# F28: no room at the n-th write --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize(
    ("point", "n"),
    [
        ("objects.before_write", 1),
        ("objects.before_write", 2),
        ("objects.before_write", 3),
        ("objects.before_write", 4),
        ("objects.before_sync", 1),
        ("objects.before_rename", 1),
        ("objects.after_rename", 1),
    ],
)
async def test_f28_no_room_at_any_step_is_typed_and_leaves_nothing(local, tmp_path, point, n, number):
    with at_points({point: Nth(n, number)}), pytest.raises(StoreUnavailableError) as caught:
        await put(local)
    assert caught.value.code == "objects.disk_full"
    assert caught.value.retryable
    assert await local.kept() == []
    assert list((tmp_path / "store" / "incoming").iterdir()) == []
    stored = await put(local)  # room again
    assert await local.stored.read(stored.key) == DATA


async def test_f28_a_real_limit_is_typed_and_leaves_nothing(local, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB):
        async with local.unit() as files:
            try:
                async with local.store.write(new_key()) as writer:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
                    with pytest.raises(StoreUnavailableError) as caught:
                        await writer.write(DATA)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert caught.value.code == "objects.disk_full"
            assert list((tmp_path / "store" / "incoming").iterdir()) == []
            assert (await files.put(DATA)).size_bytes == len(DATA)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.EACCES, StoreRejectedError, "objects.denied"),
        (errno.EROFS, StoreRejectedError, "objects.denied"),
        (errno.EIO, StoreUnavailableError, "objects.unavailable"),
    ],
)
async def test_f28_other_failures_of_a_disk_are_typed_too(local, number, kind, code):
    with at_points({"objects.before_sync": failing(number)}), pytest.raises(kind) as caught:
        await put(local)
    assert caught.value.code == code
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_folder_that_another_made_is_synced_before_the_first_write_into_it_is_acknowledged(
    local, tmp_path, monkeypatch
):
    synced = []
    monkeypatch.setattr(disk, "sync_folder", synced.append)
    objects = tmp_path / "store" / "objects"
    first, second = f"0a{new_key()[2:]}", f"0a{new_key()[2:]}"
    (objects / "0a").mkdir()  # by a process that died before it synced the name
    for key, expected in ((first, [objects, objects / "0a"]), (second, [objects / "0a"])):
        synced.clear()
        async with local.store.write(key) as writer:
            await writer.finish()
        assert synced == expected
    (objects / "0a" / first).unlink()
    (objects / "0a" / second).unlink()
    (objects / "0a").rmdir()
    synced.clear()
    async with local.store.write(first) as writer:
        await writer.finish()
    assert synced == [objects, objects / "0a"]


async def test_a_new_store_is_synced_up_to_the_folder_that_was_there(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk, "sync_folder", synced.append)
    await open_object_store((tmp_path / "data" / "files").as_uri()).prepare()
    data = tmp_path / "data"
    assert synced == [tmp_path, data, data / "files", data / "files"]
    assert (data / "files").stat().st_mode & 0o7 == 0  # nobody else looks in


async def test_a_store_whose_folder_is_gone_is_unavailable_for_writes(local, tmp_path):
    (tmp_path / "store").rename(tmp_path / "unmounted")
    with pytest.raises(StoreUnavailableError) as caught:
        await local.uploader.put(DATA)
    assert (caught.value.code, caught.value.retryable) == ("objects.unavailable", True)


async def test_a_failure_in_the_thread_of_a_cancelled_call_is_not_logged_as_unseen(local):
    inside, go_on, unseen = threading.Event(), threading.Event(), []

    def fail():
        inside.set()
        go_on.wait(10)
        raise OSError(errno.EIO, "broken")

    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unseen.append(context))
    with at_points({"objects.before_sync": fail}):
        task = asyncio.create_task(local.uploader.put(b"x"))
        await asyncio.to_thread(inside.wait, 10)
        task.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
    del task
    await asyncio.sleep(0)  # the loop lets go of what it called last
    gc.collect()
    assert unseen == []


# F32: a wrong mount, an empty bucket ---------------------------------------------------------------------------------


async def nothing_was_deleted(parts, tmp_path, code):
    """Neither by collection nor by the files target; after it the store is as it was."""
    spare = new_key()
    for call in (parts.collect(), parts.target.remove([spare])):
        with pytest.raises(DriftError) as caught:
            await call
        assert caught.value.code == code
        assert "othing was deleted" in caught.value.hint
    return caught.value


async def test_f32_an_empty_folder_in_the_place_of_the_store_stops_everything_that_deletes(objects, tmp_path):
    await put(objects)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    error = await nothing_was_deleted(objects, tmp_path, "objects.marker")
    assert error.seen is None
    with pytest.raises(DriftError):
        await bind_store(objects.engine, objects.store)  # nor does the next start name it anew
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    await check_marker(objects.engine, objects.store)


async def test_f32_another_store_in_its_place_stops_everything_that_deletes(objects, tmp_path):
    await put(objects)
    await objects.store.write_marker("another-store")
    error = await nothing_was_deleted(objects, tmp_path, "objects.marker")
    assert error.seen == "another-store"


async def test_f32_a_large_file_in_the_place_of_the_marker_is_no_marker(local, tmp_path):
    (tmp_path / "store" / "store-id").write_bytes(b"x" * 5000)
    with pytest.raises(DriftError) as caught:
        await check_marker(local.engine, local.store)
    assert caught.value.seen == ""


async def test_f32_a_store_that_lost_more_than_a_share_stops_collection(objects, tmp_path):
    stored = [await put(objects, bytes([number])) for number in range(20)]
    for one in stored[:2]:
        place_of(tmp_path, one.key).unlink()
    with pytest.raises(DriftError) as caught:
        await objects.collect()
    assert caught.value.code == "objects.store_missing"
    assert caught.value.missing == sorted(one.key for one in stored[:2])
    assert caught.value.looked_at == 20
    await objects.collect(max_missing_share=0.1)
    await objects.collect(max_missing_share=1)
    await guard_store(objects.engine, objects.store, max_missing_share=0.1, sample=20)
    assert len(await objects.registered()) == 20


async def test_f32_what_was_collected_while_the_guard_looked_is_not_missing(objects):
    stored = await put(objects)

    async def somebody_removes_it():
        async with objects.unit() as files:
            await files.unlink("songs", stored.key, "file")
            await files.remove(stored.key)
        await objects.store.delete(stored.key)

    class Once:
        done = False

        async def head(self, key):
            if not self.done:
                self.done = True
                await somebody_removes_it()
            return await original(key)

    original = objects.store.exists
    once = Once()
    objects.store.exists = once.head
    await guard_store(objects.engine, objects.store)
    assert once.done


async def test_f32_a_database_takes_no_store_that_has_an_owner(objects, empty_rows_url, tmp_path):
    other = open_engine(empty_rows_url)
    folder = tmp_path / "other"
    folder.mkdir()
    try:
        with pytest.raises(ConfigurationError) as caught:
            async with open_objects(other, folder, url=objects.store.url):
                pass
        assert caught.value.code == "objects.foreign_store"
        name = await bind_store(other, objects.store, adopt=True)  # what a restore does
        assert name == await bind_store(objects.engine, objects.store)
        await check_marker(other, objects.store)
    finally:
        await other.dispose()


async def test_f32_a_start_that_died_before_the_marker_is_finished_by_the_next(engine, tmp_path):
    class DiedError(Exception):
        pass

    def die():
        raise DiedError

    store = open_object_store((tmp_path / "store").as_uri())
    with at_points({"objects.after_store_id": die}), pytest.raises(DiedError):
        await bind_store(engine, store)
    assert await store.read_marker() is None
    name = await bind_store(engine, store)
    assert await store.read_marker() == name


async def test_f32_two_processes_that_start_at_once_agree_on_the_name(engine, tmp_path):
    url = (tmp_path / "store").as_uri()
    names = await asyncio.gather(*(bind_store(engine, open_object_store(url)) for _ in range(5)))
    assert len(set(names)) == 1


# S02: links that were swapped in -------------------------------------------------------------------------------------


async def test_s02_no_call_follows_a_link_out_of_the_store(local, tmp_path):
    stored = await put(local)
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / stored.key
    victim.write_bytes(b"secret")
    shard = tmp_path / "store" / "objects" / stored.key[:2]
    place = shard / stored.key

    def link_object():
        place.unlink()
        place.symlink_to(victim)

    def link_shard():
        shutil.rmtree(shard)
        shard.symlink_to(outside)

    for swap in (link_object, link_shard):
        swap()
        for call in (local.store.read, local.store.head, local.store.open, local.store.delete, local.stored.read):
            with pytest.raises(IntegrityError) as caught:
                await call(stored.key)
            assert caught.value.code == "objects.symlink"
        assert await local.kept() == []
        assert victim.read_bytes() == b"secret"
    async with local.store.write(stored.key) as writer:
        await writer.write(b"overwritten")
        with pytest.raises(IntegrityError):
            await writer.finish()
    assert victim.read_bytes() == b"secret"
    assert [entry.name for entry in outside.iterdir()] == [stored.key]


async def test_s02_a_link_in_the_place_of_an_upload_is_not_followed(local, tmp_path):
    key, victim = new_key(), tmp_path / "victim"
    victim.write_bytes(b"secret")
    (tmp_path / "store" / "incoming" / key).symlink_to(victim)
    with pytest.raises(IntegrityError):
        async with local.store.write(key):
            pass
    incoming = tmp_path / "store" / "incoming"
    shutil.rmtree(incoming)
    (tmp_path / "outside").mkdir()
    incoming.symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError):
        await local.uploader.put(DATA)
    assert list((tmp_path / "outside").iterdir()) == []
    assert victim.read_bytes() == b"secret"


async def test_s02_what_is_no_plain_file_is_no_object(local, tmp_path):
    stored = await put(local)
    place = place_of(tmp_path, stored.key)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(IntegrityError):  # opening it would wait for ever
        await local.store.read(stored.key)
    shutil.rmtree(place.parent)
    place.parent.write_bytes(b"")
    with pytest.raises(IntegrityError):
        await local.store.read(stored.key)


async def test_s02_a_marker_that_is_a_link_is_refused(local, tmp_path):
    marker = tmp_path / "store" / "store-id"
    marker.rename(tmp_path / "moved")
    marker.symlink_to(tmp_path / "moved")
    with pytest.raises(IntegrityError):
        await local.collect()


async def test_s02_the_root_may_be_a_link_of_its_owner(tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "big disk")
    store = open_object_store((tmp_path / "store").as_uri())
    await store.prepare()
    key = new_key()
    async with store.write(key) as writer:
        await writer.write(b"x")
        await writer.finish()
    assert await store.read(key) == b"x"


# F40: a crowd --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("begins_first", [False, True], ids=["uploads first", "holds a connection while it uploads"])
async def test_f40_a_hundred_units_on_a_small_pool_and_none_waits_for_itself(rows_url, tmp_path, begins_first):
    engine = open_engine(rows_url, pool_size=5, max_overflow=0)

    async def one(number):
        async def source():
            for _ in range(3):
                yield b"%d" % number * 10_000
                await asyncio.sleep(0)

        async with objects.unit() as files:
            if begins_first:
                await files.unlink("songs", str(number), "file")
            first = await files.put(source())
            await files.link("songs", str(number), "file", first.key)
            second = await files.put(b"cover %d" % number)
            await files.link("songs", str(number), "cover", second.key)
        return first.key, second.key

    try:
        async with open_objects(engine, tmp_path) as objects:
            keys = await asyncio.gather(*(one(number) for number in range(100)))
            everything = sorted(key for pair in keys for key in pair)
            assert await objects.kept() == await objects.registered() == everything
            assert engine.pool.checkedout() == objects.stages.engine.pool.checkedout() == 0
    finally:
        await engine.dispose()


async def test_f40_an_upload_waits_for_no_writer_of_the_rows(objects):
    """A writer holds what SQLite has only one of; the upload goes through all the same, and promotion waits."""
    async with objects.unit() as writer:
        await writer.unlink("songs", "1", "file")
        stored = await asyncio.wait_for(objects.uploader.put(DATA), timeout=60)
        async with objects.unit() as reader:
            with pytest.raises(NotFoundError):
                await asyncio.wait_for(reader.info(stored.key), timeout=60)
