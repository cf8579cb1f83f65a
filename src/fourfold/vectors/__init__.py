"""Vectors: collections of points that follow the rows, and what turns texts into vectors.

`store.py` and `embedder.py` are the protocols; `sqlite` is the embedded store, `embedders` what comes with the library.
Nothing here knows rows, files or the graph, and numpy and the models are imported only when they are used.
"""

from fourfold.vectors.embedder import Embedder
from fourfold.vectors.embedders import open_embedder
from fourfold.vectors.sqlite import SqliteVectorStore
from fourfold.vectors.store import CollectionSpec, Hit, VectorCollection, VectorStore

__all__ = [
    "CollectionSpec",
    "Embedder",
    "Hit",
    "SqliteVectorStore",
    "VectorCollection",
    "VectorStore",
    "open_embedder",
]
