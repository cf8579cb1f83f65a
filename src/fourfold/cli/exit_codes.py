"""What a command's exit code says. The one place: `fourfold --help` and `docs/reference/cli.md` repeat this table."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """Exit codes of all commands.

    Example:
        >>> ExitCode.DIFFERS, ExitCode.DIFFERS.meaning
        (<ExitCode.DIFFERS: 3>, 'verify or repair: something differs from the rows')
    """

    OK = 0
    ERROR = 1
    USAGE = 2
    DIFFERS = 3
    UNHEALTHY = 4
    PARTIAL = 5
    INTERRUPTED = 130
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        """For people."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "done; for what runs until it is stopped: stopped as asked",
    ExitCode.ERROR: "failed; the error and its code are on standard error",
    ExitCode.USAGE: "the command line is wrong; nothing was done",
    ExitCode.DIFFERS: "verify or repair: something differs from the rows",
    ExitCode.UNHEALTHY: "needs attention; status: lags beyond --max-lag; verify, repair: keys still on their way",
    ExitCode.PARTIAL: "ingest: done, except for files that are broken",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); what was done stays, run it again to go on",
    ExitCode.TERMINATED: "terminated (SIGTERM) before the end; as interrupted",
}
