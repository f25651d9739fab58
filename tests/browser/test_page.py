"""
The page in a real browser: two people, a server that is killed, a cable that is pulled.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from peers import Server, StartBoard

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

Open = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser) -> AsyncIterator[Open]:
    """Open pages, each with cookies of its own; a script that fails fails the test."""
    failures: list[str] = []

    async def open_page(
        server: Server, query: str = "", *, name: str | None = None, host: str = "localhost", **context_options: Any
    ) -> Page:
        context = await browser.new_context(**context_options)
        base = f"http://{host}:{server.port}"
        if name is not None:
            token = (await server.post("/login", {"name": name}))["data"]["token"]
            await context.add_cookies([{"name": "session", "value": token, "url": base}])
        page = await context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        await page.goto(f"{base}/{query}")
        await status(page, "live")
        await page.wait_for_selector("[data-list-id]")
        return page

    yield open_page
    assert not failures


async def status(page: Page, state: str, seconds: float = 10) -> None:
    await page.wait_for_selector(f"[data-testid=status][data-state={state}]", timeout=1000 * seconds)


async def cards(page: Page) -> dict[str, list[str]]:
    """Return what the page shows: by list, the cards in their order."""
    found: dict[str, list[str]] = await page.evaluate(
        "() => Object.fromEntries([...document.querySelectorAll('[data-list-id]')].map(list => [list.dataset.listId,"
        " [...list.querySelectorAll('[data-task-id]')].map(card => card.dataset.taskId + ' '"
        " + card.querySelector('.title').textContent)]))"
    )
    return found


async def truth(server: Server, board: str = "board-1") -> dict[str, list[str]]:
    """Return what REST shows, in the same form."""
    lists = (await server.get(f"/boards/{board}"))["data"]["lists"]
    tasks = (await server.get(f"/boards/{board}/tasks"))["data"]
    return {one["id"]: [f"{t['id']} {t['title']}" for t in tasks if t["listId"] == one["id"]] for one in lists}


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 5) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)


async def true_on(page: Page, script: str, seconds: float = 5) -> None:
    """Wait until something is true on a page. (Playwright's own waiting needs eval, which the page forbids.)"""
    await eventually(lambda: page.evaluate(script), seconds)


async def shows_the_truth(page: Page, server: Server, seconds: float = 5) -> None:
    async def same() -> bool:
        return await cards(page) == await truth(server)

    await eventually(same, seconds)


async def test_two_people_see_each_other_type_drag_come_and_go(board: Server, open_page: Open) -> None:
    alice = await open_page(board, name="Alice")
    bob = await open_page(board, name="Bob", host="127.0.0.1")
    second_tab = await alice.context.new_page()
    await second_tab.goto(alice.url)
    await status(second_tab, "live")
    for page in (alice, bob):
        await true_on(page, "document.querySelectorAll('[data-testid=presence] li').length === 2")
    latencies: dict[str, float] = {}

    async def arrives(what: str, script: str) -> None:
        began = time.monotonic()
        await true_on(bob, script, 2)
        latencies[what] = round(1000 * (time.monotonic() - began))

    field = alice.locator("[data-list-id=list-todo] [data-testid=new-task] input")
    await field.press_sequentially("<b>H")
    await arrives("typing", "document.querySelector('[data-testid=typing]').textContent === 'Alice is typing…'")
    await field.fill("<b>Hello</b>")
    await field.press("Enter")
    await arrives("create", "[...document.querySelectorAll('.title')].some(t => t.textContent === '<b>Hello</b>')")
    source = await alice.locator("[data-task-id=task-1]").bounding_box()
    target = await alice.locator("[data-list-id=list-done] .cards").bounding_box()
    assert source
    assert target
    await alice.mouse.move(source["x"] + 40, source["y"] + 15)
    await alice.mouse.down()
    await alice.mouse.move(target["x"] + 60, target["y"] + 4, steps=6)
    await asyncio.sleep(0.1)
    await alice.mouse.up()
    await arrives(
        "drag", "document.querySelector('[data-list-id=list-done] [data-task-id]').dataset.taskId === 'task-1'"
    )
    await second_tab.close()
    await asyncio.sleep(0.3)
    assert await bob.locator("[data-testid=presence] li").count() == 2
    await alice.context.close()
    await arrives("leave", "document.querySelectorAll('[data-testid=presence] li').length === 1")
    await shows_the_truth(bob, board)
    print("latency in ms:", latencies)


async def test_a_card_is_moved_edited_and_deleted_by_keyboard_and_dialog(board: Server, open_page: Open) -> None:
    page = await open_page(board)
    await page.focus("[data-task-id=task-3]")
    for key in ("Space", "ArrowRight", "Enter"):
        await page.keyboard.press(key)
    await shows_the_truth(page, board)
    assert (await truth(board))["list-done"][0].startswith("task-3")
    await page.keyboard.press("Enter")
    await page.fill("#card-title", "Changed")
    await page.click("#card .primary")
    await eventually(lambda: has_title(board, "Changed"))
    await page.click("[data-task-id=task-3]")
    await page.click("[data-testid=delete-task]")
    await page.wait_for_selector("[data-task-id=task-3]", state="detached")
    await page.click(".toast button")
    await page.wait_for_selector("[data-task-id=task-3]")
    await shows_the_truth(page, board)


async def has_title(server: Server, title: str) -> bool:
    return any(task["title"] == title for task in (await server.get("/boards/board-1/tasks"))["data"])


async def test_a_card_in_the_hand_stays_there_while_others_work(start_board: StartBoard, open_page: Open) -> None:
    board = start_board()
    page = await open_page(board)
    await page.focus("[data-task-id=task-1]")
    await page.keyboard.press("Space")
    await page.keyboard.press("ArrowRight")
    in_hand = "document.querySelector('[data-list-id=list-doing] .cards').firstElementChild.dataset.taskId === 'task-1'"
    await true_on(page, in_hand)
    await board.new_task("made meanwhile", "list-doing")
    await true_on(page, "document.querySelectorAll('[data-list-id=list-doing] .card').length === 3")
    assert await page.evaluate(in_hand)
    assert (await truth(board))["list-todo"][0].startswith("task-1")
    await page.keyboard.press("Enter")
    await shows_the_truth(page, board)
    assert (await truth(board))["list-doing"][0].startswith("task-1")
    await page.keyboard.press("Space")
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("Escape")
    await shows_the_truth(page, board)
    assert (await truth(board))["list-doing"][0].startswith("task-1")


@pytest.mark.long
async def test_saving_a_card_leaves_alone_what_only_others_changed(start_board: StartBoard, open_page: Open) -> None:
    board = start_board()
    page = await open_page(board)
    await page.click("[data-task-id=task-3]")
    await board.patch("/tasks/task-3", {"title": "by somebody else"})
    await page.fill("#card-description", "by me")
    await page.click("#card .primary")
    await true_on(page, "document.querySelector('[data-task-id=task-3] .note').textContent === 'by me'")

    async def is_saved() -> bool:
        task = (await board.patch("/tasks/task-3", {}))["data"]
        return (task["title"], task["description"]) == ("by somebody else", "by me")

    await eventually(is_saved)  # the page showed it before the server had it


async def test_a_finger_that_rests_carries_a_card_and_one_that_swipes_does_not(
    start_board: StartBoard, open_page: Open
) -> None:
    board = start_board()
    page = await open_page(board, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    touch = await page.context.new_cdp_session(page)

    async def draw(down_by: float, *, resting: bool) -> None:
        box = await page.locator("[data-task-id=task-1]").bounding_box()
        assert box
        x, y = box["x"] + 40, box["y"] + 10

        async def finger(what: str, *points: float) -> None:
            at = [{"x": x, "y": point} for point in points]
            await touch.send("Input.dispatchTouchEvent", {"type": what, "touchPoints": at})

        await finger("touchStart", y)
        if resting:
            await page.wait_for_selector(".flying")
        for step in range(1, 11):
            await finger("touchMove", y + down_by * step / 10)
            await asyncio.sleep(0.02)
        await finger("touchEnd")

    before = await truth(board)
    await draw(250, resting=False)
    await asyncio.sleep(0.3)
    assert await truth(board) == before
    await draw(250, resting=True)
    await eventually(lambda: stands_last(board, "task-1"))
    await shows_the_truth(page, board)


async def stands_last(server: Server, task: str) -> bool:
    return (await truth(server))["list-todo"][-1].startswith(task)


NOTE_CEILINGS = """
() => {
  window.seen = [];
  const status = document.querySelector('[data-testid=status]');
  const note = () => {
    const what = status.dataset.state === 'waiting' ? status.dataset.ceiling : status.dataset.state;
    if ((what === 'live' || status.dataset.state === 'waiting') && window.seen.at(-1) !== what) window.seen.push(what);
  };
  new MutationObserver(note).observe(status, { attributes: true });
}
"""


async def test_the_page_returns_after_kill_9_and_is_still_signed_in(start_board: StartBoard, open_page: Open) -> None:
    server = start_board()
    page = await open_page(server, "?jitter=off", name="Alice")
    await page.evaluate(NOTE_CEILINGS)
    await asyncio.sleep(10)  # a link that lived
    server.kill()
    await true_on(page, "window.seen.includes('4')", 9)
    server.start()
    await status(page, "live")
    assert await page.text_content("[data-testid=me]") == "Alice"
    await server.new_task("after the return")
    await shows_the_truth(page, server)
    server.kill()
    await true_on(page, "window.seen.at(-1) === '1'", 3)
    seen = [one for one in await page.evaluate("window.seen") if one != "live"]
    assert seen == ["1", "2", "4", "1"]
    server.start()
    await status(page, "live")


@pytest.mark.parametrize(
    "query", ["", pytest.param("?recover=snapshot", marks=pytest.mark.long)], ids=["resume", "snapshot"]
)
async def test_what_happened_while_the_page_was_offline_is_shown(
    start_board: StartBoard, open_page: Open, query: str
) -> None:
    server = start_board("--heartbeat-interval", "1", "--heartbeat-timeout", "1")
    page = await open_page(server, query)
    await page.context.set_offline(True)
    await server.new_task("made meanwhile")
    await server.patch("/tasks/task-1/move", {"listId": "list-done", "position": 0})
    await server.patch("/tasks/task-3", {"title": "changed meanwhile"})
    await server.request("DELETE", "/tasks/task-2")
    # Chromium leaves open WebSockets alone when it is told to be offline; the server cuts them here.
    server.kill()
    await status(page, "waiting", 10)
    server.start()
    await asyncio.sleep(2)
    assert await cards(page) != await truth(server)
    await page.context.set_offline(False)
    await page.evaluate("window.dispatchEvent(new Event('online'))")
    await status(page, "live")
    await shows_the_truth(page, server)
    await server.new_task("and it goes on")
    await shows_the_truth(page, server)


async def test_twenty_changes_made_while_there_is_no_server_arrive_once_each(
    start_board: StartBoard, open_page: Open
) -> None:
    server = start_board()
    page = await open_page(server, "?jitter=off")
    server.kill()
    await status(page, "waiting")
    field = page.locator("[data-list-id=list-todo] [data-testid=new-task] input")
    for number in range(16):
        await field.fill(f"made offline {number}")
        await field.press("Enter")
    await page.focus("[data-task-id=task-3]")
    for key in ("Space", "ArrowRight", "Enter"):
        await page.keyboard.press(key)
    await page.click("[data-task-id=task-1]")
    await page.fill("#card-title", "changed offline")
    await page.click("#card .primary")
    await page.click("[data-task-id=task-4]")
    await page.fill("#card-description", "described offline")
    await page.click("#card .primary")
    await page.click("[data-task-id=task-2]")
    await page.click("[data-testid=delete-task]")
    await true_on(page, "window.holdfast.unanswered === 20", 8)
    await true_on(page, "document.querySelector('#status-text').textContent.endsWith('20 unsent')")
    assert await page.locator(".card").count() == 4 + 16 - 1
    server.start()
    await status(page, "live", 20)
    await true_on(page, "window.holdfast.unanswered === 0")
    await shows_the_truth(page, server)
    tasks = {task["title"]: task for task in (await server.get("/boards/board-1/tasks"))["data"]}
    assert len(tasks) == 4 + 16 - 1
    assert {f"made offline {number}" for number in range(16)} < set(tasks)
    assert tasks["changed offline"]["id"] == "task-1"
    assert tasks["Choose a name"]["description"] == "described offline"
    assert tasks["Write the announcement"]["listId"] == "list-done"
    made = [task["title"] for task in tasks.values() if task["title"].startswith("made")]
    assert made == [f"made offline {number}" for number in range(16)]


@pytest.mark.long
async def test_a_change_that_is_refused_is_taken_back_and_said(start_board: StartBoard, open_page: Open) -> None:
    server = start_board()
    page = await open_page(server, "?jitter=off")
    server.kill()
    await status(page, "waiting")
    await page.click("[data-task-id=task-3]")
    await page.fill("#card-title", "by me")
    await page.click("#card .primary")
    await true_on(page, "document.querySelector('[data-task-id=task-3] .title').textContent === 'by me'")
    server.start()
    await server.request("DELETE", "/tasks/task-3")
    await status(page, "live", 20)
    await page.wait_for_selector(".toast")
    await shows_the_truth(page, server)


@pytest.mark.parametrize("meanwhile", ["nothing", "deleted", "another"])
async def test_the_answer_to_a_retry_brings_back_no_card_that_is_gone(
    board: Server, open_page: Open, meanwhile: str
) -> None:
    """A command took effect, its answer was lost, its card was deleted: the retry gets the first answer."""
    page = await open_page(board)
    learnt = await page.evaluate(
        """async (meanwhile) => {
            const { Board } = await import("/page/model.js");
            const time = (at) => `2026-01-01T00:00:0${at}Z`;
            const task = (id, at) => ({ id, listId: "l", title: id, position: 0, updatedAt: time(at) });
            const board = Board.of([{ id: "l", boardId: "b", name: "L", position: 0 }], [task("old", 1)]);
            const [answered, later] = [task("mine", 3), task("other", 4)];
            if (meanwhile === "deleted") {
                board.apply({ type: "task_created", task: answered });
                board.apply({ type: "task_deleted", taskId: "mine", listId: "l" });
            }
            if (meanwhile === "another") board.apply({ type: "task_created", task: later });
            return [board.learn(answered), board.tasks.has("mine")];
        }""",
        meanwhile,
    )
    assert learnt == ([True, True] if meanwhile == "nothing" else [False, False])


@pytest.mark.long
async def test_a_page_that_is_signed_out_says_so_and_does_not_dial(start_board: StartBoard, open_page: Open) -> None:
    server = start_board("--token-lifetime", "6")
    page = await open_page(server, name="Alice")
    await page.route("**/renew", lambda route: route.abort())
    await status(page, "closed")
    assert await page.text_content("#status-text") == "Signed out"
    await page.wait_for_selector("[data-testid=sign-in][open]")
    before = (await server.get("/admin/connections"))["data"]["total"]
    await asyncio.sleep(2)
    assert (await server.get("/admin/connections"))["data"]["total"] == before == 0
    await page.unroute("**/renew")
    await page.fill("#sign-in-name", "Bob")
    async with page.expect_navigation():
        await page.click("#sign-in .primary")
    await true_on(page, "document.querySelector('[data-testid=me]')?.textContent === 'Bob'")
    await status(page, "live")


@pytest.mark.long
async def test_a_token_is_renewed_before_it_expires(start_board: StartBoard, open_page: Open) -> None:
    server = start_board("--token-lifetime", "10")
    page = await open_page(server, name="Alice")
    await asyncio.sleep(13)
    assert await page.get_attribute("[data-testid=status]", "data-state") == "live"
    assert await page.text_content("[data-testid=me]") == "Alice"


PLAIN_CLIENT = """
(url) => {
  const log = (window.log = []);
  let attempt = 0;
  window.dial = () => {
    const socket = (window.plain = new WebSocket(url));
    socket.onopen = () => {
      attempt = 0;
      log.push("open");
      if (!window.quiet) socket.send(JSON.stringify({ type: "join", boardId: "board-1" }));
    };
    socket.onmessage = ({ data }) => log.push(JSON.parse(data).type);
    socket.onclose = ({ code }) => {
      log.push(code);
      if (code !== 4001) setTimeout(window.dial, Math.min(30000, 300 * 2 ** attempt++));
    };
  };
  window.dial();
}
"""


@pytest.mark.long
@pytest.mark.parametrize("host", ["localhost", pytest.param("127.0.0.1", marks=pytest.mark.long)])
async def test_a_plain_client_in_a_pages_console_works_unchanged(
    start_board: StartBoard, open_page: Open, host: str
) -> None:
    server = start_board()
    page = await open_page(server, host=host)
    await page.evaluate(PLAIN_CLIENT, f"ws://localhost:{server.port}/ws")
    await true_on(page, "window.log.includes('joined')")
    tasks = await page.evaluate("fetch('/boards/board-1/tasks').then(r => r.json()).then(r => r.data)")
    assert [task["id"] for task in tasks] == ["task-1", "task-2", "task-3", "task-4"]
    await server.new_task()
    await true_on(page, "window.log.includes('task_created')")
    await page.evaluate("window.quiet = true")  # it will come back, and not join again
    server.kill()
    server.start()
    await true_on(page, "window.log.filter(x => x === 'open').length === 2", 15)
    count = await page.evaluate("window.log.length")
    await server.new_task()
    await asyncio.sleep(0.7)
    later = await page.evaluate("window.log")
    assert [x for x in later[count:] if x not in ("connected",)] == []
    bad = f"ws://{host}:{server.port}/ws?token=bad"
    await page.evaluate("url => { new WebSocket(url).onclose = ({ code }) => window.log.push(code); }", bad)
    await true_on(page, "window.log.includes(4001)")


async def test_titles_are_text_and_nothing_inline_runs(board: Server, open_page: Open) -> None:
    await board.new_task('<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>')
    page = await open_page(board)
    assert await page.evaluate("window.pwned") is None
    blocked = await page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
        " document.body.append(s); return window.pwned; }"
    )
    assert blocked is None
    assert json.dumps(await cards(page)).count("onerror") == 1
