"""The object stores that come with the library, against the contract that any store can run."""

from __future__ import annotations

import obstore
import pytest

from fourfold.objects.key import new_key
from fourfold.objects.store import ObjectStore, open_object_store
from fourfold.testing.objects import ObjectStoreContract


class TestFolder(ObjectStoreContract):
    @pytest.fixture
    async def store(self, tmp_path) -> ObjectStore:
        store = open_object_store((tmp_path / "a folder").as_uri())
        await store.prepare()
        return store


class TestMemory(ObjectStoreContract):
    """obstore's generic interface, as a bucket has it."""

    @pytest.fixture
    async def store(self) -> ObjectStore:
        store = open_object_store("memory:///")
        await store.prepare()
        return store

    async def test_a_bucket_that_says_that_nothing_was_deleted_is_right(self, store, monkeypatch):
        async def absent(*_):
            raise FileNotFoundError

        monkeypatch.setattr(obstore, "delete_async", absent)
        await store.delete(new_key())
