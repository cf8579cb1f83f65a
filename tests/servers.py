"""The real servers of a test run: started once per process on first use, and named in the run's summary."""

from __future__ import annotations

import asyncio
import os
import uuid
from functools import cache

from fourfold.rows.engine import open_engine
from fourfold.rows.migrate import migrate
from fourfold.testing.postgresql import PostgresCluster, find_postgresql

TEMPLATE = "fourfold_template"  # migrated, never connected to again: every test's database is a copy

used: dict[str, str] = {}  # server → what it is, for the summary


def servers_required() -> bool:
    """CI sets FOURFOLD_REQUIRE_SERVERS=1: a missing server fails there and hides nowhere."""
    return os.environ.get("FOURFOLD_REQUIRE_SERVERS", "0") not in {"", "0"}


def has_postgresql() -> bool:
    return find_postgresql() is not None


@cache
def postgresql() -> PostgresCluster:
    """This process' cluster; with xdist each worker has its own, a second each, and nothing to share or to lock."""
    cluster = PostgresCluster()
    try:
        cluster.create()
        cluster.create_database(TEMPLATE)
        run_migrations(cluster.url(TEMPLATE))
    except BaseException:
        cluster.destroy()
        raise
    used["postgresql"] = f"PostgreSQL {cluster.version} on port {cluster.port}"
    return cluster


def stop_all() -> None:
    if postgresql.cache_info().currsize:
        postgresql().destroy()
        postgresql.cache_clear()


def run_migrations(url: str) -> None:
    async def run() -> None:
        engine = open_engine(url)
        try:
            await migrate(engine)
        finally:
            await engine.dispose()

    asyncio.run(run())


def fresh_name() -> str:
    return f"t_{uuid.uuid4().hex}"
