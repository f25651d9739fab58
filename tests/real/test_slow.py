"""
Everything is slow: who never reads, who writes a byte at a time, a way that takes most of a second.

Who is only slow is served; who holds something that is not theirs to hold is ended, in the stated time; and nobody
else notices.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from holdfast import Limits
from holdfast.server.runner import USER_TIMEOUT
from peers import RawPeer, Server
from real.delay import LongWay
from real.people import BOUND, PATIENCE, TIMEOUT, app_in, everybody_has, following, memory, until

#: What a server may hold for one that does not read (128 KiB), and what a room keeps ready for all (1 MiB).
EACH, READY = 128 / 1024, 1.0
ROUNDS, SIZE = 10, 400_000


async def fill(server: Server, rounds: int) -> list[str]:
    """Publish so many times 400 kB, and return the texts."""
    texts = [f"{number}-{part}-{'x' * 20_000}" for number in range(rounds) for part in range(SIZE // 20_000)]
    for start in range(0, len(texts), SIZE // 20_000):
        part = "\n".join(texts[start : start + SIZE // 20_000])
        assert (await server.request("POST", "/publish?room=lobby", part.encode())).is_success
    return texts


async def test_those_who_never_read_are_ended_in_time_and_cost_the_others_nothing(tmp_path: Path) -> None:
    with Server(*app_in(tmp_path)) as server, ExitStack() as held:
        async with following(server.url, 3) as followers:
            texts = await fill(server, 3)  # what it has for the room is there
            before = memory(server.pid)
            peers = list[RawPeer]()
            for _ in range(100):
                peers.append(held.enter_context(closing(RawPeer(server.port, receive_buffer=4096))))
                peers[-1].send({"type": "join", "room": "lobby"})  # at once: from now on it is pinged
            began = time.monotonic()
            texts += await fill(server, ROUNDS)
            await everybody_has(followers, texts, 5)
            assert memory(server.pid) - before <= len(peers) * EACH + READY + 4  # MiB; SQLite's cache is in it
            ended = time.monotonic()
            answer = await server.get("/alone?with=3")
            assert answer["at"] - ended <= BOUND + (await server.get("/state"))["stood_still"]
            await asyncio.gather(*(peer.is_cut(1) for peer in peers))
            assert [follower.lost_at(began) for follower in followers] == [None] * 3


@pytest.mark.long
async def test_event_streams_and_answers_that_nobody_reads_are_ended_by_the_kernel(tmp_path: Path) -> None:
    with Server(*app_in(tmp_path)) as server, ExitStack() as held:
        async with following(server.url, 2) as followers:
            texts = await fill(server, 3)
            before = memory(server.pid)
            for path in ["/events?room=lobby"] * 10 + ["/poll?room=lobby"] * 3:
                sock = held.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", server.port))
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            texts += await fill(server, ROUNDS)
            await everybody_has(followers, texts, 5)
            assert memory(server.pid) - before <= 13 * EACH + READY + 6
            ended = time.monotonic()
            assert (await server.get("/alone?with=2"))["at"] - ended <= USER_TIMEOUT + 5


# ── a byte at a time ──────────────────────────────────────────────────────────────────────────────


class Dribble:
    """A connection on which each byte is a packet of its own, with a pause behind it."""

    def __init__(self, server: Server, pause: float) -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.pause = pause

    async def write(self, data: bytes) -> None:
        began = time.monotonic()
        for byte in data:
            await asyncio.get_running_loop().sock_sendall(self.sock, bytes([byte]))
            await asyncio.sleep(self.pause)
        assert time.monotonic() - began >= 0.9 * len(data) * self.pause

    async def read_until(self, end: bytes, seconds: float = 10) -> bytes:
        got = b""
        async with asyncio.timeout(seconds):
            while end not in got:
                more = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
                assert more, got
                got += more
        return got

    def close(self) -> None:
        self.sock.close()


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("speed", ["--speed", pytest.param("--no-speed", marks=pytest.mark.long)])
@pytest.mark.parametrize("share", [0.02, pytest.param(0.9, marks=pytest.mark.long)])
async def test_whoever_writes_a_byte_at_a_time_is_understood(tmp_path: Path, speed: str, share: float) -> None:
    """At this share of the slowest pace: a head and a body have 10 s, and a frame has no limit but the heartbeat's."""
    allowed = share * Limits().request_seconds
    with Server(*app_in(tmp_path), speed) as server, ExitStack() as held:

        async def request() -> None:
            body = b'{"type":"say","room":"lobby","text":"by HTTP"}'
            head = (
                "POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            slow = held.enter_context(closing(Dribble(server, allowed / len(head))))
            await slow.write(head)
            slow.pause = allowed / len(body)
            await slow.write(body)
            assert b"200 OK" in await slow.read_until(b"\r\n\r\n")

        async def websocket() -> None:
            slow = held.enter_context(closing(Dribble(server, allowed / len(HANDSHAKE))))
            await slow.write(HANDSHAKE)
            assert b"101 Switching" in await slow.read_until(b'"connected"')
            join = Frame(Opcode.TEXT, b'{"type":"join","room":"lobby"}').serialize(mask=True)
            slow.pause = min(share * TIMEOUT, 0.5)
            await slow.write(join[:10])
            slow.pause /= 10
            await slow.write(join[10:])
            await slow.read_until(b'"joined"')
            say = Frame(Opcode.TEXT, b'{"type":"say","room":"lobby","text":"by frame"}').serialize(mask=True)
            await slow.write(say)
            await slow.read_until(b"by frame")

        async with following(server.url, 1) as followers:
            await asyncio.gather(request(), websocket())
            await until(lambda: set(followers[0].texts) == {"by HTTP", "by frame"}, PATIENCE)


@pytest.mark.long
async def test_whoever_takes_longer_than_that_for_a_head_is_ended(tmp_path: Path) -> None:
    limit = Limits().request_seconds
    with Server(*app_in(tmp_path)) as server, closing(Dribble(server, 0.1)) as slow:
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011
            await slow.write(HANDSHAKE[:-4] + b"\r\nX-More: " + b"x" * 1000)
        assert limit - 0.5 <= time.monotonic() - began <= limit + 1


# ── a long way ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spikes", [0.0, pytest.param(0.2, marks=pytest.mark.long)])
async def test_on_a_way_that_takes_400_ms_and_sometimes_2_s_more_nobody_is_taken_for_dead(
    tmp_path: Path, spikes: float
) -> None:
    dice = random.Random(1)
    given = 12 if spikes else 4

    def seconds() -> float:
        return 0.4 + (2.0 if dice.random() < spikes else 0.0)

    with Server(*app_in(tmp_path), env={"INTERVAL": "1", "TIMEOUT": "5"}) as server:
        async with LongWay(server.port, seconds) as way, following(f"http://127.0.0.1:{way.port}", 3) as followers:
            began = time.monotonic()
            texts: list[Any] = [f"{number}" for number in range(given)]
            for text in texts:
                said = time.monotonic()
                await followers[0].say(text)
                assert time.monotonic() - said >= 2 * 0.4
            await everybody_has(followers, texts)
            assert [follower.lost_at(began) for follower in followers] == [None] * 3
            assert "holdfast_deaths_total 0" in (await server.get("/state"))["metrics"]
            assert max(way.took) >= (2.4 if spikes else 0.4)
