"""Compare what the rows say with what a target holds, while both are in use.

Expected and stored (owner, digest) are merged in the order of the owners' hashes. What differs is looked at again:
only a difference between a row without pending changes and a target that nobody is writing that key to is one. *Quick*
compares the digests that were written with the data: it does not see a property, vector or byte that somebody else
altered in place. *Deep* recomputes digests from the stored contents, and compares vectors with what their texts embed
to.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from fourfold.integrity.expected import expected_digests, project_keys
from fourfold.integrity.report import Difference, Progress
from fourfold.integrity.vectors import altered_vectors
from fourfold.projection.items import Owner, OwnerDigest
from fourfold.relay.dialect import statement
from fourfold.rows.engine import read_transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from fourfold.integrity.expected import Expected
    from fourfold.integrity.report import DifferenceKind, VerifyReport
    from fourfold.projection.plan import Plan
    from fourfold.relay.embedding import EmbeddingCache

__all__ = ["TargetVerifier"]

_PIECE = 500
_SETTLE_SECONDS = 30.0

_PENDING = """
SELECT w.table_name, w.key FROM fourfold_work AS w
WHERE w.target = :target AND (w.table_name, w.key) IN {each_pair:keys}
UNION
SELECT c.table_name, p.b FROM fourfold_change AS c, {each_pair:keys} AS p
WHERE c.table_name = p.a AND c.kind = 'resync'
UNION
SELECT c.table_name, k.value FROM fourfold_change AS c, {line_keys}
WHERE c.kind = 'keys' AND (c.table_name, k.value) IN {each_pair:keys}
UNION
SELECT p.a, p.b FROM {each_pair:keys} AS p CROSS JOIN {each_pair:dependencies} AS d
WHERE d.a = p.a AND EXISTS (SELECT 1 FROM fourfold_change AS c WHERE c.table_name = d.b)
UNION
SELECT p.a, p.b FROM {each_pair:keys} AS p CROSS JOIN fourfold_work AS w
WHERE w.target = :target AND w.table_name = 'sweep:' || p.a AND w.key = ''
"""


class TargetVerifier:
    """Verifies one fenced target.

    Args:
        engine: Of the rows; the primary.
        plan: The declarations.
        target: The graph or a vector collection.
        models: Embedding model of each collection.
        embedding: For deep verify of vectors that come from texts.
        progress: Called now and then.
        settle_seconds: How long a differing key may stay in the queue before it is counted as `in_flight`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        plan: Plan,
        target: Any,
        models: Mapping[str, str],
        *,
        embedding: EmbeddingCache | None = None,
        progress: Callable[[Progress], None] | None = None,
        settle_seconds: float = _SETTLE_SECONDS,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._target = target
        self._models = models
        self._embedding = embedding
        self._progress = progress or (lambda _: None)
        self._settle_seconds = settle_seconds
        # (dependent, table): until a change of the table is dispatched, nobody knows which dependents it concerns.
        self._dependencies = [
            (dependent.table, spec.table) for spec in plan.captures for dependent in plan.dependents_of(spec.table)
        ]

    async def verify(self, report: VerifyReport) -> None:
        """Add this target's differences to `report`."""
        target = self._target.name
        candidates: list[Owner] = []
        async with expected_digests(self._engine, self._plan, target, self._models, self._progress) as expected:
            report.checked[target] = expected.count
            async for owner in self._differing(expected, deep=report.deep):
                candidates.append(owner)
                if len(candidates) >= _PIECE:
                    await self._look_again(candidates, report)
                    candidates = []
        await self._look_again(candidates, report)

    async def report_orphans(self, report: VerifyReport) -> None:
        """Add stubs that no edge needs; no key stands for them, so repair removes them by an action of their own."""
        found = await self._target.count_orphans()
        if found:
            report.add(Difference(self._target.name, "orphan", "", "", f"{found} stubs that no edge needs"))

    async def report_foreign(self, report: VerifyReport) -> None:
        """Add items without an owner mark; they are somebody else's, and never touched."""
        async for item in self._target.foreign():
            detail = f"{item.kind} {dict(item.properties)!r:.200}"
            report.add(Difference(self._target.name, "foreign", item.name, "", detail))

    async def _differing(self, expected: Expected, *, deep: bool) -> AsyncIterator[Owner]:
        """Owners that differ at first sight: a merge of two ascending streams."""
        stored = self._stored(deep=deep)
        found = await anext(stored, None)
        for done, (expected_hash, owner, digest) in enumerate(expected.in_order(), 1):
            while found is not None and found.owner.hash < expected_hash:
                yield found.owner
                found = await anext(stored, None)
            if found is not None and found.owner == owner:
                if found.digest != digest:
                    yield owner
                found = await anext(stored, None)
            else:
                yield owner
            if done % 10_000 == 0:
                self._progress(Progress(f"{self._target.name}: compare", done, expected.count))
        while found is not None:
            yield found.owner
            found = await anext(stored, None)

    async def _stored(self, *, deep: bool) -> AsyncIterator[OwnerDigest]:
        """What the target holds; deep: a digest only where the one written and the one recomputed agree."""
        if not deep:
            async for found in self._target.scan_owners():
                yield found
            return
        piece: list[OwnerDigest] = []
        async for found in self._target.scan_owners():
            piece.append(found)
            if len(piece) >= _PIECE:
                async for checked in self._recomputed(piece):
                    yield checked
                piece = []
        async for checked in self._recomputed(piece):
            yield checked

    async def _recomputed(self, piece: Sequence[OwnerDigest]) -> AsyncIterator[OwnerDigest]:
        owners = [found.owner for found in piece]
        contents = await self._target.read_owners(owners)
        altered = await self._altered(owners)
        for found in piece:
            agrees = contents.get(found.owner) == found.digest and found.owner not in altered
            yield found if agrees else OwnerDigest(found.owner, b"")

    async def _altered(self, owners: Sequence[Owner]) -> set[Owner]:
        """Owners whose vectors are not what their texts embed to; none where the target has no embedded texts."""
        if self._embedding is None or not owners or not hasattr(self._target, "read_vectors"):
            return set()
        fragments, _ = await project_keys(self._engine, self._plan, self._target.name, owners, self._models)
        return await altered_vectors(self._target, self._embedding, fragments)

    async def _look_again(self, owners: Sequence[Owner], report: VerifyReport) -> None:
        """Judge owners that differed, once nothing about them is on its way."""
        rest = list(owners)
        deadline = asyncio.get_running_loop().time() + self._settle_seconds
        pause_seconds = 0.02
        while rest:
            pending = await self._pending(rest)
            settled = [owner for owner in rest if owner not in pending]
            expected, verdicts = await self._judge(settled, deep=report.deep)
            # A change that came in while we judged makes the verdict worthless: look once more.
            changed = await self._pending(settled) | await self._moved(expected, verdicts)
            for owner, difference in verdicts.items():
                if difference is not None and owner not in changed:
                    report.add(difference)
            rest = [*pending, *changed]
            if not rest:
                return
            if asyncio.get_running_loop().time() > deadline:
                report.in_flight += len(rest)
                return
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, 1.0)

    async def _moved(self, expected: Mapping[Owner, bytes], verdicts: Mapping[Owner, Difference | None]) -> set[Owner]:
        """Owners whose row changed while we judged: the change may have come and settled between our two reads."""
        suspects = [owner for owner, difference in verdicts.items() if difference is not None]
        if not suspects:
            return set()
        fragments, _ = await project_keys(self._engine, self._plan, self._target.name, suspects, self._models)
        now = {fragment.owner: fragment.digest for fragment in fragments if not fragment.is_empty}
        return {owner for owner in suspects if now.get(owner) != expected.get(owner)}

    async def _pending(self, owners: Sequence[Owner]) -> set[Owner]:
        if not owners:
            return set()
        parameters = {
            "target": self._target.name,
            "keys": json.dumps([[owner.table, owner.key] for owner in owners]),
            "dependencies": json.dumps(self._dependencies),
        }
        async with read_transaction(self._engine) as connection:
            rows = await connection.execute(statement(_PENDING, connection.dialect.name), parameters)
            return {Owner(*row) for row in rows} & set(owners)

    async def _judge(
        self, owners: Sequence[Owner], *, deep: bool
    ) -> tuple[dict[Owner, bytes], dict[Owner, Difference | None]]:
        if not owners:
            return {}, {}
        target = self._target.name
        fragments, failures = await project_keys(self._engine, self._plan, target, owners, self._models)
        expected = {fragment.owner: fragment.digest for fragment in fragments if not fragment.is_empty}
        contents = await self._target.read_owners(owners) if deep else {}
        altered = await self._altered(owners) if deep else set()
        verdicts: dict[Owner, Difference | None] = {}
        for owner in owners:
            written = await self._written(owner)
            content = contents.get(owner) if deep else written
            if owner in altered:
                content = b"altered"
            kind, detail = _verdict(expected.get(owner), written, content, failures.get(owner))
            verdicts[owner] = Difference(target, kind, owner.table, owner.key, detail) if kind else None
        return expected, verdicts

    async def _written(self, owner: Owner) -> bytes | None:
        before = (int.from_bytes(owner.hash, "big") - 1) % (1 << 128)
        async for found in self._target.scan_owners(after=before.to_bytes(16, "big"), limit=1):
            if found.owner == owner:
                return bytes(found.digest)
        return None


def _verdict(
    expected: bytes | None, written: bytes | None, content: bytes | None, failure: str | None
) -> tuple[DifferenceKind | None, str]:
    """Name the difference between three digests: of the row, written with the data, and of the data itself.

    Example:
        >>> _verdict(b"1", b"1", b"2", None)[0]
        'altered'
        >>> _verdict(b"1", None, None, None)[0]
        'missing'
    """
    if failure is not None:
        return "stale", f"the row can't be projected: {failure}"
    if expected is None:
        return ("extra", "no row has it") if written is not None or content is not None else (None, "")
    if written is None and content is None:
        return "missing", "not in the target"
    if written != expected:
        return "stale", "another state of the row"
    if content != expected:
        return "altered", "contents are not what was written"
    return None, ""
