"""The tables of the recordings catalog, as its source system made them, and what their rows become.

Names, types and defaults are those of the existing PostgreSQL schema: a database of that system is usable as it is. On
SQLite the same, with UUIDs as CHAR(32) and JSON as text. One index is added, on `recordings.file_path`, by which the
importer and `get_by_file_path` look up. No column is: the managed file is linked to (recordings, id, file_path).
"""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import PurePath
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, validates
from sqlalchemy.sql.functions import FunctionElement

from fourfold.catalogs.recordings.tracks import Track, validate_tracks
from fourfold.errors import ValidationError
from fourfold.projection import Edge, EdgeList, LinkedFile, Node, Point, ValueNode
from fourfold.rows.types import JSONType, UTCDateTime, UUIDType

__all__ = ["Base", "Metadata", "Recording", "Tracklist", "TracksType", "random_uuid"]

# PostgreSQL's own names for unnamed constraints, so that a fresh schema has the same ones on both dialects.
_NAMES: Final = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
}
_NAME_CHARACTERS: Final = 255  # of the columns `metadata.key` and `tracklists.source`


class random_uuid(FunctionElement[uuid.UUID]):  # noqa: N801 - an SQL function is written like one
    """A random UUID made by the database: `uuid_generate_v4()` of extension uuid-ossp; on SQLite of random bytes."""

    inherit_cache = True
    type = UUIDType()


@compiles(random_uuid, "postgresql")
def _random_uuid_postgresql(_element: random_uuid, _compiler: Any, **_: Any) -> str:
    return "uuid_generate_v4()"


@compiles(random_uuid, "sqlite")
def _random_uuid_sqlite(_element: random_uuid, _compiler: Any, **_: Any) -> str:
    # Version 4 and variant 10xx of RFC 9562, in SQLAlchemy's form for CHAR(32): hexadecimal digits without hyphens.
    # Written by other clients only, ours send their own id; the variant's digit is one of four, here always 8 to b.
    return (
        "(lower(hex(randomblob(6)) || '4' || substr(hex(randomblob(2)), 2) || "
        "substr('89AB', 1 + (random() & 3), 1) || substr(hex(randomblob(8)), 2)))"
    )


def _checked_name(where: str, value: str) -> str:
    # PostgreSQL refuses a longer one by itself, SQLite stores it.
    if not value or len(value) > _NAME_CHARACTERS:
        message = f"{where} has {len(value or '')} characters; expected 1 to {_NAME_CHARACTERS}"
        raise ValidationError(message, code="recordings.name", hint="Shorten it")
    return value


class TracksType(sa.TypeDecorator[list[Track]]):
    """`tracks`: jsonb on PostgreSQL, JSON on SQLite, refused unless `validate_tracks` takes it.

    Raises:
        ValidationError: Code `recordings.tracks`, with `index` and `field`; nothing was sent.
    """

    impl = JSONType
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002 - same on both
        """Check the value: statements that bypass the model (bulk inserts) come through here."""
        return validate_tracks(value)


class Base(DeclarativeBase):
    """Declarative base of this catalog alone: its tables, migrations and labels are its own."""

    metadata = sa.MetaData(naming_convention=_NAMES)


class Metadata(Base):
    """A key and a value of a recording: a tag of the file, a technical property, or anything a user adds."""

    __tablename__ = "metadata"

    id: Mapped[uuid.UUID] = mapped_column(
        UUIDType(), primary_key=True, default=uuid.uuid4, server_default=random_uuid()
    )
    recording_id: Mapped[uuid.UUID] = mapped_column(UUIDType(), sa.ForeignKey("recordings.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(sa.String(_NAME_CHARACTERS))
    value: Mapped[str] = mapped_column(sa.Text)

    @validates("key")
    def _validate_key(self, name: str, value: str) -> str:
        return _checked_name(f"metadata.{name}", value)

    __table_args__ = (
        sa.Index("idx_metadata_recording_id", "recording_id"),
        sa.Index("idx_metadata_key", "key"),
    )
    __projections__: ClassVar[tuple[object, ...]] = (
        Node("Metadata", properties=("key", "value")),
        Edge("HAS_METADATA", "recording_id", reverse=True),
    )


class Tracklist(Base):
    """What was played in a recording, one per recording; `source` says where it is from (`cue` from the importer)."""

    __tablename__ = "tracklists"

    id: Mapped[uuid.UUID] = mapped_column(
        UUIDType(), primary_key=True, default=uuid.uuid4, server_default=random_uuid()
    )
    recording_id: Mapped[uuid.UUID] = mapped_column(
        UUIDType(), sa.ForeignKey("recordings.id", ondelete="CASCADE"), unique=True
    )
    source: Mapped[str] = mapped_column(sa.String(_NAME_CHARACTERS))
    tracks: Mapped[list[Track] | None] = mapped_column(TracksType())
    cue_file_path: Mapped[str | None] = mapped_column(sa.Text)

    __projections__: ClassVar[tuple[object, ...]] = (
        Node("Tracklist", properties=("source",)),
        Edge("HAS_TRACKLIST", "recording_id", reverse=True),
        EdgeList(
            "CONTAINS_TRACK",
            "tracks",
            to=ValueNode("Track", identity=("title", "artist")),
            properties=("start_time",),
        ),
    )

    @validates("source")
    def _validate_source(self, name: str, value: str) -> str:
        return _checked_name(f"tracklists.{name}", value)

    @validates("tracks")
    def _validate_tracks(self, _name: str, value: object) -> list[Track] | None:
        return validate_tracks(value)


class Recording(Base):
    """A recorded set: one row per distinct content. `file_path` is where the file was found, as text of `paths`."""

    __tablename__ = "recordings"

    id: Mapped[uuid.UUID] = mapped_column(
        UUIDType(), primary_key=True, default=uuid.uuid4, server_default=random_uuid()
    )
    file_path: Mapped[str] = mapped_column(sa.Text)
    file_name: Mapped[str] = mapped_column(sa.Text)
    sha256_hash: Mapped[str | None] = mapped_column(sa.String(64), unique=True)
    xxh128_hash: Mapped[str | None] = mapped_column(sa.String(32), unique=True)
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime(), server_default=sa.func.now())

    # selectin: what a repository returns is complete, and usable after its session. The database deletes the children
    # too (ON DELETE CASCADE), so that a plain DELETE from anywhere does the same; the session still deletes them by
    # itself (no passive_deletes), for an adopted database whose foreign keys don't cascade.
    metadata_items: Mapped[list[Metadata]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by=lambda: (Metadata.key, Metadata.id)
    )
    tracklist: Mapped[Tracklist | None] = relationship(cascade="all, delete-orphan", lazy="selectin", uselist=False)

    __table_args__ = (
        # A hash index on PostgreSQL: only equality is asked for, and a B-tree refuses paths beyond 2,704 bytes.
        sa.Index("idx_recordings_file_path", "file_path", postgresql_using="hash"),
    )
    __projections__: ClassVar[tuple[object, ...]] = (
        Node("Recording", id="uuid", properties=("file_name", "file_path")),
        Point("recordings", text="search_text", depends_on=("metadata_items", "tracklist")),
        LinkedFile("file_path"),
    )

    def values_of(self, key: str) -> list[str]:
        """Return the values of one metadata key, in a stable order.

        Example:
            >>> Recording(metadata_items=[Metadata(key="artist", value="Mira")]).values_of("artist")
            ['Mira']
        """
        return [item.value for item in self.metadata_items if item.key == key]

    @property
    def search_text(self) -> str:
        """What is embedded: artist and title (else the file's name), then a line `artist – title` for each track."""
        titles = self.values_of("title") or [PurePath(self.file_name).stem]
        tracks = (self.tracklist.tracks if self.tracklist else None) or []
        names = [" – ".join(filter(None, (track["artist"], track["title"]))) for track in tracks]
        head = " – ".join([*self.values_of("artist"), *titles])
        return "\n".join([head, *names])
