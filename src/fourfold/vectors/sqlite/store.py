"""The embedded vector store and its collections: what a caller sees. Checks, then a job for a thread."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from array import array
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from fourfold import faultpoints
from fourfold.embedded import SYNCHRONOUS, Connections
from fourfold.errors import ConfigurationError, ValidationError, did_you_mean
from fourfold.projection.items import Owner, OwnerDigest, PointFragment, Value
from fourfold.projection.target import WriteResult
from fourfold.vectors.sqlite.file import VECTORS_FILE
from fourfold.vectors.sqlite.filter import compile_filter
from fourfold.vectors.sqlite.fragments import check_token, prepare, read_digests, read_vectors, replace
from fourfold.vectors.store import CollectionSpec, Hit

if TYPE_CHECKING:
    from fourfold.vectors.sqlite.search import Search  # imports numpy

__all__ = ["SqliteCollection", "SqliteVectorStore"]

_NAME_CHARS = 200  # a name stands in the queue and in metrics
_SCAN_PAGE = 1000  # owners read in one short transaction, so that a slow reader holds no snapshot

_SELECT_COLLECTION = "SELECT id, model, dimension, payload FROM collection WHERE name = ?"
_INSERT_COLLECTION = "INSERT INTO collection (name, model, dimension, payload) VALUES (?, ?, ?, ?)"
_UPDATE_PAYLOAD = "UPDATE collection SET payload = ? WHERE id = ?"
_SELECT_COLLECTIONS = "SELECT name, model, dimension, payload FROM collection ORDER BY name"
_SELECT_POINTS = "SELECT points FROM collection WHERE id = ?"
_INSERT_TOKEN = "INSERT OR IGNORE INTO token (collection_id, token) VALUES (?, ?)"  # noqa: S105 - a fencing token
_INVALIDATE_ALL = "UPDATE owner SET digest = x'' WHERE collection_id = ?"
_INVALIDATE = _INVALIDATE_ALL + " AND hash = ?"
_DELETE_TOKEN = "DELETE FROM token WHERE collection_id = ? AND token = ?"  # noqa: S105 - as above
_SCAN = """
    SELECT table_name, key, digest, hash FROM owner
    WHERE collection_id = ? AND hash > ? AND (? IS NULL OR table_name = ?)
    ORDER BY hash LIMIT ?
"""


class SqliteVectorStore:
    """Collections in one SQLite file, shared by any number of processes on this machine.

    Args:
        path: The file; made when missing, its folder must exist. Not on a network share (WAL needs shared memory).
        synchronous: `FULL` (each write is on disk when it returns), `EXTRA`, `NORMAL` (the last writes before a power
            loss may go), `OFF`.

    Raises:
        ConfigurationError: numpy is missing (code `vectors.extra`), or `synchronous` is none of the four.

    Example:
        >>> import asyncio, tempfile
        >>> async def main() -> int:
        ...     with tempfile.TemporaryDirectory() as folder:
        ...         store = SqliteVectorStore(Path(folder) / "vectors.db")
        ...         songs = await store.ensure_collection(CollectionSpec("songs", "given", 3))
        ...         points = await songs.count()
        ...         await store.close()
        ...     return points
        >>> asyncio.run(main())
        0
    """

    def __init__(self, path: str | Path, *, synchronous: str = "FULL") -> None:
        try:
            from fourfold.vectors.sqlite.search import Search
        except ModuleNotFoundError as error:
            if error.name != "numpy":
                raise
            raise ConfigurationError(
                "the embedded vector store needs numpy, which is not installed",
                code="vectors.extra",
                hint="pip install 'fourfold[vectors]'",
                extra="vectors",
            ) from error
        if synchronous not in SYNCHRONOUS:
            raise ConfigurationError(
                f"synchronous={synchronous!r}, expected one of {', '.join(SYNCHRONOUS)}"
                f"{did_you_mean(synchronous.upper(), SYNCHRONOUS)}",
                code="vectors.synchronous",
                seen=synchronous,
            )
        self._search = Search
        self._connections = Connections(Path(os.path.abspath(path)), VECTORS_FILE, synchronous)  # noqa: PTH100 - resolve() follows links

    async def ensure_collection(self, spec: CollectionSpec) -> SqliteCollection:
        """Make the collection if missing; another list of payload fields replaces the one that is there.

        Raises:
            ConfigurationError: Code `vectors.collection`, one is there with another model or dimension (names both);
                `vectors.format`, `vectors.foreign_file`, the file isn't ours to use.
            ValidationError: Code `vectors.spec`, the name is empty or too long, or the dimension below 1.
        """
        if not spec.name or len(spec.name) > _NAME_CHARS or not spec.name.isprintable() or spec.dimension < 1:
            raise ValidationError(
                f"a collection named {spec.name!r:.80} of dimension {spec.dimension}; expected a printable name of at "
                f"most {_NAME_CHARS} characters and a dimension of at least 1",
                code="vectors.spec",
            )
        collection_id = await self._connections.read(lambda connection: _find_collection(connection, spec))
        if collection_id is None:
            collection_id = await self._connections.write(lambda connection: _make_collection(connection, spec))
        return SqliteCollection(self._connections, collection_id, spec, self._search(collection_id, spec))

    async def collections(self) -> AsyncIterator[CollectionSpec]:
        """Every collection that is there, by name."""
        rows = await self._connections.read(lambda connection: connection.execute(_SELECT_COLLECTIONS).fetchall())
        for name, model, dimension, payload in rows:
            yield CollectionSpec(name, model, dimension, tuple(json.loads(payload)))

    async def close(self) -> None:
        """Wait for running reads and writes, then close the file; safe to call twice."""
        await self._connections.close()


class SqliteCollection:
    """One collection, a target of the relay; made by `SqliteVectorStore.ensure_collection`."""

    def __init__(self, connections: Connections, collection_id: int, spec: CollectionSpec, search: Search) -> None:
        self._connections = connections
        self._id = collection_id
        self._spec = spec
        self._search = search

    @property
    def name(self) -> str:
        """`vectors.` and the collection's name."""
        return f"vectors.{self._spec.name}"

    @property
    def spec(self) -> CollectionSpec:
        """Model, dimension and payload fields."""
        return self._spec

    async def create_token(self, token: int) -> None:
        """Make `token` known, durably. Idempotent."""
        await self._connections.write(lambda connection: connection.execute(_INSERT_TOKEN, (self._id, token)).rowcount)

    async def revoke_tokens(self, tokens: Collection[int]) -> None:
        """Remove tokens, durably; absent ones are fine."""
        rows = [(self._id, token) for token in sorted(tokens)]
        await self._connections.write(lambda connection: connection.executemany(_DELETE_TOKEN, rows).rowcount)

    async def write(self, token: int, fragments: Sequence[PointFragment]) -> WriteResult:
        """Replace what each fragment's owner has, in one transaction, on disk on return.

        Args:
            token: Created before, and not revoked.
            fragments: Distinct owners; every point with its vector. An empty one removes.

        Raises:
            ValidationError: A fragment doesn't fit the collection; names the owner; nothing was written.
            RevokedError: The token is absent; nothing was written.
            StoreUnavailableError: Disk full, locked too long, input or output failed: the outcome is unknown.
            StoreRejectedError: The file can't be written.
            IntegrityError: The file is damaged.
        """
        await faultpoints.reach("vectors.before_write")
        prepared = await asyncio.to_thread(prepare, fragments, self._spec)

        def job(connection: sqlite3.Connection) -> WriteResult:
            check_token(connection, self._id, token, self.name)
            return replace(connection, self._id, prepared)

        result = await self._connections.write(job)
        await faultpoints.reach("vectors.after_commit")
        return result

    async def scan_owners(
        self, *, table: str | None = None, after: bytes | None = None, limit: int | None = None
    ) -> AsyncIterator[OwnerDigest]:
        """Owners and the digests that were written with them, ascending by hash, in pages of a thousand."""
        seen, left = after or b"", limit
        while left is None or left > 0:
            page = _SCAN_PAGE if left is None else min(left, _SCAN_PAGE)
            bound = (self._id, seen, table, table, page)
            rows = await self._connections.read(partial(_scan, bound))
            for table_name, key, digest, _ in rows:
                yield OwnerDigest(Owner(table_name, key), digest)
            if len(rows) < page:
                return
            seen, left = rows[-1][3], None if left is None else left - page

    async def invalidate(self, owners: Collection[Owner] | None) -> None:
        """Forget digests; `write` compares contents anyway, so this is for quick verify and for a rebuild's count."""
        hashes = None if owners is None else [(self._id, owner.hash) for owner in owners]

        def job(connection: sqlite3.Connection) -> int:
            if hashes is None:
                return connection.execute(_INVALIDATE_ALL, (self._id,)).rowcount
            return connection.executemany(_INVALIDATE, hashes).rowcount

        await self._connections.write(job)

    async def read_owners(self, owners: Collection[Owner]) -> Mapping[Owner, bytes]:
        """Digests computed from the stored contents; an owner without points is absent."""
        return await self._connections.read(lambda connection: read_digests(connection, self._id, owners, self._spec))

    async def read_vectors(self, owners: Sequence[Owner]) -> Mapping[Owner, tuple[tuple[float, ...], ...]]:
        """Stored vectors by ordinal, as they are (a damaged one may be shorter); an owner without points is absent."""
        return await self._connections.read(lambda connection: read_vectors(connection, self._id, owners))

    async def nearest(
        self, vector: Sequence[float], *, limit: int = 10, where: Mapping[str, Value | Sequence[Value]] | None = None
    ) -> list[Hit]:
        """The points of highest cosine similarity, best first, equal ones by owner and ordinal; exact.

        Args:
            vector: Finite, of the collection's dimension; a vector of zeros is as near to everything (0.0).
            limit: How many at most; at least 1.
            where: Declared payload fields: a scalar is equality, a list is membership; a list-valued field matches by
                any member. All fields must hold.

        Raises:
            ValidationError: Codes `vectors.limit`, `vectors.dimension`, `vectors.not_finite`, `vectors.unknown_field`,
                `vectors.filter`.
            IntegrityError: Code `vectors.damaged`, a stored vector or payload is.
        """
        if limit < 1:
            raise ValidationError(f"limit={limit}, expected at least 1", code="vectors.limit", seen=limit)
        query = _check_query(vector, self._spec)
        selection = compile_filter(where, self._spec, self._id)
        return await self._connections.read(
            lambda connection: self._search.nearest(connection, query, limit, selection)
        )

    async def count(self) -> int:
        """Number of points."""
        points: int = await self._connections.read(
            lambda connection: connection.execute(_SELECT_POINTS, (self._id,)).fetchone()[0]
        )
        return points

    def statistics(self) -> Mapping[str, int]:
        """What this process holds: `memory_bytes` of vectors."""
        return {"memory_bytes": self._search.size_bytes}

    async def close(self) -> None:
        """Nothing to do: the store owns the file."""


def _check_query(vector: Sequence[float], spec: CollectionSpec) -> tuple[float, ...]:
    if len(vector) != spec.dimension:
        raise ValidationError(
            f"searched with {len(vector)} numbers, collection {spec.name!r} holds vectors of {spec.dimension}",
            code="vectors.dimension",
            seen=len(vector),
            expected=spec.dimension,
        )
    query = tuple(map(float, vector))
    if not all(map(isfinite, array("f", query))):
        raise ValidationError(
            "searched with a vector that holds NaN, infinity or a number beyond 32-bit floats",
            code="vectors.not_finite",
        )
    return query


def _scan(
    bound: tuple[int, bytes, str | None, str | None, int], connection: sqlite3.Connection
) -> list[tuple[str, str, bytes, bytes]]:
    return connection.execute(_SCAN, bound).fetchall()


def _find_collection(connection: sqlite3.Connection, spec: CollectionSpec) -> int | None:
    """Return the id of the collection if it is there as specified, payload fields included."""
    found = connection.execute(_SELECT_COLLECTION, (spec.name,)).fetchone()
    if found is None:
        return None
    collection_id, model, dimension, payload = found
    if (model, dimension) != (spec.model, spec.dimension):
        raise ConfigurationError(
            f"collection {spec.name!r} holds {dimension} dimensions of model {model!r}, "
            f"asked for were {spec.dimension} of {spec.model!r}",
            code="vectors.collection",
            hint="Another model or dimension means a new collection: give it another name and rebuild",
            collection=spec.name,
            seen=(model, dimension),
            expected=(spec.model, spec.dimension),
        )
    return int(collection_id) if tuple(json.loads(payload)) == spec.payload else None


def _make_collection(connection: sqlite3.Connection, spec: CollectionSpec) -> int:
    """Make it, or record other payload fields; another process may have been faster, so look again."""
    collection_id = _find_collection(connection, spec)
    if collection_id is not None:
        return collection_id
    found = connection.execute(_SELECT_COLLECTION, (spec.name,)).fetchone()
    # All fields of a payload have their terms, declared or not: another declaration needs nothing but its record.
    payload = json.dumps(spec.payload)
    if found is not None:
        connection.execute(_UPDATE_PAYLOAD, (payload, found[0]))
        return int(found[0])
    made = connection.execute(_INSERT_COLLECTION, (spec.name, spec.model, spec.dimension, payload)).lastrowid
    assert made is not None  # noqa: S101 - after an INSERT it is set
    return made
