"""What capture records, on both dialects."""

import json
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from fourfold.errors import ConfigurationError, ConflictError
from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey
from fourfold.projection.keys import KeyColumn
from fourfold.rows.capture import check_capture, install_capture, key_expression, remove_capture
from fourfold.rows.capture.quoting import dollar_quoted, identifier, literal
from fourfold.rows.changes import append_changes, mark_begin, own_changes, request_resync
from fourfold.rows.engine import open_engine, read_transaction, write_transaction

ID = (KeyColumn("id", "integer"),)
SONGS = CaptureSpec(
    "songs", ID, watched=("title", "price"), parents=(ParentKey("albums", (KeyColumn("album", "integer"),)),)
)
CREATE = "CREATE TABLE songs (id integer PRIMARY KEY, title text, price numeric, note text, album integer, file text)"


async def run(engine, *statements):
    async with write_transaction(engine) as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def lines(engine, *, clear=True):
    """The queue as (table, kind, sorted keys), and empties it."""
    async with write_transaction(engine) as connection:
        rows = (
            await connection.exec_driver_sql("SELECT table_name, kind, keys FROM fourfold_change ORDER BY id")
        ).all()
        if clear:
            await connection.exec_driver_sql("DELETE FROM fourfold_change")
    return [(table, kind, sorted(json.loads(keys) if isinstance(keys, str) else keys)) for table, kind, keys in rows]


async def dirty(engine):
    """The queue as a set of (table, key)."""
    return {(table, key) for table, kind, keys in await lines(engine) for key in (keys or [kind])}


async def capture(engine, *specs):
    async with write_transaction(engine) as connection:
        return await install_capture(connection, specs)


async def store_objects(engine, *keys):
    async with write_transaction(engine) as connection:
        for key in keys:
            await connection.execute(
                sa.text(
                    "INSERT INTO fourfold_object (key, sha256, xxh128, size_bytes, content_type, created_at)"
                    " VALUES (:key, 'a', 'b', 1, 'text/plain', 0)"
                ),
                {"key": key},
            )


async def references(engine):
    async with read_transaction(engine) as connection:
        rows = await connection.exec_driver_sql(
            "SELECT table_name, row_key, column_name, object_key FROM fourfold_object_ref"
        )
        return {tuple(row) for row in rows}


@pytest.fixture
async def songs(engine):
    await run(engine, CREATE)
    await capture(engine, SONGS)
    assert await lines(engine) == []
    return engine


async def test_insert_update_delete_queue_the_key_and_the_parents(songs):
    await run(songs, "INSERT INTO songs (id, title, album) VALUES (1, 'a', 7)")
    assert await dirty(songs) == {("songs", "1"), ("albums", "7")}
    await run(songs, "UPDATE songs SET title = 'b' WHERE id = 1")
    assert await dirty(songs) == {("songs", "1"), ("albums", "7")}
    await run(songs, "UPDATE songs SET album = 8 WHERE id = 1")
    assert await dirty(songs) == {("albums", "7"), ("albums", "8")}
    await run(songs, "UPDATE songs SET album = NULL WHERE id = 1")
    assert await dirty(songs) == {("albums", "8")}
    await run(songs, "DELETE FROM songs WHERE id = 1")
    assert await dirty(songs) == {("songs", "1")}


async def test_an_update_of_no_watched_column_writes_no_line(songs):
    await run(songs, "INSERT INTO songs (id, title, price) VALUES (1, 'a', 1.0)")
    await lines(songs)
    await run(songs, "UPDATE songs SET note = 'x'", "UPDATE songs SET title = title, price = price")
    assert await lines(songs) == []


async def test_zero_row_statements_write_no_line(songs):
    await run(
        songs,
        "UPDATE songs SET title = 'x'",
        "DELETE FROM songs",
        "INSERT INTO songs (id) SELECT 1 WHERE 1 = 0",
    )
    assert await lines(songs) == []


async def test_values_that_compare_equal_but_differ_are_changes(engine):
    await run(engine, CREATE)
    await capture(engine, SONGS)
    other = "1.00" if engine.dialect.name == "postgresql" else "'1.0x'"
    await run(engine, "INSERT INTO songs (id, title, price) VALUES (1, 'a', 1.0)")
    await lines(engine)
    await run(engine, f"UPDATE songs SET price = {other}")
    assert await dirty(engine) == {("songs", "1")}
    await run(engine, "UPDATE songs SET title = 'A'")
    assert await dirty(engine) == {("songs", "1")}


async def test_columns_without_equality_are_compared(engine):
    kind = "json" if engine.dialect.name == "postgresql" else "text COLLATE NOCASE"
    await run(engine, f"CREATE TABLE notes (id integer PRIMARY KEY, body {kind})")
    await capture(engine, CaptureSpec("notes", ID, watched=("body",)))
    await run(engine, """INSERT INTO notes VALUES (1, '{"a": 1}')""")
    await lines(engine)
    await run(engine, """UPDATE notes SET body = '{"a": 1}'""")
    assert await lines(engine) == []
    await run(engine, """UPDATE notes SET body = '{"A": 1}'""")
    assert await dirty(engine) == {("notes", "1")}


async def test_a_spec_without_columns_watches_also_what_comes_later(engine):
    await run(engine, CREATE)
    await capture(engine, CaptureSpec("songs", ID))
    await run(engine, "INSERT INTO songs (id, title) VALUES (1, 'a')", "UPDATE songs SET note = 'x'")
    await lines(engine)
    await run(engine, "ALTER TABLE songs ADD COLUMN later text", "UPDATE songs SET later = 'x'")
    assert await dirty(engine) == {("songs", "1")}


async def test_f19_a_changed_primary_key_queues_both_keys(songs):
    await run(songs, "INSERT INTO songs (id, title) VALUES (1, 'a')")
    await lines(songs)
    await run(songs, "UPDATE songs SET id = 2 WHERE id = 1")
    assert await dirty(songs) == {("songs", "1"), ("songs", "2")}


async def test_f19_swapped_keys_queue_both(songs):
    await run(songs, "INSERT INTO songs (id, title) VALUES (1, 'a'), (2, 'b')")
    await lines(songs)
    await run(songs, *(f"UPDATE songs SET id = {new} WHERE id = {old}" for old, new in ((1, 3), (2, 1), (3, 2))))
    assert {("songs", "1"), ("songs", "2")} <= await dirty(songs)


async def test_a_rolled_back_write_leaves_no_line(songs):
    async with songs.connect() as connection:
        await connection.exec_driver_sql("INSERT INTO songs (id) VALUES (1)")
        await connection.rollback()
    assert await lines(songs) == []


async def test_names_with_every_kind_of_quote_are_captured(engine):
    table, key, column = "we\"ird 't%s:x\\", 'k"%(a)s :b', "c'$fourfold$"
    quoted = [name.replace('"', '""') for name in (table, key, column)]
    spec = CaptureSpec(
        table,
        (KeyColumn(key, "text"),),
        watched=(column,),
        linked=(column,),
        files=(FileColumn(column, managed_only=False),),
    )
    async with write_transaction(engine) as connection:
        create = f'CREATE TABLE "{quoted[0]}" ("{quoted[1]}" text PRIMARY KEY, "{quoted[2]}" text)'
        await connection.exec_driver_sql(create, execution_options={"no_parameters": True})
        assert await install_capture(connection, [spec]) == [table]
        insert = f"""INSERT INTO "{quoted[0]}" VALUES ('1', 'a')"""
        await connection.exec_driver_sql(insert, execution_options={"no_parameters": True})
        assert await check_capture(connection, [spec]) == []
    assert await dirty(engine) == {(table, "1")}


async def test_install_is_idempotent_and_marks_tables_that_have_rows(engine):
    await run(engine, CREATE, "INSERT INTO songs (id) VALUES (1)")
    assert await capture(engine, SONGS) == ["songs"]
    assert await dirty(engine) == {("songs", "resync"), ("albums", "resync")}
    assert await capture(engine, SONGS) == []
    assert await lines(engine) == []
    changed = CaptureSpec("songs", ID, watched=("title", "note"))
    assert await capture(engine, changed) == ["songs"]
    assert await dirty(engine) == {("songs", "resync")}
    await run(engine, "UPDATE songs SET note = 'x'")
    assert await dirty(engine) == {("songs", "1")}


async def test_removed_capture_records_nothing(songs):
    async with write_transaction(songs) as connection:
        await remove_capture(connection)
    await run(songs, "INSERT INTO songs (id) VALUES (1)")
    assert await lines(songs) == []
    async with read_transaction(songs) as connection:
        assert {problem.kind for problem in await check_capture(connection, [SONGS])} == {"missing"}


async def test_own_changes_are_exactly_this_transactions(songs):
    await run(songs, "INSERT INTO songs (id, album) VALUES (1, 1)")
    for _ in range(2):
        async with write_transaction(songs) as connection:
            await mark_begin(connection)
            assert await own_changes(connection) is None
            await connection.exec_driver_sql("UPDATE songs SET title = coalesce(title, '') || 'x'")
            await append_changes(connection, "songs", [str(number) for number in range(2500)], lane=1)
            await request_resync(connection, "songs")
            own = await own_changes(connection)
            first, last, ids = own.first, own.last, own.ids
            assert (first, last) == (ids[0], ids[-1])
            assert len(ids) == 2 + 3 + 1
    rows = await lines(songs)
    assert [kind for _, kind, _ in rows].count("resync") == 2


async def test_own_changes_survive_a_savepoint_that_is_rolled_back(songs):
    async with write_transaction(songs) as connection:
        await mark_begin(connection)
        savepoint = await connection.begin_nested()
        await connection.exec_driver_sql("INSERT INTO songs (id) VALUES (1)")
        await savepoint.rollback()
        assert await own_changes(connection) is None
        await connection.exec_driver_sql("INSERT INTO songs (id) VALUES (2)")
        own = await own_changes(connection)
        assert own is not None
        assert len(own.ids) == 1


# ------------------------------------------------------------------------------------------------------------- files

FILES = CaptureSpec("songs", ID, watched=("title",), files=(FileColumn("file"),))


async def test_a_file_column_is_mirrored(engine):
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    await store_objects(engine, one, two)
    await run(engine, CREATE)
    await capture(engine, FILES)
    await run(engine, f"INSERT INTO songs (id, file) VALUES (1, '{one}'), (2, NULL), (3, '{one}')")
    assert await references(engine) == {("songs", "1", "file", one), ("songs", "3", "file", one)}
    await run(engine, f"UPDATE songs SET file = '{two}' WHERE id = 1", "UPDATE songs SET file = NULL WHERE id = 3")
    assert await references(engine) == {("songs", "1", "file", two)}
    await run(engine, "UPDATE songs SET id = 9 WHERE id = 1")
    assert await references(engine) == {("songs", "9", "file", two)}
    await run(engine, "DELETE FROM songs")
    assert await references(engine) == set()


async def test_an_unknown_file_is_refused_and_a_named_one_kept(engine):
    one = str(uuid.uuid4())
    await store_objects(engine, one)
    await run(engine, CREATE)
    await capture(engine, FILES)
    for statement in (
        f"INSERT INTO songs (id, file) VALUES (1, '{uuid.uuid4()}')",
        f"INSERT INTO songs (id, file) VALUES (2, '{one}'); UPDATE songs SET file = 'x'",
    ):
        with pytest.raises(ConflictError) as caught:
            await run(engine, *statement.split("; "))
        assert caught.value.code == "objects.unknown"
    await run(engine, f"INSERT INTO songs (id, file) VALUES (2, '{one}')")
    with pytest.raises(ConflictError) as caught:
        await run(engine, "DELETE FROM fourfold_object")
    assert caught.value.code in {"objects.unknown", "objects.referenced"}


async def test_outside_paths_are_told_apart_by_form(engine):
    one = str(uuid.uuid4())
    await store_objects(engine, one)
    await run(engine, CREATE)
    await capture(engine, CaptureSpec("songs", ID, files=(FileColumn("file", managed_only=False),)))
    await run(engine, f"INSERT INTO songs (id, file) VALUES (1, '/music/a.flac'), (2, '{one}'), (3, '{one.upper()}')")
    assert await references(engine) == {("songs", "2", "file", one)}
    await run(engine, f"UPDATE songs SET file = '{one}' WHERE id = 1", "UPDATE songs SET file = 'gone' WHERE id = 2")
    assert await references(engine) == {("songs", "1", "file", one)}
    with pytest.raises(ConflictError):
        await run(engine, f"UPDATE songs SET file = '{uuid.uuid4()}'")


async def test_a_linked_column_loses_its_link_with_its_value_or_row(engine):
    one = str(uuid.uuid4())
    await store_objects(engine, one)
    await run(engine, CREATE)
    await capture(engine, CaptureSpec("songs", ID, linked=("file",)))
    await run(engine, "INSERT INTO songs (id, file) VALUES (1, '/a'), (2, '/b'), (3, '/c')")
    link = "INSERT INTO fourfold_object_ref (table_name, row_key, column_name, object_key) VALUES"
    await run(engine, *(f"{link} ('songs', '{key}', 'file', '{one}')" for key in (1, 2, 3)))
    await run(
        engine,
        "UPDATE songs SET title = 'x'",
        "UPDATE songs SET file = '/d' WHERE id = 2",
        "DELETE FROM songs WHERE id = 3",
    )
    assert await references(engine) == {("songs", "1", "file", one)}


async def test_installing_mirrors_the_files_of_rows_that_are_there(engine):
    one = str(uuid.uuid4())
    await store_objects(engine, one)
    await run(engine, CREATE, f"INSERT INTO songs (id, file) VALUES (1, '{one}'), (2, NULL)")
    await capture(engine, FILES)
    assert await references(engine) == {("songs", "1", "file", one)}


async def test_installing_refuses_rows_that_name_unknown_files(engine):
    await run(engine, CREATE, "INSERT INTO songs (id, file) VALUES (1, '/a')")
    with pytest.raises(ConflictError) as caught:
        await capture(engine, FILES)
    assert caught.value.code == "objects.unknown"


async def test_references_of_unseen_writes_are_mended_whatever_the_column_is_called(engine):
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    await store_objects(engine, one, two)
    spec = CaptureSpec("pages", ID, watched=(), files=(FileColumn("object_key"),))
    await run(engine, "CREATE TABLE pages (id integer PRIMARY KEY, object_key text)")
    await capture(engine, spec)
    await run(engine, f"INSERT INTO pages (id, object_key) VALUES (1, '{one}')")
    trigger = "fourfold_pages_update" if engine.dialect.name == "sqlite" else "fourfold_update ON pages"
    await run(engine, f"DROP TRIGGER {trigger}", f"UPDATE pages SET object_key = '{two}'")
    await capture(engine, spec)
    assert await references(engine) == {("pages", "1", "object_key", two)}


async def test_a_key_that_changes_its_case_only_is_another_key(sqlite_url):
    engine = open_engine(sqlite_url)
    one = str(uuid.uuid4())
    await store_objects(engine, one)
    key = (KeyColumn("name", "text"),)
    spec = CaptureSpec(
        "tags", key, watched=("name",), parents=(ParentKey("groups", key),), files=(FileColumn("file", True),)
    )
    await run(engine, "CREATE TABLE tags (name text COLLATE NOCASE PRIMARY KEY, file text)")
    await capture(engine, spec)
    await run(engine, f"INSERT INTO tags VALUES ('a', '{one}')")
    await lines(engine)
    await run(engine, "UPDATE tags SET name = 'A'")
    assert await dirty(engine) == {("tags", "a"), ("tags", "A"), ("groups", "a"), ("groups", "A")}
    assert await references(engine) == {("tags", "A", "file", one)}
    await run(engine, "DROP TRIGGER fourfold_tags_update", "UPDATE tags SET name = 'a'")
    await capture(engine, spec)
    assert await references(engine) == {("tags", "a", "file", one)}
    await engine.dispose()


# ------------------------------------------------------------------------------------------------- edges of the queue


async def test_a_row_without_a_key_makes_no_line_and_its_old_key_does(engine):
    await run(engine, "CREATE TABLE notes (id uuid, body text)")
    await capture(engine, CaptureSpec("notes", (KeyColumn("id", "uuid"),), watched=("id", "body")))
    key = str(uuid.uuid4())
    await run(engine, f"INSERT INTO notes VALUES (NULL, 'a'), ('{key}', 'b')")
    assert await dirty(engine) == {("notes", key)}
    await run(engine, "UPDATE notes SET body = 'c'")
    assert await dirty(engine) == {("notes", key)}
    await run(engine, f"UPDATE notes SET id = NULL WHERE id = '{key}'")
    assert await dirty(engine) == {("notes", key)}
    await run(engine, f"UPDATE notes SET id = '{key}' WHERE body = 'c'", "DELETE FROM notes", "DELETE FROM notes")
    assert await dirty(engine) == {("notes", key)}


async def test_more_lines_than_a_list_holds_are_a_range(songs, monkeypatch):
    monkeypatch.setattr("fourfold.rows.changes.EXACT_LINES", 3)
    async with write_transaction(songs) as connection:
        await mark_begin(connection)
        await append_changes(connection, "songs", [str(number) for number in range(4001)])
        own = await own_changes(connection)
        assert own.ids == ()
        assert own.last - own.first == 4


async def test_more_keys_than_are_looked_for_by_name_are_not_listed(songs):
    async with write_transaction(songs) as connection:
        await mark_begin(connection)
        await append_changes(connection, "songs", ["1", "2"])
        assert (await own_changes(connection)).keys == (("songs", "1"), ("songs", "2"))
        await append_changes(connection, "songs", [str(number) for number in range(2000)])
        assert (await own_changes(connection)).keys == ()


async def test_own_changes_of_a_session(songs):
    async with AsyncSession(songs) as session:
        await mark_begin(session)
        await session.execute(sa.text("INSERT INTO songs (id) VALUES (1)"))
        assert (await own_changes(session)).keys == (("songs", "1"),)
        await session.commit()


async def test_own_changes_on_sqlite_want_a_mark(sqlite_url):
    opened = open_engine(sqlite_url)
    async with write_transaction(opened) as connection:
        with pytest.raises(ConfigurationError) as caught:
            await own_changes(connection)
    assert caught.value.code == "rows.not_marked"
    async with opened.connect() as connection:
        with pytest.raises(ConfigurationError):
            await mark_begin(connection)
    await opened.dispose()


async def test_a_table_that_is_only_watched_for_its_parents(engine):
    await run(engine, CREATE)
    parents = (ParentKey("albums", (KeyColumn("album", "integer"),)),)
    spec = CaptureSpec("songs", ID, projected=False, watched=(), parents=parents)
    await capture(engine, spec)
    await run(engine, "INSERT INTO songs (id, album) VALUES (1, 7), (2, NULL)")
    assert await dirty(engine) == {("albums", "7")}
    await run(engine, "UPDATE songs SET title = 'x'")
    assert await lines(engine) == []
    await run(engine, "UPDATE songs SET album = 8 WHERE id = 1", "DELETE FROM songs")
    assert await dirty(engine) == {("albums", "7"), ("albums", "8")}


@pytest.mark.postgres
async def test_a_table_with_a_long_name_and_one_of_another_schema(postgresql_url):
    opened = open_engine(postgresql_url)
    long, spec = "t" * 63, CaptureSpec("other", ID, schema="app")
    other = ("CREATE SCHEMA app", "CREATE TABLE app.other (id integer PRIMARY KEY)")
    await run(opened, f"CREATE TABLE {long} (id integer PRIMARY KEY)", *other)
    await capture(opened, CaptureSpec(long, ID), spec)
    await run(opened, f"INSERT INTO {long} VALUES (1)", "INSERT INTO app.other VALUES (2)")
    assert await dirty(opened) == {(long, "1"), ("other", "2")}
    await opened.dispose()


def test_what_cant_be_a_name_or_a_dialect_is_refused():
    for wrong in ("", "a\x00b"):
        with pytest.raises(ConfigurationError):
            identifier(wrong)
    with pytest.raises(ConfigurationError):
        literal("a\x00b", "sqlite")
    with pytest.raises(ConfigurationError):
        key_expression(ID, "oracle", "r")


def test_a_body_that_holds_the_dollar_tag_gets_another_one():
    assert dollar_quoted("$fourfold$ $fourfold1$") == "$fourfold2$$fourfold$ $fourfold1$$fourfold2$"
