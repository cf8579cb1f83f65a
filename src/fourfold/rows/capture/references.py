"""`fourfold_object_ref` brought in step with a table's rows, after writes that no trigger saw.

Called by `install` in its transaction, when the triggers are in place: on PostgreSQL their making holds off writers
until the commit, on SQLite the transaction is the only writer.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from fourfold.errors import ConflictError
from fourfold.projection.capture_spec import CaptureSpec, FileColumn
from fourfold.rows.capture.keys import key_expression
from fourfold.rows.capture.quoting import identifier, literal
from fourfold.rows.capture.verbatim import run_verbatim
from fourfold.rows.tables import object_ref

__all__ = ["drop_references_of_missing_table", "synchronise_references"]

_GLOB: Final = "-".join("[0-9a-f]" * length for length in (8, 4, 4, 4, 12))
_REGULAR: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_UNKNOWN: Final = """
SELECT count(*) AS count, min({value}) AS example FROM {table} AS r WHERE {named}
AND NOT EXISTS (SELECT 1 FROM fourfold_object AS o WHERE o.key = {value})"""
# Qualified: the user's table may have columns of these names. f.row_key first: SQLite takes the collation of the left
# side, and the user's key may have one that knows no case.
_FORGET: Final = """
DELETE FROM fourfold_object_ref AS f WHERE f.table_name = {owner} AND f.column_name = {column}
AND NOT EXISTS (SELECT 1 FROM {table} AS r WHERE f.row_key = {key} AND {same} {named})"""
_MIRROR: Final = """
INSERT INTO fourfold_object_ref (table_name, row_key, column_name, object_key)
SELECT {owner}, {key}, {column}, {value} FROM {table} AS r WHERE {named}
AND EXISTS (SELECT 1 FROM fourfold_object AS o WHERE o.key = {value})
AND NOT EXISTS (SELECT 1 FROM fourfold_object_ref AS f
WHERE f.table_name = {owner} AND f.row_key = {key} AND f.column_name = {column})"""


def synchronise_references(connection: sa.Connection, spec: CaptureSpec, table: str, *, refuse_unknown: bool) -> None:
    """Mirror the file columns of all rows, and forget references that no row has any more.

    Args:
        connection: In the transaction that installs capture.
        spec: Names the columns.
        table: The table's qualified name.
        refuse_unknown: True when the table is new to Fourfold: its rows must name stored objects only. False when
            triggers are mended: a row that meanwhile names an unknown object is left to verify, or repair could never
            begin.

    Raises:
        ConflictError: Code `objects.unknown`.
    """
    dialect = connection.dialect.name
    key = key_expression(spec.key, dialect, "r")
    columns = [*(column.name for column in spec.files), *spec.linked]
    retired = sa.and_(object_ref.c.table_name == spec.table, object_ref.c.column_name.not_in(columns))
    connection.execute(sa.delete(object_ref).where(retired))
    for column in spec.files:
        value = f"CAST(r.{identifier(column.name)} AS text)"
        named = _named(column, dialect)
        if refuse_unknown:
            _check_known(connection, spec, column, sql=_UNKNOWN.format(value=value, table=table, named=named))
        words = {"table": table, "key": key, "value": value, "named": named, "same": f"f.object_key = {value} AND"}
        words |= {"owner": literal(spec.table, dialect), "column": literal(column.name, dialect)}
        run_verbatim(connection, _FORGET.format(**words))
        run_verbatim(connection, _MIRROR.format(**words))
    for name in spec.linked:
        words = {"table": table, "key": key, "same": "", "named": f"r.{identifier(name)} IS NOT NULL"}
        words |= {"owner": literal(spec.table, dialect), "column": literal(name, dialect)}
        run_verbatim(connection, _FORGET.format(**words))


def drop_references_of_missing_table(connection: sa.Connection, table_name: str) -> None:
    """Forget the references of a table that was dropped: they would keep its files for ever."""
    connection.execute(sa.delete(object_ref).where(object_ref.c.table_name == table_name))


def _named(column: FileColumn, dialect: str) -> str:
    value = f"r.{identifier(column.name)}"
    if column.managed_only:
        return f"{value} IS NOT NULL"
    form = f"CAST({value} AS text) ~ '{_REGULAR}'" if dialect == "postgresql" else f"{value} GLOB '{_GLOB}'"
    return f"{value} IS NOT NULL AND {form}"


def _check_known(connection: sa.Connection, spec: CaptureSpec, column: FileColumn, *, sql: str) -> None:
    seen = run_verbatim(connection, sql).mappings().one()
    count, example = seen["count"], seen["example"]
    if count:
        message = f"{count} rows of {spec.table!r} name files in {column.name!r} that aren't stored, as {example!r:.80}"
        hint = "Store them first, or declare the column as one that may hold outside paths (managed_only=False)"
        raise ConflictError(message, code="objects.unknown", hint=hint, table=spec.table, column=column.name)
