"""Long sequences in pieces of bounded size: a statement's parameters, a provider's batch, a transaction's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["halves", "pieces"]

T = TypeVar("T")


def halves(members: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Both halves, to look for the one member that is at fault; the second has the odd one.

    Example:
        >>> halves("abc")
        ('a', 'bc')
    """
    middle = len(members) // 2
    return members[:middle], members[middle:]


def pieces(members: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Slices of at most `size` members, in order; none of an empty sequence.

    Example:
        >>> list(pieces("abcde", 2))
        ['ab', 'cd', 'e']
    """
    return (members[start : start + size] for start in range(0, len(members), size))
