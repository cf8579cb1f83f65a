"""Fixtures of the rows: databases per test on SQLite and PostgreSQL. Which servers a run used stands in its summary."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from fourfold.rows.engine import open_engine
from fourfold.testing.postgresql import PostgresCluster
from tests import servers

BOTH = [pytest.param("sqlite", id="sqlite"), pytest.param("postgresql", id="postgresql", marks=pytest.mark.postgres)]
_SERVERS_KEY = "fourfold_servers"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: runs for minutes; only when chosen by -m soak")
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(_CollectFromWorkers())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in config.getoption("markexpr", ""):
        return
    chosen = [item for item in items if item.get_closest_marker("soak") is None]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("soak")])
        items[:] = chosen


def pytest_report_header() -> str:
    found = "found" if servers.has_postgresql() else "missing"
    rule = "required" if servers.servers_required() else "optional"
    return f"servers ({rule}): PostgreSQL programs {found}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    servers_used = dict(servers.used)
    servers.stop_all()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_SERVERS_KEY] = servers_used


class _CollectFromWorkers:
    """With xdist the servers run in the workers; the summary is written by the controller."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        for name, what in getattr(node, "workeroutput", {}).get(_SERVERS_KEY, {}).items():
            servers.used.setdefault(f"{name}/{node.gateway.id}", what)


def pytest_terminal_summary(terminalreporter) -> None:
    used = ", ".join(servers.used.values()) or "none (SQLite only)"
    terminalreporter.write_line(f"servers used: {used}")


@pytest.fixture(scope="session")
def postgresql_cluster() -> PostgresCluster:
    """This process' PostgreSQL server; skips where there are no programs, fails where servers are required."""
    if not servers.has_postgresql():
        message = "no PostgreSQL server programs (make postgres installs them)"
        pytest.fail(message) if servers.servers_required() else pytest.skip(message)
    return servers.postgresql()


@pytest.fixture
def postgresql_url(postgresql_cluster: PostgresCluster) -> Iterator[str]:
    """A database of the test's own with Fourfold's tables."""
    name = servers.fresh_name()
    yield postgresql_cluster.create_database(name, servers.TEMPLATE)
    postgresql_cluster.drop_database(name)


@pytest.fixture
def empty_postgresql_url(postgresql_cluster: PostgresCluster) -> Iterator[str]:
    """A database of the test's own with nothing in it."""
    name = servers.fresh_name()
    yield postgresql_cluster.create_database(name)
    postgresql_cluster.drop_database(name)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "rows.db"
    servers.run_migrations(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, _sqlite_template: Path) -> str:
    """A database file of the test's own with Fourfold's tables."""
    shutil.copy(_sqlite_template, tmp_path / "rows.db")
    return f"sqlite:///{tmp_path / 'rows.db'}"


@pytest.fixture(params=BOTH)
def rows_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own, on both dialects."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgresql_url")


@pytest.fixture(params=BOTH)
def empty_rows_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without Fourfold's tables, on both dialects."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return request.getfixturevalue("empty_postgresql_url")


@pytest.fixture
async def engine(rows_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on `rows_url`, closed afterwards."""
    opened = open_engine(rows_url)
    yield opened
    await opened.dispose()
