"""A search: bring the vectors in memory up to date, find the nearest, look up whose they are; in one snapshot.

What other processes wrote is noticed by the collection's `generation`, read in the same snapshot as all else. New
points have higher ids and are read alone. Points that went are not searched for at once: they stay in memory as
*ghosts*, as many as memory holds more than the collection has, and fall out at the look-up; beyond some, memory is
cleared of them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence

from fourfold.errors import IntegrityError
from fourfold.projection.items import Owner
from fourfold.vectors.sqlite.matrix import PointMatrix, parse_ids
from fourfold.vectors.sqlite.payload import Term, read_payload
from fourfold.vectors.store import CollectionSpec, Hit

__all__ = ["Search"]

_MAX_GHOSTS = 128  # each costs a look-up (2 µs) per search; clearing them costs a scan of all ids (8 ms for 100,000)

_PAGE = 2048  # vectors fetched at once, as objects of Python

_SELECT_STATE = "SELECT generation, points FROM collection WHERE id = ?"
_SELECT_NEW = "SELECT id, vector FROM point WHERE collection_id = ? AND id > ? ORDER BY id"
_SELECT_LIVE = "SELECT group_concat(id) FROM point WHERE collection_id = ?"
_SELECT_FOUND = """
    SELECT point.id, owner.table_name, owner.key, point.ordinal, point.payload
    FROM json_each(?) AS found
    JOIN point ON point.id = found.value
    JOIN owner ON owner.id = point.owner_id
"""
_SELECT_OWNERS = """
    SELECT DISTINCT owner.table_name, owner.key
    FROM json_each(?) AS found
    JOIN point ON point.id = found.value
    JOIN owner ON owner.id = point.owner_id
"""


class Search:
    """Searches one collection; its vectors are in memory once per process, whatever the number of searches.

    Args:
        collection_id: In the file.
        spec: Of the collection.
    """

    def __init__(self, collection_id: int, spec: CollectionSpec) -> None:
        self._collection_id = collection_id
        self._spec = spec
        self._refreshing = threading.Lock()
        self._matrix = PointMatrix(spec.dimension)
        self._last_id = 0
        self._generation = 0

    @property
    def size_bytes(self) -> int:
        """Memory of the vectors that are held."""
        return self._matrix.size_bytes

    def nearest(
        self,
        connection: sqlite3.Connection,
        vector: Sequence[float],
        limit: int,
        selection: tuple[str, list[Term]] | None,
    ) -> list[Hit]:
        """Find the nearest, in the caller's read transaction (which may be begun anew).

        Args:
            connection: Of a thread that reads.
            vector: Finite, of the collection's dimension.
            limit: At least 1.
            selection: From `compile_filter`.

        Raises:
            IntegrityError: Code `vectors.damaged`: a stored vector is cut or holds NaN, or a payload can't be read.
        """
        matrix, points = self._refresh(connection)
        ghosts = len(matrix) - points
        wanted = None
        if selection is not None:
            select, bound = selection
            [ids] = connection.execute(f"SELECT group_concat(point_id) FROM ({select})", bound).fetchone()
            wanted = parse_ids(ids)
        scores = dict(matrix.best(vector, limit + ghosts, wanted))
        rows = connection.execute(_SELECT_FOUND, (json.dumps(list(scores)),)).fetchall()
        rows.sort(key=lambda row: (-scores[row[0]], row[1], row[2], row[3]))
        return [self._hit(scores[number], *columns) for number, *columns in rows[:limit]]

    def _hit(self, score: float, table: str, key: str, ordinal: int, payload: str) -> Hit:
        owner = Owner(table, key)
        try:
            return Hit(owner, ordinal, score, read_payload(payload))
        except ValueError as error:
            raise self._damaged([owner], "a payload that is no JSON object") from error

    def _refresh(self, connection: sqlite3.Connection) -> tuple[PointMatrix, int]:
        """Return the vectors of this transaction's snapshot, and how many points there really are."""
        with self._refreshing:
            generation, points = self._state(connection)
            if generation < self._generation:
                # Another thread has refreshed since our snapshot was taken, and may have dropped what we still see.
                connection.execute("COMMIT")
                connection.execute("BEGIN")
                generation, points = self._state(connection)
            if generation < self._generation:  # the file itself went back: another one was put in its place
                self._matrix, self._last_id = PointMatrix(self._spec.dimension), 0
            if generation != self._generation:
                matrix, last_id = self._extended(connection)
                if len(matrix) - points > _MAX_GHOSTS:
                    [ids] = connection.execute(_SELECT_LIVE, (self._collection_id,)).fetchone()
                    matrix = matrix.kept(parse_ids(ids))
                self._matrix, self._last_id, self._generation = matrix, last_id, generation
            return self._matrix, points

    def _state(self, connection: sqlite3.Connection) -> tuple[int, int]:
        generation, points = connection.execute(_SELECT_STATE, (self._collection_id,)).fetchone()
        return generation, points

    def _extended(self, connection: sqlite3.Connection) -> tuple[PointMatrix, int]:
        matrix, last_id, pages = self._matrix, self._last_id, 0
        cursor = connection.execute(_SELECT_NEW, (self._collection_id, last_id))
        while rows := cursor.fetchmany(_PAGE):
            try:
                matrix = matrix.extended(rows)
            except ValueError as error:
                found = connection.execute(_SELECT_OWNERS, (json.dumps(error.args),)).fetchall()
                raise self._damaged([Owner(*row) for row in found], "a vector that is cut or not finite") from error
            last_id = rows[-1][0]
            pages += 1
        return (matrix.packed() if pages > 1 else matrix), last_id

    def _damaged(self, owners: Sequence[Owner], what: str) -> IntegrityError:
        named = ", ".join(map(str, sorted(owners)[:5])) + (", …" if len(owners) > 5 else "")  # noqa: PLR2004 - a taste
        return IntegrityError(
            f"collection {self._spec.name!r} holds {what}, of {named}",
            code="vectors.damaged",
            hint="Run `fourfold repair`",
            owners=tuple(map(str, owners)),
        )
