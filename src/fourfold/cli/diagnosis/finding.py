"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fourfold.errors import FourfoldError

__all__ = ["Finding", "Level", "of_error"]

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        subject: What was looked at.
        level: `ok`; `note`, good to know; `warning`, will hurt some day; `error`, doesn't work.
        seen: What was found.
        advice: What to do; empty when nothing.
        code: Of the error, where it is one.
    """

    subject: str
    level: Level
    seen: str
    advice: str = ""
    code: str = ""


def of_error(subject: str, error: FourfoldError) -> Finding:
    """Turn an error into a finding."""
    return Finding(subject, "error", error.message, error.hint, error.code)
