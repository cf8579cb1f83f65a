"""Writes to a folder so that what was acknowledged survives a power loss, and no half file is seen under its key.

obstore's LocalStore (0.12) syncs nothing and reports a full disk as a generic error, so what *changes* a local store
goes through here; reading, listing and heads go through obstore as for every other store. Order of a write:

1. bytes into `incoming/<key>` (made with O_EXCL and O_NOFOLLOW), 2. fsync of that file, 3. rename to
`objects/<xx>/<key>`, 4. fsync of the folder, and of its parent at a process's first write into the folder: another
one that made it may have died, or not be so far yet. Only then it is acknowledged.

A crash before 3 leaves `incoming/<key>`, after it an object; both belong to a stage, whose collection removes both. No
path is followed through a symbolic link below the root (S02). What an attacker with write access to the folder swaps in
between the check and the use is not caught on reading; the hash check of whole reads is the net there.

Methods here block: they are called in threads.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fourfold.faultpoints import reach_sync
from fourfold.objects.key import OBJECTS_PREFIX, check_key, new_key, path_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Data", "Disk", "DiskFile"]

Data = bytes | bytearray | memoryview

_INCOMING: Final = "incoming"
_FILE_MODE: Final = 0o640  # the group may read (a web server, a backup), the world may not
_FOLDER_MODE: Final = 0o750
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)  # Windows has none; there the look before is all
_BINARY: Final = getattr(os, "O_BINARY", 0)  # Windows translates line ends without it


class Disk:
    """The folder of a local store.

    Args:
        root: Absolute path; its own symbolic links were resolved when the store was opened.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lasting: set[Path] = set()  # folders whose names this process has synced

    def prepare(self) -> None:
        """Make the folders that every write needs."""
        self.make_root()
        for name in (_INCOMING, OBJECTS_PREFIX):
            self._make_folder(self.root / name)

    def make_root(self) -> None:
        """Make the root, and what leads to it, where it is missing."""
        for folder in (*reversed(self.root.parents), self.root):
            if not folder.exists():
                self._make_folder(folder)

    def create(self, key: str) -> DiskFile:
        """Open a new file for an object's bytes; invisible under its key until `DiskFile.finish`."""
        return DiskFile(self, path_of(key), check_key(key))

    def put(self, path: str, data: bytes) -> None:
        """Write a small file whole (the marker), replacing what is there."""
        file = DiskFile(self, path, f"{path}.{new_key()}")
        try:
            file.write(data)
            file.finish()
        finally:
            file.abort()

    def delete(self, key: str) -> None:
        """Remove an object and what a crash left of its upload, durably; absent is fine."""
        for path in (path_of(key), f"{_INCOMING}/{check_key(key)}"):
            self.check(path)
            target = self.root / path
            try:
                target.unlink()
            except FileNotFoundError:
                continue
            sync_folder(target.parent)

    def check(self, path: str) -> None:
        """Refuse a path that leads through a symbolic link, or to anything but a plain file (S02).

        Raises:
            OSError: ELOOP.
        """
        place = self.root
        *folders, name = path.split("/")
        for folder in folders:
            place /= folder
            _refuse(place, stat.S_ISDIR)
        _refuse(place / name, stat.S_ISREG)

    def is_plain(self, path: str) -> bool:
        """Return whether `check` has nothing against a path."""
        try:
            self.check(path)
        except OSError:
            return False
        return True

    def make_shard(self, path: str) -> Path:
        """Make the folder of an object's path where it is missing, and return it."""
        self.check(path)
        folder = (self.root / path).parent
        self._make_folder(folder)
        return folder

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            if folder in self._lasting:
                return
        sync_folder(folder.parent)  # else a power loss takes the folder, with synced files in it
        self._lasting.add(folder)


class DiskFile:
    """An object on its way in; one thread at a time."""

    def __init__(self, disk: Disk, path: str, draft: str) -> None:
        self._disk = disk
        self._path = path
        disk.check(f"{_INCOMING}/{draft}")
        self._draft = disk.root / _INCOMING / draft
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY
        self._file = os.fdopen(os.open(self._draft, flags, _FILE_MODE), "wb", buffering=0)

    def write(self, data: Data) -> None:
        """Append all of `data`."""
        reach_sync("objects.before_write")
        rest = memoryview(data)
        while rest:  # an unbuffered write may take a part: the disk is about to be full
            rest = rest[self._file.write(rest) :]

    def finish(self) -> None:
        """Sync, and let the object be seen under its key; durable on return."""
        reach_sync("objects.before_sync")
        os.fsync(self._file.fileno())
        self._file.close()
        folder = self._disk.make_shard(self._path)
        reach_sync("objects.before_rename")
        self._draft.replace(folder / self._path.rpartition("/")[2])
        reach_sync("objects.after_rename")
        sync_folder(folder)

    def abort(self) -> None:
        """Remove what was written; safe at any time, also after a failed `finish`."""
        self._file.close()
        self._draft.unlink(missing_ok=True)


def _refuse(place: Path, is_right: Callable[[int], bool]) -> None:
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return
    if not is_right(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(place))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_nothing(folder: Path) -> None:
    """Windows opens no folders; NTFS journals its names."""


sync_folder: Final = _sync_nothing if os.name == "nt" else _sync_folder
