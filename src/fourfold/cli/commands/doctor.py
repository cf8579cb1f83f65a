"""`fourfold doctor`: looks at everything that usually goes wrong, and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourfold.cli.command import Command, Invocation
from fourfold.cli.diagnosis.finding import Finding, of_error
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import application_of, open_rows, plan_of, require_initialised
from fourfold.errors import ConfigurationError, FourfoldError

if TYPE_CHECKING:
    from fourfold.settings import Settings

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Looks at versions, settings, rights and disk space, then at each store: a round trip, capture,
clocks, triggers that would call themselves, lag and quarantine. Says what to run for each thing
that is wrong. It writes one small object and removes it again, and changes nothing else. Exits
with 4 when something doesn't work; notes and warnings leave it at 0."""


async def _run(invocation: Invocation) -> int:
    from fourfold.cli.diagnosis.machine import check_disk, check_environment, check_versions

    settings = invocation.settings()
    findings = [*check_versions(), *check_environment(settings), *check_disk(settings)]
    try:
        require_initialised(settings)  # everything below would make what isn't there
    except ConfigurationError as error:
        findings.append(of_error("rows", error))
    else:
        findings += await _check_stores(invocation, settings)
    worst = any(finding.level == "error" for finding in findings)
    invocation.output.document({"healthy": not worst, "findings": findings})
    _say(invocation, findings)
    return ExitCode.UNHEALTHY if worst else ExitCode.OK


async def _check_stores(invocation: Invocation, settings: Settings) -> list[Finding]:
    from fourfold.cli.commands.status import read_status
    from fourfold.cli.diagnosis import stores as checks

    plan = plan_of(application_of(invocation))
    found: list[Finding] = []
    try:
        async with open_rows(settings, plan) as stores:
            found += [finding async for finding in checks.check_rows(stores)]
            if not any(finding.level == "error" for finding in found):  # else they would say the same again
                found += [finding async for finding in checks.check_status(await read_status(stores, plan))]
                found += [finding async for finding in checks.check_files(stores)]
    except FourfoldError as error:
        found.append(of_error("rows", error))
    found += [finding async for finding in checks.check_graph(settings, plan)]
    found += [finding async for finding in checks.check_vectors(settings, plan)]
    return found


def _say(invocation: Invocation, findings: list[Finding]) -> None:
    output = invocation.output
    for finding in findings:
        if finding.level == "ok":
            output.line(f"{'ok':<8} {finding.subject}: {finding.seen}")
            continue
        code = f" ({finding.code})" if finding.code else ""
        say = output.problem if finding.level == "error" else output.line
        say(f"{finding.level:<8} {finding.subject}: {finding.seen}{code}")
        if finding.advice:
            say(f"{'':<8}   {finding.advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("error", "warning", "note")}
    output.line(", ".join(f"{number} {level}{'' if number == 1 else 's'}" for level, number in counts.items()))


COMMAND = Command("doctor", "find what is wrong, and say what to do", _DESCRIPTION, "fourfold doctor", _run)
