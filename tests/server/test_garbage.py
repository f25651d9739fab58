"""
What is left of those who have gone, without the collector of cycles?

It seldom looks (`holdfast serve`): what only it can find is there for as long as thousands more take to come.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from peers import SRC, Server

APP = """
import gc
from collections import Counter
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from holdfast import Hub

hub = Hub("memory:")

async def left(request):
    gc.disable()
    kinds = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return JSONResponse(Counter(kind for kind in kinds if kind.startswith(("holdfast.", "uvicorn.", "httptools."))))

app = Starlette(routes=[Route("/left", left), Mount("/live", hub.app)], lifespan=hub.lifespan)
"""


@pytest.mark.parametrize("speed", ["--speed", "--no-speed"])
async def test_nothing_of_ours_waits_for_the_collector(tmp_path: Path, speed: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    env = {"PYTHONPATH": f"{SRC}:{tmp_path}"}
    with Server(tmp_path, "serve", "app:app", speed, env=env) as server:

        async def come_and_go(times: int) -> None:
            for number in range(times):
                async with await server.dial("/live/ws") as peer:
                    await peer.send({"type": "join", "room": f"room-{number}"})
                    await peer.until("joined")
                await server.request("POST", "/live/send", {"type": "ping"})

        await come_and_go(3)
        before = await server.get("/left")
        await come_and_go(20)
        left, until = {"": 1}, time.monotonic() + 5
        while left and time.monotonic() < until:
            left = {kind: n for kind, n in (await server.get("/left")).items() if n > before.get(kind, 0) + 3}
        assert not left
