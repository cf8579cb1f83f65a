"""What commands say, and where: text for people, JSON for programs, progress that disturbs neither."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from fourfold.cli import output as module
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
    assert line == "evil  [2Jname  y"


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
