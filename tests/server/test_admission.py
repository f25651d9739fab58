"""
More come at once than the server can take in: some are let in, the others told when, and in the end all are there.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import holdfast
from holdfast import Road
from peers import Server

#: Somebody's authentication that is slow, and in everybody's way: 200 newcomers a second are all that it can do.
APP = """
import time
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from holdfast import Hub, User

hub = Hub("memory:", server_key="k3y")
came = 0

@hub.authenticate
def who(token, request):
    time.sleep(0.005)
    return User("somebody", "Somebody")

async def counted(scope, receive, send):
    global came
    came += 1
    await hub.app(scope, receive, send)

async def count(request):
    return JSONResponse(came)

routes = [Route("/came", count), Mount("/counted", counted), Mount("/", hub.app)]
app = Starlette(routes=routes, lifespan=hub.lifespan)
"""
CROWD = 400
T = TypeVar("T")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "slow_app.py").write_text(APP)
    with Server(tmp_path, "serve", "slow_app:app") as server:
        yield server


async def knock(server: Server) -> tuple[int, int | None, int]:
    """Come until let in; return how often, the code and the advice of the last refusal."""
    times, code, after = 0, None, 0
    while True:
        times += 1
        async with connect(f"ws://localhost:{server.port}/ws", open_timeout=60, proxy=None) as peer:
            first = json.loads(await peer.recv())
            if first["type"] == "connected":
                return times, code, after
            assert first["type"] == "goodbye"
            after = first["after_ms"]
            with pytest.raises(ConnectionClosed) as closed:
                await peer.recv()
            assert closed.value.rcvd is not None
            code = closed.value.rcvd.code
        await asyncio.sleep(after / 1000)


def waiting_at(port: int) -> int:
    """Return how many have sent a request that nobody has read (proc_net_tcp)."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
    return sum(line[1].endswith(f":{port:04X}") and not line[4].endswith(":00000000") for line in lines)


async def at_once(server: Server, crowd: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Have them all come at once, however busy this machine is; return what became of each."""
    server.freeze()
    coming = [asyncio.create_task(each) for each in crowd]
    while waiting_at(server.port) < len(crowd):
        await asyncio.sleep(0.05)
    server.thaw()
    return await asyncio.gather(*coming)


async def test_a_crowd_is_let_in_at_the_rate_that_the_server_keeps_up_with(server: Server) -> None:
    async with asyncio.timeout(60):
        knocked = await at_once(server, [knock(server) for _ in range(CROWD)])
    refused = [(times, code, after) for times, code, after in knocked if times > 1]
    assert refused
    assert {code for _, code, _ in refused} == {1013}
    assert len({after for _, _, after in refused}) > len(refused) / 2  # each at a time of their own
    metrics = await server.request("GET", "/", accept="*/*")
    assert metrics.status_code == 404  # it still answers


async def test_requests_and_streams_are_turned_away_too_each_in_its_own_way(server: Server) -> None:
    """A native EventSource that gets another status than 200 never comes back."""
    all_of_them = httpx2.Limits(max_connections=None)
    async with (
        httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False, limits=all_of_them) as client,
        asyncio.timeout(60),
    ):

        async def ask(path: str) -> tuple[int, str, str]:
            async with client.stream("GET", f"{path}room=lobby") as response:
                async for text in response.aiter_text():
                    return response.status_code, response.headers.get("retry-after", ""), text
                return response.status_code, "", ""

        crowd = [ask("/events?" if number % 2 else "/poll?cursor=old:1&wait=0&") for number in range(CROWD)]
        answers = await at_once(server, crowd)
    polls = {status for status, after, _ in answers[::2] if after}
    assert polls == {503}
    turned_away = [text for _, _, text in answers[1::2] if "connected" not in text]
    assert turned_away
    assert {status for status, _, _ in answers[1::2]} == {200}
    assert all(text.startswith("retry: ") for text in turned_away)


async def test_who_asks_for_something_or_goes_on_is_not_turned_away_with_those_who_come_in(server: Server) -> None:
    """
    Nobody who is sent away comes back to write, and what they write costs no more than to tell them.

    All who poll a room ask again at once when something is published there: that is no crowd that comes.
    """
    all_of_them = httpx2.Limits(max_connections=None)
    async with (
        httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False, limits=all_of_them) as client,
        asyncio.timeout(60),
    ):

        async def ask(number: int) -> int:
            match number % 8:
                case 0:
                    return (await client.post("/send", json={"type": "ping"})).status_code
                case 1:
                    return (await client.get("/poll?room=lobby&cursor=old:1&wait=9")).status_code
                case _:
                    return (await client.get("/poll?room=lobby&cursor=old:1&wait=0")).status_code

        answers = await at_once(server, [ask(number) for number in range(CROWD)])
    assert 503 in answers
    assert set(answers[::8]) == set(answers[1::8]) == {200}


async def test_our_own_clients_all_get_in_and_stay_on_their_road(server: Server) -> None:
    began = time.monotonic()
    clients = [holdfast.connect(f"{server.url}/ws") for _ in range(CROWD)]
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(client.__aenter__() for client in clients))
            await asyncio.gather(*(client.ready() for client in clients))
        assert {client.status.road for client in clients} == {Road.WEBSOCKET}
        print(f"{CROWD} clients in {time.monotonic() - began:.1f} s")
    finally:
        await asyncio.gather(*(client.close() for client in clients))


async def test_who_has_gone_while_they_stood_in_line_takes_nobody_s_place(server: Server) -> None:
    """Whoever waits for an answer does so for some seconds, and then comes again: else only those would be served."""
    upgrade = (
        "GET /counted/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    server.freeze()
    impatient = [socket.create_connection(("localhost", server.port)) for _ in range(CROWD)]
    for peer in impatient:
        peer.sendall(upgrade.encode())
    while waiting_at(server.port) < CROWD:
        await asyncio.sleep(0.05)
    for peer in impatient:
        peer.close()
    server.thaw()
    async with asyncio.timeout(30):
        await knock(server)
        came = await server.request("GET", "/came")
    assert came.json() < CROWD / 4
