"""A server that means no good to a client: the client is told that it is lost, and goes on, or comes back later."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import re
import socket
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import holdfast
from corpus.held import descriptors, threads, timers
from corpus.held import memory as get_memory
from corpus.target import BINARY, COMING_AND_GOING, CONT, LONGEST, PING, TEXT, frame, head
from corpus.test_frames import MIB, bomb

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def welcome(request: bytes, *lines: str) -> bytes:
    """Return the answer to a handshake."""
    found = re.search(rb"Sec-WebSocket-Key: (.*)\r\n", request)
    assert found is not None
    accept = base64.b64encode(hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    return "\r\n".join([
        "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}", *lines, "", "",
    ]).encode()  # fmt: skip


@asynccontextmanager
async def unharmed(*, memory: int = 40_000, longest: float = LONGEST, patience: float = 3.0) -> AsyncIterator[None]:
    """As `Target.attacked`, for what is in this process: no turn is long, nothing is held, and no memory was taken."""
    slowest, last = 0.0, time.thread_time()

    async def watch() -> None:
        nonlocal slowest, last
        while True:
            slowest, last = max(slowest, time.thread_time() - last), time.thread_time()
            await asyncio.sleep(0.001)

    def held() -> object:
        waiting = Counter(timer for timer in timers() if timer not in COMING_AND_GOING)
        return {"tasks": len(asyncio.all_tasks()), **descriptors(), "timers": waiting, "threads": threads()}

    gc.collect()
    gc.freeze()  # what this process has of pytest's is no business of a client's collector
    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    before, kib = held(), get_memory()["kib"]
    last, slowest = time.thread_time(), 0.0
    yield
    found, peak = slowest, get_memory()["peak_kib"]
    until = time.monotonic() + patience
    while held() != before and time.monotonic() < until:
        await asyncio.sleep(0.02)
    after = held()
    watching.cancel()
    gc.unfreeze()
    assert after == before
    assert found < longest, f"the loop was kept for {found * 1000:.0f} ms"
    assert peak - kib < memory, f"it took {peak - kib} KiB"


PLANTED: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "the loop was kept": (lambda: sum(range(10_000_000)), id),
    "tasks": (lambda: asyncio.create_task(asyncio.sleep(60)), asyncio.Task.cancel),
    "print": (lambda: asyncio.get_running_loop().call_later(60, print), asyncio.TimerHandle.cancel),
    "sockets": (socket.socket, socket.socket.close),
    "it took": (lambda: b"x" * (60 << 20), id),
}


@pytest.mark.parametrize("said", PLANTED)
async def test_what_is_planted_is_found_in_this_process_too(said: str) -> None:
    make, end = PLANTED[said]
    held: list[Any] = []

    async def plant() -> None:
        async with unharmed(patience=0.2, longest=LONGEST if "loop" in said else 10.0):
            held.append(make())
            await asyncio.sleep(0.01)

    with pytest.raises(AssertionError, match=said):
        await plant()
    end(held.pop())


@asynccontextmanager
async def lost_to(*sent: bytes, lines: tuple[str, ...] = ()) -> AsyncIterator[bytes]:
    """Have a client dial a server that says this; it is to lose that link, and to come again."""
    requests: list[bytes] = []
    again = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        if len(requests) > 1:
            again.set()
        try:
            writer.write(welcome(requests[-1], *lines))
            for part in sent:
                writer.write(part)
                await writer.drain()
            await reader.read()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}/ws", jitter=False) as client, asyncio.timeout(10):
            await again.wait()
            assert client.status.state is not holdfast.State.CLOSED
        yield requests[0]


NO_FRAMES = {
    "2^63": head(TEXT, 1 << 63, mask=False),
    "2^64": head(TEXT, (1 << 64) - 1, mask=False),
    "2^40": head(BINARY, 1 << 40, mask=False),
    "masked": frame(TEXT, b"{}"),
    "opcode": frame(11, mask=False),
    "ping": frame(PING, b"x" * 126, mask=False),
    "UTF-8": frame(TEXT, b"\xff", mask=False),
}


@pytest.fixture(scope="module", autouse=True)
def warm_up() -> None:
    """Have a client import what it imports when it is first needed."""

    async def dial() -> None:
        async with lost_to(NO_FRAMES["masked"]):
            pass

    asyncio.run(dial())


async def test_CVE_2026_1528_what_is_no_frame_ends_the_link_and_not_the_client() -> None:
    async def one(sent: bytes) -> None:
        async with lost_to(sent):
            pass

    async with unharmed():
        await asyncio.gather(*map(one, NO_FRAMES.values()))


async def test_CVE_2026_12151_fragments_without_end_end_the_link() -> None:
    flood = [frame(CONT, fin=False, mask=False) * 10_000] * 20
    # It is the library's to read them, and it reads all that has come in one turn.
    async with unharmed(longest=1.0), lost_to(frame(BINARY, fin=False, mask=False), *flood):
        pass


async def test_CVE_2026_1526_nothing_is_inflated_for_a_server() -> None:
    sent = frame(TEXT, bomb(60 * MIB), rsv=4, mask=False)
    async with unharmed(), lost_to(sent) as request:
        assert b"Sec-WebSocket-Extensions" not in request


async def test_CVE_2026_2229_an_extension_that_was_not_asked_for_is_no_handshake() -> None:
    async def one(window: str) -> None:
        async with lost_to(lines=(f"Sec-WebSocket-Extensions: permessage-deflate{window}",)):
            pass

    async with unharmed():
        await asyncio.gather(
            *map(one, ("", "; server_max_window_bits=7", "; server_max_window_bits=99999999999999999999"))
        )


@pytest.mark.parametrize(
    "said",
    ["", "{", "[]", "null", "{}", '{"type":5}', '{"type":"joined"}', '{"type":"connected","user":5}', "[" * 100_000,
     '{"type":"goodbye","reason":"x","after_ms":1e999,"spread_ms":0}', '{"type":"__proto__","room":"constructor"}',
     '{"type":"reply","ref":"__proto__","ok":true}', '{"type":"reply","ref":' + "9" * 5_000 + ',"ok":true}',
     '{"type":"error","error":"x","code":"y","room":"nowhere"}', '{"type":"x","room":"lobby","id":"nonsense"}',
     '{"type":"synced","room":"lobby","cursor":":::","count":-1}'],
    ids=lambda said: said[:30],
)  # fmt: skip
async def test_what_is_not_in_the_protocol_does_not_end_a_client(said: str) -> None:
    """It answers what comes after it, or gives up the link and comes again."""
    goes_on = asyncio.Event()
    dialed = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialed
        dialed += 1
        if dialed > 1:
            goes_on.set()
        try:
            writer.write(welcome(await reader.readuntil(b"\r\n\r\n")))
            writer.write(frame(TEXT, said.encode(), mask=False) + frame(TEXT, CONNECTED, mask=False))
            await reader.read(100)
            writer.write(frame(TEXT, said.encode(), mask=False) + frame(PING, b"", mask=False))
            while (heard := await reader.read(1000)) and b"\x8a\x80" not in heard:
                pass
            if heard:
                goes_on.set()
        except (ConnectionError, asyncio.IncompleteReadError, AssertionError):
            pass  # it is the plain HTTP of somebody who looks for another road
        finally:
            writer.transport.abort()

    async with unharmed(), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}/ws") as client, asyncio.timeout(5):
            client.join("lobby")
            await goes_on.wait()
            assert client.status.state is not holdfast.State.CLOSED


CONNECTED = (
    b'{"type":"connected","session":"s","user":{"userId":"u","name":"U"},"heartbeat":{"interval":30,"timeout":10},'
    b'"limits":{"messageBytes":65536,"messagesPerSecond":50,"rooms":100},"roomKey":"room"}'
)


def test_a_bomb_is_one() -> None:
    assert len(bomb(MIB)) < 2_000
    assert len(zlib.decompressobj(-15).decompress(bomb(MIB))) == MIB
