"""recordings-10 under faults: killed anywhere, a full disk, two runs at once. Nothing lost, doubled or half there."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fourfold import faultpoints
from fourfold.catalogs.recordings.importer import ingest
from fourfold.catalogs.recordings.models import Recording
from fourfold.errors import StoreUnavailableError
from fourfold.fourfold import Fourfold
from tests.integration.test_recordings_importer import assert_in_step, make, open_store, recordings

FILES = 6

# Runs an ingest that kills itself, for real, when it reaches a fault point for the n-th time.
CHILD = """\
import asyncio, os, signal, sys
from pathlib import Path
from fourfold import faultpoints
from fourfold.catalogs.recordings import Base, ingest
from fourfold.fourfold import Fourfold
from fourfold.settings import Settings
from tests.integration.test_recordings_importer import HashEmbedder

url, data, music, point, times = sys.argv[1:]
left = int(times)

async def hook(name):
    global left
    left -= name == point
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    settings = Settings(data_folder=data, rows_url=url, install=False, lease_seconds=2)
    async with Fourfold(Base.metadata, settings, embedder=HashEmbedder()) as store:
        faultpoints.set_hooks(hook)
        await ingest(store, music, jobs=2)

asyncio.run(main())
"""


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(FILES):
        make(folder / f"{number}.mp3")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def store(rows_url: str, data: Path) -> AsyncIterator[Fourfold]:
    async with open_store(rows_url, data) as opened:
        yield opened


@pytest.fixture
def _no_hooks_left() -> Iterator[None]:
    yield
    faultpoints.set_hooks(None)


@pytest.mark.kill
@pytest.mark.parametrize(
    ("point", "times"),
    [("objects.before_finish", 2), ("objects.after_upload", 3), ("objects.after_unit", 1), ("objects.before_stage", 5)],
)
async def test_recordings_10_killed_ingest_is_taken_up_again(
    rows_url: str, data: Path, music: Path, point: str, times: int
):
    async with open_store(rows_url, data):
        pass  # installed, and empty
    command = [sys.executable, "-c", CHILD, rows_url, str(data), str(music), point, str(times)]
    killed = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=90, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    async with open_store(rows_url, data) as store:
        survived = len(await recordings(store))
        assert survived < FILES
        await assert_in_step(store)  # what was committed is whole
        report = await ingest(store, music)
        assert (report.added, report.unchanged, report.duplicates, report.problems) == (
            FILES - survived,
            survived,
            [],
            [],
        )
        await assert_in_step(store)
        assert (await ingest(store, music)).unchanged == FILES


@pytest.mark.usefixtures("_no_hooks_left")
async def test_recordings_10_cancelled_ingest_leaves_whole_files_only(store: Fourfold, music: Path):
    reached, never = asyncio.Event(), asyncio.Event()
    seen = 0

    async def hook(name: str) -> None:
        nonlocal seen
        if name == "objects.after_upload":
            seen += 1
            if seen > 2:
                reached.set()
                await never.wait()

    faultpoints.set_hooks(hook)
    task = asyncio.create_task(ingest(store, music, jobs=2))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    faultpoints.set_hooks(None)
    survived = len(await recordings(store))
    assert survived in {1, 2}  # a third upload began, so one of the two before it is through; the other may be
    assert (await ingest(store, music)).added == FILES - survived
    await assert_in_step(store)


@pytest.mark.usefixtures("_no_hooks_left")
async def test_recordings_10_full_disk_ends_the_run_with_its_error_and_the_next_one_goes_on(
    store: Fourfold, music: Path
):
    seen = 0

    async def hook(name: str) -> None:
        nonlocal seen
        seen += name == "objects.before_finish"
        if name == "objects.before_finish" and seen > 2:
            message = "the object store's disk is full"
            raise StoreUnavailableError(message, code="objects.disk_full", hint="Make room, then go on")

    faultpoints.set_hooks(hook)
    with pytest.raises(StoreUnavailableError, match="Make room") as caught:
        await ingest(store, music, jobs=2)
    assert caught.value.code == "objects.disk_full"
    assert seen <= 4  # those in hand, not every file of the folder
    faultpoints.set_hooks(None)
    survived = len(await recordings(store))
    assert survived in {1, 2}  # a third upload began, so one of the two before it is through; the other may be
    assert (await ingest(store, music)).added == FILES - survived
    await assert_in_step(store)


@pytest.mark.usefixtures("_no_hooks_left")
async def test_recordings_10_two_runs_that_store_the_same_bytes_at_once_make_one_recording(
    store: Fourfold, tmp_path: Path
):
    music = tmp_path / "one"
    music.mkdir()
    make(music / "a.mp3")
    both_uploaded, used = asyncio.Barrier(2), 0

    async def hook(name: str) -> None:
        nonlocal used
        if name == "objects.after_upload" and used < 2:  # both have looked, neither has committed
            used += 1
            await both_uploaded.wait()

    faultpoints.set_hooks(hook)
    reports = await asyncio.gather(ingest(store, music), ingest(store, music))
    assert sorted((report.added, report.unchanged) for report in reports) == [(0, 1), (1, 0)]
    assert [problem for report in reports for problem in report.problems] == []
    assert len(await recordings(store)) == 1
    await store.collect(grace_seconds=0)  # the loser's upload goes
    await assert_in_step(store)


async def test_recordings_10_two_processes_worth_of_runs_over_one_folder(rows_url: str, data: Path, music: Path):
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(rows_url, data)) for _ in range(2)]
        reports = await asyncio.gather(*(ingest(store, music, jobs=3) for store in stores))
        assert [problem for report in reports for problem in report.problems] == []
        assert sum(report.added for report in reports) == FILES
        assert len(await recordings(stores[0])) == FILES
        assert (await ingest(stores[1], music)).unchanged == FILES
        async with stores[0].session() as session:
            assert await session.scalar(sa.select(sa.func.count(sa.distinct(Recording.sha256_hash)))) == FILES
        await assert_in_step(stores[0])
