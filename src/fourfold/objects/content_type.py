"""What kind of file it is: as its name says, else as its first bytes say; `application/octet-stream` when neither does.

Python's own table of names, never the machine's (`/etc/mime.types`): the same file has the same type everywhere. A type
is a hint for programs, never a permission: a door serves what strangers uploaded as an attachment with `nosniff` (S14).
"""

from __future__ import annotations

import mimetypes
import re
from typing import Final

from fourfold.errors import ValidationError

__all__ = ["HEAD_BYTES", "UNKNOWN_TYPE", "check_content_type", "guess_content_type"]

UNKNOWN_TYPE: Final = "application/octet-stream"
HEAD_BYTES: Final = 64  # the farthest signature below ends at byte 12; the rest is for text

_NAMES: Final = mimetypes.MimeTypes(filenames=())
for _suffix, _type in {
    # IANA's registry, where Python 3.11's table has nothing
    ".cue": "application/x-cue",
    ".dng": "image/x-adobe-dng",
    ".flac": "audio/flac",
    ".geojson": "application/geo+json",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".heic": "image/heic",
    ".m4a": "audio/mp4",
    ".md": "text/markdown",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".parquet": "application/vnd.apache.parquet",
    ".wav": "audio/wav",
    ".webp": "image/webp",
    ".yaml": "application/yaml",
}.items():
    _NAMES.add_type(_type, _suffix)

_SIGNATURES: Final = (  # offset, bytes, type; from the formats' specifications
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AIFF", "audio/x-aiff"),
    (0, b"glTF", "model/gltf-binary"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
)

_FORM: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:[ \t]*;[\x20-\x7e]{1,255})?")


def guess_content_type(filename: str | None, head: bytes) -> str:
    """Return the type of a file.

    Args:
        filename: Its name, if it has one.
        head: Its first `HEAD_BYTES` bytes, or all if it is shorter.

    Example:
        >>> guess_content_type("song.flac", b""), guess_content_type(None, b"%PDF-1.7")
        ('audio/flac', 'application/pdf')
    """
    if filename:
        named, encoding = _NAMES.guess_type(filename, strict=False)
        if named and not encoding:  # notes.txt.gz is gzip, not text
            return named
    return next((kind for at, mark, kind in _SIGNATURES if head[at : at + len(mark)] == mark), UNKNOWN_TYPE)


def check_content_type(content_type: str) -> str:
    """Return a given type if it has the form of one: it is sent in a header later.

    Raises:
        ValidationError: Code `objects.content_type`.

    Example:
        >>> check_content_type("text/plain; charset=utf-8")
        'text/plain; charset=utf-8'
    """
    if _FORM.fullmatch(content_type):
        return content_type
    message = f"{content_type!r:.80} is no content type; expected type/subtype in ASCII"
    raise ValidationError(message, code="objects.content_type", hint="Leave it out to have it guessed")
