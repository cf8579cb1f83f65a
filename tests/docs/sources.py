"""What the sources promise and the documentation has to name: error codes, settings, commands, public names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "fourfold"
CODE = re.compile(r"[a-z][a-z_]*\.[a-z][a-z0-9_]*")
# f-strings that become a code: prefix → where the rest of it comes from, the second argument of which calls.
COMPUTED = {
    "capture.": ("rows/capture/check.py", "CaptureProblem"),
    "objects.": ("objects/files.py", "_damaged"),
}
_NAMES = {"code", "default_code"}  # variables, keywords and attributes that hold a code


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the library but the testing tools and migrations."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).parts
        if parts[0] != "testing" and "migrations" not in parts:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def error_codes() -> dict[str, set[str]]:
    """Error codes that the library raises, and the files that do."""
    found: dict[str, set[str]] = {}
    for path, tree in modules():
        name = path.relative_to(SOURCE).as_posix()
        for code in _codes(tree):
            found.setdefault(code, set()).add(name)
    return found


def _codes(tree: ast.Module) -> Iterator[str]:
    for parent in ast.walk(tree):
        for value in _values(parent):
            for leaf in ast.walk(value):
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and CODE.fullmatch(leaf.value):
                    yield leaf.value
            if isinstance(value, ast.JoinedStr):
                yield from _computed(value)


def _values(parent: ast.AST) -> Iterator[ast.expr]:
    """Expressions that hold a code: `code=…`, `code = …`, and what follows an error's class in a tuple."""
    if isinstance(parent, ast.Call):
        yield from (keyword.value for keyword in parent.keywords if keyword.arg in _NAMES)
    elif isinstance(parent, ast.Assign | ast.AnnAssign) and parent.value is not None:
        targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
        for target in targets:
            names = [leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
            if _NAMES.intersection(names):
                yield parent.value
    elif isinstance(parent, ast.arguments):
        defaults = zip(reversed(parent.args), reversed(parent.defaults), strict=False)
        pairs = [*defaults, *zip(parent.kwonlyargs, parent.kw_defaults, strict=True)]
        yield from (value for argument, value in pairs if argument.arg in _NAMES and value is not None)
    elif isinstance(parent, ast.Tuple | ast.List) and any(_is_error(member) for member in parent.elts):
        yield from (member for member in parent.elts if isinstance(member, ast.Constant))


def _is_error(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id.endswith("Error")


def _computed(value: ast.JoinedStr) -> Iterator[str]:
    first = value.values[0]
    prefix = first.value if isinstance(first, ast.Constant) else ""
    if prefix not in COMPUTED:
        return
    file, called = COMPUTED[str(prefix)]
    for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == called:
            kind = node.args[1]
            if isinstance(kind, ast.Constant):
                yield f"{prefix}{kind.value}"


def public_names() -> dict[str, list[str]]:
    """`__all__` by module name."""
    found = {}
    for path, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
            ):
                parts = ["fourfold", *path.relative_to(SOURCE).with_suffix("").parts]
                name = ".".join(part for part in parts if part != "__init__")
                found[name] = ast.literal_eval(node.value)
    return found


def headings(*pages: str) -> set[str]:
    """Texts of the headings of documentation pages, without backticks."""
    found = set()
    for page in pages:
        fenced = False
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            fenced ^= line.startswith("```")
            if not fenced and line.startswith("#"):
                found.add(line.lstrip("#").strip().replace("`", ""))
    return found
