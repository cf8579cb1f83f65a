"""The soak's short form: three rounds of real kills under load on each dialect."""

from __future__ import annotations

import pytest

from tests.soak import kills


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(300)
async def test_writers_and_relays_killed_at_random_moments_leave_all_stores_in_agreement(rows_url, tmp_path):
    figures = await kills.run(rows_url, tmp_path / "data", rounds=3, seconds=2, seed=1)
    assert figures.rounds == 3
    assert figures.kills >= 3 * (kills.WRITERS + kills.RELAYS)
    assert figures.said["committed"] > 0
