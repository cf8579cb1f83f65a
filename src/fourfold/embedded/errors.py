"""The border to `sqlite3`: what it raises becomes an error of ours, by result code, never by its text.

Which one is in the file's own table of outcomes, for codes and hints differ from file to file.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from fourfold.errors import FourfoldError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["CLOSED", "FOREIGN", "FORMAT", "NO_LOG", "REJECTED", "Outcome", "make_error", "map_error", "mapped_errors"]

Outcome = tuple[type[FourfoldError], str, str]  # class, code, hint

# Problems that SQLite has no result code for; its own are positive.
CLOSED: Final = -1  # used after it was closed
FOREIGN: Final = -2  # another application's file
FORMAT: Final = -3  # of another version
NO_LOG: Final = -4  # the file system can't hold a write-ahead log
REJECTED: Final = -5  # every result code that isn't named: a defect of ours

_PRIMARY: Final = 0xFF  # an extended result code keeps its primary one in the lowest byte (sqlite.org/rescode.html)


def make_error(problem: int, message: str, outcomes: Mapping[int, Outcome], **facts: Any) -> FourfoldError:
    """Return the error of a problem: one of the constants above, or a primary result code of SQLite."""
    kind, code, hint = outcomes.get(problem, outcomes[REJECTED])
    return kind(message, code=code, hint=hint, **facts)


def map_error(error: sqlite3.Error | sqlite3.Warning, path: Path, outcomes: Mapping[int, Outcome]) -> FourfoldError:
    """Return what to raise instead of a driver's error.

    Args:
        error: What `sqlite3` raised; one without a result code comes from the module itself (misuse).
        path: The file, for the message.
        outcomes: The file's own.

    Example:
        >>> from pathlib import Path
        >>> from fourfold.errors import StoreRejectedError, StoreUnavailableError
        >>> full = sqlite3.OperationalError()
        >>> full.sqlite_errorcode = sqlite3.SQLITE_FULL
        >>> table = {
        ...     sqlite3.SQLITE_FULL: (StoreUnavailableError, "notes.full", ""),
        ...     REJECTED: (StoreRejectedError, "", ""),
        ... }
        >>> map_error(full, Path("notes.db"), table).code
        'notes.full'
    """
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    problem = REJECTED if code is None else code & _PRIMARY
    return make_error(problem, f"{path}: SQLite answered {name}", outcomes, path=str(path), sqlite_name=name)


@contextmanager
def mapped_errors(path: Path, outcomes: Mapping[int, Outcome]) -> Iterator[None]:
    """Map what `sqlite3` raises inside.

    Raises:
        FourfoldError: As the file's outcomes say, with the original as its cause.
    """
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise map_error(error, path, outcomes) from error
