"""Opens and owns the stores, and hands out what an application works with.

`async with Fourfold(Base, Settings()) as store:` opens, installs or checks, and starts a relay; leaving the block
stops the relay after the lot in hand and closes what was opened here, never an engine that the application gave. A
target exists only if something declares it: rows and files alone make neither `graph.db` nor need numpy.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.ext.asyncio import AsyncSession

from fourfold.errors import ConfigurationError, DriftError, NotFoundError, did_you_mean
from fourfold.installation import install, installation_problems, is_new
from fourfold.integrity.run import Integrity
from fourfold.objects.collection import CollectionReport, collect
from fourfold.objects.files import Files, StoredFiles
from fourfold.projection import compile_plan, models_of
from fourfold.relay.retry import retry
from fourfold.relay.status import QuarantinedKey, RelayStatus, quarantined_keys, relay_status
from fourfold.relay.waiting import check_targets, wait_settled
from fourfold.relay.worker import Relay
from fourfold.rows.engine import read_options
from fourfold.rows.errors import mapped_errors
from fourfold.settings import Settings
from fourfold.stores import Stores, choose_embedder, open_stores
from fourfold.unit_of_work import TrackedSession, UnitOfWork, changes_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from types import TracebackType

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.errors import FourfoldError
    from fourfold.graph.sqlite import SqliteGraphStore
    from fourfold.projection.items import Value
    from fourfold.vectors.embedder import Embedder
    from fourfold.vectors.store import Hit

__all__ = ["Fourfold", "StoreStatus", "Vectors"]


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What `status` says: is everything installed as it should be, and how far behind is each target.

    Args:
        relay: Queue and targets; None when Fourfold's tables can't be read.
        problems: What is wrong with the installation.
        quarantined: Keys that failed alone.
    """

    relay: RelayStatus | None
    problems: tuple[FourfoldError, ...]
    quarantined: tuple[QuarantinedKey, ...]

    @property
    def healthy(self) -> bool:
        """True when nothing is wrong with the installation and nothing is in quarantine; lag alone is no illness."""
        return not self.problems and not self.quarantined and (self.relay is None or self.relay.declarations_match)

    @property
    def in_step(self) -> bool:
        """True only when every change that Fourfold saw has reached every target (I8)."""
        return self.healthy and self.relay is not None and self.relay.in_step


class Vectors:
    """Search by likeness."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def nearest(
        self,
        collection: str,
        query: str | Sequence[float],
        *,
        limit: int = 10,
        where: Mapping[str, Value | Sequence[Value]] | None = None,
    ) -> list[Hit]:
        """The points most like a text or a vector, best first.

        Args:
            collection: As in `Point(collection, …)`.
            query: A text to embed, or a vector of the collection's dimension.
            limit: Most hits.
            where: Payload filter: a scalar is equality, a list is membership.

        Raises:
            NotFoundError: Code `vectors.unknown_collection`.
            ConfigurationError: A text, and no embedder.
        """
        found = self._stores.collections.get(collection)
        if found is None:
            message = f"no collection {collection!r}{did_you_mean(collection, self._stores.collections)}"
            raise NotFoundError(message, code="vectors.unknown_collection", collection=collection)
        if isinstance(query, str):
            if self._stores.embedding is None:
                message = f"collection {collection!r} was asked with a text, and no embedder is configured"
                raise ConfigurationError(
                    message, code="vectors.no_embedder", hint="Set FOURFOLD_EMBEDDER, or give a vector"
                )
            [query] = await self._stores.embedding.embed([query], kind="query")
        return await found.nearest(query, limit=limit, where=where)


class Fourfold:
    """The persistence layer of one application.

    Args:
        models: A declarative base, a registry, a `MetaData`, or an iterable of mapped classes.
        settings: Where things are; default reads the environment.
        engine: The application's own async engine for the rows; must be one that `open_engine` could have made.
        projections: Declarations for classes that can't be edited.
        embedder: What embeds texts; default is the one that settings name.

    Raises:
        ConfigurationError: The declarations are wrong (all errors at once), or something they need is missing.

    Example:
        ```python
        async with Fourfold(Base, Settings()) as store:
            async with store.unit_of_work() as work:
                work.session.add(Recording(title="Opening"))
            await work.settled(timeout=5)
        ```
    """

    def __init__(
        self,
        models: Any,
        settings: Settings | None = None,
        *,
        engine: AsyncEngine | None = None,
        projections: Mapping[type, Sequence[Any]] | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.plan = compile_plan(models_of(models), extra=projections or {})
        self._embedder = choose_embedder(self.settings, embedder, self.plan)
        self._given_engine = engine
        self._stores: Stores | None = None
        self._relay: Relay | None = None
        self._relay_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open; see `open`."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; see `close`."""
        await self.close()

    async def open(self) -> None:
        """Open the stores, install or check, and start a relay when settings say so.

        Raises:
            ConfigurationError: Code `fourfold.open`, when it is open already.
            ConfigurationError: Not installed, or something else is wrong with the installation.
            DriftError: Triggers are missing, altered or switched off; the message names them.
        """
        if self._stores is not None:
            message = "this Fourfold is open already"
            raise ConfigurationError(message, code="fourfold.open", hint="Close it first, or use the one that is open")
        self._stores = await open_stores(self.settings, self.plan, engine=self._given_engine, embedder=self._embedder)
        try:
            if await self._installs():
                await install(self._stores, self.plan)
            _refuse(await installation_problems(self._stores, self.plan))
        except BaseException:
            await self.close()
            raise
        if self.settings.relay:
            self._relay = self.new_relay()
            self._relay_task = asyncio.create_task(self._relay.run(), name="fourfold-relay")

    async def _installs(self) -> bool:
        """By default a new embedded database alone: nobody's declarations are replaced by a start with other ones."""
        if self.settings.install is not None:
            return self.settings.install
        return self.engine.dialect.name == "sqlite" and await is_new(self.stores)

    async def close(self) -> None:
        """Stop the relay after the lots in hand, and close what was opened here. Safe to call twice.

        Cancelled, it doesn't wait for the lots: the relay is cancelled too, and another worker takes its keys over.
        """
        relay, task, stores = self._relay, self._relay_task, self._stores
        self._relay = self._relay_task = self._stores = None
        try:
            if relay is not None and task is not None:
                relay.stop()
                await asyncio.wait([task])  # unlike awaiting it, this keeps a cancellation of our own
        finally:
            if task is not None and not task.done():  # it must not go on over stores that are closed
                task.cancel()
                await asyncio.wait([task])
            if stores is not None:
                await stores.close()

    @property
    def stores(self) -> Stores:
        """The open stores.

        Raises:
            ConfigurationError: Code `fourfold.closed`.
        """
        if self._stores is None:
            message = "this Fourfold is not open"
            raise ConfigurationError(message, code="fourfold.closed", hint="Use `async with Fourfold(…) as store:`")
        return self._stores

    @property
    def engine(self) -> AsyncEngine:
        """The engine of the rows."""
        return self.stores.engine

    @property
    def files(self) -> StoredFiles:
        """The files, outside any unit of work: to read and to look up."""
        return StoredFiles(self.engine, self.stores.objects, self.stores.registry)

    @property
    def graph(self) -> SqliteGraphStore:
        """The graph.

        Raises:
            ConfigurationError: Code `graph.undeclared`, when no class declares a node or edge.
        """
        if self.stores.graph is None:
            message = "there is no graph: no class declares a Node or an Edge"
            raise ConfigurationError(message, code="graph.undeclared", hint="Declare one in __projections__")
        return self.stores.graph

    @property
    def vectors(self) -> Vectors:
        """Search by likeness."""
        return Vectors(self.stores)

    @property
    def integrity(self) -> Integrity:
        """Verify, repair and rebuild."""
        return Integrity(self.stores, self.plan, self.settings)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of all targets."""
        return ("files", *self.plan.targets)

    def new_relay(self, name: str = "") -> Relay:
        """A worker over the open stores, for `run` or `drain`."""
        return Relay(
            self.engine,
            self.plan,
            self.stores.deliveries(self.plan, self.settings),
            lease_seconds=self.settings.lease_seconds,
            name=name,
        )

    def _wake(self) -> None:
        if self._relay is not None:
            self._relay.wake()

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A read-only session on one snapshot; it waits for no writer."""
        reading = self.engine.execution_options(**read_options(self.engine.dialect.name))
        async with AsyncSession(reading, expire_on_commit=False) as session:
            yield session

    @contextlib.asynccontextmanager
    async def unit_of_work(self, session: AsyncSession | None = None) -> AsyncIterator[UnitOfWork]:
        """One commit for rows and files; rolled back on an exception.

        Args:
            session: Join this session instead of opening one; then its owner commits. To wait with `settled`, it must
                be made with `sync_session_class=TrackedSession`.

        Raises:
            FourfoldError: What the commit raises, mapped; the block's own exceptions pass through.
        """
        async with contextlib.AsyncExitStack() as stack:
            own = AsyncSession(self.engine, expire_on_commit=False, sync_session_class=TrackedSession)
            joined = own if session is None else session
            files = Files(joined, engine=self.engine, uploader=self.stores.uploader, registry=self.stores.registry)
            if session is None:  # else they are tidied up by collection, when the lease ends
                # The session ends before the files are tidied up: an open transaction holds the rows of their stages,
                # and releasing those under it would wait for ourselves.
                stack.push_async_callback(files.close)
                await stack.enter_async_context(own)
            yield UnitOfWork(joined, files, self.engine, self.targets, self._wake)
            if session is None:
                with mapped_errors():
                    await joined.commit()
                self._wake()

    async def settled(
        self, session: AsyncSession, targets: Collection[str] | None = None, *, timeout: float = 30.0
    ) -> None:
        """Return when what a committed session changed has reached the targets.

        Args:
            session: Made with `sync_session_class=TrackedSession`.
            targets: Names of targets; default all.
            timeout: Seconds.

        Raises:
            SettleTimeoutError: Not yet; the relay goes on.
            QuarantinedError: A key of the session can't be projected.
            NotFoundError: Code `settle.unknown_target`.
            ConfigurationError: Code `rows.not_marked`, when the session is another one.
        """
        changes = changes_of(session.sync_session)
        chosen = check_targets(targets, self.targets)
        await wait_settled(self.engine, changes, chosen, timeout=timeout, wake=self._wake)

    async def drain(self) -> None:
        """Bring every target up to date here and now; what is paused or in another worker's hands is left."""
        await self.new_relay("drain").drain()

    async def status(self) -> StoreStatus:
        """Installation, lag and quarantine."""
        problems = await installation_problems(self.stores, self.plan)
        if any(problem.code.startswith("rows.") for problem in problems):
            return StoreStatus(None, tuple(problems), ())
        relay = await relay_status(self.engine, self.plan, self.targets)
        return StoreStatus(relay, tuple(problems), tuple(await quarantined_keys(self.engine)))

    async def retry(self, *, target: str | None = None, table: str | None = None) -> int:
        """Queue quarantined keys again; returns how many."""
        queued = await retry(self.engine, target=target, table=table)
        self._wake()
        return queued

    async def collect(
        self, *, grace_seconds: float | None = None, only: Collection[str] | None = None
    ) -> CollectionReport:
        """Remove files that no row, upload or pin names; see `objects.collection.collect`."""
        report = await collect(
            self.engine,
            self.stores.stages,
            self.stores.objects,
            grace_seconds=self.settings.collection_grace_seconds if grace_seconds is None else grace_seconds,
            max_missing_share=self.settings.collection_most_missing,
            only=only,
        )
        self._wake()
        return report


def _refuse(problems: Sequence[FourfoldError]) -> None:
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    message = "; ".join(problem.message for problem in problems)
    raise DriftError(message, code=problems[0].code, hint=problems[0].hint, problems=tuple(problems))
