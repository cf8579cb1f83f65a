"""The embedded vector store passes the contract suite."""

from __future__ import annotations

import json
import sqlite3
from array import array

import pytest

from fourfold.testing.vectors import VectorStoreContract
from fourfold.vectors import SqliteVectorStore

TAMPER = """
    UPDATE point SET {column} = ? WHERE ordinal = ? AND owner_id = (
        SELECT owner.id FROM owner JOIN collection ON collection.id = owner.collection_id
        WHERE collection.name = ? AND owner.hash = ?
    )
"""


class TestSqliteVectorStore(VectorStoreContract):
    @pytest.fixture
    async def store(self, tmp_path):
        self.path = tmp_path / "vectors.db"
        store = SqliteVectorStore(self.path)
        yield store
        await store.close()

    async def tamper(self, store, spec, owner, ordinal, *, payload=None, vector=None):
        column, value = ("payload", json.dumps(payload)) if vector is None else ("vector", array("f", vector).tobytes())
        connection = sqlite3.connect(self.path)
        changed = connection.execute(TAMPER.format(column=column), (value, ordinal, spec.name, owner.hash)).rowcount
        connection.commit()
        connection.close()
        assert changed == 1
