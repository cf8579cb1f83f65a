"""Waiting until the queue is worked off, with progress: by the relay of this process, or by another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fourfold.errors import SettleTimeoutError

if TYPE_CHECKING:
    from fourfold.fourfold import Fourfold
    from fourfold.relay.status import RelayStatus

__all__ = ["wait_in_step"]

STILL_SECONDS: Final = (
    120.0  # without any progress; the longest lease after which a dead worker's keys are taken up is 60
)
_POLL_LEAST_SECONDS: Final = 0.05
_POLL_MOST_SECONDS: Final = 0.5


async def wait_in_step(
    store: Fourfold, progress: Callable[[str, int, int], None], *, still_seconds: float = STILL_SECONDS
) -> RelayStatus:
    """Return when nothing is queued any more; what is in quarantine isn't waited for.

    Args:
        store: Open; it, or another process, runs a relay.
        progress: Told what is done, and of how many keys.
        still_seconds: How long nothing may happen before it is given up.

    Raises:
        SettleTimeoutError: Nothing happened for so long; the message says what the targets said last.
    """
    from fourfold.relay.status import relay_status

    most = 0
    seen: object = None
    moved_at = time.monotonic()
    pause_seconds = _POLL_LEAST_SECONDS
    while True:
        status = await relay_status(store.engine, store.plan, store.targets)
        left = sum(target.keys for target in status.targets)
        if not left and not status.lines:
            return status
        state = (status.lines, left, tuple(target.last_settled_at for target in status.targets))
        if state != seen:
            seen, moved_at, pause_seconds = state, time.monotonic(), _POLL_LEAST_SECONDS
        most = max(most, left)
        progress("settle", most - left, most)
        if time.monotonic() > moved_at + still_seconds:
            raise _gave_up(status, still_seconds)
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 1.5, _POLL_MOST_SECONDS)


def _gave_up(status: RelayStatus, still_seconds: float) -> SettleTimeoutError:
    behind = [target for target in status.targets if target.keys]
    said = "; ".join(f"{target.name}: {target.keys:,} keys, {target.last_error or 'no error'}" for target in behind)
    message = f"nothing was settled for {still_seconds:g} s: {said or f'{status.lines:,} lines wait for dispatch'}"
    hint = "Nothing is lost, and the relay goes on; see `fourfold status`"
    return SettleTimeoutError(message, hint=hint, targets=tuple(target.name for target in behind))
