"""
Where there is no way for a WebSocket, plain HTTP carries the same rooms from the same positions.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import holdfast
from faults import Middlebox
from holdfast import Event, Hub, Resumed, Resync, State
from holdfast.client.http import ANSWER_SECONDS
from holdfast.testing import Sea
from peers import Server

APP = """
from holdfast import Conflict, Hub
from starlette.applications import Starlette
from starlette.routing import Mount

hub = Hub("numbers.db", server_key="k3y")

@hub.on("add")
async def add(request):
    if request.data["number"] < 0:
        raise Conflict("only upward")
    publication = await hub.publish(request.room, "number", {"number": request.data["number"]})
    return publication.id

@hub.on("break")
async def break_down(request):
    raise RuntimeError("a bug of the application")

@hub.on("who")
async def who(request):
    return request.user.user_id

app = Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "numbers_app.py").write_text(APP)
    with Server(tmp_path, "serve", "numbers_app:app") as server:
        yield server


async def publish(server: Server, number: int, room: str = "lobby") -> None:
    body = {"room": room, "type": "number", "data": {"number": number, "text": "\u2028 \n"}}
    response = await server.request("POST", "/live/publish", body, authorization="Bearer k3y")
    assert response.status_code == 201


async def numbers(room: holdfast.Room, count: int) -> AsyncIterator[int]:
    """Yield the next numbers; anything but events between them fails."""
    async with asyncio.timeout(30):
        for _ in range(count):
            item = await anext(room)
            assert isinstance(item, Event), item
            yield item.data["number"]


def url(box: Middlebox) -> str:
    return f"http://127.0.0.1:{box.port}/live/ws"


WAYS = {
    "refused": {"websocket": "refused"},
    "cut": {"websocket": "cut"},
    "held back": {"websocket": "refused", "streams": "held back"},
}


@pytest.mark.parametrize("way", WAYS)
async def test_the_same_room_by_other_roads_nothing_missed_nothing_twice(server: Server, way: str) -> None:
    box = Middlebox(server.port, **WAYS[way])  # type: ignore[arg-type]
    async with box, holdfast.connect(url(box)) as client, client.join("lobby") as lobby:
        attic = client.join("at,tic = 100%")
        async with attic, asyncio.timeout(30):
            assert isinstance(await anext(lobby), Resync)
            assert isinstance(await anext(attic), Resync)
            assert client.status.road is holdfast.Road.HTTP
            for number in range(5):
                await publish(server, number)
                await publish(server, -number, attic.name)
            assert [n async for n in numbers(lobby, 5)] == [0, 1, 2, 3, 4]
            assert [n async for n in numbers(attic, 5)] == [0, -1, -2, -3, -4]


async def test_where_answers_that_wait_are_cut_short_polls_remain(server: Server) -> None:
    box = Middlebox(server.port, websocket="refused", streams="held back", patience=0.5)
    async with box, holdfast.connect(url(box), jitter=False) as client, client.join("lobby") as lobby:
        async with asyncio.timeout(30):
            assert isinstance(await anext(lobby), Resync)
            for _ in range(2):  # two held polls are cut
                assert isinstance(await anext(lobby), Resumed)
            await publish(server, 1)
            assert [n async for n in numbers(lobby, 1)] == [1]
        assert ["wait=0" in asked for asked in box.asked if "/poll?" in asked][-2:] == [True, True]


async def test_what_was_missed_between_two_roads_comes_on_the_second(server: Server) -> None:
    box = Middlebox(server.port, websocket="passes")
    async with box, holdfast.connect(url(box)) as client, client.join("lobby") as lobby:
        assert isinstance(await anext(lobby), Resync)
        await publish(server, 0)
        assert [n async for n in numbers(lobby, 1)] == [0]
        assert client.status.road is holdfast.Road.WEBSOCKET
        user = client.user

        box.websocket = "refused"
        for cable in box.some(1.0, random.Random(0)):
            cable.reset()
        await publish(server, 1)
        async with asyncio.timeout(40):  # a road that has worked is given three attempts
            assert isinstance(await anext(lobby), Resumed)
        assert client.status.road is holdfast.Road.HTTP
        assert [n async for n in numbers(lobby, 1)] == [1]
        assert client.user == user
        assert await lobby.command("who") == user.user_id  # type: ignore[union-attr]

        box.websocket = "passes"
        await publish(server, 2)
        assert [n async for n in numbers(lobby, 1)] == [2]
        async with asyncio.timeout(30):  # a WebSocket is tried again by itself
            assert isinstance(await anext(lobby), Resumed)
        assert client.status.road is holdfast.Road.WEBSOCKET
        await publish(server, 3)
        assert [n async for n in numbers(lobby, 1)] == [3]


async def test_a_proxy_that_swallows_what_follows_the_handshake_is_found_out(server: Server) -> None:
    box = Middlebox(server.port, websocket="swallowed")
    async with box, holdfast.connect(url(box)) as client, client.join("lobby") as lobby:
        async with asyncio.timeout(15):  # ten seconds for `connected`
            assert isinstance(await anext(lobby), Resync)
        assert client.status.road is holdfast.Road.HTTP


async def test_commands_take_effect_once_and_are_refused_as_on_a_websocket(server: Server) -> None:
    box = Middlebox(server.port, websocket="refused")
    async with box, holdfast.connect(url(box)) as client, client.join("lobby") as lobby:
        assert isinstance(await anext(lobby), Resync)
        answers = [await lobby.command("add", number=number) for number in range(3)]
        assert [answer.partition(":")[2] for answer in answers] == ["1", "2", "3"]
        with pytest.raises(holdfast.Conflict, match="only upward"):
            await lobby.command("add", number=-1)
        server.kill()
        adding = asyncio.create_task(lobby.command("add", number=3))
        await asyncio.sleep(1.0)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(30):
            assert (await adding).partition(":")[2] == "4"
        seen = []
        async with asyncio.timeout(10):
            while len(seen) < 4:
                item = await anext(lobby)
                if isinstance(item, Event):
                    seen.append(item.data["number"])
        assert seen == [0, 1, 2, 3]


async def test_a_command_whose_handler_fails_is_answered_as_on_a_websocket(server: Server) -> None:
    for websocket in ("refused", "passes"):
        box = Middlebox(server.port, websocket=websocket)
        async with box, holdfast.connect(url(box)) as client, client.join("lobby") as lobby, asyncio.timeout(10):
            with pytest.raises(holdfast.HoldfastError, match="something went wrong on the server"):
                await lobby.command("break")


async def test_a_silent_stream_is_left_for_another(server: Server) -> None:
    box = Middlebox(server.port, websocket="refused")
    async with box, holdfast.connect(url(box)) as client, client.join("lobby") as lobby:
        assert isinstance(await anext(lobby), Resync)
        box.fall_silent(1.0, random.Random(0))
        await publish(server, 1)
        client.retry_now()  # somebody has noticed; else it is the watchdog, after 15 + 10 seconds
        assert [n async for n in numbers(lobby, 1)] == [1]
        assert client.status.state is State.LIVE


async def test_a_server_that_is_down_is_not_a_road_that_is_barred(server: Server) -> None:
    async with holdfast.connect(f"{server.url}/live/ws") as client, client.join("lobby") as lobby:
        assert isinstance(await anext(lobby), Resync)
        server.kill()
        async with asyncio.timeout(30):
            async for status in client.statuses():
                if status.attempt == 4:
                    break
        await asyncio.to_thread(server.start)
        client.retry_now()
        async with asyncio.timeout(30):
            assert isinstance(await anext(lobby), Resumed)
        assert client.status.road is holdfast.Road.WEBSOCKET


async def test_a_guest_by_http_is_one_and_the_same_in_all_requests(server: Server) -> None:
    """Else a command that is sent again would be somebody else's, and take effect twice."""
    async with (
        Middlebox(server.port, websocket="refused") as box,
        asyncio.timeout(30),
        holdfast.connect(f"http://127.0.0.1:{box.port}/live/ws") as client,
        client.join("lobby") as room,
    ):
        who = [await room.command("who") for _ in range(3)]
        assert client.status.road is holdfast.Road.HTTP
        assert client.user is not None
        assert who == [client.user.user_id] * 3


def test_what_is_said_on_a_connection_that_fell_silent_is_said_again_on_another() -> None:
    hub = Hub("numbers.db")

    @hub.on("add")
    async def add(request: Any) -> str:
        await asyncio.sleep(1)
        return (await hub.publish(request.room, "number", request.data)).id

    async def test(sea: Sea) -> None:
        server = sea.serve(Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan))
        sea.network.bars_websockets = True
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            asked = sea.time
            command = asyncio.create_task(room.command("add", number=1))
            await sea.sleep(0.5)
            _, said = sea._links(ann)  # the other is an event stream, which goes on
            said.fall_silent()
            await command
            assert ANSWER_SECONDS <= sea.time - asked < ANSWER_SECONDS + 5
            await sea.sleep(5)
            assert told.data == [{"number": 1}]

    with Sea() as sea:
        sea.run(test(sea))


def test_a_stream_that_fell_silent_is_noticed_also_while_commands_are_answered() -> None:
    hub = Hub("numbers.db")

    @hub.on("add")
    async def add(request: Any) -> str:
        return (await hub.publish(request.room, "number", request.data)).id

    async def test(sea: Sea) -> None:
        server = sea.serve(Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan))
        sea.network.bars_websockets = True
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            await room.command("add", number=0)
            await sea.sleep(10)  # what is kept for the next command is not kept as long
            (stream,) = sea._links(ann)
            stream.fall_silent()
            for number in range(1, 20):
                await room.command("add", number=number)
                await sea.sleep(5)
            assert told.data == [{"number": number} for number in range(20)]

    with Sea() as sea:
        sea.run(test(sea))
