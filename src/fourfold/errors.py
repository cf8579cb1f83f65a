"""Every error that Fourfold raises, in one tree, ordered by what the caller does about it.

```
FourfoldError
├── ConfigurationError       fix the settings or the declarations, then start again
├── ValidationError          fix the value (also a ValueError)
├── NotFoundError            there is no such thing (also a LookupError)
├── ConflictError            somebody else was faster or has it; read again and decide
│   └── RevokedError         this worker's token is gone: another one has its keys
├── StoreUnavailableError    try again later (retryable)
├── StoreRejectedError       the store understood and said no; trying again won't help
├── SettleError              what this unit of work changed has not reached a target
│   ├── SettleTimeoutError   not yet (retryable, also a TimeoutError)
│   └── QuarantinedError     a key of it can't be projected: look at its cause
├── DriftError               a target, trigger or schema isn't what the rows and declarations say
└── IntegrityError           bytes or rows are damaged
```

Each has an append-only `code`, a `hint` with the next step, `retryable`, its facts in `facts` (and as attributes), and
pickles. A message says what failed, the value seen, the value expected; no secret is in any of them.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "DriftError",
    "FourfoldError",
    "IntegrityError",
    "NotFoundError",
    "QuarantinedError",
    "RevokedError",
    "SettleError",
    "SettleTimeoutError",
    "StoreRejectedError",
    "StoreUnavailableError",
    "ValidationError",
    "did_you_mean",
]


class FourfoldError(Exception):
    """Root of the tree.

    Args:
        message: What failed, the value seen and the value expected.
        code: Stable, append-only identifier, `area.problem`; every code has a heading in `docs/how-to/errors.md`.
        hint: The next step, as a sentence or a command.
        **facts: What a program wants to know; each is an attribute too.

    Example:
        >>> error = NotFoundError("no object 'x'", code="objects.not_found", key="x")
        >>> error.key, error.retryable
        ('x', False)
    """

    default_code: ClassVar[str] = "fourfold.error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        msg = f"{type(self).__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Callable[..., FourfoldError], tuple[Any, ...]]:
        return _rebuild, (type(self), self.message, self.code, self.hint, self.facts)


def _rebuild(kind: type[FourfoldError], message: str, code: str, hint: str, facts: dict[str, Any]) -> FourfoldError:
    return kind(message, code=code, hint=hint, **facts)


class ConfigurationError(FourfoldError):
    """Settings, declarations or an installation are wrong: fix them and start again."""

    default_code = "configuration.error"


class ValidationError(FourfoldError, ValueError):
    """A value was refused before anything was stored."""

    default_code = "validation.error"


class NotFoundError(FourfoldError, LookupError):
    """There is no such row, object, node or point."""

    default_code = "not_found.error"


class ConflictError(FourfoldError):
    """Somebody else has it, or was faster: read again and decide."""

    default_code = "conflict.error"


class RevokedError(ConflictError):
    """The token is absent in the target, so it was revoked: another worker has the keys; nothing was written."""

    default_code = "relay.revoked"


class StoreUnavailableError(FourfoldError):
    """A store can't be reached, or its answer was lost: the outcome is unknown, trying again is right."""

    default_code = "store.unavailable"
    retryable = True


class StoreRejectedError(FourfoldError):
    """A store refused; the same request will be refused again."""

    default_code = "store.rejected"


class SettleError(FourfoldError):
    """What a unit of work changed has not reached a target."""

    default_code = "settle.error"


class SettleTimeoutError(SettleError, TimeoutError):
    """Not yet settled when the time was over; the relay goes on, wait again."""

    default_code = "settle.timeout"
    retryable = True


class QuarantinedError(SettleError):
    """A key of this unit can't be projected; its cause is in the message and in `fourfold status`."""

    default_code = "settle.quarantined"


class DriftError(FourfoldError):
    """A target, trigger or schema differs from what rows and declarations say."""

    default_code = "drift.error"


class IntegrityError(FourfoldError):
    """Bytes or rows are damaged: missing, short or altered."""

    default_code = "integrity.error"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest known name, else an empty string.

    Example:
        >>> did_you_mean("titel", ["title", "id"])
        "; did you mean 'title'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
