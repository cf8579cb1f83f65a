"""What the embedded graph and the embedded vectors have in common: a file, its connections, its problems."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from fourfold.embedded import CLOSED, FOREIGN, FORMAT, NO_LOG, REJECTED, Connections, open_file
from fourfold.errors import ConfigurationError, FourfoldError, StoreUnavailableError
from fourfold.graph.sqlite_file import GRAPH_FILE
from fourfold.vectors.sqlite.file import VECTORS_FILE

KINDS = {"graph": GRAPH_FILE, "vectors": VECTORS_FILE}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
async def connections(tmp_path, kind):
    opened = Connections(tmp_path / "some.db", kind, "FULL")
    yield opened
    await opened.close()


def test_every_problem_has_an_outcome_in_its_own_files_words(kind):
    area = next(name for name, known in KINDS.items() if known is kind)
    assert {CLOSED, FOREIGN, FORMAT, NO_LOG, REJECTED} <= kind.outcomes.keys()
    assert {code.partition(".")[0] for _, code, _ in kind.outcomes.values()} == {area}
    assert all(issubclass(error, FourfoldError) and hint for error, _, hint in kind.outcomes.values())


def test_both_files_name_the_same_problems():
    assert GRAPH_FILE.outcomes.keys() == VECTORS_FILE.outcomes.keys()


def test_a_file_system_without_a_write_ahead_log_is_refused(tmp_path, kind, monkeypatch):
    class WithoutLog(sqlite3.Connection):
        def execute(self, sql, *values):
            return super().execute("SELECT 'delete'" if sql == "PRAGMA journal_mode = WAL" else sql, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *values, **options: connect(*values, **options, factory=WithoutLog))
    with pytest.raises(ConfigurationError, match="refuses a write-ahead log"):
        open_file(tmp_path / "some.db", kind, synchronous="FULL", read_only=False)


async def test_a_failed_write_holds_no_lock_however_long_its_error_lives(connections, tmp_path):
    """SQLite closes for good only when the last statement is gone, and the error names the one that is half read."""

    def breaks_while_reading(connection):
        connection.execute("CREATE TABLE mine (id INTEGER PRIMARY KEY)")
        half_read = connection.execute("INSERT INTO mine VALUES (NULL), (NULL) RETURNING id")
        half_read.fetchone()
        connection.execute("no SQL")

    with pytest.raises(FourfoldError) as kept:
        await connections.write(breaks_while_reading)
    other = sqlite3.connect(tmp_path / "some.db", timeout=0, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.close()
    assert kept.value.__cause__ is not None


async def test_a_write_that_fails_is_rolled_back_and_the_next_one_works(connections):
    def broken(connection):
        connection.execute("PRAGMA user_version = 7")
        connection.execute("no SQL")

    with pytest.raises(ZeroDivisionError):
        await connections.write(lambda connection: [connection.execute("CREATE TABLE mine (id)"), 1 / 0])
    with pytest.raises(FourfoldError, match="SQLITE_ERROR"):
        await connections.write(broken)
    count = "SELECT count(*) FROM sqlite_schema WHERE name = 'mine'"
    assert await connections.write(lambda connection: connection.execute(count).fetchone()) == (0,)
    assert await connections.read(lambda connection: connection.execute("PRAGMA user_version").fetchone()) == (1,)


async def test_a_reader_sees_one_snapshot_and_writes_nothing(connections):
    def look(connection):
        count = "SELECT count(*) FROM sqlite_schema"
        before = connection.execute(count).fetchone()
        asyncio.run_coroutine_threadsafe(connections.write(make), loop).result(30)
        return before == connection.execute(count).fetchone()

    def make(connection):
        connection.execute("CREATE TABLE mine (id)")

    loop = asyncio.get_running_loop()
    assert await connections.read(look)
    with pytest.raises(FourfoldError, match="SQLITE_READONLY"):
        await connections.read(lambda connection: connection.execute("DROP TABLE mine"))


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000000) SELECT count(*) FROM n"


async def test_a_stoppable_read_ends_with_its_caller_also_while_it_waits_for_a_thread(connections):
    begun = threading.Semaphore(0)

    def endless(connection):
        begun.release()
        connection.execute(ENDLESS).fetchone()

    running = [asyncio.create_task(connections.read(endless, stoppable=True)) for _ in range(4)]
    for _ in running:
        await asyncio.to_thread(begun.acquire)
    waiting = [asyncio.create_task(connections.read(endless, stoppable=True)) for _ in range(4)]
    await asyncio.sleep(0)
    for task in [*waiting, *running]:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*waiting, *running, return_exceptions=True)
    )
    assert await connections.read(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)


async def test_a_caller_that_goes_before_the_statement_begins_stops_it_too(connections):
    inside, go_on, stopped = threading.Event(), threading.Event(), threading.Event()

    def endless(connection):
        inside.set()
        go_on.wait(30)
        try:
            connection.execute(ENDLESS).fetchone()
        except sqlite3.OperationalError:
            stopped.set()
            raise

    task = asyncio.create_task(connections.read(endless, stoppable=True))
    await asyncio.to_thread(inside.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await asyncio.to_thread(stopped.wait, 30)


async def test_a_read_that_is_not_stoppable_runs_to_its_end(connections):
    inside, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def job(connection):
        inside.set()
        go_on.wait(30)
        connection.execute("SELECT 1").fetchone()
        done.set()

    task = asyncio.create_task(connections.read(job))
    await asyncio.to_thread(inside.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await asyncio.to_thread(done.wait, 30)


async def test_after_close_nothing_runs_and_no_log_stays(connections):
    await connections.write(lambda connection: connection.execute("CREATE TABLE mine (id)"))
    await connections.read(lambda _: None)
    await connections.close()
    await connections.close()
    for call in (connections.read, connections.write):
        with pytest.raises(StoreUnavailableError, match="was closed"):
            await call(lambda _: None)
    assert [path.name for path in connections.path.parent.iterdir()] == ["some.db"]
