"""All benchmarks, one after the other: `make bench`. Each prints ratios to a hand-written best of the same run."""

from __future__ import annotations

import subprocess
import sys

NAMES = ("capture", "files", "graph_sqlite", "vectors", "recordings")

if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
