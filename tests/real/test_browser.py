"""
The module for browsers, in a browser whose network breaks below it: it notices in time, comes back, and has everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from browser.conftest import FLAGS
from browser.tabs import CHROMIUM
from real.network import FarServer, Network
from real.people import CLIENT_BOUND, PATIENCE, app_in

pytestmark = [pytest.mark.browser, pytest.mark.long]

BEGIN = """
async () => {
  const { connect } = await import('/holdfast.js');
  window.heard = [];
  window.breaks = [];
  window.left = null; // when the link was given up, by a clock that does not jump
  window.client = connect('/ws');
  client.on('status', ({ state }) => { if (state !== 'live' && state !== 'probing') left ??= performance.now(); });
  window.room = client.join('lobby');
  room.on('resync', ({ reason }) => breaks.push(reason));
  room.on('event', ({ id, text }) => heard.push([id, text]));
  while (breaks.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  left = null;
}
"""


@pytest.fixture
async def browser(net: Network) -> AsyncIterator[Browser]:
    """A browser among the clients of the network: it is started from there."""
    if not Path(CHROMIUM).is_file():
        pytest.skip("there is no chromium (Debian: apt install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


def reset(net: Network) -> None:
    net.reset()


@pytest.mark.parametrize(
    "fault", [Network.cut, Network.cut_to_server, Network.cut_to_clients, Network.move_clients, reset]
)
async def test_a_page_whose_network_breaks_notices_and_has_everything_when_it_is_back(
    net: Network, browser: Browser, tmp_path: Path, fault: Callable[[Network], None]
) -> None:
    with FarServer(net, *app_in(tmp_path)) as server:
        page = await browser.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        await page.goto(f"{server.url}/holdfast.js")  # any page of this origin
        await page.evaluate(BEGIN)
        await page.evaluate("room.command('say', { text: 'before' })")
        before = await page.evaluate("performance.now()")
        fault(net)
        if fault is not Network.move_clients:
            await asyncio.to_thread(server.ask, "/publish?room=lobby", "POST", "meanwhile")
        await page.wait_for_function("left !== null")
        late = await page.evaluate("left")
        assert late - before <= 1000 * CLIENT_BOUND
        given = asyncio.create_task(page.evaluate("room.command('say', { text: 'given' })"))
        if fault is Network.move_clients:
            await asyncio.to_thread(server.ask, "/publish?room=lobby", "POST", "meanwhile")
        else:
            net.restore()
        id = (await given)["id"]
        await page.wait_for_function("heard.length >= 3")
        heard = await page.evaluate("heard")
        assert sorted(text for _, text in heard) == ["before", "given", "meanwhile"]
        assert [id.partition(":")[2] for id, _ in heard] == ["1", "2", "3"]
        assert [id, "given"] in heard
        assert await page.evaluate("breaks") == ["new"]
