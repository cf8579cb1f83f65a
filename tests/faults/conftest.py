"""Fixtures of the faults: an opened store without a relay of its own, with nothing left to bring to its targets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fourfold.fourfold import Fourfold
from tests.world import open_world


@pytest.fixture
async def store(rows_url: str, tmp_path: Path) -> AsyncIterator[Fourfold]:
    """On both dialects."""
    async with open_world(rows_url, tmp_path / "data") as opened:
        await opened.drain()
        yield opened


@pytest.fixture
async def pg_store(postgresql_url: str, tmp_path: Path) -> AsyncIterator[Fourfold]:
    """On PostgreSQL only; who asks for it is marked `postgres`."""
    async with open_world(postgresql_url, tmp_path / "data") as opened:
        await opened.drain()
        yield opened
