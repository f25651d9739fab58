"""
A page that was hidden, frozen, duplicated or cut off shows exactly what the server has, and each person once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from browser.tabs import Chromium, Tab
from faults import Proxy
from peers import Server, StartBoard

pytestmark = pytest.mark.browser

SHORT = ("--heartbeat-interval", "1", "--heartbeat-timeout", "1", "--presence-grace", "0.5")
CARDS = (
    "Object.fromEntries([...document.querySelectorAll('[data-list-id]')].map(list => [list.dataset.listId,"
    " [...list.querySelectorAll('[data-task-id]')].map(card => card.dataset.taskId)]))"
)
STATE = "document.querySelector('[data-testid=status]').dataset.state"
PEOPLE = "document.querySelectorAll('[data-testid=presence] li').length"


async def until(tab: Tab, script: str, expected: Any, seconds: float = 15) -> None:
    found = None
    try:
        async with asyncio.timeout(seconds):
            while (found := await tab.evaluate(script)) != expected:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{script} is {found}, not {expected}") from None


async def shows_the_truth(tab: Tab, server: Server) -> None:
    lists = (await server.get("/boards/board-1"))["data"]["lists"]
    tasks = (await server.get("/boards/board-1/tasks"))["data"]
    truth = {one["id"]: [task["id"] for task in tasks if task["listId"] == one["id"]] for one in lists}
    await until(tab, CARDS, truth)


async def live_page(chromium: Chromium, url: str) -> Tab:
    tab = await chromium.open(url)
    await until(tab, f"document.querySelector('[data-task-id]') && {STATE}", "live")
    return tab


async def much_happens(server: Server, seconds: float) -> None:
    """Create, move and delete tasks for a while."""
    ends = asyncio.get_running_loop().time() + seconds
    number = 0
    while asyncio.get_running_loop().time() < ends:
        number += 1
        task = await server.new_task(f"number {number}")
        await server.patch(f"/tasks/{task['id']}/move", {"listId": "list-done", "position": 0})
        if number % 3 == 0:
            await server.request("DELETE", f"/tasks/{task['id']}")
        await asyncio.sleep(0.1)


async def test_a_hidden_tab_stays_and_shows_the_truth_when_it_is_looked_at(
    chromium: Chromium, start_board: StartBoard
) -> None:
    server = start_board(*SHORT)
    tab = await live_page(chromium, f"{server.url}/?jitter=off")
    await chromium.open()
    await until(tab, "document.visibilityState", "hidden")
    await much_happens(server, 8.0)  # its timers are throttled to one a second
    assert (await server.get("/admin/connections"))["data"]["boards"]["board-1"]["websocket"] == 1
    await chromium.show(tab)
    await until(tab, "document.visibilityState", "visible")
    await shows_the_truth(tab, server)
    assert await tab.evaluate(STATE) == "live"


async def test_a_frozen_page_shows_the_truth_when_it_is_resumed(chromium: Chromium, start_board: StartBoard) -> None:
    server = start_board(*SHORT)
    tab = await live_page(chromium, f"{server.url}/?jitter=off")
    await tab.evaluate("window.heard = []; document.addEventListener('resume', () => heard.push('resume'))")
    blank = await chromium.open()
    await until(tab, "document.visibilityState", "hidden")
    await tab.freeze()
    await much_happens(server, 4.0)
    server.kill()  # it does not even learn of this
    await asyncio.to_thread(server.start)
    await much_happens(server, 2.0)
    await tab.thaw()
    await chromium.show(tab)
    await until(tab, STATE, "live")
    await shows_the_truth(tab, server)
    assert await tab.evaluate("heard") == ["resume"]
    assert blank.id != tab.id


async def test_two_tabs_of_one_person_and_a_duplicated_one_are_one_entry_and_all_live(
    chromium: Chromium, start_board: StartBoard
) -> None:
    server = start_board(*SHORT)
    url = f"{server.url}/?jitter=off"
    first = await live_page(chromium, url)
    second = await live_page(chromium, url)
    await first.evaluate("sessionStorage.setItem('mark', 'copied'), void window.open(location.href)")
    third = await chromium.other(first, second)
    await until(third, f"sessionStorage.getItem('mark') + {STATE}", "copiedlive")
    counts = (await server.get("/admin/connections"))["data"]["boards"]["board-1"]
    assert counts["websocket"] == 3
    await much_happens(server, 3.0)
    for tab in (first, second, third):
        await chromium.show(tab)
        await until(tab, PEOPLE, 1)
        await shows_the_truth(tab, server)
        assert await tab.evaluate(STATE) == "live"
    assert (await server.get("/admin/connections"))["data"]["boards"]["board-1"]["websocket"] == 3


@pytest.mark.long
async def test_a_page_that_was_cut_off_for_a_minute_shows_the_truth(
    chromium: Chromium, start_board: StartBoard
) -> None:
    server = start_board()
    async with Proxy(server.port) as proxy:
        tab = await live_page(chromium, f"http://localhost:{proxy.port}/?jitter=off")
        await tab.do("Network.enable")
        offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await tab.do("Network.emulateNetworkConditions", offline=True, **offline)
        proxy.silence()  # nobody is told that the cable is out
        await much_happens(server, 60.0)
        assert await tab.evaluate(STATE) != "live"
        proxy.restore()
        await tab.do("Network.emulateNetworkConditions", offline=False, **offline)
        await until(tab, STATE, "live", 45)
        await shows_the_truth(tab, server)
