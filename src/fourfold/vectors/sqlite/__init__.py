"""The embedded vector store: one SQLite file in WAL mode, searched exactly with numpy after a filter in SQL.

Several processes may share the file. What was written is on disk when `write` returns. Good for some hundred thousand
points; beyond that use Qdrant. A step of a search stands in each file: `filter` compiles `where` to SQL, `search`
brings the vectors in memory up to date and looks up what was found, `matrix` (the only one to import numpy) computes.
"""

from fourfold.vectors.sqlite.store import SqliteVectorStore

__all__ = ["SqliteVectorStore"]
