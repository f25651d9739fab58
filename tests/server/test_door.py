"""Who comes while a server ends, or while it is full, is told so, and when to come back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from holdfast import Hub, User
from holdfast.server.door import Door


async def test_while_a_server_ends_nobody_is_let_in() -> None:
    async with Hub("memory:") as hub:
        hands = hub.opened.hands
        door = Door(hands)
        assert door.refusal() is None
        hands.refuses = "the server restarts"
        goodbye = door.refusal()
        assert goodbye is not None
        assert goodbye.reason == "the server restarts"
        assert goodbye.after_ms == 2000


async def test_who_is_being_let_in_when_a_server_begins_to_hand_over_is_sent_on() -> None:
    hub = Hub("memory:")
    asked, answer = asyncio.Event(), asyncio.Event()
    told: asyncio.Queue[Any] = asyncio.Queue()

    @hub.authenticate
    async def who(token: str | None, request: object) -> User:
        asked.set()
        await answer.wait()
        return User("ann", "Ann")

    incoming: asyncio.Queue[Any] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": ["holdfast.1"]}
    async with hub:
        hands = hub.opened.hands
        hands.spawn(hub.websocket(scope, incoming.get, told.put))
        await asked.wait()
        await hands.hand_over("the server restarts", 5.0)
        answer.set()
        async with asyncio.timeout(5):
            said = [(await told.get()) for _ in range(3)]
        assert [message["type"] for message in said] == ["websocket.accept", "websocket.send", "websocket.close"]
        assert json.loads(said[1]["text"])["type"] == "goodbye"


async def test_who_has_no_place_to_go_is_told_that_the_server_is_full() -> None:
    async with Hub("memory:") as hub:
        goodbye = Door(hub.opened.hands).refusal(places=False)
        assert goodbye is not None
        assert goodbye.reason == "the server is full"
