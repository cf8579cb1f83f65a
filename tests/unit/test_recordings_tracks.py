"""recordings-2: a tracklist is a list of tracks in playing order; anything else is refused, index and field named."""

from __future__ import annotations

import copy

import pytest

from fourfold.catalogs.recordings.models import Metadata, Recording, Tracklist
from fourfold.catalogs.recordings.tracks import validate_tracks
from fourfold.errors import ValidationError


def track(**changes: object) -> dict[str, object]:
    return {"title": "Dawn", "artist": "Mira", "start_time": "00:00", **changes}


@pytest.mark.parametrize(
    ("tracks", "index", "field"),
    [
        ([track(), track(start_time="00:61")], 1, "start_time"),
        ([track(start_time="10:00"), track(start_time="09:59")], 1, "start_time"),
        ([track(start_time="99:59"), track(start_time="01:00:00")], 1, "start_time"),
        ([track(), {"title": "Dawn", "artist": "Mira"}], 1, "start_time"),
        ([track(titel="x")], 0, "titel"),
        ([track(title="")], 0, "title"),
        ([track(artist=None)], 0, "artist"),
        ([track(), "Dawn"], 1, None),
        ("Dawn", None, None),
        ({"0": track()}, None, None),
    ],
)
def test_recordings_2_mistakes_are_refused_with_index_and_field(tracks: object, index: int | None, field: str | None):
    with pytest.raises(ValidationError) as caught:
        Tracklist(source="manual", tracks=tracks)
    assert (caught.value.index, caught.value.field) == (index, field)
    assert copy.copy(caught.value).index == index  # as pickle does it


def test_recordings_2_equal_times_and_both_forms_are_taken():
    tracks = [track(), track(start_time="59:59"), track(start_time="01:00:00"), track(start_time="60:00")]
    assert Tracklist(source="manual", tracks=tracks).tracks == tracks
    assert validate_tracks(None) is None
    assert validate_tracks(()) == []


def test_recordings_1_names_keep_to_their_columns():
    for make in (
        lambda: Metadata(key="k" * 256, value=""),
        lambda: Tracklist(source="s" * 256),
        lambda: Metadata(key=""),
    ):
        with pytest.raises(ValidationError, match="expected 1 to 255"):
            make()


def test_recordings_11_search_text_has_artist_title_and_tracks():
    recording = Recording(
        file_name="set.mp3",
        metadata_items=[Metadata(key="title", value="Low Tide"), Metadata(key="artist", value="Mira")],
        tracklist=Tracklist(source="cue", tracks=[track(), track(title="Untitled", artist="")]),
    )
    assert recording.search_text == "Mira – Low Tide\nMira – Dawn\nUntitled"
    assert Recording(file_name="warehouse.set.mp3", metadata_items=[]).search_text == "warehouse.set"
