"""
A reader that pauses for a minute is not cut, and goes on with what it has missed; or is told that this is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from peers import RawPeer, Server

pytestmark = pytest.mark.long

APP = """
import asyncio
from holdfast import Hub, Limits
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from holdfast.store import retention

retention.FORGET_EVERY = 1.0
hub = Hub("busy.db", limits=Limits(log_records=RECORDS))

async def fill(request):
    for n in range(int(request.query_params["from"]), int(request.query_params["to"])):
        await hub.publish("busy", "said", {"n": n, "text": "x" * 10_000})
    return Response()

app = Starlette(routes=[Route("/fill", fill, methods=["POST"]), Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[int], Server]:
    def start(records: int) -> Server:
        (tmp_path / "busy.py").write_text(APP.replace("RECORDS", str(records)))
        return Server(tmp_path, "serve", "busy:app")

    return start


@pytest.mark.parametrize("records", [10_000, 300], ids=["all of it is kept", "most of it is trimmed meanwhile"])
async def test_a_reader_that_pauses_for_a_minute(start: Callable[[int], Server], records: int) -> None:
    """It reads nothing, so it cannot answer a ping; but it speaks."""
    with start(records) as server, closing(RawPeer(server.port, receive_buffer=4096)) as peer:
        peer.send({"type": "join", "room": "busy"})
        await peer.messages_until(lambda message: message["type"] == "joined", 5)
        filling = asyncio.create_task(server.request("POST", "/fill?from=0&to=1000"))
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 60:
            await asyncio.sleep(5)
            peer.send({"type": "ping"})  # it lives, and does not read
        await filling
        await server.request("POST", "/fill?from=1000&to=1010")
        heard = await peer.messages_until(lambda message: message.get("n") == 1009 or message["type"] == "resync", 30)
        await server.request("POST", "/fill?from=1010&to=1020")
        heard = await peer.messages_until(lambda message: message.get("n") == 1019, 30)
    numbers = [message["n"] for message in heard if message["type"] == "said"]
    gaps = [message for message in heard if message["type"] == "resync"]
    if records == 10_000:
        assert (numbers, gaps) == (list(range(1020)), [])
    else:  # a prefix without holes, one word about the gap, and what follows it
        assert [gap["reason"] for gap in gaps] == ["trimmed"]
        before = [message["n"] for message in heard[: heard.index(gaps[0])] if message["type"] == "said"]
        assert before == list(range(len(before)))
        gone_on = int(gaps[0]["cursor"].partition(":")[2])  # offsets count from one, numbers from nought
        assert numbers[len(before) :] == list(range(gone_on, 1020))
