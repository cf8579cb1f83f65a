"""The HTTP door: a status page, `/healthz` and `/status`. Needs the extra `fourfold[web]`.

`contents`, `document` and `verification` need no web framework: the command line uses them too.

An application mounts the same thing: `app.mount("/fourfold", status_app(store))`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourfold.web.app import status_app

__all__ = ["status_app"]


def __getattr__(name: str) -> Any:
    # Late: `fourfold stats` imports web.contents on installations without FastAPI.
    if name == "status_app":
        from fourfold.web.app import status_app

        return status_app
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
