"""The embedded graph passes the contract of graph stores."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from fourfold.graph import SqliteGraphStore
from fourfold.testing.graph import GraphStoreContract


class TestSqliteGraphStore(GraphStoreContract):
    @pytest.fixture
    async def store(self, tmp_path):
        store = SqliteGraphStore(tmp_path / "graph.db")
        yield store
        await store.close()

    @pytest.fixture
    async def second(self, store, tmp_path):
        second = SqliteGraphStore(tmp_path / "graph.db")
        yield second
        await second.close()

    def path(self, store):
        return store._connections.path

    async def set_property(self, store, ref, name, value):
        with closing(sqlite3.connect(self.path(store), isolation_level=None)) as connection:
            changed = connection.execute(
                "UPDATE node SET properties = json_set(properties, ?, ?) WHERE label = ? AND key = ?",
                (f'$."{name}"', value, ref.label, ref.key),
            )
            assert changed.rowcount == 1

    async def add_foreign(self, store, ref):
        with closing(sqlite3.connect(self.path(store), isolation_level=None)) as connection:
            names, values = json.dumps([name for name, _ in ref.identity]), json.dumps(dict(ref.identity))
            connection.execute(
                "INSERT INTO node (label, key, identity, properties) VALUES (?, ?, ?, ?)",
                (ref.label, ref.key, names, values),
            )
