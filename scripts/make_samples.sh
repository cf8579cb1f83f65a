#!/usr/bin/env bash
# Synthesizes the sample recordings again, in a temporary venv: ffmpeg is needed for this only, not by the library.
# Usage: scripts/make_samples.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
temporary=$(mktemp -d "${TMPDIR:-/tmp}/fourfold-samples.XXXXXX")
trap 'rm -rf "$temporary"' EXIT
"$1" -m venv "$temporary/venv"
"$temporary/venv/bin/python" -m pip install --quiet --require-hashes -r requirements/samples.txt
"$temporary/venv/bin/python" scripts/make_samples.py src/fourfold/catalogs/recordings/samples
