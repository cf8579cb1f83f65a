"""Any source of bytes as one stream of pieces of at most `PIECE_BYTES`, in constant memory.

Small pieces are gathered, large ones sliced without a copy. What blocks (a path, a binary file, a plain iterator) is
read in a thread; the caller closes files and iterators that it opened.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast, runtime_checkable
from unicodedata import category

from fourfold.errors import NotFoundError, ValidationError
from fourfold.objects.disk import Data

if TYPE_CHECKING:
    from typing import IO

__all__ = ["PIECE_BYTES", "BinaryFile", "Source", "name_of", "pieces_of"]

PIECE_BYTES: Final = 1024 * 1024  # large enough that a hop into a thread (50 µs) doesn't count, small enough to forget

_END: Final = object()


@runtime_checkable
class BinaryFile(Protocol):
    """What has `read(size)` and returns bytes: an open file, a spooled upload."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


Source = str | os.PathLike[str] | Data | BinaryFile | AsyncIterable[bytes] | Iterable[bytes]


def name_of(source: Source) -> str | None:
    """Return the file name that a path carries (undecodable bytes and control characters replaced), else None.

    Example:
        >>> name_of(Path("/music/song.flac"))
        'song.flac'
    """
    if not isinstance(source, str | os.PathLike):
        return None
    name = os.fsencode(Path(source).name).decode(errors="replace")
    return "".join("\ufffd" if category(char) == "Cc" else char for char in name)


async def pieces_of(source: Source) -> AsyncGenerator[Data, None]:
    """Yield all bytes of a source, in pieces of 1 to `PIECE_BYTES` bytes.

    Args:
        source: A path (str or PathLike), bytes, a binary file, or a plain or async iterable of bytes.

    Raises:
        NotFoundError: Code `objects.no_source`: there is no such file.
        ValidationError: Code `objects.source`: it is none of these, or yields something else than bytes.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        for piece in _slices(source):
            yield piece
    elif isinstance(source, str | os.PathLike):
        file = await asyncio.to_thread(_open, Path(source))
        try:
            async for piece in _read(file):
                yield piece
        finally:
            file.close()
    elif isinstance(source, AsyncIterable):
        async for piece in _gathered(source):
            yield piece
    elif isinstance(source, BinaryFile):
        async for piece in _read(source):
            yield piece
    elif isinstance(source, Iterable):
        async for piece in _gathered(_in_threads(iter(source))):
            yield piece
    else:
        raise _wrong(source)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError) as error:
        message = f"there is no file at {str(path)!r}"
        raise NotFoundError(message, code="objects.no_source", hint="Check the path", path=str(path)) from error


async def _read(file: BinaryFile | IO[bytes]) -> AsyncIterator[Data]:
    while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
        for part in _slices(_checked(piece)):  # a file of somebody's own may return more than it was asked for
            yield part


async def _in_threads(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, source, _END)) is not _END:
        yield cast("bytes", piece)


async def _gathered(source: AsyncIterable[bytes]) -> AsyncIterator[Data]:
    waiting = bytearray()
    async for piece in source:
        if len(_checked(piece)) >= PIECE_BYTES:
            if waiting:
                yield waiting
                waiting = bytearray()
            for part in _slices(piece):
                yield part
            continue
        waiting += piece
        if len(waiting) >= PIECE_BYTES:
            for part in _slices(waiting):
                yield part
            waiting = bytearray()
    if waiting:
        yield waiting


def _slices(data: Data) -> Iterator[Data]:
    view = memoryview(data).cast("B")  # bytes, whatever the items of a memoryview are
    for start in range(0, len(view), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def _checked(piece: object) -> Data:
    if isinstance(piece, bytes | bytearray | memoryview):
        return piece
    raise _wrong(piece)


def _wrong(seen: object) -> ValidationError:
    message = (
        f"{type(seen).__name__} is no source of bytes; expected a path, bytes, a binary file or an iterable of bytes"
    )
    return ValidationError(
        message, code="objects.source", hint="Open files with mode 'rb'", type_name=type(seen).__name__
    )
