"""
However a room ends, those who read it are told, and each command given in it is settled; and whoever closes is closed.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.server import ServerConnection, serve

import holdfast
from holdfast import Closed, Forbidden, Hub, NotSent, OutcomeUnknown, Request, User
from holdfast.core.outbox import UNDER_WAY
from holdfast.testing import Sea
from peers import WELCOME


def house() -> Starlette:
    """Return an application with a vault that nobody may enter, and one command that takes for ever."""
    hub = Hub("ends.db")

    @hub.authorize
    def may(user: User, room: str, action: str) -> bool:
        return room != "vault"

    @hub.on("wait")
    async def wait(request: Request) -> None:
        await asyncio.sleep(3600)

    @hub.on("put out")
    async def put_out(request: Request) -> None:
        await hub.remove(request.data["user"], "lobby")

    return Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan)


async def read(room: Any) -> None:
    async for _ in room:
        pass


async def settled(commands: list[asyncio.Task[Any]]) -> Counter[type]:
    async with asyncio.timeout(60):
        return Counter(type(outcome) for outcome in await asyncio.gather(*commands, return_exceptions=True))


def test_who_is_put_out_is_told_and_so_are_their_commands() -> None:
    async def test(sea: Sea) -> None:
        server = sea.serve(house())
        async with sea.connect(server) as ann, ann.join("lobby") as room, sea.connect(server) as bob:
            reading = asyncio.create_task(read(room))
            await sea.sleep(1)
            commands = [asyncio.create_task(room.command("wait", n=n)) for n in range(40)]
            await sea.sleep(1)
            async with bob.join("office") as office:
                await office.command("put out", user=ann.user.user_id)
            assert await settled(commands) == {OutcomeUnknown: UNDER_WAY, NotSent: 40 - UNDER_WAY}
            with pytest.raises(Forbidden, match="put this client out"):
                await reading
            with pytest.raises(NotSent):
                await room.command("wait")
            assert ann.is_live

    with Sea() as sea:
        sea.run(test(sea))


def test_who_may_not_enter_is_told_and_so_are_their_commands() -> None:
    async def test(sea: Sea) -> None:
        server = sea.serve(house())
        async with sea.connect(server) as ann, ann.join("vault") as room:
            commands = [asyncio.create_task(room.command("wait", n=n)) for n in range(3)]
            assert await settled(commands) == {NotSent: 3}
            with pytest.raises(Forbidden):
                await read(room)
            with pytest.raises(NotSent):
                await room.command("wait")
            assert ann.is_live

    with Sea() as sea:
        sea.run(test(sea))


def test_who_reads_a_room_that_is_left_is_told_and_it_can_be_entered_again() -> None:
    async def test(sea: Sea) -> None:
        server = sea.serve(house())
        async with sea.connect(server) as ann:
            room = ann.join("lobby")
            for _ in range(2):
                async with room:
                    reading = asyncio.create_task(read(room))
                    await sea.sleep(1)
                    assert not reading.done()
                with pytest.raises(Closed, match="lobby was left"):
                    await reading
                with pytest.raises(Closed, match="lobby was left"):
                    await anext(aiter(room))

    with Sea() as sea:
        sea.run(test(sea))


async def test_whoever_closes_is_closed_also_while_the_server_goes_on_talking() -> None:
    """More than is ever looked at: what comes after the end waits for nobody."""

    async def talk(socket: ServerConnection) -> None:
        async for text in socket:
            match json.loads(text)["type"]:
                case "auth":
                    await socket.send(WELCOME)
                case "join":
                    await socket.send(
                        '{"type":"joined","room":"lobby","cursor":"k:0","recovered":false,"users":[],"roomSize":0}'
                    )
                    break
        number = 0
        while True:
            number += 1
            await socket.send(f'{{"type":"said","room":"lobby","id":"k:{number}"}}')

    async with serve(talk, "127.0.0.1", 0, close_timeout=0.1) as server:
        client = holdfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws")
        await client.__aenter__()
        room = client.join("lobby")
        await room.__aenter__()
        for _ in range(3):
            await anext(room)
        async with asyncio.timeout(10):
            await client.close()
