"""Reading the embedded graph back for verify, status and reports: pages, contents, counts.

Each function runs in a reader thread, on one snapshot of its connection; none is held between pages.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from fourfold.graph.sqlite_plan import rows
from fourfold.graph.store import ForeignItem, GraphStatistics
from fourfold.projection.items import DIGEST_BYTES, EdgeItem, GraphFragment, NodeItem, NodeRef, Owner, OwnerDigest

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

__all__ = ["decode_properties", "foreign_page", "owner_page", "owners_digests", "statistics"]

_INVALIDATED = b""  # equals no digest: verify sees the owner as stale until it is written again
_UNREADABLE = bytes(DIGEST_BYTES)  # equals no content's digest: for what was damaged so that it has none
_OWNER_PAGE = """
    SELECT owner, digest FROM owner
    WHERE hash > :after AND (:prefix IS NULL OR substr(owner, 1, length(:prefix)) = :prefix)
    ORDER BY hash LIMIT :limit"""
_NODES = """
    SELECT o.owner, n.label, n.identity, n.properties
    FROM json_each(?) AS wanted CROSS JOIN owner AS o ON o.hash = fourfold_bytes(wanted.value)
    JOIN node AS n ON n.owner = o.id"""
_EDGES = """
    SELECT o.owner, e.type, s.label, s.identity, s.properties, t.label, t.identity, t.properties, e.properties
    FROM json_each(?) AS wanted CROSS JOIN owner AS o ON o.hash = fourfold_bytes(wanted.value)
    JOIN edge AS e ON e.owner = o.id JOIN node AS s ON s.id = e.source JOIN node AS t ON t.id = e.target"""
_COUNTS = {
    "nodes": "SELECT label, count(*) FROM node GROUP BY label",
    "edges": "SELECT type, count(*) FROM edge GROUP BY type",
    "stubs": "SELECT label, count(*) FROM node WHERE stub GROUP BY label",
    "owners": "SELECT substr(owner, 1, instr(owner, ':') - 1) AS owning, count(*) FROM owner GROUP BY owning",
}
_FOREIGN = {
    "node": "SELECT id, label, properties FROM node WHERE owner IS NULL AND NOT stub AND id > ? ORDER BY id LIMIT ?",
    "edge": "SELECT id, type, properties FROM edge WHERE owner IS NULL AND id > ? ORDER BY id LIMIT ?",
}


def decode_properties(text: str) -> dict[str, Any]:
    """Return stored properties, lists as tuples. What was damaged is one odd property: a digest then differs."""
    try:
        found = json.loads(text)
    except ValueError:
        return {"": text}
    if not isinstance(found, dict):
        return {"": text}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def owner_page(connection: sqlite3.Connection, table: str | None, after: bytes | None, limit: int) -> list[OwnerDigest]:
    """Owners behind a hash, ascending."""
    prefix = None if table is None else f"{table}:"
    found = connection.execute(_OWNER_PAGE, {"after": after or b"", "prefix": prefix, "limit": limit})
    return [OwnerDigest(Owner.parse(text), _INVALIDATED if digest is None else digest) for text, digest in found]


def owners_digests(connection: sqlite3.Connection, owners: Collection[Owner]) -> Mapping[Owner, bytes]:
    """Digests from the stored contents; identities from the properties, since those are what readers see."""
    wanted = (rows(owner.hash.hex() for owner in owners),)
    nodes: dict[str, list[NodeItem]] = {}
    edges: dict[str, list[EdgeItem]] = {}
    for owner, label, identity, properties in connection.execute(_NODES, wanted):
        ref, others = _node(label, identity, properties)
        nodes.setdefault(owner, []).append(NodeItem(ref, others))
    for owner, edge_type, *ends, properties in connection.execute(_EDGES, wanted):
        (source, _), (target, _) = _node(*ends[:3]), _node(*ends[3:])
        edge = EdgeItem(edge_type, source, target, decode_properties(properties))
        edges.setdefault(owner, []).append(edge)
    found = {}
    for text in nodes.keys() | edges.keys():
        owner = Owner.parse(text)
        try:
            found[owner] = GraphFragment(owner, tuple(nodes.get(text, ())), tuple(edges.get(text, ()))).digest
        except ValueError:  # a number that JSON doesn't have
            found[owner] = _UNREADABLE
    return found


def _node(label: str, identity: str, properties: str) -> tuple[NodeRef, dict[str, Any]]:
    others = decode_properties(properties)
    try:
        names = json.loads(identity)
        return NodeRef(label, tuple((name, others.pop(name)) for name in names if name in others)), others
    except (ValueError, TypeError):  # damaged: no names of properties
        return NodeRef(label, ()), others


def statistics(connection: sqlite3.Connection) -> GraphStatistics:
    """Count everything, in one snapshot."""
    return GraphStatistics(**{name: dict(connection.execute(sql).fetchall()) for name, sql in _COUNTS.items()})


def foreign_page(
    connection: sqlite3.Connection, kind: Literal["node", "edge"], after: int, limit: int
) -> list[tuple[int, ForeignItem]]:
    """Items without owner mark behind an id."""
    found = connection.execute(_FOREIGN[kind], (after, limit))
    return [(number, ForeignItem(kind, name, decode_properties(properties))) for number, name, properties in found]
