"""Bytes of a cue sheet → text. A cue sheet doesn't say its encoding: programs write the code page of their machine.

Order of guesses: a byte order mark; UTF-8 where it is valid (text in another encoding practically never is); Shift-JIS
where it is valid *and* reads like Japanese; Windows-1252; Latin-1, which takes any byte. Cyrillic, Greek and other code
pages of one byte can't be told from Windows-1252: their caller passes `encoding=`.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from fourfold.errors import ConfigurationError, ValidationError

__all__ = ["SIZE_LIMIT_BYTES", "decode_cue"]

SIZE_LIMIT_BYTES: Final = 1 << 20  # the largest sheets known have a few hundred tracks in some 50 KB

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")
# Two or more double-byte characters in a row, as Japanese words are.
_DOUBLE: Final = rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]"
_WORD: Final = re.compile(rb"(?:" + _DOUBLE + rb"){2,}")
# Kana and common kanji begin with these. In Windows-1252 they are typographic marks, hardly ever letters: "éléphant"
# has two pairs in a row as well, but both begin with 0xE9.
_COMMON_LEAD: Final = re.compile(rb"[\x81-\x9f]")


def decode_cue(data: bytes, encoding: str | None = None) -> str:
    """Return the text of a cue sheet.

    Args:
        data: The file's bytes, at most 1 MiB.
        encoding: A codec's name where it is known; None guesses.

    Raises:
        ValidationError: Code `recordings.cue_text`: too large, binary, or not valid in the given encoding.
        ConfigurationError: Code `recordings.encoding`: there is no such codec.

    Example:
        >>> decode_cue("TITLE Été".encode("cp1252"))
        'TITLE Été'
        >>> decode_cue("TITLE 夜の東京".encode("shift-jis"))
        'TITLE 夜の東京'
    """
    if len(data) > SIZE_LIMIT_BYTES:
        raise _refusal(f"more than {SIZE_LIMIT_BYTES} bytes; expected a text of a few kilobytes")
    text = _decode_as(data, encoding) if encoding else _decode_by_guess(data)
    if "\x00" in text:
        raise _refusal("has NUL characters: binary data, or UTF-16 without a byte order mark")
    return text.removeprefix("\ufeff")


def _decode_as(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError as error:
        message = f"encoding={encoding!r} is no codec that Python knows"
        raise ConfigurationError(message, code="recordings.encoding", hint="For example 'cp1251'") from error
    except UnicodeDecodeError as error:
        raise _refusal(f"is not valid {encoding} at byte {error.start}") from error


def _decode_by_guess(data: bytes) -> str:
    for mark, marked_encoding in _MARKS:
        if data.startswith(mark):
            return _decode_as(data, marked_encoding)
    for candidate in ("utf-8", "cp932", "cp1252"):
        if candidate == "cp932" and not _reads_like_japanese(data):
            continue
        try:
            return data.decode(candidate)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _reads_like_japanese(data: bytes) -> bool:
    words = [match[0] for match in _WORD.finditer(data) if _COMMON_LEAD.search(match[0][::2])]
    in_words = sum(len(_NOT_ASCII.findall(word)) for word in words)
    return in_words * 2 > len(_NOT_ASCII.findall(data))


def _refusal(problem: str) -> ValidationError:
    hint = "Save the sheet as UTF-8, or pass its encoding"
    return ValidationError(f"the cue sheet {problem}", code="recordings.cue_text", hint=hint)
