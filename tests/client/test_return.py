"""
A client comes back: while the server still believes in its old link, after a crash at the worst moment, in a crowd.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from faults import Proxy
from holdfast import Event, Resumed, Resync, State
from peers import Server

APP = """
import os, signal
from pathlib import Path
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Hub

def add(tx) -> int:
    tx.publish("lobby", "added", {})
    return tx.one("UPDATE count SET n = n + 1 RETURNING n")["n"]

hub = Hub("here.db", server_key="k3y", migrations=["CREATE TABLE count (n INTEGER)", "INSERT INTO count VALUES (0)"])

@hub.on("add")
async def handle(request):
    n = await hub.write(add)
    if not Path("crashed").exists():
        Path("crashed").touch()
        os.kill(os.getpid(), signal.SIGKILL)  # it is committed, and nobody has been answered
    return n

app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "here.py").write_text(APP)
    with Server(tmp_path, "serve", "here:app") as server:
        yield server


async def publish(server: Server, number: int) -> None:
    body = {"room": "lobby", "type": "number", "data": {"n": number}}
    assert (await server.request("POST", "/publish", body, authorization="Bearer k3y")).status_code == 201


async def test_a_client_that_returns_while_its_old_link_is_half_open_misses_nothing_and_is_there_once(
    server: Server,
) -> None:
    async with (
        Proxy(server.port) as proxy,
        holdfast.connect(f"{server.url}/ws") as watcher,
        watcher.join("lobby") as watched,
        holdfast.connect(f"http://127.0.0.1:{proxy.port}/ws") as client,
        client.join("lobby") as room,
    ):
        assert isinstance(await anext(watched), Resync)
        assert isinstance(await anext(room), Resync)
        async with asyncio.timeout(5):
            while len(watched.users) < 2:
                await asyncio.sleep(0.01)
        await publish(server, 0)
        while not isinstance(item := await anext(room), Event) or item.type != "number":
            pass
        assert proxy.fall_silent(1.0, random.Random(0)) == 1
        for number in range(1, 10):  # the server writes them into a link that leads nowhere
            await publish(server, number)
        client.retry_now()  # as when the network is back: the link is asked, and given up after 3 s
        numbers: list[int] = []
        resumed = False
        async with asyncio.timeout(15):
            while len(numbers) < 9:
                item = await anext(room)
                resumed = resumed or isinstance(item, Resumed)
                if isinstance(item, Event) and item.type == "number":
                    numbers.append(item.data["n"])
        assert resumed
        assert numbers == list(range(1, 10))
        assert len(watched.users) == len(room.users) == 2
        counts = (await server.request("GET", "/poll?rooms=lobby&wait=0")).json()
        assert counts["cursor"].endswith("lobby=10")
        told = []
        while watched.waiting:
            item = await anext(watched)
            told.append(getattr(item, "type", ""))
        assert "user_left" not in told
        assert told.count("user_joined") <= 1  # when it first came


async def test_a_command_whose_answer_died_with_the_server_gets_the_first_answer(server: Server) -> None:
    async with holdfast.connect(f"{server.url}/ws") as client, client.join("lobby") as room:
        assert isinstance(await anext(room), Resync)
        command = asyncio.create_task(room.command("add"))
        assert server.process is not None
        await asyncio.to_thread(server.process.wait, 10)
        assert not command.done()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(20):
            assert await command == 1
            assert await room.command("add") == 2
            seen = []
            while len(seen) < 2:
                item = await anext(room)
                if isinstance(item, Event) and item.type == "added":
                    seen.append(item.id)
        assert [str(id).partition(":")[2] for id in seen] == ["1", "2"]


@pytest.mark.long
async def test_a_crowd_that_returns_at_once_is_caught_up_and_slows_nobody(server: Server) -> None:
    """Each has missed 100 publications; a member that stayed goes on hearing what happens now."""
    crowd = 300
    async with holdfast.connect(f"{server.url}/ws") as stays, stays.join("lobby") as room:
        assert isinstance(await anext(room), Resync)
        for number in range(100):
            await publish(server, number)
        epoch = str(room.cursor).partition(":")[0]
        clients = [holdfast.connect(f"{server.url}/ws") for _ in range(crowd)]
        rooms = [client.join("lobby") for client in clients]
        for joined in rooms:
            joined.replica.restart(f"{epoch}:0")  # as one that has seen nothing yet
        began = time.monotonic()
        latencies: list[float] = []

        async def publish_meanwhile() -> None:
            for number in range(100, 150):
                sent = time.monotonic()
                await publish(server, number)
                while True:
                    item = await anext(room)
                    if isinstance(item, Event) and item.data.get("n") == number:
                        break
                latencies.append(time.monotonic() - sent)

        async def catch_up(client: holdfast.Client, joined: holdfast.Room) -> None:
            await client.__aenter__()
            await joined.__aenter__()
            numbers: list[int] = []
            while len(numbers) < 150:
                item = await anext(joined)
                if isinstance(item, Event) and item.type == "number":
                    numbers.append(item.data["n"])
            assert numbers == list(range(150))

        try:
            async with asyncio.timeout(60):
                await asyncio.gather(
                    publish_meanwhile(), *(catch_up(*pair) for pair in zip(clients, rooms, strict=True))
                )
            print(
                f"{crowd} clients, 100 missed each: {time.monotonic() - began:.1f} s; "
                f"latency of the one that stayed at most {1000 * max(latencies):.0f} ms"
            )
            assert {client.status.state for client in clients} == {State.LIVE}
        finally:
            await asyncio.gather(*(client.close() for client in clients))
