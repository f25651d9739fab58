"""A server that means no good to a client: the client is told that it is lost, and goes on, or comes back later."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import resource
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

import holdfast
from corpus.target import BINARY, CONT, PING, TEXT, frame, head
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

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}/ws", jitter=False) as client, asyncio.timeout(10):
            await again.wait()
            assert client.status.state is not holdfast.State.CLOSED
        yield requests[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000


NO_FRAMES = {
    "2^63": head(TEXT, 1 << 63, mask=False),
    "2^64": head(TEXT, (1 << 64) - 1, mask=False),
    "2^40": head(BINARY, 1 << 40, mask=False),
    "masked": frame(TEXT, b"{}"),
    "opcode": frame(11, mask=False),
    "ping": frame(PING, b"x" * 126, mask=False),
    "UTF-8": frame(TEXT, b"\xff", mask=False),
}


async def test_CVE_2026_1528_what_is_no_frame_ends_the_link_and_not_the_client() -> None:
    async def one(sent: bytes) -> None:
        async with lost_to(sent):
            pass

    await asyncio.gather(*map(one, NO_FRAMES.values()))


async def test_CVE_2026_12151_fragments_without_end_end_the_link() -> None:
    async with lost_to(frame(BINARY, fin=False, mask=False), *[frame(CONT, fin=False, mask=False) * 10_000] * 20):
        pass


async def test_CVE_2026_1526_nothing_is_inflated_for_a_server() -> None:
    async with lost_to(frame(TEXT, bomb(60 * MIB), rsv=4, mask=False)) as request:
        assert b"Sec-WebSocket-Extensions" not in request


async def test_CVE_2026_2229_an_extension_that_was_not_asked_for_is_no_handshake() -> None:
    async def one(window: str) -> None:
        async with lost_to(lines=(f"Sec-WebSocket-Extensions: permessage-deflate{window}",)):
            pass

    await asyncio.gather(*map(one, ("", "; server_max_window_bits=7", "; server_max_window_bits=99999999999999999999")))


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

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
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
