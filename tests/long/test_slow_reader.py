"""
One who reads at 7 kB/s in a busy room costs the server next to nothing, slows nobody, and is not cut.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import pytest

from peers import RawPeer, Server

pytestmark = pytest.mark.long

APP = """
import asyncio, time
from holdfast import Hub
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

hub = Hub("busy.db", heartbeat_interval=5, heartbeat_timeout=3)

async def fill(request):
    begins = time.monotonic()
    for n in range(int(request.query_params["count"])):
        await asyncio.sleep(max(0, begins + n / 20 - time.monotonic()))
        await hub.publish("busy", "said", {"n": n, "at": time.monotonic(), "text": "x" * 50_000})
    return Response()

app = Starlette(routes=[Route("/fill", fill, methods=["POST"]), Mount("/", hub.app)], lifespan=hub.lifespan)
"""
MEMBERS, SECONDS, PER_SECOND = 50, 20, 20  # 1 MB/s for each


async def busy_room(folder: Path, *, slow: bool) -> tuple[float, float, float]:
    """Return by how many MiB the server's memory grew, and the median and the worst latency of the others in ms."""
    folder.mkdir()
    (folder / "busy.py").write_text(APP)
    count = SECONDS * PER_SECOND
    with Server(folder, "serve", "busy:app") as server, ExitStack() as peers:
        readers = [peers.enter_context(closing(RawPeer(server.port))) for _ in range(MEMBERS - 2)]
        for reader in readers:
            reader.send({"type": "join", "room": "busy"})
        reading = [asyncio.create_task(reader.drain_answering_pings()) for reader in readers]
        watcher = await server.dial("/ws")
        await watcher.send({"type": "join", "room": "busy"})
        await watcher.until("joined")
        await server.request("POST", "/fill?count=60")  # so that what is kept ready is there
        for _ in range(60):
            await watcher.until("said")
        sluggish = None
        if slow:
            sluggish = peers.enter_context(closing(RawPeer(server.port, receive_buffer=4096)))
            sluggish.send({"type": "join", "room": "busy"})
        await asyncio.sleep(1)
        before = memory(server.pid)
        filling = asyncio.create_task(server.request("POST", f"/fill?count={count}"))
        crawling = asyncio.create_task(sluggish.crawl(7_000)) if sluggish is not None else None
        latencies = []
        for _ in range(count):
            event = await watcher.until("said", 10)
            latencies.append(1000 * (time.monotonic() - event["at"]))
        await filling
        grown = memory(server.pid) - before
        if sluggish is not None and crawling is not None:
            crawling.cancel()
            heard = await sluggish.messages_until(lambda message: message.get("n") == count - 1, 30)
            numbers = [message["n"] for message in heard if message["type"] == "said"]
            assert numbers == list(range(numbers[0], count))
            assert numbers[0] == 0
            assert not [message for message in heard if message["type"] == "resync"]
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await watcher.close()
    latencies.sort()
    return grown, latencies[len(latencies) // 2], latencies[-1]


def memory(pid: int) -> float:
    """Return what a process has for itself, in MiB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon")) / 1024


async def test_a_reader_of_7_kb_a_second_costs_less_than_2_mib_and_slows_nobody(tmp_path: Path) -> None:
    alone = await busy_room(tmp_path / "without", slow=False)
    beside = await busy_room(tmp_path / "with", slow=True)
    print("\n         grown by MiB, median ms, worst ms")
    print("without ", *(f"{figure:8.2f}" for figure in alone))
    print("with    ", *(f"{figure:8.2f}" for figure in beside))
    assert beside[0] - max(alone[0], 0) < 2


def test_the_messages_are_as_large_as_said() -> None:
    assert 1_000_000 <= PER_SECOND * len(msgspec.json.encode({"text": "x" * 50_000})) < 1_100_000
