"""Tags and technical properties of an audio file, under the same keys whatever its format calls them.

Read by mutagen (extra `fourfold[recordings]`). Only the keys of `TAG_KEYS` are taken, so that the importer owns a known
set of metadata keys; pictures, cue marks and other bulk never become metadata. Texts come out storable anywhere: no
NUL, no lone surrogate, no longer than `VALUE_LIMIT`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from fourfold.catalogs.recordings.inflation import limit_inflation
from fourfold.catalogs.recordings.truncation import find_truncation
from fourfold.errors import ConfigurationError, ValidationError

__all__ = ["PROPERTY_KEYS", "TAG_KEYS", "VALUE_LIMIT", "AudioTags", "read_tags", "require_mutagen"]

VALUE_LIMIT: Final = 4096  # characters; what is longer is a picture, lyrics or a program's own data in a comment
_VALUES_LIMIT: Final = 50  # of one key: a file with more artists than that is a mistake or an attack

PROPERTY_KEYS: Final = ("bitrate_bps", "bits_per_sample", "channels", "duration_seconds", "format", "sample_rate_hz")
TAG_KEYS: Final = frozenset(
    "title artist album albumartist date originaldate genre tracknumber discnumber composer conductor remixer lyricist "  # noqa: SIM905 - words
    "arranger producer engineer performer djmixer label catalognumber barcode isrc bpm initialkey mood grouping "
    "subtitle discsubtitle comment copyright language compilation media releasecountry encodedby encoder "
    "website".split()
)

# Other names of the same thing, spelled without spaces, hyphens and underscores.
_ALIASES: Final = {
    "year": "date",
    "track": "tracknumber",
    "disc": "discnumber",
    "disk": "discnumber",
    "publisher": "label",
    "organization": "label",
    "key": "initialkey",
    "description": "comment",
    "mixartist": "remixer",
    "catalog": "catalognumber",
    "catalogid": "catalognumber",
    "ean/upn": "barcode",
    "upc": "barcode",
    "author": "artist",
    "contentgroup": "grouping",
    "tempo": "bpm",
    "djmix": "djmixer",
}
_ID3: Final = {
    "TIT2": "title",
    "TPE1": "artist",
    "TALB": "album",
    "TPE2": "albumartist",
    "TDRC": "date",
    "TDOR": "originaldate",
    "TCON": "genre",
    "TRCK": "tracknumber",
    "TPOS": "discnumber",
    "TCOM": "composer",
    "TPE3": "conductor",
    "TPE4": "remixer",
    "TEXT": "lyricist",
    "TPUB": "label",
    "TSRC": "isrc",
    "TBPM": "bpm",
    "TKEY": "initialkey",
    "TMOO": "mood",
    "TIT1": "grouping",
    "TIT3": "subtitle",
    "TSST": "discsubtitle",
    "TCOP": "copyright",
    "TLAN": "language",
    "TCMP": "compilation",
    "TMED": "media",
    "TENC": "encodedby",
    "TSSE": "encoder",
    "COMM": "comment",
}
_MP4: Final = {
    "©nam": "title",
    "©ART": "artist",
    "©alb": "album",
    "aART": "albumartist",
    "©day": "date",
    "©gen": "genre",
    "trkn": "tracknumber",
    "disk": "discnumber",
    "©wrt": "composer",
    "©cmt": "comment",
    "©grp": "grouping",
    "©too": "encoder",
    "cprt": "copyright",
    "tmpo": "bpm",
}
_ASF: Final = {
    "WM/AlbumTitle": "album",
    "WM/AlbumArtist": "albumartist",
    "WM/Year": "date",
    "WM/Genre": "genre",
    "WM/TrackNumber": "tracknumber",
    "WM/PartOfSet": "discnumber",
    "WM/Composer": "composer",
    "WM/Publisher": "label",
    "WM/BeatsPerMinute": "bpm",
    "WM/InitialKey": "initialkey",
    "WM/ISRC": "isrc",
}
_FORMATS: Final = {
    "AAC": "aac",
    "MP4": "m4a",
    "OggFLAC": "ogg-flac",
    "OggOpus": "opus",
    "OggSpeex": "speex",
    "OggVorbis": "ogg-vorbis",
    "WAVE": "wav",
}
_NO_AUDIO: Final = {"SMF", "OggTheora"}  # notes, and video: mutagen knows them too


@dataclass(frozen=True, slots=True)
class AudioTags:
    """What was read of one file.

    Args:
        tags: Values by key of `TAG_KEYS`, in the file's order.
        properties: Technical values by key of `PROPERTY_KEYS`, as text.
        left_out: Names of tags that are longer than `VALUE_LIMIT`.
    """

    tags: Mapping[str, tuple[str, ...]]
    properties: Mapping[str, str]
    left_out: tuple[str, ...] = field(default=())

    def rows(self) -> list[tuple[str, str]]:
        """Return keys and values as rows of `metadata`: each value of each tag, then the properties."""
        tags = [(key, value) for key, values in self.tags.items() for value in values]
        return [*tags, *self.properties.items()]


def require_mutagen() -> None:
    """Return if mutagen is installed.

    Raises:
        ConfigurationError: Code `recordings.extra`, with the command that installs it.
    """
    try:
        import mutagen  # noqa: F401
    except ImportError as error:
        message = "reading audio files needs mutagen, which is not installed"
        hint = "pip install 'fourfold[recordings]'"
        raise ConfigurationError(message, code="recordings.extra", hint=hint) from error


def read_tags(path: str | Path) -> AudioTags:
    """Read an audio file's tags and technical properties. Content decides the format, the suffix only in doubt.

    Args:
        path: The file.

    Raises:
        OSError: The file can't be opened or read.
        ValidationError: Codes `recordings.empty`, `recordings.not_audio`, `recordings.damaged`, `recordings.truncated`.
        ConfigurationError: Code `recordings.extra`.

    Example:
        >>> from importlib.resources import files
        >>> sample = files("fourfold.catalogs.recordings") / "samples" / "slow-boat-home.flac"
        >>> tags = read_tags(str(sample))
        >>> tags.tags["title"], tags.properties["duration_seconds"]
        (('Slow Boat Home',), '3.000')
    """
    require_mutagen()
    limit_inflation()
    with Path(path).open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            raise ValidationError("the file is empty (0 bytes)", code="recordings.empty", hint="Copy it again")
        audio = _load(stream)
        missing = find_truncation(stream, audio)
    if missing:
        raise ValidationError(f"the file was cut: {missing}", code="recordings.truncated", hint="Copy it again")
    collected = _Collected()
    for key, values in _read_values(audio):
        collected.add(key, values)
    return AudioTags(collected.tags, _properties(audio), tuple(collected.left_out))


def _load(stream: BinaryIO) -> Any:
    import mutagen

    kinds = _kinds_by_content(stream.read(64))
    stream.seek(0)
    try:
        audio = mutagen.File(stream, options=kinds)
    except (
        # On damaged files mutagen leaks what its parsers trip over: IndexError and struct.error with random bytes in a
        # header, the others by what its code does there.
        mutagen.MutagenError,
        struct.error,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        cause = _clean(f"{type(error).__name__}: {error}")[:200]
        message = f"the file can't be read as audio: {cause}"
        raise ValidationError(message, code="recordings.damaged", hint="Copy it again", cause=cause) from error
    # `sketchy`: mutagen found one thing that looks like an MPEG frame, and no second one behind it.
    if audio is None or type(audio).__name__ in _NO_AUDIO or getattr(audio.info, "sketchy", False):
        message = "the file is no audio that mutagen knows, whatever its name says"
        raise ValidationError(message, code="recordings.not_audio", hint="Take it out of the folder, or rename it")
    return audio


def _kinds_by_content(head: bytes) -> list[Any] | None:
    """Formats that the first bytes name for sure; None lets mutagen weigh bytes and suffix."""
    if head.startswith(b"fLaC"):
        from mutagen.flac import FLAC

        return [FLAC]
    if head.startswith(b"OggS"):
        from mutagen.oggflac import OggFLAC
        from mutagen.oggopus import OggOpus
        from mutagen.oggspeex import OggSpeex
        from mutagen.oggvorbis import OggVorbis

        return [OggVorbis, OggOpus, OggFLAC, OggSpeex]
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        from mutagen.wave import WAVE

        return [WAVE]
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        from mutagen.aiff import AIFF

        return [AIFF]
    if head[4:8] == b"ftyp":
        from mutagen.mp4 import MP4

        return [MP4]
    return None


class _Collected:
    """Values by key, each once, within the limits."""

    def __init__(self) -> None:
        self.tags: dict[str, tuple[str, ...]] = {}
        self.left_out: list[str] = []

    def add(self, key: str, values: Iterable[str]) -> None:
        for raw in values:
            if len(raw) > VALUE_LIMIT:
                self.left_out.append(key)
                continue
            value = _clean(raw)
            seen = self.tags.get(key, ())
            if value and value not in seen and len(seen) < _VALUES_LIMIT:
                self.tags[key] = (*seen, value)


def _read_values(audio: Any) -> Iterator[tuple[str, list[str]]]:
    tags = audio.tags
    if not tags:
        return
    for name, value in tags.items():
        key, values = _read_value(name, value)
        canonical = key if key in TAG_KEYS else _canonical(key)
        if canonical is not None:
            yield canonical, values


def _read_value(name: str, value: Any) -> tuple[str, list[str]]:
    frame = getattr(value, "FrameID", None)
    if frame is not None:  # ID3: MP3, WAV, AIFF, DSF …
        key = value.desc if frame == "TXXX" else _ID3.get(frame, "")
        texts = value.genres if frame == "TCON" else getattr(value, "text", ())
        return key, [str(text) for text in texts]
    members = value if isinstance(value, list) else [value]
    if name in _MP4:
        return _MP4[name], [_pair(member) if isinstance(member, tuple) else str(member) for member in members]
    if name.startswith("----:"):  # MP4: a name of one's own, in bytes
        texts = [bytes(member).decode("utf-8", "replace") for member in members]
        return name.rpartition(":")[2], texts
    # Vorbis comments are lists of str; APE and ASF values are objects: only their texts and numbers are taken.
    members = [getattr(member, "value", member) for member in members]
    return _ASF.get(name, name), [str(member) for member in members if isinstance(member, str | int)]


def _pair(member: tuple[int, int]) -> str:
    number, total = member
    return f"{number}/{total}" if total else str(number)


def _canonical(name: str) -> str | None:
    plain = name.casefold().translate({ord(character): None for character in " _-"})
    key = _ALIASES.get(plain, plain)
    return key if key in TAG_KEYS else None


def _clean(text: str) -> str:
    # Programs pad with NULs, and separate with them what they didn't split; surrogates come from broken UTF-16.
    return text.replace("\x00", " ").encode("utf-8", "replace").decode().strip()


def _properties(audio: Any) -> dict[str, str]:
    info, kind = audio.info, type(audio).__name__
    found = {"format": _FORMATS.get(kind, kind.lower())}
    length = getattr(info, "length", 0)
    if length > 0:
        found["duration_seconds"] = f"{length:.3f}"
    for key, name in (
        ("bitrate_bps", "bitrate"),
        ("sample_rate_hz", "sample_rate"),
        ("channels", "channels"),
        ("bits_per_sample", "bits_per_sample"),
    ):
        value = getattr(info, name, None)
        if value:
            found[key] = str(int(value))
    return found
