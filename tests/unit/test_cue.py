"""recordings-10: cue sheets read and written."""

from __future__ import annotations

from pathlib import Path

import pytest

import fourfold.catalogs.recordings
from fourfold.catalogs.recordings.cue import (
    CueFile,
    CueIndex,
    CueSheet,
    CueTrack,
    cue_from_tracks,
    format_cue,
    parse_cue,
    read_cue,
)
from fourfold.catalogs.recordings.cue_text import SIZE_LIMIT_BYTES, decode_cue
from fourfold.errors import ConfigurationError, ValidationError

SAMPLES = Path(fourfold.catalogs.recordings.__file__).parent / "samples"
SET = 'FILE "set.mp3" MP3\n  TRACK 01 AUDIO\n    TITLE "One"\n    INDEX 01 {time}\n'


def tracks_of(text: str) -> list[tuple[str, str, str]]:
    sheet = parse_cue(text)
    return [(track["title"], track["artist"], track["start_time"]) for track in sheet.tracks_of(sheet.files[0])]


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.cue")), ids=lambda path: path.stem)
def test_recordings_10_sample_sheets_are_read_and_written_without_loss(path: Path):
    sheet = read_cue(path)
    assert parse_cue(format_cue(sheet)) == sheet
    assert sheet.file_for(sheet.files[0].name) is sheet.files[0]
    assert sheet.tracks_of(sheet.files[0])


def test_recordings_10_frames_and_sheet_performer():
    sheet = read_cue(SAMPLES / "slow-boat-home.cue")
    assert sheet.files[0].tracks[1].indexes == (CueIndex(1, 75 + 37),)
    assert sheet.tracks_of(sheet.files[0])[0]["title"] == "Été au phare"
    assert tracks_of('PERFORMER "Mira"\n' + SET.format(time="00:00:00")) == [("One", "Mira", "00:00")]


@pytest.mark.parametrize(
    ("time", "start"),
    [
        ("00:00:00", "00:00"),
        ("0:01:74", "00:01"),
        ("99:59:00", "99:59"),
        ("100:00:00", "01:40:00"),
        ("5999:59:74", "99:59:59"),
    ],
)
def test_recordings_10_minutes_beyond_99_become_hours(time: str, start: str):
    assert tracks_of(SET.format(time=time)) == [("One", "", start)]


@pytest.mark.parametrize(
    "time", ["00:60:00", "00:00:75", "1:00", "-1:00:00", "ab:00:00", "", "6000:00:00", "00:00:00.5"]
)
def test_recordings_10_wrong_time_names_line_and_text(time: str):
    with pytest.raises(ValidationError) as caught:
        parse_cue(SET.format(time=time))
    assert caught.value.code == "recordings.cue"
    assert caught.value.line == 4
    assert caught.value.text == f"INDEX 01 {time}".strip()
    assert "line 4" in str(caught.value)


def test_recordings_10_decreasing_start_names_the_track():
    with pytest.raises(ValidationError, match=r"line 4, 'TRACK 02 AUDIO': track 2 starts at 00:01:00, before 00:02:00"):
        parse_cue('FILE "a" MP3\nTRACK 01 AUDIO\nINDEX 01 00:02:00\nTRACK 02 AUDIO\nINDEX 01 00:01:00')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("TRACK 01 AUDIO", 1),
        ('FILE "a" MP3\nINDEX 01 00:00:00', 2),
        ('FILE "a" MP3\nTRACK one AUDIO', 2),
        ('FILE "a" MP3\nTRACK 01 AUDIO', 2),
        ('FILE "a" MP3\nTRACK 01 AUDIO\nINDEX x 00:00:00', 3),
        ("FILE", 1),
        ("", None),
        ("just some notes", None),
    ],
)
def test_recordings_10_what_is_no_sheet_is_refused(text: str, line: int | None):
    with pytest.raises(ValidationError) as caught:
        parse_cue(text)
    assert caught.value.code == "recordings.cue"
    assert caught.value.line == line


def test_recordings_10_lenient_in_what_does_not_matter():
    text = (
        '\ufeffrem COMMENT "ripped"\r\n\r\ntitle  "A "quoted" set\r\n'
        "file plain name.mp3 MP3\r\n\ttrack 1 audio\r\n\t\tTITLE Unquoted\r\n\t\tISRC ABC\r\n"
        "\t\tFLAGS DCP\r\n\t\tINDEX 00 00:00:00\r\n\t\tindex 01 00:02:00"
    )
    sheet = parse_cue(decode_cue(text.encode()))
    assert sheet.title == 'A "quoted'
    assert sheet.commands == ('rem COMMENT "ripped"',)
    assert sheet.files[0].name == "plain name.mp3"
    track = sheet.files[0].tracks[0]
    assert (track.title, track.commands, track.start_frames) == ("Unquoted", ("ISRC ABC", "FLAGS DCP"), 150)


def test_recordings_10_quotes_inside_a_title_survive():
    sheet = cue_from_tracks([{"title": 'The "One"', "artist": '"', "start_time": "00:00"}], file_name='a "b".flac')
    assert parse_cue(format_cue(sheet)) == sheet


def test_recordings_10_gap_at_the_end_of_the_earlier_file():
    text = (
        'FILE "1.wav" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:00:00\nTRACK 02 AUDIO\nINDEX 00 04:00:00\n'
        'FILE "2.wav" WAVE\nINDEX 01 00:00:00'
    )
    first, second = parse_cue(text).files
    assert [track.number for track in first.tracks] == [1]
    assert [(track.number, track.indexes) for track in second.tracks] == [(2, (CueIndex(1, 0),))]


def test_recordings_10_untitled_tracks_of_two_sheets_are_not_the_same_track():
    def title(sheet_title: str) -> str:
        return tracks_of(f'TITLE "{sheet_title}"\nFILE "x.mp3" MP3\nTRACK 03 AUDIO\nINDEX 01 00:00:00')[0][0]

    assert title("Dawn") == "Track 03 of Dawn"
    assert title("Dusk") != title("Dawn")


def test_recordings_10_file_for_finds_by_name_then_stem_then_the_only_one():
    def file(name: str) -> CueFile:
        return CueFile(name, "WAVE", (CueTrack(1, (CueIndex(1, 0),)),))

    two = CueSheet((file("C:\\Rips\\Side A.wav"), file("side b.wav")))
    assert two.file_for("side a.WAV") is two.files[0]
    assert two.file_for("Side B.flac") is two.files[1]
    assert two.file_for("other.flac") is None
    assert CueSheet(two.files[:1]).file_for("other.flac") is two.files[0]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "TITLE Été – 夜"),
        ("utf-8-sig", "TITLE Été – 夜"),
        ("utf-16", "TITLE Été – 夜"),
        ("cp1252", "TITLE “Beyoncé – Été”"),
        ("cp1252", "TITLE L'éléphant à Nîmes, Größe, Señor"),
        ("latin-1", "TITLE Sigur Rós\x9d"),
        ("shift-jis", "TITLE 夜の東京"),
        ("shift-jis", "TITLE カフェ・デル・マール\nPERFORMER 坂本龍一"),
        ("ascii", "TITLE Dawn"),
    ],
)
def test_recordings_10_encoding_is_found(encoding: str, text: str):
    assert decode_cue(text.encode(encoding)) == text


def test_recordings_10_encoding_given():
    assert decode_cue("TITLE Рассвет".encode("cp1251"), "cp1251") == "TITLE Рассвет"
    with pytest.raises(ConfigurationError, match="cp9999"):
        decode_cue(b"x", "cp9999")
    with pytest.raises(ValidationError, match="not valid utf-8 at byte 0"):
        decode_cue(b"\xff", "utf-8")


def test_recordings_10_binary_and_endless_sheets_are_refused(tmp_path: Path):
    (tmp_path / "a.cue").write_bytes(b"FILE\x00\x01")
    with pytest.raises(ValidationError, match="NUL"):
        read_cue(tmp_path / "a.cue")
    with (tmp_path / "b.cue").open("wb") as stream:
        stream.truncate(SIZE_LIMIT_BYTES * 4096)  # sparse: read whole, it would be 4 GiB
    with pytest.raises(ValidationError, match="more than 1048576 bytes"):
        read_cue(tmp_path / "b.cue")


def test_recordings_10_line_breaks_in_names_are_folded():
    sheet = cue_from_tracks([], file_name="a.mp3", title="two\r\nlines")
    assert format_cue(sheet).splitlines()[0] == 'TITLE "two lines"'
