"""
Several servers on one PostgreSQL: how late is what another one has published, how much can be published, at what cost?

    .venv/bin/python bench/nodes.py [--dsn postgresql://…] [--redis redis://…]

Without a DSN it starts a PostgreSQL of its own (with fsync, in a temporary folder).

Latency: one server publishes, all who listen are at the other. Throughput: in this process, beside a loop of the same
driver that inserts and commits one row after the other, run just before and after. Fan-out: the servers' processor
time for each delivery, one alone and two workers that share the same members and publications, in turn; what two do
in the time of one is twice the ratio, where two cores are free for them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import psycopg

from holdfast import Hub

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from crowd import Link  # noqa: E402
from databases import Cluster, binaries, create  # noqa: E402
from peers import Server  # noqa: E402

ROOMS, RATE, SECONDS = 50, 500, 10
WRITERS, WRITE_SECONDS = 64, 4.0
FAN_ROOMS, FAN_MEMBERS, FAN_SECONDS = 4, 400, 6
#: Publications a second: few, so that what a server does anyway counts, and as many as make it half busy.
FAN_RATES = 20, 100
TICKS = os.sysconf("SC_CLK_TCK")
APP = """
import asyncio, os, time
from holdfast import Hub
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

hub = Hub(os.environ["DSN"], redis=os.environ.get("REDIS"))

async def run(request):
    rooms, rate, seconds = (int(request.query_params[name]) for name in ("rooms", "rate", "seconds"))
    began = time.time()
    waiting = set()
    for number in range(rate * seconds):
        await asyncio.sleep(max(0, began + number / rate - time.time()))
        data = {"at": time.time(), "text": "x" * 100}
        waiting.add(asyncio.create_task(hub.publish(f"room-{number % rooms}", "said", data)))
    await asyncio.gather(*waiting)
    return Response()

app = Starlette(routes=[Route("/run", run, methods=["POST"]), Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@contextmanager
def database(dsn: str | None) -> Iterator[str]:
    """Have a database: the given one, or one of our own."""
    if dsn is not None:
        yield dsn
        return
    programs = binaries()
    if programs is None:
        sys.exit("there is no PostgreSQL (Debian: apt install postgresql); or give one with --dsn")
    with Cluster(programs) as cluster:
        with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = on")
            connection.execute("SELECT pg_reload_conf()")
        yield create(cluster.dsn("postgres"), "bench")


class Servers:
    """Starts servers of the application on one database."""

    def __init__(self, held: ExitStack, dsn: str, redis: str | None) -> None:
        self._held = held
        self._env = {"DSN": dsn} if redis is None else {"DSN": dsn, "REDIS": redis}

    def start(self, *options: str) -> Server:
        folder = Path(self._held.enter_context(tempfile.TemporaryDirectory()))
        (folder / "bench_app.py").write_text(APP)
        return self._held.enter_context(Server(folder, "serve", "bench_app:app", "--speed", *options, env=self._env))


class Audience:
    """Members of rooms, and how late each event came to each of them."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._joined = 0
        self._links: list[Link] = []

    async def join(self, port: int, rooms: Sequence[str]) -> None:
        for room in rooms:
            await Link.dial(port, lambda link, message, room=room: self._hear(link, message, room))
        async with asyncio.timeout(60):
            while self._joined < len(rooms):
                await asyncio.sleep(0.05)

    def _hear(self, link: Link, message: Any, room: str) -> None:
        kind = None if message is None else message["type"]
        if kind == "connected":
            self._links.append(link)
            link.say({"type": "join", "room": room})
        elif kind == "joined":
            self._joined += 1
        elif kind == "said":
            self.late.append(time.time() - message["at"])

    def leave(self) -> None:
        for link in self._links:
            link.close()


async def publish(server: Server, rooms: int, rate: int, seconds: int) -> None:
    async with httpx2.AsyncClient(base_url=server.url, timeout=seconds + 30, trust_env=False) as client:
        answer = await client.post(f"/run?rooms={rooms}&rate={rate}&seconds={seconds}")
        answer.raise_for_status()
    await asyncio.sleep(1.0)


async def latency(here: Server, there: Server) -> None:
    """Publish at one server and listen at the other; print p50 and p99."""
    audience = Audience()
    await audience.join(there.port, [f"room-{number}" for number in range(ROOMS)])
    await publish(here, ROOMS, RATE, 1)  # they are warm
    audience.late.clear()
    await publish(here, ROOMS, RATE, SECONDS)
    audience.leave()
    late = sorted(audience.late)
    print(f"from one server to the members at another, {RATE} publications/s over {ROOMS} rooms:")
    print(f"  p50 {1000 * median(late):.1f} ms, p99 {1000 * late[int(0.99 * len(late))]:.1f} ms; "
          f"{len(late)} of {RATE * SECONDS} came", flush=True)  # fmt: skip


async def fan_out(server: Server, rate: int) -> float:
    """Publish to many members; return the processor time for each delivery, in microseconds."""
    audience = Audience()
    await audience.join(server.port, [f"room-{number % FAN_ROOMS}" for number in range(FAN_ROOMS * FAN_MEMBERS)])
    await publish(server, FAN_ROOMS, rate, 1)
    audience.late.clear()
    before = processor(server.pid)
    await publish(server, FAN_ROOMS, rate, FAN_SECONDS)
    spent = processor(server.pid) - before
    audience.leave()
    assert len(audience.late) == rate * FAN_SECONDS * FAN_MEMBERS, len(audience.late)
    return 1e6 * spent / len(audience.late)


def processor(pid: int) -> float:
    """Return the processor time of a process and of those that it has started, in seconds."""
    ticks = 0
    pids = [pid]
    while pids:
        pid = pids.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return ticks / TICKS


def inserts(dsn: str) -> float:
    """Insert and commit rows one after the other, with nothing else; return how many a second."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS plain (id bigint GENERATED ALWAYS AS IDENTITY, body text)")
        began, done = time.monotonic(), 0
        while time.monotonic() - began < WRITE_SECONDS / 2:
            connection.execute("INSERT INTO plain (body) VALUES (%s)", (json.dumps({"text": "x" * 100}),))
            done += 1
        return done / (time.monotonic() - began)


async def publications(dsn: str, rooms: int) -> float:
    """Publish from many tasks at once; return how many were acknowledged a second."""
    done = 0
    async with Hub(dsn) as hub:
        began = time.monotonic()

        async def write(writer: int) -> None:
            nonlocal done
            while time.monotonic() < began + WRITE_SECONDS:
                await hub.publish(f"hot-{writer % rooms}", "said", {"text": "x" * 100})
                done += 1

        await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
        return done / (time.monotonic() - began)


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", help="a database that may be filled")
    parser.add_argument("--redis", help="a Redis for hints")
    arguments = parser.parse_args()
    with ExitStack() as held:
        dsn = held.enter_context(database(arguments.dsn))
        with ExitStack() as both:
            servers = Servers(both, dsn, arguments.redis)
            asyncio.run(latency(servers.start(), servers.start()))
        before = inserts(dsn)
        print(f"acknowledged a second, {WRITERS} writers, fsync on:")
        for rooms, name in ((32, "32 rooms"), (1, "one hot room")):
            print(f"  {name}: {asyncio.run(publications(dsn, rooms)):,.0f}", flush=True)
        after = inserts(dsn)
        print(f"  INSERT and COMMIT in a loop of psycopg: {before:,.0f} before, {after:,.0f} after")
        print(f"processor time of a delivery, {FAN_ROOMS} rooms of {FAN_MEMBERS} members:")
        for rate in FAN_RATES:
            costs: dict[int, list[float]] = {1: [], 2: []}
            for workers in (1, 2, 1, 2, 1, 2, 1):  # in turn, for the machine has its moods
                with ExitStack() as alone:
                    server = Servers(alone, dsn, arguments.redis).start("--workers", str(workers))
                    costs[workers].append(asyncio.run(fan_out(server, rate)))
            one, two = median(costs[1]), median(costs[2])
            print(f"  {rate} publications/s: one server {one:.1f} µs ({spread(costs[1])}),", end=" ")
            print(f"two workers {two:.1f} µs ({spread(costs[2])}):", end=" ")
            print(f"they do {2 * one / two:.2f} × as much as one in the same time", flush=True)


def spread(costs: Sequence[float]) -> str:
    return f"{min(costs):.1f} to {max(costs):.1f}"


if __name__ == "__main__":
    main()
