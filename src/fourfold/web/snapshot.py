"""What the status page shows, read from all stores at once; a store that fails is a sentence, not an error page."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fourfold.errors import FourfoldError
from fourfold.web.contents import Contents, read_contents
from fourfold.web.verification import LastVerify, last_verify

if TYPE_CHECKING:
    from fourfold.fourfold import Fourfold, StoreStatus

__all__ = ["Snapshot", "SnapshotReader", "State"]

State = Literal["in step", "behind", "needs attention", "unreachable"]

_CONTENTS_SECONDS: Final = 10.0  # counting is a full scan; so often at most, however many look


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of everything at a moment; what couldn't be read is None, and `failure` says why.

    Args:
        at: Seconds since 1970, by this machine's clock.
        status: Of the relay and the installation; None where the rows are away.
        contents: Counts per store; None where one of them is away.
        verified: What the last verify found; None where none ran.
        failure: What couldn't be read, why, and what to do.
    """

    at: float
    status: StoreStatus | None
    contents: Contents | None
    verified: LastVerify | None
    failure: str = ""

    @property
    def state(self) -> State:
        """In one word."""
        if self.status is None:
            return "unreachable"
        if self.failure or not self.status.healthy or (self.verified is not None and self.verified.differs):
            return "needs attention"
        return "in step" if self.status.in_step else "behind"


class SnapshotReader:
    """Reads snapshots of one open store; counts are kept for some seconds.

    Args:
        store: An open `Fourfold`.
    """

    def __init__(self, store: Fourfold) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._contents: Contents | None = None
        self._counted_at = float("-inf")

    async def read(self) -> Snapshot:
        """Read everything; never raises a `FourfoldError`."""
        at = time.time()
        try:
            status = await self._store.status()
            verified = await last_verify(self._store.engine)
        except FourfoldError as error:
            return Snapshot(at, None, None, None, _said(error))
        try:
            return Snapshot(at, status, await self._read_contents(), verified)
        except FourfoldError as error:  # what the rows say is shown all the same
            return Snapshot(at, status, None, verified, _said(error))

    async def read_status(self) -> StoreStatus:
        """Read lag and installation alone.

        Raises:
            FourfoldError: The rows are away.
        """
        return await self._store.status()

    async def _read_contents(self) -> Contents:
        async with self._lock:
            now = time.monotonic()
            if self._contents is None or now >= self._counted_at + _CONTENTS_SECONDS:
                self._contents = await read_contents(self._store.stores, self._store.plan)
                self._counted_at = now
            return self._contents


def _said(error: FourfoldError) -> str:
    return f"{error.message} ({error.code}). {error.hint}".rstrip()
