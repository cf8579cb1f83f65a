"""The catalog's tables, as the source system made them, with an index on `recordings.file_path`.

Frozen: it says what the tables were, not what `models` says today; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from fourfold.errors import ConfigurationError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
RANDOM_UUID = {
    "postgresql": "uuid_generate_v4()",
    "sqlite": (
        "(lower(hex(randomblob(6)) || '4' || substr(hex(randomblob(2)), 2) || "
        "substr('89AB', 1 + (random() & 3), 1) || substr(hex(randomblob(8)), 2)))"
    ),
}
EXTENSION_IS_THERE = "SELECT 1 FROM pg_extension WHERE extname = 'uuid-ossp'"
# The comment is how downgrade knows that the extension came with this catalog and nobody else had it before.
MADE_BY = "made by fourfold.catalogs.recordings"
MAKE_EXTENSION = 'CREATE EXTENSION "uuid-ossp"'
MARK_EXTENSION = f"COMMENT ON EXTENSION \"uuid-ossp\" IS '{MADE_BY}'"
EXTENSION_IS_OURS = f"{EXTENSION_IS_THERE} AND obj_description(oid, 'pg_extension') = '{MADE_BY}'"
# Another table's default may use it by now: then it stays.
DROP_EXTENSION = """\
DO $$ BEGIN
    DROP EXTENSION "uuid-ossp";
EXCEPTION WHEN dependent_objects_still_exist THEN
    NULL;
END $$"""


def upgrade() -> None:
    _make_extension()
    op.create_table(
        "recordings",
        _id(),
        sa.Column("file_path", sa.Text, nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("sha256_hash", sa.String(64)),
        sa.Column("xxh128_hash", sa.String(32)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="recordings_pkey"),
        sa.UniqueConstraint("sha256_hash", name="recordings_sha256_hash_key"),
        sa.UniqueConstraint("xxh128_hash", name="recordings_xxh128_hash_key"),
    )
    op.create_index("idx_recordings_file_path", "recordings", ["file_path"], postgresql_using="hash")
    op.create_table(
        "metadata",
        _id(),
        sa.Column("recording_id", sa.Uuid, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="metadata_pkey"),
        _to_recording("metadata"),
    )
    op.create_index("idx_metadata_recording_id", "metadata", ["recording_id"])
    op.create_index("idx_metadata_key", "metadata", ["key"])
    op.create_table(
        "tracklists",
        _id(),
        sa.Column("recording_id", sa.Uuid, nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("tracks", JSON),
        sa.Column("cue_file_path", sa.Text),
        sa.PrimaryKeyConstraint("id", name="tracklists_pkey"),
        sa.UniqueConstraint("recording_id", name="tracklists_recording_id_key"),
        _to_recording("tracklists"),
    )


def downgrade() -> None:
    for name in ("tracklists", "metadata", "recordings"):
        op.drop_table(name)
    connection = op.get_bind()
    if connection.dialect.name == "postgresql" and connection.scalar(sa.text(EXTENSION_IS_OURS)):
        op.execute(DROP_EXTENSION)


def _id() -> sa.Column[object]:
    return sa.Column("id", sa.Uuid, nullable=False, server_default=sa.text(RANDOM_UUID[op.get_bind().dialect.name]))


def _to_recording(table: str) -> sa.ForeignKeyConstraint:
    name = f"{table}_recording_id_fkey"
    return sa.ForeignKeyConstraint(["recording_id"], ["recordings.id"], name=name, ondelete="CASCADE")


def _make_extension() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql" or connection.scalar(sa.text(EXTENSION_IS_THERE)):
        return
    try:
        connection.exec_driver_sql(MAKE_EXTENSION)
    except sa.exc.DBAPIError as error:
        message = "the extension uuid-ossp is missing in this database and can't be made by this role"
        hint = f"Install PostgreSQL's contrib package, then run as a superuser in this database: {MAKE_EXTENSION}"
        state = getattr(error.orig, "sqlstate", None)
        raise ConfigurationError(message, code="recordings.extension", hint=hint, sqlstate=state) from error
    connection.exec_driver_sql(MARK_EXTENSION)
