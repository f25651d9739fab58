"""
Two thousand members whose links all break come back at once: each is caught up, and who stayed is not slowed.
"""

from __future__ import annotations

import asyncio
import re
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from peers import Server

pytestmark = pytest.mark.long

MEMBERS = 2_000
MISSED = 200
MEANWHILE = 100
APP = """
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Hub

hub = Hub("many.db", server_key="k3y")
app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
NUMBER = re.compile(rb'"type":"number"[^}]*"n":(\d+)}')
PING, PONG = b"\x89", b"\x8a\x80\0\0\0\0"  # text here is ASCII, so the first byte of a ping is in nothing else
LATER = re.compile(rb'"after_ms":(\d+)')


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "many.py").write_text(APP)
    with Server(tmp_path, "serve", "many:app") as server:
        yield server


class Member:
    """A client in as few lines as can be: it joins from where it stands, and comes back when it is told to."""

    def __init__(self, port: int, epoch: str) -> None:
        self.numbers: list[int] = []
        self.refused = 0
        self.is_in = asyncio.Event()
        self._port = port
        self._epoch = epoch
        self._writer: asyncio.StreamWriter | None = None

    async def stay(self, until: int) -> None:
        """Be in the room until that many publications were heard."""
        while len(self.numbers) < until:
            reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            join = b'{"type":"join","room":"lobby","since":"%s:%d"}' % (self._epoch.encode(), len(self.numbers))
            self._writer.write(UPGRADE)
            heard = await reader.readuntil(b"\r\n\r\n")
            self._writer.write(bytes([0x81, 0x80 | len(join), 0, 0, 0, 0]) + join)
            advice = None
            while len(self.numbers) < until and advice is None:
                more = await reader.read(65536)
                assert more, "nobody is cut"
                if PING in more:
                    self._writer.write(PONG)
                heard += more
                found = list(NUMBER.finditer(heard))
                self.numbers += [int(number[1]) for number in found]
                if b'"joined"' in heard:
                    self.is_in.set()
                advice = LATER.search(heard)
                heard = heard[found[-1].end() if found else -200 :]  # 200 bytes: what may be half an event
            self.break_off()
            if advice:
                self.refused += 1
                await asyncio.sleep(int(advice[1]) / 1000)

    def break_off(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()


async def publish(service: httpx2.AsyncClient, *numbers: int) -> None:
    for number in numbers:
        answer = await service.post("/publish", json={"room": "lobby", "type": "number", "data": {"n": number}})
        assert answer.status_code == 201


def memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


async def test_two_thousand_members_that_come_back_at_once(server: Server) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with await server.dial() as peer:
        await peer.send({"type": "join", "room": "lobby"})
        cursor = (await peer.until("joined"))["cursor"]
    epoch, _, offset = cursor.partition(":")
    assert offset == "0"
    until = MISSED + MEANWHILE
    stays = Member(server.port, epoch)
    members = [Member(server.port, epoch) for _ in range(MEMBERS)]
    service = httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", headers={"authorization": "Bearer k3y"}, timeout=60, trust_env=False
    )
    async with asyncio.timeout(300), service:
        staying = asyncio.create_task(stays.stay(until))
        first = [asyncio.create_task(member.stay(until)) for member in members]
        for member in (stays, *members):
            await member.is_in.wait()
        before = memory(server.pid)
        for task in first:
            task.cancel()
        await asyncio.gather(*first, return_exceptions=True)
        for member in members:
            member.break_off()
        await asyncio.sleep(1)
        await publish(service, *range(MISSED))
        began = time.monotonic()
        back = asyncio.gather(*(member.stay(until) for member in members))
        latencies: list[float] = []
        most = before
        for number in range(MISSED, until):
            sent = time.monotonic()
            await publish(service, number)
            while not stays.numbers or stays.numbers[-1] < number:
                if staying.done():
                    staying.result()  # raises what has ended it
                await asyncio.sleep(0.001)
            latencies.append(time.monotonic() - sent)
            most = max(most, memory(server.pid))
        await back
        await staying
    for member in (stays, *members):
        assert member.numbers == list(range(until))
    print(
        f"{MEMBERS} members, {MISSED} missed each: all are caught up after {time.monotonic() - began:.1f} s "
        f"({sum(member.refused for member in members)} times somebody was told to come later); publications reached "
        f"the one that stayed after {1000 * statistics.median(latencies):.0f} ms (half of them), "
        f"{1000 * max(latencies):.0f} ms (all); "
        f"the server's memory grew by {(most - before) / 1024:.0f} MiB"
    )
    assert most - before < 128 * MEMBERS  # of 128 KiB each, in KiB: bounded, whatever they are owed
