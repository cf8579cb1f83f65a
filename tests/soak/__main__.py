"""`python -m tests.soak`: kill -9 under load, and random scripts, on both dialects; ends with figures and exit code 0.

Everything is made in a temporary folder, and a PostgreSQL server of its own, which is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests import servers
from tests.property.machine.scripts import play_rounds
from tests.soak import kills


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--dialect", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of kills per dialect (default 200)")
    parser.add_argument("--seconds-per-round", type=float, default=5.0, help="load per round (default 5)")
    parser.add_argument("--scripts", type=int, default=1_000, help="random scripts per dialect (default 1000)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="default: a new one, printed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after that many")
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped then, too
    until = time.monotonic() + arguments.minutes * 60
    dialects = ["sqlite", "postgresql"] if arguments.dialect == "both" else [arguments.dialect]
    try:
        summaries = [line for dialect in dialects for line in soak(dialect, arguments, until)]
    finally:
        servers.stop_all()
    for line in summaries:
        say(line)
    return 0


def soak(dialect: str, arguments: argparse.Namespace, until: float) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="fourfold-soak-") as name:
        folder = Path(name)
        figures = asyncio.run(
            kills.run(
                rows(dialect, folder / "kills.db"),
                folder / "kills",
                rounds=arguments.rounds,
                seconds=arguments.seconds_per_round,
                seed=arguments.seed,
                say=lambda text: say(f"{dialect}: {text}"),
                until=until,
            )
        )
        summaries = [f"{dialect}: {figures}; converged after each round"]
        played, started, counts = 0, time.monotonic(), {}
        while played < arguments.scripts and time.monotonic() < until:
            size = min(25, arguments.scripts - played)
            numbers = range(arguments.seed + played, arguments.seed + played + size)
            some = asyncio.run(
                play_rounds(rows(dialect, folder / f"{played}.db", quick=True), folder / f"{played}", numbers)
            )
            counts = {name: counts.get(name, 0) + some.get(name, 0) for name in counts | some}
            played += size
            say(f"{dialect}: {played} scripts, {time.monotonic() - started:.0f} s")
        listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        return [*summaries, f"{dialect}: {played} scripts in {time.monotonic() - started:.0f} s ({listed})"]


def rows(dialect: str, path: Path, *, quick: bool = False) -> str:
    if dialect == "sqlite":
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{path}"
    name = servers.fresh_name()
    url = servers.postgresql().create_database(name, servers.TEMPLATE)
    if quick:
        servers.postgresql().execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    return url


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
