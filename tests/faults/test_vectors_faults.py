"""The embedded vector store under real faults: processes that share the file, are killed, and a disk that is full."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fourfold.projection.items import Owner, PointFragment, PointItem
from fourfold.vectors import CollectionSpec, SqliteVectorStore

SPEC = CollectionSpec("songs", "given", 8, ("genre",))


def fragment(key, version, size=2):
    """An owner at a version: every point of it says the same version, so a torn one is seen."""
    point = PointItem((float(version), 1.0, *[0.5] * 6), None, {"genre": f"v{version}"})
    return PointFragment(Owner("songs", str(key)), "songs", (point,) * size)


async def open_songs(path):
    store = SqliteVectorStore(path)
    songs = await store.ensure_collection(SPEC)
    await songs.create_token(1)
    return store, songs


async def versions(songs):
    """The version of every owner, after checking that no owner is torn and all four views agree."""
    found = {}
    for hit in await songs.nearest([1.0] * 8, limit=100_000):
        found.setdefault(hit.owner, []).append(hit.payload["genre"])
    assert all(len(set(each)) == 1 and len(each) == 2 for each in found.values())
    digests = {each.owner: each.digest async for each in songs.scan_owners()}
    assert digests == await songs.read_owners(list(found))
    assert set(digests) == set(found)
    assert await songs.count() == 2 * len(found)
    return {owner.key: int(each[0][1:]) for owner, each in found.items()}


# --- what the other process does: `python test_vectors_faults.py <role> <path> …`


async def write_for_ever(path, prefix):
    """Write version after version of 20 owners; say each version when it is on disk."""
    _, songs = await open_songs(path)
    version = 0
    while True:
        version += 1
        await songs.write(1, [fragment(f"{prefix}{n}", version) for n in range(20)])
        sys.stdout.write(f"{version}\n")
        sys.stdout.flush()


async def write_many(path, prefix, count):
    store, songs = await open_songs(path)
    for version in range(1, int(count) + 1):
        lot = [fragment(f"{prefix}{n}", version) for n in range(5)]
        await songs.write(1, lot)
        hits = await songs.nearest(lot[0].points[0].vector, limit=20, where={"genre": f"v{version}"})
        assert {hit.owner for hit in hits} >= {each.owner for each in lot}, "own writes aren't seen"
    await store.close()


async def write_with_room_for(path, room):
    """Write with at most `room` bytes per file, then without a limit; report what happened."""
    import resource

    from fourfold.errors import FourfoldError

    store, songs = await open_songs(path)
    await songs.write(1, [fragment(n, 1) for n in range(10)])
    size = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(room), resource.RLIM_INFINITY))
    try:
        await songs.write(1, [fragment(n, 2) for n in range(300)])
        outcome = "written"
    except FourfoldError as error:
        outcome = error.code if error.retryable else f"{error.code} is not retryable"
    seen = await versions(songs)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await songs.write(1, [fragment(n, 3) for n in range(300)])
    after = await versions(songs)
    await store.close()
    json.dump(
        {"outcome": outcome, "seen": sorted(set(seen.values())), "owners": len(seen), "after": len(after)}, sys.stdout
    )


@pytest.fixture
def start():
    """Start this file as another process; what still runs at the end is killed."""
    started = []

    def run(role, *arguments):
        command = [sys.executable, __file__, role, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait(30)
        process.stdout.close()


# --- the tests


@pytest.mark.kill
async def test_two_processes_open_write_and_search_one_new_file_f33(start, tmp_path):
    path = tmp_path / "vectors.db"
    processes = [start("write_many", path, prefix, 60) for prefix in "ab"]
    for process in processes:
        assert process.wait(60) == 0
    store, songs = await open_songs(path)
    assert await versions(songs) == {f"{prefix}{n}": 60 for prefix in "ab" for n in range(5)}
    await store.close()


@pytest.mark.kill
async def test_killed_writer_loses_nothing_it_said_and_leaves_nothing_torn(start, tmp_path):
    path = tmp_path / "vectors.db"
    store, songs = await open_songs(path)  # a second process with the file open throughout
    for round_ in range(4):
        process = start("write_for_ever", path, "a")
        said = 0
        for line in process.stdout:
            said = int(line)
            if said >= 3 + 7 * round_:
                break
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        rest = [int(line) for line in process.stdout.read().split("\n")[:-1]]
        said = max([said, *rest])
        found = set((await versions(songs)).values())
        assert len(found) == 1  # one transaction for the 20 owners
        assert found.pop() in (said, said + 1)
    fresh, again = await open_songs(path)
    assert await versions(again) == await versions(songs)
    await fresh.close()
    await store.close()


@pytest.mark.kill
@pytest.mark.parametrize("room", [0, 1000, 5000, 20_000, 60_000, 120_000, 10_000_000])
def test_full_disk_is_a_typed_error_and_nothing_half_written_f28(start, tmp_path, room):
    process = start("write_with_room_for", tmp_path / "vectors.db", room)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    told = json.loads(said)
    assert told["after"] == 300
    if told["outcome"] == "written":
        assert (told["seen"], told["owners"]) == ([2], 300)
    else:
        assert told["outcome"] in ("vectors.full", "vectors.io")
        assert (told["seen"], told["owners"]) == ([1], 10)
    assert (told["outcome"] == "written") == (room > 1_000_000)


async def test_full_file_at_every_page_is_a_typed_error_and_nothing_half_written_f28(tmp_path, monkeypatch):
    from fourfold.embedded import connections as module
    from fourfold.errors import StoreUnavailableError

    path = tmp_path / "vectors.db"
    store, songs = await open_songs(path)
    await songs.write(1, [fragment(n, 1) for n in range(10)])
    await store.close()
    real, refused = module.open_file, []
    pages = path.stat().st_size // 4096
    for limit in range(pages, pages + 300):

        def limited(*arguments, limit=limit, **options):
            opened = real(*arguments, **options)
            opened.execute(f"PRAGMA max_page_count = {limit}")
            return opened

        monkeypatch.setattr(module, "open_file", limited)
        store, songs = await open_songs(path)
        try:
            await songs.write(1, [fragment(n, 2) for n in range(300)])
        except StoreUnavailableError as error:
            refused += [error.code]
            assert set((await versions(songs)).values()) == {1}
            await store.close()
            continue
        assert await versions(songs) == {str(n): 2 for n in range(300)}
        await store.close()
        break
    assert len(refused) > 10
    assert set(refused) == {"vectors.full"}
    monkeypatch.undo()


if __name__ == "__main__":
    roles = {role.__name__: role for role in (write_for_ever, write_many, write_with_room_for)}
    asyncio.run(roles[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]))
