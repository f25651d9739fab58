"""
What each road costs: the same room, the same publications, by WebSocket, event stream, long and short polls.

    .venv/bin/python bench/roads.py [--clients 200] > docs/roads.md

Real sockets, and a server for each road. First all are idle, then somebody publishes. Bytes are those of the
connections' contents in both directions, without TCP's and IP's own; processor time is the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

IDLE_SECONDS = 65.0  # longer than two heartbeats, and than two polls are held
PUBLICATIONS = 100
EVERY = 0.2
SHORT = 3.0  # seconds between two short polls
TICKS = os.sysconf("SC_CLK_TCK")
TEXT, PING, PONG = 1, 9, 10  # opcodes of WebSocket
HEAD_END = b"\r\n\r\n"
NUMBER = re.compile(rb'"n":(\d+)')
CURSOR = re.compile(rb'"cursor":"([^"]+)"')
APP = """
from holdfast import Hub
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

hub = Hub("roads.db", origins=["*"])

async def say(request):
    await hub.publish("room", "said", {"n": int(request.query_params["n"]), "text": "x" * 100})
    return Response()

app = Starlette(routes=[Route("/say", say, methods=["POST"]), Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@dataclass
class Listeners:
    """All who listen by one road; who publishes, and when."""

    port: int
    sent: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)  # each event at each listener: seconds since it was asked for
    had: Counter[tuple[object, int]] = field(default_factory=Counter)  # how often each listener had each
    sizes: int = 0
    ready: int = 0

    def heard(self, data: bytes) -> None:
        now, numbers = time.monotonic(), [int(number) for number in NUMBER.findall(data)]
        self.late += [now - self.sent[number] for number in numbers]
        self.had.update((asyncio.current_task(), number) for number in numbers)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def say(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.sizes += len(data)
        writer.write(data)

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(65536)
        if not data:
            raise EOFError
        self.sizes += len(data)
        return data


Road = Callable[[Listeners], Awaitable[None]]


async def by_websocket(all: Listeners) -> None:
    reader, writer = await all.open()
    all.say(
        writer,
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: holdfast.1\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    data = b""
    while HEAD_END not in data:
        data += await all.read(reader)
    _, _, data = data.partition(HEAD_END)
    while True:
        while (found := first_frame(data)) is not None:
            opcode, payload, data = found
            if opcode == PING:
                all.say(writer, frame(PONG, payload))
            elif b'"type":"ping"' in payload:
                all.say(writer, frame(TEXT, b'{"type":"pong"}'))
            elif b'"type":"connected"' in payload:
                all.say(writer, frame(TEXT, b'{"type":"join","room":"room"}'))
            elif b'"type":"joined"' in payload:
                all.ready += 1
            all.heard(payload)
        data += await all.read(reader)


def frame(opcode: int, payload: bytes) -> bytes:
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def first_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Return the opcode and the payload of the first frame, and what follows it; None: it is not all there."""
    if len(data) < 4:
        return None
    start = {126: 4, 127: 10}.get(data[1], 2)
    end = start + (data[1] if start == 2 else int.from_bytes(data[2:start], "big"))
    return (data[0] & 0x0F, data[start:end], data[end:]) if end <= len(data) else None


async def by_event_stream(all: Listeners) -> None:
    reader, writer = await all.open()
    all.say(writer, b"GET /events?rooms=room HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    heard = b""
    while b"connected" not in heard:
        heard += await all.read(reader)
    all.ready += 1
    while True:
        whole, end, heard = heard.rpartition(b"\n\n")
        all.heard(whole + end)
        heard += await all.read(reader)


async def by_long_polls(all: Listeners) -> None:
    await by_polls(all, wait=25.0, pause=0.0)


async def by_short_polls(all: Listeners) -> None:
    await by_polls(all, wait=0.0, pause=SHORT)


async def by_polls(all: Listeners, *, wait: float, pause: float) -> None:
    reader, writer = await all.open()
    cursor = b""
    while True:
        following = b"&cursor=" + cursor + b"&wait=%d" % wait if cursor else b"&wait=0"
        all.say(writer, b"GET /poll?rooms=room" + following + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while HEAD_END not in data:
            data += await all.read(reader)
        head, _, body = data.partition(HEAD_END)
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        while len(body) < int(length[1]):
            body += await all.read(reader)
        all.heard(body)
        found = CURSOR.findall(body)
        assert found, body
        all.ready += not cursor
        cursor = found[-1]
        await asyncio.sleep(pause)


ROADS: dict[str, Road] = {
    "WebSocket": by_websocket,
    "event stream": by_event_stream,
    "long polls": by_long_polls,
    f"short polls, every {SHORT:g} s": by_short_polls,
}
COLUMNS = (
    "road", "half of the events arrive within", "99 % within", "bytes per event and client",
    "bytes per idle client and minute", "processor time per 1,000 events delivered", "… per 1,000 idle clients",
    "memory per client",
)  # fmt: skip


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[int, int]]:
    """Serve a room; yield the port and the server's process id."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        Path(folder, "roads.py").write_text(APP)
        command = [sys.executable, "-m", "holdfast", "serve", "--port", str(port), "--log-level", "error", "roads:app"]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            async with asyncio.timeout(30):
                while True:
                    with suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        break
                    await asyncio.sleep(0.05)
            yield port, server.pid
        finally:
            server.kill()
            server.wait()


def processor(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


async def publish(all: Listeners) -> None:
    reader, writer = await all.open()
    for number in range(PUBLICATIONS):
        all.sent.append(time.monotonic())
        writer.write(b"POST /say?n=%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" % number)
        assert b"200 OK" in await reader.readuntil(HEAD_END)
        await asyncio.sleep(EVERY)
    writer.close()


async def measure(name: str, clients: int) -> str:
    async with serving() as (port, pid):
        all = Listeners(port)
        await publish_once(all)
        empty = memory(pid)
        tasks = [asyncio.create_task(ROADS[name](all)) for _ in range(clients)]  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(60):
                while all.ready < clients:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2)
            full, sizes, used = memory(pid), all.sizes, processor(pid)
            await asyncio.sleep(IDLE_SECONDS)
            idle_bytes = (all.sizes - sizes) / clients / (IDLE_SECONDS / 60)
            idle_time = (processor(pid) - used) / IDLE_SECONDS / clients * 1000
            sizes, used = all.sizes, processor(pid)
            await publish(all)
            await asyncio.sleep(SHORT + 1)
            for task in tasks:
                if task.done():
                    task.result()
            assert len(all.had) == clients * PUBLICATIONS, "an event was missed"
            assert set(all.had.values()) == {1}, "an event came twice"
            event_bytes = (all.sizes - sizes) / len(all.late)
            event_time = (processor(pid) - used) / len(all.late) * 1000
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    late = sorted(all.late)
    half, most = (1000 * late[int(share * len(late))] for share in (0.5, 0.99))
    return (
        f"| {name} | {half:.0f} ms | {most:.0f} ms | {event_bytes:.0f} | {idle_bytes:,.0f} | {1000 * event_time:.0f} ms"
        f" | {100 * idle_time:.1f} % of a core | {(full - empty) / clients / 1024:.0f} KiB |"
    )


async def publish_once(all: Listeners) -> None:
    """Have the server do everything once, so that what it loads is not counted."""
    for road in ("/events?rooms=other", "/poll?rooms=other", "/snapshot"):
        reader, writer = await all.open()
        writer.write(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % road.encode())
        await reader.read(100)
        writer.transport.abort()
    await asyncio.sleep(1)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what each road costs.")
    parser.add_argument("--clients", type=int, default=200)
    asked = parser.parse_args()
    print(EXPLANATION[0])
    print(f"""\
{asked.clients} clients in one room, at first idle, then {PUBLICATIONS} publications of 100 bytes, five a second. Made
by `.venv/bin/python bench/roads.py --clients {asked.clients}`, Python {platform.python_version()}, on 2 cores, of
which the clients take one; so read the rows against each other.
""")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for name in ROADS:
        print(await measure(name, asked.clients), flush=True)
    print(EXPLANATION[1])


EXPLANATION = (
    """\
# Choosing the right road

Every road leads to the same rooms, and a cursor from one is good on each other. Our clients choose by themselves: a
WebSocket; where there is no way for one, an event stream; where that is held back, polls. For everybody else:

| you have | take | because |
|---|---|---|
| a browser, or a program in Python | our clients | they do all of this, and go on across every disconnect |
| another language with WebSockets | `/ws` | it is the fastest, and you are seen to be here |
| only `EventSource`, or a proxy that bars WebSockets | `/events?rooms=…` | it resumes by itself, with `Last-Event-ID` |
| proxies that hold back answers, or scripts with `curl` | `/poll?rooms=…&wait=25` | each answer is whole |
| something that cannot wait: a cron job, a function | `/poll?rooms=…` | no connection is held in between |

What is the same everywhere: order, nothing missed, nothing twice, a gap that is told as such. What is not: only who
comes by WebSocket is present in a room, sees who else is, and has its death noticed within interval + timeout. Who
listens by HTTP speaks by `POST …/send`. A browser opens six connections to a host by HTTP/1.1, over all of its tabs:
a seventh event stream waits for ever, and so does everything else there. (HTTP/2 has no such limit: put a proxy in
front.)

## What they cost
""",
    """
Arrival counts from when the publication was asked for, so it holds the commit too. Bytes are those in the connections,
both ways. Memory is what the process has grown by, with what it needed while all of them came at once: [who is
there](../bench/README.md#speed) keeps less. An event is dearer by long polls than by stream: each brings its own
question and its own head; five events a second are kind to short polls, which take fifteen with one answer. A
WebSocket is told a ping every 30 seconds, an event stream a comment, a held poll ends and is asked anew; whoever polls
every three seconds pays twenty questions a minute for hearing nothing, and hears everything a second and a half late.
""",
)


if __name__ == "__main__":
    asyncio.run(main())
