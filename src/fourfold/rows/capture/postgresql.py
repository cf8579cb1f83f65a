"""Capture on PostgreSQL: one trigger function per table, four statement triggers on the table and on each partition.

What a function guarantees, whoever writes and in whatever session:

- It runs as the migrating role (SECURITY DEFINER): writers need no right on the queue, and have none (S10).
- Names are qualified and `search_path` is fixed: nobody can put a table or function of his own in the way (S11).
- One line per statement and thousand keys, by plain INSERT into the queue: no key of it is unique, so writers wait for
  each other nowhere (F10), and a statement of no rows writes none.
- A row without a key (a table may lack the constraint that its class declares) makes no line: nothing can be its owner.
- Old and new rows are compared as text, key by key. So 1.0 → 1.00 is a change, `json` (which has no `=`) can be
  compared, and of rows that swapped their keys both are.
- `fourfold.first_change`, a setting local to the transaction, holds the id of its first line (see `rows.changes`).

Pure: a `CaptureSpec` becomes texts. `install` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Final

from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey
from fourfold.rows.capture.keys import key_expression, key_parts_present
from fourfold.rows.capture.quoting import dollar_quoted, identifier, literal, qualified
from fourfold.rows.changes import KEYS_PER_LINE
from fourfold.rows.clock import now_sql

__all__ = ["FUNCTION_SETTINGS", "TRIGGER_TYPES", "PostgresqlCapture"]

# As pg_proc.proconfig shows them. The first closes S11, then come those that make the text image of a row the same in
# every session. Compiling the comparison of an UPDATE took longer than the comparison (340 ms of 890 for 100,000 rows).
FUNCTION_SETTINGS: Final = {
    "search_path": "pg_catalog, pg_temp",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "jit": "off",
}
# With files the function looks references up by key. Its plans are made once per session, perhaps while the table of
# references was small, and must not stay a scan when it has grown to millions.
_INDEX_ONLY: Final = {"enable_seqscan": "off"}

TRIGGER_TYPES: Final = {  # pg_trigger.tgtype of AFTER … FOR EACH STATEMENT
    "fourfold_insert": 4,
    "fourfold_delete": 8,
    "fourfold_update": 16,
    "fourfold_truncate": 32,
}
_EVENTS: Final = {
    "fourfold_insert": "AFTER INSERT ON {table} REFERENCING NEW TABLE AS fourfold_new",
    "fourfold_delete": "AFTER DELETE ON {table} REFERENCING OLD TABLE AS fourfold_old",
    "fourfold_update": "AFTER UPDATE ON {table} REFERENCING OLD TABLE AS fourfold_old NEW TABLE AS fourfold_new",
    "fourfold_truncate": "AFTER TRUNCATE ON {table}",
}

# Joined on the key's text, in full: a full join can't be planned as a nested loop, so a plan that was kept from a
# statement of one row stays linear for one of a million.
_PAIRS: Final = """\
(SELECT {old_columns} FROM fourfold_old AS r) AS o
FULL JOIN (SELECT {new_columns} FROM fourfold_new AS r) AS n ON o.fourfold_key = n.fourfold_key"""

_LINES: Final = """\
WITH dirty AS (
{keys}
), line AS (
INSERT INTO {change} (table_name, keys, transaction_id, created_at)
SELECT {table}, pg_catalog.array_agg(numbered.fourfold_key), CAST(pg_catalog.pg_current_xact_id() AS text), {now}
FROM (SELECT dirty.fourfold_key, (pg_catalog.row_number() OVER () - 1) / {keys_per_line} AS part FROM dirty
WHERE dirty.fourfold_key IS NOT NULL) AS numbered
GROUP BY numbered.part
RETURNING id)
SELECT LEAST(first_line, pg_catalog.min(line.id)) INTO first_line FROM line;"""

_RESYNC: Final = """\
INSERT INTO {change} (table_name, keys, kind, transaction_id, created_at)
VALUES ({table}, '{{}}', 'resync', CAST(pg_catalog.pg_current_xact_id() AS text), {now}) RETURNING id INTO written;
first_line := LEAST(first_line, written);"""

_BODY: Final = """\

#variable_conflict use_column
DECLARE
first_line bigint;
written bigint;
BEGIN
{branches}
IF first_line IS NOT NULL AND COALESCE(pg_catalog.current_setting('fourfold.first_change', true), '') = '' THEN
PERFORM pg_catalog.set_config('fourfold.first_change', CAST(first_line AS text), true);
END IF;
RETURN NULL;
END
"""

# While a migration runs: names no column, so that no change of shape can make it fail. Any write marks the table, once
# per transaction (looked for from the transaction's first line on).
_COARSE: Final = """\
IF NOT EXISTS (SELECT FROM {change} AS c WHERE c.table_name = {table} AND c.kind = 'resync'
AND c.transaction_id = CAST(pg_catalog.pg_current_xact_id() AS text)
AND c.id >= CAST(NULLIF(pg_catalog.current_setting('fourfold.first_change', true), '') AS bigint)) THEN
{resync}
END IF;"""

_OBJECT_KEY_FORM: Final = "'^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'"


@dataclass(frozen=True)
class PostgresqlCapture:
    """The texts of one table's capture.

    Args:
        spec: What to record.
        schema: The table's schema, resolved.
        own_schema: Where Fourfold's tables are, and its functions.
        native_uuids: The table's columns of type uuid.
    """

    spec: CaptureSpec
    schema: str
    own_schema: str
    native_uuids: frozenset[str] = frozenset()

    @property
    def table(self) -> str:
        """The table's qualified name."""
        return qualified(self.schema, self.spec.table)

    @property
    def function_name(self) -> str:
        """Name of the trigger function; PostgreSQL cuts names at 63 bytes, a long one gets a hash instead."""
        name = f"fourfold_capture_{self.spec.table}"
        if len(name.encode()) <= 63:  # noqa: PLR2004 - NAMEDATALEN - 1
            return name
        return f"fourfold_capture_{blake2b(self.spec.table.encode(), digest_size=16).hexdigest()}"

    @property
    def function(self) -> str:
        """The trigger function's qualified name."""
        return qualified(self.own_schema, self.function_name)

    @property
    def settings(self) -> dict[str, str]:
        """Settings fixed on the function."""
        has_references = bool(self.spec.files or self.spec.linked)
        return {**FUNCTION_SETTINGS, **(_INDEX_ONLY if has_references else {})}

    @cached_property
    def source(self) -> str:
        """The function's body, as pg_proc.prosrc shows it."""
        branches = (
            ("INSERT", [*self._own("fourfold_new"), *self._parents("fourfold_new"), *self._files_inserted()]),
            (
                "UPDATE",
                [*self._own_updated(), *self._parents_updated(), *self._files_updated(), *self._linked_updated()],
            ),
            ("DELETE", [*self._own("fourfold_old"), *self._parents("fourfold_old"), *self._files_deleted()]),
            ("TRUNCATE", self._truncated()),
        )
        return _BODY.format(branches=_branch(branches))

    @cached_property
    def coarse_source(self) -> str:
        """The body during a migration: any write marks the table and its parents for resync."""
        return _BODY.format(
            branches="\n".join(
                _COARSE.format(change=self._own_name("fourfold_change"), table=_text(name), resync=self._resync(name))
                for name in self._resync_tables()
            )
        )

    @cached_property
    def body_hash(self) -> str:
        """Hash of all that is installed; another one means: install again."""
        texts = [self.create_function(), *self.create_triggers(self.table)]
        return blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()

    def create_function(self, *, coarse: bool = False) -> str:
        """Return the statement that makes or replaces the function."""
        source = self.coarse_source if coarse else self.source
        settings = "\n".join(
            # search_path takes a list of names; quoted as one text it would be one name.
            f"SET {identifier(name)} = {value if name == 'search_path' else _text(value)}"
            for name, value in self.settings.items()
        )
        return (
            f"CREATE OR REPLACE FUNCTION {self.function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
            f"{settings}\nAS {dollar_quoted(source)}"
        )

    def create_triggers(self, relation: str) -> list[str]:
        """Return the statements that make the triggers on a table or partition (qualified name)."""
        statements = []
        for name, event in _EVENTS.items():
            on = event.format(table=relation)
            statements.append(
                f"CREATE OR REPLACE TRIGGER {name} {on} FOR EACH STATEMENT EXECUTE FUNCTION {self.function}()"
            )
            # ALWAYS: a session with session_replication_role = replica fires nothing else.
            statements.append(f"ALTER TABLE {relation} ENABLE ALWAYS TRIGGER {name}")
        return statements

    def drop_triggers(self, relation: str) -> list[str]:
        """Return the statements that remove the triggers from a table or partition."""
        return [f"DROP TRIGGER IF EXISTS {name} ON {relation}" for name in _EVENTS]

    # --------------------------------------------------------------------------------------------------- lines

    def _own(self, rows: str) -> list[str]:
        if not self.spec.projected:
            return []
        return [self._lines(self.spec.table, f"SELECT {self._key('r')} AS fourfold_key FROM {rows} AS r")]

    def _own_updated(self) -> list[str]:
        if not self.spec.projected:
            return []
        pairs = self._pairs(image=self._image(self.spec.watched))
        either = "SELECT COALESCE(o.fourfold_key, n.fourfold_key) AS fourfold_key"
        keys = f"{either} FROM {pairs}\nWHERE o.image IS DISTINCT FROM n.image"
        return [self._lines(self.spec.table, keys)]

    def _parents(self, rows: str) -> list[str]:
        return [
            # DISTINCT: a thousand tracks of one album are one line with one key.
            self._lines(
                parent.table,
                f"SELECT DISTINCT {self._parent_key(parent)} AS fourfold_key FROM {rows} AS r"
                f" WHERE {key_parts_present(parent.columns, 'r')}",
            )
            for parent in self.spec.parents
        ]

    def _parents_updated(self) -> list[str]:
        statements = []
        for parent in self.spec.parents:
            pairs = self._pairs(image=self._image(self._parent_watched(parent)), parent=self._optional_key(parent))
            keys = (
                f"SELECT DISTINCT side.fourfold_key FROM {pairs}\n"
                "CROSS JOIN LATERAL (VALUES (o.parent), (n.parent)) AS side(fourfold_key)\n"
                "WHERE o.image IS DISTINCT FROM n.image AND side.fourfold_key IS NOT NULL"
            )
            statements.append(self._lines(parent.table, keys))
        return statements

    def _parent_watched(self, parent: ParentKey) -> tuple[str, ...] | None:
        if self.spec.watched is None:
            return None
        return tuple(dict.fromkeys((*self.spec.watched, *(column.name for column in parent.columns))))

    def _truncated(self) -> list[str]:
        statements = [self._resync(table) for table in self._resync_tables()]
        columns = [*(column.name for column in self.spec.files), *self.spec.linked]
        if columns:
            # Asked of the table itself: TRUNCATE of one partition leaves the rows of the others.
            names = ", ".join(map(_text, columns))
            statements.append(
                f"DELETE FROM {self._references} AS ref WHERE ref.table_name = {_text(self.spec.table)}"
                f" AND ref.column_name IN ({names})"
                f" AND NOT EXISTS (SELECT FROM {self.table} AS r WHERE {self._key('r')} = ref.row_key);"
            )
        return statements

    # --------------------------------------------------------------------------------------------------- files

    def _files_inserted(self) -> list[str]:
        return [
            self._reference(column, self._key("r"), f"CAST(r.{identifier(column.name)} AS text)", "fourfold_new AS r")
            + f"\nWHERE r.{identifier(column.name)} IS NOT NULL{_form(column, 'r.' + identifier(column.name))}"
            + _KEEP_NEWEST
            for column in self.spec.files
        ]

    def _files_updated(self) -> list[str]:
        gone, come = [], []
        for column in self.spec.files:
            pairs = self._pairs(value=f"CAST(r.{identifier(column.name)} AS text)")
            gone.append(
                self._unreference(column.name, f"o.fourfold_key FROM {pairs}\nWHERE o.value IS DISTINCT FROM n.value")
            )
            come.append(
                # DISTINCT ON: two cascades of one statement may update one row twice, and ON CONFLICT meets a key once.
                self._reference(column, "DISTINCT ON (n.fourfold_key) n.fourfold_key", "n.value", pairs)
                + f"\nWHERE n.value IS NOT NULL AND o.value IS DISTINCT FROM n.value{_form(column, 'n.value')}"
                + _KEEP_NEWEST
            )
        return [*gone, *come]

    def _linked_updated(self) -> list[str]:
        return [
            self._unreference(
                name,
                f"o.fourfold_key FROM {self._pairs(value=f'CAST(r.{identifier(name)} AS text)')}\n"
                "WHERE n.fourfold_key IS NULL OR o.value IS DISTINCT FROM n.value",
            )
            for name in self.spec.linked
        ]

    def _files_deleted(self) -> list[str]:
        files = [
            # Only what the old row named: in a MERGE that deletes and inserts one key, the insert's trigger ran before.
            f"DELETE FROM {self._references} AS ref USING fourfold_old AS r"
            f" WHERE ref.table_name = {_text(self.spec.table)} AND ref.column_name = {_text(column.name)}"
            f" AND ref.row_key = {self._key('r')} AND ref.object_key = CAST(r.{identifier(column.name)} AS text);"
            for column in self.spec.files
        ]
        linked = [self._unreference(name, f"{self._key('r')} FROM fourfold_old AS r") for name in self.spec.linked]
        return [*files, *linked]

    def _reference(self, column: FileColumn, key: str, value: str, source: str) -> str:
        return (
            f"INSERT INTO {self._references} (row_key, object_key, table_name, column_name)\n"
            f"SELECT {key}, {value}, {_text(self.spec.table)}, {_text(column.name)} FROM {source}"
        )

    def _unreference(self, column: str, keys: str) -> str:
        return (
            f"DELETE FROM {self._references} AS ref WHERE ref.table_name = {_text(self.spec.table)}"
            f" AND ref.column_name = {_text(column)} AND ref.row_key IN (SELECT {keys});"
        )

    # --------------------------------------------------------------------------------------------------- parts

    def _key(self, alias: str) -> str:
        return key_expression(self.spec.key, "postgresql", alias, native_uuids=self.native_uuids)

    def _parent_key(self, parent: ParentKey) -> str:
        return key_expression(parent.columns, "postgresql", "r", native_uuids=self.native_uuids)

    def _optional_key(self, parent: ParentKey) -> str:
        return f"CASE WHEN {key_parts_present(parent.columns, 'r')} THEN {self._parent_key(parent)} END"

    @staticmethod
    def _image(watched: tuple[str, ...] | None) -> str:
        columns = "r.*" if watched is None else ", ".join(f"r.{identifier(name)}" for name in watched)
        return f'CAST(ROW({columns}) AS text) COLLATE "C"'

    def _pairs(self, **columns: str) -> str:
        both = {"fourfold_key": f'{self._key("r")} COLLATE "C"', **columns}
        listed = ", ".join(f"{text} AS {name}" for name, text in both.items())
        return _PAIRS.format(old_columns=listed, new_columns=listed)

    def _lines(self, table: str, keys: str) -> str:
        return _LINES.format(
            keys=keys,
            change=self._own_name("fourfold_change"),
            table=_text(table),
            now=now_sql("postgresql"),
            keys_per_line=KEYS_PER_LINE,
        )

    def _resync(self, table: str) -> str:
        change = self._own_name("fourfold_change")
        return _RESYNC.format(change=change, table=_text(table), now=now_sql("postgresql"))

    def _resync_tables(self) -> list[str]:
        own = [self.spec.table] if self.spec.projected else []
        return list(dict.fromkeys([*own, *(parent.table for parent in self.spec.parents)]))

    @property
    def _references(self) -> str:
        return self._own_name("fourfold_object_ref")

    def _own_name(self, table: str) -> str:
        return qualified(self.own_schema, table)


_KEEP_NEWEST: Final = "\nON CONFLICT (table_name, row_key, column_name) DO UPDATE SET object_key = excluded.object_key;"


def _branch(branches: tuple[tuple[str, list[str]], ...]) -> str:
    lines = []
    for number, (event, statements) in enumerate(branches):
        lines.append(f"{'IF' if number == 0 else 'ELSIF'} TG_OP = '{event}' THEN")
        lines += statements or ["NULL;"]
    return "\n".join([*lines, "END IF;"])


def _form(column: FileColumn, value: str) -> str:
    return "" if column.managed_only else f" AND CAST({value} AS text) ~ {_OBJECT_KEY_FORM}"


def _text(value: str) -> str:
    return literal(value, "postgresql")
