"""`fourfold stats`: how much is in each store."""

from __future__ import annotations

from fourfold.cli.command import Command, Invocation
from fourfold.cli.exit_codes import ExitCode
from fourfold.cli.opening import open_store
from fourfold.cli.output import as_json, size

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Counts rows by table, files and their bytes, nodes by label, edges by type, and points by
collection. Each store is counted by itself, fully: on large data that takes seconds. Whether
they agree, verify tells."""


async def _run(invocation: Invocation) -> int:
    from fourfold.web.contents import read_contents

    output = invocation.output
    async with open_store(invocation) as store:
        contents = await read_contents(store.stores, store.plan)
    output.document(as_json(contents))
    rows: list[tuple[str, str, int]] = [("rows", name, number) for name, number in contents.rows.items()]
    rows += [("files", "objects", contents.files)]
    rows += [("graph", f"(:{name})", number) for name, number in contents.nodes.items()]
    rows += [("graph", f"[:{name}]", number) for name, number in contents.edges.items()]
    rows += [("vectors", name, number) for name, number in contents.points.items()]
    output.table(("store", "what", "number"), rows)
    output.line(f"files hold {size(contents.file_bytes)}")
    return ExitCode.OK


COMMAND = Command("stats", "how much is in each store", _DESCRIPTION, "fourfold stats --json", _run)
