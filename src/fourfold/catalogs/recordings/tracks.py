"""The rule for `tracklists.tracks`: what is in the column is a list of tracks in playing order, or nothing is written.

Pure. The model checks it when the attribute is set, the column's type once more when a statement binds it (bulk inserts
pass no attribute), and the cue reader makes nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from sqlalchemy.exc import DontWrapMixin

from fourfold.errors import ValidationError, did_you_mean

__all__ = ["NAME_LIMIT", "Track", "TracksError", "format_start_time", "parse_start_time", "validate_tracks"]

# A track is a graph node by (title, artist); Neo4j indexes identities of up to 8,167 bytes, and both names together
# have 2 × 500 characters of at most 4 bytes. A longer name would be accepted here and quarantined there.
NAME_LIMIT: Final = 500

_FIELDS: Final = ("title", "artist", "start_time")
_TIME: Final = re.compile(r"(?:(?P<hours>[0-9]{2}):(?P<high>[0-5][0-9])|(?P<minutes>[0-9]{2})):(?P<seconds>[0-5][0-9])")
_MINUTES_OF_SHORT_FORM: Final = 100  # `99:59` is still MM:SS: sets of one to two hours are listed so
_HINT: Final = "Give a list of {'title': …, 'artist': …, 'start_time': 'MM:SS' or 'HH:MM:SS'} in playing order"


class Track(TypedDict):
    """One entry of `tracklists.tracks`."""

    title: str
    artist: str
    start_time: str


class TracksError(ValidationError, DontWrapMixin):
    """A tracklist was refused; facts `index` and `field` (None where the whole entry or list is meant).

    SQLAlchemy passes it through unwrapped when the column's type raises it inside a statement.
    """

    default_code = "recordings.tracks"


def parse_start_time(text: str) -> int:
    """Return the seconds of a start time.

    Args:
        text: `MM:SS` (minutes up to 99) or `HH:MM:SS`, two ASCII digits each.

    Raises:
        ValidationError: Code `recordings.tracks`, for anything else.

    Example:
        >>> parse_start_time("75:30"), parse_start_time("01:15:30")
        (4530, 4530)
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise TracksError(f"{text!r:.80} is neither MM:SS nor HH:MM:SS", hint=_HINT, index=None, field="start_time")
    minutes = int(match["minutes"] or 0) + int(match["hours"] or 0) * 60 + int(match["high"] or 0)
    return minutes * 60 + int(match["seconds"])


def format_start_time(seconds: int) -> str:
    """Return seconds as `MM:SS` below 100 minutes, else as `HH:MM:SS`.

    Raises:
        ValidationError: Code `recordings.tracks`, for a negative number and from 100 hours on.

    Example:
        >>> format_start_time(4530), format_start_time(6000)
        ('75:30', '01:40:00')
    """
    minutes, rest = divmod(seconds, 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    if not 0 <= hours < 100:  # noqa: PLR2004 - two digits
        message = f"a start time of {seconds} s can't be written as HH:MM:SS; expected 0 to 359999"
        raise TracksError(message, hint=_HINT, index=None, field="start_time")
    if minutes < _MINUTES_OF_SHORT_FORM:
        return f"{minutes:02d}:{rest:02d}"
    return f"{hours:02d}:{minutes_of_hour:02d}:{rest:02d}"


def validate_tracks(value: object) -> list[Track] | None:
    """Return a tracklist as plain dictionaries, or refuse it.

    Args:
        value: A list of objects with exactly `title` (not blank), `artist` (may be empty) and `start_time`, whose start
            times don't decrease; None stays None.

    Raises:
        ValidationError: Code `recordings.tracks`, with `index` and `field` as facts and in the message.

    Example:
        >>> validate_tracks([{"title": "Dawn", "artist": "Mira", "start_time": "00:00"}])
        [{'title': 'Dawn', 'artist': 'Mira', 'start_time': '00:00'}]
        >>> try:
        ...     validate_tracks([{"title": "Dawn", "artist": "Mira", "start_time": "0:00"}])
        ... except ValidationError as error:
        ...     print(error.index, error.field, error.message)
        0 start_time tracks[0].start_time: '0:00' is neither MM:SS nor HH:MM:SS
    """
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)):
        raise TracksError(f"tracks is a {type(value).__name__}, not a list", hint=_HINT, index=None, field=None)
    tracks: list[Track] = []
    earlier_seconds = 0
    for index, entry in enumerate(value):
        track = _validate_entry(index, entry)
        seconds = parse_start_time(track["start_time"])
        if seconds < earlier_seconds:
            before = tracks[-1]["start_time"]
            raise _refusal(index, "start_time", f"{track['start_time']!r} is before {before!r} of the entry above")
        earlier_seconds = seconds
        tracks.append(track)
    return tracks


def _validate_entry(index: int, entry: object) -> Track:
    if not isinstance(entry, Mapping):
        raise _refusal(index, None, f"{type(entry).__name__}, not an object")
    for name in entry:
        if name not in _FIELDS:
            raise _refusal(index, str(name), f"is not a field of a track{did_you_mean(str(name), _FIELDS)}")
    values = {name: _validate_text(index, name, entry) for name in _FIELDS}
    if not values["title"].strip():
        raise _refusal(index, "title", "is blank")
    if _TIME.fullmatch(values["start_time"]) is None:
        raise _refusal(index, "start_time", f"{values['start_time']!r:.80} is neither MM:SS nor HH:MM:SS")
    return Track(title=values["title"], artist=values["artist"], start_time=values["start_time"])


def _validate_text(index: int, name: str, entry: Mapping[Any, Any]) -> str:
    if name not in entry:
        raise _refusal(index, name, "is missing")
    value = entry[name]
    if not isinstance(value, str):
        raise _refusal(index, name, f"{value!r:.80} is a {type(value).__name__}, not a text")
    if len(value) > NAME_LIMIT:
        raise _refusal(index, name, f"has {len(value)} characters; expected at most {NAME_LIMIT}")
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        # Neither PostgreSQL's jsonb nor the graph can hold these: the row would be refused, or quarantined later.
        raise _refusal(index, name, f"{value!r:.80} has a NUL character or a lone surrogate")
    return value


def _refusal(index: int, field: str | None, problem: str) -> TracksError:
    where = f"tracks[{index}]" if field is None else f"tracks[{index}].{field}"
    return TracksError(f"{where}: {problem}", hint=_HINT, index=index, field=field)
