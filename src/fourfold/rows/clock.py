"""The database's clock, as SQL: the only clock that leases, ages and order of writing are measured by.

No worker's clock decides anything, so a machine whose time jumps neither steals nor keeps a lease.
"""

from __future__ import annotations

from typing import Final

from fourfold.errors import ConfigurationError

__all__ = ["now_sql"]

# clock_timestamp(), not now(): the latter stands still within a transaction, and a lease taken late in a long one would
# begin in the past. SQLite 3.40 has no unixepoch('subsec') (3.42), a Julian day resolves about 0.05 ms; 2440587.5 is
# the Julian day of 1970-01-01. CAST, not `::`, so that the text may stand inside sqlalchemy.text().
_NOW: Final = {
    "postgresql": "CAST(EXTRACT(EPOCH FROM pg_catalog.clock_timestamp()) AS double precision)",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}


def now_sql(dialect_name: str) -> str:
    """Return an SQL expression of the seconds since 1970 (UTC, fractions included) by the database's clock.

    Args:
        dialect_name: `sqlite` or `postgresql`.

    Raises:
        ConfigurationError: Code `rows.dialect`, for any other database.

    Example:
        >>> "clock_timestamp" in now_sql("postgresql")
        True
    """
    try:
        return _NOW[dialect_name]
    except KeyError:
        message = f"no rows on {dialect_name!r}; expected 'sqlite' or 'postgresql'"
        raise ConfigurationError(message, code="rows.dialect", hint="Set DATABASE_URL to one of the two") from None
