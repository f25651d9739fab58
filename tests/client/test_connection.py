"""What is wrong on a WebSocket ends it when what came before was read, and could be answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from holdfast.client.websocket import dial

WRONG = b"\x83\x00"  # an opcode that does not exist
Served = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def link(served: Served) -> AsyncIterator[ClientConnection]:
    """Dial a server that does this."""
    async with (
        serve(served, "127.0.0.1", 0, ping_interval=None, close_timeout=1) as server,
        asyncio.timeout(10),
        dial(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", None) as connection,
    ):
        yield connection


def text(said: str) -> bytes:
    return Frame(Opcode.TEXT, said.encode()).serialize(mask=False)


async def test_a_message_can_be_answered_although_what_came_behind_it_is_wrong() -> None:
    heard: list[object] = []

    async def served(peer: ServerConnection) -> None:
        peer.transport.write(text("one") + text("two") + WRONG + text("three"))
        with suppress(ConnectionClosed):
            async for message in peer:
                heard.append(message)
        heard.append(peer.close_code)

    async with link(served) as connection:
        for said in ("one", "two"):
            await asyncio.sleep(0.1)  # it takes its time
            assert await connection.recv() == said
            await connection.send(f"{said}, too")
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    assert heard == ["one, too", "two, too", 1002]


async def test_what_is_wrong_is_said_at_once_to_whom_nothing_is_left_to_read() -> None:
    codes: list[int | None] = []

    async def served(peer: ServerConnection) -> None:
        peer.transport.write(text("one"))
        assert await peer.recv() == "answer"
        peer.transport.write(Frame(Opcode.TEXT, b"begun", fin=False).serialize(mask=False) + WRONG)
        await peer.wait_closed()
        codes.append(peer.close_code)

    async with link(served) as connection:
        assert await connection.recv() == "one"
        await connection.send("answer")
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    assert codes == [1002]


async def test_pings_are_answered_while_nobody_reads() -> None:
    answered = asyncio.Event()

    async def served(peer: ServerConnection) -> None:
        await peer.send("unread")
        await (await peer.ping())
        answered.set()
        await peer.wait_closed()

    async with link(served):
        await answered.wait()


async def test_who_goes_on_with_what_is_wrong_is_not_kept_waiting_for_nor_remembered() -> None:
    async def served(peer: ServerConnection) -> None:
        peer.transport.write(text("one") + WRONG + text("more" * 1000) * 100)
        await asyncio.sleep(0.1)
        peer.transport.write(text("more" * 1000) * 100)
        await asyncio.sleep(0.1)
        peer.transport.abort()

    async with link(served) as connection:
        await connection.wait_closed()
        assert len(connection.protocol.reader.buffer) == 0
        assert await connection.recv() == "one"
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1006


async def test_who_closes_while_something_wrong_is_unread_is_closed() -> None:
    async def served(peer: ServerConnection) -> None:
        peer.transport.write(text("one") + WRONG)
        await peer.wait_closed()

    async with link(served) as connection:
        await asyncio.sleep(0.1)
        await connection.close(1000)
        assert connection.state.name == "CLOSED"


async def test_a_text_that_is_none_is_noticed_by_whoever_reads_it() -> None:
    codes: list[int | None] = []

    async def served(peer: ServerConnection) -> None:
        peer.transport.write(text("one") + Frame(Opcode.TEXT, b"\xff").serialize(mask=False) + text("three") + WRONG)
        await peer.wait_closed()
        codes.append(peer.close_code)

    async with link(served) as connection:
        assert await connection.recv() == "one"
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    assert codes == [1007]
