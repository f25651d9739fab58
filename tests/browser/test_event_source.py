"""
The browser's own `EventSource`, which can only repeat what `id:` said: it misses nothing either, and knows no more of
holdfast than the names of the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from peers import Server

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

APP = """
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from holdfast import Hub, Limits
from holdfast.store import retention

retention.FORGET_EVERY = 0.2
hub = Hub("said.db", limits=Limits(log_records=50))

async def say(request):
    await hub.publish(request.query_params["room"], "said", {"n": int(request.query_params["n"])})
    return Response()

app = Starlette(routes=[Route("/say", say, methods=["POST"]), Mount("/", hub.app)], lifespan=hub.lifespan)
"""
LISTEN = """() => {
  window.heard = { one: [], two: [] };
  window.gaps = [];
  window.opened = 0;
  window.source = new EventSource("/events?rooms=one,two");
  source.addEventListener("open", () => opened++);
  source.addEventListener("said", (event) => { const { room, n } = JSON.parse(event.data); heard[room].push(n); });
  source.addEventListener("resync", (event) => { const { room, reason } = JSON.parse(event.data);
    gaps.push([room, reason]); });
  window.until = async (isSo) => {
    for (const end = performance.now() + 60_000; !isSo(); await new Promise((resolve) => setTimeout(resolve, 20)))
      if (performance.now() > end) throw Error(`never: ${isSo}`);
  };
}"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "said.py").write_text(APP)
    with Server(tmp_path, "serve", "said:app") as server:
        yield server


@pytest.mark.long
async def test_a_native_event_source_misses_nothing_of_two_rooms_across_kill_9(
    browser: Browser, server: Server
) -> None:
    async def say(room: str, *numbers: int) -> None:
        for n in numbers:
            assert (await server.request("POST", f"/say?room={room}&n={n}")).status_code == 200

    page = await (await browser.new_context()).new_page()
    await page.goto(f"{server.url}/holdfast.js")  # any page of this origin
    async with asyncio.timeout(60):
        await page.evaluate(LISTEN)
        await page.evaluate("until(() => opened === 1)")
        await say("one", 1, 2)
        await say("two", 1)
        await page.evaluate("until(() => heard.one.length + heard.two.length === 3)")
        for round in range(2):
            server.kill()
            await asyncio.to_thread(server.start)
            await say("two", 2 + round)  # while it is away, or as it comes
            await say("one", 3 + round)
            await page.evaluate(f"until(() => heard.one.length + heard.two.length === {5 + 2 * round})")
        assert await page.evaluate("[heard.one, heard.two, gaps]") == [[1, 2, 3, 4], [1, 2, 3], []]
        server.kill()
        await asyncio.to_thread(server.start)
        await say("one", *range(5, 205))
        await page.evaluate("until(() => opened === 4)")  # what was trimmed before that is in the snapshot
        await say("one", 205)
        await page.evaluate("until(() => heard.one.at(-1) === 205)")
    one, two, gaps = await page.evaluate("[heard.one, heard.two, gaps]")
    assert one == sorted(set(one))
    assert two == [1, 2, 3]
    assert len(one) == 205 if not gaps else gaps == [["one", "trimmed"]]
