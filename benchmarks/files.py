"""Files through Fourfold against a plain loop that reads, hashes, writes and syncs, in the same run on the same disk.

The plain loop does what nobody should live with: no lease, no registry row, no reference, no rename. What Fourfold
costs above it is the ratio. Large files say what a byte costs, small ones what a file costs. Best of the rounds.

    PYTHONPATH=src python benchmarks/files.py [--megabytes 256] [--files 200] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import tempfile
import time
from pathlib import Path

import xxhash

from fourfold.rows.engine import open_engine
from fourfold.rows.migrate import migrate
from fourfold.testing.objects import open_objects

MIB = 1024 * 1024
SMALL = 4096


def plain(source, target):
    sha256, xxh128 = hashlib.sha256(), xxhash.xxh3_128()
    with source.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(MIB):
            sha256.update(piece)
            xxh128.update(piece)
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


async def put(objects, source, row):
    async with objects.unit() as files:
        stored = await files.put(source)
        await files.link("benchmark", row, "file", stored.key)
    return stored.key


async def seconds(work):
    begin = time.perf_counter()
    result = await work
    return time.perf_counter() - begin, result


async def read_all(objects, key):
    async for _ in objects.stored.stream(key):
        pass


async def crowd(objects, small, count):
    gate = asyncio.Semaphore(16)

    async def one(number):
        async with gate:
            await put(objects, small, f"crowd {number}")

    await asyncio.gather(*(one(number) for number in range(count)))


async def one_by_one(objects, small, count):
    for number in range(count):
        await put(objects, small, f"small {number}")


async def round_of(folder, megabytes, count):
    large, small = folder / "large", folder / "small"
    large.write_bytes(os.urandom(MIB) * megabytes)
    small.write_bytes(os.urandom(SMALL))
    engine = open_engine(f"sqlite:///{folder / 'rows.db'}")
    await migrate(engine)
    figures = {}
    async with open_objects(engine, folder) as objects:
        copy = folder / "copy"
        os.sync()  # or the first one measured pays for what was written before
        figures["large: plain, MB/s"] = megabytes / (await seconds(asyncio.to_thread(plain, large, copy)))[0]
        copy.unlink()
        os.sync()
        taken, key = await seconds(put(objects, large, "large"))
        figures["large: put, MB/s"] = megabytes / taken
        figures["large: checked read, MB/s"] = megabytes / (await seconds(read_all(objects, key)))[0]
        os.sync()
        begin = time.perf_counter()
        for number in range(count):
            plain(small, folder / f"copy {number}")
        figures["4 KiB: plain, files/s"] = count / (time.perf_counter() - begin)
        figures["4 KiB: put and commit, files/s"] = count / (await seconds(one_by_one(objects, small, count)))[0]
        figures["4 KiB: 16 at once, files/s"] = count / (await seconds(crowd(objects, small, count)))[0]
    await engine.dispose()
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    best = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for what, figure in asyncio.run(round_of(Path(folder), options.megabytes, options.files)).items():
                best[what] = max(figure, best.get(what, 0))
    for what, figure in best.items():
        print(f"{what:<36}{figure:>10.0f}")


if __name__ == "__main__":
    main()
