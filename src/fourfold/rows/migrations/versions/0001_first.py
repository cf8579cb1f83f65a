"""Fourfold's own tables, first release.

Frozen: it says what the tables were, not what `rows.tables` says today; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
KEYS = sa.JSON().with_variant(postgresql.ARRAY(sa.Text), "postgresql")
TIME: sa.Double[float] = sa.Double()

KEEP_REFERENCED = """\
CREATE TRIGGER fourfold_object_keep BEFORE DELETE ON fourfold_object FOR EACH ROW BEGIN
SELECT RAISE(ABORT, 'fourfold: objects.referenced')
WHERE EXISTS (SELECT 1 FROM fourfold_object_ref WHERE object_key = OLD.key)
OR EXISTS (SELECT 1 FROM fourfold_pin WHERE object_key = OLD.key);
END"""


def upgrade() -> None:
    op.create_table(
        "fourfold_meta",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    _queue()
    _registry()
    _objects()


def _queue() -> None:
    op.create_table(
        "fourfold_change",
        sa.Column("id", BIG, sa.Identity(always=True), primary_key=True),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("keys", KEYS, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, server_default="keys"),
        sa.Column("lane", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("transaction_id", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE fourfold_change ALTER COLUMN keys SET STORAGE EXTERNAL")
    op.create_table(
        "fourfold_work",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("lane", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("first_change", BIG, nullable=False),
        sa.Column("last_change", BIG, nullable=False),
        sa.Column("version", BIG, nullable=False, server_default="1"),
        sa.Column("claimed_version", BIG),
        sa.Column("pending_first", BIG),
        sa.Column("pending_since", TIME),
        sa.Column("token", BIG),
        sa.Column("lease_until", TIME),
        sa.Column("unrevoked", sa.Text, nullable=False, server_default=""),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("queued_at", TIME, nullable=False),
    )
    op.create_index("fourfold_work_claim", "fourfold_work", ["target", "lane", "first_change"])
    op.create_index("fourfold_work_token", "fourfold_work", ["token"])
    op.create_table(
        "fourfold_token",
        sa.Column("id", BIG, sa.Identity(always=True), primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "fourfold_quarantine",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("first_change", BIG, nullable=False),
        sa.Column("last_change", BIG, nullable=False),
        sa.Column("quarantined_at", TIME, nullable=False),
    )


def _registry() -> None:
    op.create_table(
        "fourfold_target",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("paused_until", TIME),
        sa.Column("last_error", sa.Text),
        sa.Column("last_settled_at", TIME),
    )
    op.create_table(
        "fourfold_interest",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("declaration", sa.Text, nullable=False),
    )
    op.create_table(
        "fourfold_capture",
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("body_hash", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("installed_at", TIME, nullable=False),
    )
    op.create_table(
        "fourfold_checkpoint",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
    )


def _objects() -> None:
    op.create_table(
        "fourfold_object",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("xxh128", sa.Text, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("filename", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("unreferenced_since", TIME),
    )
    op.create_index("fourfold_object_content", "fourfold_object", ["sha256", "size_bytes"])
    op.create_index("fourfold_object_unreferenced", "fourfold_object", ["unreferenced_since"])
    op.create_table(
        "fourfold_object_ref",
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("row_key", sa.Text, primary_key=True),
        sa.Column("column_name", sa.Text, primary_key=True),
        sa.Column("object_key", sa.Text, sa.ForeignKey("fourfold_object.key"), nullable=False),
    )
    op.create_index("fourfold_object_ref_object", "fourfold_object_ref", ["object_key"])
    op.create_table(
        "fourfold_pin",
        sa.Column("object_key", sa.Text, sa.ForeignKey("fourfold_object.key"), primary_key=True),
        sa.Column("reason", sa.Text, primary_key=True),
        sa.Column("pinned_at", TIME, nullable=False),
        sa.Column("until", TIME),
    )
    op.create_table(
        "fourfold_embedding",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("content_hash", sa.Text, primary_key=True),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.get_bind().exec_driver_sql(KEEP_REFERENCED)


def downgrade() -> None:
    for name in (
        "embedding",
        "pin",
        "object_ref",
        "object",
        "checkpoint",
        "capture",
        "interest",
        "target",
        "quarantine",
        "token",
        "work",
        "change",
        "meta",
    ):
        op.drop_table(f"fourfold_{name}")
