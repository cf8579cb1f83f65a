"""The name of an object: a random UUID, made here, never written twice, never taken from a file name.

A key is the only thing that becomes a path, and only in its one canonical form (36 ASCII characters), so no `..`,
separator, NUL, drive letter or look-alike character can reach a store (S01).
"""

from __future__ import annotations

import re
import uuid
from typing import Final

from fourfold.errors import ValidationError

__all__ = ["OBJECTS_PREFIX", "check_key", "key_of_path", "new_key", "path_of"]

OBJECTS_PREFIX: Final = "objects"

# re.ASCII is implied: the classes name their characters, so full-width digits don't match.
_FORM: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHARD: Final = 2  # 256 folders: 4,000 names each at a million objects, and few folders to sync when they are made


def new_key() -> str:
    """Return a key that nobody has used (122 random bits).

    Example:
        >>> check_key(new_key()) != check_key(new_key())
        True
    """
    return str(uuid.uuid4())


def check_key(key: object) -> str:
    """Return `key` if it is a lower-case UUID of 36 characters.

    Raises:
        ValidationError: Code `objects.key_form`; nothing was looked up.

    Example:
        >>> check_key("3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1")
        '3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1'
    """
    if isinstance(key, str) and _FORM.fullmatch(key):
        return key
    message = f"{key!r:.80} is no object key; expected a lower-case UUID of 36 characters"
    raise ValidationError(message, code="objects.key_form", hint="Use the key that files.put returned")


def path_of(key: object) -> str:
    """Return where an object lies in its store, sharded by the first two digits.

    Raises:
        ValidationError: Code `objects.key_form`.

    Example:
        >>> path_of("3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1")
        'objects/3c/3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1'
    """
    name = check_key(key)
    return f"{OBJECTS_PREFIX}/{name[:_SHARD]}/{name}"


def key_of_path(path: str) -> str | None:
    """Return the key of an object at `path`, or None where something else lies (it is nobody's business here).

    Example:
        >>> key_of_path("objects/3c/3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1")
        '3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1'
        >>> key_of_path("objects/3c/notes.txt") is None
        True
    """
    name = path.rpartition("/")[2]
    return name if _FORM.fullmatch(name) and path == path_of(name) else None
