"""The page lives through a deploy of several servers: it moves to another one, and nobody sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser

from browser.node import needs_node, printed
from peers import Balancer, Server


@pytest.fixture
def servers(tmp_path: Path, database: str) -> Iterator[list[Server]]:
    """Three boards on one database."""
    with ExitStack() as running:
        folders = [tmp_path / f"node-{number}" for number in range(3)]
        for folder in folders:
            folder.mkdir()
        yield [running.enter_context(Server(folder, "board", "--store", database)) for folder in folders]


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_moves_to_another_server_and_shows_everything(servers: list[Server], browser: Browser) -> None:
    balancer = Balancer(servers[:1])  # so that they are where they must leave
    async with balancer as url:
        page = await browser.new_page()
        await page.goto(url)
        await page.wait_for_selector("#status[data-state=live]")
        await page.evaluate(
            "async () => {"
            " const { connect } = await import('/holdfast.js');"
            " window.states = []; window.titles = []; window.gaps = 0;"
            " window.shown = [];"
            " const status = document.getElementById('status');"
            " new MutationObserver(() => shown.push(status.dataset.state)).observe(status, { attributes: true });"
            " window.client = connect(new URL('/ws', location.href).href);"
            " client.on('status', (status) => states.push(status.detail));"
            " const room = client.join('board-1');"
            " room.on('resync', (item) => gaps += item.reason !== 'new');"
            " room.on('event', (event) => event.type === 'task_created' && titles.push(event.task.title));"
            " const crowd = Array.from({ length: 12 }, () => connect('/ws').join('board-1'));"
            " const joined = [room, ...crowd].map((each) => new Promise((done) => each.on('resync', done)));"
            " await Promise.all(joined);"
            "}"
        )
        watcher = await servers[2].dial()
        await watcher.join()
        balancer.servers = servers
        made = 0
        for leaving in servers[:2]:
            stopping = asyncio.create_task(asyncio.to_thread(leaving.stop))
            while not stopping.done():
                await servers[2].new_task(f"task number {made}")
                made += 1
                await asyncio.sleep(0.1)
            await stopping
        await servers[2].new_task("the last one")
        await page.wait_for_selector("text=the last one")
        async with asyncio.timeout(10):
            while (titles := await page.evaluate("titles"))[-1:] != ["the last one"]:
                await asyncio.sleep(0.05)
        assert titles == [f"task number {number}" for number in range(made)] + ["the last one"]
        assert await page.evaluate("gaps") == 0
        states = await page.evaluate("states")
        assert states.count("moving") >= 1
        assert set(states[states.index("live") :]) == {"live", "moving"}
        shown = await page.evaluate("shown")
        assert set(shown) == {"live"}
        await watcher.until("task_created", where=lambda told: told["task"]["title"] == "the last one")
        assert {told["type"] for told in watcher.heard} & {"user_left", "user_joined"} == set()
        await watcher.close()
        for number in range(made):
            assert await page.locator(".card", has_text=f"task number {number}").count() >= 1


BESIDE = """
import { connect } from "./holdfast.js";
const sockets = [];
class Socket {
  readyState = 0;
  constructor() {
    sockets.push(this);
    if (sockets.length !== 2) setTimeout(() => this.open());
    else setTimeout(() => (sockets[0].end(), this.open())); // the first ends while this is being opened
  }
  open() {
    if (this.readyState === 0) this.onopen({}, (this.readyState = 1));
  }
  send(text) {
    const { type } = JSON.parse(text);
    if (type === "auth") this.say({ type: "connected", session: "s", roomKey: "room", user: { userId: "u", name: "U" },
      heartbeat: { interval: 30, timeout: 10 }, limits: { messagesPerSecond: 50 } });
  }
  say(message) {
    setTimeout(() => this.readyState === 1 && this.onmessage({ data: JSON.stringify(message) }));
  }
  close() {
    this.readyState = 3;
  }
  end() {
    this.readyState = 3;
    this.onclose({ code: 1012, reason: "the server restarts" });
  }
}
const client = connect("ws://localhost/ws", { WebSocket: Socket, token: "t" });
client.on("connected", () => {
  if (sockets.length === 1) return sockets[0].say({ type: "goodbye", reason: "restart", after_ms: 0, spread_ms: 0 });
  console.log(JSON.stringify(sockets.map(({ readyState }) => readyState)));
  process.exit();
});
setTimeout(() => process.exit(1), 9000);
"""


@needs_node
async def test_a_link_that_ends_while_another_is_opened_beside_it_ends_with_that() -> None:
    assert await printed(BESIDE) == [[3, 3, 1]]


#: The server sends this one away when it is asked for something, and never answers on this link.
CARRIED_OVER = """
const { connect } = await import("./holdfast.js");
const sockets = [], heard = [];

class Socket {
  readyState = 0;
  constructor() {
    this.number = sockets.push(this);
    setTimeout(() => this.onopen({}, (this.readyState = 1)));
  }
  say(message) {
    setTimeout(() => this.readyState === 1 && this.onmessage({ data: JSON.stringify(message) }));
  }
  send(text) {
    const { type, since, ref } = JSON.parse(text);
    heard.push([this.number, type]);
    if (type === "auth") this.say({ type: "connected", session: "s", roomKey: "room", user: { userId: "u", name: "U" },
      heartbeat: { interval: 30, timeout: 10 }, limits: { messagesPerSecond: 50 } });
    if (type === "join") this.say({ type: "joined", room: "lobby", cursor: "e:0", recovered: Boolean(since), users: [],
      roomSize: 0 });
    if (type === "add") this.say(this.number === 1 ? { type: "goodbye", reason: "restart", after_ms: 0, spread_ms: 0 }
      : { type: "reply", ref, ok: true, data: "added" });
  }
  close() {
    this.readyState = 3;
  }
}
const room = connect("ws://localhost/ws", { WebSocket: Socket, token: "t" }).join("lobby");
room.on("resync", async () => {
  console.log(JSON.stringify(await room.command("add", {})));
  console.log(JSON.stringify(heard.filter(([_, type]) => type === "add")));
  process.exit();
});
setTimeout(() => process.exit(1), 9000);
"""


@needs_node
async def test_what_was_not_answered_before_a_move_is_asked_again_behind_it() -> None:
    assert await printed(CARRIED_OVER) == ["added", [[1, "add"], [2, "add"]]]
