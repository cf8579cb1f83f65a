"""Fourfold's own tables, on both dialects. Migrated by `rows.migrations` with a version table of their own.

Times are seconds since 1970 by the **database's** clock, as double precision: one arithmetic on both dialects, and no
worker's clock decides anything. `fourfold_change.keys` is `text[]` on PostgreSQL and a JSON array on SQLite.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

__all__ = [
    "capture",
    "change",
    "checkpoint",
    "embedding",
    "interest",
    "meta",
    "metadata",
    "object_",
    "object_ref",
    "pin",
    "quarantine",
    "stage",
    "stage_metadata",
    "target",
    "token",
    "work",
]

metadata = sa.MetaData()
# On SQLite a file of its own (an upload must not wait for a writer), else the same database.
stage_metadata = sa.MetaData()

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite: only INTEGER PRIMARY KEY is the rowid
_KEYS = sa.JSON().with_variant(postgresql.ARRAY(sa.Text), "postgresql")
_TIME: sa.Double[float] = sa.Double()


def _ddl(statement: str, dialect_name: str) -> sa.ExecutableDDLElement:
    return sa.DDL(statement).execute_if(dialect=dialect_name)  # type: ignore[no-untyped-call] # SQLAlchemy's own gap


meta = sa.Table(
    "fourfold_meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # epoch, declarations, store_id, …
    sa.Column("value", sa.Text, nullable=False),
)

# Append-only; ids are never reused (AUTOINCREMENT), lines are cleared by exact id.
change = sa.Table(
    "fourfold_change",
    metadata,
    sa.Column("id", _BIG, sa.Identity(always=True), primary_key=True),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("keys", _KEYS, nullable=False),  # at most 1,000 encoded keys; empty for a resync
    sa.Column("kind", sa.Text, nullable=False, server_default="keys"),  # keys | resync
    sa.Column("lane", sa.SmallInteger, nullable=False, server_default="0"),  # 0 users' changes, 1 repairs and rebuilds
    sa.Column("transaction_id", sa.Text),  # xid8 of the writer on PostgreSQL
    sa.Column("created_at", _TIME, nullable=False),
    sqlite_autoincrement=True,
)

# A line lives for seconds. Compressing its keys took half of what capture costs a COPY (100,000 UUIDs: 160 ms, 70
# without).
sa.event.listen(
    change,
    "after_create",
    _ddl("ALTER TABLE fourfold_change ALTER COLUMN keys SET STORAGE EXTERNAL", "postgresql"),
)

work = sa.Table(
    "fourfold_work",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("lane", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("first_change", _BIG, nullable=False),
    sa.Column("last_change", _BIG, nullable=False),
    # Commits come out of id order, so "nothing newer came in" is a count of dispatches, never a comparison of ids.
    sa.Column("version", _BIG, nullable=False, server_default="1"),
    sa.Column("claimed_version", _BIG),  # version when it was claimed
    sa.Column("pending_first", _BIG),  # least change id that came in since the claim
    sa.Column("pending_since", _TIME),  # when that was queued
    sa.Column("token", _BIG),
    sa.Column("lease_until", _TIME),
    sa.Column("unrevoked", sa.Text, nullable=False, server_default=""),  # earlier tokens, comma-separated
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("queued_at", _TIME, nullable=False),
    sa.Index("fourfold_work_claim", "target", "lane", "first_change"),
    sa.Index("fourfold_work_token", "token"),
)

token = sa.Table(
    "fourfold_token",
    metadata,
    sa.Column("id", _BIG, sa.Identity(always=True), primary_key=True),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sqlite_autoincrement=True,
)

quarantine = sa.Table(
    "fourfold_quarantine",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_change", _BIG, nullable=False),
    sa.Column("last_change", _BIG, nullable=False),
    sa.Column("quarantined_at", _TIME, nullable=False),
)

target = sa.Table(
    "fourfold_target",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("paused_until", _TIME),
    sa.Column("last_error", sa.Text),
    sa.Column("last_settled_at", _TIME),
)

interest = sa.Table(
    "fourfold_interest",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("declaration", sa.Text, nullable=False),  # hash of what this table becomes in this target
)

capture = sa.Table(
    "fourfold_capture",
    metadata,
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("body_hash", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),  # JSON of the CaptureSpec: a migration puts triggers back without code
    sa.Column("installed_at", _TIME, nullable=False),
)

checkpoint = sa.Table(
    "fourfold_checkpoint",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # rebuild:graph:recordings, verify:…
    sa.Column("state", sa.Text, nullable=False),  # JSON
    sa.Column("updated_at", _TIME, nullable=False),
)

object_ = sa.Table(
    "fourfold_object",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),  # a UUID, never written twice
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("xxh128", sa.Text, nullable=False),
    sa.Column("size_bytes", _BIG, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("filename", sa.Text),
    sa.Column("created_at", _TIME, nullable=False),
    # Written at creation and by collection, which marks what it first sees without a reference and clears the mark when
    # there is one again. Never by triggers: they would lock object rows in the order of the user's rows, and two
    # writers that name two files in opposite orders would deadlock (F10); a foreign key's share locks don't.
    sa.Column("unreferenced_since", _TIME),
    sa.Index("fourfold_object_content", "sha256", "size_bytes"),
    sa.Index("fourfold_object_unreferenced", "unreferenced_since"),
)

object_ref = sa.Table(
    "fourfold_object_ref",
    metadata,
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("row_key", sa.Text, primary_key=True),
    sa.Column("column_name", sa.Text, primary_key=True),
    sa.Column("object_key", sa.Text, sa.ForeignKey("fourfold_object.key"), nullable=False),
    sa.Index("fourfold_object_ref_object", "object_key"),
)

_KEEP_REFERENCED = """\
CREATE TRIGGER fourfold_object_keep BEFORE DELETE ON fourfold_object FOR EACH ROW BEGIN
SELECT RAISE(ABORT, 'fourfold: objects.referenced')
WHERE EXISTS (SELECT 1 FROM fourfold_object_ref WHERE object_key = OLD.key)
OR EXISTS (SELECT 1 FROM fourfold_pin WHERE object_key = OLD.key);
END"""
# On SQLite a foreign key holds only on connections that ask for it; a trigger holds on all.
sa.event.listen(
    metadata,
    "after_create",
    _ddl(_KEEP_REFERENCED, "sqlite"),
)

pin = sa.Table(
    "fourfold_pin",
    metadata,
    sa.Column("object_key", sa.Text, sa.ForeignKey("fourfold_object.key"), primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("pinned_at", _TIME, nullable=False),
    sa.Column("until", _TIME),
)

embedding = sa.Table(
    "fourfold_embedding",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("content_hash", sa.Text, primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),  # little-endian 32-bit floats
    sa.Column("created_at", _TIME, nullable=False),
)

stage = sa.Table(
    "fourfold_stage",
    stage_metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("lease_until", _TIME, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
)
