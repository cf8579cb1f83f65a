"""Is the whole file there? What a format says of its own length is compared with the bytes that are there.

mutagen reads the head of a file; of one whose copy was interrupted it says nothing. Each check here is one-sided: it
calls a file cut only where the format itself says that more must follow. A cut that no length tells (an MP3 without a
Xing header, a last frame cut in its middle) isn't found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

__all__ = ["find_truncation"]

_OGG_PAGE_BYTES: Final = 65_307  # header of 27, 255 segments' lengths, 255 segments of 255 bytes
_TRAILER_BYTES: Final = 65_536  # tags that some programs put behind the last FLAC frame
_ROUNDING_BYTES: Final = 4096
_MOST_ATOMS: Final = 10_000  # of an MP4 at its top level; real ones have under a hundred, fragmented ones some thousand


def find_truncation(stream: BinaryIO, audio: Any) -> str | None:
    """Return what is missing, or None where nothing tells that something is.

    Args:
        stream: The file, open for reading; its position is changed.
        audio: What mutagen made of it.

    Raises:
        OSError: The file can't be read.
    """
    check = _CHECKS.get(type(audio).__name__)
    return check(stream, os.fstat(stream.fileno()).st_size, audio) if check else None


def _check_riff(stream: BinaryIO, size: int, _audio: Any) -> str | None:
    declared = int.from_bytes(_read(stream, 4, 4), "little")
    # Unknown: a recorder that was switched off leaves 0, and who writes into a pipe the most that 32 or 31 bits hold,
    # less what its header and rounding take (sox: 0x7FFF_F024).
    if declared == 0 or any(most - _ROUNDING_BYTES <= declared <= most for most in (0x7FFF_FFFF, 0xFFFF_FFFF)):
        return None
    return _compare(declared + 8, size)


def _check_iff(stream: BinaryIO, size: int, _audio: Any) -> str | None:
    declared = int.from_bytes(_read(stream, 4, 4), "big")
    return _compare(declared + 8, size)


def _check_mp4(stream: BinaryIO, size: int, _audio: Any) -> str | None:
    position = 0
    for _ in range(_MOST_ATOMS):
        if position >= size:
            return None
        head = _read(stream, position, 16)
        atom_bytes = int.from_bytes(head[:4], "big")
        if atom_bytes == 1:  # the length is the 64-bit number behind the name
            atom_bytes = int.from_bytes(head[8:16], "big")
        if atom_bytes == 0:  # up to the end of the file
            return None
        if position + atom_bytes > size:
            return _compare(position + atom_bytes, size)
        position += max(atom_bytes, 8)
    return None


def _check_ogg(stream: BinaryIO, size: int, _audio: Any) -> str | None:
    start = max(0, size - _OGG_PAGE_BYTES)
    tail = _read(stream, start, _OGG_PAGE_BYTES)
    page = tail.rfind(b"OggS\x00")  # with the version, always 0: the four letters alone may stand in the audio, too
    if page < 0:
        return None
    head = tail[page : page + 27]
    segments = head[26] if len(head) == 27 else 255  # noqa: PLR2004 - the header's size
    lengths = tail[page + 27 : page + 27 + segments]
    end = start + page + 27 + segments + sum(lengths)
    return _compare(end, size)


def _check_mpeg(stream: BinaryIO, size: int, audio: Any) -> str | None:
    # The Xing (variable) or Info (constant bit rate) header lies in the first frame, behind 4 + 9…32 bytes; after its
    # name come flags, then frames (flag 1), then bytes from the first frame on (flag 2).
    offset = audio.info.frame_offset
    head = _read(stream, offset, 64)
    name = max(head.find(b"Xing", 4, 44), head.find(b"Info", 4, 44))
    if name < 0:
        return None
    flags = int.from_bytes(head[name + 4 : name + 8], "big")
    if not flags & 2:
        return None
    at = name + 8 + (4 if flags & 1 else 0)
    return _compare(offset + int.from_bytes(head[at : at + 4], "big"), size)


def _check_flac(stream: BinaryIO, size: int, audio: Any) -> str | None:
    info = audio.info
    if not info.total_samples:
        return None
    longest_frame = info.max_framesize or info.max_blocksize * info.channels * (info.bits_per_sample // 8 + 1) + 1024
    window = longest_frame + _TRAILER_BYTES
    tail = _read(stream, max(0, size - window), window)
    # Bytes inside a frame may look like a header: all ends are looked at, and one that reaches the end is enough.
    ends = list(_flac_frame_ends(tail, info.max_blocksize))
    if not ends or max(ends) >= info.total_samples:
        return None
    return f"its frames end before sample {info.total_samples}, which its header promises"


def _flac_frame_ends(data: bytes, block_samples: int) -> Iterator[int]:
    position = data.find(b"\xff")
    while position >= 0:
        end = _flac_frame_end(data[position : position + 16], block_samples)
        if end is not None:
            yield end
        position = data.find(b"\xff", position + 1)


def _flac_frame_end(head: bytes, block_samples: int) -> int | None:
    """Sample behind a frame, None where the bytes are no frame header (RFC 9639, section 9.1)."""
    if len(head) < 16 or head[1] & 0xFE != 0xF8 or head[3] & 1:  # noqa: PLR2004 - the longest header
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    first = head[4]
    extra = 0 if first < 0x80 else 8 - (first ^ 0xFF).bit_length() - 1  # noqa: PLR2004 - coded like UTF-8
    number = first & (0x7F >> (extra + 1 if extra else 0))
    for byte in head[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    at = 5 + extra
    if size_code == 0 or rate_code == 15 or extra > 6:  # noqa: PLR2004 - reserved
        return None
    if size_code in {6, 7}:
        width = size_code - 5
        samples = int.from_bytes(head[at : at + width], "big") + 1
        at += width
    else:
        samples = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8  # noqa: PLR2004
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    start = number if head[1] & 1 else number * block_samples
    return start + samples


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def _read(stream: BinaryIO, position: int, count: int) -> bytes:
    stream.seek(position)
    return stream.read(count)


def _compare(expected: int, size: int) -> str | None:
    return f"it has {size} bytes, its header promises {expected}" if size < expected else None


_CHECKS: Final[dict[str, Callable[[BinaryIO, int, Any], str | None]]] = {
    "WAVE": _check_riff,
    "AIFF": _check_iff,
    "MP4": _check_mp4,
    "OggVorbis": _check_ogg,
    "OggOpus": _check_ogg,
    "OggFLAC": _check_ogg,
    "OggSpeex": _check_ogg,
    "MP3": _check_mpeg,
    "FLAC": _check_flac,
}
