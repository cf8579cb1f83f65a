"""What the contract suite doesn't say of the embedded store: its file, its errors, its memory."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest

from fourfold import embedded, faultpoints
from fourfold.embedded import file as embedded_file
from fourfold.embedded import open_file
from fourfold.errors import (
    ConfigurationError,
    FourfoldError,
    IntegrityError,
    RevokedError,
    StoreRejectedError,
    StoreUnavailableError,
    ValidationError,
)
from fourfold.projection.items import Owner, PointFragment, PointItem
from fourfold.vectors import CollectionSpec, SqliteVectorStore
from fourfold.vectors.sqlite.file import VECTORS_FILE
from fourfold.vectors.sqlite.search import Search

SPEC = CollectionSpec("songs", "given", 2, ("genre", "text"))


def fragment(key, *vectors, **payload):
    points = tuple(PointItem(vector, None, payload) for vector in vectors)
    return PointFragment(Owner("songs", str(key)), "songs", points)


def keys(hits):
    return [hit.owner.key for hit in hits]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vectors.db"


@pytest.fixture
async def store(path):
    store = SqliteVectorStore(path)
    yield store
    await store.close()


@pytest.fixture
async def songs(store):
    collection = await store.ensure_collection(SPEC)
    await collection.create_token(1)
    return collection


@pytest.fixture
async def elsewhere(path, songs):
    """The same collection as another process sees it."""
    store = SqliteVectorStore(path)
    yield await store.ensure_collection(SPEC)
    await store.close()


@pytest.fixture
def hooks():
    yield faultpoints.set_hooks
    faultpoints.set_hooks(None)


# --- the border


def map_error(error):
    return embedded.map_error(error, Path("v.db"), VECTORS_FILE.outcomes)


def test_every_driver_error_and_code_is_mapped():
    classes = [sqlite3.Error]
    for kind in classes:
        classes += kind.__subclasses__()
        assert isinstance(map_error(kind("secret")), FourfoldError)
    codes = {value for name, value in vars(sqlite3).items() if name.startswith("SQLITE_") and isinstance(value, int)}
    for code in codes:
        error = sqlite3.OperationalError("secret")
        error.sqlite_errorcode, error.sqlite_errorname = code, "NAME"
        assert "secret" not in str(map_error(error))


@pytest.mark.parametrize(
    ("code", "kind", "ours"),
    [
        (sqlite3.SQLITE_FULL, StoreUnavailableError, "vectors.full"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreUnavailableError, "vectors.busy"),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailableError, "vectors.io"),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailableError, "vectors.io"),
        (sqlite3.SQLITE_CORRUPT_VTAB, IntegrityError, "vectors.corrupt"),
        (sqlite3.SQLITE_NOTADB, IntegrityError, "vectors.corrupt"),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnavailableError, "vectors.read_only"),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, StoreRejectedError, "vectors.rejected"),
    ],
)
def test_codes_map_by_what_the_caller_does(code, kind, ours):
    error = sqlite3.DatabaseError()
    error.sqlite_errorcode, error.sqlite_errorname = code, "NAME"
    mapped = map_error(error)
    assert (type(mapped), mapped.code) == (kind, ours)


async def test_busy_file_is_unavailable_and_works_afterwards(path, songs, monkeypatch):
    monkeypatch.setattr(embedded_file, "BUSY_SECONDS", 0.01)
    impatient = SqliteVectorStore(path)
    collection = await impatient.ensure_collection(SPEC)
    with sqlite3.connect(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError) as caught:
            await collection.write(1, [fragment(1, (1.0, 0.0))])
        assert caught.value.code == "vectors.busy"
        assert await collection.count() == 0  # readers don't wait for writers
        other.execute("ROLLBACK")
    other.close()
    assert (await collection.write(1, [fragment(1, (1.0, 0.0))])).written == 1
    await impatient.close()


async def test_file_that_is_no_database_is_reported_as_damaged(path):
    path.write_bytes(b"not a database, by any reading of it" * 100)
    store = SqliteVectorStore(path)
    with pytest.raises(IntegrityError) as caught:
        await store.ensure_collection(SPEC)
    assert caught.value.code == "vectors.corrupt"
    await store.close()


async def test_missing_folder_is_unavailable(tmp_path):
    store = SqliteVectorStore(tmp_path / "nowhere" / "vectors.db")
    with pytest.raises(StoreUnavailableError, match="SQLITE_CANTOPEN"):
        await store.ensure_collection(SPEC)
    await store.close()


async def test_newer_format_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {VECTORS_FILE.application_id}")
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    store = SqliteVectorStore(path)
    with pytest.raises(ConfigurationError, match=r"format 99.*format 1"):
        await store.ensure_collection(SPEC)
    await store.close()
    assert path.read_bytes() == before


async def test_file_of_another_application_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    connection.close()
    before = path.read_bytes()
    store = SqliteVectorStore(path)
    with pytest.raises(ConfigurationError) as caught:
        await store.ensure_collection(SPEC)
    assert caught.value.code == "vectors.foreign_file"
    await store.close()
    assert path.read_bytes() == before


def test_unknown_synchronous_gets_a_did_you_mean(path):
    with pytest.raises(ConfigurationError, match="did you mean 'FULL'"):
        SqliteVectorStore(path, synchronous="ful")


def test_without_numpy_the_extra_is_named(path, monkeypatch):
    for module in ("search", "matrix"):
        monkeypatch.delitem(sys.modules, f"fourfold.vectors.sqlite.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fourfold\[vectors\]'"):
        SqliteVectorStore(path)


async def test_closed_store_says_so(store, songs):
    await store.close()
    with pytest.raises(StoreUnavailableError) as caught:
        await songs.count()
    assert (caught.value.code, caught.value.retryable) == ("vectors.closed", True)  # no key is to blame for it


@pytest.mark.parametrize(
    "spec", [CollectionSpec("", "m", 2), CollectionSpec("a\n", "m", 2), CollectionSpec("a", "m", 0)]
)
async def test_bad_collections_are_refused(store, spec):
    with pytest.raises(ValidationError) as caught:
        await store.ensure_collection(spec)
    assert caught.value.code == "vectors.spec"


async def test_other_payload_fields_replace_the_declared_and_filter_what_is_there(store, songs):
    await songs.write(1, [fragment(1, (1.0, 0.0), mood="late")])
    wider = await store.ensure_collection(CollectionSpec("songs", "given", 2, ("mood",)))
    assert keys(await wider.nearest((1.0, 0.0), where={"mood": "late"})) == ["1"]
    assert [spec.payload async for spec in store.collections()] == [("mood",)]


async def test_fragment_for_another_collection_is_refused(songs):
    with pytest.raises(ValidationError, match="'faces'"):
        await songs.write(1, [PointFragment(Owner("songs", "1"), "faces", ())])


async def test_vector_of_texts_is_refused(songs):
    with pytest.raises(ValidationError, match="songs:1"):
        await songs.write(1, [fragment(1, ("1", "0"))])


# --- crash points


async def test_worker_that_sleeps_before_its_write_is_fenced_f07(songs, hooks):
    reached, woken = asyncio.Event(), asyncio.Event()

    async def sleep_before_write(name):
        if name == "vectors.before_write":
            reached.set()
            await woken.wait()

    hooks(sleep_before_write)
    late = asyncio.create_task(songs.write(1, [fragment(1, (1.0, 0.0))]))
    await reached.wait()
    await songs.revoke_tokens([1])
    woken.set()
    with pytest.raises(RevokedError):
        await late
    assert await songs.count() == 0


async def test_failure_before_the_commit_leaves_nothing(songs, hooks):
    def fail(name):
        if name == "vectors.before_commit":
            raise ZeroDivisionError

    hooks(None, fail)
    with pytest.raises(ZeroDivisionError):
        await songs.write(1, [fragment(1, (1.0, 0.0), genre="dub")])
    hooks(None)
    assert await songs.count() == 0
    assert (await songs.write(1, [fragment(1, (1.0, 0.0), genre="dub")])).written == 1


async def test_answer_lost_after_the_commit_is_a_replay_f13(songs, hooks):
    async def fail(name):
        if name == "vectors.after_commit":
            raise ZeroDivisionError

    hooks(fail)
    with pytest.raises(ZeroDivisionError):
        await songs.write(1, [fragment(1, (1.0, 0.0))])
    hooks(None)
    assert (await songs.write(1, [fragment(1, (1.0, 0.0))])).unchanged == 1


# --- memory


async def test_another_process_sees_what_was_written_replaced_and_removed(songs, elsewhere):
    await songs.write(1, [fragment(n, (1.0, n / 10)) for n in range(10)])
    assert keys(await elsewhere.nearest((1.0, 0.0), limit=3)) == ["0", "1", "2"]
    await songs.write(1, [fragment(0), fragment(1, (-1.0, 0.0)), fragment("new", (1.0, 0.01))])
    assert keys(await elsewhere.nearest((1.0, 0.0), limit=3)) == ["new", "2", "3"]
    assert keys(await elsewhere.nearest((-1.0, 0.0), limit=1)) == ["1"]


async def test_memory_is_cleared_of_points_that_went(songs, elsewhere):
    everything = range(1000)
    await songs.write(1, [fragment(n, (1.0, n / 1000), genre="dub") for n in everything])
    await elsewhere.nearest((1.0, 0.0))
    full = elsewhere.statistics()["memory_bytes"]
    await songs.write(1, [fragment(n) for n in range(990)])
    assert keys(await elsewhere.nearest((1.0, 0.0), limit=3, where={"genre": "dub"})) == ["990", "991", "992"]
    assert elsewhere.statistics()["memory_bytes"] * 10 <= full
    await songs.write(1, [fragment(n) for n in everything])
    assert await elsewhere.nearest((1.0, 0.0)) == []


async def test_few_points_that_went_never_shorten_an_answer(songs, elsewhere):
    await songs.write(1, [fragment(n, (1.0, n / 1000), genre="dub") for n in range(100)])
    await elsewhere.nearest((1.0, 0.0))
    await songs.write(1, [fragment(n) for n in range(50)])
    for where in (None, {"genre": "dub"}):
        assert keys(await elsewhere.nearest((1.0, 0.0), limit=3, where=where)) == ["50", "51", "52"]


async def test_searches_at_once_while_another_writes_agree_with_some_state(songs, elsewhere):
    await songs.write(1, [fragment("kept", (0.0, 1.0)), fragment("moves", (1.0, 0.0))])

    async def move():
        for n in range(40):
            await songs.write(1, [fragment("moves", (1.0, n / 1000))])

    async def search():
        return [keys(await elsewhere.nearest((1.0, 0.0))) for _ in range(40)]

    _, *found = await asyncio.gather(move(), search(), search(), search())
    assert all(each == ["moves", "kept"] for part in found for each in part)


async def test_snapshot_older_than_memory_is_taken_anew(path, songs):
    await songs.write(1, [fragment(n, (1.0, n / 1000)) for n in range(200)])
    searching = Search(1, SPEC)
    old, new = (open_file(path, VECTORS_FILE, synchronous="FULL", read_only=True) for _ in range(2))
    for connection in (old, new):
        connection.execute("BEGIN")
    assert len(searching.nearest(old, (1.0, 0.0), 200, None)) == 200  # its snapshot is fixed by now
    await songs.write(1, [fragment(n) for n in range(199)])
    assert keys(searching.nearest(new, (1.0, 0.0), 200, None)) == ["199"]  # memory is cleared of the others
    assert keys(searching.nearest(old, (1.0, 0.0), 200, None)) == ["199"]
    for connection in (old, new):
        connection.close()


async def test_generation_that_went_back_is_read_from_the_start(path, songs):
    await songs.write(1, [fragment(1, (1.0, 0.0))])
    await songs.write(1, [fragment(2, (0.0, 1.0))])
    assert keys(await songs.nearest((1.0, 0.0))) == ["1", "2"]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE collection SET generation = 1")
    connection.close()
    assert keys(await songs.nearest((1.0, 0.0))) == ["1", "2"]


async def test_file_out_of_wal_mode_is_put_back(path, store, songs):
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    open_file(path, VECTORS_FILE, synchronous="FULL", read_only=True).close()
    assert path.read_bytes()[18] == 2  # the write version in the header: WAL


async def test_damaged_vector_names_its_owner_until_it_is_written_again(path, songs):
    await songs.write(1, [fragment(1, (1.0, 0.0)), fragment(2, (0.0, 1.0))])
    for damage in (b"\x00", b"\xff" * 8):  # cut, and NaN
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE point SET vector = ? WHERE id = (SELECT max(id) FROM point)", (damage,))
        connection.close()
        reader = SqliteVectorStore(path)
        collection = await reader.ensure_collection(SPEC)
        with pytest.raises(IntegrityError, match="songs:2"):
            await collection.nearest((1.0, 0.0))
        await songs.write(1, [fragment(1, (1.0, 0.0)), fragment(2, (0.0, 1.0))])
        assert keys(await collection.nearest((1.0, 0.0))) == ["1", "2"]
        await reader.close()


async def test_damaged_payload_is_unlike_any_digest_and_named_by_a_search(path, songs):
    right = fragment(1, (1.0, 0.0), genre="dub")
    await songs.write(1, [right])
    for damage in ("{", "[]"):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE point SET payload = ?", (damage,))
        connection.close()
        assert (await songs.read_owners([right.owner]))[right.owner] != right.digest
        with pytest.raises(IntegrityError, match="songs:1"):
            await songs.nearest((1.0, 0.0))
        assert (await songs.write(1, [right])).written == 1
        assert keys(await songs.nearest((1.0, 0.0), where={"genre": "dub"})) == ["1"]


async def test_long_texts_are_compared_whole(songs):
    page = "x" * 5000
    await songs.write(1, [fragment(1, (1.0, 0.0), text=page + "a"), fragment(2, (1.0, 0.0), text=page + "b")])
    assert keys(await songs.nearest((1.0, 0.0), where={"text": page + "b"})) == ["2"]


async def test_too_many_values_are_refused_before_sqlite_does(songs):
    with pytest.raises(ValidationError, match="10001 values"):
        await songs.nearest((1.0, 0.0), where={"genre": list(range(10_001))})
    assert await songs.nearest((1.0, 0.0), where={"genre": list(range(10_000))}) == []


async def test_extreme_lengths_keep_their_direction(songs):
    huge, tiny = 3e38, 1e-40
    await songs.write(
        1, [fragment("huge", (huge, huge)), fragment("tiny", (tiny, 0.0)), fragment("minus", (-tiny, tiny))]
    )
    hits = await songs.nearest((1e-300, 0.0))
    assert keys(hits) == ["tiny", "huge", "minus"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.5**0.5, -(0.5**0.5)], abs=1e-4)
