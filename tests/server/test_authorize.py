"""
Whoever may not do something in a room may not do it by any road.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest

from holdfast import Hub, Limits, Unauthorized, User
from peers import Server

APP = """
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Hub

hub = Hub("memory:")

@hub.authorize
async def may(user, room, action):
    return room != f"no-{action}"

@hub.on("say")
async def say(request):
    return (await hub.publish(request.room, "said", {})).id

app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "guarded.py").write_text(APP)
    with Server(tmp_path, "serve", "guarded:app") as server:
        yield server


async def test_over_a_websocket(server: Server) -> None:
    async with await server.dial() as peer:
        await peer.send({"type": "join", "room": "no-join"})
        assert (await peer.until("error"))["code"] == "forbidden"
        await peer.send({"type": "join", "room": "no-send"})
        await peer.until("joined")
        await peer.send({"type": "say", "room": "no-send", "ref": 1})
        reply: Any = await peer.until("reply")
        assert (reply["ok"], reply["error"]["code"]) == (False, "forbidden")
        await peer.send({"type": "typing", "room": "no-send"})
        assert (await peer.until("error"))["error"] == "you may not send no-send"
        await peer.send({"type": "join", "room": "no-read"})
        await peer.until("joined")
        await peer.send({"type": "say", "room": "no-read", "ref": 2})
        assert (await peer.until("reply"))["ok"]


async def test_by_http(server: Server) -> None:
    for path in ("/events?room=no-read", "/events?rooms=lobby,no-read", "/poll?room=no-read", "/poll?rooms=no-read"):
        assert (await server.request("GET", path)).status_code == 403
    for room, status in (("no-send", 403), ("lobby", 200)):
        assert (await server.request("POST", "/send", {"type": "say", "room": room})).status_code == status


@pytest.mark.parametrize("key", ["", " ", "padded ", "schlüssel", "a\nb"])
def test_a_key_that_nobody_could_send_or_everybody_is_no_server_key(key: str) -> None:
    with pytest.raises(ValueError, match="a server key goes in a header"):
        Hub("memory:", server_key=key)


async def test_nobody_is_somebody_who_cannot_be() -> None:
    hub = Hub("memory:")

    @hub.authenticate
    def who(token: str | None, request: object) -> User | None:
        return None if token is None or "." in token else User("ann", token)

    async with hub:
        for token in (hub.token, hub.guest_token):
            with pytest.raises(ValueError, match="name"):
                token(User("ann", "Ann\0"))
        with pytest.raises(ValueError, match="name"):
            await hub.opened.gate.identify("Ann\0", None)
        key = bytes.fromhex(hub.opened.store.secret)
        for claims in ({"sub": "ann", "name": "Ann\0"}, {"sub": "\ud800"}, {"sub": "u" * 256}, {"sub": ""}):
            signed = jwt.encode({"iat": 0, **claims}, key, "HS256")
            with pytest.raises(Unauthorized, match="nobody that can be"):
                await hub.opened.gate.identify(signed, None)


async def test_a_place_is_not_given_twice_while_it_is_found_out_who_comes() -> None:
    hub = Hub("memory:", limits=Limits(connections=2))

    @hub.authenticate
    async def who(token: str | None, request: object) -> User:
        await asyncio.sleep(0.1)
        return User("somebody", "Somebody")

    async def knock() -> list[Any]:
        said: list[Any] = []
        incoming: asyncio.Queue[Any] = asyncio.Queue()
        incoming.put_nowait({"type": "websocket.connect"})

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": []}
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await hub.websocket(scope, incoming.get, send)
        return said

    async with hub:
        told = await asyncio.gather(*(knock() for _ in range(6)))
    assert sum('"connected"' in str(said) for said in told) == 2
    assert sum("the server is full" in str(said) for said in told) == 4
