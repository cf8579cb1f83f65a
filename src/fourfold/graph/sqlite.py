"""The embedded graph: SQLite tables in one file that several processes share. Queried by patterns, compiled to SQL.

Guarantees: a write is one transaction (token checked, fragments replaced, stubs kept) and on disk when it returns
(`synchronous=FULL`); readers see whole writes; a crash at any point leaves the state before or after. Not guaranteed:
with `synchronous=NORMAL` the last writes may be lost with the machine's power, never half of one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fourfold.embedded import Connections
from fourfold.errors import ConfigurationError, ConflictError, RevokedError, ValidationError, did_you_mean
from fourfold.faultpoints import reach, reach_sync
from fourfold.graph.patterns import check_query
from fourfold.graph.sqlite_compile import compile_query, index_statements
from fourfold.graph.sqlite_contents import foreign_page, owner_page, owners_digests, statistics
from fourfold.graph.sqlite_file import GRAPH_FILE
from fourfold.graph.sqlite_plan import Changed, HeldEdge, HeldNode, Plan, State, Wanted, plan, rows, want
from fourfold.projection.items import Owner
from fourfold.projection.target import WriteResult

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from fourfold.graph.patterns import Query
    from fourfold.graph.schema import GraphSchema
    from fourfold.graph.store import ForeignItem, GraphStatistics
    from fourfold.graph.values import Row
    from fourfold.projection.items import GraphFragment, OwnerDigest

__all__ = ["SqliteGraphStore"]

_SYNCHRONOUS = ("FULL", "NORMAL", "EXTRA")
_OLDEST_SQLITE = (3, 38, 0)  # the -> operator, which gives back a property exactly as stored
_PAGE = 1_000  # owners or items per read: about a millisecond, so neither log nor writers wait for a long scan
_INVALIDATE_ALL = "UPDATE owner SET digest = NULL"
_INVALIDATE = _INVALIDATE_ALL + " WHERE hash IN (SELECT fourfold_bytes(value) FROM json_each(?))"
_ORPHANS_PER_TRANSACTION = 5_000
_INSERT_TOKEN = "INSERT OR IGNORE INTO token VALUES (?)"  # noqa: S105 - a fencing token
_DELETE_TOKENS = "DELETE FROM token WHERE token IN (SELECT value FROM json_each(?))"

_OWNERS = """
    SELECT o.hash, o.id, o.digest
    FROM json_each(?) AS wanted CROSS JOIN owner AS o ON o.hash = fourfold_bytes(wanted.value)"""
_INSERT_OWNER = "INSERT INTO owner (id, hash, owner, digest) VALUES (?, ?, ?, ?)"
_REWRITE_OWNER = "UPDATE owner SET digest = ? WHERE id = ?"  # an upsert would look at the hash's index too
_DELETE_OWNERS = "DELETE FROM owner WHERE id IN (SELECT value FROM json_each(?))"
_OWN_NODES = """
    SELECT n.id, n.owner, n.identity, n.properties, n.label, n.key
    FROM json_each(?) AS wanted CROSS JOIN node AS n ON n.owner = wanted.value"""
_OWN_EDGES = """
    SELECT e.id, e.owner, e.type, e.source, e.target, e.properties
    FROM json_each(?) AS wanted CROSS JOIN edge AS e ON e.owner = wanted.value"""
_PLACES = """
    SELECT n.id, CASE WHEN n.stub THEN NULL ELSE coalesce(n.owner, 0) END, n.identity,
        CASE WHEN n.stub THEN n.properties END, n.label, n.key
    FROM json_each(:keys) AS wanted CROSS JOIN node AS n ON n.label = :label AND n.key = wanted.value"""
_INSERT_NODE = "INSERT INTO node (id, label, key, identity, properties, owner, stub) VALUES (?, ?, ?, ?, ?, ?, ?)"
_REWRITE_NODE = "UPDATE node SET properties = ? WHERE id = ?"  # leaves the indexes of owners and stubs alone
_OWN_NODE = "UPDATE node SET properties = ?, owner = ?, stub = ? WHERE id = ?"
_INSERT_EDGE = "INSERT INTO edge (id, type, source, target, properties, owner) VALUES (?, ?, ?, ?, ?, ?)"
_DELETE_EDGES = "DELETE FROM edge WHERE id IN (SELECT value FROM json_each(?))"
_DELETE_LOOSE = """
    DELETE FROM node WHERE id IN (SELECT value FROM json_each(?)) AND stub
        AND NOT EXISTS (SELECT 1 FROM edge WHERE source = node.id)
        AND NOT EXISTS (SELECT 1 FROM edge WHERE target = node.id)"""
_ORPHANS = """
    SELECT id FROM node WHERE stub
        AND NOT EXISTS (SELECT 1 FROM edge WHERE source = node.id)
        AND NOT EXISTS (SELECT 1 FROM edge WHERE target = node.id)
    LIMIT ?"""
_COUNT_ORPHANS = f"SELECT count(*) FROM ({_ORPHANS})"


class SqliteGraphStore:
    """A `GraphStore` in one SQLite file.

    Args:
        path: The file; made at first use, its folder must be there. `:memory:` is refused: connections share a file.
        synchronous: `FULL` (default), `EXTRA`, or `NORMAL` (see the module).

    Raises:
        ConfigurationError: Codes `graph.open` and `graph.sqlite` at construction; at first use `graph.format` (another
            Fourfold's file), `graph.foreign_file`.

    Example:
        >>> store = SqliteGraphStore("graph.db")
        >>> store.name
        'graph'
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: Literal["FULL", "NORMAL", "EXTRA"] = "FULL"
    ) -> None:
        if str(path) in {"", ":memory:"} or str(path).startswith("file:"):
            message = f"The graph's path is {str(path)!r}; expected a file"
            raise ConfigurationError(message, code="graph.open", hint="Name a file in the data folder", path=str(path))
        if synchronous not in _SYNCHRONOUS:
            message = f"synchronous is {synchronous!r}; expected one of {_SYNCHRONOUS}"
            message += did_you_mean(str(synchronous), _SYNCHRONOUS)
            raise ConfigurationError(message, code="graph.open", hint="Use FULL")
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            message = f"SQLite is {sqlite3.sqlite_version}; the embedded graph needs 3.38 or newer"
            raise ConfigurationError(message, code="graph.sqlite", hint="Use a newer Python build")
        self._connections = Connections(Path(path), GRAPH_FILE, synchronous)
        self._schema: GraphSchema | None = None

    @property
    def name(self) -> str:
        """`graph`."""
        return "graph"

    async def ensure_schema(self, schema: GraphSchema) -> None:
        """See `GraphStore.ensure_schema`; uniqueness is the tables' own, indexes are made here."""
        wanted = index_statements(schema)

        def missing(connection: sqlite3.Connection) -> list[str]:
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
            return [statement for name, statement in wanted.items() if name not in there]

        def make(connection: sqlite3.Connection) -> None:
            for statement in missing(connection):
                connection.execute(statement)

        if await self._connections.read(missing):  # without a need, a start takes no lock
            await self._connections.write(make)
        self._schema = schema

    async def create_token(self, token: int) -> None:
        """See `Target.create_token`."""
        await self._connections.write(lambda connection: connection.execute(_INSERT_TOKEN, (token,)).rowcount)

    async def revoke_tokens(self, tokens: Collection[int]) -> None:
        """See `Target.revoke_tokens`."""
        gone = rows(tokens)
        await self._connections.write(lambda connection: connection.execute(_DELETE_TOKENS, (gone,)).rowcount)

    async def write(self, token: int, fragments: Sequence[GraphFragment]) -> WriteResult:
        """See `Target.write` and `GraphStore`."""
        await reach("graph.before_write")
        hashes = await asyncio.to_thread(_by_hash, fragments)
        result = await self._connections.write(lambda connection: self._write(connection, token, hashes))
        await reach("graph.after_commit")
        return result

    def _write(self, connection: sqlite3.Connection, token: int, hashes: Mapping[bytes, GraphFragment]) -> WriteResult:
        # Under the write lock, which excludes the token's removal: no write can follow a revocation.
        if connection.execute("SELECT 1 FROM token WHERE token = ?", (token,)).fetchone() is None:
            message = f"Token {token} is absent in the graph, so it was revoked; nothing was written"
            raise RevokedError(message, hint="Another worker has these keys; drop them", token=token)
        changed, new = _changed(connection, hashes)
        if changed:
            self._replace(connection, changed, new)
        reach_sync("graph.before_commit")
        return WriteResult(len(changed), len(hashes) - len(changed))

    def _replace(self, connection: sqlite3.Connection, changed: Sequence[Changed], new: Collection[int]) -> None:
        wanted = want(changed, self._schema)
        state = _read_state(connection, wanted, wanted.owners.keys() - new)
        try:
            made = plan(wanted, state)
        except ConflictError as conflict:
            raise _name_other(connection, conflict, wanted) from None
        _write_owners(connection, changed, new)
        _execute(connection, made)

    async def match(self, query: Query) -> list[Row]:
        """See `GraphStore.match`."""
        check_query(query, self._schema)
        compiled = compile_query(query, self._schema)

        def job(connection: sqlite3.Connection) -> list[Row]:
            return [compiled.decode(row) for row in connection.execute(compiled.sql, compiled.parameters)]

        return await self._connections.read(job, stoppable=True)

    async def scan_owners(
        self, *, table: str | None = None, after: bytes | None = None, limit: int | None = None
    ) -> AsyncIterator[OwnerDigest]:
        """See `Target.scan_owners`; pages are read one by one, so a long scan sees writes made meanwhile."""
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = await self._connections.read(
                lambda connection, after=after, size=size: owner_page(connection, table, after, size)  # type: ignore[misc]
            )
            for found in page:
                yield found
            if len(page) < size:
                return
            after = page[-1].owner.hash
            left = None if left is None else left - size

    async def read_owners(self, owners: Collection[Owner]) -> Mapping[Owner, bytes]:
        """See `Target.read_owners`."""
        return await self._connections.read(lambda connection: owners_digests(connection, owners))

    async def invalidate(self, owners: Collection[Owner] | None) -> None:
        """See `Target.invalidate`."""
        if owners is None:
            await self._connections.write(lambda connection: connection.execute(_INVALIDATE_ALL).rowcount)
            return
        hashes = rows(owner.hash.hex() for owner in owners)
        await self._connections.write(lambda connection: connection.execute(_INVALIDATE, (hashes,)).rowcount)

    async def statistics(self) -> GraphStatistics:
        """See `GraphStore.statistics`."""
        return await self._connections.read(statistics)

    async def count_orphans(self) -> int:
        """See `GraphStore.count_orphans`."""
        return await self._connections.read(lambda connection: connection.execute(_COUNT_ORPHANS, (-1,)).fetchone()[0])

    async def remove_orphans(self) -> int:
        """See `GraphStore.remove_orphans`; in short transactions, so that writers get their turn."""

        def remove(connection: sqlite3.Connection) -> int:
            found = [number for (number,) in connection.execute(_ORPHANS, (_ORPHANS_PER_TRANSACTION,))]
            return connection.execute(_DELETE_LOOSE, (rows(found),)).rowcount

        removed = 0
        while await self._connections.read(_has_orphans):  # the usual case takes no lock
            removed += await self._connections.write(remove)
        return removed

    async def foreign(self) -> AsyncIterator[ForeignItem]:
        """See `GraphStore.foreign`."""
        for kind in ("node", "edge"):
            after = 0
            while page := await self._connections.read(
                lambda connection, kind=kind, after=after: foreign_page(connection, kind, after, _PAGE)  # type: ignore[misc]
            ):
                for _, item in page:
                    yield item
                after = page[-1][0]

    async def close(self) -> None:
        """See `Target.close`; waits for writes that run."""
        await self._connections.close()


def _by_hash(fragments: Sequence[GraphFragment]) -> Mapping[bytes, GraphFragment]:
    hashes = {fragment.owner.hash: fragment for fragment in fragments}
    if len(hashes) < len(fragments):
        message = "write() got two fragments of one owner; expected distinct owners"
        raise ValidationError(message, code="graph.fragment", hint="Give each owner's newest fragment only")
    for fragment in fragments:
        fragment.digest  # noqa: B018 - kept by the fragment: worked out before the lock, for which others wait
    return hashes


def _has_orphans(connection: sqlite3.Connection) -> bool:
    return connection.execute(_ORPHANS, (1,)).fetchone() is not None


def _changed(connection: sqlite3.Connection, hashes: Mapping[bytes, GraphFragment]) -> tuple[list[Changed], set[int]]:
    """Fragments that differ from what was written, with their owners' ids; and which of the ids are new."""
    found = connection.execute(_OWNERS, (rows(owner_hash.hex() for owner_hash in hashes),))
    known = {owner_hash: (owner_id, digest) for owner_hash, owner_id, digest in found}
    (next_owner,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM owner").fetchone()
    changed, new = [], set()
    for owner_hash, fragment in hashes.items():
        if owner_hash in known:
            owner_id, digest = known[owner_hash]
            if fragment.is_empty or digest != fragment.digest:
                changed.append(Changed(owner_id, fragment, owner_hash))
        elif not fragment.is_empty:
            changed.append(Changed(next_owner, fragment, owner_hash))
            new.add(next_owner)
            next_owner += 1
    return changed, new


def _read_state(connection: sqlite3.Connection, wanted: Wanted, owner_ids: Collection[int]) -> State:
    numbers = (rows(owner_ids),)
    nodes = [_held_node(row) for row in connection.execute(_OWN_NODES, numbers)]
    edges = [HeldEdge(held[0], held[1], held[2:]) for held in connection.execute(_OWN_EDGES, numbers)]
    places = {held.place: held for held in nodes}
    for label, keys in wanted.keys().items():
        others = [key for key in sorted(keys) if (label, key) not in places]
        for row in connection.execute(_PLACES, {"label": label, "keys": rows(others)}):
            held = _held_node(row)
            places[held.place] = held
    (next_node,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM node").fetchone()
    (next_edge,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM edge").fetchone()
    return State(nodes, edges, places, next_node, next_edge)


def _held_node(row: tuple[Any, ...]) -> HeldNode:
    number, owner, identity, properties, label, key = row
    return HeldNode(number, owner, identity, properties, (label, key))


def _write_owners(connection: sqlite3.Connection, changed: Sequence[Changed], new: Collection[int]) -> None:
    made, written, gone = [], [], []
    for owner_id, fragment, owner_hash in changed:
        if fragment.is_empty:
            gone.append(owner_id)
        elif owner_id in new:
            made.append((owner_id, owner_hash, str(fragment.owner), fragment.digest))
        else:
            written.append((fragment.digest, owner_id))
    connection.executemany(_INSERT_OWNER, made)
    connection.executemany(_REWRITE_OWNER, written)
    connection.execute(_DELETE_OWNERS, (rows(gone),))


def _execute(connection: sqlite3.Connection, made: Plan) -> None:
    connection.executemany(_REWRITE_NODE, made.rewrite_nodes)
    connection.executemany(_OWN_NODE, made.own_nodes)
    connection.executemany(_INSERT_NODE, made.insert_nodes)
    if made.delete_edges:
        connection.execute(_DELETE_EDGES, (rows(made.delete_edges),))
    connection.executemany(_INSERT_EDGE, made.insert_edges)
    if made.loose:  # last: an edge that was just made may need the stub
        connection.execute(_DELETE_LOOSE, (rows(made.loose),))


def _name_other(connection: sqlite3.Connection, conflict: ConflictError, wanted: Wanted) -> ConflictError:
    """Put the other owner's name in place of its id."""
    if conflict.code != "graph.conflict":
        return conflict
    number = conflict.facts["other"]
    found = connection.execute("SELECT owner FROM owner WHERE id = ?", (number,)).fetchone()
    other = Owner.parse(found[0]) if found else wanted.owners[number]
    message = conflict.message.replace("another row has it", f"row {str(other)!r} has it")
    facts = {**conflict.facts, "other": other}
    return ConflictError(message, code=conflict.code, hint=conflict.hint, **facts)
