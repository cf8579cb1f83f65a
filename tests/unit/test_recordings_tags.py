"""recordings-10: tags and technical properties, the same keys in every format; what can't be read says why."""

from __future__ import annotations

import random
import shutil
import struct
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import mutagen
import pytest
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, TCON, TIT2, TPE1, TXXX, UFID
from mutagen.mp4 import MP4FreeForm

import fourfold.catalogs.recordings
from fourfold.catalogs.recordings.tags import PROPERTY_KEYS, TAG_KEYS, VALUE_LIMIT, read_tags
from fourfold.catalogs.recordings.truncation import find_truncation
from fourfold.errors import ConfigurationError, ValidationError

SAMPLES = Path(fourfold.catalogs.recordings.__file__).parent / "samples"
AUDIO = sorted(path for path in SAMPLES.iterdir() if path.suffix not in {".cue", ".md", ".py"} and path.is_file())


@pytest.fixture
def sample(tmp_path: Path):
    def copy(name: str, to: str | None = None) -> Path:
        return Path(shutil.copy(SAMPLES / name, tmp_path / (to or name)))

    return copy


@pytest.mark.parametrize("path", AUDIO, ids=lambda path: path.name)
def test_recordings_10_every_format_has_the_same_keys(path: Path):
    tags = read_tags(path)
    assert {"title", "artist", "album", "date", "genre"} <= tags.tags.keys() <= TAG_KEYS
    assert {"format", "duration_seconds", "bitrate_bps", "channels"} <= tags.properties.keys() <= set(PROPERTY_KEYS)
    assert 1.9 < float(tags.properties["duration_seconds"]) < 3.2
    assert len(tags.rows()) == len(tags.properties) + sum(len(values) for values in tags.tags.values())


def test_recordings_10_content_decides_the_format(sample):
    path = sample("slow-boat-home.flac", "lies.mp3")
    assert read_tags(path).properties["format"] == "flac"
    assert read_tags(sample("dawn-at-saltmarsh.mp3", "no-suffix")).properties["format"] == "mp3"


def test_recordings_10_id3_many_values_comments_and_free_texts(sample):
    path = sample("dawn-at-saltmarsh.mp3")
    audio = mutagen.File(path)
    audio.tags.add(TPE1(encoding=3, text=["Mira", "Elin", "Mira"]))
    audio.tags.add(TCON(encoding=3, text=["(4)", "Ambient"]))
    audio.tags.add(COMM(encoding=3, lang="eng", desc="", text=["first"]))
    audio.tags.add(COMM(encoding=3, lang="deu", desc="x", text=["second"]))
    audio.tags.add(TXXX(encoding=3, desc="Catalog Number", text=["FF-1"]))
    audio.tags.add(TXXX(encoding=3, desc="SERATO_MARKERS", text=["AAAA"]))
    audio.tags.add(UFID(owner="x", data=b"\x00"))
    audio.save()
    tags = read_tags(path).tags
    assert tags["artist"] == ("Mira", "Elin")
    assert tags["genre"] == ("Disco", "Ambient")
    assert set(tags["comment"]) == {"first", "second"}
    assert tags["catalognumber"] == ("FF-1",)


def test_recordings_10_vorbis_aliases(sample):
    path = sample("strobe-cellar-closing.ogg")
    audio = mutagen.File(path)
    audio["ALBUM ARTIST"] = ["Anvil & Ash"]
    audio["Organization"] = ["Iron"]
    audio["INITIALKEY"] = ["8A"]
    audio["metadata_block_picture"] = ["A" * 100_000]
    audio.save()
    tags = read_tags(path).tags
    assert (tags["albumartist"], tags["label"], tags["initialkey"]) == (("Anvil & Ash",), ("Iron",), ("8A",))
    assert tags.keys() <= TAG_KEYS


def test_recordings_10_mp4_numbers_and_free_form(sample):
    path = sample("rooftop-sundown.m4a")
    audio = mutagen.File(path)
    audio["trkn"] = [(3, 12)]
    audio["tmpo"] = [124]
    audio["----:com.apple.iTunes:LABEL"] = [MP4FreeForm(b"Terra \xff")]
    audio.save()
    tags = read_tags(path).tags
    assert (tags["tracknumber"], tags["bpm"], tags["label"]) == (("3/12",), ("124",), ("Terra \ufffd",))


def test_recordings_10_pictures_and_huge_values_are_no_metadata(sample):
    path = sample("slow-boat-home.flac")
    audio = FLAC(path)
    picture = Picture()
    picture.data = b"\xff" * 500_000
    audio.add_picture(picture)
    audio["comment"] = ["x" * (VALUE_LIMIT + 1), "short"]
    audio["artist"] = [f"artist {number}" for number in range(1000)]
    audio.save()
    tags = read_tags(path)
    assert tags.tags["comment"] == ("short",)
    assert tags.left_out == ("comment",)
    assert len(tags.tags["artist"]) == 50
    mp3 = sample("dawn-at-saltmarsh.mp3")
    other = mutagen.File(mp3)
    other.tags.add(APIC(encoding=0, mime="image/png", type=3, desc="", data=b"\x00" * 500_000))
    other.save()
    assert all(len(value) <= VALUE_LIMIT for _, value in read_tags(mp3).rows())


def test_recordings_10_odd_texts_become_storable(sample):
    path = sample("undercroft-pressure.aiff")
    audio = mutagen.File(path)
    audio.tags.add(TIT2(encoding=1, text=["  Sub\x07frame – 夜 "]))
    audio.tags.add(TPE1(encoding=0, text=["Café"]))
    audio.save()
    raw = path.read_bytes()
    # A lone surrogate, as broken UTF-16 has it, in place of 夜.
    path.write_bytes(raw.replace("夜".encode("utf-16-le"), b"\x00\xd8"))
    tags = read_tags(path).tags
    for values in tags.values():
        for value in values:
            value.encode()
            assert "\x00" not in value
    assert tags["artist"] == ("Café",)


def test_recordings_10_embedded_nul_is_stripped(sample):
    path = sample("slow-boat-home.flac")
    audio = FLAC(path)
    audio["title"] = ["a\x00b\x00"]
    audio.save()
    assert read_tags(path).tags["title"] == ("a b",)


def test_recordings_10_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "a.mp3").touch()
    with pytest.raises(ValidationError, match="0 bytes") as caught:
        read_tags(tmp_path / "a.mp3")
    assert caught.value.code == "recordings.empty"


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("path", AUDIO, ids=lambda path: path.name)
def test_recordings_10_cut_file_is_refused(path: Path, share: float, tmp_path: Path):
    data = path.read_bytes()
    cut = tmp_path / path.name
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValidationError) as caught:
        read_tags(cut)
    assert caught.value.code in {"recordings.truncated", "recordings.damaged"}
    assert caught.value.message[-1] not in ". :"


@pytest.mark.parametrize(
    "content", [b"just a text", b"\x89PNG\r\n\x1a\n" + b"x" * 4000, b"MThd\x00\x00\x00\x06" + b"\x00" * 50]
)
@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".wav", ".mid", ""])
def test_recordings_10_what_is_no_audio_is_refused(content: bytes, suffix: str, tmp_path: Path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValidationError) as caught:
        read_tags(path)
    assert caught.value.code in {"recordings.not_audio", "recordings.damaged"}


@pytest.mark.parametrize("path", AUDIO, ids=lambda path: path.name)
def test_recordings_10_damaged_headers_are_refused_or_read_never_a_crash(path: Path, tmp_path: Path):
    rng = random.Random(path.name)
    data = path.read_bytes()
    for round_number in range(60):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 12)):
            damaged[rng.randrange(min(len(data), 2000))] = rng.randrange(256)
        target = tmp_path / f"{round_number}{path.suffix}"
        target.write_bytes(damaged)
        with suppress(ValidationError):
            rows = read_tags(target).rows()
            assert all("\x00" not in value and len(value) <= VALUE_LIMIT for _, value in rows)


def compressed_frame(text: str) -> bytes:
    """A TXXX frame of ID3v2.3, compressed."""
    body = b"\x00Label\x00" + text.encode("latin-1")
    packed = zlib.compress(body, 9)
    return b"TXXX" + struct.pack(">IH", len(packed) + 4, 0x80) + struct.pack(">I", len(body)) + packed


@pytest.mark.parametrize(
    ("text", "taken"),
    [("Iron " * 100, True), ("A" * 5_000_000, False), ("A" * 50_000, False)],
    ids=["text", "large", "small"],
)
def test_recordings_10_compressed_bombs_in_tags_are_not_inflated(text: str, taken: bool, tmp_path: Path):
    frames = compressed_frame(text) * 3
    size = bytes(len(frames) >> shift & 127 for shift in (21, 14, 7, 0))
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3\x03\x00\x00" + size + frames + (SAMPLES / "dawn-at-saltmarsh.mp3").read_bytes())
    tracemalloc.start()
    tags = read_tags(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tags.tags.get("label") == ((text.strip(),) if taken else None)
    assert peak_bytes < 4_000_000


def test_recordings_10_missing_file_is_the_callers_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_tags(tmp_path / "a.mp3")


def test_recordings_10_without_mutagen_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mutagen", None)
    with pytest.raises(ConfigurationError, match=r"fourfold\[recordings\]"):
        read_tags(AUDIO[0])


@pytest.mark.parametrize("declared", [0x7FFF_F024, 0x7FFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFDB])
def test_recordings_10_wav_from_a_pipe_has_no_length_and_is_taken(sample, declared):
    path = sample("corner-lot-parade.wav")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 4, declared)
    path.write_bytes(data)
    assert read_tags(path).properties["format"] == "wav"


def test_recordings_10_letters_of_a_page_in_the_audio_are_no_cut(tmp_path):
    class OggVorbis:
        """What mutagen would call it."""

    path = tmp_path / "set.ogg"
    audio = bytes(60) + b"OggS" + b"\xff" * 136
    path.write_bytes(b"OggS" + bytes(22) + bytes([1, len(audio)]) + audio)
    with path.open("rb") as stream:
        assert find_truncation(stream, OggVorbis()) is None
    path.write_bytes(path.read_bytes()[:-1])
    with path.open("rb") as stream:
        assert "its header promises 228" in find_truncation(stream, OggVorbis())
