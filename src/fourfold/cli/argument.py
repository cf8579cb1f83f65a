"""Kinds of arguments, for argparse's `type`: a wrong value is wrong usage, refused before anything is opened."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

__all__ = ["folder", "port", "seconds"]

_PORTS: Final = 65_536


def folder(text: str) -> Path:
    """A folder's path. An empty one (a variable that isn't set) would mean the current folder.

    Raises:
        ArgumentTypeError: It is empty.
    """
    if not text:
        message = "expected a folder, got an empty text (for the current one: .)"
        raise argparse.ArgumentTypeError(message)
    return Path(text)


def seconds(text: str) -> float:
    """A duration: zero or more, and finite.

    Raises:
        ArgumentTypeError: It is anything else.

    Example:
        >>> seconds("1.5")
        1.5
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        message = f"{text!r:.40} is no number of seconds; expected 0 or more"
        raise argparse.ArgumentTypeError(message)
    return value


def port(text: str) -> int:
    """A TCP port; 0 takes a free one.

    Raises:
        ArgumentTypeError: It is anything else.
    """
    if not (text.isascii() and text.isdecimal() and int(text) < _PORTS):
        message = f"{text!r:.40} is no port; expected 0 to {_PORTS - 1}"
        raise argparse.ArgumentTypeError(message)
    return int(text)
