"""recordings-2 and recordings-10 as properties: what is written is read back; what is refused is never half taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.catalogs.recordings.cue import (
    FRAMES_PER_SECOND,
    CueFile,
    CueIndex,
    CueSheet,
    CueTrack,
    cue_from_tracks,
    format_cue,
    parse_cue,
)
from fourfold.catalogs.recordings.cue_text import decode_cue
from fourfold.catalogs.recordings.paths import decode_path, encode_path
from fourfold.catalogs.recordings.tracks import NAME_LIMIT, format_start_time, parse_start_time, validate_tracks
from fourfold.errors import ValidationError

# Anything that a line can say: no line break, no NUL, no surrogate; spaces at its ends are not part of a value.
NAMES = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs"]), max_size=40).map(str.strip)
TITLES = NAMES.filter(bool)
SECONDS = st.integers(0, 100 * 3600 - 1)
COMMANDS = st.lists(st.sampled_from(["REM GENRE Techno", "ISRC GBAYE0000351", "FLAGS DCP", 'REM "x'])).map(tuple)


def outcome(function: Callable[[Any], Any], value: object) -> tuple[Any, ValidationError | None]:
    try:
        return function(value), None
    except ValidationError as error:
        return None, error


@st.composite
def cue_tracks(draw: st.DrawFn) -> tuple[CueTrack, ...]:
    starts = sorted(draw(st.lists(st.integers(0, 100 * 3600 * FRAMES_PER_SECOND - 1), min_size=1, max_size=8)))
    return tuple(
        CueTrack(draw(st.integers(0, 9999)), (CueIndex(1, start),), draw(NAMES), draw(NAMES), "AUDIO", draw(COMMANDS))
        for start in starts
    )


CUE_FILES = st.builds(CueFile, TITLES, st.sampled_from(["MP3", "WAVE", "AIFF"]), cue_tracks())
SHEETS = st.builds(CueSheet, st.lists(CUE_FILES, min_size=1, max_size=3).map(tuple), NAMES, NAMES, COMMANDS)


@st.composite
def tracklists(draw: st.DrawFn) -> list[dict[str, str]]:
    return [
        {"title": draw(TITLES), "artist": draw(NAMES), "start_time": format_start_time(start)}
        for start in sorted(draw(st.lists(SECONDS, max_size=8)))
    ]


@given(SHEETS)
def test_recordings_10_a_written_sheet_is_read_back_equal(sheet: CueSheet):
    text = format_cue(sheet)
    assert parse_cue(text) == sheet
    assert parse_cue(decode_cue(text.replace("\n", "\r\n").encode())) == sheet


@given(tracklists())
def test_recordings_10_tracks_survive_the_way_through_a_sheet(tracks: list[dict[str, str]]):
    sheet = cue_from_tracks(tracks, file_name="set.mp3")
    if tracks:
        again = parse_cue(format_cue(sheet))
        assert again.tracks_of(again.files[0]) == tracks


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["FILE", '"', "TRACK", "INDEX", "01", " ", "\n", ":"])).map("".join)
)
def test_recordings_10_any_text_is_a_sheet_or_a_typed_refusal(text: str):
    sheet, refusal = outcome(parse_cue, text)
    if refusal is None:
        assert parse_cue(format_cue(sheet)).files
    else:
        assert refusal.code == "recordings.cue"


@given(st.binary(max_size=300))
def test_recordings_10_any_bytes_are_text_or_a_typed_refusal(data: bytes):
    text, refusal = outcome(decode_cue, data)
    assert isinstance(text, str) if refusal is None else refusal.code == "recordings.cue_text"


@given(SECONDS)
def test_recordings_2_start_times_are_read_back(seconds: int):
    assert parse_start_time(format_start_time(seconds)) == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["title", "artist", "x"]), inner),
    max_leaves=10,
)


@given(JSON | st.lists(JSON, max_size=3))
def test_recordings_2_anything_else_is_refused_with_index_and_field(value: object):
    taken, refusal = outcome(validate_tracks, value)
    if refusal is None:
        assert taken in (None, [])  # nothing that this strategy makes has a start_time
    else:
        assert refusal.code == "recordings.tracks"
        assert {"index", "field"} <= refusal.facts.keys()


@given(tracklists(), st.data())
def test_recordings_2_the_place_of_a_mistake_is_named(tracks: list[dict[str, str]], data: st.DataObject):
    mistakes = {
        "title": st.sampled_from(["", "  ", 7, None, "x" * (NAME_LIMIT + 1), "a\x00", "\ud800"]),
        "artist": st.sampled_from([7, None, ["a"], "x" * (NAME_LIMIT + 1), "a\x00"]),
        "start_time": st.sampled_from(
            ["0:00", "00:60", "1:00:00", "00:60:00", "00:00:60", "-1:00", "", "\u0660\u0660:00", 0]
        ),
    }
    if not tracks:
        return
    index = data.draw(st.integers(0, len(tracks) - 1))
    field = data.draw(st.sampled_from(sorted(mistakes)))
    tracks[index][field] = data.draw(mistakes[field])
    with pytest.raises(ValidationError) as caught:
        validate_tracks(tracks)
    assert (caught.value.index, caught.value.field) == (index, field)
    assert f"tracks[{index}].{field}" in caught.value.message


@given(
    st.binary(max_size=60).filter(lambda name: b"\x00" not in name)
    | st.lists(st.sampled_from([b"\\", b"x", b"5c", b"ff", b"\xff", b"\xe9", "é".encode(), b"/"]), max_size=12).map(
        b"".join
    )
)
def test_recordings_10_any_file_name_becomes_storable_text_and_back(name: bytes):
    text = encode_path(name)
    text.encode()
    assert os.fsencode(decode_path(text)) == name


@given(
    st.lists(st.sampled_from([b"\\", b"x", b"5c", b"ff", b"\xff", b"a"]), max_size=8).map(b"".join),
    st.lists(st.sampled_from([b"\\", b"x", b"5c", b"ff", b"\xff", b"a"]), max_size=8).map(b"".join),
)
def test_recordings_10_two_file_names_never_have_one_text(first: bytes, second: bytes):
    assert (encode_path(first) == encode_path(second)) == (first == second)
