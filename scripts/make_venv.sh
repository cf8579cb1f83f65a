#!/usr/bin/env bash
# Makes VENV with PYTHON and installs the locked dependencies and this library (editable) into it.
# Called by `make setup`; safe to run again. Usage: scripts/make_venv.sh PYTHON VENV
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 venv=$2

if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then
    found=$("$python" --version 2>&1 || true)
    echo "Fourfold needs Python 3.11 to 3.14; '$python' is: ${found:-not there}. Say which: make PYTHON=python3.13 …" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "'$python' can't make a venv. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2
    exit 1
fi

# A venv of another Python (or one that was moved) is made anew; one that fits is kept, so this stays quick.
wanted=$("$python" -c 'import sys; print(sys.version_info[:2])')
if [ "$("$venv/bin/python" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null || true)" != "$wanted" ]; then
    "$python" -m venv --clear "$venv"
fi
"$venv/bin/python" -m pip install --quiet --require-hashes -r requirements/dev.txt
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
