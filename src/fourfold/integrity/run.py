"""Verify, repair and rebuild over all targets: what `Fourfold.integrity` and the command line call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fourfold.errors import NotFoundError, did_you_mean
from fourfold.integrity.files import verify_files
from fourfold.integrity.repair import guard_mass_deletion, guard_rebuild, queue_differences, rebuild
from fourfold.integrity.report import VerifyReport
from fourfold.integrity.verify import TargetVerifier

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fourfold.integrity.report import Progress
    from fourfold.projection.plan import Plan
    from fourfold.settings import Settings
    from fourfold.stores import Stores

__all__ = ["Integrity"]

_FILES = "files"


class Integrity:
    """Compares and mends; made by `Fourfold.integrity`.

    Args:
        stores: Open stores.
        plan: The declarations.
        settings: For limits.
    """

    def __init__(self, stores: Stores, plan: Plan, settings: Settings) -> None:
        self._stores = stores
        self._plan = plan
        self._settings = settings

    def _chosen(self, targets: Collection[str] | None) -> list[str]:
        known = [_FILES, *self._stores.targets]
        for name in targets or ():
            if name not in known:
                message = f"no target {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}"
                raise NotFoundError(message, code="integrity.unknown_target", target=name)
        return [name for name in known if not targets or name in targets]

    async def verify(
        self,
        targets: Collection[str] | None = None,
        *,
        deep: bool = False,
        foreign: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> VerifyReport:
        """Compare targets with the rows, online.

        Args:
            targets: Names; default all, files included.
            deep: Recompute digests from stored contents, compare vectors, read every byte of every file.
            foreign: Report items without an owner mark too.
            progress: Called now and then.

        Raises:
            NotFoundError: Code `integrity.unknown_target`.
        """
        started = time.monotonic()
        report = VerifyReport(deep)
        for name in self._chosen(targets):
            if name == _FILES:
                await verify_files(self._stores, report, progress)
                continue
            verifier = TargetVerifier(
                self._stores.engine,
                self._plan,
                self._stores.targets[name],
                self._stores.models,
                embedding=self._stores.embedding,
                progress=progress,
            )
            await verifier.verify(report)
            if name == "graph":
                await verifier.report_orphans(report)
                if foreign:
                    await verifier.report_foreign(report)
        report.seconds = time.monotonic() - started
        return report

    async def repair(self, report: VerifyReport, *, confirmed: bool = False) -> int:
        """Queue everything that a report found; the relay mends it.

        Args:
            report: Of `verify`.
            confirmed: Remove a large share of a target too.

        Returns:
            How many keys were queued.

        Raises:
            DriftError: Code `repair.mass_deletion`.
        """
        queued = 0
        for name in self._stores.targets:  # all are asked before the first is touched
            guard_mass_deletion(name, report.counts[name, "extra"], report.checked.get(name, 0), confirmed=confirmed)
        for target in self._stores.targets.values():
            queued += await queue_differences(self._stores.engine, target, report.differences)
        if self._stores.graph is not None and report.counts["graph", "orphan"]:
            queued += await self._stores.graph.remove_orphans()
        return queued

    async def rebuild(self, targets: Collection[str] | None = None, *, confirmed: bool = False) -> list[str]:
        """Have every fragment of targets written again, and what no row has swept.

        Args:
            targets: Names; default all that are made from rows (files aren't).
            confirmed: Sweep a large share of a target too.

        Returns:
            The names of the targets queued.

        Raises:
            DriftError: Code `repair.mass_deletion`.
        """
        chosen = [name for name in self._chosen(targets) if name != _FILES]
        for name in chosen:  # all are asked before the first is touched
            await guard_rebuild(self._stores.engine, self._plan, self._stores.targets[name], confirmed=confirmed)
        for name in chosen:
            await rebuild(self._stores.engine, self._plan, self._stores.targets[name])
        return chosen
