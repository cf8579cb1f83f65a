"""Declarations → plan → fragments: what rows become, as a pure function of the rows."""

from __future__ import annotations

from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey
from fourfold.projection.declarations import (
    CollectionPlan,
    Declaration,
    Edge,
    EdgeList,
    File,
    LinkedFile,
    Node,
    Point,
    Projection,
    ValueNode,
)
from fourfold.projection.items import (
    EdgeItem,
    Fragment,
    GraphFragment,
    NodeItem,
    NodeRef,
    Owner,
    OwnerDigest,
    PointFragment,
    PointItem,
    Scalar,
    Value,
)
from fourfold.projection.keys import KeyCodec, KeyColumn
from fourfold.projection.models import models_of
from fourfold.projection.plan import Dependent, Plan, TablePlan, compile_plan
from fourfold.projection.target import Target, WriteResult

__all__ = [
    "CaptureSpec",
    "CollectionPlan",
    "Declaration",
    "Dependent",
    "Edge",
    "EdgeItem",
    "EdgeList",
    "File",
    "FileColumn",
    "Fragment",
    "GraphFragment",
    "KeyCodec",
    "KeyColumn",
    "LinkedFile",
    "Node",
    "NodeItem",
    "NodeRef",
    "Owner",
    "OwnerDigest",
    "ParentKey",
    "Plan",
    "Point",
    "PointFragment",
    "PointItem",
    "Projection",
    "Scalar",
    "TablePlan",
    "Target",
    "Value",
    "ValueNode",
    "WriteResult",
    "compile_plan",
    "models_of",
]
