"""
The dead are noticed within the times that a newcomer gets: 30 + 10 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from peers import RawPeer, StartBoard

pytestmark = pytest.mark.long

INTERVAL, TIMEOUT, SLACK = 30.0, 10.0, 0.5
Dial = Callable[..., RawPeer]


async def test_silent_peers_are_gone_within_40_seconds_and_a_living_one_stays(
    start_board: StartBoard, raw_peer: Dial
) -> None:
    server = start_board()
    async with await server.dial() as alive:
        await alive.join()
        silent, mute = raw_peer(server), raw_peer(server)
        silent.send({"type": "join", "boardId": "board-1"})
        joined = await alive.until("user_joined")
        began = time.monotonic()
        lived = await asyncio.gather(*(peer.read_until_closed(60) for peer in (silent, mute)))
        assert all(TIMEOUT <= seconds <= INTERVAL + TIMEOUT + SLACK for seconds in lived), lived
        assert (await alive.until("user_left", 60))["userId"] == joined["userId"]
        assert time.monotonic() - began <= INTERVAL + TIMEOUT + SLACK + 0.5
        await asyncio.sleep(INTERVAL + TIMEOUT + 5)
        await alive.send({"type": "ping"})
        await alive.until("pong")
        assert (await server.get("/admin/connections"))["data"]["total"] == 1


async def test_a_server_that_stood_still_for_80_seconds_cuts_nobody(start_board: StartBoard) -> None:
    server = start_board()
    async with await server.dial() as peer:
        await peer.join()
        await asyncio.sleep(5)
        server.freeze()
        await asyncio.sleep(2 * (INTERVAL + TIMEOUT))
        server.thaw()
        await asyncio.sleep(INTERVAL + TIMEOUT + 5)
        await peer.send({"type": "ping"})
        await peer.until("pong")


async def test_an_idle_stream_is_kept_open_by_comments(start_board: StartBoard) -> None:
    server = start_board()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /boards/board-1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    began = time.monotonic()
    async with asyncio.timeout(20):
        while b": heartbeat" not in await reader.readline():
            pass
    assert 14 < time.monotonic() - began < 17
    writer.close()


async def test_a_long_poll_is_answered_after_30_seconds(start_board: StartBoard) -> None:
    server = start_board()
    began = time.monotonic()
    answer = await server.get("/boards/board-1/poll")
    assert list(answer) == ["data", "cursor", "timeout"]
    assert (answer["data"], answer["timeout"]) == ([], True)
    assert 29 < time.monotonic() - began < 32
