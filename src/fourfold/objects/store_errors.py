"""What obstore and the operating system raise, mapped into Fourfold's tree by class or error number, never by text.

`mapped_store_errors()` stands around every call of a store. Messages name the object and what was tried; obstore's own
text stays in the cause, for it quotes paths and endpoints.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from obstore import exceptions as obstore_exceptions

from fourfold.errors import (
    ConfigurationError,
    ConflictError,
    FourfoldError,
    IntegrityError,
    NotFoundError,
    StoreRejectedError,
    StoreUnavailableError,
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["map_store_error", "mapped_store_errors"]

_Outcome = tuple[type[FourfoldError], str, str, str]  # class, code, what happened, hint

_AWAY: Final[_Outcome] = (
    StoreUnavailableError,
    "objects.unavailable",
    "the object store failed or can't be reached; the outcome is unknown",
    "Check that it is there, then try again",
)
_MISSING: Final[_Outcome] = (NotFoundError, "objects.not_found", "no such object in the store", "")
_DENIED: Final[_Outcome] = (
    StoreRejectedError,
    "objects.denied",
    "the object store refused access",
    "Check credentials and rights on the folder or bucket",
)
_FULL: Final[_Outcome] = (
    StoreUnavailableError,
    "objects.disk_full",
    "no room in the object store (disk, quota or file-size limit)",
    "Make room, then try again; nothing half-written stays visible",
)
_LINK: Final[_Outcome] = (
    IntegrityError,
    "objects.symlink",
    "a symbolic link or foreign file stands where the store keeps its own",
    "Find out who put it there; the store never follows it",
)

_CLASSES: Final[dict[str, _Outcome]] = {
    "AlreadyExistsError": (ConflictError, "objects.exists", "an object of this name is there already", ""),
    "BaseError": _AWAY,
    "GenericError": _AWAY,
    "InvalidPathError": (ValidationError, "objects.key_form", "the store can't hold an object of this name", ""),
    "JoinError": _AWAY,
    "NotFoundError": _MISSING,
    "NotModifiedError": (ConflictError, "objects.not_modified", "the object is the one that is known already", ""),
    "NotSupportedError": (StoreRejectedError, "objects.not_supported", "the object store can't do this", ""),
    "PermissionDeniedError": _DENIED,
    "PreconditionError": (ConflictError, "objects.precondition", "the object is another one by now", "Read it again"),
    "UnauthenticatedError": _DENIED,
    "UnknownConfigurationKeyError": (
        ConfigurationError,
        "objects.configuration",
        "the object store doesn't know one of its settings",
        "Check the settings of the object store",
    ),
}

_NUMBERS: Final[dict[int, _Outcome]] = {
    errno.ENOENT: _MISSING,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.ELOOP: _LINK,
    errno.ENOTDIR: _LINK,
}


@contextmanager
def mapped_store_errors(action: str, key: str) -> Iterator[None]:
    """Raise what a store raises inside as Fourfold's own.

    Args:
        action: What is tried, as a verb: `read`.
        key: Of the object, or the name of the marker.

    Raises:
        FourfoldError: Of the mapped class, with the original as its cause.
    """
    try:
        yield
    except (obstore_exceptions.BaseError, OSError) as error:
        raise map_store_error(error, action, key) from error


def map_store_error(error: Exception, action: str, key: str) -> FourfoldError:
    """Return Fourfold's error for one of obstore's, or for an `OSError`.

    Args:
        error: What was raised.
        action: What was tried, as a verb: `read`. One that misses a file means the object, but for `write`.
        key: Of the object, or the name of the marker.

    Example:
        >>> map_store_error(FileNotFoundError(), "read", "3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1").code
        'objects.not_found'
    """
    if isinstance(error, FileNotFoundError):  # obstore raises the builtin, without a number
        outcome = _AWAY if action == "write" else _MISSING  # a write looks nothing up: the store's own folder is gone
    elif isinstance(error, OSError):
        outcome = _NUMBERS.get(error.errno or 0, _AWAY)
    else:
        outcome = next((_CLASSES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _CLASSES), _AWAY)
    kind, code, what, hint = outcome
    seen = type(error).__name__ + (f" {errno.errorcode.get(number, number)}" if (number := _number(error)) else "")
    return kind(f"can't {action} {key}: {what} ({seen})", code=code, hint=hint, key=key)


def _number(error: Exception) -> int | None:
    return error.errno if isinstance(error, OSError) else None
