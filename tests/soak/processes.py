"""The processes that a soak starts and kills: a writer, and a relay, each with a Fourfold of its own."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa

from fourfold.errors import FourfoldError
from fourfold.fourfold import Fourfold
from fourfold.testing.embedders import HashEmbedder
from tests.world import Artist, Base, Note, Pair, Song, settings_for

ARTISTS, SONGS, NOTES, PAIRS = 8, 40, 60, 20
LEASE_SECONDS = 2.0


async def write(store: Fourfold, chance: random.Random) -> None:
    """One unit of work of a random kind; keys are few, so that writers meet."""
    artist, song, note = chance.randint(1, ARTISTS), UUID(int=chance.randint(1, SONGS)), chance.randint(1, NOTES)
    text = f"text {chance.randrange(10**6)}"
    async with store.unit_of_work() as work:
        session = work.session
        match chance.randrange(10):
            case 0 | 1 | 2:
                tracks = [{"title": f"track {chance.randrange(5)}"} for _ in range(chance.randrange(3))]
                known = await session.get(Artist, artist) is not None
                await session.merge(Song(id=song, title=text, artist_id=artist if known else None, tracks=tracks))
            case 3:
                await session.merge(Artist(id=artist, name=text))
            case 4:
                if await session.get(Song, song) is not None:
                    await session.merge(Note(id=note, song_id=song, text=text))
            case 5:
                await session.execute(sa.delete(Song).where(Song.id == song))
            case 6:
                await session.execute(sa.delete(Artist).where(Artist.id == artist))
            case 7:
                await session.execute(sa.update(Song).where(Song.artist_id == artist).values(title=text))
            case 8:
                for _ in range(3):
                    await session.merge(Pair(left=chance.randint(1, PAIRS), right="r,\\", value=text))
            case 9:
                found = await session.get(Song, song)
                if found is not None:
                    found.file_key = (await work.files.put(text.encode(), filename="a.txt")).key


async def writer(store: Fourfold, seed: int) -> None:
    """Write until killed; a line on standard output per commit that was acknowledged."""
    chance = random.Random(seed)
    while True:
        try:
            await write(store, chance)
        except (FourfoldError, sa.exc.SQLAlchemyError) as error:  # the user's own: a key that is there already
            sys.stdout.write(f"refused {type(error).__name__}\n")
        else:
            sys.stdout.write("committed\n")
        sys.stdout.flush()


async def relay(store: Fourfold, seed: int) -> None:
    """Work until killed, and collect files now and then."""
    worker = asyncio.create_task(store.new_relay(f"soak {seed}").run())
    while not worker.done():
        await store.collect(grace_seconds=0)
        await asyncio.sleep(0.5)
    await worker


async def main(role: str, url: str, folder: str, seed: str) -> None:
    settings = settings_for(url, Path(folder), lease_seconds=LEASE_SECONDS, lot_size=20, embed_lot_size=10)
    async with Fourfold(Base, settings, embedder=HashEmbedder()) as store:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await {"writer": writer, "relay": relay}[role](store, int(seed))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
