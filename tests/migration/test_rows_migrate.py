"""Fourfold's own tables: fresh equals migrated, twice is once, a newer release is refused."""

import asyncio

import pytest
import sqlalchemy as sa

from fourfold.errors import ConfigurationError
from fourfold.rows import tables
from fourfold.rows.engine import open_engine, read_transaction, write_transaction
from fourfold.rows.migrate import check_version, downgrade, migrate

CATALOG = """
SELECT c.relname, a.attname, a.attstorage, a.attidentity, a.attnotnull, format_type(a.atttypid, a.atttypmod),
pg_get_expr(d.adbin, d.adrelid) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') ORDER BY 1, 2"""


@pytest.fixture
async def empty(empty_rows_url):
    engine = open_engine(empty_rows_url)
    yield engine
    await engine.dispose()


def reflected(connection):
    inspector = sa.inspect(connection)
    found = {}
    for name in inspector.get_table_names():
        if name.endswith("_version"):
            continue
        columns = [(c["name"], str(c["type"]), c["nullable"], str(c["default"])) for c in inspector.get_columns(name)]
        found[name] = (
            columns,
            inspector.get_pk_constraint(name),
            sorted(map(str, inspector.get_foreign_keys(name))),
            sorted(map(str, inspector.get_indexes(name))),
            sorted(map(str, inspector.get_check_constraints(name))),
        )
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' OR sql LIKE '%AUTOINC%'"
        )
        found["ddl"] = sorted((name, "".join(sql.split()) if "TABLE" in sql else sql) for name, sql in rows)
    else:
        rows = connection.exec_driver_sql(CATALOG)
        found["catalog"] = [
            tuple(row) for row in rows if not row[0].startswith(("fourfold_version", "fourfold_stage_v"))
        ]
    return found


async def snapshot(engine):
    async with read_transaction(engine) as connection:
        return await connection.run_sync(reflected)


async def test_a_fresh_schema_equals_a_migrated_one(empty):
    async with write_transaction(empty) as connection:
        await connection.run_sync(tables.metadata.create_all)
        await connection.run_sync(tables.stage_metadata.create_all)
    fresh = await snapshot(empty)
    async with write_transaction(empty) as connection:
        await connection.run_sync(tables.metadata.drop_all)
        await connection.run_sync(tables.stage_metadata.drop_all)
    await migrate(empty)
    migrated = await snapshot(empty)
    assert migrated.keys() == fresh.keys()
    for name, expected in fresh.items():
        assert migrated[name] == expected, name


async def test_down_and_up_again(empty):
    await migrate(empty)
    first = await snapshot(empty)
    await downgrade(empty)
    async with read_transaction(empty) as connection:
        names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    assert {name for name in names if not name.endswith("_version")} == set()
    await migrate(empty)
    assert await snapshot(empty) == first


async def test_a_version_is_checked(empty):
    with pytest.raises(ConfigurationError) as caught:
        await check_version(empty)
    assert (caught.value.code, "fourfold migrate" in caught.value.hint) == ("rows.not_migrated", True)
    await migrate(empty)
    await check_version(empty)
    async with write_transaction(empty) as connection:
        await connection.exec_driver_sql("UPDATE fourfold_version SET version_num = '9999'")
    for refused in (check_version, migrate):
        with pytest.raises(ConfigurationError) as caught:
            await refused(empty)
        assert caught.value.code == "rows.newer_version"


async def test_several_may_migrate_at_once(empty_rows_url):
    engines = [open_engine(empty_rows_url) for _ in range(6)]
    try:
        await asyncio.gather(*(migrate(engine) for engine in engines))
        await check_version(engines[0])
    finally:
        for engine in engines:
            await engine.dispose()


async def test_the_stage_has_a_database_of_its_own_on_sqlite(tmp_path):
    rows, stage = open_engine(f"sqlite:///{tmp_path / 'rows.db'}"), open_engine(f"sqlite:///{tmp_path / 'stage.db'}")
    try:
        await migrate(rows, stage_engine=stage)
        await check_version(rows, stage_engine=stage)
        assert set(await snapshot(stage)) == {"fourfold_stage", "ddl"}
        assert "fourfold_stage" not in await snapshot(rows)
        with pytest.raises(ConfigurationError):
            await check_version(rows)
    finally:
        await rows.dispose()
        await stage.dispose()
