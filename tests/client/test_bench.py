"""What `holdfast bench` says of a server is what happened there."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result

from faults import Proxy
from holdfast.cli import main
from peers import Server

APP = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
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

async def who(request):
    return JSONResponse({"here": len(hub.members("room"))})

app = Starlette(routes=[Route("/who", who), Mount("/live", hub.app)], lifespan=hub.lifespan)
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


def killed_when_all_are_in(server: Server, clients: int = 7) -> threading.Thread:
    """Kill a server as soon as they are."""

    def kill() -> None:
        until = time.monotonic() + 20
        while httpx2.get(f"{server.url}/who").json()["here"] < clients and time.monotonic() < until:
            time.sleep(0.02)
        server.kill()

    killing = threading.Thread(target=kill)
    killing.start()
    return killing


def bench(server: Server, *options: str, room: str = "room", clients: int = 7) -> Result:
    few = ("--clients", str(clients), "--seconds", "1", "--rate", "20")
    url = f"http://localhost:{server.port}/live/ws"
    return CliRunner().invoke(main, ["bench", url, room, *few, *options])


def test_it_says_how_late_everything_was_and_that_all_of_it_came(server: Server) -> None:
    said = bench(server, "--server-key", "secret", "--command", "say", "--data", '{"text": "yes"}')
    assert said.exit_code == 0
    times = r"[\d.]+ ms \(99 % within [\d.]+, all within [\d.]+\)"
    assert re.fullmatch(
        rf"in        7 clients after [\d.]+ s \(7 by websocket\); each took {times}\n"
        rf"published 20, 140 of 140 deliveries came, after {times}\n"
        rf"commanded 20, answered after {times}\n"
        r"heard     \d+ other events\n"
        r"cut off   0 times, and started afresh 0 times\n",
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


def test_by_which_road_they_came_is_said(server: Server) -> None:
    url = f"http://localhost:{server.port}/live/wsx"  # there is no WebSocket, and HTTP beside it
    said = CliRunner().invoke(main, ["bench", url, "room", "--clients", "3", "--seconds", "1"])
    assert "(3 by http)" in said.output


async def test_how_often_they_were_cut_off_is_said(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        line = ["bench", f"http://localhost:{proxy.port}/live/ws", "room", "--clients", "3", "--seconds", "4"]
        benching = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, line))
        while (await server.get("/who"))["here"] < 3:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert proxy.reset(1.0, random.Random(1)) == 3
        said = await benching
    assert said.exit_code == 1
    assert re.search(r"cut off   3 times, and started afresh 0 times", said.output)


def test_what_a_command_cannot_say_is_refused() -> None:
    line = ["bench", "http://localhost:1/ws", "room", "--command", "say", "--data", '{"type": "x"}']
    said = CliRunner().invoke(main, line)
    assert said.exit_code == 1
    assert said.output == "Error: what a command says besides its type cannot be called type\n"


def test_what_is_no_object_is_refused(server: Server) -> None:
    said = bench(server, "--command", "say", "--data", "[1]")
    assert said.exit_code == 1
    assert "--data is a JSON object" in said.output


def test_a_server_that_is_killed_meanwhile_is_said_to_be_gone(server: Server) -> None:
    killing = killed_when_all_are_in(server)
    said = bench(server, "--server-key", "secret")
    killing.join()
    assert said.exit_code == 1
    assert re.search(rf"refused   \d+: ConnectError at http://localhost:{server.port}/live/publish", said.output)


def test_of_a_server_that_is_killed_meanwhile_no_answer_is_waited_for_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.client.bench.PATIENCE", 0.5)
    killing = killed_when_all_are_in(server)
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
