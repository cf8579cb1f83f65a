"""Named points around every commit, store call and acknowledgement, where tests stop, kill or fail the process.

Production code calls `reach(name)` (or `reach_sync` in a thread); without a hook that is one comparison. Hooks are set
by `fourfold.testing` only. The names are part of the tests' contract: `area.before_step` or `area.after_step`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["reach", "reach_sync", "set_hooks"]

_hook: Callable[[str], Awaitable[None]] | None = None
_hook_sync: Callable[[str], None] | None = None


def set_hooks(hook: Callable[[str], Awaitable[None]] | None, hook_sync: Callable[[str], None] | None = None) -> None:
    """Install what runs at each point (None removes it)."""
    global _hook, _hook_sync
    _hook, _hook_sync = hook, hook_sync


async def reach(point: str) -> None:
    """Say that `point` was reached; a hook may wait, raise or kill here."""
    if _hook is not None:
        await _hook(point)


def reach_sync(point: str) -> None:
    """As `reach`, for code that runs in a thread."""
    if _hook_sync is not None:
        _hook_sync(point)
