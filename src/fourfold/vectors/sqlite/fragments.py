"""Fragments on their way into the file, and what the file says of them.

`prepare` checks everything before a transaction begins; `replace` runs inside one. Whether a fragment is there already
is decided by its digest *and* by what is stored: so an altered payload or vector, whose digest still stands beside it,
is mended by writing the fragment again, the only way in which repairs write.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from fourfold import faultpoints
from fourfold.errors import RevokedError, ValidationError
from fourfold.projection.items import DIGEST_BYTES, Owner, PointFragment, PointItem, check_value
from fourfold.projection.target import WriteResult
from fourfold.vectors.sqlite.payload import Term, encode_payload, read_payload, terms_of
from fourfold.vectors.store import CollectionSpec

__all__ = ["Prepared", "check_token", "prepare", "read_digests", "read_vectors", "replace"]

_UNREADABLE = bytes(DIGEST_BYTES)  # equals no content's digest: for stored contents that can't even be parsed

_SELECT_TOKEN = "SELECT 1 FROM token WHERE collection_id = ? AND token = ?"  # noqa: S105 - a fencing token
_SELECT_OWNER = "SELECT id, digest FROM owner WHERE collection_id = ? AND hash = ?"
_INSERT_OWNER = "INSERT INTO owner (collection_id, hash, table_name, key, digest) VALUES (?, ?, ?, ?, ?)"
_UPDATE_OWNER = "UPDATE owner SET digest = ? WHERE id = ?"
_DELETE_OWNER = "DELETE FROM owner WHERE id = ?"
_SELECT_POINTS = "SELECT ordinal, vector, text, payload FROM point WHERE owner_id = ? ORDER BY ordinal"
_SELECT_PAYLOADS = "SELECT id, payload FROM point WHERE owner_id = ?"
_DELETE_POINTS = "DELETE FROM point WHERE owner_id = ?"
_INSERT_POINT = "INSERT INTO point (collection_id, owner_id, ordinal, payload, vector, text) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_TERM = "INSERT INTO term (collection_id, field, value, point_id) VALUES (?, ?, ?, ?)"
_DELETE_TERM = "DELETE FROM term WHERE collection_id = ? AND field = ? AND value = ? AND point_id = ?"
_COUNT_CHANGES = "UPDATE collection SET generation = generation + 1, points = points + ? WHERE id = ?"

TermRow = tuple[int, str, Term, int]


@dataclass(frozen=True, slots=True)
class PreparedPoint:
    """A point as its columns hold it."""

    vector: bytes
    text: str | None
    encoded: str
    terms: Collection[tuple[str, Term]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked fragment, ready for its transaction."""

    owner: Owner
    hash: bytes
    digest: bytes
    points: tuple[PreparedPoint, ...]


def prepare(fragments: Sequence[PointFragment], spec: CollectionSpec) -> list[Prepared]:
    """Check fragments and bring them into the file's form.

    Raises:
        ValidationError: Names the owner. Codes `vectors.duplicate_owner`, `vectors.wrong_collection`, `vectors.model`,
            `vectors.missing_vector`, `vectors.dimension`, `vectors.not_finite`, `projection.value`.
    """
    seen: set[Owner] = set()
    prepared: list[Prepared] = []
    for fragment in fragments:
        owner = fragment.owner
        if owner in seen:
            raise ValidationError(f"{owner} comes twice in one write", code="vectors.duplicate_owner", owner=str(owner))
        seen.add(owner)
        if fragment.collection != spec.name:
            raise ValidationError(
                f"{owner}: its fragment is for collection {fragment.collection!r}, this is {spec.name!r}",
                code="vectors.wrong_collection",
                owner=str(owner),
                seen=fragment.collection,
                expected=spec.name,
            )
        points = tuple(_prepare_point(fragment, point, spec) for point in fragment.points)
        prepared.append(Prepared(owner, owner.hash, fragment.digest, points))
    return prepared


def _prepare_point(fragment: PointFragment, point: PointItem, spec: CollectionSpec) -> PreparedPoint:
    owner = fragment.owner
    if point.text is not None and fragment.model != spec.model:
        # Its digest names the model, and deep verify computes it with the collection's.
        raise ValidationError(
            f"{owner}: its text was embedded by {fragment.model!r}, collection {spec.name!r} holds {spec.model!r}",
            code="vectors.model",
            hint="Another model means another collection",
            owner=str(owner),
            seen=fragment.model,
            expected=spec.model,
        )
    payload = {name: check_value(value, f"{owner} payload {name!r}") for name, value in point.payload.items()}
    return PreparedPoint(_pack(owner, point.vector, spec), point.text, encode_payload(payload), terms_of(payload))


def _pack(owner: Owner, vector: Sequence[float] | None, spec: CollectionSpec) -> bytes:
    if vector is None:
        raise ValidationError(
            f"{owner}: a point without a vector",
            code="vectors.missing_vector",
            hint="Embed its text before it is written",
            owner=str(owner),
        )
    if len(vector) != spec.dimension:
        raise ValidationError(
            f"{owner}: a vector of {len(vector)} numbers, collection {spec.name!r} holds vectors of {spec.dimension}",
            code="vectors.dimension",
            hint="Another dimension means another collection",
            owner=str(owner),
            seen=len(vector),
            expected=spec.dimension,
        )
    try:
        packed = array("f", vector)
    except TypeError as error:
        raise ValidationError(
            f"{owner}: a vector holds something that is no number", code="vectors.not_finite", owner=str(owner)
        ) from error
    # One NaN or infinity makes the sum so, and finite 32-bit floats can't overflow a double.
    if not isfinite(sum(packed)):
        raise ValidationError(
            f"{owner}: a vector holds NaN, infinity or a number beyond 32-bit floats",
            code="vectors.not_finite",
            owner=str(owner),
        )
    if sys.byteorder == "big":
        packed.byteswap()  # little-endian in the file, wherever it was written
    return packed.tobytes()


def check_token(connection: sqlite3.Connection, collection_id: int, token: int, target: str) -> None:
    """Refuse an absent token. The write lock is held, so it can't go before the commit.

    Raises:
        RevokedError: It is absent.
    """
    if connection.execute(_SELECT_TOKEN, (collection_id, token)).fetchone() is None:
        raise RevokedError(
            f"token {token} is absent in {target}: it was revoked, nothing was written", token=token, target=target
        )


def replace(connection: sqlite3.Connection, collection_id: int, fragments: Iterable[Prepared]) -> WriteResult:
    """Replace what each fragment's owner has by the fragment, in the caller's write transaction."""
    written = unchanged = growth = 0
    going: list[TermRow] = []
    coming: list[TermRow] = []
    for fragment in fragments:
        stored = connection.execute(_SELECT_OWNER, (collection_id, fragment.hash)).fetchone()
        if _is_there(connection, fragment, stored):
            unchanged += 1
            continue
        written += 1
        owner_id = None if stored is None else stored[0]
        if owner_id is not None:
            going += _terms_of_points(connection, collection_id, owner_id)
            growth -= connection.execute(_DELETE_POINTS, (owner_id,)).rowcount
        if fragment.points:
            coming += _insert_points(connection, collection_id, fragment, owner_id)
            growth += len(fragment.points)
        else:
            connection.execute(_DELETE_OWNER, (owner_id,))
    # All at once at the end: neighbours in the index are neighbours in time.
    connection.executemany(_DELETE_TERM, going)
    connection.executemany(_INSERT_TERM, coming)
    if written:
        connection.execute(_COUNT_CHANGES, (growth, collection_id))
    faultpoints.reach_sync("vectors.before_commit")
    return WriteResult(written, unchanged)


def _is_there(connection: sqlite3.Connection, fragment: Prepared, stored: tuple[int, bytes] | None) -> bool:
    if stored is None:
        return not fragment.points
    if not fragment.points or stored[1] != fragment.digest:
        return False
    rows = connection.execute(_SELECT_POINTS, (stored[0],)).fetchall()
    return rows == [(n, point.vector, point.text, point.encoded) for n, point in enumerate(fragment.points)]


def _terms_of_points(connection: sqlite3.Connection, collection_id: int, owner_id: int) -> Iterator[TermRow]:
    for point_id, encoded in connection.execute(_SELECT_PAYLOADS, (owner_id,)).fetchall():
        try:
            terms = terms_of(read_payload(encoded))
        except ValueError:
            continue  # damaged: its terms stay behind and name a point that is no more, which a search passes over
        yield from ((collection_id, *term, point_id) for term in terms)


def _insert_points(
    connection: sqlite3.Connection, collection_id: int, fragment: Prepared, owner_id: int | None
) -> Iterator[TermRow]:
    owner = fragment.owner
    if owner_id is None:
        row = (collection_id, fragment.hash, owner.table, owner.key, fragment.digest)
        owner_id = connection.execute(_INSERT_OWNER, row).lastrowid
    else:
        connection.execute(_UPDATE_OWNER, (fragment.digest, owner_id))
    for ordinal, point in enumerate(fragment.points):
        columns = (collection_id, owner_id, ordinal, point.encoded, point.vector, point.text)
        point_id = connection.execute(_INSERT_POINT, columns).lastrowid
        assert point_id is not None  # noqa: S101 - after an INSERT it is set
        yield from ((collection_id, *term, point_id) for term in point.terms)


def read_digests(
    connection: sqlite3.Connection, collection_id: int, owners: Iterable[Owner], spec: CollectionSpec
) -> dict[Owner, bytes]:
    """Digests computed from the stored contents; an owner without points is absent."""
    digests: dict[Owner, bytes] = {}
    for owner, rows in _stored_points(connection, collection_id, owners):
        try:
            points = tuple(
                PointItem(tuple(_unpack(vector)), text, read_payload(payload)) for _, vector, text, payload in rows
            )
            fragment = PointFragment(owner, spec.name, points, spec.model)
            digests[owner] = fragment.digest
        except ValueError:
            digests[owner] = _UNREADABLE
    return digests


def read_vectors(
    connection: sqlite3.Connection, collection_id: int, owners: Iterable[Owner]
) -> dict[Owner, tuple[tuple[float, ...], ...]]:
    """Stored vectors by ordinal, as they are; an owner without points is absent."""
    return {
        owner: tuple(tuple(_unpack(vector)) for _, vector, _, _ in rows)
        for owner, rows in _stored_points(connection, collection_id, owners)
    }


def _stored_points(
    connection: sqlite3.Connection, collection_id: int, owners: Iterable[Owner]
) -> Iterable[tuple[Owner, list[tuple[int, bytes, str | None, str]]]]:
    for owner in dict.fromkeys(owners):
        stored = connection.execute(_SELECT_OWNER, (collection_id, owner.hash)).fetchone()
        rows = connection.execute(_SELECT_POINTS, (stored[0],)).fetchall() if stored else []
        if rows:
            yield owner, rows


def _unpack(vector: bytes) -> array[float]:
    unpacked = array("f")
    unpacked.frombytes(vector[: len(vector) // unpacked.itemsize * unpacked.itemsize])  # a cut one reads as shorter
    if sys.byteorder == "big":
        unpacked.byteswap()
    return unpacked
