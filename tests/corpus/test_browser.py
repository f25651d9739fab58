"""In a real browser: names that mean something to JavaScript, titles that are markup, pages of other sites."""

from __future__ import annotations

import asyncio
import html
import http.client
import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from browser import conftest
from corpus.target import Target
from corpus.test_words import NAMES
from peers import Server

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
browser, launched = conftest.browser, conftest.launched

# ── names ─────────────────────────────────────────────────────────────────────────────────────────

WITH_NAMES = """
async ([names, http]) => {
  const { connect } = await import("/holdfast.js");
  class Barred { constructor() { throw new Error("no WebSocket here"); } }
  const found = [];
  for (const name of names) {
    const client = connect("/ws", { token: `user:${name}`, jitter: false, ...(http && { WebSocket: Barred }) });
    const room = client.join(name);
    room.on("resync", () => {});
    const presence = new Promise((resolve) => room.on("presence", resolve));
    const event = new Promise((resolve) => room.on("event", resolve));
    const people = http ? [] : await presence;
    await room.command("say", { as: name, ["__proto__"]: { polluted: 1 }, constructor: name, [name]: name });
    const { type, room: where, constructor, ...data } = await event;
    found.push({ type, where, constructor, own: Object.keys(data).includes("__proto__"),
      users: people.map(({ userId }) => userId), me: client.user.userId, unanswered: client.unanswered });
    client.close();
  }
  return { found, polluted: {}.polluted ?? null, same: Object.prototype.constructor === Object };
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def failures() -> AsyncIterator[list[str]]:
    """What went wrong on a page, which is to be nothing."""
    failures: list[str] = []
    yield failures
    assert not failures


async def open_page(chromium: Browser, url: str, failures: list[str], token: str | None = None) -> Page:
    """Open a page; whatever is executed on it that is not its own, or that its policy has to forbid, is a failure."""
    context = await chromium.new_context()
    if token is not None:
        await context.add_cookies([{"name": "session", "value": token, "url": url}])
    await context.add_init_script(
        "window.pwned = (what) => console.error('PWNED', what);"
        "document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI, sample }) =>"
        " console.error('CSP', violatedDirective, blockedURI, sample));"
    )
    page = await context.new_page()
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda said: failures.append(said.text) if said.text.startswith(("PWNED", "CSP")) else None)
    page.on("dialog", lambda dialog: failures.append(f"a dialog: {dialog.message}"))
    await page.goto(url)
    return page


async def test_CVE_2026_56812_names_that_mean_something_to_javascript_are_names(
    browser: Browser,
    target: Target,
    failures: list[str],
) -> None:
    for barred in (False, True):
        with target.attacked():
            page = await open_page(browser, f"{target.url}/holdfast.js", failures)
            result = await page.evaluate(WITH_NAMES, [NAMES, barred])
            await page.context.close()  # with the connections that a browser keeps for later
        assert (result["polluted"], result["same"]) == (None, True)
        for name, found in zip(NAMES, result["found"], strict=True):
            assert found == {
                "type": name, "where": name, "constructor": name, "own": True, "me": name, "unanswered": 0,
                "users": [] if barred else [name],
            }  # fmt: skip


# ── markup ────────────────────────────────────────────────────────────────────────────────────────

PAYLOADS = [
    "<script>pwned(1)</script>",
    "<img src=x onerror=pwned(2)>",
    "<svg/onload=pwned(3)>",
    "\"><img src=x onerror='pwned(4)'>",
    "' onmouseover='pwned(5)' x='",
    '" autofocus onfocus="pwned(6)" x="',
    "</textarea><script>pwned(7)</script>",
    "</title></style><svg onload=pwned(8)>",
    "javascript:pwned(9)",
    "<iframe srcdoc='<script>parent.pwned(10)</script>'>",
    "<a href=javascript:pwned(11)>x</a>",
    "{{constructor.constructor('pwned(12)')()}}",
    "${pwned(13)} `${pwned(13)}`",
    "<style>@import 'http://evil.example/x'</style>",
    "<!--><img src=x onerror=pwned(15)-->",
    "<math><mtext></p><img src onerror=pwned(16)>",
    "\u202e<b>dlob</b>",
    "&lt;img src=x onerror=pwned(18)&gt;",
    "<template><script>pwned(19)</script></template>",
    "<form action=javascript:pwned(20)><button>x",
]


def write_everywhere(board: Server) -> tuple[list[Any], Any]:
    """Write each of them into every field that people can set; return who they are now, and the board of the first."""
    link = http.client.HTTPConnection("127.0.0.1", board.port)

    def post(path: str, body: Any) -> Any:
        link.request("POST", path, json.dumps(body))
        return json.load(link.getresponse())["data"]

    boards = [post("/boards", {"name": payload}) for payload in PAYLOADS]
    tokens = [post("/login", {"name": payload}) for payload in PAYLOADS]
    for payload, signed_in in zip(PAYLOADS, tokens, strict=True):
        post("/lists", {"boardId": boards[0]["id"], "name": payload})
        task = {"title": payload, "description": payload, "assigneeId": signed_in["user"]["id"]}
        post("/tasks", {"listId": boards[0]["lists"][0]["id"], **task})
    link.close()
    return tokens, boards[0]


async def test_whatever_people_write_it_is_text(browser: Browser, board: Server, failures: list[str]) -> None:
    tokens, mine = await asyncio.to_thread(write_everywhere, board)
    url = f"{board.url}/?board={mine['id']}"
    peers = [await board.dial(f"/ws?token={signed_in['token']}") for signed_in in tokens[:6]]
    for peer in peers:
        await peer.join(mine["id"])
    page = await open_page(browser, url, failures, tokens[1]["token"])
    await page.wait_for_selector("[data-task-id]")
    for peer in peers:
        await peer.send({"type": "typing", "boardId": mine["id"]})
    await shows(page, "[...document.querySelectorAll('.card .title')].map(node => node.textContent)", PAYLOADS)
    await shows(page, "[...document.querySelectorAll('.list-name')].map(node => node.textContent)", PAYLOADS)
    await shows(page, "[...document.querySelectorAll('#boards option')].map(node => node.textContent)", PAYLOADS)
    await shows(
        page, "[...document.querySelectorAll('[data-testid=presence] [title]')].map(node => node.title)", PAYLOADS[:1]
    )
    await page.wait_for_selector("[data-testid=typing]")
    for card in (await page.query_selector_all("[data-task-id]"))[:3]:
        await card.click()
        await page.wait_for_selector("#card-title")
        await page.keyboard.press("Escape")
    inside = await page.evaluate(
        "[...document.body.querySelectorAll('script, iframe, style, svg[onload], img[onerror], math, [onfocus],"
        " [onmouseover], a[href^=javascript]')].map(node => node.outerHTML)"
    )
    assert [node for node in inside if "pwned" in node or "evil" in node] == []
    for peer in peers:
        peer.break_off()
    await page.context.close()


async def shows(page: Page, script: str, texts: list[str]) -> None:
    """Wait until all of these are what a page shows, to the letter."""
    async with asyncio.timeout(5):
        while not set(texts) <= set(found := await page.evaluate(script)):
            await asyncio.sleep(0.05)
            assert found is not None


@pytest.mark.long
async def test_whatever_the_address_says_it_is_only_the_name_of_a_board(
    browser: Browser,
    board: Server,
    failures: list[str],
) -> None:
    asked: list[str] = []
    page = await open_page(browser, f"{board.url}/healthz", failures)
    page.on("request", lambda request: asked.append(request.url.removeprefix(board.url)))
    for query in ("?board=", "?board=../", "#"):
        for payload in ("<img src=x onerror=pwned(1)>", "../admin/connections?", "board-1/../../logout#"):
            await page.goto(f"{board.url}/{query}{payload}")
            await page.wait_for_selector("[data-testid=status]")
            await page.wait_for_load_state("networkidle")
    for path in asked:
        assert path.partition("?")[0].split("/")[1] in (
            "",
            "boards",
            "users",
            "page",
            "holdfast.js",
            "ws",
            "favicon.ico",
            "me",
        )
        assert "/admin" not in path.partition("?")[0]
    await page.context.close()


# ── pages of other sites ──────────────────────────────────────────────────────────────────────────


@contextmanager
def site(body: str) -> Iterator[str]:
    """Serve a page of somebody else, but of the same *site* (RFC 6265bis): a cookie with SameSite=Lax comes along."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}/"
        server.shutdown()


FETCHES = """
async (url) => {
  const body = JSON.stringify({ listId: "list-todo", title: "forged" });
  const done = {};
  for (const mode of ["cors", "no-cors"])
    for (const type of ["text/plain", "application/json", "application/x-www-form-urlencoded"])
      for (const asked of ["POST /tasks", "POST /login", "POST /logout", "POST /send", "PATCH /tasks/task-1",
                           "DELETE /tasks/task-2", "GET /boards", "GET /boards/board-1/poll", "GET /me",
                           "GET /events?boards=board-1"]) {
        const [method, path] = asked.split(" ");
        const options = { method, mode, credentials: "include", headers: { "content-type": type },
          ...(method !== "GET" && { body }) };
        const read = (answer) => answer.type === "opaque" ? "opaque" : answer.text();
        done[`${mode} ${type} ${asked}`] = await Promise.race([
          fetch(url + path, options).then(read, () => "refused"),
          new Promise((resolve) => setTimeout(resolve, 1000, "late")),
        ]);
      }
  navigator.sendBeacon(url + "/tasks", new Blob([body], { type: "text/plain" }));
  done.socket = await new Promise((resolve) => {
    const socket = new WebSocket(url.replace("http", "ws") + "/ws");
    socket.onmessage = ({ data }) => resolve(data);
    socket.onclose = ({ code }) => resolve(code);
  });
  done.stream = await new Promise((resolve) => {
    const stream = new EventSource(url + "/events?boards=board-1", { withCredentials: true });
    stream.onmessage = ({ data }) => resolve(data);
    stream.onerror = () => resolve("refused");
  });
  return done;
}
"""

FORM = """<form method="{method}" enctype="{enctype}" action="{action}" target="frame">
<input name='{name}' value='{value}'></form>"""


async def test_no_page_of_another_origin_does_or_reads_anything(
    browser: Browser,
    board: Server,
    failures: list[str],
) -> None:
    signed_in = (await board.post("/login", {"name": "Alice"}))["data"]
    before = await state(board)
    forged = json.dumps({"listId": "list-todo", "title": "forged", "x": "="})
    left, _, right = forged.partition("=")
    forms = [
        FORM.format(
            method=method, enctype=enctype, action=board.url + path, name=html.escape(left), value=html.escape(right)
        )
        for method in ("POST", "GET")
        for enctype in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
        for path in ("/tasks", "/login", "/logout", "/send", "/boards", "/publish", "/tasks/task-1")
    ]
    page_of_theirs = f"<iframe name=frame></iframe>{''.join(forms)}<img src={board.url}/boards><script></script>"
    with site(page_of_theirs) as url:
        page = await open_page(browser, url, failures)
        await page.context.add_cookies([{"name": "session", "value": signed_in["token"], "url": board.url}])
        done = await page.evaluate(FETCHES, board.url)
        read = {what: answer for what, answer in done.items() if answer not in ("refused", "opaque", 1006)}
        assert read == {}
        for number in range(len(forms)):
            await page.evaluate(f"document.forms[{number}].submit()")
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        cookies = {cookie["name"]: cookie["value"] for cookie in await page.context.cookies(board.url)}
        assert cookies["session"] == signed_in["token"]  # nobody was signed out, or in as somebody else
        await page.context.close()
    assert await state(board) == before
    assert "Traceback" not in board.log.read_text()


async def state(board: Server) -> Any:
    """Return everything that there is on a board."""
    users = await board.get("/users")
    return (
        users,
        await board.get("/boards"),
        await board.get("/boards/board-1"),
        await board.get("/boards/board-1/tasks"),
    )
