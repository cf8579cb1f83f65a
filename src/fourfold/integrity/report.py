"""What verify found, as values: for people, for `--json`, and for repair."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Difference", "DifferenceKind", "Progress", "VerifyReport"]

DifferenceKind = Literal["missing", "stale", "extra", "altered", "foreign", "orphan"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the rows say.

    Args:
        target: `graph`, `vectors.<collection>` or `files`.
        kind: `missing` (the rows have it, the target doesn't), `stale` (another digest), `extra` (no row has it),
            `altered` (the digest is right, the contents aren't: deep only), `foreign` (no owner mark: reported on
            request, never touched), `orphan` (a stub or object that nothing needs).
        table: Owner table, or `fourfold_object`.
        key: Encoded key.
        detail: For people.
    """

    target: str
    kind: DifferenceKind
    table: str
    key: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long run is: what it is doing, how much is done, and of how much (0: not known)."""

    step: str
    done: int
    total: int = 0


@dataclass(slots=True)
class VerifyReport:
    """The outcome of one run.

    `differences` holds all of them, because repair queues them by key; `counts` has their number by (target, kind).
    """

    deep: bool
    checked: dict[str, int] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    in_flight: int = 0
    seconds: float = 0.0

    @property
    def differs(self) -> bool:
        """True when anything differs; foreign items don't count, they are not ours."""
        return any(count for (_, kind), count in self.counts.items() if kind != "foreign")

    def add(self, difference: Difference) -> None:
        """Count a difference, and keep it."""
        self.counts[difference.target, difference.kind] += 1
        self.differences.append(difference)
