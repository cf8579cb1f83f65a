"""Settings from the environment: one error for all that is wrong, no value in it, and no name that wasn't promised."""

from __future__ import annotations

import traceback

import pytest

from fourfold.catalogs.recordings.database import RecordingsSettings
from fourfold.errors import ConfigurationError
from fourfold.settings import Settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no .env
    for name in ("DATABASE_URL", "FOURFOLD_ROWS_URL", "ROWS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_all_that_is_wrong_is_told_at_once_and_no_value_of_it(monkeypatch):
    monkeypatch.setenv("FOURFOLD_LEASE_SECONDS", "hunter2")
    monkeypatch.setenv("FOURFOLD_POOL_SIZE", "-7351")
    with pytest.raises(ConfigurationError) as raised:
        Settings()
    assert raised.value.code == "settings.invalid"
    assert "lease_seconds" in str(raised.value)
    assert "pool_size" in str(raised.value)
    told = "".join(traceback.format_exception(raised.value))
    assert "hunter2" not in told
    assert "-7351" not in told


def test_the_rows_are_named_by_two_variables_and_ours_wins(monkeypatch):
    monkeypatch.setenv("ROWS_URL", "sqlite:///somebody-elses.db")
    assert Settings().rows_url is None
    monkeypatch.setenv("DATABASE_URL", "sqlite:///theirs.db")
    assert Settings().rows_location == "sqlite:///theirs.db"
    monkeypatch.setenv("FOURFOLD_ROWS_URL", "sqlite:///ours.db")
    assert Settings().rows_location == "sqlite:///ours.db"
    assert Settings(rows_url="sqlite:///given.db").rows_location == "sqlite:///given.db"


def test_the_recordings_read_the_names_of_their_source(monkeypatch):
    monkeypatch.setenv("RETRY_ATTEMPTS", "9")
    assert RecordingsSettings().retry_attempts == 5
    monkeypatch.setenv("DB_RETRY_ATTEMPTS", "2")
    assert RecordingsSettings().retry_attempts == 2
    monkeypatch.setenv("DB_RETRY_DELAY", "soon")
    with pytest.raises(ConfigurationError) as raised:
        RecordingsSettings()
    assert raised.value.code == "settings.invalid"
