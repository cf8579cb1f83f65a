"""One pass from any source into the store, staged under a lease; whatever goes wrong leaves nothing."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
import tracemalloc

import pytest
import sqlalchemy as sa
import xxhash

from fourfold.errors import ConflictError, NotFoundError, StoreUnavailableError, ValidationError
from fourfold.objects.disk import Disk
from fourfold.objects.source import PIECE_BYTES
from fourfold.objects.upload import Uploader
from fourfold.rows.engine import open_engine, read_transaction, write_transaction
from fourfold.rows.tables import stage
from fourfold.testing.objects import at_points, open_objects, pausing

KINDS = (
    "path",
    "text path",
    "bytes",
    "bytearray",
    "memoryview of numbers",
    "file",
    "odd file",
    "large pieces",
    "small pieces",
    "mixed pieces",
    "iterator",
    "list",
)
DATA = bytes(range(256)) * 9000  # 2.2 MiB: three pieces


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


async def staged(parts):
    async with read_transaction(parts.stages.engine) as connection:
        return list(await connection.scalars(sa.select(stage.c.key)))


async def nothing_is_left(parts, tmp_path):
    incoming = list((tmp_path / "store" / "incoming").iterdir())
    return await parts.kept() == [] and await staged(parts) == [] and incoming == []


class OddFile:
    """Returns more than it was asked for, then less."""

    def __init__(self, data):
        self._parts = [data[:5], data[5:], b""]

    def read(self, size, /):
        return self._parts.pop(0)


def sources(tmp_path):
    path = tmp_path / "song.flac"
    path.write_bytes(DATA)

    async def stream(step):
        for start in range(0, len(DATA), step):
            yield DATA[start : start + step]

    async def mixed():
        yield DATA[:10]
        yield DATA[10 : PIECE_BYTES * 2]
        yield b""
        yield DATA[PIECE_BYTES * 2 :]

    return {
        "path": path,
        "text path": str(path),
        "bytes": DATA,
        "bytearray": bytearray(DATA),
        "memoryview of numbers": memoryview(DATA).cast("I"),
        "file": io.BytesIO(DATA),
        "odd file": OddFile(DATA),
        "large pieces": stream(PIECE_BYTES + 1),
        "small pieces": stream(1000),
        "mixed pieces": mixed(),
        "iterator": iter([DATA[:1], DATA[1:]]),
        "list": [DATA[:700_000], DATA[700_000:1_400_000], DATA[1_400_000:]],
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_any_source_of_bytes_is_stored_in_one_pass(local, tmp_path, kind):
    stored = await local.uploader.put(sources(tmp_path)[kind])
    assert stored.size_bytes == len(DATA)
    assert stored.sha256 == hashlib.sha256(DATA).hexdigest()
    assert stored.xxh128 == xxhash.xxh3_128_hexdigest(DATA)
    assert await local.store.read(stored.key) == DATA
    assert stored.filename == ("song.flac" if "path" in kind else None)
    assert stored.content_type == ("audio/flac" if "path" in kind else "application/octet-stream")


async def test_what_is_stored_is_staged_and_no_row_may_name_it_yet(objects):
    stored = await objects.uploader.put(b"first", filename="notes.txt")
    assert await staged(objects) == [stored.key]
    assert stored.content_type == "text/plain"
    assert await objects.registered() == []
    async with objects.unit() as files:
        with pytest.raises(ConflictError) as caught:
            await files.link("t", "1", "file", stored.key)
        assert caught.value.code == "objects.unknown"


async def test_the_stage_is_there_before_the_first_byte(objects, tmp_path):
    async def source():
        assert len(await staged(objects)) == 1
        yield b"x"

    await objects.uploader.put(source())


@pytest.mark.parametrize("wrong", [5, None, object(), io.StringIO("text"), ["text"], [3]])
async def test_what_is_no_source_is_refused_and_nothing_is_left(local, tmp_path, wrong):
    with pytest.raises(ValidationError) as caught:
        await local.uploader.put(wrong)
    assert caught.value.code == "objects.source"
    assert await nothing_is_left(local, tmp_path)


@pytest.mark.parametrize("path", ["nothing.bin", "."])
async def test_a_path_without_a_file_is_not_found(local, tmp_path, path):
    with pytest.raises(NotFoundError) as caught:
        await local.uploader.put(tmp_path / path)
    assert caught.value.code == "objects.no_source"
    assert await nothing_is_left(local, tmp_path)


async def test_a_failing_source_raises_its_own_error_and_nothing_is_left(local, tmp_path):
    async def source():
        yield DATA
        raise RuntimeError("the client is gone")

    with pytest.raises(RuntimeError, match="the client is gone"):
        await local.uploader.put(source())
    assert await nothing_is_left(local, tmp_path)


async def test_s13_an_endless_source_is_refused_at_the_limit_and_nothing_is_left(objects, tmp_path):
    given = 0

    async def endless():
        nonlocal given
        while True:
            given += 1000
            yield b"x" * 1000

    uploader = Uploader(objects.store, objects.stages, max_size_bytes=2_000_000)
    with pytest.raises(ValidationError) as caught:
        await uploader.put(endless())
    assert caught.value.code == "objects.too_large"
    assert caught.value.max_size_bytes == 2_000_000
    assert given <= 2_000_000 + PIECE_BYTES + 1000
    assert await nothing_is_left(objects, tmp_path)
    assert (await uploader.put(b"x" * 2_000_000)).size_bytes == 2_000_000


async def test_s03_f26_bytes_of_another_hash_are_refused_and_removed(objects, tmp_path):
    right = hashlib.sha256(DATA).hexdigest()
    with pytest.raises(ValidationError) as caught:
        await objects.uploader.put(DATA[:-1], expected_sha256=right)
    assert caught.value.code == "objects.sha256"
    assert caught.value.expected == right
    assert await nothing_is_left(objects, tmp_path)
    assert (await objects.uploader.put(DATA, expected_sha256=right.upper())).sha256 == right


@pytest.mark.parametrize("digits", ["", "ab", "g" * 64])
async def test_what_is_no_sha256_is_refused_before_anything_is_stored(local, digits):
    with pytest.raises(ValidationError) as caught:
        await local.uploader.put(b"", expected_sha256=digits)
    assert caught.value.code == "objects.sha256"


@pytest.mark.parametrize("filename", ["", "a\nb", "a\x00b", "x" * 1025, "\udc80"])
async def test_a_name_that_no_header_can_hold_is_refused(local, filename):
    with pytest.raises(ValidationError) as caught:
        await local.uploader.put(b"", filename=filename)
    assert caught.value.code == "objects.filename"


async def test_names_of_real_files_are_taken(local, tmp_path):
    for name in ("Überraschung – 1.txt", "no\u00a0break.txt", "👨‍👩‍👧.jpg", "日本　語.txt"):
        assert (await local.uploader.put(b"", filename=name)).filename == name
    odd = tmp_path / "line\nbreak.txt"
    odd.write_bytes(b"x")
    assert (await local.uploader.put(odd)).filename == "line\ufffdbreak.txt"


async def test_a_given_type_counts(local):
    stored = await local.uploader.put(b"%PDF-1.7", filename="x.pdf", content_type="text/plain; charset=utf-8")
    assert stored.content_type == "text/plain; charset=utf-8"
    with pytest.raises(ValidationError) as caught:
        await local.uploader.put(b"", content_type="text/html\r\nSet-Cookie: a=b")
    assert caught.value.code == "objects.content_type"


async def test_memory_stays_constant(local):
    piece = bytes(PIECE_BYTES)

    async def source():
        for _ in range(64):
            yield piece

    await local.uploader.put(source())
    tracemalloc.start()
    stored = await local.uploader.put(source())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stored.size_bytes == 64 * PIECE_BYTES
    assert most < 8 * PIECE_BYTES


async def test_a_source_that_stands_still_keeps_its_lease(objects):
    renewed = asyncio.Event()

    async def slow():
        yield b"first "
        await renewed.wait()
        yield b"second"

    uploader = Uploader(objects.store, objects.stages, lease_seconds=0.05)
    with at_points({"objects.after_renew": renewed.set}):
        stored = await uploader.put(slow())
    assert await objects.store.read(stored.key) == b"first second"


async def test_an_upload_whose_lease_collection_took_stops_and_leaves_nothing(objects, tmp_path):
    async def slow():
        while True:
            yield b"x" * PIECE_BYTES
            await objects.collect()
            await objects.settle()

    uploader = Uploader(objects.store, objects.stages, lease_seconds=0.01)
    with pytest.raises(ConflictError) as caught:
        await uploader.put(slow())
    assert caught.value.code == "objects.stage_lost"
    assert await nothing_is_left(objects, tmp_path)


async def test_an_upload_taken_before_its_last_step_says_that_its_lease_was_lost(objects, tmp_path):
    uploader = Uploader(objects.store, objects.stages, lease_seconds=0.0)
    with pausing("objects.before_finish") as pause:
        task = asyncio.create_task(uploader.put(DATA))
        await pause.reached.wait()
        await objects.collect()
        await objects.settle()
        pause.go_on.set()
        with pytest.raises(ConflictError) as caught:
            await task
    assert caught.value.code == "objects.stage_lost"
    assert await nothing_is_left(objects, tmp_path)


async def test_a_long_upload_leaves_the_unit_a_whole_lease(objects):
    uploader = Uploader(objects.store, objects.stages, lease_seconds=0.0)
    with at_points({}) as seen:
        await uploader.put(b"x")
    assert seen["objects.after_renew"] == 1
    with at_points({}) as seen:
        await objects.uploader.put(b"x")
    assert seen["objects.after_renew"] == 0  # most of the hour is left, and a commit is saved


async def test_a_cancelled_upload_leaves_nothing(objects, tmp_path):
    with pausing("objects.before_finish") as pause:
        task = asyncio.create_task(objects.uploader.put(DATA))
        await pause.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await nothing_is_left(objects, tmp_path)


async def test_an_upload_cancelled_within_a_write_waits_for_its_thread(local, tmp_path):
    inside, go_on = threading.Event(), threading.Event()

    def block():
        inside.set()
        go_on.wait(10)

    with at_points({"objects.before_write": block}):
        task = asyncio.create_task(local.uploader.put(DATA))
        await asyncio.to_thread(inside.wait, 10)
        task.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await nothing_is_left(local, tmp_path)


async def test_an_upload_cancelled_while_its_file_is_made_leaves_none(local, tmp_path, monkeypatch):
    inside, go_on, create = threading.Event(), threading.Event(), Disk.create

    def slowly(disk, key):
        inside.set()
        go_on.wait(10)
        return create(disk, key)

    monkeypatch.setattr(Disk, "create", slowly)
    task = asyncio.create_task(local.uploader.put(DATA))
    await asyncio.to_thread(inside.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_soon(go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await nothing_is_left(local, tmp_path)


async def test_what_cannot_be_taken_back_is_left_to_collection(objects):
    def away():
        raise StoreUnavailableError("away")

    faults = at_points({"objects.before_finish": away, "objects.before_unstage": away})
    with faults, pytest.raises(StoreUnavailableError, match="away"):
        await objects.uploader.put(b"x")
    assert len(await staged(objects)) == 1
    async with write_transaction(objects.stages.engine) as connection:
        await connection.execute(sa.update(stage).values(lease_until=0.0))
    assert len((await objects.collect()).stages_queued) == 1
    await objects.settle()
    assert await staged(objects) == []
