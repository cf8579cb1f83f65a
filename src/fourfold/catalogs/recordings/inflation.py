"""A limit on what compressed tags may become: 300 KB of an MP3 were seen to take 1 GB of memory.

ID3 frames may be compressed, and mutagen (1.48) inflates them without any limit, in one place for all formats that
carry ID3 (MP3, WAV, AIFF, DSF …). That place is given a `zlib` that stops: mutagen then skips the frame as damaged. The
limit holds for the whole process, also where somebody else reads tags; it only ever refuses what no real tag has.
"""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["INFLATED_LIMIT_BYTES", "limit_inflation"]

INFLATED_LIMIT_BYTES: Final = 1 << 20  # of one frame: a text, or a picture, which compression makes no smaller
# Beyond the first kilobyte a frame may become 16 times its size: texts do, a bomb becomes 1,000 times. So all frames of
# a file together stay within a small multiple of the file.
_FREE_BYTES: Final = 1024
_MOST_TIMES: Final = 16


class _LimitedZlib:
    """All that mutagen uses of `zlib` there."""

    error = zlib.error

    @staticmethod
    def decompress(data: bytes) -> bytes:
        limit_bytes = min(INFLATED_LIMIT_BYTES, _FREE_BYTES + _MOST_TIMES * len(data))
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(data, limit_bytes)
        if inflater.unconsumed_tail or not inflater.eof:
            message = f"cut, or inflates to more than {limit_bytes} bytes"
            raise zlib.error(message)
        return inflated


def limit_inflation() -> None:
    """Give mutagen the limit; calling it again changes nothing."""
    from mutagen.id3 import _frames

    setattr(_frames, "zlib", _LimitedZlib)  # noqa: B010 - to the type checker it is a module, and private
