"""Who is put out is out, also whoever was just coming in: they are asked about again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest
import uvicorn
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from holdfast import Hub, Limits, User

BOB = User("bob", "Bob")


class House:
    """A hub whose application takes its time with the question that is `slow`, and says yes to it while `lets`."""

    def __init__(self) -> None:
        self.hub = Hub("memory:", limits=Limits(close_seconds=0.2))
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


async def test_who_comes_while_others_are_put_out_is_asked_about_once(house: House) -> None:
    async with house.hub as hub:
        house.slow = "authenticate"
        bob = Visitor(hub, "bob")
        await house.asked.wait()
        await hub.disconnect("mallory")
        await hub.remove("mallory", "lobby")
        house.answer.set()
        assert (await bob.until("connected"))["user"]["userId"] == "bob"
        assert house.asks == 1  # a ticket is good for one


async def test_who_is_put_out_while_the_store_is_asked_reads_nothing_of_after_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house.hub as hub:
        cursor = (await hub.publish("lobby", "said", {})).id
        asked, answer = asyncio.Event(), asyncio.Event()
        look = hub.opened.store.span

        async def slow(room: str) -> Any:
            asked.set()
            await answer.wait()
            return await look(room)

        monkeypatch.setattr(hub.opened.store, "span", slow)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(hub.app), base_url="http://house") as http:
            path = f"/poll?room=lobby&wait=0&cursor={cursor}"
            reading = asyncio.create_task(http.get(path, headers={"authorization": "Bearer bob"}))
            await asked.wait()
            await hub.disconnect("bob")
            await hub.publish("lobby", "secret", {})
            answer.set()
            assert (await asyncio.wait_for(reading, 5)).json() == {"data": [], "cursor": cursor, "timeout": True}


async def test_nothing_is_said_to_whom_the_connection_was_closed(house: House) -> None:
    server = uvicorn.Server(
        uvicorn.Config(house.hub.app, ws="holdfast.server.websocket:WebSocketProtocol", log_level="error", port=0)
    )
    async with house.hub as hub:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        _, port = server.servers[0].sockets[0].getsockname()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        house.slow = "authorize"
        engine = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/ws?token=bob"))
        engine.send_request(engine.connect())
        writer.writelines(engine.data_to_send())
        while engine.state is not State.OPEN:
            engine.receive_data(await reader.read(4096))
        engine.send_text(b'{"type":"join","room":"lobby"}')
        writer.writelines(engine.data_to_send())
        await house.put_out(lambda: hub.disconnect("bob"))
        said = b""
        with suppress(ConnectionResetError):  # the close frame is not answered, so the server ends it
            while part := await reader.read(4096):
                said += part
        assert said.endswith(b"you were asked to leave")  # the reason, in the close frame
        writer.close()
        server.should_exit = True
        await serving


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
