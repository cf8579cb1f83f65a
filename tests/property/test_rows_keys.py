"""Python's KeyCodec, SQLite's triggers and PostgreSQL's triggers write one text for one key, in every session."""

import datetime as dt
import enum
import json
import uuid

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings

from fourfold.projection.capture_spec import CaptureSpec
from fourfold.projection.keys import KeyCodec, KeyColumn, key_kind
from fourfold.rows import tables
from fourfold.rows.capture import key_expression, synchronise
from fourfold.rows.engine import open_sync_engine
from fourfold.rows.types import FileKey, UTCDateTime, UUIDType

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1, max_size=12)
TRICKY = st.one_of(TEXT, st.text(alphabet=",\\'\"%:$ä", min_size=1, max_size=6))
MOMENT = st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9999, 12, 30))  # noqa: DTZ001 - zones are added below
UTC_MOMENT = MOMENT.map(lambda value: value.replace(tzinfo=dt.UTC))


class Tier(enum.Enum):
    bronze = "b"
    gold = "g,\\"


KINDS = {
    "integer": (sa.Integer(), st.integers(-(2**31), 2**31 - 1)),
    "big": (sa.BigInteger(), st.integers(-(2**63), 2**63 - 1)),
    "text": (sa.Text(), TRICKY),
    "varchar": (sa.String(50), TRICKY),
    "enum": (sa.Enum(Tier), st.sampled_from(Tier)),
    "file": (FileKey(), st.uuids().map(str)),
    "uuid": (sa.Uuid(), st.uuids()),
    "uuid_type": (UUIDType(), st.uuids()),
    "uuid_char": (sa.Uuid(native_uuid=False), st.uuids()),
    "bytes": (sa.LargeBinary(), st.binary(min_size=1, max_size=20)),
    "date": (sa.Date(), st.dates(dt.date(2, 1, 1))),
    "timestamp": (sa.DateTime(), MOMENT),
    "moment": (UTCDateTime(), UTC_MOMENT),
    "moment_without_zone": (UTCDateTime(timezone=False), UTC_MOMENT),
    "boolean": (sa.Boolean(), st.booleans()),
}
SESSIONS = (
    "SET TimeZone = 'America/Sao_Paulo'; SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -3",
    "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET bytea_output = 'escape'",
    "SET TimeZone = 'UTC'; SET standard_conforming_strings = off; SET escape_string_warning = off",
)

metadata = sa.MetaData()
single = {
    name: sa.Table(f"one_{name}", metadata, sa.Column("k", kind, primary_key=True, autoincrement=False))
    for name, (kind, _) in KINDS.items()
}
composite = sa.Table(
    "composite",
    metadata,
    *(
        sa.Column(name, KINDS[name][0], primary_key=True, autoincrement=False)
        for name in ("text", "big", "moment", "uuid")
    ),
    sa.Column("other, text", sa.Text, primary_key=True),
)


def codec_of(table):
    return KeyCodec(tuple(KeyColumn(column.name, key_kind(column)) for column in table.primary_key))


@pytest.fixture(scope="module")
def rows(request, tmp_path_factory):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('keys') / 'keys.db'}"
    else:
        cluster = request.getfixturevalue("postgresql_cluster")
        url = cluster.create_database("keys")
    engine = open_sync_engine(url)
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        metadata.create_all(connection)
        synchronise(
            connection, [CaptureSpec(table.name, codec_of(table).columns) for table in metadata.tables.values()]
        )
    yield engine
    engine.dispose()
    if request.param == "postgresql":
        cluster.drop_database("keys")


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


def encoded(codec, values):
    """As projection does: an enumeration's member is the text that the database holds, its name."""
    return codec.encode([value.name if isinstance(value, enum.Enum) else value for value in values])


def keys_seen(connection, table, values, sessions):
    """What the trigger and the expression say of a row, in each session; the row is gone afterwards."""
    seen = set()
    codec = codec_of(table)
    expression = key_expression(codec.columns, connection.dialect.name, "r")
    for session in sessions:
        for setting in session.split("; ") if session else ():
            connection.exec_driver_sql(setting)
        connection.execute(sa.insert(table).values(values))
        text = sa.text(f"SELECT {expression} FROM {table.name} AS r")
        seen.add(connection.execute(text).scalar_one())
        if session:  # psycopg itself can read ISO only
            connection.exec_driver_sql("SET DateStyle = 'ISO'")
        stored = connection.execute(sa.select(table)).one()
        seen.add(encoded(codec, stored))
        keys = connection.exec_driver_sql("SELECT keys FROM fourfold_change ORDER BY id DESC LIMIT 1").scalar_one()
        seen.update(json.loads(keys) if isinstance(keys, str) else keys)
        connection.execute(sa.delete(table))
    return seen


def check(rows, table, values):
    is_postgresql = rows.dialect.name == "postgresql"
    with rows.connect() as connection:
        seen = keys_seen(connection, table, values, SESSIONS if is_postgresql else ("",))
        connection.rollback()
    codec = codec_of(table)
    assert seen == {encoded(codec, [values[column.name] for column in table.primary_key])}


SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize("rows", BOTH, indirect=True)
@pytest.mark.parametrize("name", KINDS)
def test_a_key_has_one_text_everywhere(rows, name):
    @SETTINGS
    @given(KINDS[name][1])
    def run(value):
        check(rows, single[name], {"k": value})

    run()


@pytest.mark.parametrize("rows", BOTH, indirect=True)
def test_a_composite_key_has_one_text_everywhere(rows):
    @SETTINGS
    @given(TRICKY, KINDS["big"][1], UTC_MOMENT, st.uuids(), TRICKY)
    def run(text, big, moment, key, other):
        check(rows, composite, {"text": text, "big": big, "moment": moment, "uuid": key, "other, text": other})

    run()


@pytest.mark.parametrize("rows", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "stored",
    [
        "2024-05-01 10:00:00",
        "2024-05-01T10:00:00Z",
        "2024-05-01 12:00:00.25+02:00",
        "2024-05-01 10:00:59.999999",
        "2024-05-01",
    ],
)
def test_moments_that_others_wrote_on_sqlite_have_the_key_of_what_is_read(rows, stored):
    table = single["moment"]
    with rows.connect() as connection:
        connection.exec_driver_sql("INSERT INTO one_moment VALUES (?)", (stored,))
        codec = codec_of(table)
        expected = codec.encode(tuple(connection.execute(sa.select(table)).one()))
        text = sa.text(f"SELECT {key_expression(codec.columns, 'sqlite', 'r')} FROM one_moment AS r")
        assert connection.execute(text).scalar_one() == expected
        connection.rollback()


@pytest.mark.parametrize("rows", ["sqlite"], indirect=True)
@pytest.mark.parametrize("stored", [uuid.UUID(int=7).bytes, str(uuid.UUID(int=7)).upper(), uuid.UUID(int=7).hex])
def test_every_form_of_a_uuid_on_sqlite_has_one_key(rows, stored):
    with rows.connect() as connection:
        connection.exec_driver_sql("INSERT INTO one_uuid VALUES (?)", (stored,))
        expression = key_expression((KeyColumn("k", "uuid"),), "sqlite", "r")
        assert connection.exec_driver_sql(f"SELECT {expression} FROM one_uuid AS r").scalar_one() == str(
            uuid.UUID(int=7)
        )
        connection.rollback()


@pytest.mark.parametrize("rows", BOTH[1:], indirect=True)
@pytest.mark.parametrize(("name", "value"), [("moment", "infinity"), ("timestamp", "-infinity"), ("date", "infinity")])
def test_infinity_never_fails_a_write(rows, name, value):
    with rows.connect() as connection:
        connection.exec_driver_sql(f"INSERT INTO one_{name} VALUES ('{value}')")
        keys = connection.exec_driver_sql("SELECT keys FROM fourfold_change ORDER BY id DESC LIMIT 1").scalar_one()
        assert keys == [value]
        connection.rollback()


@pytest.mark.parametrize("rows", BOTH[1:], indirect=True)
def test_blank_padded_and_malformed_texts_keep_their_form(rows):
    with rows.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE padded (k char(5) PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO padded VALUES ('ab')")
        stored = connection.exec_driver_sql("SELECT k FROM padded").scalar_one()
        for kind, expected in (("text", stored), ("uuid", "ab")):
            expression = key_expression((KeyColumn("k", kind),), "postgresql", "r")
            assert connection.exec_driver_sql(f"SELECT {expression} FROM padded AS r").scalar_one() == expected
        connection.rollback()
