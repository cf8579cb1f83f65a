"""Capture: triggers that record which rows changed, in the transaction that changes them, whoever writes.

`postgresql` and `sqlite` turn a `CaptureSpec` into texts, `install` runs them, `check` compares the database with them,
`keys` says in SQL what `KeyCodec` says in Python, `references` mirrors the files that rows name.
"""

from fourfold.rows.capture.check import CaptureProblem
from fourfold.rows.capture.install import (
    check_capture,
    install_capture,
    installed_specs,
    release,
    remove_capture,
    synchronise,
)
from fourfold.rows.capture.keys import key_expression
from fourfold.rows.capture.suspend import capture_suspended

__all__ = [
    "CaptureProblem",
    "capture_suspended",
    "check_capture",
    "install_capture",
    "installed_specs",
    "key_expression",
    "release",
    "remove_capture",
    "synchronise",
]
