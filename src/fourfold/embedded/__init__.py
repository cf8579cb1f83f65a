"""SQLite files of our own beside the rows: what `graph.db` and `vectors.db` have in common.

`file` opens one and checks whose it is, `connections` runs jobs on it in threads, `errors` maps what SQLite raises.
Nothing here knows what is in a file: that is its `FileKind`, made by the package it belongs to.
"""

from fourfold.embedded.connections import Connections
from fourfold.embedded.errors import CLOSED, FOREIGN, FORMAT, NO_LOG, REJECTED, Outcome, map_error
from fourfold.embedded.file import SYNCHRONOUS, FileKind, open_file

__all__ = [
    "CLOSED",
    "FOREIGN",
    "FORMAT",
    "NO_LOG",
    "REJECTED",
    "SYNCHRONOUS",
    "Connections",
    "FileKind",
    "Outcome",
    "map_error",
    "open_file",
]
