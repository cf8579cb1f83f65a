"""Serves the status page of an open store until it is told to stop: on loopback, on the usual port or a free one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fourfold.errors import ConfigurationError

if TYPE_CHECKING:
    from fourfold.cli.application import CommandSettings
    from fourfold.cli.command import Invocation
    from fourfold.fourfold import Fourfold

__all__ = ["Door", "open_door", "say_door", "serve_until_stopped"]

_GOODBYE_SECONDS: Final = 3  # for requests in hand


@dataclass(frozen=True, slots=True)
class Door:
    """Where the page is.

    Args:
        sockets: Bound; several where a name has several addresses.
        host: As it was asked for.
        url: For people, with the token where one is needed.
        token: Empty on loopback.
        wanted_port: The port that was asked for.
        port: The port that it became.
    """

    sockets: tuple[socket.socket, ...]
    host: str
    url: str
    token: str
    wanted_port: int
    port: int


def open_door(settings: CommandSettings) -> Door:
    """Bind the address of the settings; another port where theirs is taken.

    Args:
        settings: `web_host`, `web_port` and `web_token`.

    Raises:
        ConfigurationError: Code `web.address`: the address isn't this machine's, or the port needs more rights.
    """
    try:
        bound = _bind(settings.web_host, settings.web_port)
    except OSError as error:
        message = f"can't listen on {settings.web_host} port {settings.web_port}: {error.strerror or error}"
        hint = "Set FOURFOLD_WEB_HOST and FOURFOLD_WEB_PORT, or give --host and --port"
        raise ConfigurationError(message, code="web.address", hint=hint) from error
    port = bound.getsockname()[1]
    token = "" if _is_loopback(settings.web_host) else settings.web_token or secrets.token_urlsafe(24)
    host = f"[{settings.web_host}]" if ":" in settings.web_host else settings.web_host
    url = f"http://{host}:{port}/" + (f"?token={token}" if token else "")
    return Door((bound,), settings.web_host, url, token, settings.web_port, port)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    return socket.create_server((host, 0), family=family)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def serve_until_stopped(store: Fourfold, door: Door, invocation: Invocation) -> None:
    """Serve until SIGINT or SIGTERM; requests in hand are answered.

    Args:
        store: Open.
        door: As `open_door` opened it; closed at the end.
        invocation: Of the command, for its wish to stop.

    Raises:
        ConfigurationError: Code `web.extra`: FastAPI or uvicorn isn't installed.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        message = "the status page needs uvicorn, which is not installed"
        hint = "pip install 'fourfold[web]'"
        raise ConfigurationError(message, code="web.extra", hint=hint, extra="web") from error
    from fourfold.web.app import LOOPBACK_HOSTS, status_app

    # Without a token the names of this machine protect it: of 127.0.0.2, too, where that was asked for.
    app = status_app(store, token=door.token, hosts=["*"] if door.token else [*LOOPBACK_HOSTS, door.host])
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=_GOODBYE_SECONDS
    )
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign]  # they are ours, see cli.stopping
    with invocation.stop.graceful() as requested:
        serving = asyncio.create_task(server.serve(sockets=list(door.sockets)))
        stopping = asyncio.create_task(requested.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await serving
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)


@contextlib.contextmanager
def _no_signals(*_: Any) -> Iterator[None]:
    yield


def say_door(door: Door, invocation: Invocation) -> None:
    """Say where the page is, and whether that isn't where it was wanted."""
    output = invocation.output
    if door.wanted_port not in {0, door.port}:
        output.problem(f"port {door.wanted_port} is taken; using {door.port}")
    if door.token:
        output.problem("others than this machine can reach the page: a token is needed, it is part of the address")
    output.line(f"status page: {door.url} (Ctrl-C stops it)")
