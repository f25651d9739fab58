"""
A process takes as many as it says, and tells the next one to come later: with the limits that a newcomer gets.
"""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from holdfast import Limits
from peers import StartBoard

pytestmark = pytest.mark.long

LIMITS = Limits()
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
LATER = re.compile(rb'(?:retry: |"after_ms":)(\d+)')
STREAM = b"GET /boards/board-1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def crowd(port: int, size: int, request: bytes, answer: bytes) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Hold so many connections, each of which is answered: at once, or when it comes back as it was told to."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    at_once = asyncio.Semaphore(200)

    async def one() -> asyncio.StreamWriter:
        async with at_once:
            while True:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                heard = b""
                while answer not in heard and b"goodbye" not in heard and (more := await reader.read(4096)):
                    heard += more
                if answer in heard:
                    return writer
                writer.transport.abort()  # they come faster than the machine takes them in
                later = LATER.search(heard)
                assert later is not None, heard
                await asyncio.sleep(int(later[1]) / 1000)

    writers = await asyncio.gather(*(one() for _ in range(size)))
    try:
        yield writers
    finally:
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.5)  # for the event loop to see it


async def test_the_process_takes_10_000_connections_and_tells_the_next_to_come_later(start_board: StartBoard) -> None:
    assert LIMITS.connections == 10_000
    server = start_board("--heartbeat-interval", "600", "--heartbeat-timeout", "600")  # they answer no ping
    async with crowd(server.port, LIMITS.connections, UPGRADE, b'"type":"connected"') as writers:
        async with await server.dial() as late:
            assert (await late.until("goodbye"))["after_ms"] > 0
            assert await late.closed() == 1013
        writers[0].transport.abort()
        await asyncio.sleep(0.5)
        async with await server.dial() as welcome:
            await welcome.until("connected")


async def test_the_process_takes_5_000_streams_and_tells_the_next_to_come_later(start_board: StartBoard) -> None:
    assert LIMITS.streams == 5_000
    server = start_board()
    async with crowd(server.port, LIMITS.streams, STREAM, b"connected"):
        late = await server.request("GET", "/boards/board-1/events")  # 200, so that an EventSource comes back
        assert (late.status_code, late.text.startswith("retry: "), "connected" in late.text) == (200, True, False)
        assert (await server.request("GET", "/boards/board-1/poll")).status_code == 503
    async with asyncio.timeout(20):
        while (await server.get("/admin/connections"))["data"]["total"] > 0:
            await asyncio.sleep(0.1)
