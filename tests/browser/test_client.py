"""
`holdfast.js` in a real browser, against a real server: commands take effect once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from peers import Server

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

APP = """
import asyncio
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Conflict, Hub

hub = Hub("count.db", migrations=["CREATE TABLE added (n INTEGER PRIMARY KEY, text TEXT)"])

def add(tx, text) -> int:
    if text == "":
        raise Conflict("nothing to add")
    return tx.one("INSERT INTO added (text) VALUES (?) RETURNING n", (text,))["n"]

@hub.on("add")
async def handle(request):
    return {"n": await hub.write(add, request.data["text"])}

@hub.on("count")
async def count(request):
    return await hub.read(lambda tx: [row["text"] for row in tx.all("SELECT text FROM added ORDER BY n")])

@hub.authorize
def may(user, room, action):
    return room != "vault"

@hub.on("wait")
async def wait(request):
    await asyncio.sleep(3600)

@hub.on("put out")
async def put_out(request):
    await hub.remove(request.data["user"], "lobby")

app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "count.py").write_text(APP)
    with Server(tmp_path, "serve", "count:app") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, server: Server) -> Page:
    page = await (await browser.new_context()).new_page()
    await page.goto(f"{server.url}/holdfast.js")  # any page of this origin
    await page.evaluate(
        "async () => { const { connect } = await import('/holdfast.js');"
        " window.client = connect('/ws', { jitter: false }); window.room = client.join('lobby'); }"
    )
    return page


async def test_a_command_resolves_to_what_its_handler_returned_or_rejects_with_its_refusal(page: Page) -> None:
    assert await page.evaluate("room.command('add', { text: 'x' })") == {"n": 1}
    refused = await page.evaluate(
        "room.command('add', { text: '' }).catch(({ message, result, code }) => ({ message, result, code }))"
    )
    assert refused == {"message": "nothing to add", "result": "rejected", "code": "conflict"}
    assert await page.evaluate("client.unanswered") == 0


async def test_every_command_takes_effect_once_while_the_server_is_killed(page: Page, server: Server) -> None:
    await page.evaluate(
        "() => { window.given = []; let n = 0; const timer = setInterval(() => {"
        " given.push(room.command('add', { text: String(n) })); if (++n === 100) clearInterval(timer); }, 30); }"
    )
    for _ in range(2):
        await asyncio.sleep(0.9)
        server.kill()
        await asyncio.to_thread(server.start)
    async with asyncio.timeout(30):
        while await page.evaluate("given.length") < 100:
            await asyncio.sleep(0.1)
        answers = await page.evaluate("Promise.all(given)")
    assert [answer["n"] for answer in answers] == list(range(1, 101))
    assert await page.evaluate("room.command('count')") == [str(number) for number in range(100)]


async def test_what_was_never_sent_is_said_to_be_so(page: Page, server: Server) -> None:
    await page.evaluate("room.command('count')")
    server.kill()
    await asyncio.sleep(0.3)
    result = await page.evaluate(
        "async () => { const given = room.command('add', { text: 'x' }); const n = client.unanswered; room.leave();"
        " return [n, await given.catch(({ result }) => result)]; }"
    )
    assert result == [1, "not sent"]


async def test_what_cannot_be_sent_is_told_at_once_and_harms_nothing(page: Page) -> None:
    refused = await page.evaluate("room.command('add', { text: 1n }).catch((error) => error.name)")
    assert refused == "TypeError"
    assert await page.evaluate("room.command('add', { text: 'x' })") == {"n": 1}
    assert await page.evaluate("client.unanswered") == 0


async def test_who_is_put_out_is_told_and_so_are_their_commands(page: Page) -> None:
    told = await page.evaluate(
        """async () => {
          const { connect } = await import("/holdfast.js");
          const how = () => room.command("wait").catch(({ result }) => result);
          const left = new Promise((resolve) => room.on("left", resolve));
          await room.command("add", { text: "x" });
          const commands = Array.from({ length: 40 }, how);
          await connect("/ws").join("office").command("put out", { user: client.user.userId });
          await left;
          return [...(await Promise.all(commands)), await how(), client.unanswered, client.status.state];
        }"""
    )
    assert told == ["unknown"] * 16 + ["not sent"] * 25 + [0, "live"]


async def test_who_may_not_enter_is_told_and_so_are_their_commands(page: Page) -> None:
    told = await page.evaluate(
        """async () => {
          const vault = client.join("vault");
          const refused = new Promise((resolve) => vault.on("error", resolve));
          const how = () => vault.command("wait").catch(({ result }) => result);
          const told = await Promise.all([how(), how()]);
          return [(await refused).code, ...told, await how(), client.unanswered, client.status.state];
        }"""
    )
    assert told == ["forbidden", "not sent", "not sent", "not sent", 0, "live"]
