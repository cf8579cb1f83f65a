"""Column types behave the same on both dialects, in Declarative and in SQLModel."""

import datetime as dt
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel import Field, SQLModel

from fourfold.errors import ValidationError
from fourfold.rows.engine import write_transaction
from fourfold.rows.errors import map_error
from fourfold.rows.types import FileKey, JSONType, TextArray, UTCDateTime, UUIDType


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[uuid.UUID] = mapped_column(UUIDType, primary_key=True)
    file: Mapped[str | None] = mapped_column(FileKey)
    at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime)
    local: Mapped[dt.datetime | None] = mapped_column(UTCDateTime(timezone=False))
    data: Mapped[dict | None] = mapped_column(JSONType)
    tags: Mapped[list[str] | None] = mapped_column(TextArray)


class ModelThing(SQLModel, table=True):
    __tablename__ = "model_things"
    id: uuid.UUID = Field(sa_type=UUIDType, primary_key=True)
    file: str = Field(sa_type=FileKey)
    at: dt.datetime = Field(sa_type=UTCDateTime)


@pytest.fixture
async def things(engine):
    async with write_transaction(engine) as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(ModelThing.__table__.create)
    return engine


async def test_values_come_back_as_they_went_in(things):
    key, file = uuid.uuid4(), str(uuid.uuid4())
    at = dt.datetime(2024, 7, 1, 12, 30, 15, 123456, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))
    async with AsyncSession(things) as session:
        session.add(Thing(id=key, file=file, at=at, local=at, data={"a": [1, None, "é"]}, tags=["x", "y,z", ""]))
        session.add(ModelThing(id=key, file=file, at=at))
        await session.commit()
    async with AsyncSession(things) as session:
        if things.dialect.name == "postgresql":
            await session.execute(sa.text("SET TimeZone = 'Asia/Kathmandu'"))
        thing, model = await session.get(Thing, key), await session.get(ModelThing, key)
        for moment in (thing.at, thing.local, model.at):
            assert moment == at
            assert moment.tzinfo is dt.UTC
        assert (thing.file, thing.data, thing.tags) == (file, {"a": [1, None, "é"]}, ["x", "y,z", ""])
        found = await session.scalar(sa.select(Thing.id).where(Thing.at == at, Thing.local == at))
        assert found == key


async def test_none_is_sql_null_on_both(things):
    async with AsyncSession(things) as session:
        session.add(Thing(id=uuid.uuid4(), data=None, tags=None, at=None, local=None, file=None))
        await session.commit()
        where = [column.is_(sa.null()) for column in (Thing.data, Thing.tags, Thing.at, Thing.local, Thing.file)]
        assert await session.scalar(sa.select(sa.func.count()).select_from(Thing).where(*where)) == 1
        await session.rollback()


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("file", "/music/a.flac", "objects.key_form"),
        ("file", "3C6E0B8A-9C15-4224-A822-8B9AD1E4A5B1", "objects.key_form"),
        ("file", 7, "objects.key_form"),
        ("at", dt.datetime(2024, 1, 1), "rows.naive_datetime"),  # noqa: DTZ001 - that is the point
        ("tags", "text", "rows.text_array"),
        ("tags", ["a", None], "rows.text_array"),
    ],
)
async def test_wrong_values_are_refused_before_anything_is_sent(things, column, value, code):
    async with AsyncSession(things) as session:
        session.add(Thing(id=uuid.uuid4(), **{column: value}))
        with pytest.raises(sa.exc.StatementError) as caught:
            await session.commit()
    mapped = map_error(caught.value)
    assert isinstance(mapped, ValidationError)
    assert mapped.code == code


async def test_a_uuid_object_is_a_file_key(things):
    file = uuid.uuid4()
    async with AsyncSession(things) as session:
        session.add(Thing(id=file, file=file))
        await session.commit()
    async with AsyncSession(things) as session:
        assert (await session.get(Thing, file)).file == str(file)
