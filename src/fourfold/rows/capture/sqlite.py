"""Capture on SQLite: three row triggers per table.

What they guarantee on any connection that fires them:

- Plain INSERTs into a queue without a unique key, in the writer's own transaction. No conflict clause anywhere: the
  outer statement's would win (`INSERT OR IGNORE` in the user's write would turn ours into that, too).
- Values are compared by IS NOT under COLLATE BINARY and by type: 1 → 1.0 and `a` → `A` under NOCASE are changes. Keys
  are compared under it too: a CAST keeps its column's collation.
- A row without a key (SQLite lets NULL into primary keys) makes no line: nothing can be its owner.
- A row that names an object which isn't stored is refused, also where `foreign_keys` is off.

Not guaranteed: what a connection without `recursive_triggers` evicts by INSERT OR REPLACE (F17: verify finds it), and a
cascade on a connection without `foreign_keys`. With `watched=None` every UPDATE of a row makes a line, changed or not:
a trigger lists columns, and one that is added later would be missed.

Pure: a `CaptureSpec` becomes texts. `install` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Final

from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey
from fourfold.projection.keys import KeyColumn
from fourfold.rows.capture.keys import key_expression, key_parts_present
from fourfold.rows.capture.quoting import identifier, literal
from fourfold.rows.clock import now_sql
from fourfold.rows.errors import OBJECT_UNKNOWN

__all__ = ["SqliteCapture"]

_EVENTS: Final = ("insert", "update", "delete")
# The form of a UUID: GLOB has no counts.
_HEX: Final = "[0-9a-f]"
_OBJECT_KEY_FORM: Final = "-".join(_HEX * length for length in (8, 4, 4, 4, 12))


@dataclass(frozen=True)
class SqliteCapture:
    """The texts of one table's capture."""

    spec: CaptureSpec

    @property
    def table(self) -> str:
        """The table's quoted name."""
        return identifier(self.spec.table)

    def trigger_name(self, event: str) -> str:
        """Name of the trigger of `insert`, `update` or `delete`; triggers share one space of names per database."""
        return f"fourfold_{self.spec.table}_{event}"

    @cached_property
    def triggers(self) -> dict[str, str]:
        """Statements by trigger name, as sqlite_master shows them."""
        bodies = {"insert": self._inserted(), "update": self._updated(), "delete": self._deleted()}
        return {self.trigger_name(event): self._trigger(event, body) for event, body in bodies.items() if body}

    @cached_property
    def coarse_triggers(self) -> dict[str, str]:
        """As `triggers`, during a migration: they name no column, and any write marks the table for resync.

        Twenty lines are looked back for a mark: one that stands there is not dispatched yet, and can't be before this
        transaction, the database's only writer, has committed.
        """
        tables = list(dict.fromkeys([self.spec.table, *(parent.table for parent in self.spec.parents)]))
        marks = [
            f"INSERT INTO fourfold_change (table_name, keys, kind, created_at)"
            f" SELECT {_text(table)}, '[]', 'resync', {_NOW} WHERE NOT EXISTS (SELECT 1 FROM"
            f" (SELECT table_name, kind FROM fourfold_change ORDER BY id DESC LIMIT 20) AS c"
            f" WHERE c.table_name = {_text(table)} AND c.kind = 'resync');"
            for table in tables
        ]
        return {self.trigger_name(event): self._trigger(event, marks) for event in _EVENTS}

    @cached_property
    def body_hash(self) -> str:
        """Hash of all that is installed; another one means: install again."""
        return blake2b("\n".join(self.triggers.values()).encode(), digest_size=16).hexdigest()

    def drop_triggers(self) -> list[str]:
        """Return the statements that remove the triggers."""
        return [f"DROP TRIGGER IF EXISTS {identifier(self.trigger_name(event))}" for event in _EVENTS]

    def _trigger(self, event: str, body: list[str]) -> str:
        name = identifier(self.trigger_name(event))
        statements = "\n".join(body)
        return f"CREATE TRIGGER {name} AFTER {event.upper()} ON {self.table} FOR EACH ROW BEGIN\n{statements}\nEND"

    # --------------------------------------------------------------------------------------------------- lines

    def _inserted(self) -> list[str]:
        body = [self._own_line("NEW")] if self.spec.projected else []
        body += [self._parent_line(parent, "NEW") for parent in self.spec.parents]
        for column in self.spec.files:
            # A key that comes back after an eviction that nobody saw may still have its old reference.
            body += [self._unreference(column.name, "NEW"), *self._reference(column)]
        return body

    def _deleted(self) -> list[str]:
        body = [self._own_line("OLD")] if self.spec.projected else []
        body += [self._parent_line(parent, "OLD") for parent in self.spec.parents]
        return body + [
            self._unreference(name, "OLD") for name in (*(c.name for c in self.spec.files), *self.spec.linked)
        ]

    def _updated(self) -> list[str]:
        body = []
        old_key, new_key = self._key("OLD"), self._key("NEW")
        moved = f"{old_key} IS NOT {new_key} COLLATE BINARY"
        if self.spec.projected:
            either, other = f"coalesce({new_key}, {old_key})", f"coalesce({old_key}, {new_key})"
            keys = f"CASE WHEN {moved} THEN json_array({either}, {other}) ELSE json_array({new_key}) END"
            changed = f"{self._changed(self.spec.watched, moved)} AND {either} IS NOT NULL"
            body.append(_line(self.spec.table, keys, changed, is_array=True))
        for parent in self.spec.parents:
            columns = [column.name for column in parent.columns]
            watched = None if self.spec.watched is None else (*self.spec.watched, *columns)
            changed = self._changed(watched, moved)
            before, after = _key_of(parent.columns, "OLD"), _key_of(parent.columns, "NEW")
            body.append(_line(parent.table, after, f"{changed} AND {_present(parent.columns, 'NEW')}"))
            other = f"({key_parts_present(parent.columns, 'NEW')}) IS NOT 1 OR {before} <> {after} COLLATE BINARY"
            body.append(_line(parent.table, before, f"{changed} AND {_present(parent.columns, 'OLD')} AND ({other})"))
        for file in self.spec.files:
            changed = f"({moved} OR {_differs(file.name)})"
            body += [self._unreference(file.name, "OLD", changed), *self._reference(file, changed)]
        body += [self._unreference(name, "OLD", f"({moved} OR {_differs(name)})") for name in self.spec.linked]
        return body

    def _changed(self, watched: tuple[str, ...] | None, moved: str) -> str:
        if watched is None:
            return "1"
        return "(" + " OR ".join([moved, *map(_differs, dict.fromkeys(watched))]) + ")"

    def _own_line(self, row: str) -> str:
        return _line(self.spec.table, self._key(row), f"{self._key(row)} IS NOT NULL")

    # --------------------------------------------------------------------------------------------------- files

    def _reference(self, column: FileColumn, condition: str = "1") -> list[str]:
        value = f"NEW.{identifier(column.name)}"
        names_one = f"{condition} AND {value} IS NOT NULL"
        if not column.managed_only:
            names_one += f" AND {value} GLOB '{_OBJECT_KEY_FORM}'"
        refuse = (
            f"SELECT RAISE(ABORT, {_text(OBJECT_UNKNOWN)}) WHERE {names_one}"
            f" AND NOT EXISTS (SELECT 1 FROM fourfold_object AS o WHERE o.key = {value});"
        )
        mirror = (
            "INSERT INTO fourfold_object_ref (table_name, row_key, column_name, object_key)"
            f" SELECT {_text(self.spec.table)}, {self._key('NEW')}, {_text(column.name)}, {value} WHERE {names_one};"
        )
        return [refuse, mirror]

    def _unreference(self, column: str, row: str, condition: str = "1") -> str:
        return (
            f"DELETE FROM fourfold_object_ref WHERE table_name = {_text(self.spec.table)}"
            f" AND row_key = {self._key(row)} AND column_name = {_text(column)} AND {condition};"
        )

    # --------------------------------------------------------------------------------------------------- parts

    def _key(self, row: str) -> str:
        return key_expression(self.spec.key, "sqlite", row)

    @staticmethod
    def _parent_line(parent: ParentKey, row: str) -> str:
        return _line(parent.table, _key_of(parent.columns, row), _present(parent.columns, row))


_NOW: Final = now_sql("sqlite")


def _key_of(columns: tuple[KeyColumn, ...], row: str) -> str:
    return key_expression(columns, "sqlite", row)


def _present(columns: tuple[KeyColumn, ...], row: str) -> str:
    return f"({key_parts_present(columns, row)})"


def _line(table: str, keys: str, condition: str, *, is_array: bool = False) -> str:
    array = keys if is_array else f"json_array({keys})"
    return (
        f"INSERT INTO fourfold_change (table_name, keys, created_at)"
        f" SELECT {_text(table)}, {array}, {_NOW} WHERE {condition};"
    )


def _differs(name: str) -> str:
    column = identifier(name)
    return f"OLD.{column} IS NOT NEW.{column} COLLATE BINARY OR typeof(OLD.{column}) <> typeof(NEW.{column})"


def _text(value: str) -> str:
    return literal(value, "sqlite")
