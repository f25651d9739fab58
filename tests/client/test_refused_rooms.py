"""
A room into which one is not let is refused for itself, on every road; the others go on and miss nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from faults import Middlebox
from holdfast import Event, Resumed, Resync, State
from holdfast.core.reader import How
from peers import Server

APP = """
from holdfast import Hub, NotFound, Unavailable
from starlette.applications import Starlette
from starlette.routing import Mount

hub = Hub("numbers.db", server_key="k3y", room_key="place")
locked = {"locked"}
answers = {
    "nowhere": NotFound("there is no such room"),
    "later": Unavailable("not now"),
    "broken": RuntimeError("a bug"),
}

@hub.authorize
def may(user, room, action):
    if room in answers:
        raise answers[room]
    return action == "send" or room not in locked

@hub.on("lock")
async def lock(request):
    locked.add(request.data["what"])

@hub.on("unlock")
async def unlock(request):
    locked.discard(request.data["what"])
    answers.pop(request.data["what"], None)

app = Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan)
"""
ROADS: dict[str, dict[str, Any]] = {
    "stream": {"websocket": "refused"},
    "held": {"websocket": "refused", "streams": "held back"},
    "short": {"websocket": "refused", "streams": "held back", "patience": 0.5},
}
#: Polls that are cut short, twice each time, take long.
BY_HTTP = ["stream", "held", pytest.param("short", marks=pytest.mark.long)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "numbers_app.py").write_text(APP)
    with Server(tmp_path, "serve", "numbers_app:app") as server:
        yield server


class Told:
    """What a room was told, read as it comes."""

    def __init__(self, room: holdfast.Room) -> None:
        self.numbers: list[int] = []
        self.afresh = self.resumed = 0
        self.failure: BaseException | None = None
        self._room = room
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for item in self._room:
                match item:
                    case Event(data=data):
                        self.numbers.append(data["number"])
                    case Resync():
                        self.afresh += 1
                    case Resumed():
                        self.resumed += 1
        except holdfast.HoldfastError as failure:
            self.failure = failure


class Visit:
    """A client by one road, in the lobby, which is told number after number, and misses none of them."""

    def __init__(self, server: Server, road: str) -> None:
        self.server = server
        self.box = Middlebox(server.port, **ROADS.get(road, {"websocket": "passes"}))
        self.count = 0
        self._road = road

    async def __aenter__(self) -> Visit:
        await self.box.__aenter__()
        self.client = holdfast.connect(f"http://127.0.0.1:{self.box.port}/live/ws", jitter=False)
        await self.client.__aenter__()
        self.lobby = self.client.join("lobby")
        await self.lobby.__aenter__()
        self.told = Told(self.lobby)
        async with asyncio.timeout(30):
            while not self.told.afresh or (self._road in ROADS and self.client._reader.how is not How(self._road)):
                await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.told.reading.cancel()
        await self.client.__aexit__(None, None, None)
        await self.box.__aexit__(None, None, None)

    async def publish(self, room: str = "lobby") -> None:
        body = {"room": room, "type": "number", "data": {"number": self.count}}
        response = await self.server.request("POST", "/live/publish", body, authorization="Bearer k3y")
        assert response.status_code == 201
        self.count += room == "lobby"

    async def goes_on(self) -> None:
        """The lobby is told what was said there, all of it, and once; and what is said now."""
        await self.publish()
        async with asyncio.timeout(20):
            while len(self.told.numbers) < self.count:
                await asyncio.sleep(0.02)
        assert self.told.numbers == list(range(self.count))
        assert (self.told.afresh, self.told.failure) == (1, None)
        assert self.client.status.state is State.LIVE


@pytest.mark.parametrize("road", ["websocket", *BY_HTTP])
async def test_a_room_that_is_refused_leaves_the_others_as_they_are(server: Server, road: str) -> None:
    async with Visit(server, road) as visit:
        await visit.goes_on()
        resumed = visit.told.resumed
        for name, refusal in (("locked", holdfast.Forbidden), ("nowhere", holdfast.NotFound)):
            async with visit.client.join(name) as room:
                await visit.publish()
                with pytest.raises(refusal):
                    await asyncio.wait_for(anext(room), 10)
                await visit.goes_on()
        async with visit.client.join("attic") as attic:  # and what is joined later
            assert isinstance(await asyncio.wait_for(anext(attic), 10), Resync)
        await visit.goes_on()
        assert visit.told.resumed == resumed  # on the link that it had


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 201, "\ud800"])
async def test_a_room_that_no_server_could_have_is_refused_at_once(name: str) -> None:
    with pytest.raises(holdfast.Malformed, match="room must be a name"):
        holdfast.connect("http://localhost").join(name)


@pytest.mark.parametrize("road", BY_HTTP)
async def test_rights_that_are_taken_away_in_the_middle_end_one_room(server: Server, road: str) -> None:
    async with Visit(server, road) as visit, visit.client.join("attic") as attic:
        assert isinstance(await asyncio.wait_for(anext(attic), 10), Resync)
        await visit.publish("attic")
        assert isinstance(await asyncio.wait_for(anext(attic), 10), Event)
        await visit.lobby.command("lock", what="attic")
        await visit.publish()
        for cable in visit.box.some(1.0 if road == "stream" else 0.0, random.Random(0)):
            cable.reset()  # who is on a stream is asked again when they come back
        told = Told(attic)
        async with asyncio.timeout(20):
            await told.reading
        assert isinstance(told.failure, holdfast.Forbidden)
        await visit.publish("attic")
        await visit.goes_on()
        assert told.numbers == []

        if road == "short":  # links were cut there, so that a WebSocket is tried late
            return
        # On another road, it is asked for once more, and refused there too.
        visit.box.websocket = "passes"
        async with asyncio.timeout(30):
            while (
                visit.client.status.road is not holdfast.Road.WEBSOCKET or visit.client.status.state is not State.LIVE
            ):
                await asyncio.sleep(0.05)
        await visit.goes_on()
        with pytest.raises(holdfast.Forbidden):
            await asyncio.wait_for(anext(attic), 10)


@pytest.mark.parametrize("what", ["later", "broken"])
@pytest.mark.parametrize("road", ["websocket", "stream", "held"])
async def test_a_room_that_cannot_be_entered_just_now_is_tried_again(server: Server, road: str, what: str) -> None:
    async with Visit(server, road) as visit, visit.client.join(what) as room:
        joined = asyncio.create_task(anext(room))
        await asyncio.sleep(1)
        await visit.goes_on()
        assert not joined.done()
        await visit.lobby.command("unlock", what=what)
        assert isinstance(await asyncio.wait_for(joined, 10), Resync)
        await visit.goes_on()
        assert visit.told.resumed == 0


async def test_which_of_several_rooms_is_refused_is_said_in_the_words_of_a_websocket(server: Server) -> None:
    async def asked(path: str) -> tuple[int, Any]:
        response = await server.request("GET", f"/live/{path}")
        return response.status_code, response.json()

    said = {"type": "error", "error": "you may not read locked", "code": "forbidden", "place": "locked"}
    for way in ("events?", "poll?wait=0&"):
        assert await asked(f"{way}rooms=lobby,locked") == (403, said)
        assert await asked(f"{way}room=locked") == (403, {"error": "you may not read locked"})
        status, answer = await asked(f"{way}rooms=broken,lobby")
        assert (status, answer["code"], answer["place"]) == (500, "internal", "broken")
    status, answer = await asked("poll?rooms=lobby,later")
    assert (status, answer["code"], answer["place"]) == (503, "unavailable", "later")
    response = await server.request("GET", "/live/events?rooms=lobby,later")  # another status ends an EventSource
    assert response.status_code == 200
    assert response.text.startswith("retry: ")
    assert '\n\ndata: {"type":"error","error":"not now","code":"unavailable","place":"later"}\n\n' in response.text
