"""What the triggers of one table have to record: the border between declarations (`projection`) and triggers (`rows`).

Derived from the declarations by `projection.plan`, turned into DDL by `rows.capture`. Its hash goes into the database
with the triggers, so that start-up sees when declarations and triggers no longer belong together.
"""

from __future__ import annotations

from dataclasses import dataclass

from fourfold.projection.keys import KeyColumn

__all__ = ["CaptureSpec", "FileColumn", "ParentKey"]


@dataclass(frozen=True, slots=True)
class FileColumn:
    """A column whose values name objects; mirrored into `fourfold_object_ref` by trigger.

    `managed_only` False: the column may also hold outside paths; only values in the form of an object key (a lower-case
    UUID of 36 characters) are mirrored.
    """

    name: str
    managed_only: bool = True


@dataclass(frozen=True, slots=True)
class ParentKey:
    """A row that depends on rows of this table, named by columns of this table itself (old and new values both).

    A change of a row here appends a line for `table` with the key that `columns` spell (in the order of the parent's
    primary key), unless one of them is NULL. No trigger reads another table: it may not see what is about to commit.
    """

    table: str
    columns: tuple[KeyColumn, ...]


@dataclass(frozen=True, slots=True)
class CaptureSpec:
    """Triggers of one table.

    Args:
        table: Its name, without schema; the owner of fragments.
        schema: Its schema, None for the default one.
        key: The primary key's columns, in order.
        projected: Whether its own keys are recorded.
        watched: Columns whose change (insert and delete always) makes a line; None means every column, also ones that
            the declarations don't know.
        parents: Rows elsewhere that depend on this table's rows.
        files: Columns mirrored into `fourfold_object_ref`.
        linked: Columns whose objects were linked by `files.link`: their references go when the row goes, or when the
            column's value changes.
    """

    table: str
    key: tuple[KeyColumn, ...]
    schema: str | None = None
    projected: bool = True
    watched: tuple[str, ...] | None = None
    parents: tuple[ParentKey, ...] = ()
    files: tuple[FileColumn, ...] = ()
    linked: tuple[str, ...] = ()
