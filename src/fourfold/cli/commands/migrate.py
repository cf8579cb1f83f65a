"""`fourfold migrate`: the step of a deployment that changes the database; request servers never do."""

from __future__ import annotations

from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.installing import install_application
from fourfold.cli.opening import application_of

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Brings Fourfold's tables, the catalog's and the triggers up to this release, and records the
declarations; from then on workers with others stand aside. What a table becomes that changed is
written again. Your application's own tables are yours to migrate, before. Run it after every
deployment, and after migrations that changed captured tables. Several at once are safe."""


async def _run(invocation: Invocation) -> int:
    application, output = application_of(invocation), invocation.output
    installed = await install_application(invocation.settings(), application)
    output.document({"app": application.name, "was_new": installed.was_new, "done": installed.done})
    for text in installed.done:
        output.line(text)
    output.line("up to date" if installed.done else "everything was up to date")
    return ExitCode.OK


COMMAND = Command("migrate", "bring tables and triggers up to this release", _DESCRIPTION, "fourfold migrate", _run)
