"""What the documentation must name, compared with the sources: nothing missing, nothing that is no more."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from fourfold.catalogs.recordings.database import RecordingsSettings
from fourfold.cli.application import CommandSettings
from fourfold.cli.commands import COMMANDS
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.parser import Parser, build_parser
from fourfold.settings import Settings
from tests.docs.sources import CODE, ROOT, SOURCE, error_codes, headings, modules, public_names

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
REFERENCE = "docs/reference/python.md"


def test_every_error_code_has_its_heading():
    named = {text for text in headings("docs/how-to/errors.md") if CODE.fullmatch(text)}
    assert set(error_codes()) - named == set()
    assert named - set(error_codes()) == set()


def test_error_codes_are_found_in_sources_at_all():
    found = error_codes()
    # One of each form: keyword, class attribute, tuple beside an error's class, computed.
    assert {"cli.app", "relay.revoked", "rows.deadlock", "capture.missing", "objects.sha256"} <= set(found)


def test_error_classes_are_in_the_reference():
    text = (ROOT / "docs/reference/errors.md").read_text()
    assert [name for name in public_names()["fourfold.errors"] if f"`{name}`" not in text] == []


@pytest.mark.parametrize("kind", [Settings, CommandSettings])
def test_every_setting_has_its_heading(kind):
    named = headings("docs/reference/settings.md")
    assert [name for name in kind.model_fields if f"FOURFOLD_{name.upper()}" not in named] == []


def test_settings_that_are_described_are_settings():
    prefix = {f"FOURFOLD_{name.upper()}" for kind in (Settings, CommandSettings) for name in kind.model_fields}
    aliases = {
        str(choice)
        for field in RecordingsSettings.model_fields.values()
        for choice in getattr(field.validation_alias, "choices", [])
    }
    named = {text for text in headings("docs/reference/settings.md") if re.fullmatch(r"[A-Z][A-Z_]+", text)}
    assert named - prefix - aliases == set()


def test_every_command_has_its_heading_and_every_option_is_named():
    named = headings("docs/reference/cli.md")
    text = (ROOT / "docs/reference/cli.md").read_text()
    assert [command.name for command in COMMANDS if f"fourfold {command.name}" not in named] == []
    for command in COMMANDS:
        section = text.split(f"## `fourfold {command.name}`")[1].split("\n## ")[0]
        parser = Parser(add_help=False)
        command.configure(parser)
        assert [name for name in parser.option_names() if f"`{name}" not in section] == [], command.name


def test_commands_that_are_described_exist():
    described = {
        text.removeprefix("fourfold ") for text in headings("docs/reference/cli.md") if text.startswith("fourfold ")
    }
    assert described == {command.name for command in COMMANDS}


def test_exit_codes_are_described_as_they_are():
    text = (ROOT / "docs/reference/cli.md").read_text()
    for code in ExitCode:
        assert f"| {code.value} | `{code.name}` | {code.meaning} |" in text


def test_public_names_are_in_the_reference_and_no_others():
    text = (ROOT / REFERENCE).read_text()
    sections = dict(re.findall(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    exported = public_names()
    assert set(sections) <= set(exported)
    for module, section in sections.items():
        named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert sorted(named) == sorted(exported[module]), module


def test_public_packages_are_in_the_reference():
    text = (ROOT / REFERENCE).read_text()
    wanted = ("fourfold", "fourfold.projection", "fourfold.objects", "fourfold.web", "fourfold.catalogs.recordings")
    assert [name for name in wanted if f"## `{name}`" not in text] == []


def test_exports_are_sorted():
    def order(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert {module: names for module, names in public_names().items() if names != sorted(names, key=order)} == {}


def test_modules_begin_with_their_contract():
    import ast

    silent = [path.relative_to(SOURCE).as_posix() for path, tree in modules() if not ast.get_docstring(tree)]
    assert silent == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    texts = (re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings(str(page.relative_to(ROOT))))
    return set(texts)


def test_commands_in_the_documentation_parse():
    parser = build_parser(COMMANDS, "0")
    wrong = []
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                words = line.partition("#")[0].split()
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words = words[1:]
                if words[:1] == ["fourfold"] and not _parses(parser, words[1:]):
                    wrong.append(f"{page.name}: {line}")
    assert wrong == []


def test_commands_examples_parse():
    parser = build_parser(COMMANDS, "0")
    assert [command.example for command in COMMANDS if not _parses(parser, command.example.split()[1:])] == []


def _parses(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    try:
        return not parser.parse_known_args(words)[1]
    except SystemExit:
        return False
