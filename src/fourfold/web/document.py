"""A status as programs get it: `fourfold status --json` and `/status` say the same. Needs no web framework."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourfold.fourfold import StoreStatus
    from fourfold.relay.status import RelayStatus

__all__ = ["lag_seconds", "status_document"]


def lag_seconds(relay: RelayStatus) -> float:
    """The age of the oldest thing that a target has not got yet."""
    queued = relay.oldest_line_seconds if relay.lines else 0.0
    return max([queued, *(target.lag_seconds for target in relay.targets)])


def status_document(status: StoreStatus) -> dict[str, Any]:
    """A status for programs; its members are described in docs/reference/status.md."""
    relay = status.relay
    return {
        "healthy": status.healthy,
        "in_step": status.in_step,
        "lag_seconds": None if relay is None else round(lag_seconds(relay), 3),
        "queue": None if relay is None else _queue(relay),
        "targets": [] if relay is None else [asdict(target) for target in relay.targets],
        "quarantined": [asdict(key) for key in status.quarantined],
        "problems": [
            {"code": problem.code, "message": problem.message, "hint": problem.hint} for problem in status.problems
        ],
    }


def _queue(relay: RelayStatus) -> dict[str, Any]:
    return {
        "lines": relay.lines,
        "oldest_line_seconds": relay.oldest_line_seconds,
        "oldest_transaction_seconds": relay.oldest_transaction_seconds,
        "declarations_match": relay.declarations_match,
    }
