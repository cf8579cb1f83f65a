import asyncio

import pytest
import sqlalchemy as sa

from fourfold.errors import ConfigurationError, StoreRejectedError, StoreUnavailableError
from fourfold.rows.clock import now_sql
from fourfold.rows.engine import open_engine, open_engine_beside, open_sync_engine, read_transaction, write_transaction


async def test_a_written_row_is_read_back(engine):
    async with write_transaction(engine) as connection:
        await connection.execute(sa.text("INSERT INTO fourfold_meta (name, value) VALUES ('a', 'b')"))
    async with read_transaction(engine) as connection:
        assert (await connection.execute(sa.text("SELECT value FROM fourfold_meta"))).scalar_one() == "b"


async def test_a_reader_cant_write_and_its_connection_can_afterwards(engine):
    for _ in range(3):
        with pytest.raises(StoreRejectedError) as caught:
            async with read_transaction(engine) as connection:
                await connection.execute(sa.text("INSERT INTO fourfold_meta (name, value) VALUES ('r', 'b')"))
        assert caught.value.code == "rows.read_only"
    async with write_transaction(engine) as connection:
        await connection.execute(sa.text("INSERT INTO fourfold_meta (name, value) VALUES ('r', 'b')"))


async def test_the_clock_moves_within_a_transaction_and_has_fractions(engine):
    now = sa.text(f"SELECT {now_sql(engine.dialect.name)}")
    async with write_transaction(engine) as connection:
        seen = {(await connection.execute(now)).scalar_one() for _ in range(50)}
    assert len(seen) > 1
    assert any(value % 1 for value in seen)
    assert all(isinstance(value, float) for value in seen)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mysql://u:secret@h/x", "rows.url"),
        ("postgre://u:secret@h/x", "rows.url"),
        ("not a url secret", "rows.url"),
        ("postgresql+asyncpg://u:secret@h/x", "rows.driver"),
        ("sqlite://", "rows.memory"),
        ("sqlite:///:memory:", "rows.memory"),
        ("sqlite:///file::memory:?uri=true&cache=shared", "rows.memory"),
        ("sqlite:///file:shared?uri=true&mode=memory&cache=shared", "rows.memory"),
    ],
)
def test_urls_that_cant_work_are_refused_without_showing_them(url, code):
    for opened in (open_engine, open_sync_engine):
        with pytest.raises(ConfigurationError) as caught:
            opened(url)
        assert caught.value.code == code
        assert "secret" not in str(caught.value)


def test_plain_urls_take_our_drivers():
    assert open_engine("postgres://u@h/x").url.drivername == "postgresql+psycopg"
    assert open_sync_engine("sqlite:///x.db").url.drivername == "sqlite+pysqlite"


def test_a_missing_psycopg_names_the_extra(monkeypatch):
    monkeypatch.setattr("fourfold.rows.engine.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError) as caught:
        open_engine("postgresql://u@h/x")
    assert "pip install 'fourfold[postgres]'" in caught.value.hint


@pytest.mark.postgres
async def test_a_pooler_gets_no_prepared_statements(postgresql_url):
    opened = open_engine(f"{postgresql_url}?pgbouncer=true")
    beside = open_engine_beside(opened, sqlite_file="", pool_size=1, max_overflow=0)
    for each in (opened, beside):
        async with each.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw.prepare_threshold is None
        await each.dispose()


@pytest.mark.postgres
async def test_an_engine_beside_another_is_on_the_same_postgresql(postgresql_url):
    opened = open_engine(postgresql_url)
    beside = open_engine_beside(opened, sqlite_file="", pool_size=1, max_overflow=0)
    async with beside.connect() as connection:
        name = (await connection.exec_driver_sql("SELECT current_database()")).scalar_one()
        raw = (await connection.get_raw_connection()).driver_connection
        assert (name, raw.prepare_threshold) == (opened.url.database, 5)
    await beside.dispose()


async def test_an_engine_beside_another_keeps_the_folder_whatever_its_name(tmp_path):
    folder = tmp_path / "what? 100%41"
    folder.mkdir()
    first = open_engine(sa.URL.create("sqlite", database=str(folder / "rows.db")))
    beside = open_engine_beside(first, sqlite_file="stage.db", pool_size=1, max_overflow=0)
    async with beside.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
    await beside.dispose()
    assert (folder / "stage.db").exists()


async def test_sqlite_connections_have_what_durability_and_capture_need(sqlite_url):
    opened = open_engine(sqlite_url)
    async with opened.connect() as connection:
        seen = {}
        for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "busy_timeout"):
            seen[name] = (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "busy_timeout": 30000,
    }
    assert seen == expected
    await opened.dispose()


async def test_a_pragma_that_sqlite_refuses_is_an_error(sqlite_url, monkeypatch):
    monkeypatch.setattr("fourfold.rows.engine._PRAGMAS", (("journal_mode", "WAL", "delete"),))
    opened = open_engine(sqlite_url)
    with pytest.raises(ConfigurationError) as caught:
        await opened.connect()
    assert caught.value.code == "rows.pragma"
    await opened.dispose()


async def test_a_reader_sees_one_snapshot(engine):
    insert = sa.text("INSERT INTO fourfold_meta (name, value) VALUES ('n', 'v')")
    count = sa.text("SELECT count(*) FROM fourfold_meta")
    async with read_transaction(engine) as reader:
        assert (await reader.execute(count)).scalar_one() == 0
        async with write_transaction(engine) as writer:
            await writer.execute(insert)
        assert (await reader.execute(count)).scalar_one() == 0
    async with read_transaction(engine) as reader:
        assert (await reader.execute(count)).scalar_one() == 1


async def test_a_writer_on_sqlite_holds_the_lock_from_its_beginning(sqlite_url, monkeypatch):
    monkeypatch.setattr("fourfold.rows.engine._BUSY_SECONDS", 0)
    monkeypatch.setattr("fourfold.rows.engine._PRAGMAS", (("busy_timeout", "0", 0),))
    opened = open_engine(sqlite_url)
    async with write_transaction(opened) as first:
        await first.exec_driver_sql("SELECT 1")
        with pytest.raises(StoreUnavailableError) as caught:
            async with write_transaction(opened):
                pass
        assert caught.value.code == "rows.busy"
    await opened.dispose()


@pytest.mark.postgres
async def test_a_lost_connection_is_retryable_and_the_pool_recovers(postgresql_url, postgresql_cluster):
    opened = open_engine(postgresql_url)

    async def be_cut():
        async with write_transaction(opened) as connection:
            pid = (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
            postgresql_cluster.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
            await connection.exec_driver_sql("SELECT 1")

    with pytest.raises(StoreUnavailableError) as caught:
        await be_cut()
    assert caught.value.code == "rows.unavailable"
    async with write_transaction(opened) as connection:
        assert (await connection.exec_driver_sql("SELECT 1")).scalar_one() == 1
    assert opened.pool.checkedout() == 0
    await opened.dispose()


async def test_s07_parameters_appear_in_no_error(engine):
    with pytest.raises(sa.exc.DBAPIError) as caught:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT * FROM missing WHERE a = :a"), {"a": "secret"})
    assert "secret" not in str(caught.value)


def test_an_unknown_database_has_no_clock():
    with pytest.raises(ConfigurationError):
        now_sql("oracle")


def test_a_closed_sqlite_connection_holds_no_lock_however_long_its_statements_live(sqlite_url, monkeypatch):
    """A cancelled task's traceback keeps its cursor; SQLite closes for good only when the last one is gone."""
    monkeypatch.setattr("fourfold.rows.engine._BUSY_SECONDS", 0)
    engine = open_sync_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    held = []
    for leave in ("invalidate", "close"):
        pooled = engine.raw_connection()
        raw = pooled.driver_connection
        raw.execute("BEGIN IMMEDIATE")
        cursor = raw.execute("INSERT INTO t VALUES (NULL), (NULL) RETURNING id")
        held.append((cursor, cursor.fetchone()))
        if leave == "invalidate":
            pooled.invalidate()
        else:
            raw.close()
        with engine.begin() as connection:  # BEGIN IMMEDIATE, refused at once while anybody holds the lock
            assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0, leave
    assert len(held) == 2
    engine.dispose()


async def test_f34_units_cancelled_anywhere_leave_the_write_lock_free(sqlite_url):
    """Failure sequence: cancelled between a statement's first and last row, the transaction outlived its connection."""
    engine = open_engine(sqlite_url)
    async with write_transaction(engine) as connection:
        await connection.execute(sa.text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))

    async def write():
        async with write_transaction(engine) as connection:
            await connection.execute(sa.text("INSERT INTO t VALUES (NULL), (NULL) RETURNING id"))

    ended = []  # the exceptions and their tracebacks stay alive, as in a log
    for turns in range(60):
        tasks = [asyncio.create_task(write()) for _ in range(2)]
        for _ in range(turns * 5):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        ended += await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(10):
            await write()
    assert any(isinstance(end, asyncio.CancelledError) for end in ended)
    await engine.dispose()
