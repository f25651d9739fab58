"""
What has stopped other clients for good, or made them storm: listeners that throw or call back, sockets that never
close, servers that welcome and hang up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from websockets.asyncio.server import ServerConnection, serve

from peers import WELCOME, Server

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

APP = """
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Hub

hub = Hub("said.db", heartbeat_interval=1, heartbeat_timeout=1)

@hub.on("say")
async def say(request):
    await hub.publish(request.room, "said", {"n": request.data["n"]})

app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""
BEGIN = """
async () => {
  const { connect } = await import('/holdfast.js');
  window.reported = [];
  window.addEventListener('error', (event) => { reported.push(event.message); event.preventDefault(); });
  window.listening = new Map(); // by the target and type: how many
  for (const target of [window, document]) {
    const { addEventListener: add, removeEventListener: remove } = EventTarget.prototype;
    const count = (type, by) => listening.set(type, (listening.get(type) ?? 0) + by);
    target.addEventListener = function (type, ...rest) { count(type, 1); return add.call(this, type, ...rest); };
    target.removeEventListener = function (type, ...rest) { count(type, -1); return remove.call(this, type, ...rest); };
  }
  window.connect = connect;
  window.until = async (isSo) => {
    for (const end = performance.now() + 60_000; !isSo(); await new Promise((resolve) => setTimeout(resolve, 20)))
      if (performance.now() > end) throw Error(`never: ${isSo}`);
  };
}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "said.py").write_text(APP)
    with Server(tmp_path, "serve", "said:app") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, server: Server) -> AsyncIterator[Page]:
    page = await (await browser.new_context()).new_page()
    page.set_default_timeout(30_000)
    await page.goto(f"{server.url}/holdfast.js")  # any page of this origin
    await page.evaluate(BEGIN)
    async with asyncio.timeout(60):
        yield page


async def test_servers_that_welcome_and_hang_up_are_not_hammered(page: Page) -> None:
    """Whatever they hang up with: the attempts grow apart, for a welcome that did not last is a failure."""
    dials: dict[int, list[float]] = {}

    def hang_up(code: int) -> object:
        async def welcome(socket: ServerConnection) -> None:
            dials[code].append(asyncio.get_running_loop().time())
            await socket.close(code)

        return welcome

    async with AsyncExitStack() as stack:
        for code in (1000, 1001, 1008, 1011, 1013, 3000, 4401, 4999):
            dials[code] = []
            server = await stack.enter_async_context(serve(hang_up(code), "127.0.0.1", 0))  # type: ignore[arg-type]
            port = server.sockets[0].getsockname()[1]
            await page.evaluate(f"() => void connect('ws://127.0.0.1:{port}/ws')")
        await asyncio.sleep(6)
        await page.goto("about:blank")
    for code, times in dials.items():
        assert 2 <= len(times) <= 9, (code, times)
        assert all(after - before >= 0.24 for before, after in pairwise(times)), (code, times)


@pytest.mark.parametrize("frame", ["oops", '{"type":1}'])
async def test_a_server_that_says_what_cannot_be_read_is_not_hammered(page: Page, frame: str) -> None:
    said: list[float] = []

    async def serve_poison(socket: ServerConnection) -> None:
        async for text in socket:
            if '"auth"' in str(text):
                await socket.send(WELCOME)
            else:
                said.append(asyncio.get_running_loop().time())
                await socket.send(
                    '{"type":"joined","room":"lobby","cursor":"e:0","recovered":false,"users":[],"roomSize":1}'
                )
                await socket.send(frame)
                await socket.send('{"type":"said","room":"lobby","id":"e:2"}')

    async with serve(serve_poison, "127.0.0.1", 0, subprotocols=["holdfast.1"]) as server:
        port = server.sockets[0].getsockname()[1]
        await page.evaluate(f"() => void connect('ws://127.0.0.1:{port}/ws').join('lobby')")
        await asyncio.sleep(4)
        await page.goto("about:blank")
    assert 2 <= len(said) <= 8
    assert all(after - before >= 0.24 for before, after in pairwise(said))


async def test_listeners_that_throw_are_reported_and_harm_nobody(page: Page, server: Server) -> None:
    await page.evaluate(
        "() => { window.client = connect('/ws', { jitter: false }); window.room = client.join('lobby');"
        " window.heard = [];"
        " client.on('status', () => { throw new Error('in status'); });"
        " for (const type of ['resync', 'resumed', 'event', 'presence'])"
        "   room.on(type, () => { throw new Error('in ' + type); });"
        " room.on('event', ({ n }) => heard.push(n)); }"
    )
    await page.evaluate("room.command('say', { n: 1 })")
    server.kill()
    await page.evaluate("until(() => client.status.state === 'waiting')")
    await asyncio.to_thread(server.start)
    await page.evaluate("room.command('say', { n: 2 })")
    await page.evaluate("until(() => heard.length === 2)")
    assert await page.evaluate("heard") == [1, 2]
    reported = set(await page.evaluate("reported"))
    assert {f"Uncaught Error: in {what}" for what in ("status", "resync", "resumed", "event", "presence")} <= reported


@pytest.mark.long
async def test_listeners_may_call_the_client_again(page: Page, server: Server) -> None:
    """Also to close and open it in the middle of its own change, and to knock without end."""
    await page.evaluate(
        "() => { window.client = connect('/ws', { jitter: false }); window.room = client.join('lobby');"
        " window.heard = [];"
        " window.waits = []; let reopened = false;"
        " client.on('status', ({ state, attempt }) => {"
        "   if (state !== 'waiting') return;"
        "   waits.push(attempt);"
        "   if (!reopened) { reopened = true; client.close(); client.open(); }"
        "   client.retryNow(); });"
        " room.on('event', ({ n }) => { heard.push(n); room.leave(); again(); });"
        " const again = () => { window.room = client.join('lobby');"
        "   room.on('event', ({ n }) => { heard.push(n); room.leave(); again(); }); } }"
    )
    await page.evaluate("until(() => client.status.state === 'live')")
    server.kill()
    await page.evaluate("until(() => waits.length >= 2)")
    began = asyncio.get_running_loop().time()
    before = await page.evaluate("waits.length")
    await asyncio.sleep(2)
    attempts = await page.evaluate("waits.length") - before
    assert attempts <= 4 * (asyncio.get_running_loop().time() - began) + 1, "never two within 250 ms"
    await asyncio.to_thread(server.start)
    await page.evaluate("until(() => client.status.state === 'live')")
    for n in range(3):
        await page.evaluate("until(() => room.users.length > 0)")
        await page.evaluate(f"room.send('say', {{ n: {n} }})")
        await page.evaluate(f"until(() => heard.length > {n})")
    assert await page.evaluate("heard") == [0, 1, 2]
    assert await page.evaluate("reported") == []


@pytest.mark.long
async def test_a_room_that_was_left_hears_nothing_though_it_is_joined_again_at_once(page: Page) -> None:
    await page.evaluate(
        "() => { window.client = connect('/ws'); window.heard = []; window.old = []; window.rooms = [];"
        " for (let n = 0; n < 10; n++) { const room = client.join('lobby'); rooms.push(room);"
        "   if (n < 9) { room.on('event', () => old.push(n)); room.leave(); } }"
        " rooms.at(-1).on('event', ({ n }) => heard.push(n)); }"
    )
    await page.evaluate("rooms.at(-1).command('say', { n: 1 })")
    await page.evaluate(
        "() => { for (let n = 0; n < 5; n++) { rooms.at(-1).leave(); const room = client.join('lobby');"
        "   rooms.push(room); room.on('event', ({ n }) => heard.push(n)); } }"
    )
    await page.evaluate("rooms.at(-1).command('say', { n: 2 })")
    await page.evaluate("until(() => heard.includes(2))")
    assert await page.evaluate("[heard, old]") == [[1, 2], []]


async def test_a_socket_that_never_closes_is_abandoned(page: Page, server: Server) -> None:
    """A frozen server answers nothing, not even a close: the page waits for no `onclose`."""
    await page.evaluate(
        "() => { window.client = connect('/ws', { jitter: false }); window.room = client.join('lobby');"
        " window.heard = [];"
        " room.on('event', ({ n }) => heard.push(n)); }"
    )
    await page.evaluate("room.command('say', { n: 1 })")
    server.freeze()
    await page.evaluate("until(() => client.status.state === 'waiting')")
    server.thaw()
    await page.evaluate("room.command('say', { n: 2 })")
    await page.evaluate("until(() => heard.length === 2)")
    assert await page.evaluate("heard") == [1, 2]


async def test_a_page_that_the_browser_keeps_aside_has_no_link_until_it_is_shown_again(page: Page) -> None:
    await page.evaluate("() => { window.client = connect('/ws'); }")
    await page.evaluate("until(() => client.status.state === 'live')")
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert await page.evaluate("client.status.detail") == "paused"
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    await page.evaluate("until(() => client.status.state === 'live')")


@pytest.mark.long
async def test_whoever_is_closed_listens_to_the_browser_no_more(page: Page) -> None:
    await page.evaluate("() => { window.client = connect('/ws'); }")
    assert sum((await page.evaluate("Object.fromEntries(listening)")).values()) >= 7
    await page.evaluate("() => { client.close(); client.open(); client.open(); client.close(); }")
    assert set((await page.evaluate("Object.fromEntries(listening)")).values()) == {0}


@pytest.mark.long
async def test_a_start_afresh_that_nobody_listens_to_is_reported(page: Page, server: Server) -> None:
    """Whoever only listens to events would be wrong from then on, and not know it."""
    await page.evaluate(
        "() => { window.client = connect('/ws', { recover: 'snapshot', jitter: false });"
        " for (const name of ['careless', 'careful']) client.join(name).on('event', () => {});"
        " client.join('careful').on('resync', ({ reason }) => (window.reason = reason)); }"
    )
    await page.evaluate("until(() => window.reason === 'new')")
    assert await page.evaluate("reported") == []  # there was nothing yet that could be wrong
    server.kill()
    await asyncio.to_thread(server.start)
    await page.evaluate("until(() => window.reason === 'chosen')")
    assert await page.evaluate("reported") == ['Uncaught Error: careless: chosen, and nobody listens to "resync"']
