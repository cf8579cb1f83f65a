"""Fourfold inside the user's own Alembic: three things for his `env.py`, none of which makes it a branch of ours.

```python
from fourfold.rows.adopt import capture_suspended, include_name  # importing it registers op.fourfold_capture

with connectable.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=include_name,  # autogenerate doesn't see fourfold_… and so doesn't drop it
        fourfold_specs=specs,  # autogenerate writes op.fourfold_capture(…) when capture must change
    )
    with context.begin_transaction(), capture_suspended(connection, specs):
        context.run_migrations()
```

An existing database is adopted by `fourfold migrate` (our tables), a migration with `op.fourfold_capture` (triggers;
tables that have rows are queued for resync in the same transaction), and the relay, which then fills the targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.autogenerate import comparators, renderers
from alembic.operations import MigrateOperation, Operations

from fourfold.projection.capture_spec import CaptureSpec
from fourfold.rows import tables as own
from fourfold.rows.capture.check import problems_of
from fourfold.rows.capture.install import installed_specs, release, synchronise
from fourfold.rows.capture.suspend import capture_suspended

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps

__all__ = ["CaptureOp", "ReleaseOp", "capture_suspended", "include_name"]

_IMPORTS = (
    "import fourfold.rows.adopt",
    "from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey",
    "from fourfold.projection.keys import KeyColumn",
)


def include_name(name: str | None, type_: str, parent_names: object) -> bool:  # noqa: ARG001 - Alembic's signature
    """Say whether autogenerate may look at a database object: not at Fourfold's own tables.

    Example:
        >>> include_name("fourfold_change", "table", {}), include_name("songs", "table", {})
        (False, True)
    """
    return not (type_ == "table" and name is not None and name.startswith("fourfold_"))


@Operations.register_operation("fourfold_capture")
class CaptureOp(MigrateOperation):
    """`op.fourfold_capture([CaptureSpec(…), …])`: install capture in a migration.

    Reversed it is the capture that was there before, else `op.fourfold_release`.
    """

    def __init__(self, specs: Sequence[CaptureSpec], previous: Sequence[CaptureSpec] = ()) -> None:
        self.specs = tuple(specs)
        self.previous = tuple(previous)

    @classmethod
    def fourfold_capture(cls, operations: Operations, specs: Sequence[CaptureSpec]) -> None:
        """Install capture of these tables; they must be there, and Fourfold's own tables migrated.

        Raises:
            ConfigurationError: Codes `rows.not_migrated`, `rows.no_table`.
            ConflictError: Code `objects.unknown`.
        """
        operations.invoke(cls(specs))

    def reverse(self) -> MigrateOperation:
        """Return what undoes it: the capture that was there before, or none."""
        return CaptureOp(self.previous) if self.previous else ReleaseOp([spec.table for spec in self.specs])


@Operations.register_operation("fourfold_release")
class ReleaseOp(MigrateOperation):
    """`op.fourfold_release(["songs", …])`: remove capture in a migration."""

    def __init__(self, tables: Sequence[str], previous: Sequence[CaptureSpec] = ()) -> None:
        self.tables = tuple(tables)
        self.previous = tuple(previous)

    @classmethod
    def fourfold_release(cls, operations: Operations, tables: Sequence[str]) -> None:
        """Remove capture from these tables; those without are fine."""
        operations.invoke(cls(tables))

    def reverse(self) -> MigrateOperation:
        """Return what undoes it: the capture that was there before."""
        return CaptureOp(self.previous)


@Operations.implementation_for(CaptureOp)
def _capture(operations: Operations, operation: CaptureOp) -> None:
    synchronise(operations.get_bind(), operation.specs)


@Operations.implementation_for(ReleaseOp)
def _release(operations: Operations, operation: ReleaseOp) -> None:
    release(operations.get_bind(), operation.tables)


@renderers.dispatch_for(CaptureOp)
def _render_capture(context: AutogenContext, operation: CaptureOp) -> str:
    context.imports.update(_IMPORTS)
    listed = "".join(f"    {spec!r},\n" for spec in operation.specs)
    return f"op.fourfold_capture([\n{listed}])"


@renderers.dispatch_for(ReleaseOp)
def _render_release(context: AutogenContext, operation: ReleaseOp) -> str:
    context.imports.add(_IMPORTS[0])
    return f"op.fourfold_release({list(operation.tables)!r})"


@comparators.dispatch_for("schema")
def _compare(context: AutogenContext, upgrade_ops: UpgradeOps, _schemas: Any) -> None:
    specs: Sequence[CaptureSpec] | None = (context.opts or {}).get("fourfold_specs")
    connection = context.connection
    if specs is None or connection is None:
        return
    known: dict[str, CaptureSpec] = {}
    broken = {spec.table for spec in specs}
    if sa.inspect(connection).has_table(own.capture.name):
        known = {spec.table: spec for spec in installed_specs(connection)}
        broken = {problem.table for problem in problems_of(connection, specs) if problem.kind != "subscribed"}
    changed = [spec for spec in specs if spec.table in broken]
    if changed:
        before = [known[spec.table] for spec in changed if spec.table in known]
        # A table that comes with this migration has none before; then all of it is released on the way back.
        upgrade_ops.ops.append(CaptureOp(changed, before if len(before) == len(changed) else ()))
    retired = sorted(known.keys() - {spec.table for spec in specs})
    if retired:
        upgrade_ops.ops.append(ReleaseOp(retired, [known[table] for table in retired]))
