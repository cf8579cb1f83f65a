"""Fourfold: rows in SQL are the truth; files, graph and vectors follow.

`Fourfold` opens the stores, `Settings` says where they are; `Node`, `Edge`, `EdgeList`, `ValueNode`, `Point`,
`Projection`, `File` and `LinkedFile` declare on mapped classes what rows become; `FileKey` is a column naming a file.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

# Imported when first asked for: `fourfold --help`, and who needs the errors alone, shouldn't wait for SQLAlchemy.
_HOMES = {
    "CollectionPlan": "fourfold.projection",
    "ConfigurationError": "fourfold.errors",
    "ConflictError": "fourfold.errors",
    "DriftError": "fourfold.errors",
    "Edge": "fourfold.projection",
    "EdgeItem": "fourfold.projection",
    "EdgeList": "fourfold.projection",
    "File": "fourfold.projection",
    "FileKey": "fourfold.rows.types",
    "Fourfold": "fourfold.fourfold",
    "FourfoldError": "fourfold.errors",
    "IntegrityError": "fourfold.errors",
    "JSONType": "fourfold.rows.types",
    "LinkedFile": "fourfold.projection",
    "Node": "fourfold.projection",
    "NodeItem": "fourfold.projection",
    "NodeRef": "fourfold.projection",
    "NotFoundError": "fourfold.errors",
    "Point": "fourfold.projection",
    "PointItem": "fourfold.projection",
    "Projection": "fourfold.projection",
    "QuarantinedError": "fourfold.errors",
    "RevokedError": "fourfold.errors",
    "Settings": "fourfold.settings",
    "SettleError": "fourfold.errors",
    "SettleTimeoutError": "fourfold.errors",
    "StoreRejectedError": "fourfold.errors",
    "StoreStatus": "fourfold.fourfold",
    "StoreUnavailableError": "fourfold.errors",
    "TextArray": "fourfold.rows.types",
    "TrackedSession": "fourfold.unit_of_work",
    "UTCDateTime": "fourfold.rows.types",
    "UnitOfWork": "fourfold.unit_of_work",
    "ValidationError": "fourfold.errors",
    "ValueNode": "fourfold.projection",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
