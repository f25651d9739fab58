"""
Whoever may not do something in a room may not do it by any road.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Hub
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


def test_an_empty_server_key_is_no_key() -> None:
    with pytest.raises(ValueError, match="everybody"):
        Hub("memory:", server_key="")
