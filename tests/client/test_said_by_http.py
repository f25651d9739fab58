"""
What is said by HTTP, and answered by somebody who is not the Hub: it takes effect in its order, or is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

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
    if "status" in request.query_params:
        said.clear()
        answers.append((int(request.query_params["status"]), request.query_params["body"]))
    return JSONResponse(said)

class Proxy:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/live/send" and answers:
            if b'"say"' in (await receive())["body"]:
                status, body = answers.pop()
                headers = {"retry-after": "1"} if body == "too much" else None
                return await PlainTextResponse(body, status, headers)(scope, receive, send)
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
PROBLEM = '{"type":"about:blank","title":"somebody else says"}'  # RFC 9457
UNDECIDED = [
    (408, ""), (429, ""), (429, "too much"), (500, ""), (502, ""), (503, ""), (504, ""), (204, ""),
    (200, "<html>sign in to this WiFi</html>"), (202, ""), (502, PROBLEM), (503, '{"type":"pong"}'),
    (504, '{"type":"error","room":"lobby","error":"x","code":"forbidden"}'), (504, '{"type":"said","room":"lobby"}'),
    (200, '{"type":"reply","ref":"somebody else\'s","ok":true}'), (200, "[]"),
]  # fmt: skip
REFUSED = [(400, ""), (404, ""), (413, "<html>"), (400, PROBLEM), (422, '{"error":"no"}')]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("said")
    (folder / "said.py").write_text(APP)
    with Server(folder, "serve", "said:app", env={"PYTHONPATH": f"{SRC}:{folder}"}) as server:
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


@pytest.mark.parametrize(("status", "body"), [*UNDECIDED, *REFUSED])
@pytest.mark.parametrize("by", [by_python, pytest.param(by_javascript, marks=needs_node)])
async def test_what_somebody_else_answers_changes_no_order(server: Server, status: int, body: str, by: Any) -> None:
    async with Middlebox(server.port, websocket="refused") as box:
        answers = await by(box, f"/tell?status={status}&body={quote(body)}", server)
        sent = sum("/send" in asked for asked in box.asked)
    done = await server.get("/tell")
    if (status, body) in UNDECIDED:
        assert (answers, done) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    else:
        assert (answers, done) == (["refused", 2, 3, 4, 5], [2, 3, 4, 5])
    if body == "too much":
        assert sent == 1 + 1 + 5  # on the same link: who it is, what was too much, and all five
