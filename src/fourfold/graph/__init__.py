"""The graph: what a store promises, the pattern language, and the embedded store."""

from fourfold.graph.schema import EdgeSchema, GraphSchema, NodeSchema
from fourfold.graph.sqlite import SqliteGraphStore
from fourfold.graph.store import ForeignItem, GraphStatistics, GraphStore
from fourfold.graph.values import GraphEdge, GraphNode, GraphPath, Row

__all__ = [
    "EdgeSchema",
    "ForeignItem",
    "GraphEdge",
    "GraphNode",
    "GraphPath",
    "GraphSchema",
    "GraphStatistics",
    "GraphStore",
    "NodeSchema",
    "Row",
    "SqliteGraphStore",
]
