"""What is known to break capture by triggers, case by case; numbers are those of docs (F…, S…)."""

import asyncio
import json
import sqlite3
import uuid

import psycopg
import pytest
import sqlalchemy as sa

from fourfold.errors import ConfigurationError, StoreRejectedError
from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey
from fourfold.projection.keys import KeyColumn
from fourfold.rows.capture import check_capture, install_capture
from fourfold.rows.changes import append_changes, own_changes
from fourfold.rows.engine import open_engine, open_sync_engine, read_transaction, write_transaction

ID = (KeyColumn("id", "integer"),)
SONGS = CaptureSpec("songs", ID, watched=("title", "code"))
CREATE = "CREATE TABLE songs (id integer PRIMARY KEY, title text, code text UNIQUE, file text)"
POSTGRES = pytest.mark.postgres


async def run(engine, *statements):
    async with write_transaction(engine) as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def queue(engine):
    async with read_transaction(engine) as connection:
        rows = (
            await connection.exec_driver_sql("SELECT id, table_name, kind, keys FROM fourfold_change ORDER BY id")
        ).all()
    return [(row[0], row[1], row[2], json.loads(row[3]) if isinstance(row[3], str) else row[3]) for row in rows]


async def dirty(engine):
    return {(table, key) for _, table, kind, keys in await queue(engine) for key in (keys or [kind])}


async def clear(engine):
    await run(engine, "DELETE FROM fourfold_change")


async def captured(engine, *specs, create=CREATE):
    await run(engine, *create.split("; "))
    async with write_transaction(engine) as connection:
        await install_capture(connection, specs or (SONGS,))
    await clear(engine)
    return engine


async def problems(engine, *specs):
    async with read_transaction(engine) as connection:
        return await check_capture(connection, specs or (SONGS,))


@pytest.fixture
async def postgres(postgresql_url):
    engine = open_engine(postgresql_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def sqlite(sqlite_url):
    engine = open_engine(sqlite_url)
    yield engine
    await engine.dispose()


# ------------------------------------------------------------------------------------ concurrency (F05 F06 F10 F40)


@POSTGRES
async def test_f05_f06_lines_of_open_transactions_outlive_what_is_cleared_meanwhile(postgres):
    await captured(postgres)
    async with postgres.connect() as early, postgres.connect() as late:
        await early.exec_driver_sql("INSERT INTO songs (id) VALUES (1)")
        await late.exec_driver_sql("INSERT INTO songs (id) VALUES (2)")
        await late.commit()  # the higher id first
        seen = await queue(postgres)
        assert [keys for *_, keys in seen] == [["2"]]
        await run(postgres, f"DELETE FROM fourfold_change WHERE id = {seen[0][0]}")
        await early.commit()
        after = await queue(postgres)
        assert [keys for *_, keys in after] == [["1"]]
        assert after[0][0] < seen[0][0]


@POSTGRES
async def test_f05_a_line_of_the_same_key_is_another_line(postgres):
    await captured(postgres)
    await run(postgres, "INSERT INTO songs (id, title) VALUES (1, 'a')")
    async with postgres.connect() as worker, postgres.connect() as writer:
        # The worker has the first line in hand, uncommitted; the writer isn't made to wait, nor is its line lost.
        await worker.exec_driver_sql("DELETE FROM fourfold_change")
        await writer.exec_driver_sql("UPDATE songs SET title = 'b' WHERE id = 1")
        await writer.commit()
        await worker.commit()
    assert await dirty(postgres) == {("songs", "1")}


async def test_f10_sixteen_writers_in_opposite_orders(engine):
    parents = (ParentKey("albums", (KeyColumn("code", "text"),)),)
    files = [str(uuid.uuid4()) for _ in range(8)]
    await captured(
        engine,
        CaptureSpec("songs", ID, parents=parents, files=(FileColumn("file"),)),
        create=CREATE.replace(" UNIQUE", ""),
    )
    for file in files:
        values = f"VALUES ('{file}', 'a', 'b', 1, 'c', 0)"
        await run(
            engine, f"INSERT INTO fourfold_object (key, sha256, xxh128, size_bytes, content_type, created_at) {values}"
        )

    async def write(number):
        # Own rows, but the same parents and the same files, in opposite orders: only Fourfold's objects could deadlock.
        order = range(8) if number % 2 else range(7, -1, -1)
        async with write_transaction(engine) as connection:
            for step in order:
                row = number * 8 + step
                insert = (
                    f"INSERT INTO songs (id, title, code, file) VALUES ({row}, 't', 'album{step}', '{files[step]}')"
                )
                await connection.exec_driver_sql(insert)
            for step in reversed(order):
                change = f"UPDATE songs SET file = '{files[7 - step]}', code = 'album{7 - step}'"
                await connection.exec_driver_sql(f"{change} WHERE id = {number * 8 + step}")

    await asyncio.gather(*(write(number) for number in range(16)))
    assert {key for table, key in await dirty(engine) if table == "songs"} == {str(row) for row in range(128)}


@POSTGRES
async def test_f10_a_stopped_relay_that_holds_its_lines_delays_no_writer(postgres):
    # On SQLite there is one writer at a time: a relay's transaction is short, and BEGIN IMMEDIATE waits for it.
    await captured(postgres)
    await run(postgres, "INSERT INTO songs (id, title) VALUES (1, 'a')")
    async with postgres.connect() as stopped:
        await stopped.exec_driver_sql("SELECT * FROM fourfold_change FOR UPDATE")
        async with asyncio.timeout(10):
            await run(postgres, "UPDATE songs SET title = 'b'", "INSERT INTO songs (id) VALUES (2)")
    assert len(await queue(postgres)) == 3


async def test_f40_a_hundred_units_on_a_small_pool_wait_for_nobody_but_each_other(rows_url):
    small = open_engine(rows_url, pool_size=2, max_overflow=0)
    try:
        await captured(small)
        await asyncio.gather(*(run(small, f"INSERT INTO songs (id) VALUES ({number})") for number in range(100)))
        assert len(await dirty(small)) == 100
        assert small.pool.checkedout() == 0
    finally:
        await small.dispose()


async def test_f33_several_connections_open_a_new_file_at_once(tmp_path):
    engines = [open_engine(f"sqlite:///{tmp_path / 'new.db'}") for _ in range(8)]
    try:
        await asyncio.gather(*(run(engine, "SELECT 1") for engine in engines))
    finally:
        for engine in engines:
            await engine.dispose()


def test_f33_a_reader_that_writes_is_refused_instead_of_turning_into_a_writer(sqlite_url):
    opened = open_sync_engine(sqlite_url)
    with opened.connect().execution_options(fourfold_read_only=True) as reader:
        reader.exec_driver_sql("SELECT * FROM fourfold_meta")
        with opened.begin() as writer:  # the reader's lock keeps no writer waiting
            writer.exec_driver_sql("INSERT INTO fourfold_meta VALUES ('a', 'b')")
        with pytest.raises(sa.exc.OperationalError) as caught:
            reader.exec_driver_sql("DELETE FROM fourfold_meta")
        assert caught.value.orig.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
    opened.dispose()


# ----------------------------------------------------------------------- statements that fire other things (F15–F20)


@POSTGRES
async def test_f15_truncate_marks_the_table_and_its_parents_and_forgets_the_files(postgres):
    spec = CaptureSpec(
        "songs", ID, parents=(ParentKey("albums", (KeyColumn("title", "text"),)),), files=(FileColumn("file"),)
    )
    await captured(postgres, spec)
    file = uuid.uuid4()
    values = f"VALUES ('{file}', 'a', 'b', 1, 'c', 0)"
    await run(
        postgres,
        f"INSERT INTO fourfold_object (key, sha256, xxh128, size_bytes, content_type, created_at) {values}",
        f"INSERT INTO songs (id, file) VALUES (1, '{file}')",
    )
    await clear(postgres)
    async with write_transaction(postgres) as connection:
        await connection.exec_driver_sql("TRUNCATE songs")
        assert len((await own_changes(connection)).ids) == 2
    assert await dirty(postgres) == {("songs", "resync"), ("albums", "resync")}
    await run(postgres, "DELETE FROM fourfold_object")


async def test_f15_delete_of_everything_queues_every_key(engine):
    await captured(engine)
    await run(engine, "INSERT INTO songs (id) VALUES (1), (2), (3)")
    await clear(engine)
    await run(engine, "DELETE FROM songs")
    assert await dirty(engine) == {("songs", "1"), ("songs", "2"), ("songs", "3")}


@POSTGRES
async def test_f16_replication_role_replica_is_captured(postgres):
    await captured(postgres)
    await run(postgres, "SET LOCAL session_replication_role = replica", "INSERT INTO songs (id) VALUES (1)")
    assert await dirty(postgres) == {("songs", "1")}


@POSTGRES
@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        ("ALTER TABLE songs DISABLE TRIGGER ALL; ALTER TABLE songs ENABLE TRIGGER ALL", {"not_always"}),
        ("ALTER TABLE songs DISABLE TRIGGER fourfold_update", {"disabled"}),
        ("DROP TRIGGER fourfold_delete ON songs", {"missing"}),
        ("DROP FUNCTION fourfold_capture_songs() CASCADE", {"missing"}),
        ("ALTER FUNCTION fourfold_capture_songs() RESET search_path", {"altered"}),
        ("ALTER FUNCTION fourfold_capture_songs() SECURITY INVOKER", {"altered"}),
        ("DELETE FROM fourfold_capture", {"not_installed"}),
        ("DROP TABLE songs", {"missing_table"}),
    ],
)
async def test_f16_damage_is_named_and_mended(postgres, damage, kinds):
    await captured(postgres)
    assert await problems(postgres) == []
    await run(postgres, *damage.split("; "))
    found = await problems(postgres)
    assert {problem.kind for problem in found} == kinds
    assert all(problem.table == "songs" and problem.hint and str(problem) for problem in found)
    if "missing_table" in kinds:
        with pytest.raises(ConfigurationError):
            await captured(postgres, create="SELECT 1")
        return
    async with write_transaction(postgres) as connection:
        assert await install_capture(connection, [SONGS]) == ["songs"]
    assert await problems(postgres) == []
    expected = set() if kinds == {"not_installed"} else {("songs", "resync")}  # no rows, and nothing known of before
    assert await dirty(postgres) == expected


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("DROP TRIGGER fourfold_songs_update", "missing"),
        (
            (
                "DROP TRIGGER fourfold_songs_update; "
                "CREATE TRIGGER fourfold_songs_update AFTER UPDATE ON songs BEGIN SELECT 1; END"
            ),
            "altered",
        ),
        ("DELETE FROM fourfold_capture", "not_installed"),
        ("DROP TABLE songs", "missing_table"),
    ],
)
async def test_f16_damage_on_sqlite_is_named(sqlite, damage, kind):
    await captured(sqlite)
    assert await problems(sqlite) == []
    await run(sqlite, *damage.split("; ", 1) if "CREATE" in damage else [damage])
    assert [problem.kind for problem in await problems(sqlite)] == [kind]
    if kind != "missing_table":
        async with write_transaction(sqlite) as connection:
            assert await install_capture(connection, [SONGS]) == ["songs"]
        assert await problems(sqlite) == []


async def test_f16_without_fourfolds_tables_nothing_is_installed(empty_rows_url):
    opened = open_engine(empty_rows_url)
    try:
        await run(opened, CREATE)
        for refused in (captured(opened, create="SELECT 1"), problems(opened)):
            with pytest.raises(ConfigurationError) as caught:
                await refused
            assert caught.value.code == "rows.not_migrated"
    finally:
        await opened.dispose()


async def test_f17_or_replace_evicts_another_row_on_our_connection(sqlite):
    await captured(sqlite)
    await run(sqlite, "INSERT INTO songs (id, code) VALUES (1, 'a'), (2, 'b')")
    await clear(sqlite)
    await run(sqlite, "INSERT OR REPLACE INTO songs (id, code) VALUES (1, 'b')")
    assert await dirty(sqlite) == {("songs", "1"), ("songs", "2")}


async def test_f17_a_foreign_connection_evicts_unseen_but_breaks_nothing(sqlite, sqlite_url):
    await captured(sqlite)
    await run(sqlite, "INSERT INTO songs (id, code) VALUES (1, 'a'), (2, 'b')")
    await clear(sqlite)
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as foreign:
        foreign.execute("INSERT OR REPLACE INTO songs (id, code) VALUES (1, 'b')")
        foreign.execute("INSERT OR IGNORE INTO songs (id, code) VALUES (3, 'b'), (4, 'd')")
    foreign.close()
    assert await dirty(sqlite) == {("songs", "1"), ("songs", "4")}  # 2 is verify's to find


async def test_f18_a_cascade_from_one_to_ten_thousand(engine):
    child = "CREATE TABLE takes (id integer PRIMARY KEY, song integer REFERENCES songs (id) ON DELETE CASCADE)"
    takes = CaptureSpec("takes", ID)
    await captured(engine, SONGS, takes, create=f"{CREATE}; {child}")
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
    await run(engine, "INSERT INTO songs (id) VALUES (1)", f"INSERT INTO takes {series} SELECT i, 1 FROM n")
    await clear(engine)
    await run(engine, "DELETE FROM songs WHERE id = 1")
    expected = {("songs", "1")} | {("takes", str(number)) for number in range(1, 10_001)}
    assert await dirty(engine) == expected
    if engine.dialect.name == "postgresql":
        assert max(len(keys) for *_, keys in await queue(engine)) <= 1000
        assert len(await queue(engine)) <= 1 + 11


@POSTGRES
async def test_f18_cascading_updates_of_keys(postgres):
    child = (
        "CREATE TABLE takes (id integer, song integer REFERENCES songs (id) ON UPDATE CASCADE, PRIMARY KEY (song, id))"
    )
    takes = CaptureSpec("takes", (KeyColumn("song", "integer"), KeyColumn("id", "integer")))
    await captured(postgres, SONGS, takes, create=f"{CREATE}; {child}")
    await run(postgres, "INSERT INTO songs (id) VALUES (1), (2)", "INSERT INTO takes VALUES (1, 1), (1, 2), (2, 1)")
    await clear(postgres)
    await run(postgres, "UPDATE songs SET id = id + 10")
    keys = {f"{song},{take}" for song, take in ((1, 1), (1, 2), (2, 1))} | {"11,1", "12,1", "11,2"}
    assert await dirty(postgres) == {("songs", str(key)) for key in (1, 2, 11, 12)} | {("takes", key) for key in keys}


@POSTGRES
async def test_f19_two_keys_swapped_by_one_statement(postgres):
    await captured(postgres, create=CREATE.replace("PRIMARY KEY", "PRIMARY KEY DEFERRABLE INITIALLY DEFERRED"))
    await run(postgres, "INSERT INTO songs (id, title) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    await clear(postgres)
    await run(postgres, "UPDATE songs SET id = CASE id WHEN 1 THEN 2 WHEN 2 THEN 1 ELSE id END")
    assert await dirty(postgres) == {("songs", "1"), ("songs", "2")}


PARTED = (
    "CREATE TABLE songs (id integer, title text, code text, file text, PRIMARY KEY (id)) PARTITION BY RANGE (id); "
    "CREATE TABLE songs_low PARTITION OF songs FOR VALUES FROM (0) TO (100); "
    "CREATE TABLE songs_high (file text, code text, title text, id integer NOT NULL); "  # columns in another order
    "ALTER TABLE songs ATTACH PARTITION songs_high FOR VALUES FROM (100) TO (200)"
)


@POSTGRES
async def test_f19_partitions_written_directly_and_rows_moved_across(postgres):
    spec = CaptureSpec("songs", ID, watched=("title",), files=(FileColumn("file"),))
    await captured(postgres, spec, create=PARTED)
    file = uuid.uuid4()
    values = f"VALUES ('{file}', 'a', 'b', 1, 'c', 0)"
    await run(
        postgres, f"INSERT INTO fourfold_object (key, sha256, xxh128, size_bytes, content_type, created_at) {values}"
    )
    await run(
        postgres, "INSERT INTO songs_low (id) VALUES (1)", f"INSERT INTO songs_high (id, file) VALUES (150, '{file}')"
    )
    assert await dirty(postgres) == {("songs", "1"), ("songs", "150")}
    await clear(postgres)
    await run(postgres, "UPDATE songs SET id = 2 WHERE id = 150")
    assert await dirty(postgres) == {("songs", "150"), ("songs", "2")}
    await clear(postgres)
    await run(postgres, "TRUNCATE songs_high")
    assert await dirty(postgres) == {("songs", "resync")}
    async with read_transaction(postgres) as connection:  # the row in the other partition keeps its file
        rows = (await connection.exec_driver_sql("SELECT row_key FROM fourfold_object_ref")).scalars().all()
    assert rows == ["2"]


@POSTGRES
async def test_f16_a_partition_that_came_later_is_named_and_gets_its_triggers(postgres):
    await captured(postgres, create=PARTED)
    await run(postgres, "CREATE TABLE songs_top PARTITION OF songs FOR VALUES FROM (200) TO (300)")
    found = await problems(postgres)
    assert {problem.kind for problem in found} == {"missing"}
    assert all("songs_top" in problem.message for problem in found)
    async with write_transaction(postgres) as connection:
        await install_capture(connection, [SONGS])
    await clear(postgres)
    await run(postgres, "INSERT INTO songs_top (id) VALUES (250)")
    assert await dirty(postgres) == {("songs", "250")}


async def bulk(engine, count):
    await captured(engine)
    async with write_transaction(engine) as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        async with raw.cursor() as cursor, cursor.copy("COPY songs (id, title) FROM STDIN") as copy:
            for start in range(1, count + 1, 10_000):
                await copy.write("".join(f"{number}\tt\n" for number in range(start, start + 10_000)))
        own = await own_changes(connection)
        assert len(own.ids) == count // 1000
        first, last = own.first, own.last
        await connection.exec_driver_sql("UPDATE songs SET title = title || 'x'")
        assert len((await own_changes(connection)).ids) == 2 * count // 1000
        assert first < last
    async with read_transaction(engine) as connection:
        for half in ("<=", ">"):
            keys = f"SELECT unnest(keys) AS key FROM fourfold_change WHERE id {half} {last}"
            statement = f"SELECT count(*), count(DISTINCT key), min(key::int), max(key::int) FROM ({keys}) AS k"
            assert tuple((await connection.exec_driver_sql(statement)).one()) == (count, count, 1, count)
        longest = "SELECT max(cardinality(keys)) FROM fourfold_change"
        assert (await connection.exec_driver_sql(longest)).scalar_one() == 1000


@POSTGRES
async def test_f20_copy_and_bulk_update_queue_exactly_their_keys(postgres):
    await bulk(postgres, 100_000)


@POSTGRES
@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_f20_a_million_rows(postgres):
    await bulk(postgres, 1_000_000)


@POSTGRES
async def test_f20_a_plan_made_for_one_row_serves_a_hundred_thousand(postgres):
    await captured(postgres)
    async with postgres.connect() as connection:
        for _ in range(6):  # the session keeps its plans from here on
            await connection.exec_driver_sql("INSERT INTO songs (id) SELECT coalesce(max(id), 0) + 1 FROM songs")
            await connection.exec_driver_sql("UPDATE songs SET title = 'a' || id")
            await connection.commit()
        async with asyncio.timeout(30):
            await connection.exec_driver_sql("INSERT INTO songs (id) SELECT generate_series(10, 50000)")
            await connection.exec_driver_sql("UPDATE songs SET title = 'b' || id")
            await connection.commit()


# --------------------------------------------------------------------------------------------------- rights (S10 S11)


@pytest.fixture
async def application(postgres, postgresql_cluster):
    """The migrating role's engine, and one of a role that may only write its own tables."""
    await captured(postgres)
    role, password = f"app_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    await run(
        postgres,
        f"CREATE ROLE {role} LOGIN PASSWORD '{password}'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON songs TO {role}",
        f"GRANT SELECT ON fourfold_change TO {role}",
    )
    opened = open_engine(postgresql_cluster.url(postgres.url.database, user=role, password=password))
    yield postgres, opened, role
    await opened.dispose()
    await run(postgres, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@POSTGRES
async def test_s10_a_role_without_rights_on_the_queue_is_captured_and_waits_for_its_own_changes(application):
    owner, role_engine, _ = application
    async with write_transaction(role_engine) as connection:
        await connection.exec_driver_sql("INSERT INTO songs (id) VALUES (1)")
        assert len((await own_changes(connection)).ids) == 1
    assert await dirty(owner) == {("songs", "1")}


@POSTGRES
@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE songs",
        "ALTER TABLE songs DISABLE TRIGGER ALL",
        "DROP TRIGGER fourfold_insert ON songs",
        "SET session_replication_role = replica",
        "INSERT INTO fourfold_change (table_name, keys, created_at) VALUES ('songs', '{1}', 0)",
        "DELETE FROM fourfold_change",
        "DROP FUNCTION fourfold_capture_songs() CASCADE",
        "CREATE OR REPLACE FUNCTION fourfold_capture_songs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "SELECT fourfold_capture_songs()",
    ],
)
async def test_s10_the_applications_role_cant_get_around_capture(application, statement):
    _, role_engine, _ = application
    with pytest.raises(StoreRejectedError):
        await run(role_engine, statement)


@POSTGRES
async def test_s10_the_applications_role_cant_append_lines(application):
    _, role_engine, _ = application
    with pytest.raises(StoreRejectedError) as caught:
        async with write_transaction(role_engine) as connection:
            await append_changes(connection, "songs", ["1"])
    assert caught.value.code == "rows.denied"


@POSTGRES
async def test_s11_nobody_can_put_a_table_a_function_or_an_operator_in_the_way(application):
    owner, role_engine, role = application
    await run(owner, f"CREATE SCHEMA AUTHORIZATION {role}")
    lower = "RETURNS text LANGUAGE sql AS $$ SELECT 'hijacked'::text $$"
    await run(
        role_engine,
        f"CREATE TABLE {role}.fourfold_change (LIKE fourfold_change INCLUDING ALL)",
        "CREATE TEMP TABLE fourfold_change (LIKE public.fourfold_change INCLUDING ALL)",
        f"CREATE FUNCTION {role}.concat(text) {lower}",
        f"CREATE FUNCTION {role}.cat(text, text) {lower}",
        f"CREATE OPERATOR {role}.|| (FUNCTION = {role}.cat, LEFTARG = text, RIGHTARG = text)",
        f"SET LOCAL search_path = {role}, pg_temp, pg_catalog, public",
        "INSERT INTO public.songs (id, title) VALUES (1, 'a')",
        "UPDATE public.songs SET title = 'b'",
        "DELETE FROM public.songs",
    )
    async with read_transaction(owner) as connection:
        count = "SELECT count(*), min(keys[1]) FROM public.fourfold_change"
        assert tuple((await connection.exec_driver_sql(count)).one()) == (3, "1")


@POSTGRES
async def test_a_subscribed_table_is_named(postgres, postgresql_url):
    await captured(postgres)
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)")
        relation = "SELECT oid, 'songs'::regclass, 'i' FROM pg_subscription WHERE subname = 's'"
        connection.execute(f"INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) {relation}")
        try:
            found = await problems(postgres)
        finally:
            connection.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
            connection.execute("DROP SUBSCRIPTION s")
    assert [problem.kind for problem in found] == ["subscribed"]
