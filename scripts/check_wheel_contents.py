"""Fails when the wheel lacks a file of the package: migrations, SQL, templates, sample recordings, py.typed.

An editable install has every file, so a wheel that forgot one is noticed by users first, unless it is looked at.

Usage: python scripts/check_wheel_contents.py dist/fourfold-….whl
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
SAMPLES = "fourfold/catalogs/recordings/samples/"


def main(arguments: list[str]) -> int:
    """Compare the wheel's names with the files below src; 0 when each is there and no stranger is."""
    with zipfile.ZipFile(arguments[0]) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    wanted = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "fourfold").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in sorted(wanted - packed):
        print(f"not in the wheel: {name}", file=sys.stderr)
    for name in sorted(packed - wanted):
        print(f"in the wheel, but not below src: {name}", file=sys.stderr)
    samples = sum(name.startswith(SAMPLES) for name in packed)
    print(f"{len(packed)} files in the wheel, {samples} of them samples")
    return int(wanted != packed or not samples or "fourfold/py.typed" not in packed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
