#!/usr/bin/env bash
# Sees to it that PostgreSQL's server programs (initdb, postgres, pg_ctl) are on this machine: the tests start servers of
# their own from them, in temporary folders. Installs Debian's packages where they are missing and we may; else says what
# to run. No service is left running, no cluster is made.
set -euo pipefail

have_postgres() {
    command -v initdb >/dev/null && command -v postgres >/dev/null && return 0
    # Debian keeps them off the PATH.
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

if have_postgres; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    cat >&2 <<'SAY'
The tests need PostgreSQL's server programs (initdb, postgres), 14 or newer, and this user can't install them here.
  Debian, Ubuntu:  sudo apt-get install postgresql
  Fedora:          sudo dnf install postgresql-server
  macOS:           brew install postgresql@17
then put the folder of initdb on the PATH and run make again.
SAY
    exit 1
fi

echo 'PostgreSQL server programs are missing: installing the package postgresql.' >&2
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
# postgresql-common first: its setting keeps the server package from making a cluster and starting it.
"${as_root[@]}" apt-get install -y -qq --no-install-recommends postgresql-common </dev/null >&2
"${as_root[@]}" sed -i -E 's/^#?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
"${as_root[@]}" apt-get install -y -qq --no-install-recommends postgresql </dev/null >&2
have_postgres || { echo 'the package postgresql brought no initdb' >&2; exit 1; }
