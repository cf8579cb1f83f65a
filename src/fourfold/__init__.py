"""Fourfold: rows in SQL are the truth; files, graph and vectors follow.

`Fourfold` opens the stores, `Settings` says where they are; `Node`, `Edge`, `EdgeList`, `ValueNode`, `Point`,
`Projection`, `File` and `LinkedFile` declare on mapped classes what rows become; `FileKey` is a column that names a file.
"""

from importlib.metadata import version

from fourfold.errors import (
    ConfigurationError,
    ConflictError,
    DriftError,
    FourfoldError,
    IntegrityError,
    NotFoundError,
    QuarantinedError,
    RevokedError,
    SettleError,
    SettleTimeoutError,
    StoreRejectedError,
    StoreUnavailableError,
    ValidationError,
)
from fourfold.fourfold import Fourfold, StoreStatus
from fourfold.projection import (
    CollectionPlan,
    Edge,
    EdgeItem,
    EdgeList,
    File,
    LinkedFile,
    Node,
    NodeItem,
    NodeRef,
    Point,
    PointItem,
    Projection,
    ValueNode,
)
from fourfold.rows.types import FileKey, JSONType, TextArray, UTCDateTime
from fourfold.settings import Settings
from fourfold.unit_of_work import TrackedSession, UnitOfWork

__all__ = [
    "CollectionPlan",
    "ConfigurationError",
    "ConflictError",
    "DriftError",
    "Edge",
    "EdgeItem",
    "EdgeList",
    "File",
    "FileKey",
    "Fourfold",
    "FourfoldError",
    "IntegrityError",
    "JSONType",
    "LinkedFile",
    "Node",
    "NodeItem",
    "NodeRef",
    "NotFoundError",
    "Point",
    "PointItem",
    "Projection",
    "QuarantinedError",
    "RevokedError",
    "Settings",
    "SettleError",
    "SettleTimeoutError",
    "StoreRejectedError",
    "StoreStatus",
    "StoreUnavailableError",
    "TextArray",
    "TrackedSession",
    "UTCDateTime",
    "UnitOfWork",
    "ValidationError",
    "ValueNode",
    "__version__",
]

__version__ = version("fourfold")
