"""recordings-1: the tables are those of the source system, fresh and migrated alike, on both dialects."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from fourfold.catalogs.recordings.migrate import VERSION_TABLE, adopt, current_version, downgrade, upgrade
from fourfold.catalogs.recordings.models import Base
from fourfold.errors import ConfigurationError
from fourfold.rows.engine import open_engine

POSTGRESQL_TABLES = {
    "recordings": {
        "id": ("UUID", False, "uuid_generate_v4()"),
        "file_path": ("TEXT", False, None),
        "file_name": ("TEXT", False, None),
        "sha256_hash": ("VARCHAR(64)", True, None),
        "xxh128_hash": ("VARCHAR(32)", True, None),
        "created_at": ("TIMESTAMP WITH TIME ZONE", False, "now()"),
    },
    "metadata": {
        "id": ("UUID", False, "uuid_generate_v4()"),
        "recording_id": ("UUID", False, None),
        "key": ("VARCHAR(255)", False, None),
        "value": ("TEXT", False, None),
    },
    "tracklists": {
        "id": ("UUID", False, "uuid_generate_v4()"),
        "recording_id": ("UUID", False, None),
        "source": ("VARCHAR(255)", False, None),
        "tracks": ("JSONB", True, None),
        "cue_file_path": ("TEXT", True, None),
    },
}
HAS_EXTENSION = sa.text("SELECT count(*) FROM pg_extension WHERE extname = 'uuid-ossp'")


@pytest.fixture
async def empty_engine(empty_rows_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(empty_rows_url)
    yield engine
    await engine.dispose()


def shape(connection: sa.Connection) -> dict[str, Any]:
    """All that the catalog says of its tables, in comparable form."""
    inspector = sa.inspect(connection)
    return {
        table: {
            "columns": {
                column["name"]: (column["type"].compile(connection.dialect), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            },
            "primary key": inspector.get_pk_constraint(table),
            "unique": sorted(inspector.get_unique_constraints(table), key=lambda unique: unique["name"]),
            "foreign keys": inspector.get_foreign_keys(table),
            "indexes": sorted(inspector.get_indexes(table), key=lambda index: index["name"]),
        }
        for table in inspector.get_table_names()
        if not table.startswith("fourfold_")
    }


async def run(engine: AsyncEngine, function: Any) -> Any:
    async with engine.begin() as connection:
        return await connection.run_sync(function)


async def test_recordings_1_fresh_and_migrated_are_the_same(empty_engine: AsyncEngine):
    await upgrade(empty_engine)
    migrated = await run(empty_engine, shape)
    await downgrade(empty_engine)
    assert await run(empty_engine, shape) == {}
    if empty_engine.dialect.name == "postgresql":
        async with empty_engine.begin() as connection:
            await connection.execute(sa.text('CREATE EXTENSION "uuid-ossp"'))
    await run(empty_engine, Base.metadata.create_all)
    assert await run(empty_engine, shape) == migrated


@pytest.mark.postgres
async def test_recordings_1_postgresql_types_and_defaults(empty_postgresql_url: str):
    engine = open_engine(empty_postgresql_url)
    await upgrade(engine)
    found = await run(engine, shape)
    await engine.dispose()
    assert {table: parts["columns"] for table, parts in found.items()} == POSTGRESQL_TABLES
    names = {
        index["name"] for parts in found.values() for index in parts["indexes"] if "duplicates_constraint" not in index
    }
    assert names == {"idx_metadata_recording_id", "idx_metadata_key", "idx_recordings_file_path"}
    uniques = {tuple(unique["column_names"]) for parts in found.values() for unique in parts["unique"]}
    assert uniques == {("sha256_hash",), ("xxh128_hash",), ("recording_id",)}
    keys = [key for parts in found.values() for key in parts["foreign keys"]]
    assert [(key["referred_table"], key["options"]) for key in keys] == [("recordings", {"ondelete": "CASCADE"})] * 2


async def test_recordings_1_ids_and_times_are_made_by_the_database(empty_engine: AsyncEngine):
    await upgrade(empty_engine)
    async with empty_engine.begin() as connection:
        for number in range(50):
            await connection.execute(
                sa.text("INSERT INTO recordings (file_path, file_name) VALUES (:path, 'x')"), {"path": f"/{number}"}
            )
        table = Base.metadata.tables["recordings"]
        rows = (await connection.execute(sa.select(table.c.id, table.c.created_at))).all()
    assert len({row.id for row in rows}) == 50
    assert {(row.id.version, row.id.variant) for row in rows} == {(4, uuid.RFC_4122)}
    assert all(row.created_at.tzinfo is not None for row in rows)


async def test_recordings_1_upgrade_twice_and_at_once_changes_nothing_more(empty_engine: AsyncEngine):
    await asyncio.gather(upgrade(empty_engine), upgrade(empty_engine))
    before = await run(empty_engine, shape)
    await upgrade(empty_engine)
    assert await run(empty_engine, shape) == before
    assert await current_version(empty_engine) == "0001"


@pytest.mark.postgres
async def test_recordings_1_extension_goes_only_if_it_came_with_the_catalog(empty_postgresql_url: str):
    engine = open_engine(empty_postgresql_url)

    async def count() -> int:
        async with engine.begin() as connection:
            return int(await connection.scalar(HAS_EXTENSION) or 0)

    await upgrade(engine)
    assert await count() == 1
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE other (id uuid DEFAULT uuid_generate_v4())"))
    await downgrade(engine)
    assert await count() == 1  # somebody else's table needs it by now
    async with engine.begin() as connection:
        await connection.execute(sa.text("DROP TABLE other"))
    await upgrade(engine)
    await downgrade(engine)
    assert await count() == 0
    async with engine.begin() as connection:
        await connection.execute(sa.text('CREATE EXTENSION "uuid-ossp"'))
    await upgrade(engine)
    await downgrade(engine)
    assert await count() == 1  # it was there before
    await engine.dispose()


@pytest.fixture
async def engine_without_rights(empty_postgresql_url: str) -> AsyncIterator[AsyncEngine]:
    """A role that may make tables, and no extensions."""
    role, password = f"plain_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    owner = open_engine(empty_postgresql_url)
    async with owner.begin() as connection:
        await connection.execute(sa.text(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'"))
        await connection.execute(sa.text(f"GRANT ALL ON SCHEMA public TO {role}"))
    url = sa.make_url(empty_postgresql_url).set(username=role, password=password)
    engine = open_engine(url.render_as_string(hide_password=False))
    yield engine
    await engine.dispose()
    async with owner.begin() as connection:
        await connection.execute(sa.text(f"DROP OWNED BY {role}"))
        await connection.execute(sa.text(f"DROP ROLE {role}"))
    await owner.dispose()


@pytest.mark.postgres
async def test_recordings_1_missing_right_to_make_the_extension_says_what_to_run(engine_without_rights: AsyncEngine):
    with pytest.raises(ConfigurationError, match='CREATE EXTENSION "uuid-ossp"') as caught:
        await upgrade(engine_without_rights)
    assert caught.value.code == "recordings.extension"
    assert await run(engine_without_rights, shape) == {}


@pytest.mark.parametrize("table", ["recordings", "metadata", "tracklists"])
async def test_recordings_1_table_clash_is_refused_before_any_change(empty_engine: AsyncEngine, table: str):
    async with empty_engine.begin() as connection:
        await connection.execute(sa.text(f"CREATE TABLE {table} (x int)"))
    before = await run(empty_engine, shape)
    with pytest.raises(ConfigurationError, match=table) as caught:
        await upgrade(empty_engine)
    assert caught.value.code == "recordings.table_clash"
    assert await run(empty_engine, shape) == before
    assert await current_version(empty_engine) is None


async def test_recordings_1_source_systems_tables_are_adopted_without_ddl(empty_engine: AsyncEngine):
    await upgrade(empty_engine)
    async with empty_engine.begin() as connection:
        await connection.execute(sa.text(f"DROP TABLE {VERSION_TABLE}"))
        await connection.execute(sa.text("DROP INDEX idx_recordings_file_path"))
    before = await run(empty_engine, shape)
    await adopt(empty_engine)
    assert await run(empty_engine, shape) == before
    await upgrade(empty_engine)  # nothing to do
    assert await current_version(empty_engine) == "0001"


async def test_recordings_1_other_tables_are_not_adopted(empty_engine: AsyncEngine):
    async with empty_engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE recordings (id int, file_path text)"))
    with pytest.raises(ConfigurationError, match=r"recordings\.id is INTEGER.*table metadata is missing") as caught:
        await adopt(empty_engine)
    assert "recordings.file_name is missing, expected TEXT" in caught.value.problems


async def test_recordings_1_a_newer_version_is_refused(empty_engine: AsyncEngine):
    await upgrade(empty_engine)
    async with empty_engine.begin() as connection:
        await connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="9999") as caught:
        await upgrade(empty_engine)
    assert caught.value.code == "recordings.newer_version"
