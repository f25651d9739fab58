"""Whose page it is, whose answer, and who gets to know it."""

from __future__ import annotations

import ast
import asyncio
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

import holdfast
from corpus.target import Raw, Target, frame, request, say
from corpus.test_clients import unharmed
from corpus.test_http import status
from holdfast import Hub, ReadTransaction, Unauthorized, User
from holdfast.server.auth import Tokens
from peers import SRC, Server

#: What a browser may send as `Origin` for a page that is not ours, and what none sends but somebody may believe.
#: The server is at localhost:PORT, and no other origin is named.
FOREIGN = [
    "null", "", "file://", "about:blank", "http:", "http://", "//localhost:PORT", "localhost:PORT", "*",
    "http://localhost", "http://localhost:", "http://localhost:1", "http://localhost:PORT0", "http://localhost:+PORT",
    "http://localhost:-PORT", "http://localhost:PORTx", "http://localhost: PORT", "https://localhost", "ftp://localhost:PORT",
    "http://evil.example", "http://evil.example:PORT", "http://localhost.evil.example:PORT",
    "http://localhost:PORT.evil.example", "http://evillocalhost:PORT", "http://localhost-evil:PORT",
    "http://localhost:PORT@evil.example", "http://evil.example@localhost:PORT", "http://user:word@localhost:PORT",
    "http://@localhost:PORT", "http://localhost:PORT/", "http://localhost:PORT/evil.example", "http://localhost:PORT?",
    "http://localhost:PORT#", "http://localhost:PORT?evil.example", "http://localhost:PORT\\@evil.example",
    "http://localhost.:PORT", "http://127.0.0.1.:PORT", "http://127.1:PORT", "http://2130706433:PORT",
    "http://0x7f000001:PORT", "http://0177.0.0.1:PORT", "http://0.0.0.0:PORT", "http://[::]:PORT", "http://[::1:PORT",
    "http://[::ffff:127.0.0.1]:PORT", "http://[::1]evil.example:PORT", "http://local\thost:PORT",
    "http://local host:PORT",
    "http://\u24dbocalhost:PORT", "http://loc\u0430lhost:PORT", "http://xn--loclhost-7fg:PORT",
    "http://localhost%2eevil:PORT",
    "http://localhost:PORT, http://evil.example", "http://localhost:PORT http://evil.example", "javascript:alert(1)",
    "data:text/html,x", "chrome-extension://abcdef", "blob:http://localhost:PORT/1",
]  # fmt: skip
OURS = ["http://localhost:PORT", "http://127.0.0.1:PORT", "http://[::1]:PORT", "HTTP://LocalHost:PORT"]
ROADS = {
    "an event stream": "GET /events?rooms=lobby",
    "a poll": "GET /poll?rooms=lobby&wait=0",
    "a long poll": "GET /poll?room=lobby",
    "a message": "POST /send",
}


def ask(server: Server, head: str, origin: str, host: str = "localhost:PORT", body: bytes = b"") -> bytes:
    """Return the head of the answer to a request from a page of this origin."""
    lines = f"{head} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Length: {len(body)}\r\n\r\n"
    with Raw(server.port).send(lines.replace("PORT", str(server.port)).encode() + body) as peer:
        return peer.until(b"\r\n\r\n")


def upgrade(server: Target, *origins: str, host: str = "localhost:PORT") -> bytes:
    """Return the head of the answer to a WebSocket's handshake."""
    lines = [f"Origin: {origin}".replace("PORT", str(server.port)) for origin in origins]
    head = server.upgrade("/ws", host=host.replace("PORT", str(server.port)))
    with server.raw(head[:-2] + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n") as peer:
        peer.says_goodbye = True
        return peer.until(b"\r\n\r\n")


def test_CVE_2019_13611_no_websocket_is_opened_by_a_page_of_somebody_else(either: Target) -> None:
    with either.attacked():
        for origin in FOREIGN:
            assert status(upgrade(either, origin)) in (403, 400), origin
        for origin in OURS:
            assert status(upgrade(either, origin)) == 101, origin


def test_GHSA_f53g_frr2_jhpf_nor_is_any_other_road(either: Target) -> None:
    with either.attacked():
        for origin in FOREIGN:
            for road, head in ROADS.items():
                answer = ask(either, head, origin, body=b'{"type":"auth"}' if "POST" in head else b"")
                assert status(answer) in (403, 400), (road, origin)
        for origin in OURS:
            for road, head in ROADS.items():
                if "room=" not in head:
                    answer = ask(either, head, origin, body=b'{"type":"auth"}' if "POST" in head else b"")
                    assert status(answer) == 200, (road, origin)


def test_of_two_origins_neither_is_believed(either: Target) -> None:
    ours = f"http://localhost:{either.port}"
    for origins in ((ours, "http://evil.example"), ("http://evil.example", ours), (ours, ours)):
        assert status(upgrade(either, *origins)) in (400, 403)
        assert status(ask(either, "GET /poll?rooms=a&wait=0", "\r\nOrigin: ".join(origins))) == 403


@pytest.mark.parametrize(
    "host", ["evil.example:PORT", "localhost.evil.example:PORT", "localhost:PORT.evil.example", "rebound"]
)
def test_a_name_that_leads_here_makes_no_page_ours(target: Target, host: str) -> None:
    """DNS rebinding: to the browser the page and the server are one."""
    origin = f"http://{host}"
    assert status(upgrade(target, origin, host=host)) in (400, 403)
    assert status(ask(target, "POST /send", origin, host, b'{"type":"auth"}')) in (400, 403)


def test_a_picture_on_a_page_of_somebody_else_holds_no_poll_open(target: Target) -> None:
    """It has no `Origin`, and its page cannot read the answer; but the browser says whose it is (Fetch Metadata)."""
    for site, mode, code in (
        ("cross-site", "no-cors", 403), ("same-site", "no-cors", 403), ("same-origin", "cors", 200),
        ("none", "navigate", 200), ("cross-site", "navigate", 200),
    ):  # fmt: skip
        lines = (f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}")
        with target.raw(request("GET", "/poll?rooms=a&wait=0", *lines)) as peer:
            assert status(peer.until(b"\r\n\r\n")) == code


def test_a_form_on_a_page_of_somebody_else_says_nothing_here(target: Target) -> None:
    """Nor where its browser says no `Origin`: what is followed is a link."""
    lines = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
    with target.raw(request("POST", "/send", *lines, body=b'{"type":"ping"}')) as peer:
        assert status(peer.until(b"\r\n\r\n")) == 403


def test_the_key_of_the_server_is_a_bearer_token(target: Target) -> None:
    body = b'{"room":"lobby","type":"said","data":{}}'
    for scheme, code in (("Bearer ", 201), ("bearer ", 201), ("", 401), ("Basic ", 401)):
        line = f"Authorization: {scheme}the key of the corpus"
        with target.raw(request("POST", "/publish", line, body=body)) as peer:
            assert status(peer.until(b"\r\n\r\n")) == code, scheme


def test_two_names_are_not_one_room(target: Target) -> None:
    """What is no UTF-8 could be read as `\ufffd`, with everything else that is none."""
    with target.raw(request("GET", "/poll?rooms=%25ff&wait=0")) as peer:
        assert status(peer.until(b"\r\n\r\n")) == 400


WILD = "https://app.example"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A board that one other page may use."""
    with Server(tmp_path_factory.mktemp("named"), "board", "--origin", WILD) as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A hub that one other page may use."""
    target = Target(tmp_path_factory.mktemp("elsewhere"))
    target.env["HOLDFAST_CORPUS_ORIGINS"] = WILD
    with target:
        assert status(upgrade(target, WILD)) == 101
        yield target


@pytest.mark.parametrize(
    "origin",
    [
        "https://xapp.example", "https://app.example.evil.example", "https://evil.example/app.example", "http://app.example",
        "https://app.example:444", "https://app.example.", "https://app_example", "https://.app.example",
        "https://x.app.example", "https://app.example\\.evil", "https://app.example@evil.example", "https://*", "null",
    ],
)  # fmt: skip
async def test_CVE_2022_42975_an_origin_that_is_named_means_no_other_one(
    named: Server, elsewhere: Target, origin: str
) -> None:
    """Phoenix before 1.6.14 took what only ended like it."""
    body = b'{"listId":"list-todo","title":"x"}'
    with elsewhere.attacked():
        assert status(upgrade(elsewhere, origin)) == 403
        for head in ROADS.values():
            assert status(ask(elsewhere, head, origin, body=b'{"type":"auth"}' if "POST" in head else b"")) == 403
    for head in ("POST /tasks", "POST /login", "POST /logout", "DELETE /tasks/task-1", "GET /boards",
                 "GET /boards/board-1/events", "GET /boards/board-1/poll", "GET /events?boards=board-1"):  # fmt: skip
        answer = ask(named, head, origin, body=body if "POST" in head else b"")
        assert status(answer) == 403, head
        assert b"access-control-allow-origin" not in answer.lower()
    preflight = "OPTIONS /tasks HTTP/1.1\r\nHost: localhost\r\nAccess-Control-Request-Method: POST\r\n"
    with Raw(named.port).send(f"{preflight}Origin: {origin}\r\n\r\n".encode()) as peer:
        assert status(peer.until(b"\r\n\r\n")) == 400
    assert status(ask(named, "GET /boards", WILD)) == 200


# ── whose token ───────────────────────────────────────────────────────────────────────────────────

KEY = bytes.fromhex("ab" * 64)
CLAIMS: dict[str, Any] = {"sub": "ann", "name": "Ann", "iat": time.time()}
FORGED = {
    "none": jwt.encode(CLAIMS, None, "none"),  # type: ignore[arg-type]
    "None": "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0." + jwt.encode(CLAIMS, KEY, "HS256").split(".")[1] + ".",
    "HS384": jwt.encode(CLAIMS, KEY, "HS384"),
    "HS512 with our key": jwt.encode(CLAIMS, KEY, "HS512"),
    "another key": jwt.encode(CLAIMS, bytes(64), "HS256"),
    "no signature": jwt.encode(CLAIMS, KEY, "HS256").rpartition(".")[0] + ".",
    "no subject": jwt.encode({"iat": 1}, KEY, "HS256"),
    "a subject that is no text": jwt.encode({"sub": ["ann"], "iat": 1}, KEY, "HS256"),
    "no time": jwt.encode({"sub": "ann"}, KEY, "HS256"),
    "expired": jwt.encode({**CLAIMS, "exp": 1}, KEY, "HS256"),
    "an end that is no time": jwt.encode({**CLAIMS, "exp": "never"}, KEY, "HS256"),
    "not before tomorrow": jwt.encode({**CLAIMS, "nbf": time.time() + 86400}, KEY, "HS256"),
    "critical": jwt.encode({**CLAIMS, "crit": ["x"]}, KEY, "HS256", headers={"crit": ["x"]}),
    "a key of its own": jwt.encode(CLAIMS, bytes(64), "HS256", headers={"jwk": {"k": "A"}, "kid": "../x"}),
    **{name: name for name in ("", ".", "..", "a.b.c", "....", "e30.e30.e30", "x" * 3_000, "\x00", "😀.😀.😀")},
}  # fmt: skip


def test_CVE_2022_29217_a_token_does_not_say_itself_how_it_is_signed() -> None:
    tokens = Tokens(KEY.hex())
    assert tokens.read(jwt.encode(CLAIMS, KEY, "HS256")).user == User("ann", "Ann")
    for name, token in FORGED.items():
        with pytest.raises(Unauthorized):
            print(name, tokens.read(token))


def test_what_is_no_token_of_ours_lets_nobody_in(either: Target) -> None:
    with either.attacked(), either.peer() as peer:
        for token in FORGED.values():
            if token.isascii() and token.isprintable() and token:
                answer = ask(either, f"GET /poll?rooms=a&wait=0&token={token}", "http://localhost:PORT")
                assert status(answer) == 401
                with either.peer(say(type="auth", token=token)) as liar:
                    assert liar.closed() == 4001
        assert peer.send(say(type="ping")).until(b'"pong"')


#: What nobody else may know, by the names that it has in any module, and in those that compare it.
SECRETS = {"server_key", "secret", "_secret", "signature", "_signature"}
COMPARED = {"server/mount.py": {"key", "given"}, "store/postgres_hints.py": {"_key", "signature"}}


def mentions(nodes: Iterable[ast.AST], names: set[str]) -> bool:
    inner = [inner for node in nodes for inner in ast.walk(node)]
    return any(getattr(node, "id", getattr(node, "attr", "")) in names for node in inner)


def test_CVE_2021_33880_a_secret_is_compared_in_constant_time(target: Target) -> None:
    key, body = "the key of the corpus", b'{"room":"lobby","type":"said","data":{}}'
    for given in ("", key[:-1], key + "x", key.upper(), "\xff", key + "\x00"):
        with (
            target.attacked(),
            target.raw(request("POST", "/publish", f"Authorization: Bearer {given}", body=body)) as peer,
        ):
            assert status(peer.until(b"\r\n\r\n")) in (401, 400)
    root = SRC / "holdfast"
    in_constant_time = set()
    for path in root.rglob("*.py"):
        module = path.relative_to(root).as_posix()
        secrets = SECRETS | COMPARED.get(module, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and not all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
                assert not mentions([node], secrets), f"{module}:{node.lineno}: {ast.unparse(node)}"
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "hmac.compare_digest":
                assert mentions(node.args[:1], secrets), f"{module}:{node.lineno}: {ast.unparse(node)}"
                assert mentions(node.args[1:], secrets), f"{module}:{node.lineno}: {ast.unparse(node)}"
                in_constant_time.add(module)
    assert in_constant_time == COMPARED.keys()


# ── whose answer ──────────────────────────────────────────────────────────────────────────────────


async def test_CVE_2020_35681_nobody_is_told_what_somebody_else_asked(target: Target) -> None:
    async def one(number: int) -> None:
        name = f"user-{number}"
        async with (
            holdfast.connect(f"{target.url}/ws", token=f"user:{name}") as client,
            client.join(f"room-{number % 5}") as room,
        ):
            for turn in range(5):
                said = await room.command("echo", text=f"{name} {turn}")
                assert said == {"user": name, "text": f"{name} {turn}"}
                answer = await target.post("/send", {"type": "auth"}, authorization=f"Bearer user:{name}")
                assert answer["user"]["userId"] == name

    with target.attacked():
        await asyncio.gather(*map(one, range(20)))


async def test_CVE_2023_28858_whoever_gives_up_leaves_no_answer_to_the_next_one() -> None:
    dice = random.Random(28858)

    def query(tx: ReadTransaction, number: int) -> int:
        time.sleep(dice.random() / 500)
        row = tx.one("SELECT ? AS number", (number,))
        assert row is not None
        return int(row["number"])

    async with Hub("memory:") as hub:

        async def ask(number: int) -> None:
            task = asyncio.create_task(hub.read(query, number))
            if number % 3 == 0:
                await asyncio.sleep(dice.random() / 300)
                task.cancel()
            try:
                assert await task == number
            except asyncio.CancelledError:
                assert number % 3 == 0

        await ask(1)
        async with unharmed():
            for start in range(0, 300, 30):
                await asyncio.gather(*map(ask, range(start, start + 30)))


def test_CVE_2023_28859_whoever_goes_in_the_middle_leaves_no_answer_to_the_next_one(target: Target) -> None:
    with target.attacked():
        for number in range(30):
            with target.raw(f"GET /poll?rooms=a{number}&wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()):
                pass
            cursor = target.get(f"/poll?rooms=b{number}&wait=0")["cursor"]
            assert f"b{number}=0" in cursor


# ── what is never done, and never written down ────────────────────────────────────────────────────

FORBIDDEN = {"pickle", "marshal", "shelve", "yaml", "dill", "cloudpickle", "jsonpickle", "xml"}
EVALUATE = {"eval", "exec", "compile", "__import__"}


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for path in (SRC / "holdfast").rglob("*.py"):
        yield path, ast.parse(path.read_text())


def test_CVE_2025_61765_nothing_that_comes_in_is_unpickled() -> None:
    for path, tree in sources():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not FORBIDDEN & {name.split(".")[0] for name in names}, path


def test_CVE_2018_1270_nothing_that_comes_in_is_evaluated() -> None:
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in EVALUATE, path


@pytest.mark.parametrize("speed", ["--no-speed", "--speed"])
async def test_no_token_is_written_into_the_log_whatever_its_level(tmp_path: Path, speed: str) -> None:
    server = Target(tmp_path, speed, "--log-level", "debug")
    secret = "user:a-very-secret-token"
    headers = [f"Cookie: session={secret}", f"Authorization: Bearer {secret}"]
    with server:
        for path in ("/ws", "/echo", "/nothing"):
            for more in ([], ["Origin: http://evil.example"], ["Sec-WebSocket-Protocol: \xe9"]):
                sent = server.upgrade(f"{path}?token={secret}", *headers, *more)
                for bad in (sent, sent.replace(b"Version: 13", b"Version: 8"), sent.replace(b"GET", b"POST")):
                    with server.raw(bad) as peer:
                        peer.until(b"\r\n\r\n")
                        peer.send(say(type="auth", token=secret), frame(2, secret.encode()), b"\x00" * 10)
        for path in ("/poll?room=a&cursor=x", "/events?room=", "/nothing?", "/send?", "/publish?"):
            for method in ("GET", "POST"):
                lines = [
                    f"{method} {path}&token={secret} HTTP/1.1",
                    "Host: localhost",
                    *headers,
                    "Content-Length: 3",
                    "",
                    "{a}",
                ]
                with server.raw("\r\n".join(lines).encode()) as peer:
                    peer.until(b"\r\n\r\n")
        with server.raw(f"GET /?token={secret} HTTP/1.1\r\nAuthorization: {secret}\x00\r\n\r\n".encode()) as peer:
            peer.until(b"\r\n\r\n")
        async with holdfast.connect(f"{server.url}/ws", token=secret) as client, client.join("lobby") as room:
            await room.command("echo", text="x")
    log = server.log.read_text()
    assert "secret" not in log
    assert '"WebSocket /echo" [accepted]' in log  # the rest of it is
