"""Runs a statement as it stands: names may hold `:` and `%`, which mean parameters to SQLAlchemy and psycopg."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

__all__ = ["run_verbatim"]


def run_verbatim(connection: sa.Connection, statement: str) -> sa.CursorResult[Any]:
    """Run `statement`, whose names and texts have passed `quoting`; it takes no parameters."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
