"""The status page: what it shows, that it escapes, who may see it, and what it says when a store is away."""

from __future__ import annotations

import argparse
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fourfold.cli.application import CommandSettings
from fourfold.cli.command import Invocation
from fourfold.cli.output import Output
from fourfold.cli.serving import open_door, serve_until_stopped
from fourfold.errors import ConfigurationError, StoreUnavailableError
from fourfold.fourfold import Fourfold
from fourfold.settings import Settings
from fourfold.web import status_app
from fourfold.web.page import main_of
from fourfold.web.snapshot import SnapshotReader
from fourfold.web.verification import last_verify, record_verify
from tests.acceptance import shop

LOOPBACK = "http://127.0.0.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shop.make_tables(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[Fourfold]:
    async with Fourfold(shop.Base, Settings(data_folder=folder, relay=False)) as opened:
        async with opened.unit_of_work() as work:
            work.session.add(shop.Customer(id=1, name="Ada"))
            await work.session.flush()
            work.session.add(shop.Order(id=10, customer_id=1, taste=[1.0, 0.0]))
        await opened.drain()
        yield opened


def client(store: Fourfold, base_url: str = LOOPBACK, **options) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(status_app(store, **options)), base_url=base_url)


async def test_page_shows_every_store_and_needs_no_script(store):
    async with client(store) as browser:
        answer = await browser.get("/")
    assert answer.status_code == 200
    for text in ("in step", "Rows", "Files", "Graph: nodes", "Graph: edges", "Vectors: points", "vectors.orders"):
        assert text in answer.text
    assert '<meta name="viewport"' in answer.text
    assert "<noscript><meta http-equiv" in answer.text
    assert "Never ran" in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


async def test_refresh_asks_for_the_changing_part_alone(store):
    async with client(store) as browser:
        answer = await browser.get("/", headers={"X-Fragment": "main"})
    assert "<html" not in answer.text
    assert "As of" in answer.text


async def test_page_tells_lag_quarantine_and_differences(store):
    async with store.unit_of_work() as work:
        work.session.add(shop.Order(id=11, customer_id=1, taste=[1.0]))
    async with client(store) as browser:
        assert ">behind<" in (await browser.get("/")).text
        await store.drain()
        page = (await browser.get("/")).text
        assert "needs attention" in page
        assert "In quarantine" in page
        assert (await browser.get("/healthz")).status_code == 503
        await record_verify(store.engine, await store.integrity.verify())
        assert "differences" in (await browser.get("/")).text
    found = await last_verify(store.engine)
    assert found is not None
    assert found.differs


async def test_status_is_what_the_command_says(store):
    async with client(store) as browser:
        answer = (await browser.get("/status")).json()
        assert (await browser.get("/healthz")).json() == {"healthy": True}
    assert answer["in_step"]
    assert [target["name"] for target in answer["targets"]] == ["files", "graph", "vectors.orders"]


async def test_values_from_outside_are_escaped(store, monkeypatch):
    async def away():
        raise StoreUnavailableError("<script>alert(1)</script>", code="rows.unavailable")

    monkeypatch.setattr(store, "status", away)
    snapshot = await SnapshotReader(store).read()
    assert snapshot.state == "unreachable"
    html = main_of(snapshot)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


async def test_unreachable_rows_are_an_answer_not_a_crash(store, monkeypatch):
    async def away():
        raise StoreUnavailableError("the database is away", code="rows.unavailable")

    monkeypatch.setattr(store, "status", away)
    async with client(store) as browser:
        assert (await browser.get("/")).status_code == 200
        assert (await browser.get("/healthz")).status_code == 503
        answer = await browser.get("/status")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "rows.unavailable")


async def test_a_store_that_is_away_leaves_the_rest_of_the_page(store, monkeypatch):
    async def away():
        raise StoreUnavailableError("the graph is away", code="graph.unavailable", hint="Start it")

    monkeypatch.setattr(store.stores.graph, "statistics", away)
    snapshot = await SnapshotReader(store).read()
    html = main_of(snapshot)
    assert snapshot.state == "needs attention"
    assert "the graph is away (graph.unavailable). Start it" in html
    assert "vectors.orders" in html  # how far behind, and the last verify, are known from the rows
    assert "Never ran" in html


async def test_another_host_name_is_refused(store):
    async with client(store, "http://evil.example") as browser:
        assert (await browser.get("/status")).status_code == 400


async def test_with_a_token_nothing_but_health_is_shown_without_it(store):
    async with client(store, "http://example.org", token="t0ken", hosts=["*"]) as browser:
        assert (await browser.get("/")).status_code == 401
        assert (await browser.get("/status?token=wrong")).status_code == 401
        assert (await browser.get("/status", headers={"Authorization": "Bearer t0ken"})).status_code == 200
        page = await browser.get("/?token=t0ken")
        assert 'href="status?token=t0ken"' in page.text
        assert (await browser.get("/healthz")).status_code == 200


async def test_it_can_be_mounted_in_an_application(store):
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/fourfold", status_app(store, hosts=["*"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://example.org") as browser:
        assert (await browser.get("/fourfold/status")).json()["in_step"]
        assert (await browser.get("/fourfold/")).status_code == 200


def test_a_taken_port_gives_way_to_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        door = open_door(CommandSettings(web_port=port))
        assert door.port != port
        assert door.wanted_port == port
        assert door.token == ""
        for each in door.sockets:
            each.close()


def test_an_open_address_has_a_token():
    door = open_door(CommandSettings(web_host="0.0.0.0", web_port=0))
    assert len(door.token) > 20
    assert door.url.endswith(f"?token={door.token}")
    for each in door.sockets:
        each.close()


async def test_another_loopback_address_is_served(store, monkeypatch):
    import uvicorn

    seen = []

    async def serve(server, **_):
        seen.append(server.config.app)

    monkeypatch.setattr(uvicorn.Server, "serve", serve)
    door = open_door(CommandSettings(web_host="127.0.0.2", web_port=0))
    invocation = Invocation(argparse.Namespace(), Output())
    await serve_until_stopped(store, door, invocation)
    for each in door.sockets:
        each.close()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(seen[0]), base_url="http://127.0.0.2") as browser:
        assert (await browser.get("/healthz")).status_code == 200


def test_a_port_that_needs_more_rights_is_not_called_taken(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ConfigurationError, match="port 80: Permission denied") as caught:
        open_door(CommandSettings(web_port=80))
    assert caught.value.code == "web.address"


def test_a_foreign_address_is_refused():
    with pytest.raises(ConfigurationError) as caught:
        open_door(CommandSettings(web_host="192.0.2.1", web_port=0))
    assert caught.value.code == "web.address"
