r"""Names of files as text that a database can hold: readable, and back without loss.

A file name is bytes. Almost always they are UTF-8 and the text is the name itself. Other bytes become `\xff` (what
`backslashreplace` shows), and only where a name really contains such a sequence, its backslash becomes `\x5c`: so two
names never have one text, and the name can be found again from the row.
"""

from __future__ import annotations

import os
import re
from typing import Final

__all__ = ["decode_path", "encode_path"]

_AMBIGUOUS: Final = re.compile(
    r"\\(?=x(?:[89a-f][0-9a-f]|5c))"
)  # only these are ever written: escaped bytes are >= 0x80
_ESCAPED: Final = re.compile(r"\\x([89a-f][0-9a-f]|5c)")
_SURROGATE: Final = re.compile("[\udc80-\udcff]")  # how os.fsdecode shows a byte that isn't UTF-8


def encode_path(path: str | bytes | os.PathLike[str]) -> str:
    r"""Return a path as storable text.

    Args:
        path: As `os.scandir` gives it: bytes that aren't UTF-8 are lone surrogates in a str.

    Example:
        >>> encode_path(b"caf\xe9.mp3"), encode_path("café.mp3")
        ('caf\\xe9.mp3', 'café.mp3')
    """
    text = os.fsdecode(path)
    return _SURROGATE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", _AMBIGUOUS.sub(r"\\x5c", text))


def decode_path(text: str) -> str:
    r"""Return the path that `encode_path` made this text of, ready for `open` and `os.stat`.

    Example:
        >>> os.fsencode(decode_path("caf\\xe9.mp3"))
        b'caf\xe9.mp3'
    """

    def character(match: re.Match[str]) -> str:
        code = int(match[1], 16)
        return chr(code) if code < 0x80 else chr(0xDC00 + code)  # noqa: PLR2004 - ASCII

    return _ESCAPED.sub(character, text)
