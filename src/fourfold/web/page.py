"""The status page as HTML: a pure function of a snapshot. What comes from outside is escaped, by `_text`."""

from __future__ import annotations

import base64
import datetime as dt
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fourfold.fourfold import StoreStatus
    from fourfold.web.contents import Contents
    from fourfold.web.snapshot import Snapshot, State
    from fourfold.web.verification import LastVerify

__all__ = ["CONTENT_SECURITY_POLICY", "main_of", "page_of"]

_STYLE: Final = files("fourfold.web").joinpath("style.css").read_text(encoding="utf-8")
_SCRIPT: Final = files("fourfold.web").joinpath("refresh.js").read_text(encoding="utf-8")
_CLASSES: Final[dict[State, str]] = {
    "in step": "good",
    "behind": "wait",
    "needs attention": "bad",
    "unreachable": "bad",
}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


# Only what is in this file runs or is loaded: a value that got through unescaped couldn't do anything.
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_of(snapshot: Snapshot, version: str, query: str = "") -> str:
    """The whole page.

    Args:
        snapshot: What to show.
        version: Of Fourfold.
        query: Of the request; links carry it on, for the token in it.

    Returns:
        A document that needs nothing else: style and script are in it.
    """
    carried = _text(f"?{query}" if query else "")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fourfold: {_text(snapshot.state)}</title>
<noscript><meta http-equiv="refresh" content="10"></noscript>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>Fourfold</h1> {_state(snapshot)}
<span class="quiet" id="said" role="status"></span><button type="button" hidden>Pause</button></header>
<main>{main_of(snapshot)}</main>
<footer>Fourfold {_text(version)} ·
<a href="status{carried}">/status</a> as JSON · <a href="healthz">/healthz</a></footer>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def main_of(snapshot: Snapshot) -> str:
    """What changes: the contents of `<main>`."""
    parts = [f'<p class="quiet" aria-live="off">As of {_when(snapshot.at)}. <span hidden>{_state(snapshot)}</span></p>']
    if snapshot.failure:
        parts.append(f'<p class="bad">{_text(snapshot.failure)}</p>')
    if snapshot.status is not None:
        parts.append(_problems(snapshot.status))
    if snapshot.contents is not None:
        parts.append(_stores(snapshot.contents))
    if snapshot.status is not None:
        parts += [_targets(snapshot.status), _quarantine(snapshot.status), _verified(snapshot.verified)]
    return "\n".join(part for part in parts if part)


def _state(snapshot: Snapshot) -> str:
    return f'<span class="state {_CLASSES[snapshot.state]}">{_text(snapshot.state)}</span>'


def _problems(status: StoreStatus) -> str:
    if not status.problems:
        return ""
    rows = [(f"<code>{_text(each.code)}</code>", _text(each.message), _text(each.hint)) for each in status.problems]
    return _section("Problems", _table(("code", "what", "what to do"), rows))


def _stores(contents: Contents) -> str:
    cards = [
        _card("Rows", sum(contents.rows.values()), contents.rows),
        _card("Files", contents.files, {"bytes": contents.file_bytes}),
        _card("Graph: nodes", sum(contents.nodes.values()), contents.nodes),
        _card("Graph: edges", sum(contents.edges.values()), contents.edges),
        _card("Vectors: points", sum(contents.points.values()), contents.points),
    ]
    return f'<h2>What is there</h2><div class="stores">{"".join(cards)}</div>'


def _card(name: str, total: int, parts: Mapping[str, int]) -> str:
    lines = "".join(f"<dt>{_text(part)}</dt><dd>{number:,}</dd>" for part, number in parts.items())
    return f'<section><h3>{_text(name)}</h3><p class="total">{total:,}</p><dl>{lines}</dl></section>'


def _targets(status: StoreStatus) -> str:
    relay = status.relay
    if relay is None:
        return ""
    rows = [
        (
            _text(target.name),
            f"{target.keys:,}",
            f"{target.lag_seconds:.1f} s",
            f"{target.quarantined:,}",
            _when(target.last_settled_at),
            _text(f"{target.failures} failures: {target.last_error}" if target.failures else ""),
        )
        for target in relay.targets
    ]
    table = _table(("target", "#keys waiting", "#lag", "#quarantined", "last settled", "trouble"), rows)
    queue = f"{relay.lines:,} lines wait for dispatch"
    if relay.lines:
        queue += f", the oldest for {relay.oldest_line_seconds:.1f} s"
    return _section("How far behind", f'{table}<p class="quiet">{queue}.</p>')


def _quarantine(status: StoreStatus) -> str:
    if not status.quarantined:
        return ""
    rows = [
        (
            _text(each.target),
            _text(each.table),
            f"<code>{_text(each.key)}</code>",
            f"{_text(each.cause)} <code>{_text(each.code)}</code>",
            f"{each.attempts:,}",
        )
        for each in status.quarantined
    ]
    return _section("In quarantine", _table(("target", "table", "key", "cause", "#attempts"), rows))


def _verified(verified: LastVerify | None) -> str:
    if verified is None:
        return _section(
            "Last verify", "<p>Never ran. <code>fourfold verify</code> compares all stores with the rows.</p>"
        )
    how = "Deep" if verified.deep else "Quick"
    checked = ", ".join(f"{_text(name)} {number:,}" for name, number in verified.checked.items())
    verdict = '<span class="bad">differences</span>' if verified.differs else '<span class="good">no difference</span>'
    said = f"<p>{how}, {_when(verified.at)}: {verdict}; checked: {checked}.</p>"
    rows = [
        (
            _text(each["target"]),
            _text(each["kind"]),
            _text(each["table"]),
            f"<code>{_text(each['key'])}</code>",
            _text(each["detail"]),
        )
        for each in verified.differences
    ]
    return _section("Last verify", said + (_table(("target", "kind", "table", "key", "detail"), rows) if rows else ""))


def _section(title: str, body: str) -> str:
    return f"<h2>{_text(title)}</h2>{body}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already; a heading that begins with # is of a column of numbers."""
    names = [_text(heading.removeprefix("#")) for heading in headings]
    classes = [' class="number"' if heading.startswith("#") else "" for heading in headings]
    head = "".join(f'<th scope="col"{each}>{name}</th>' for name, each in zip(names, classes, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            # On a narrow screen the heading stands beside each cell: see style.css.
            f'<td{each} data-heading="{name}">{cell}</td>'
            for name, each, cell in zip(names, classes, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    # A region that scrolls must be reachable by keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f'<time datetime="{moment.isoformat(timespec="seconds")}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'


def _text(value: object) -> str:
    return escape(str(value))
