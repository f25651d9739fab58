"""
The page, and `holdfast.js`, behind a proxy that lets no WebSocket through.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route

from browser.node import needs_node, printed, running
from faults import Middlebox
from peers import StartBoard

WAYS: dict[str, dict[str, Any]] = {
    "refused": {"websocket": "refused"},
    "cut": {"websocket": "cut"},
    "swallowed": {"websocket": "swallowed"},
    "held back": {"websocket": "refused", "streams": "held back"},
    "impatient": {"websocket": "refused", "streams": "held back", "patience": 1.0},
}


async def live(page: Page, road: str, seconds: float = 20) -> None:
    text = {"http": "Live by HTTP", "websocket": "Live"}[road]
    await page.wait_for_function(
        "text => document.querySelector('#status-text').textContent === text", arg=text, timeout=1000 * seconds
    )


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in ("refused", "held back") else pytest.mark.long) for way in WAYS]
)
async def test_the_page_works_without_a_websocket(browser: Browser, start_board: StartBoard, way: str) -> None:
    server = start_board()
    async with Middlebox(server.port, **WAYS[way]) as box:
        page = await (await browser.new_context()).new_page()
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        await page.goto(f"http://localhost:{box.port}/?jitter=off")
        await live(page, "http", 30)
        await page.wait_for_selector("[data-task-id]")
        task = await server.new_task("from elsewhere")
        await page.wait_for_selector(f"[data-task-id={task['id']}]", timeout=20_000)
        await page.fill("[data-list-id=list-todo] .new-task input", "from the page")
        await page.press("[data-list-id=list-todo] .new-task input", "Enter")
        async with asyncio.timeout(20):
            while "from the page" not in [
                task["title"] for task in (await server.get("/boards/board-1/tasks"))["data"]
            ]:
                await asyncio.sleep(0.05)
        await page.wait_for_function("() => !document.querySelector('.unsent')")
        assert failures == []


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_changes_roads_and_shows_exactly_what_the_server_has(
    browser: Browser, start_board: StartBoard
) -> None:
    server = start_board()
    async with Middlebox(server.port, websocket="passes") as box:
        page = await (await browser.new_context()).new_page()
        await page.goto(f"http://localhost:{box.port}/?jitter=off")
        await live(page, "websocket")
        box.websocket = "refused"
        box.reset(1.0, random.Random(0))
        first = await server.new_task("while on the way to HTTP")
        await live(page, "http", 40)
        await page.wait_for_selector(f"[data-task-id={first['id']}]")
        box.websocket = "passes"
        second = await server.new_task("by HTTP")
        await page.wait_for_selector(f"[data-task-id={second['id']}]")
        await live(page, "websocket", 30)
        third = await server.new_task("by a WebSocket again")
        await page.wait_for_selector(f"[data-task-id={third['id']}]")
        shown = await page.evaluate("[...document.querySelectorAll('[data-task-id]')].map(card => card.dataset.taskId)")
        assert sorted(shown) == sorted(task["id"] for task in (await server.get("/boards/board-1/tasks"))["data"])


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="session")
async def test_a_snapshot_that_overtakes_the_answer_to_a_join_makes_the_page_deaf_to_nothing(
    browser: Browser, start_board: StartBoard
) -> None:
    server = start_board()
    async with Middlebox(server.port, websocket="passes", streams="held back") as box:
        page = await (await browser.new_context()).new_page()
        arrives = asyncio.Event()

        async def late(route: Route) -> None:
            await arrives.wait()
            await route.continue_()

        await page.route("**/users", late)
        await page.goto(f"http://localhost:{box.port}/?jitter=off")
        await live(page, "websocket")
        box.websocket = "refused"
        box.reset(1.0, random.Random(0))
        await live(page, "http", 40)
        arrives.set()  # the answer to its join is held back for seconds
        await page.wait_for_selector("[data-task-id]")
        task = await server.new_task("by HTTP")
        await page.wait_for_selector(f"[data-task-id={task['id']}]")


SCRIPT = """
import { connect } from "./holdfast.js";
const client = connect(process.argv[1], { roomKey: "boardId" });
const room = client.join("board-1");
const said = [];
room.on("resync", ({ reason }) => said.push(reason));
room.on("event", ({ type }) => {
  said.push(type, client.status.road);
  console.log(JSON.stringify(said));
  client.close();
});
room.on("resync", () => room.command("create_task", { listId: "list-todo", title: "from node" }));
"""


@needs_node
async def test_holdfast_js_in_node_needs_no_websocket_at_all(
    start_board: StartBoard, capfd: pytest.CaptureFixture[str]
) -> None:
    told = await printed(SCRIPT, f"{start_board().url}/ws")  # node 20 has no WebSocket of its own
    assert (told, capfd.readouterr().err) == ([["new", "task_created", "http"]], "")


SEVERAL = """
import { connect } from "./holdfast.js";
const client = connect(process.argv[1], { roomKey: "boardId", jitter: false });
const print = (...what) => console.log(JSON.stringify(what));
for (const name of ["board-1", "nowhere", "board-2"]) {
  const room = client.join(name);
  room.on("resync", ({ reason }) => print(name, reason));
  room.on("event", ({ type, task }) => print(name, type, task?.title));
  room.on("error", ({ code, boardId }) => print(name, code, boardId));
}
client.on("status", ({ detail, code }) => detail === "closed" && print(detail, code));
"""
ROADS = {name: WAYS[way] for name, way in {"stream": "refused", "held": "held back", "short": "impatient"}.items()}


@needs_node
@pytest.mark.parametrize("road", ["stream", "held", pytest.param("short", marks=pytest.mark.long)])
async def test_of_several_rooms_one_is_refused_and_the_others_go_on(start_board: StartBoard, road: str) -> None:
    server = start_board()
    async with Middlebox(server.port, **ROADS[road]) as box:
        said: list[list[Any]] = []

        async def until(*what: Any) -> None:
            async with asyncio.timeout(30):
                while [*what] not in said:
                    said.append(await anext(node))

        async with running(SEVERAL, f"http://127.0.0.1:{box.port}/ws") as node:
            await until("nowhere", "not_found", "nowhere")
            await until("board-1", "new")
            await until("board-2", "new")
            if road == "short":
                async with asyncio.timeout(30):
                    while [part.split("wait=")[-1] for part in box.asked[-2:]] != ["0", "0"]:
                        await asyncio.sleep(0.1)
            await server.new_task("one")
            await until("board-1", "task_created", "one")
            assert (await server.request("DELETE", "/boards/board-2")).status_code == 204
            if road == "stream":  # whoever is on one is asked again when they come back
                box.reset(1.0, random.Random(0))
            await server.new_task("two")
            await until("board-2", "not_found", "board-2")
            await server.new_task("three")
            await until("board-1", "task_created", "three")
    told = [what for room, *what in said if room == "board-1"]
    assert told == [["new"], *(["task_created", title] for title in ("one", "two", "three"))]
    assert not any(happened[0] == "closed" for happened in said)


#: For our module, not for what node does by itself, time goes so many times as fast.
HASTY = """
const now = Date.now, begin = now(), later = setTimeout;
const hurry = (times) => {
  Date.now = () => begin + times * (now() - begin);
  globalThis.setTimeout = (work, ms, ...rest) =>
    later(work, /holdfast(-http)?[.]js/.test(new Error().stack.split("\\n")[2]) ? ms / times : ms, ...rest);
};
"""
WITHOUT = """
hurry(10);
const told = [];
console.error = (error) => told.push(String(error));
const { connect } = await import("./holdfast.js");
const client = connect(process.argv[1]);
client.on("status", ({ detail }) => detail === "live" && told.push(detail));
client.join("board-1");
later(() => process.stdout.write(`${JSON.stringify(told)}\\n`, () => process.exit()), 2000);
"""


@needs_node
async def test_where_there_is_no_websocket_none_is_tried(start_board: StartBoard) -> None:
    (told,) = await printed(HASTY + WITHOUT, f"{start_board().url}/ws")
    assert set(told) == {"live"}


LATE = """
hurry(100); // until it is live
const told = [];
const { connect } = await import("./holdfast.js");
let asked = 0, refuse;
const never = new Promise((_, reject) => (refuse = reject));
const client = connect(process.argv[1], { token: async () => (++asked === 1 ? never : null) });
client.on("status", ({ detail, reason }) => {
  told.push([detail, reason]);
  if (detail !== "live") return;
  [Date.now, globalThis.setTimeout] = [now, later];
  later(refuse, 200, "too late"); // while the answer to the second is in use
  later(() => process.stdout.write(`${JSON.stringify(told)}\\n`, () => process.exit()), 1000);
});
"""


@needs_node
async def test_a_token_that_does_not_come_is_asked_for_again(start_board: StartBoard) -> None:
    (told,) = await printed(HASTY + LATE, f"{start_board().url}/ws")
    assert ["waiting", "no token: it does not come"] in told
    assert told[-1] == ["live", ""]
    assert [detail for detail, _ in told].count("live") == 1


SET_BACK = """
const { connect } = await import("./holdfast.js");
const now = Date.now;
let dials = 0;
class Nowhere {
  constructor() {
    if (++dials === 2) process.stdout.write("2\\n", () => process.exit());
    setTimeout(() => this.onclose({ code: 1006, reason: "" }));
  }
  close() {}
}
const client = connect("ws://localhost/ws", { WebSocket: Nowhere, jitter: false });
client.on("status", ({ state }) => state === "waiting" && (Date.now = () => now() - 3_600_000));
setTimeout(() => process.exit(), 10_000);
"""


@needs_node
async def test_a_clock_that_is_set_back_by_an_hour_delays_nothing() -> None:
    assert await printed(SET_BACK) == [2]


IN_PIECES = """
import { HttpSocket, Reader } from "./holdfast-http.js";
globalThis.fetch = async () => new Response(new ReadableStream({
  start(pieces) {
    const answer = '{"type":"reply","ref":"1","ok":true,"data":"h\u00e9llo \U0001f4a3"}';
    for (const byte of new TextEncoder().encode(answer)) pieces.enqueue(Uint8Array.of(byte));
    pieces.close();
  },
}));
const socket = new HttpSocket(new URL("ws://localhost/ws"), null, new Reader(), () => 0);
socket.onmessage = ({ data }) => process.stdout.write(`${data}\\n`, () => process.exit());
socket.onopen = () => socket.send('{"type":"add","ref":"1"}');
"""


@needs_node
async def test_what_comes_in_pieces_is_read_as_a_whole() -> None:
    assert await printed(IN_PIECES) == [{"type": "reply", "ref": "1", "ok": True, "data": "h\u00e9llo \U0001f4a3"}]


SILENT = """
import { HttpSocket, Reader } from "./holdfast-http.js";
AbortSignal.timeout = (seconds) => {
  const patience = new AbortController();
  setTimeout(() => patience.abort(new Error(`no answer within ${seconds}`)));
  return patience.signal;
};
globalThis.fetch = (url, { signal }) => new Promise((_, reject) => {
  signal?.addEventListener("abort", () => reject(signal.reason));
});
const socket = new HttpSocket(new URL("ws://localhost/ws"), null, new Reader(), () => 0);
socket.onopen = () => socket.send('{"type":"auth"}');
socket.onclose = (event) => console.log(JSON.stringify(event));
"""


@needs_node
async def test_a_link_on_which_nothing_that_is_said_is_answered_is_given_up() -> None:
    assert await printed(SILENT) == [{"code": 1006, "reason": "Error: no answer within 30000"}]


HALF = """
import { HttpSocket, Reader } from "./holdfast-http.js";
globalThis.fetch = async (url) => {
  if (url.pathname.endsWith("/events")) return new Promise(() => {});
  return Response.json({ type: "reply", ref: "1", ok: true });
};
const socket = new HttpSocket(new URL("ws://localhost/ws"), null, new Reader(), () => 0);
const life = [];
socket.onmessage = ({ isLife }) => {
  life.push(isLife);
  if (life.length === 2) process.stdout.write(`${JSON.stringify(life)}\n`, () => process.exit());
  else socket.send('{"type":"join","room":"lobby"}');
  setTimeout(say, 20);
};
const say = () => socket.send('{"type":"add","ref":"1"}');
socket.onopen = say;
"""


@needs_node
async def test_while_something_is_read_only_what_is_read_is_a_sign_of_life() -> None:
    assert await printed(HALF) == [[True, False]]
