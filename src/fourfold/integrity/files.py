"""Compare the object store with the registry, and the registry with the rows that name objects.

Quick looks at existence and size; deep reads and hashes every byte. Nothing is removed: what is missing or altered
can't be mended from here (restore it), and repair leaves alone what nobody registered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fourfold.errors import NotFoundError
from fourfold.integrity.report import Difference, Progress
from fourfold.objects.inspection import check_object, orphans, scan_registry
from fourfold.objects.marker import check_marker
from fourfold.objects.registry import OBJECT_TABLE, ObjectRegistry
from fourfold.rows.engine import read_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from fourfold.integrity.report import DifferenceKind, VerifyReport
    from fourfold.objects.inspection import ObjectProblem
    from fourfold.objects.upload import StoredObject
    from fourfold.stores import Stores

__all__ = ["verify_files"]

_TARGET = "files"
_CONCURRENT_CHECKS = 8
_KINDS: dict[str, DifferenceKind] = {"missing": "missing", "size": "altered", "altered": "altered"}


async def verify_files(
    stores: Stores, report: VerifyReport, progress: Callable[[Progress], None] | None = None
) -> None:
    """Add what is wrong with files to `report`.

    Raises:
        DriftError: Code `objects.marker`: this isn't our store; nothing else was looked at.
        StoreUnavailableError: The store is away.
    """
    await check_marker(stores.engine, stores.objects)
    gate = asyncio.Semaphore(_CONCURRENT_CHECKS)

    async def check(stored: StoredObject) -> ObjectProblem | None:
        async with gate:
            return await check_object(stores.objects, stored, deep=report.deep)

    after, checked = "", 0
    while page := await scan_registry(stores.engine, after=after):
        for problem in await asyncio.gather(*map(check, page)):
            if problem is not None and await _is_registered(stores, problem.key):
                detail = f"is {problem.seen or 'not there'}, expected {problem.expected}"
                report.add(Difference(_TARGET, _KINDS[problem.kind], OBJECT_TABLE, problem.key, detail))
        after, checked = page[-1].key, checked + len(page)
        if progress is not None:
            progress(Progress("files: check", checked))
    report.checked[_TARGET] = checked
    async for key in orphans(stores.engine, stores.stages, stores.objects):
        report.add(Difference(_TARGET, "orphan", OBJECT_TABLE, key, "neither registered, nor staged, nor queued"))


async def _is_registered(stores: Stores, key: str) -> bool:
    """Looked at again: the object may have been collected between the registry's page and the look at its bytes."""
    async with read_transaction(stores.engine) as connection:
        try:
            await ObjectRegistry(stores.stages).info(connection, key)
        except NotFoundError:
            return False
    return True
