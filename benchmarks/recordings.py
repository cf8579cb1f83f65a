"""The main job in bulk: recordings with metadata and tracklists, projected to graph and vectors, and verified.

    python -m benchmarks.recordings [--recordings 100000] [--metadata 2] [--postgresql]

Vectors come from the hashing embedder of `fourfold.testing`: a real model would measure the model (40 to 50 short texts
a second on a core), not Fourfold. Promised: the process stays below 500 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import sys
import tempfile
import time
import uuid
from pathlib import Path

import sqlalchemy as sa

from fourfold import Fourfold, Settings
from fourfold.catalogs.recordings import Base, Metadata, Recording, Tracklist, upgrade
from fourfold.testing.embedders import HashEmbedder
from fourfold.testing.postgresql import PostgresCluster

_PIECE = 1_000
_MOST_MEGABYTES = 500


def peak_megabytes() -> float:
    """Most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextlib.contextmanager
def step(name: str, rows: int):
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    print(
        f"{name:<34} {rows:>9,} rows {seconds:>8.1f} s {rows / seconds:>9,.0f} rows/s {peak_megabytes():>7.0f} MB",
        flush=True,
    )


def rows_of(start: int, metadata: int) -> tuple[list[dict], list[dict], list[dict]]:
    recordings, items, tracklists = [], [], []
    for number in range(start, start + _PIECE):
        key = uuid.uuid4()
        recordings.append({"id": key, "file_path": f"/music/{number}.mp3", "file_name": f"{number}.mp3"})
        items += [
            {"id": uuid.uuid4(), "recording_id": key, "key": f"key{n}", "value": f"value {number % 977}"}
            for n in range(metadata)
        ]
        tracks = [{"title": f"track {number % 5_000}", "artist": f"artist {number % 500}", "start_time": "00:00"}]
        tracklists.append({"id": uuid.uuid4(), "recording_id": key, "source": "bench", "tracks": tracks})
    return recordings, items, tracklists


async def run(rows_url: str | None, folder: Path, count: int, metadata: int) -> None:
    settings = Settings(
        data_folder=folder, rows_url=rows_url, install=True, relay=False, lot_size=1_000, embed_lot_size=1_000
    )
    store = Fourfold(Base, settings, embedder=HashEmbedder())
    from fourfold.rows.engine import open_engine

    engine = open_engine(settings.rows_location)
    await upgrade(engine)
    await engine.dispose()
    total = count * (2 + metadata)
    async with store:
        await store.drain()
        with step("bulk insert", total):
            for start in range(0, count, _PIECE):
                recordings, items, tracklists = rows_of(start, metadata)
                async with store.engine.begin() as connection:
                    await connection.execute(sa.insert(Recording), recordings)
                    await connection.execute(sa.insert(Metadata), items)
                    await connection.execute(sa.insert(Tracklist), tracklists)
        relay = store.new_relay()
        with step("dispatch", total):
            while await relay.dispatch_once():
                pass
        with step("project and write, all targets", total):
            await relay.drain()
        statistics = relay.statistics()
        print(f"  settled per target: {statistics.by_target}; {await store.graph.statistics()}")
        for deep in (False, True):
            with step(f"verify {'deep' if deep else 'quick'}", total):
                report = await store.integrity.verify(deep=deep)
            assert not report.differs, report.differences[:5]
    peak = peak_megabytes()
    print(f"peak {peak:.0f} MB, promised below {_MOST_MEGABYTES} MB: {'kept' if peak < _MOST_MEGABYTES else 'BROKEN'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=100_000)
    parser.add_argument("--metadata", type=int, default=2, help="metadata rows per recording")
    parser.add_argument("--postgresql", action="store_true", help="rows on a PostgreSQL cluster of its own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fourfold-bench-") as folder, contextlib.ExitStack() as stack:
        url = None
        if arguments.postgresql:
            cluster = PostgresCluster()
            cluster.create()
            stack.callback(cluster.destroy)
            url = cluster.create_database("bench")
        asyncio.run(run(url, Path(folder), arguments.recordings, arguments.metadata))


if __name__ == "__main__":
    main()
