"""A `CaptureSpec` as JSON, as it stands in `fourfold_capture`.

A migration can put capture back, and `remove_capture` can find all of it, without the application's declarations.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from fourfold.projection.capture_spec import CaptureSpec, FileColumn, ParentKey
from fourfold.projection.keys import KeyColumn

__all__ = ["spec_from_json", "spec_to_json"]


def spec_to_json(spec: CaptureSpec) -> str:
    """Return the JSON of a spec.

    Example:
        >>> spec = CaptureSpec("songs", (KeyColumn("id", "integer"),))
        >>> spec_from_json(spec_to_json(spec)) == spec
        True
    """
    return json.dumps(asdict(spec), ensure_ascii=False, sort_keys=True)


def spec_from_json(text: str) -> CaptureSpec:
    """Return the spec that `spec_to_json` wrote."""
    values = json.loads(text)
    return CaptureSpec(
        table=values["table"],
        key=tuple(KeyColumn(**column) for column in values["key"]),
        schema=values["schema"],
        projected=values["projected"],
        watched=None if values["watched"] is None else tuple(values["watched"]),
        parents=tuple(
            ParentKey(parent["table"], tuple(KeyColumn(**column) for column in parent["columns"]))
            for parent in values["parents"]
        ),
        files=tuple(FileColumn(**column) for column in values["files"]),
        linked=tuple(values["linked"]),
    )
