"""A PostgreSQL cluster of one's own for tests: made in a temporary folder, on loopback, gone at the end.

Nothing outside the folder is touched; the server is stopped by the process id in its own folder. Writes are synced as
in production (fsync stays on), because the tests are about crashes. One cluster costs about a second, a database 0.1 s.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from fourfold.errors import ConfigurationError, StoreUnavailableError

__all__ = ["PostgresCluster", "find_postgresql"]

_FIRST_PORT: Final = 20_000
_PORTS: Final = 12_000  # below 32768, where Linux takes the ports of outgoing connections from
_ACCOUNT: Final = "postgres"
_DEBIAN: Final = Path("/usr/lib/postgresql")
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "on",
    "log_min_messages": "warning",
}
_GUARD: Final = 'read _; "$0" -D "$1" -m immediate -w stop; rm -rf "$2"'


def find_postgresql() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl` (the PATH's, else Debian's newest), or None."""
    on_path = shutil.which("initdb")
    if on_path and shutil.which("pg_ctl"):
        return Path(on_path).parent
    installed = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return installed[-1].parent if installed else None


class PostgresCluster:
    """A running server with databases made from templates.

    Args:
        programs: Folder of `initdb` and `pg_ctl`; None looks for it.

    Raises:
        ConfigurationError: Code `testing.no_postgresql`, when there are no server programs.
        StoreUnavailableError: Code `testing.postgresql_start`, when it doesn't start; the log is in the message.

    Example:
        ```python
        cluster = PostgresCluster()
        cluster.create()
        try:
            url = cluster.create_database("mine")
        finally:
            cluster.destroy()
        ```
    """

    def __init__(self, programs: Path | None = None) -> None:
        found = programs or find_postgresql()
        if found is None:
            message = "no PostgreSQL server programs: neither initdb on the PATH nor /usr/lib/postgresql/*/bin"
            raise ConfigurationError(message, code="testing.no_postgresql", hint="Run: make postgres")
        self._programs = found
        self._folder = Path(tempfile.mkdtemp(prefix="fourfold-postgresql-"))
        self._password = secrets.token_urlsafe(16)
        self._guard: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self._folder / "data"

    @property
    def pid(self) -> int:
        """The server's process id, for tests that kill it."""
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def version(self) -> str:
        """Major version, as `15`."""
        return (self.data / "PG_VERSION").read_text().strip()

    def create(self) -> None:
        """Make the cluster and start it."""
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            account = pwd.getpwnam(_ACCOUNT)
            for path in (self._folder, password_file):
                os.chown(path, account.pw_uid, account.pw_gid)
        arguments = ["-U", _ACCOUNT, "-A", "scram-sha-256", "--pwfile", str(password_file), "-E", "UTF8"]
        self._run("initdb", "-D", str(self.data), *arguments, "--locale=C.UTF-8", "--no-instructions")
        password_file.unlink()
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        # A test run that is killed can't clean up. The guard waits for the end of a pipe that only this process holds.
        guard = self._as_account("sh", "-c", _GUARD, str(self._programs / "pg_ctl"), str(self.data), str(self._folder))
        self._guard = subprocess.Popen(  # noqa: S603 - fixed programs and arguments of our own
            guard,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self.start()

    def start(self) -> None:
        """Start the server (again, after `stop`), on the same port where it had one."""
        log = self._folder / "log"
        for _ in range(20):  # between looking for a free port and taking it another process may take it
            port = self.port or _free_port()
            try:
                self._run("pg_ctl", "-D", str(self.data), "-l", str(log), "-o", f"-p {port}", "-w", "-t", "60", "start")
            except StoreUnavailableError:
                if self.port:
                    raise
            else:
                self.port = port
                return
        tail = log.read_text()[-2000:] if log.exists() else "no log"
        raise StoreUnavailableError(f"PostgreSQL did not start: {tail}", code="testing.postgresql_start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` cleanly, `immediate` as a crash does (the next start recovers)."""
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "-t", "60", "stop")

    def destroy(self) -> None:
        """Stop the server and remove everything; safe to call twice."""
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._guard is not None:
            self._guard.communicate()
            self._guard = None

    def url(self, database: str = _ACCOUNT, *, user: str = _ACCOUNT, password: str | None = None) -> str:
        """Return the URL of a database, with its password.

        Args:
            database: Its name.
            user: A role; default is the superuser.
            password: Of another role.
        """
        target = sa.URL.create(
            "postgresql",
            username=user,
            password=password or self._password,
            host="127.0.0.1",
            port=self.port,
            database=database,
        )
        return target.render_as_string(hide_password=False)

    def create_database(self, name: str, template: str = "template0") -> str:
        """Make a database as a copy of `template` (which nobody may be connected to) and return its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, with whoever is still connected."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, database: str = _ACCOUNT) -> None:
        """Run one statement as superuser, outside a transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    @staticmethod
    def _as_account(*command: str) -> Sequence[str]:
        return ["runuser", "-u", _ACCOUNT, "--", *command] if os.getuid() == 0 else command

    def _run(self, program: str, *arguments: str) -> None:
        command = self._as_account(str(self._programs / program), *arguments)
        # Its own session and no pipes: the server that pg_ctl leaves behind would hold them open for ever.
        output = self._folder / f"{program}.out"
        with output.open("wb") as stream:
            done = subprocess.run(  # noqa: S603 - fixed programs and arguments of our own
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
            )
        if done.returncode:
            message = f"{program} failed with {done.returncode}: {output.read_text(errors='replace')[-2000:]}"
            raise StoreUnavailableError(message, code="testing.postgresql_start")


def _free_port() -> int:
    while True:
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
