"""F21: migrations of the user's tables by Alembic; triggers are there afterwards, changed tables are queued."""

import json

import pytest
import sqlalchemy as sa
from alembic.autogenerate import api as autogenerate
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from fourfold.errors import ConfigurationError
from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey
from fourfold.projection.keys import KeyColumn
from fourfold.rows.adopt import capture_suspended, include_name
from fourfold.rows.capture import installed_specs, synchronise
from fourfold.rows.capture.check import problems_of
from fourfold.rows.engine import open_sync_engine

ID = (KeyColumn("id", "integer"),)
SONGS = CaptureSpec(
    "songs", ID, watched=("title", "price"), parents=(ParentKey("albums", (KeyColumn("album", "integer"),)),)
)
ALBUMS = CaptureSpec("albums", ID, watched=("name",))
SPECS = [SONGS, ALBUMS]


@pytest.fixture
def connection(rows_url):
    engine = open_sync_engine(rows_url)
    with engine.begin() as setup:
        setup.exec_driver_sql("CREATE TABLE albums (id integer PRIMARY KEY, name text)")
        columns = "id integer PRIMARY KEY, title text, price integer, album integer REFERENCES albums (id)"
        setup.exec_driver_sql(f"CREATE TABLE songs ({columns})")
        setup.exec_driver_sql("INSERT INTO albums VALUES (1, 'a')")
        setup.exec_driver_sql("INSERT INTO songs VALUES (1, 't', 1, 1)")
        synchronise(setup, SPECS)
        setup.exec_driver_sql("DELETE FROM fourfold_change")
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def operations(connection):
    return Operations(MigrationContext.configure(connection))


def dirty(connection):
    rows = connection.exec_driver_sql("SELECT table_name, kind, keys FROM fourfold_change").all()
    connection.exec_driver_sql("DELETE FROM fourfold_change")
    keys = [(row[0], row[1], json.loads(row[2]) if isinstance(row[2], str) else row[2]) for row in rows]
    return {(table, key) for table, kind, listed in keys for key in (listed or [kind])}


def works(connection, *specs):
    assert problems_of(connection, specs or SPECS) == []
    connection.exec_driver_sql("UPDATE songs SET title = 'new'")
    seen = dirty(connection)
    assert ("songs", "1") in seen
    return True


def test_f21_alembic_batch_and_alter_type_queue_the_table_and_keep_its_triggers(connection):
    with connection.begin():
        with capture_suspended(connection, SPECS), operations(connection).batch_alter_table("songs") as batch:
            batch.alter_column("price", type_=sa.Numeric(10, 2), existing_type=sa.Integer())
        assert dirty(connection) == {("songs", "resync"), ("albums", "resync")}
        assert works(connection)


def test_f21_a_batch_of_a_table_that_others_reference(connection):
    if connection.dialect.name == "sqlite":  # batch mode drops the parent: without this its children are deleted
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.rollback()
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")
    with connection.begin():
        with (
            capture_suspended(connection),
            operations(connection).batch_alter_table("albums", recreate="auto") as batch,
        ):
            batch.alter_column("name", type_=sa.String(40), existing_type=sa.Text())
        assert dirty(connection) == {("albums", "resync")}
        assert connection.exec_driver_sql("SELECT count(*) FROM songs").scalar_one() == 1
        assert works(connection)


def test_f21_a_migration_that_changes_nothing_queues_nothing(connection):
    with connection.begin():
        with capture_suspended(connection, SPECS):
            pass
        assert dirty(connection) == set()
        assert works(connection)


def test_f21_data_that_a_migration_writes_is_marked_once(connection):
    with connection.begin():
        with capture_suspended(connection, SPECS):
            for number in range(2, 50):
                connection.exec_driver_sql(f"INSERT INTO songs (id, album) VALUES ({number}, 1)")
            connection.exec_driver_sql("UPDATE songs SET title = 'x'")
            marks = connection.exec_driver_sql("SELECT count(*) FROM fourfold_change").scalar_one()
            assert marks == 2
            assert {problem.kind for problem in problems_of(connection, SPECS)} == {"suspended"}
        assert dirty(connection) == {("songs", "resync"), ("albums", "resync")}
        assert works(connection)


def test_f21_a_dropped_watched_column_fails_neither_the_migration_nor_later_writes(connection):
    with connection.begin():
        with capture_suspended(connection):
            operations(connection).drop_column("songs", "price")
            connection.exec_driver_sql("UPDATE songs SET title = 'written by the migration'")
        assert ("songs", "resync") in dirty(connection)
        connection.exec_driver_sql("UPDATE songs SET title = 'later'")
        assert ("songs", "resync") in dirty(connection)  # coarse until it is declared anew, and says so
        assert {problem.kind for problem in problems_of(connection, [SONGS])} >= {"suspended"}
        declared = CaptureSpec("songs", ID, watched=("title",))
        assert synchronise(connection, [declared]) == ["songs"]
        assert works(connection, declared, ALBUMS)


def test_f21_a_table_that_the_code_no_longer_declares_keeps_its_capture(connection):
    with connection.begin():
        with capture_suspended(connection, [ALBUMS]):
            pass
        assert works(connection)


def test_f21_a_dropped_table_is_forgotten(connection):
    with connection.begin():
        with capture_suspended(connection):
            operations(connection).drop_table("songs")
        assert [spec.table for spec in installed_specs(connection)] == ["albums"]


def test_f21_alembic_that_commits_per_migration(connection):
    with capture_suspended(connection, SPECS):
        for name in ("one", "two"):
            with connection.begin():
                operations(connection).add_column("songs", sa.Column(name, sa.Text))
    with connection.begin():
        assert dirty(connection) == {("songs", "resync"), ("albums", "resync")}
        assert works(connection)


def test_f21_a_database_without_fourfold_migrates_as_ever(empty_rows_url):
    engine = open_sync_engine(empty_rows_url)
    with engine.begin() as connection, capture_suspended(connection):
        connection.exec_driver_sql("CREATE TABLE songs (id integer PRIMARY KEY)")
    engine.dispose()


def autogenerated(connection, specs):
    metadata = sa.MetaData()
    sa.Table("albums", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
    options = {"target_metadata": metadata, "fourfold_specs": specs, "include_name": include_name}
    context = MigrationContext.configure(connection, opts=options)
    script = autogenerate.produce_migrations(context, metadata)
    upgrade = autogenerate.render_python_code(script.upgrade_ops, migration_context=context)
    downgrade = autogenerate.render_python_code(script.downgrade_ops, migration_context=context)
    return upgrade, downgrade


def test_autogenerate_sees_no_table_of_fourfold_and_writes_capture_that_runs(connection):
    file = CaptureSpec("songs", ID, watched=('it\'s "odd"',), files=(FileColumn("title", managed_only=False),))
    with connection.begin():
        upgrade, _ = autogenerated(connection, SPECS)
        assert "fourfold" not in upgrade
        upgrade, downgrade = autogenerated(connection, [file, ALBUMS])
        assert "fourfold_change" not in upgrade
        upgrade, downgrade = (
            "\n".join(line for line in text[text.index("op.fourfold") :].splitlines()) for text in (upgrade, downgrade)
        )
        names = {"op": operations(connection), "CaptureSpec": CaptureSpec, "FileColumn": FileColumn}
        names |= {"KeyColumn": KeyColumn, "ParentKey": ParentKey}
        connection.exec_driver_sql('ALTER TABLE songs ADD COLUMN "it\'s ""odd""" text')
        exec(_first_operation(upgrade), names)  # noqa: S102 - what Alembic does with it
        assert problems_of(connection, [file]) == []
        exec(_first_operation(downgrade), names)  # noqa: S102 - as above
        assert problems_of(connection, SPECS) == []


def _first_operation(text):
    lines = [line.strip() for line in text.splitlines()]
    end = next(number for number, line in enumerate(lines) if line.endswith("])"))
    return "\n".join(lines[: end + 1])


def test_a_retired_table_is_released_by_autogenerate(connection):
    with connection.begin():
        upgrade, _ = autogenerated(connection, [ALBUMS])
        assert "op.fourfold_release(['songs'])" in upgrade
        operations(connection).fourfold_release(["songs"])
        assert [spec.table for spec in installed_specs(connection)] == ["albums"]


def test_capture_before_fourfolds_tables_is_refused_by_name(empty_rows_url):
    engine = open_sync_engine(empty_rows_url)
    with engine.begin() as connection, pytest.raises(ConfigurationError) as caught:
        operations(connection).fourfold_capture(SPECS)
    assert caught.value.code == "rows.not_migrated"
    engine.dispose()
