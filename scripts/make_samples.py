"""Synthesizes the sample recordings, their tags and their cue sheets. Nothing in them was recorded or sampled.

Each recording is two to three seconds of sine waves, saw waves and seeded noise, encoded by ffmpeg and tagged by
mutagen. The same versions of both write the same bytes. Run it by `make samples`, which brings them.

Usage: python scripts/make_samples.py FOLDER
"""

from __future__ import annotations

import subprocess
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio_ffmpeg
import mutagen
import numpy as np
from mutagen.aiff import AIFF
from mutagen.easymp4 import EasyMP4
from mutagen.id3 import ID3, TALB, TCON, TDRC, TIT2, TPE1
from mutagen.mp3 import EasyMP3
from mutagen.wave import WAVE

RATE = 22_050  # samples per second: half of a CD's, plenty for these, and small
Sound = np.ndarray

# ----------------------------------------------------------------------------------------------------------- sound


def clock(seconds: float) -> Sound:
    """The time of each sample, in seconds."""
    return np.arange(int(seconds * RATE)) / RATE


def note(semitones: float) -> float:
    """The frequency in Hz of the note so many semitones above A3 (220 Hz)."""
    return 220.0 * 2 ** (semitones / 12)


def pad(seconds: float, chord: tuple[int, ...], swell_hz: float = 0.5) -> Sound:
    """A soft chord that swells and fades, as a bowed string would."""
    t = clock(seconds)
    voices = [np.sin(2 * np.pi * note(step) * t + index) for index, step in enumerate(chord)]
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * swell_hz * t - np.pi / 2)
    fade = np.clip(np.minimum(t, seconds - t) / 0.3, 0, 1)
    return sum(voices) / len(chord) * swell * fade


def surf(seconds: float, seed: int, swell_hz: float = 0.4) -> Sound:
    """Noise without its highs that comes and goes like waves on a beach."""
    t = clock(seconds)
    noise = np.random.default_rng(seed).standard_normal(t.size)
    smooth = np.convolve(noise, np.ones(40) / 40, mode="same")
    return smooth * (0.5 + 0.5 * np.sin(2 * np.pi * swell_hz * t - np.pi / 2))


def hits(
    seconds: float, beats_per_minute: float, hit: Callable[[], Sound], first: float = 0.0, step: float = 1.0
) -> Sound:
    """The sound `hit`, put down every `step` beats from beat `first` on."""
    out = np.zeros(int(seconds * RATE))
    one = hit()
    beat_samples = 60 / beats_per_minute * RATE
    for start in np.arange(first * beat_samples, out.size, step * beat_samples).astype(int):
        piece = one[: out.size - start]
        out[start : start + piece.size] += piece
    return out


def kick() -> Sound:
    """A bass drum: a sine that falls from 160 to 45 Hz."""
    t = clock(0.25)
    return np.sin(2 * np.pi * (45 * t + 6 * (1 - np.exp(-t * 20)))) * np.exp(-t * 14)


def hat() -> Sound:
    """A closed hi-hat: the highs of a short noise."""
    t = clock(0.05)
    return np.diff(np.random.default_rng(7).standard_normal(t.size), prepend=0) * np.exp(-t * 90) * 0.3


def snare() -> Sound:
    """A snare drum: noise over a short tone."""
    t = clock(0.15)
    noise = np.random.default_rng(11).standard_normal(t.size)
    return (0.4 * noise + np.sin(2 * np.pi * 190 * t)) * np.exp(-t * 25) * 0.6


def stab(chord: tuple[int, ...], seconds: float = 0.2) -> Callable[[], Sound]:
    """A short bright chord, as of brass or a keyboard."""

    def sound() -> Sound:
        t = clock(seconds)
        voices = [2 * ((note(step) * t) % 1) - 1 for step in chord]
        return sum(voices) / len(chord) * np.exp(-t * 12) * 0.5

    return sound


def bass(semitones: float) -> Callable[[], Sound]:
    """A short low saw wave."""

    def sound() -> Sound:
        t = clock(0.14)
        return (2 * ((note(semitones) / 4 * t) % 1) - 1) * np.exp(-t * 8) * 0.5

    return sound


# ------------------------------------------------------------------------------------------------------ recordings


@dataclass(frozen=True)
class Track:
    """A line of a cue sheet."""

    start: str
    title: str
    artist: str


@dataclass(frozen=True)
class Sample:
    """A recording: its file, its tags, its sound, and the tracks of its cue sheet (none: no sheet)."""

    file: str
    title: str
    artist: str
    album: str
    date: str
    genre: str
    sound: Sound
    encoder: tuple[str, ...]
    tracks: tuple[Track, ...] = ()


# Two tracks are on two recordings each: the graph shows one node for either.
GLASS_HORIZON = ("Glass Horizon", "Elin Farrow")
BLACK_IRON = ("Black Iron", "Kesselring")

SAMPLES = (
    Sample(
        "dawn-at-saltmarsh.mp3",
        "Dawn at Saltmarsh",
        "Mira Solvane",
        "Tidewater Mornings",
        "2019-06-02",
        "Ambient",
        pad(3, (0, 7, 12, 16)) * 0.7 + surf(3, seed=1) * 0.9,
        ("-c:a", "libmp3lame", "-b:a", "32k"),
        (
            Track("00:00:00", "Low Tide, First Light", "Mira Solvane"),
            Track("00:01:00", "Gulls over the Breakwater", "Harbour Choir"),
            Track("00:02:00", *GLASS_HORIZON),
        ),
    ),
    Sample(
        "furnace-room-4am.mp3",
        "Furnace Room, 4 a.m.",
        "Kesselring",
        "Warehouse Sessions",
        "2022-11-19",
        "Techno",
        hits(3, 145, kick) + hits(3, 145, hat, first=0.5) + hits(3, 145, bass(-9), first=0.25, step=0.5) * 0.6,
        ("-c:a", "libmp3lame", "-b:a", "32k"),
        (
            Track("00:00:00", "Piston", "Kesselring"),
            Track("00:01:00", *BLACK_IRON),
            Track("00:02:00", "Concrete Lungs", "Anvil & Ash"),
        ),
    ),
    Sample(
        "slow-boat-home.flac",
        "Slow Boat Home",
        "Elin Farrow",
        "Still Water",
        "2021-03-14",
        "Downtempo",
        pad(3, (-5, 2, 7, 11), swell_hz=0.33) * 0.8 + hits(3, 80, kick, step=2) * 0.4,
        ("-c:a", "flac", "-compression_level", "12"),
        (
            Track("00:00:00", "Été au phare", "Elin Farrow"),
            Track("00:01:37", *GLASS_HORIZON),
        ),
    ),
    Sample(
        "strobe-cellar-closing.ogg",
        "Strobe Cellar, Closing Set",
        "Anvil & Ash",
        "Warehouse Sessions",
        "2023-02-04",
        "Hard Techno",
        hits(3, 152, kick) * 1.2 + hits(3, 152, snare, first=1, step=2) + hits(3, 152, hat, first=0.5, step=0.5),
        ("-c:a", "libvorbis", "-q:a", "0"),
        (
            Track("00:00:00", *BLACK_IRON),
            Track("00:01:00", "Red Light Corridor", "Anvil & Ash"),
            Track("00:02:00", "Last Train Before Daylight", "Unit Nil"),
        ),
    ),
    Sample(
        "rooftop-sundown.m4a",
        "Rooftop Sundown",
        "Lota Marim",
        "Terracotta",
        "2020-08-22",
        "Deep House",
        hits(3, 122, kick) * 0.8
        + hits(3, 122, hat, first=0.5)
        + hits(3, 122, stab((0, 3, 7, 10)), first=0.75, step=1.5),
        ("-c:a", "aac", "-b:a", "40k"),
        (
            Track("00:00:00", "Orange Hour", "Lota Marim"),
            Track("00:01:00", "Lemon Trees", "Casa Pequena"),
        ),
    ),
    Sample(
        "rain-on-a-tin-roof.opus",
        "Rain on a Tin Roof",
        "Theo Brandling",
        "Study Hours",
        "2024-10-05",
        "Lo-Fi Hip Hop",
        hits(3, 78, kick) * 0.6
        + hits(3, 78, snare, first=1, step=2) * 0.5
        + pad(3, (3, 7, 10)) * 0.4
        + surf(3, 3) * 0.3,
        ("-c:a", "libopus", "-b:a", "24k"),
    ),
    Sample(
        "corner-lot-parade.wav",
        "Corner Lot Parade",
        "The Brass Selectors",
        "Forty-Fives Only",
        "2018-05-12",
        "Funk",
        hits(2, 108, kick)
        + hits(2, 108, snare, first=1, step=2)
        + hits(2, 108, stab((0, 4, 7, 10)), first=0.5, step=0.75),
        ("-c:a", "pcm_s16le", "-ar", "11025"),
    ),
    Sample(
        "undercroft-pressure.aiff",
        "Undercroft Pressure",
        "Subframe",
        "Breaks & Ladders",
        "2023-09-30",
        "Drum and Bass",
        hits(2, 174, kick, step=2.5) + hits(2, 174, snare, first=1, step=2) + hits(2, 174, hat, step=0.5),
        ("-c:a", "pcm_s16be", "-ar", "11025"),
    ),
)

# ----------------------------------------------------------------------------------------------------------- files

CUE_TYPES = {".mp3": "MP3", ".wav": "WAVE", ".aiff": "AIFF"}  # what cue sheets know; all others are written as WAVE


def cue_sheet(sample: Sample) -> str:
    """The sheet as DJ software writes it: INDEX is minutes, seconds, and frames of 1/75 second."""
    kind = CUE_TYPES.get(Path(sample.file).suffix, "WAVE")
    lines = [
        f'REM GENRE "{sample.genre}"',
        f"REM DATE {sample.date[:4]}",
        f'PERFORMER "{sample.artist}"',
        f'TITLE "{sample.title}"',
        f'FILE "{sample.file}" {kind}',
    ]
    for number, track in enumerate(sample.tracks, start=1):
        lines += [
            f"  TRACK {number:02} AUDIO",
            f'    TITLE "{track.title}"',
            f'    PERFORMER "{track.artist}"',
            f"    INDEX 01 {track.start}",
        ]
    return "\n".join(lines) + "\n"


def encode(sample: Sample, target: Path) -> None:
    """Write the sound through ffmpeg, without tags or any mark of time or version."""
    peak = np.max(np.abs(sample.sound))
    pcm = (sample.sound / peak * 0.8 * 32767).astype("<i2")
    with TemporaryDirectory() as folder:
        source = Path(folder) / "source.wav"
        with wave.open(str(source), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.writeframes(pcm.tobytes())
        exact = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(source), *exact, *sample.encoder]
        subprocess.run([*command, str(target)], check=True, stdin=subprocess.DEVNULL)


def tag(sample: Sample, target: Path) -> None:
    """Write title, artist, album, date and genre, in the way of the file's format."""
    suffix = target.suffix
    if suffix in {".wav", ".aiff"}:
        chunked = (WAVE if suffix == ".wav" else AIFF)(target)
        chunked.add_tags()
        assert isinstance(chunked.tags, ID3)  # noqa: S101 - tells the reader what add_tags made
        for frame, text in (
            (TIT2, sample.title),
            (TPE1, sample.artist),
            (TALB, sample.album),
            (TDRC, sample.date),
            (TCON, sample.genre),
        ):
            chunked.tags.add(frame(encoding=3, text=[text]))
        chunked.save(padding=lambda _: 0)
        return
    audio = {".mp3": EasyMP3, ".m4a": EasyMP4}.get(suffix, mutagen.File)(target)
    if audio.tags is None:
        audio.add_tags()
    for key in ("title", "artist", "album", "date", "genre"):
        audio[key] = [getattr(sample, key)]
    audio.save(padding=lambda _: 0)


def main(arguments: list[str]) -> int:
    """Write every recording and cue sheet into the folder and say how large they are."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    total_bytes = 0
    for sample in SAMPLES:
        target = folder / sample.file
        encode(sample, target)
        tag(sample, target)
        total_bytes += target.stat().st_size
        print(f"{target.stat().st_size:8} {sample.file}")
        if sample.tracks:
            target.with_suffix(".cue").write_text(cue_sheet(sample), encoding="utf-8", newline="\n")
    print(f"{total_bytes:8} bytes in all")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
