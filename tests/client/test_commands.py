"""
A command takes effect once, whatever becomes of the link and of the server, and its answer is the truth.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from faults import Proxy
from holdfast import Conflict, NotSent, OutcomeUnknown
from peers import Server

APP = """
import asyncio
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Conflict, Hub

hub = Hub("count.db", migrations=["CREATE TABLE added (n INTEGER PRIMARY KEY, text TEXT)"])

def add(tx, text) -> int:
    if text == "":
        raise Conflict("nothing to add")
    return tx.one("INSERT INTO added (text) VALUES (?) RETURNING n", (text,))["n"]

@hub.on("add")
async def handle(request):
    return {"n": await hub.write(add, request.data["text"])}

@hub.on("count")
async def count(request):
    return await hub.read(lambda tx: [row["text"] for row in tx.all("SELECT text FROM added ORDER BY n")])

@hub.on("hang")
async def hang(request):
    await asyncio.sleep(60)

app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "count.py").write_text(APP)
    with Server(tmp_path, "serve", "count:app") as server:
        yield server


async def test_a_command_returns_what_its_handler_returned_or_raises_its_refusal(server: Server) -> None:
    async with holdfast.connect(f"{server.url}/ws") as client, client.join("lobby") as room:
        assert await room.command("add", text="x") == {"n": 1}
        with pytest.raises(Conflict, match="nothing to add"):
            await room.command("add", text="")
        with pytest.raises(holdfast.Invalid, match="unknown type"):
            await room.command("nonsense")
        assert await room.command("count") == ["x"]


async def test_commands_given_while_there_is_no_link_are_sent_in_their_order_when_there_is(server: Server) -> None:
    server.kill()
    async with holdfast.connect(f"{server.url}/ws", jitter=False) as client, client.join("lobby") as room:
        given = [asyncio.create_task(room.command("add", text=str(number))) for number in range(50)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in given)
        server.start()
        answers = await asyncio.wait_for(asyncio.gather(*given), 20)
        assert [answer["n"] for answer in answers] == list(range(1, 51))


async def test_every_command_takes_effect_once_while_links_break_and_the_server_is_killed(server: Server) -> None:
    dice = random.Random(5)
    count = 300
    async with (
        Proxy(server.port) as proxy,
        holdfast.connect(f"http://127.0.0.1:{proxy.port}/ws") as client,
        client.join("lobby") as room,
    ):
        given = []
        for number in range(count):
            given.append(asyncio.create_task(room.command("add", text=str(number))))
            await asyncio.sleep(0.02)
            if number % 60 == 30:
                server.kill()
                await asyncio.to_thread(server.start)
            elif dice.random() < 0.05:
                proxy.reset(1, dice)
        answers = await asyncio.wait_for(asyncio.gather(*given), 60)
        assert sorted(answer["n"] for answer in answers) == list(range(1, count + 1))
        added = await room.command("count")
        assert sorted(added, key=int) == [str(number) for number in range(count)]
        assert [added[answer["n"] - 1] for answer in answers] == [str(number) for number in range(count)]


async def test_whoever_ends_the_client_is_told_what_is_known(server: Server) -> None:
    async with holdfast.connect(f"{server.url}/ws") as client, client.join("lobby") as room:
        await client.ready()
        sent = asyncio.create_task(room.command("hang"))
        await asyncio.sleep(0.3)
    async with holdfast.connect("http://127.0.0.1:9/ws") as client, client.join("lobby") as room:
        kept = asyncio.create_task(room.command("add", text="x"))
        await asyncio.sleep(0.1)
    with pytest.raises(OutcomeUnknown):
        await sent
    with pytest.raises(NotSent):
        await kept
    with pytest.raises(NotSent):
        await room.command("add", text="too late")


async def test_a_command_that_nobody_waits_for_any_more_is_not_sent(server: Server) -> None:
    server.kill()
    async with holdfast.connect(f"{server.url}/ws", jitter=False) as client, client.join("lobby") as room:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(room.command("add", text="given up"), 0.2)
        server.start()
        assert await asyncio.wait_for(room.command("count"), 10) == []


async def test_what_cannot_be_sent_is_told_at_once_and_harms_nothing(server: Server) -> None:
    async with holdfast.connect(f"{server.url}/ws") as client, client.join("lobby") as room:
        with pytest.raises(TypeError, match="object"):
            await room.command("add", text=object())  # there is no link yet
        await client.ready()
        with pytest.raises(TypeError, match="object"):
            await room.send("add", text=object())
        assert await room.command("add", text="x") == {"n": 1}
