"""What `holdfast bench` says of a server is what happened there."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast.cli import main
from peers import Server

APP = """
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Forbidden, Hub

hub = Hub("memory:", server_key="secret")

@hub.authorize
async def may(user, room, action):
    return room != "locked"

@hub.on("say")
async def say(request):
    if request.data["text"] == "no":
        raise Forbidden("not that")
    return request.data["text"]

app = Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan)
"""

#: It publishes the first publication twice and the second not at all, and says that it has done as asked.
LYING = """
from starlette.responses import Response
from starlette.routing import Route

asked = 0

async def publish(request):
    global asked
    asked += 1
    said = await request.json()
    for _ in range({1: 2, 2: 0}.get(asked, 1)):
        await hub.publish(said["room"], said["type"], said["data"])
    return Response(status_code=201)

app.routes.insert(0, Route("/live/publish", publish, methods=["POST"]))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "benched.py").write_text(APP)
    with Server(tmp_path, "serve", "benched:app") as server:
        yield server


def bench(server: Server, *options: str, room: str = "room", clients: int = 7) -> Result:
    few = ("--clients", str(clients), "--seconds", "1", "--rate", "20")
    url = f"http://localhost:{server.port}/live/ws"
    return CliRunner().invoke(main, ["bench", url, room, *few, *options])


def test_it_says_how_late_everything_was_and_that_all_of_it_came(server: Server) -> None:
    said = bench(server, "--server-key", "secret", "--command", "say", "--data", '{"text": "yes"}')
    assert said.exit_code == 0
    times = r"[\d.]+ ms \(99 % within [\d.]+, all within [\d.]+\)"
    assert re.fullmatch(
        rf"in        7 clients after [\d.]+ s; each took {times}\n"
        rf"published 20, 140 of 140 deliveries came, after {times}\n"
        rf"commanded 20, answered after {times}\n"
        rf"heard     \d+ other events; started afresh 0 times\n",
        said.output,
    )


def test_what_came_twice_does_not_stand_for_what_did_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.client.bench.PATIENCE", 0.5)
    (tmp_path / "lying.py").write_text(APP + LYING)
    with Server(tmp_path, "serve", "lying:app") as server:
        said = bench(server, "--server-key", "secret")
    assert said.exit_code == 1
    assert "published 20, 133 of 140 deliveries came" in said.output
    assert "refused   7: a publication came to somebody who had it" in said.output


def test_it_says_what_was_refused_and_why(server: Server) -> None:
    said = bench(server, "--server-key", "wrong", "--command", "say", "--data", '{"text": "no"}')
    assert said.exit_code == 1
    assert "commanded 0, answered after –" in said.output
    assert "published 0, 0 of 0 deliveries came, after –" in said.output
    assert f"refused   20: HTTP 401 at http://localhost:{server.port}/live/publish" in said.output
    assert "refused   20: not that" in said.output


@pytest.mark.parametrize("what", [("--server-key", "secret"), ("--command", "say", "--data", '{"text": "yes"}')])
def test_what_could_not_be_asked_for_in_time_is_said(
    server: Server, what: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.client.bench.PATIENCE", 0.5)
    said = bench(server, *what, "--rate", "100000", clients=1)
    assert said.exit_code == 1
    assert re.search(r"refused   \d+: never asked: from here not 100000 can be asked in a second", said.output)


def test_who_may_not_come_in_is_told_so(server: Server) -> None:
    said = bench(server, room="locked")
    assert (said.exit_code, said.output) == (1, "Error: you may not join locked\n")


def test_what_is_no_object_is_refused(server: Server) -> None:
    said = bench(server, "--command", "say", "--data", "[1]")
    assert said.exit_code == 1
    assert "--data is a JSON object" in said.output


def test_a_server_that_is_killed_meanwhile_is_said_to_be_gone(server: Server) -> None:
    killing = threading.Timer(0.5, server.kill)
    killing.start()
    said = bench(server, "--server-key", "secret")
    killing.join()
    assert said.exit_code == 1
    assert re.search(rf"refused   \d+: ConnectError at http://localhost:{server.port}/live/publish", said.output)


def test_of_a_server_that_is_killed_meanwhile_no_answer_is_waited_for_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.client.bench.PATIENCE", 0.5)
    killing = threading.Timer(0.5, server.kill)
    killing.start()
    said = bench(server, "--command", "say", "--data", '{"text": "yes"}')
    killing.join()
    assert said.exit_code == 1
    assert re.search(r"refused   \d+: no answer after 0.5 s", said.output)


@pytest.mark.parametrize("number", ["nan", "inf", "0", "-1"])
def test_a_time_that_is_none_is_refused(number: str) -> None:
    said = CliRunner().invoke(main, ["bench", "http://localhost:1/ws", "room", "--seconds", number])
    assert said.exit_code == 2
    assert "--seconds" in said.output


@pytest.mark.parametrize("key", ["", " padded", "schlüssel", "a\nb"])
def test_a_server_key_that_no_header_carries_is_refused(key: str) -> None:
    said = CliRunner().invoke(main, ["bench", "http://localhost:1/ws", "room", "--server-key", key])
    assert said.exit_code == 1
    assert (
        said.output
        == "Error: a server key goes in a header: it is of ASCII, has no spaces around it, and is not empty\n"
    )


def test_somebody_who_does_not_get_in_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.client.bench.PATIENCE", 0.2)
    monkeypatch.setattr("holdfast.client.bench.DOOR_PATIENCE", 0.5)
    said = CliRunner().invoke(main, ["bench", "http://localhost:1/ws", "room", "--clients", "2"])
    assert said.exit_code == 1
    assert "nobody is in after 0.2 s: " in said.output
    assert "somebody was not in after 0.5 s: " in said.output
    assert "refused" in said.output or "failed" in said.output
