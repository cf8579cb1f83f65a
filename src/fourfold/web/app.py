"""The status page and its two machine-readable neighbours, as a FastAPI application over an open store.

Reads only. Who may reach it decides who serves it: `fourfold serve` listens on loopback, and wants a token anywhere
else. The `Host` header is checked, so that a page on the internet can't read it through a name that resolves to this
machine.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from fourfold import __version__
from fourfold.errors import ConfigurationError, FourfoldError
from fourfold.web.document import status_document
from fourfold.web.page import CONTENT_SECURITY_POLICY, main_of, page_of
from fourfold.web.snapshot import SnapshotReader

try:
    from fastapi import APIRouter, FastAPI, Request, Response
    from fastapi.responses import HTMLResponse, JSONResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        f"the status page needs {missing.name}, which is not installed",
        code="web.extra",
        hint="pip install 'fourfold[web]'",
        extra="web",
    ) from missing

if TYPE_CHECKING:
    from fourfold.fourfold import Fourfold

__all__ = ["LOOPBACK_HOSTS", "status_app"]

LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def status_app(store: Fourfold, *, token: str = "", hosts: Sequence[str] = LOOPBACK_HOSTS) -> FastAPI:
    """Make the application: `/`, `/healthz` and `/status`.

    Args:
        store: An open `Fourfold`; it is not closed here.
        token: What a request must show (`Authorization: Bearer …` or `?token=…`), but for `/healthz`; empty for none.
        hosts: Names that a request's `Host` may have; `["*"]` for any, behind a proxy that checks.

    Raises:
        ConfigurationError: Code `web.extra`: FastAPI isn't installed.

    Example:
        ```python
        app.mount("/fourfold", status_app(store, hosts=["*"]))
        ```
    """
    app = FastAPI(title="Fourfold", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if token and not request.url.path.endswith("/healthz") and not _shows(request, token):
            needed = "a token is needed: ?token=… in the address, or the header Authorization: Bearer …"
            return JSONResponse({"error": needed}, 401, {"WWW-Authenticate": "Bearer"})
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    app.include_router(_router(SnapshotReader(store)))
    return app


def _router(reader: SnapshotReader) -> APIRouter:
    router = APIRouter()

    @router.get("/")
    async def page(request: Request) -> HTMLResponse:
        snapshot = await reader.read()
        fragment = request.headers.get("X-Fragment") == "main"
        return HTMLResponse(main_of(snapshot) if fragment else page_of(snapshot, __version__, request.url.query))

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        """200 when the rows answer and nothing needs attention, else 503; says no details, anybody may ask."""
        try:
            healthy = (await reader.read_status()).healthy
        except FourfoldError:
            healthy = False
        return JSONResponse({"healthy": healthy}, 200 if healthy else 503)

    @router.get("/status")
    async def status() -> JSONResponse:
        """As `fourfold status --json`."""
        try:
            found = await reader.read_status()
        except FourfoldError as error:
            return JSONResponse({"healthy": False, "error": {"code": error.code, "message": error.message}}, 503)
        return JSONResponse(status_document(found))

    return router


def _shows(request: Request, token: str) -> bool:
    shown = request.query_params.get("token") or request.headers.get("Authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(shown.encode(), token.encode())
