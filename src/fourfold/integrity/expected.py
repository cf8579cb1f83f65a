"""What the rows say a target should hold: (owner, digest) in the order of the owner's hash, in bounded memory.

Rows come in the order of their keys and targets are scanned in the order of hashes, so the expected side is sorted on
disk, in a private temporary SQLite file. Rows are read in short pieces: neither WAL nor vacuum waits for verify.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fourfold.integrity.report import Progress
from fourfold.projection.items import Owner
from fourfold.relay.claim import WorkKey
from fourfold.relay.project import project
from fourfold.relay.sweep import row_keys
from fourfold.rows.engine import read_transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.projection.items import Fragment
    from fourfold.projection.plan import Plan

__all__ = ["Expected", "expected_digests", "project_keys"]

_PIECE = 500
_UNKNOWN = b"?"  # of a row that can't be projected: no target has this digest, so it differs until it is mended
_SCHEMA = """
CREATE TABLE expected (hash BLOB PRIMARY KEY, owner TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
"""


class Expected:
    """Digests on disk, in hash order; closed and removed with its context."""

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "expected.db", isolation_level=None, check_same_thread=False)
        self._connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
        self.count = 0

    def add(self, fragments: Iterable[Fragment], failed: Iterable[Owner] = ()) -> None:
        """Take the digests of fragments; empty ones expect nothing. Rows that can't be projected differ in any case."""
        rows = [(f.owner.hash, str(f.owner), f.digest) for f in fragments if not f.is_empty]
        rows += [(owner.hash, str(owner), _UNKNOWN) for owner in failed]
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR REPLACE INTO expected VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")
        self.count += len(rows)

    def in_order(self) -> Iterator[tuple[bytes, Owner, bytes]]:
        """(hash, owner, digest), ascending by hash."""
        for digest_hash, owner, digest in self._connection.execute(
            "SELECT hash, owner, digest FROM expected ORDER BY hash"
        ):
            yield digest_hash, Owner.parse(owner), digest

    def close(self) -> None:
        """Release the file."""
        self._connection.close()


@contextlib.asynccontextmanager
async def expected_digests(
    engine: AsyncEngine,
    plan: Plan,
    target: str,
    models: Mapping[str, str],
    progress: Callable[[Progress], None],
) -> AsyncIterator[Expected]:
    """Project every row of every table that `target` holds something of.

    Args:
        engine: Of the rows.
        plan: The declarations.
        target: `graph` or `vectors.<collection>`.
        models: Embedding model of each collection.
        progress: Called now and then.
    """
    with tempfile.TemporaryDirectory(prefix="fourfold-verify-") as folder:
        expected = Expected(Path(folder))
        try:
            for name, table_plan in plan.tables.items():
                if target not in plan.targets_of(name):
                    continue
                async for keys in row_keys(engine, table_plan, piece=_PIECE):
                    owners = [Owner(name, key) for key in keys]
                    fragments, failures = await project_keys(engine, plan, target, owners, models)
                    expected.add(fragments, failures)
                    progress(Progress(f"{target}: read {name}", expected.count))
            yield expected
        finally:
            expected.close()


async def project_keys(
    engine: AsyncEngine, plan: Plan, target: str, owners: Sequence[Owner], models: Mapping[str, str]
) -> tuple[list[Fragment], dict[Owner, str]]:
    """The fragments that owners should have now, and the causes of those that can't be projected."""
    works = [WorkKey(owner.table, owner.key, 0, 0, 0) for owner in owners]
    async with read_transaction(engine) as connection:
        fragments, failures = await project(connection, plan, target, works, models)
    return fragments, {Owner(failure.work.table, failure.work.key): failure.cause for failure in failures}
