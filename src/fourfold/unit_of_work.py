"""One commit for rows and files, and a handle to wait until the targets have what it changed.

A unit owns a session (or joins one that is there). Its write transaction begins with its first statement, so an upload
before that holds no lock. On leaving the block without an exception it is committed; on an exception it is rolled
back, and what was uploaded stays staged until its lease ends. The ids of the unit's own change lines are read inside
the transaction, before the commit: afterwards a relay may have taken them already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.orm import Session

from fourfold.errors import ConfigurationError
from fourfold.relay.waiting import UnitChanges, check_targets, wait_settled
from fourfold.rows.changes import mark_begin_sync, own_changes_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import SessionTransaction

    from fourfold.objects.files import Files

__all__ = ["TrackedSession", "UnitOfWork", "changes_of"]

_COMMITTED = "fourfold_changes"
_UNCOMMITTED = "fourfold_uncommitted_changes"
_CONNECTION = "fourfold_connection"


class TrackedSession(Session):
    """A session that remembers which change lines its commits wrote.

    Example:
        ```python
        AsyncSession(engine, sync_session_class=TrackedSession)
        ```
    """


@event.listens_for(TrackedSession, "after_begin")
def _mark_begin(session: Session, _transaction: SessionTransaction, connection: sa.Connection) -> None:
    mark_begin_sync(connection)
    session.info[_CONNECTION] = connection


@event.listens_for(TrackedSession, "before_commit")
def _look_for_changes(session: Session) -> None:
    if session.in_nested_transaction():
        return  # a savepoint's end commits nothing
    session.flush()  # what the flush writes has its lines only afterwards
    connection = session.info.get(_CONNECTION)
    if connection is None:
        return  # the database was asked nothing: a transaction of its own would wait for writers, and have no lines
    lines = own_changes_sync(connection)
    if lines is not None:
        session.info[_UNCOMMITTED] = changes_of(session).extended(lines)


@event.listens_for(TrackedSession, "after_commit")
def _remember_changes(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[_COMMITTED] = session.info.pop(_UNCOMMITTED, changes_of(session))


@event.listens_for(TrackedSession, "after_rollback")
def _forget_changes(session: Session) -> None:
    session.info.pop(_UNCOMMITTED, None)


@event.listens_for(TrackedSession, "after_transaction_end")
def _forget_connection(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_CONNECTION, None)


def changes_of(session: Session) -> UnitChanges:
    """Return what a tracked session's commits wrote into the queue so far.

    Raises:
        ConfigurationError: Code `rows.not_marked`: nobody looked what another session wrote, so "settled" would be said
            of everything.
    """
    if not isinstance(session, TrackedSession):
        message = f"what this {type(session).__name__} committed is not known; expected a TrackedSession"
        hint = "Make it with sync_session_class=TrackedSession"
        raise ConfigurationError(message, code="rows.not_marked", hint=hint)
    changes: UnitChanges = session.info.get(_COMMITTED, UnitChanges())
    return changes


class UnitOfWork:
    """What `Fourfold.unit_of_work()` yields.

    Args:
        session: The session to work with; committed at the end of the block.
        files: Uploads that become part of the same commit.
        engine: Of the rows.
        targets: Names of all targets.
        wake: Tells the relay of this process.
    """

    def __init__(
        self,
        session: AsyncSession,
        files: Files,
        engine: AsyncEngine,
        targets: tuple[str, ...],
        wake: Callable[[], None],
    ) -> None:
        self.session = session
        self.files = files
        self._engine = engine
        self._targets = targets
        self._wake = wake

    @property
    def changes(self) -> UnitChanges:
        """Change lines and keys that this unit committed.

        Raises:
            ConfigurationError: Code `rows.not_marked`, when it joined a session that is no `TrackedSession`.
        """
        return changes_of(self.session.sync_session)

    async def settled(self, targets: Collection[str] | None = None, *, timeout: float = 30.0) -> None:
        """Return when what this unit changed has reached the targets.

        Args:
            targets: Names of targets; default all.
            timeout: Seconds.

        Raises:
            SettleTimeoutError: Not yet; the relay goes on.
            QuarantinedError: A key of this unit can't be projected.
            NotFoundError: Code `settle.unknown_target`.
            ConfigurationError: As `changes`.
        """
        chosen = check_targets(targets, self._targets)
        await wait_settled(self._engine, self.changes, chosen, timeout=timeout, wake=self._wake)
