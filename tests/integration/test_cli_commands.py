"""Commands on an application of its own, in this process: what they do to the stores, say, and exit with."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.program import main
from fourfold.errors import StoreUnavailableError
from fourfold.graph.sqlite import SqliteGraphStore
from fourfold.integrity.report import VerifyReport
from fourfold.integrity.run import Integrity
from tests.acceptance import shop


class Shop:
    """A data folder with the shop's tables, and `fourfold` on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        options = ("--app", shop.APP, "--data-folder", str(self.folder))
        return main([*arguments, *options], out=out, err=err), out.getvalue(), err.getvalue()

    def ask(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.call(*arguments, "--json")
        assert "unexpected" not in err
        lines = out.splitlines()
        return code, json.loads(lines[-1])

    def execute(self, *statements: str) -> None:
        shop.execute(self.folder, *statements)

    def edit_graph(self, statement: str) -> None:
        """What somebody does behind the store's back."""
        with closing(sqlite3.connect(self.folder / "graph.db")) as connection, connection:
            connection.execute(statement)


@pytest.fixture
def own(tmp_path, monkeypatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    for name in ("FOURFOLD_APP", "FOURFOLD_EMBEDDER", "FOURFOLD_DATA_FOLDER", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    made = Shop(tmp_path / "data")
    shop.make_tables(made.folder)
    return made


@pytest.fixture
def filled(own) -> Shop:
    assert own.call("init")[0] == ExitCode.OK
    own.execute(shop.CUSTOMERS, shop.ORDERS)
    assert own.call("relay", "--once")[0] == ExitCode.OK
    return own


def test_init_says_what_it_did_and_does_it_once(own):
    code, first = own.ask("init")
    assert (code, first["was_new"]) == (0, True)
    assert "capture on customers" in first["done"]
    code, again = own.ask("init")
    assert (code, again["was_new"], again["done"]) == (0, False, [])
    assert "everything was there" in own.call("init")[1]


def test_init_without_the_applications_tables_says_so(tmp_path):
    code, answer = Shop(tmp_path / "empty").ask("init")
    assert code == ExitCode.ERROR
    assert answer["error"]["code"] == "rows.no_table"


@pytest.mark.parametrize("command", ["init", "migrate", "status", "stats"])
def test_a_folder_of_a_newer_release_is_refused(own, command):
    own.call("init")
    own.execute("UPDATE fourfold_version SET version_num = '9999_later'")
    code, answer = own.ask(command)
    if command == "status":
        assert code == ExitCode.UNHEALTHY
        assert [problem["code"] for problem in answer["problems"]] == ["rows.newer_version"]
    else:
        assert (code, answer["error"]["code"]) == (ExitCode.ERROR, "rows.newer_version")


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("stats",), ("verify",), ("repair",), ("rebuild",), ("retry",), ("relay", "--once"), ("collect",)],
)
def test_nothing_makes_a_data_folder_but_init(tmp_path, arguments):
    missing = Shop(tmp_path / "nowhere")
    code, answer = missing.ask(*arguments)
    assert (code, answer["error"]["code"]) == (ExitCode.ERROR, "cli.not_initialised")
    assert not missing.folder.exists()


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("recordngs", "did you mean 'recordings'"),
        ("tests.acceptance.shop:Bse", "did you mean 'Base'"),
        ("no_such_module:Base", "can't be imported"),
        ("tests.acceptance.shop:", "no catalog"),
    ],
)
def test_a_wrong_app_is_named(tmp_path, app, said):
    err = io.StringIO()
    assert main(["status", "--app", app, "--data-folder", str(tmp_path)], out=io.StringIO(), err=err) == 1
    assert said in err.getvalue()
    assert "cli.app" in err.getvalue()


def test_app_may_come_from_the_environment(own, monkeypatch):
    monkeypatch.setenv("FOURFOLD_APP", shop.APP)
    monkeypatch.setenv("FOURFOLD_DATA_FOLDER", str(own.folder))
    out = io.StringIO()
    assert main(["init", "--json"], out=out) == 0
    assert json.loads(out.getvalue())["app"] == shop.APP


def test_what_plain_sql_wrote_arrives(filled):
    code, found = filled.ask("stats")
    assert code == 0
    assert found["rows"] == {"customers": 2, "orders": 2}
    assert found["nodes"] == {"Customer": 2, "Order": 2}
    assert (found["edges"], found["points"]) == ({"OF": 2}, {"orders": 2})
    assert "(:Customer)" in filled.call("stats")[1]


def test_status_tells_lag_and_when_it_is_too_much(filled):
    code, status = filled.ask("status")
    assert (code, status["in_step"]) == (0, True)
    filled.execute("UPDATE customers SET name = 'Hopper' WHERE id = 2")
    filled.execute("UPDATE fourfold_change SET created_at = created_at - 100")
    code, status = filled.ask("status")
    assert (code, status["in_step"], status["healthy"]) == (0, False, True)
    assert status["lag_seconds"] > 99
    assert filled.ask("status", "--max-lag", "60")[0] == ExitCode.UNHEALTHY
    assert filled.ask("status", "--max-lag", "600")[0] == ExitCode.OK
    said = filled.call("status")[1]
    assert "healthy, and behind" in said
    assert "1 lines wait for dispatch" in said


def test_status_finds_missing_capture_and_migrate_puts_it_back(filled):
    [trigger, *_] = filled_triggers(filled, "customers")
    filled.execute(f"DROP TRIGGER {trigger}", "UPDATE customers SET name = 'unseen' WHERE id = 1")
    code, status = filled.ask("status")
    assert code == ExitCode.UNHEALTHY
    assert "capture.missing" in {problem["code"] for problem in status["problems"]}
    assert "fourfold migrate" in filled.call("status")[2]
    assert filled.call("doctor")[0] == ExitCode.UNHEALTHY
    code, migrated = filled.ask("migrate")
    assert (code, migrated["done"]) == (0, ["capture on customers"])
    assert filled.call("relay", "--once")[0] == 0
    assert filled.call("verify", "--deep")[0] == 0


def filled_triggers(own: Shop, table: str) -> list[str]:
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? AND name LIKE 'fourfold%' ORDER BY name"
    )
    with closing(sqlite3.connect(own.folder / "rows.db")) as connection:
        return [name for (name,) in connection.execute(query, (table,))]


def test_verify_deep_finds_what_was_altered_and_repair_mends_it(filled):
    filled.edit_graph("UPDATE node SET properties = replace(properties, 'Ada', 'Eve')")
    assert filled.ask("verify")[0] == ExitCode.OK  # digests are as they were written
    code, found = filled.ask("verify", "--deep")
    assert (code, found["differs"]) == (ExitCode.DIFFERS, True)
    assert [(each["target"], each["kind"]) for each in found["counts"]] == [("graph", "altered")]
    assert "next: fourfold repair" in filled.call("verify", "--deep")[1]
    code, repaired = filled.ask("repair", "--deep")
    assert (code, repaired["queued"]) == (0, 1)
    assert not repaired["after"]["differs"]
    assert filled.ask("verify", "--deep")[0] == ExitCode.OK


def test_repair_of_what_agrees_does_nothing(filled):
    assert "nothing to repair" in filled.call("repair")[1]


def test_repair_says_when_keys_could_not_be_judged(filled, monkeypatch):
    async def verify(*_, **__):
        return VerifyReport(deep=False, in_flight=3)

    monkeypatch.setattr(Integrity, "verify", verify)
    code, out, _ = filled.call("repair")
    assert code == ExitCode.UNHEALTHY
    assert "3 keys were still on their way" in out


def test_verify_reports_foreign_nodes_on_request_and_is_content(filled):
    filled.edit_graph(
        "INSERT INTO node (label, key, identity, properties, stub) "
        "VALUES ('Customer', 'x', '[\"id\"]', '{\"id\": 99}', 0)"
    )
    assert filled.ask("verify")[1]["counts"] == []
    code, found = filled.ask("verify", "--foreign")
    assert code == ExitCode.OK
    assert [(each["kind"], each["number"]) for each in found["counts"]] == [("foreign", 1)]


def test_an_unknown_target_is_named(filled):
    for command in ("verify", "repair", "rebuild", "retry"):
        code, answer = filled.ask(command, "--target", "grph")
        assert (code, answer["error"]["code"]) == (ExitCode.ERROR, "integrity.unknown_target")
        assert "did you mean 'graph'" in answer["error"]["message"]


def test_rebuild_brings_a_deleted_store_back(filled):
    for path in filled.folder.glob("vectors.db*"):
        path.unlink()
    assert filled.ask("verify", "--target", "vectors.orders")[0] == ExitCode.DIFFERS
    code, rebuilt = filled.ask("rebuild", "--target", "vectors.orders")
    assert (code, rebuilt["targets"], rebuilt["settled"]) == (0, ["vectors.orders"], True)
    assert filled.ask("verify")[0] == ExitCode.OK


def test_a_bad_row_is_quarantined_named_and_retried(filled):
    filled.execute("UPDATE orders SET taste = '[1.0]' WHERE id = 10")  # a vector of another length
    filled.call("relay", "--once")
    code, status = filled.ask("status")
    assert code == ExitCode.UNHEALTHY
    [key] = status["quarantined"]
    assert (key["target"], key["table"], key["key"]) == ("vectors.orders", "orders", "10")
    assert "quarantined: orders 10" in filled.call("status")[2]
    assert filled.ask("retry", "--table", "customers")[1] == {"queued": 0}
    assert filled.call("retry", "--table", "customers")[1] == "nothing is in quarantine for customers\n"
    assert filled.ask("retry", "--target", "vectors.orders")[1] == {"queued": 1}
    filled.execute("UPDATE orders SET taste = '[0.6, 0.8]' WHERE id = 10")
    filled.call("relay", "--once")
    assert filled.ask("status")[0] == ExitCode.OK
    assert "nothing is in quarantine" in filled.call("retry")[1]


def test_relay_once_says_how_much(filled):
    filled.execute("INSERT INTO customers (id, name) VALUES (3, 'Barbara')")
    code, out, _ = filled.call("relay", "--once", "--json", "--name", "w1")
    started, stopped = map(json.loads, out.splitlines())
    assert (code, started["event"], started["name"], stopped["event"]) == (0, "started", "w1", "stopped")
    assert stopped["statistics"]["by_target"]["graph"] == 1


def test_collect_removes_what_nothing_names(filled):
    code, report = filled.ask("collect", "--grace-seconds", "0")
    assert (code, report["removed"]) == (0, [])
    filled.execute(
        "INSERT INTO fourfold_object (key, sha256, xxh128, size_bytes, content_type, created_at) "
        "VALUES ('3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1', 'a', 'b', 1, 'text/plain', 0)"
    )
    code, report = filled.ask("collect", "--grace-seconds", "0")
    assert (code, answered(report)) == (1, "objects.store_missing")  # its bytes aren't there: the guard


def answered(document: dict[str, Any]) -> str:
    return document.get("error", {}).get("code", "")


def test_doctor_names_what_would_hurt(filled, monkeypatch):
    filled.execute(
        "CREATE TRIGGER touch AFTER UPDATE ON customers "
        "BEGIN UPDATE customers SET name = NEW.name WHERE id = NEW.id; END"
    )
    monkeypatch.setenv("FOURFOLD_LEASE_SECOND", "5")
    code, found = filled.ask("doctor")
    findings = {finding["subject"]: finding for finding in found["findings"] if finding["level"] != "ok"}
    assert code == ExitCode.OK  # warnings
    assert "'touch'" in findings["triggers"]["seen"]
    assert "FOURFOLD_LEASE_SECONDS" in findings["environment"]["advice"]
    subjects = {finding["subject"] for finding in found["findings"]}
    assert {"rows", "clock", "files", "graph", "vectors", "disk space", "installation", "lag"} <= subjects
    assert "1 note" in filled.call("doctor")[1] or "notes" in filled.call("doctor")[1]


def test_doctor_calls_triggers_fine_only_where_they_are(filled):
    filled.execute(
        "CREATE TRIGGER touch AFTER UPDATE ON customers "
        "BEGIN UPDATE customers SET name = NEW.name WHERE id = NEW.id; END"
    )
    _, found = filled.ask("doctor")
    assert [finding["level"] for finding in found["findings"] if finding["subject"] == "triggers"] == ["warning"]


def test_doctor_says_once_that_the_rows_are_broken(filled):
    (filled.folder / "rows.db").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    code, found = filled.ask("doctor")
    assert code == ExitCode.UNHEALTHY
    assert [finding["level"] for finding in found["findings"] if finding["subject"] == "rows"] == ["error"]


@pytest.mark.parametrize("command", ["init", "status", "stats"])
def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, command):
    # Longer than a name may be: refused for every user, root too, as a folder without rights is for others.
    code, found = Shop(tmp_path / ("x" * 300)).ask(command)
    assert (code, answered(found)) == (ExitCode.ERROR, "settings.data_folder")


def test_doctor_of_a_folder_that_cannot_be_looked_into_goes_on(tmp_path):
    code, found = Shop(tmp_path / ("x" * 300)).ask("doctor")
    assert code == ExitCode.UNHEALTHY
    errors = {finding["subject"]: finding["code"] for finding in found["findings"] if finding["level"] == "error"}
    assert errors == {"data folder": "cli.not_initialised", "rows": "settings.data_folder"}


def test_relay_once_says_what_failed(filled, monkeypatch):
    async def away(*_, **__):
        raise StoreUnavailableError("the graph is away", code="graph.unavailable")

    monkeypatch.setattr(SqliteGraphStore, "write", away)
    filled.execute("INSERT INTO customers (id, name) VALUES (3, 'Barbara')")
    code, _, err = filled.call("relay", "--once")
    assert code == ExitCode.OK
    assert err.startswith("relay: StoreUnavailableError")
    assert "the graph is away" in err


def test_doctor_leaves_no_object_behind(filled):
    before = sorted(path for path in (filled.folder / "files").rglob("*") if path.is_file())
    assert filled.call("doctor")[0] == ExitCode.OK
    assert sorted(path for path in (filled.folder / "files").rglob("*") if path.is_file()) == before


def test_doctor_of_nothing_says_init(tmp_path):
    missing = Shop(tmp_path / "nowhere")
    code, found = missing.ask("doctor")
    assert code == ExitCode.UNHEALTHY
    assert "Run: fourfold init" in {finding["advice"] for finding in found["findings"]}
    assert not missing.folder.exists()


def test_doctor_tells_of_a_broken_store_and_goes_on(filled):
    (filled.folder / "graph.db").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    code, found = filled.ask("doctor")
    assert code == ExitCode.UNHEALTHY
    levels = {finding["subject"]: finding["level"] for finding in found["findings"]}
    assert (levels["graph"], levels["rows"], levels["vectors"]) == ("error", "ok", "ok")
