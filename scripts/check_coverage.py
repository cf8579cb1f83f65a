"""Demands that all lines and branches of the core ran: relay, objects, integrity. Reads coverage's JSON report.

The overall share has its own gate (`fail_under` in pyproject.toml). This one is apart, because a hole in what
carries the changes can't be made up for by a well-tested command line.

Usage: python scripts/check_coverage.py build/coverage/coverage.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORE = ("relay", "objects", "integrity")


@dataclass(frozen=True)
class Hole:
    """What of one file never ran."""

    path: str
    lines: tuple[int, ...]
    branches: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        """One line for a person: the file, its lines, its branches (from → to; a negative number is the exit)."""
        said = []
        if self.lines:
            said.append("lines " + ", ".join(map(str, self.lines)))
        if self.branches:
            said.append("branches " + ", ".join(f"{start}→{end}" for start, end in self.branches))
        return f"    {self.path}: {'; '.join(said)}"


@dataclass(frozen=True)
class Share:
    """How much of one package ran."""

    package: str
    files: int
    covered: int
    total: int
    holes: tuple[Hole, ...]

    @property
    def percent(self) -> float:
        """Lines and branches that ran, of all there are; 0 when there is nothing to measure."""
        return 100 * self.covered / self.total if self.total else 0.0


def share_of(package: str, report: dict[str, Any]) -> Share:
    """Add up the files of `src/fourfold/<package>` in coverage's report."""
    marker = f"fourfold/{package}/"
    files = {
        name: entry for raw, entry in sorted(report["files"].items()) if marker in (name := raw.replace("\\", "/"))
    }
    covered = total = 0
    holes = []
    for name, entry in files.items():
        summary = entry["summary"]
        covered += summary["covered_lines"] + summary["covered_branches"]
        total += summary["num_statements"] + summary["num_branches"]
        lines = tuple(entry["missing_lines"])
        branches = tuple((start, end) for start, end in entry["missing_branches"])
        if lines or branches:
            holes.append(Hole(name, lines, branches))
    return Share(package, len(files), covered, total, tuple(holes))


def main(arguments: list[str]) -> int:
    """Print a line per package and its holes; 0 when there are none."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(arguments[0])
    if not path.is_file():
        print(f"{path} isn't there: run `make test` first", file=sys.stderr)
        return 2
    report = json.loads(path.read_text(encoding="utf-8"))
    if not report["meta"].get("branch_coverage"):
        print(f"{path} was measured without branches: see [tool.coverage.run] in pyproject.toml", file=sys.stderr)
        return 2
    shares = [share_of(package, report) for package in CORE]
    for share in shares:
        counts = f"{share.covered} of {share.total} lines and branches, {share.files} files"
        print(f"  {share.package:<10} {share.percent:6.2f} %  {counts}")
        for hole in share.holes:
            print(hole)
    if missing := [share.package for share in shares if share.covered < share.total or not share.total]:
        print(f"not all of these ran: {', '.join(missing)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
