"""What commands say, and where: text for people, JSON for programs, progress that disturbs neither."""

from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from fourfold.catalogs.recordings.report import Duplicate, IngestReport, Problem
from fourfold.cli import output as module
from fourfold.cli.commands.ingest import ingest_document, say_ingest
from fourfold.cli.output import Output, aligned, as_json


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def made(err=None, **options) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), err or io.StringIO()
    return Output(out=out, err=err, **options), out, err


def test_json_leaves_text_out():
    output, out, err = made(json_wanted=True)
    output.line("for people")
    output.table(("a",), [(1,)])
    output.note("a note")
    output.document({"a": 1})
    assert json.loads(out.getvalue()) == {"a": 1}
    assert err.getvalue() == ""


def test_text_leaves_json_out():
    output, out, _ = made()
    output.document({"a": 1})
    output.line("for people")
    assert out.getvalue() == "for people\n"


def test_quiet_says_problems_only():
    output, out, err = made(quiet=True)
    output.line("text")
    output.note("note")
    output.progress("step", 1)
    output.problem("bad")
    assert (out.getvalue(), err.getvalue()) == ("", "bad\n")


def test_numbers_stand_to_the_right():
    assert aligned(("name", "number"), [("a", 1), ("bc", 12345)]) == ["name  number", "a          1", "bc    12,345"]
    assert aligned(("name",), []) == []


def test_a_value_from_outside_cannot_break_the_table():
    [_, line] = aligned(("file", "x"), [("evil\n\x1b[2Jname", "y")])
    assert line == r"evil\n\x1b[2Jname  y"


def test_a_value_from_outside_cannot_move_the_cursor():
    output, out, err = made()
    output.line("duplicate: \x1b[2Jx\nsecond line")
    output.problem("broken: \x9b2Jx\u202e")
    assert out.getvalue() == "duplicate: \\x1b[2Jx\nsecond line\n"
    assert err.getvalue() == "broken: \\x9b2Jx\\u202e\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_names_that_the_stream_cannot_write_are_escaped(encoding):
    folder = os.fsdecode(b"/music/f\xe9lder \xe5\xa4\x9c")
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    text, programs = Output(out=out), Output(out=out, json_wanted=True)
    text.line(f"“{folder}”")
    programs.document({"folder": folder})
    line, document = out.buffer.getvalue().decode(encoding).splitlines()
    assert "/music/f\\xe9lder" in line
    assert json.loads(document) == {"folder": folder}


def test_progress_is_no_wider_than_the_terminal(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    output, _, err = made(Terminal())
    output.progress("ingest /music/" + "x" * 100 + "\x1b[2J.mp3", 12345)
    assert len(err.getvalue()) == 30  # with the \r
    assert err.getvalue().startswith("\ringest /music")
    assert err.getvalue().endswith(".mp3: 12,345")


def test_progress_on_a_terminal_overwrites_itself_and_is_wiped(clock):
    output, out, err = made(Terminal())
    output.progress("settle", 1, 4)
    output.progress("settle", 2, 4)  # too soon
    clock.now += 1
    output.progress("settle", 3, 4)
    output.line("done")
    assert err.getvalue() == f"\rsettle: 1 of 4\rsettle: 3 of 4\r{' ' * 14}\r"
    assert out.getvalue() == "done\n"


def test_progress_in_a_log_is_a_line_every_few_seconds(clock):
    output, _, err = made()
    output.progress("settle", 1, 4)  # what is quick needs no line
    clock.now += 6
    output.progress("settle", 2, 4)
    output.progress("settle", 3, 4)
    assert err.getvalue() == "settle: 2 of 4\n"


def test_progress_beside_json_is_json_and_not_on_standard_output(clock):
    output, out, err = made(Terminal(), json_wanted=True)
    output.progress("verify", 1)
    clock.now += 6
    output.progress("verify", 2)
    assert json.loads(err.getvalue()) == {"progress": {"step": "verify", "done": 2, "total": 0}}
    assert out.getvalue() == ""


@dataclass
class Thing:
    key: UUID
    path: Path


def test_everything_becomes_json():
    key = UUID(int=1)
    thing = {"thing": Thing(key, Path("/x")), ("a", "b"): (1, None), "set": {"b", "a"}, "bytes": b"\x01"}
    assert as_json(thing) == {
        "thing": {"key": str(key), "path": "/x"},
        "a:b": [1, None],
        "set": ["a", "b"],
        "bytes": "01",
    }


def test_an_ingest_says_what_to_do_about_each_file():
    report = IngestReport("/music", added=1)
    report.problems.append(Problem.of_os_error("/music/a.mp3", PermissionError(errno.EACCES, "Permission denied")))
    report.missing += [f"/music/{number}.mp3" for number in range(60)]
    report.duplicates.append(Duplicate("/music/x\n\x1b[2J.mp3", UUID(int=1), "/music/x.mp3"))
    output, out, err = made()
    say_ingest(output, report)
    assert err.getvalue().splitlines() == [
        "broken: /music/a.mp3: it can't be read: Permission denied (recordings.unreadable)",
        "  hint: Check the disk and the rights, then run again",
    ]
    said = out.getvalue()
    assert "no longer there: /music/49.mp3; its recording stays" in said
    assert "and 10 more" in said
    assert r"/music/x\n\x1b[2J.mp3 has the bytes" in said
    [problem] = ingest_document(report)["problems"]
    assert problem["hint"] == "Check the disk and the rights, then run again"
