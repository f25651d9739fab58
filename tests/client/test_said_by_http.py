"""
What is said by HTTP, and answered by somebody who is not the Hub: it takes effect in its order, or is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from browser.node import needs_node, printed
from faults import Middlebox
from holdfast import Refused
from peers import SRC, Server

APP = """
import asyncio
from holdfast import Hub
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

hub = Hub("said.db")
said, answers = [], []

@hub.on("say")
async def say(request):
    said.append(request.data["n"])
    return request.data["n"]

async def tell(request):
    answers.append(int(request.query_params["status"]))
    return JSONResponse(said)

class Proxy:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/live/send" and answers:
            if b'"say"' in (await receive())["body"]:
                return await PlainTextResponse("somebody else says", answers.pop())(scope, receive, send)
        await self.app(scope, receive, send)

inner = Starlette(routes=[Route("/tell", tell), Mount("/live", hub.app)], lifespan=hub.lifespan)
app = Proxy(inner)
"""
SCRIPT = """
import { connect } from "./holdfast.js";
const client = connect(process.argv[1]);
const room = client.join("lobby");
await new Promise((resolve) => room.on("resync", resolve));
await fetch(process.argv[2]);
const answers = [1, 2, 3, 4, 5].map((n) => room.command("say", { n }).catch((error) => error.code));
console.log(JSON.stringify(await Promise.all(answers)));
client.close();
"""
UNDECIDED, REFUSED = [408, 429, 500, 502, 503, 504], [400, 404, 413]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "said.py").write_text(APP)
    with Server(tmp_path, "serve", "said:app", env={"PYTHONPATH": f"{SRC}:{tmp_path}"}) as server:
        yield server


async def by_python(box: Middlebox, tell: str, server: Server) -> list[Any]:
    url = f"http://127.0.0.1:{box.port}/live/ws"
    async with asyncio.timeout(20), holdfast.connect(url) as client, client.join("lobby") as room:
        await anext(room)
        await server.get(tell)
        said = await asyncio.gather(*(room.command("say", n=n) for n in range(1, 6)), return_exceptions=True)
    return [each.code if isinstance(each, Refused) else each for each in said]


async def by_javascript(box: Middlebox, tell: str, server: Server) -> list[Any]:
    (said,) = await printed(SCRIPT, f"http://127.0.0.1:{box.port}/live/ws", server.url + tell)
    assert isinstance(said, list)
    return said


@pytest.mark.parametrize("status", [*UNDECIDED, *REFUSED])
@pytest.mark.parametrize("by", [by_python, pytest.param(by_javascript, marks=needs_node)])
async def test_what_somebody_else_answers_changes_no_order(server: Server, status: int, by: Any) -> None:
    async with Middlebox(server.port, websocket="refused") as box:
        answers = await by(box, f"/tell?status={status}", server)
    done = await server.get("/tell?status=0")
    if status in UNDECIDED:
        assert (answers, done) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    else:
        assert (answers, done) == (["refused", 2, 3, 4, 5], [2, 3, 4, 5])
