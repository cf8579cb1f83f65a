"""A catalogue of DJ recordings: audio files with tags and tracklists, as rows, files, graph and vectors.

`models` says what is stored, `migrate` makes the tables, `importer.ingest` fills them from a folder, `queries` asks,
`repositories` is the door for code that isn't async. Reading audio files needs the extra `fourfold[recordings]`.
"""

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
from fourfold.catalogs.recordings.database import DatabaseManager, RecordingsSettings, get_db_session
from fourfold.catalogs.recordings.deletion import delete
from fourfold.catalogs.recordings.importer import ingest
from fourfold.catalogs.recordings.migrate import adopt, downgrade, upgrade
from fourfold.catalogs.recordings.models import Base, Metadata, Recording, Tracklist
from fourfold.catalogs.recordings.paths import decode_path, encode_path
from fourfold.catalogs.recordings.queries import SharedTrack, SimilarRecording, shared_tracks, similar
from fourfold.catalogs.recordings.report import Duplicate, IngestProgress, IngestReport, Problem
from fourfold.catalogs.recordings.repositories import MetadataRepository, RecordingRepository, TracklistRepository
from fourfold.catalogs.recordings.tags import AudioTags, read_tags
from fourfold.catalogs.recordings.tracks import Track, validate_tracks

__all__ = [
    "AudioTags",
    "Base",
    "CueFile",
    "CueIndex",
    "CueSheet",
    "CueTrack",
    "DatabaseManager",
    "Duplicate",
    "IngestProgress",
    "IngestReport",
    "Metadata",
    "MetadataRepository",
    "Problem",
    "Recording",
    "RecordingRepository",
    "RecordingsSettings",
    "SharedTrack",
    "SimilarRecording",
    "Track",
    "Tracklist",
    "TracklistRepository",
    "adopt",
    "cue_from_tracks",
    "decode_path",
    "delete",
    "downgrade",
    "encode_path",
    "format_cue",
    "get_db_session",
    "ingest",
    "parse_cue",
    "read_cue",
    "read_tags",
    "shared_tracks",
    "similar",
    "upgrade",
    "validate_tracks",
]
