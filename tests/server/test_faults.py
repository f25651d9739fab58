"""
Something goes wrong inside the server: nobody else suffers, and it goes on.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

import holdfast
from holdfast import Event, Hub, Publication, Resumed
from holdfast.server.websocket import WebSocketProtocol
from peers import RawPeer, Server

APP = """
import asyncio
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Hub, OutcomeUnknown, User

hub = Hub("memory:", heartbeat_interval=1.0, heartbeat_timeout=1.0)

@hub.authenticate
async def who(token, request):
    await asyncio.sleep(0.3)
    return User("somebody", "Somebody")

@hub.on("doubt")
async def doubt(request):
    raise OutcomeUnknown("nobody can say")

app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""


class Poor(Server):
    """A server that may open few files."""

    def command_line(self, *command: str) -> list[str]:
        script = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100));"
            "from holdfast.cli import main; main(sys.argv[1:])"
        )
        return [sys.executable, "-c", script, *super().command_line(*command)[3:]]


@pytest.fixture
def app_folder(tmp_path: Path) -> Path:
    (tmp_path / "faulty.py").write_text(APP)
    return tmp_path


@pytest.fixture
def server(app_folder: Path) -> Iterator[Server]:
    with Server(app_folder, "serve", "faulty:app") as server:
        yield server


@pytest.mark.parametrize("speed", ["--no-speed", "--speed"])
async def test_without_a_file_left_the_dead_are_noticed_all_the_same(app_folder: Path, speed: str) -> None:
    with Poor(app_folder, "serve", "faulty:app", speed) as server, ExitStack() as held:
        silent = [held.enter_context(closing(RawPeer(server.port))) for _ in range(3)]
        await asyncio.sleep(0.5)
        for _ in range(100):  # more than it has files for
            held.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        cut = await asyncio.gather(*(peer.is_cut(3.0) for peer in silent))
        assert max(cut) < 2.0 + 0.5
        assert "and needs 16000 for all its connections" in server.log.read_text()
        async with asyncio.timeout(10):
            while "nobody can be let in" not in server.log.read_text():
                held.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                await asyncio.sleep(0.1)
        assert server.log.read_text().count("nobody can be let in") < 10
        assert "Traceback" not in server.log.read_text()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100


async def test_who_speaks_before_the_handshake_is_answered_is_not_let_in(app_folder: Path) -> None:
    nobody_is_answered = APP.replace("asyncio.sleep(0.3)", "asyncio.Event().wait()")
    (app_folder / "faulty.py").write_text(nobody_is_answered)
    early = Frame(Opcode.TEXT, b'{"type":"ping"}').serialize(mask=True)
    head = (
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    with Server(app_folder, "serve", "faulty:app") as server:
        for sent in ([head, early * 20], [head, early[:3]], [head + early], [head[:-9], head[-9:] + early[:3]]):
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                sock.setblocking(False)
                for part in sent:
                    await loop.sock_sendall(sock, part)
                    await asyncio.sleep(0.05)
                async with asyncio.timeout(5):
                    with suppress(ConnectionError):
                        assert await loop.sock_recv(sock, 100) == b""
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("speed", ["--no-speed", "--speed"])
async def test_a_handshake_may_come_in_any_two_pieces(app_folder: Path, speed: str) -> None:
    head = (
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    loop = asyncio.get_running_loop()

    async def answer_to(port: int, place: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_sendall(sock, head[:place])
            await asyncio.sleep(0.1)
            await loop.sock_sendall(sock, head[place:])
            async with asyncio.timeout(10):
                return (await loop.sock_recv(sock, 100))[:12]

    with Server(app_folder, "serve", "faulty:app", speed) as server:
        answers = await asyncio.gather(*(answer_to(server.port, place) for place in range(1, len(head))))
    assert set(answers) == {b"HTTP/1.1 101"}


@pytest.mark.parametrize("extra", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_an_upgrade_that_announces_a_body_is_refused(server: Server, extra: bytes) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.setblocking(False)
        head = (
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + extra + b"\r\n\r\n"
        )
        await loop.sock_sendall(sock, head)
        async with asyncio.timeout(5):
            assert (await loop.sock_recv(sock, 1000)).startswith(b"HTTP/1.1 400 ")
            assert await loop.sock_recv(sock, 1000) == b""
    assert "Traceback" not in server.log.read_text()


async def test_a_limit_that_is_broken_by_the_last_word_is_no_failure(server: Server) -> None:
    async with connect(f"ws://localhost:{server.port}/ws", proxy=None) as peer:
        await peer.recv()
        close = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
        flood = b"".join(Frame(Opcode.TEXT, b"{}").serialize(mask=True) for _ in range(200))
        peer.transport.write(flood + close)
        await peer.wait_closed()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([Frame(Opcode.BINARY, b"x" * 5000)], id="binary"),
        pytest.param([Frame(Opcode.BINARY, b"x" * 1000)] * 5, id="many"),
        pytest.param([Frame(Opcode.TEXT, b"x" * 5000, fin=False)], id="a message that goes on"),
        pytest.param([Frame(Opcode.PING, b"x" * 100)] * 50, id="pings"),
    ],
)
async def test_whatever_it_is_that_nobody_sends_only_4_kib_are_taken(app_folder: Path, frames: list[Frame]) -> None:
    app = (app_folder / "faulty.py").read_text().replace("return User", "return None if True else User")
    (app_folder / "faulty.py").write_text(app.replace('Hub("memory:"', 'Hub("memory:", require_login=True'))
    with Server(app_folder, "serve", "faulty:app") as server:
        async with connect(f"ws://localhost:{server.port}/ws", proxy=None, ping_interval=None) as peer:
            peer.transport.write(b"".join(frame.serialize(mask=True) for frame in frames))
            async with asyncio.timeout(5):
                await peer.wait_closed()
            assert peer.close_code == 1009


# ── the log cannot be read for a moment ───────────────────────────────────────────────────────────


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    async with Hub("memory:") as hub:
        for number in range(600):  # more than is kept ready
            await hub.publish("lobby", "number", {"n": number})
        store = hub.opened.store
        page, failures = store.page, iter([True, True])

        async def fail_twice(room: str, after: int) -> Any:
            if next(failures, False):
                raise sqlite3.OperationalError("disk I/O error")
            return await page(room, after)

        monkeypatch.setattr(store, "page", fail_twice)
        yield hub


async def test_members_that_wait_for_the_log_are_sent_it_when_it_can_be_read(hub: Hub) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(hub.app, ws=WebSocketProtocol, lifespan="off", log_level="warning")
    running = uvicorn.Server(config)
    serving = asyncio.create_task(running.serve([sock]))
    epoch = hub.opened.store.epoch
    try:
        async with holdfast.connect(f"http://127.0.0.1:{sock.getsockname()[1]}/ws") as client:
            room = client.join("lobby")
            room.replica.restart(f"{epoch}:0")
            async with room, asyncio.timeout(10):
                assert isinstance(await anext(room), Resumed)
                seen = [item.data["n"] for item in [await anext(room) for _ in range(600)] if isinstance(item, Event)]
        assert seen == list(range(600))
    finally:
        running.should_exit = True
        await serving


async def test_a_subscriber_that_reads_the_log_is_told_when_it_can_be_read(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.server.subscribers.WAITING", 1)
    heard: list[int] = []

    @hub.subscribe
    async def slow(publication: Publication) -> None:
        await asyncio.sleep(0)
        heard.append(publication.data["n"])

    for number in range(20):
        await hub.publish("attic", "number", {"n": number})
    async with asyncio.timeout(10):
        while len(heard) < 20:
            await asyncio.sleep(0.01)
    assert heard == list(range(20))


async def test_who_publishes_from_a_thread_is_not_the_event_loop(hub: Hub) -> None:
    with pytest.raises(RuntimeError, match="await publish"):
        hub.publish_from_thread("lobby", "said", {})
    published = await asyncio.to_thread(hub.publish_from_thread, "lobby", "said", {})
    after = await hub.publish("lobby", "said", {})
    assert [int(each.id.partition(":")[2]) for each in (published, after)] == [601, 602]


async def test_whoever_commands_what_nobody_can_say_the_outcome_of_is_told_just_that(server: Server) -> None:
    async with holdfast.connect(f"{server.url}/ws") as client, client.join("lobby") as room:
        with pytest.raises(holdfast.OutcomeUnknown, match="nobody can say"):
            await room.command("doubt")
    for ref in ({}, {"ref": 1}):
        answer = await server.request("POST", "/send", {"type": "doubt", **ref})
        assert (answer.status_code, "nobody can say" in answer.text) == (500, True)
    assert "Traceback" not in server.log.read_text()
