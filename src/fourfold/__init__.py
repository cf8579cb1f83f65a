"""Fourfold: rows in SQL are the truth; files, graph and vectors follow."""

from importlib.metadata import version

__version__ = version("fourfold")
