"""I1–I8 by chance: writers, workers, crashes and redeliveries in any order, against a plain dict.

One store serves all scripts of a dialect. A script that fails is cut down to what the failure needs, and printed.
`FOURFOLD_ROUNDS` sets how many are played; `make soak` plays thousands.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import BOTH
from tests.property.machine.scripts import play_rounds

# By 40 scripts each of four broken relays was found (no fence, no version check, …); a PostgreSQL script takes longer.
ROUNDS = {"sqlite": 40, "postgresql": 15}
if "FOURFOLD_ROUNDS" in os.environ:
    ROUNDS = dict.fromkeys(ROUNDS, int(os.environ["FOURFOLD_ROUNDS"]))


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: this test is about orders, the kill tests are about disks."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(params=BOTH)
def quick_rows_url(request: pytest.FixtureRequest, quick_folder: Path) -> str:
    """A migrated database that doesn't wait for the disk."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
        return f"sqlite:///{shutil.copy(sa.make_url(url).database, quick_folder)}"
    url = request.getfixturevalue("postgresql_url")
    name = sa.make_url(url).database
    request.getfixturevalue("postgresql_cluster").execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    return url


@pytest.mark.slow
@pytest.mark.timeout(max(300, ROUNDS["postgresql"] * 15))
async def test_i1_i2_i3_i4_i7_any_order_of_writes_work_and_crashes_converges(quick_rows_url, quick_folder):
    rounds = ROUNDS[quick_rows_url.partition(":")[0]]
    counts = await play_rounds(quick_rows_url, quick_folder / "data", range(rounds))
    for happened in ("units", "resumed", "crashed", "fail", "settled"):  # where nothing happens nothing is proved
        assert counts[happened] >= rounds // 2, counts
