"""Who is put out is out, also whoever was just coming in: they are asked about again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from holdfast import Hub, User

BOB = User("bob", "Bob")


class House:
    """A hub whose application takes its time with the question that is `slow`, and says yes to it while `lets`."""

    def __init__(self) -> None:
        self.hub = Hub("memory:")
        self.slow = ""
        self.lets = True
        self.asks = 0
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.hub.authenticate(self._authenticate)
        self.hub.authorize(self._authorize)

    async def _authenticate(self, token: str | None, request: object) -> User | None:
        return BOB if token is not None and await self._decide("authenticate") else None

    async def _authorize(self, user: User, room: str, action: str) -> bool:
        return await self._decide("authorize")

    async def _decide(self, question: str) -> bool:
        if question != self.slow:
            return True
        answer = self.lets
        self.asks += 1
        self.asked.set()
        await self.answer.wait()
        return answer

    async def put_out(self, by: Callable[[], Awaitable[None]]) -> None:
        """While the question is being decided: take the right away, and put him out; then let it be decided."""
        await self.asked.wait()
        self.lets = False
        await by()
        self.answer.set()


class Visitor:
    """Somebody with a WebSocket, as a server that hands nothing over (plain ASGI) has them."""

    def __init__(self, hub: Hub, token: str | None = None) -> None:
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._incoming.put_nowait({"type": "websocket.connect"})
        query = b"" if token is None else f"token={token}".encode()
        scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": query, "subprotocols": []}
        hub.opened.hands.spawn(hub.websocket(scope, self._incoming.get, self._hear))

    async def _hear(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            self._said.put_nowait(json.loads(message["text"]))
        elif message["type"] == "websocket.close":
            self._said.put_nowait({"type": "closed", "code": message["code"]})

    def say(self, **message: Any) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    async def until(self, *types: str) -> Any:
        async with asyncio.timeout(5):
            while (message := await self._said.get())["type"] not in types:
                pass
        return message


@pytest.fixture
def house() -> House:
    return House()


async def test_who_joins_while_they_are_removed_is_asked_about_again(house: House) -> None:
    async with house.hub as hub:
        bob = Visitor(hub, "bob")
        await bob.until("connected")
        house.slow = "authorize"
        bob.say(type="join", room="lobby")
        await house.put_out(lambda: hub.remove("bob", "lobby"))
        assert (await bob.until("joined", "error"))["code"] == "forbidden"
        assert house.asks == 2
        assert hub.members("lobby") == []


@pytest.mark.parametrize("in_words", [False, True])
async def test_who_comes_while_they_are_disconnected_is_asked_again_who_they_are(
    house: House, *, in_words: bool
) -> None:
    async with house.hub as hub:
        house.slow = "authenticate"
        bob = Visitor(hub, None if in_words else "bob")
        if in_words:
            await bob.until("connected")
            bob.say(type="auth", token="bob")
        await house.put_out(lambda: hub.disconnect("bob"))
        said = await bob.until("connected", "closed")
        assert said == {"type": "closed", "code": 4001}
        assert house.asks == 2


@pytest.mark.parametrize("question", ["authenticate", "authorize"])
@pytest.mark.parametrize("path", ["/events?room=lobby", "/poll?room=lobby&wait=1", "/poll?rooms=lobby"])
async def test_who_wants_to_read_while_they_are_put_out_is_asked_about_again(
    house: House, path: str, question: str
) -> None:
    async with house.hub as hub:
        house.slow = question
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(hub.app), base_url="http://house") as http:
            reading = asyncio.create_task(http.get(path, headers={"authorization": "Bearer bob"}))
            await house.put_out(lambda: hub.disconnect("bob"))
            answer = await asyncio.wait_for(reading, 5)
        assert answer.status_code == (401 if question == "authenticate" else 403)
        assert house.asks == 2
