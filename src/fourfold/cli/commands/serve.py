"""`fourfold serve`: the status page, with a relay beside it."""

from __future__ import annotations

import argparse

from fourfold.cli.argument import port
from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import command_settings, open_store

__all__ = ["COMMAND", "add_address"]

_DESCRIPTION = """\
Serves a page that says what each store holds, how far behind it is, what is in quarantine, and
what the last verify found; /status says it as JSON, /healthz answers 200 or 503. A relay works
beside it unless --no-relay. Only this machine can reach it; with another --host a token is
needed, and made where none is set. SIGTERM and Ctrl-C stop it."""


def add_address(parser: argparse.ArgumentParser) -> None:
    """The options `--host` and `--port`."""
    parser.add_argument(
        "--host", dest="web_host", metavar="HOST", help="address (FOURFOLD_WEB_HOST; default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port",
        dest="web_port",
        type=port,
        metavar="PORT",
        help="port, or a free one if it is taken (FOURFOLD_WEB_PORT; 8321)",
    )


def _configure(parser: argparse.ArgumentParser) -> None:
    add_address(parser)
    parser.add_argument("--no-relay", action="store_true", help="run no worker beside it (also: FOURFOLD_RELAY=0)")


async def _run(invocation: Invocation) -> int:
    from fourfold.cli.serving import open_door, say_door, serve_until_stopped

    settings = invocation.settings()
    relays = settings.relay and not invocation.arguments.no_relay
    async with open_store(invocation, relay=relays, embeds=relays) as store:
        door = open_door(command_settings(invocation))
        invocation.output.document({"event": "started", "url": door.url, "port": door.port, "relay": relays})
        say_door(door, invocation)
        await serve_until_stopped(store, door, invocation)
    invocation.output.document({"event": "stopped"})
    return ExitCode.OK


COMMAND = Command("serve", "serve the status page", _DESCRIPTION, "fourfold serve --port 8321", _run, _configure)
