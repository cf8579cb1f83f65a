#!/usr/bin/env bash
# Builds the wheel, installs it in empty venvs in a temporary folder, and uses it there as a user would:
#   base alone    imports, and the command answers: no optional library leaks into the base
#   [demo]        fourfold init, fourfold demo, from the wheel's own migrations and sample recordings
# The versions are those of the lock. Usage: scripts/check_wheel.sh PYTHON BIN_OF_THE_DEVELOPMENT_VENV
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 bin=$(cd "$2" && pwd)

temporary=$(mktemp -d "${TMPDIR:-/tmp}/fourfold-wheel.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

echo '— build'
"$bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$temporary/dist" .
wheel=$(echo "$temporary"/dist/fourfold-*.whl)
"$bin/python" scripts/check_wheel_contents.py "$wheel"

# Versions of the lock as constraints, without its hashes: the wheel itself, made just now, can have none there.
sed -E -e 's/ *\\$//' -e '/^ +(--hash|#)/d' requirements/dev.txt >"$temporary/constraints.txt"

# The user's settings stay outside, and everything the commands write lands in the temporary folder.
use() { # use VENV COMMAND…: runs a command of that venv in its own empty folder
    local venv=$1
    shift
    mkdir -p "$temporary/home" "$venv.folder"
    (
        cd "$venv.folder"
        env -i HOME="$temporary/home" PATH="$venv/bin:/usr/bin:/bin" LANG=C.UTF-8 PYTHONWARNINGS=default "$@" </dev/null
    )
}

echo '— base alone'
"$python" -m venv "$temporary/base"
"$temporary/base/bin/python" -m pip install --quiet --constraint "$temporary/constraints.txt" "$wheel"
use "$temporary/base" python -I -c 'import fourfold; print("fourfold", fourfold.__version__)'
use "$temporary/base" fourfold --help >/dev/null

echo '— [demo]: init, demo'
"$python" -m venv "$temporary/demo"
"$temporary/demo/bin/python" -m pip install --quiet --constraint "$temporary/constraints.txt" "${wheel}[demo]"
use "$temporary/demo" fourfold init
use "$temporary/demo" fourfold demo
echo 'the wheel works'
