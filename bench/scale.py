"""
What does each thing cost, a connection, a delivery, a publication, a poll, a call? The constants of `scale_model.py`.

    .venv/bin/python bench/scale.py [--write bench/scale.json]

Servers of `holdfast serve` on a PostgreSQL of its own (Debian: apt install postgresql), with fsync. The servers run on
the first core that this process may use, PostgreSQL and the clients on the last. A cost is processor time, taken from
the kernel's account of each process (/proc/PID/task/*/schedstat), so other work on the machine does not count, though
it does make caches colder. Each is fitted through at least two loads. Then come points that nothing is fitted to: they
are for the model to meet. Those are of times too, so for them it goes before others on this machine, if it may (as
root), and takes of three runs the one in which others worked least. It takes less than five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from processes import children, memory, processor  # noqa: E402
from scale_model import rested  # noqa: E402

from crowd import Link, allow_files  # noqa: E402
from databases import Cluster, binaries, create  # noqa: E402
from peers import Server  # noqa: E402

LIMIT_SECONDS = 290
#: Those that this process may use, before it keeps to the last of them.
CORES = sorted(os.sched_getaffinity(0))
#: Connections to PostgreSQL of which a server says which process serves them.
ROLES = ("writer", "caller", "asker", "looker")
TEXT = "x" * 100
APP = """
import asyncio, os, random, time
from collections import Counter

from holdfast import Hub, Limits
from holdfast.store import postgres_feed, postgres_hints, postgres_people, postgres_session
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

hub = Hub(os.environ["DSN"], limits=Limits(connections=20_000))
counts, backends = Counter(), {}

def count(owner, name, look):
    inner = getattr(owner, name)
    def counted(self, *args):
        look(self, *args)
        return inner(self, *args)
    setattr(owner, name, counted)

def asks(feed, connection):
    counts["asks"] += 1
    backends["asker"] = connection.info.backend_pid

def looks(people, connection):
    counts["looks"] += 1
    backends["looker"] = connection.info.backend_pid

def appends(session, published):
    if published:
        counts.update(batches=1, published=len(published), heads=len({each.room for each, _ in published}))
        backends["writer"] = session._connection.info.backend_pid

def calls(notify, channel, calls):
    counts["calls"] += 1
    if notify._connection is not None:
        backends["caller"] = notify._connection.info.backend_pid

def news(feed, rows):
    rows = list(rows)
    counts["records"] += len(rows)
    deliver(feed, rows)

count(postgres_feed.Feed, "_ask", asks)
count(postgres_people.People, "_look", looks)
count(postgres_session.PostgresSession, "append", appends)
count(postgres_hints.Notify, "call", calls)
count(postgres_hints.Hints, "_take", lambda hints, *call: counts.update(heard=1))
deliver, postgres_feed.Feed._deliver = postgres_feed.Feed._deliver, news

@hub.on("echo")
async def echo(caller, data):
    return {}

async def tell(request):
    return JSONResponse({"counts": counts, "backends": backends})

async def run(request):
    ask = request.query_params
    rooms, burst, first = int(ask["rooms"]), int(ask["burst"]), int(ask.get("first", 0))
    rate, seconds = float(ask["rate"]), float(ask["seconds"])
    due, waiting, dice = time.time(), set(), random.Random(first)
    for number in range(round(rate * seconds)):
        due += dice.expovariate(rate)
        await asyncio.sleep(max(0, due - time.time()))
        for each in range(number * burst, (number + 1) * burst):
            data = {"at": time.time(), "text": "x" * 100}
            waiting.add(asyncio.create_task(hub.publish(f"{ask['name']}-{(each + first) % rooms}", "said", data)))
    await asyncio.gather(*waiting)
    return JSONResponse(len(waiting))

async def race(request):
    ask = request.query_params
    writers, rooms, until = int(ask["writers"]), int(ask["rooms"]), time.time() + float(ask["seconds"])
    done = 0
    async def write(writer):
        nonlocal done
        while time.time() < until:
            await hub.publish(f"race-{writer % rooms}", "said", {"text": "x" * 100})
            done += 1
    await asyncio.gather(*map(write, range(writers)))
    return JSONResponse(done)

routes = [Route("/tell", tell), Route("/run", run), Route("/race", race), Mount("/", hub.app)]
app = Starlette(routes=routes, lifespan=hub.lifespan)
"""


# What the kernel says of processes.


def busy() -> dict[int, float]:
    """Return the seconds for which each core has worked, for whomever."""
    found = re.findall(r"^cpu(\d+) (\d+) (\d+) (\d+) \d+ \d+ (\d+) (\d+)", Path("/proc/stat").read_text(), re.M)
    return {int(core): sum(map(int, used)) / os.sysconf("SC_CLK_TCK") for core, *used in found}


def prefer(pid: int, nice: int) -> None:
    """Have a process go before others (below 0), or after them, if that is allowed."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    with suppress(OSError):  # where each session has its share, it is the session that has to be preferred
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def fit(rows: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """Return the costs, none below zero, with which these counts come closest to these sums (least squares)."""
    rows = [(counts, value) for counts, value in rows if value > 0]
    kept = list(range(len(rows[0][0])))
    while True:
        # An error weighs as the root of the sum: small sums are noisier.
        weighed = [([counts[i] / value**0.5 for i in kept], value**0.5) for counts, value in rows]
        found = dict(zip(kept, solve(weighed), strict=True))
        least = min(kept, key=lambda i: found[i])
        if found[least] >= 0 or len(kept) == 1:
            return [max(0.0, found.get(i, 0.0)) for i in range(len(rows[0][0]))]
        kept.remove(least)


def solve(rows: Sequence[tuple[list[float], float]]) -> list[float]:
    """Return the factors with which the first of each row add up to the second, as nearly as can be."""
    size = len(rows[0][0])
    table = [
        [sum(row[i] * row[j] for row, _ in rows) for j in range(size)] + [sum(row[i] * value for row, value in rows)]
        for i in range(size)
    ]
    for i in range(size):  # what no load tells apart is shared out
        table[i][i] *= 1 + 1e-6
    for i in range(size):  # Gauss, with the diagonal as pivots: such a table is positive definite
        for j in range(size):
            if j != i:
                share = table[j][i] / table[i][i]
                table[j] = [a - share * b for a, b in zip(table[j], table[i], strict=True)]
    return [table[i][size] / table[i][i] for i in range(size)]


# The servers, and the clients.


class Members:
    """Clients in rooms, all in this process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._links: list[Link] = []
        self._dialling: set[asyncio.Task[None]] = set()
        self.joined = 0
        self.echoed = 0
        self.late: list[float] = []

    async def join(self, rooms: Sequence[str], pace: float = 200, since: str | None = None) -> None:
        """Have one more in each of these rooms; at most so many a second come."""
        wanted = self.joined + len(rooms)
        began = time.monotonic()
        for number, room in enumerate(rooms):
            await asyncio.sleep(max(0.0, began + number / pace - time.monotonic()))
            await Link.dial(self._port, self._hearing(room, since))
        async with asyncio.timeout(30):
            while self.joined < wanted:
                await asyncio.sleep(0.02)

    def _hearing(self, room: str, since: str | None) -> Callable[[Link, Any], None]:
        is_in = False

        def hear(link: Link, message: Any) -> None:
            nonlocal is_in
            kind = message and message["type"]
            if kind is None and not is_in:  # it was turned away, since others keep this machine busy
                self._later(Link.dial(self._port, hear))
            elif kind == "said":
                self.late.append(time.time() - message["at"])
            elif kind == "connected":
                self._links.append(link)
                link.say({"type": "join", "room": room} | ({"since": since} if since else {}))
            elif kind == "joined":
                is_in = True
                self.joined += 1
            elif kind == "reply":
                self.echoed += 1

        return hear

    def _later(self, dial: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(1.0)
            await dial

        self._dialling.add(task := asyncio.create_task(later()))
        task.add_done_callback(self._dialling.discard)

    async def echo(self, rate: float, seconds: float) -> None:
        """Send commands that do nothing, one after the other from everybody."""
        began, wanted = time.monotonic(), self.echoed + round(rate * seconds)
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            self._links[number % len(self._links)].say({"type": "echo", "ref": str(number)})
        async with asyncio.timeout(10):
            while self.echoed < wanted:
                await asyncio.sleep(0.02)

    async def leave(self, pace: float = 500) -> None:
        for number, link in enumerate(self._links):
            link.close()
            if number % 10 == 0:
                await asyncio.sleep(10 / pace)
        self.joined, self._links = 0, []
        await asyncio.sleep(1.5)


@dataclass
class Node:
    """One server."""

    server: Server
    counts: dict[str, int] = field(default_factory=dict)
    backends: dict[str, int] = field(default_factory=dict)

    async def ask(self, path: str) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    async def run(
        self, *, rate: float, burst: int = 1, rooms: int, seconds: float, name: str = "room", first: int = 0
    ) -> None:
        """Publish so many at once, on average so many times a second, at times by chance."""
        await self.ask(f"/run?rate={rate}&burst={burst}&rooms={rooms}&seconds={seconds}&name={name}&first={first}")

    async def look(self) -> dict[str, float]:
        """Return all that has been counted: of the node, and of its part of PostgreSQL."""
        answer = await self.ask("/tell")
        return {
            "cpu": processor(self.server.pid),
            **answer["counts"],
            **{role: processor(pid) for role, pid in answer["backends"].items()},
        }


@dataclass
class Window:
    """What was used between two looks; per node, and by PostgreSQL."""

    seconds: float
    nodes: list[dict[str, float]]
    database: float
    clients: float
    foreign: tuple[float, float]  # shares of the servers' core and of the other that were somebody else's


class Bench:
    """The servers of one measurement."""

    def __init__(self, cluster: Cluster, dsn: str, nodes: list[Node]) -> None:
        self.cluster = cluster
        self.dsn = dsn
        self.nodes = nodes
        self.foreign: list[float] = []  # shares of the machine that others used, in each window

    def database(self) -> float:
        """Return the processor time of everything that belongs to PostgreSQL."""
        pid = self.cluster.process.pid
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
        used = processor(pid) + ended
        for child in children(pid):
            with suppress(OSError):
                used += processor(child)
        return used

    def go_first(self) -> None:
        """Go before whatever else works on this machine, where that is allowed: for what is not processor time."""
        database = self.cluster.process.pid
        for pid in (os.getpid(), database, *children(database), *(node.server.pid for node in self.nodes)):
            prefer(pid, -10)

    async def over(self, work: Any, settle: float = 0.4) -> Window:
        """Return what it costs to do this, and all that follows from it."""
        before = [await node.look() for node in self.nodes]
        database, clients, worked, began = self.database(), time.process_time(), busy(), time.monotonic()
        await work
        await asyncio.sleep(settle)
        seconds, late = time.monotonic() - began, busy()
        spent, heard = self.database() - database, time.process_time() - clients
        after = [await node.look() for node in self.nodes]
        nodes = [
            {key: late[key] - early.get(key, 0.0) for key in late} for early, late in zip(before, after, strict=True)
        ]
        first, last = ((late[core] - worked[core]) / seconds for core in (CORES[0], CORES[-1]))
        foreign = first - sum(node["cpu"] for node in nodes) / seconds, last - (spent + heard) / seconds
        self.foreign.append(max(0.0, sum(foreign) / 2))
        return Window(seconds, nodes, spent, heard, (max(0.0, foreign[0]), max(0.0, foreign[1])))


def note(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:5.0f} s  {text}", file=sys.stderr, flush=True)


BEGAN = time.monotonic()


@contextmanager
def serving(cluster: Cluster, name: str, count: int) -> Iterator[Bench]:
    """Have so many servers on a database of their own."""
    with ExitStack() as held:
        dsn = create(cluster.dsn("postgres"), name)
        nodes = []
        for number in range(count):
            folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
            (folder / "scale_app.py").write_text(APP)
            server = Server(folder, "serve", "scale_app:app", "--speed", "--log-level", "error", env={"DSN": dsn})
            os.sched_setaffinity(0, {CORES[0]})  # which a server that is started now inherits
            try:
                held.enter_context(server)
            finally:
                os.sched_setaffinity(0, {CORES[-1]})
            nodes.append(Node(server))
            note(f"server {number + 1} of {count} is up")
        yield Bench(cluster, dsn, nodes)


# The measurements. Each adds to the constants; seconds of processor time, unless the name says bytes.

Costs = dict[str, Any]


async def warm(bench: Bench) -> None:
    """Have everything done once, so that what is loaded and prepared then does not count."""
    for node in bench.nodes:
        members = Members(node.server.port)
        await members.join(["warm-0", "warm-1"] * 10)
        await node.run(rate=50, burst=4, rooms=2, seconds=2, name="warm")
        await members.leave()


async def idle(bench: Bench, costs: Costs) -> None:
    """A server that has nothing to do; its polls and looks."""
    window = await bench.over(asyncio.sleep(8), 0)
    node = window.nodes[0]
    costs["node_idle"] = node["cpu"] / window.seconds
    costs["db_poll"] = node["asker"] / node["asks"]
    costs["db_look"] = node["looker"] / node["looks"]
    costs["db_idle"] = (window.database - node["asker"] - node["looker"]) / window.seconds


async def crowds(bench: Bench, costs: Costs, scale: float) -> None:
    """Connections: what they hold, what they cost while they are idle, and to come and to go."""
    pid, people = bench.nodes[0].server.pid, Members(bench.nodes[0].server.port)
    sizes, held, coming, written, resting = [0], [memory(pid)], [], [], [costs["node_idle"]]
    for step in (1000, 2000):
        step = round(step * scale)
        rooms = [f"crowd-{(sizes[-1] + number) // 10}" for number in range(step)]
        note(f"{step} connections come")
        window = await bench.over(people.join(rooms))
        one = window.nodes[0]
        coming.append((one["cpu"] - costs["node_idle"] * window.seconds) / step)
        written.append(one["looker"] / step)
        sizes.append(sizes[-1] + step)
        await asyncio.sleep(1)
        held.append(memory(pid))
        note(f"… and are idle: {(held[-1] - held[0]) / sizes[-1] / 1024:.1f} KiB each")
        window = await bench.over(asyncio.sleep(10), 0)
        resting.append(window.nodes[0]["cpu"] / window.seconds)
    costs["connection_bytes"], costs["node_bytes"] = slope(sizes, held), held[0]
    costs["connection_idle"] = slope(sizes, resting)
    # In a room of ten who comes is told to four and a half, on average.
    costs["join"] = median(coming)
    costs["db_person"] = median(written)
    note("they send commands")
    spent = []
    for rate in (200, 800):
        window = await bench.over(people.echo(rate, 3), 0)
        rest = costs["node_idle"] + costs["connection_idle"] * sizes[-1]
        spent.append((window.nodes[0]["cpu"] - rest * window.seconds) / (3 * rate))
    costs["command"] = spent[-1]
    note("they leave")
    window = await bench.over(people.leave(), 0)
    costs["leave"] = (window.nodes[0]["cpu"] - costs["node_idle"] * window.seconds) / sizes[-1]
    costs["db_left"] = window.nodes[0]["looker"] / sizes[-1]


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return how steep the line is that fits these points best."""
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


async def commits(bench: Bench, costs: Costs) -> None:
    """Publications that nobody hears: at the server that commits them, and in PostgreSQL."""
    node, spent = bench.nodes[0], []
    await asyncio.sleep(6)  # until those who left are forgotten
    await node.run(rate=20, burst=8, rooms=64, seconds=2, name="quiet")
    for rate, burst, rooms in ((40, 1, 64), (150, 1, 64), (20, 8, 64), (40, 32, 64), (40, 32, 1)):
        note(f"{burst} at once, {rate} times a second, in {rooms} room{'s' * (rooms > 1)}")
        window = await bench.over(node.run(rate=rate, burst=burst, rooms=rooms, seconds=2.5, name="quiet"))
        spent.append((window, window.nodes[0]))
    for writers in (1, 4, 16):
        note(f"{writers} writer{'s' * (writers > 1)}, one publication after the other")
        window = await bench.over(node.ask(f"/race?writers={writers}&rooms=64&seconds=2.5"))
        spent.append((window, window.nodes[0]))
    # How rested the writer was, on average, when it had something to do.
    rests = [one["batches"] * rested((all.seconds - one["cpu"]) / one["batches"]) for all, one in spent]
    names = ("commit", "commit_rested", "publication", "publication_rested")
    loads = [
        ((one["batches"], rest, one["published"], one["published"] * rest / one["batches"]), all, one)
        for rest, (all, one) in zip(rests, spent, strict=True)
    ]
    found = fit([(counts, one["cpu"] - costs["node_idle"] * all.seconds) for counts, all, one in loads])
    costs.update(zip(names, found, strict=True))
    costs["db_commit"], costs["db_commit_rested"], costs["db_publication"] = fit(
        [((one["batches"], rest, one["published"]), one["writer"]) for rest, (_, one) in zip(rests, spent, strict=True)]
    )
    costs["db_call"] = median(one["caller"] / one["calls"] for _, one in spent)


async def deliveries(bench: Bench, costs: Costs, scale: float) -> None:
    """Publications in a room that has members."""
    node, members, xs, ys = bench.nodes[0], Members(bench.nodes[0].server.port), [0.0], [0.0]
    for size in (20, 200, 800):
        size = round(size * scale)
        await members.join(["hall-0"] * (size - members.joined), 250)
        await asyncio.sleep(2)
        note(f"a room of {size} hears")
        window = await bench.over(node.run(rate=20, rooms=1, seconds=3, name="hall"))
        one = window.nodes[0]
        own = (costs["node_idle"] + costs["connection_idle"] * size) * window.seconds
        own += (costs["commit"] + costs["commit_rested"]) * one["batches"]
        own += (costs["publication"] + costs["publication_rested"]) * one["published"]
        costs["client"] = window.clients / (size * one["published"])
        xs.append(size * one["published"])
        ys.append(one["cpu"] - own)
    costs["delivery"] = slope(xs, ys)
    await members.leave()


async def others(bench: Bench, costs: Costs) -> None:
    """Publications of another server: at one that has members for them, and at one that has none."""
    here, there, _ = bench.nodes
    members, empty, full, behind = Members(there.server.port), [], [], []
    await members.join([f"room-{number}" for number in range(40)])
    for rate, burst in ((20, 1), (20, 8), (150, 1), (400, 1), (30, 32)):
        note(f"{burst} at once, {rate} times a second, at another server")
        window = await bench.over(here.run(rate=rate, burst=burst, rooms=40, seconds=3))
        _, one, none = window.nodes
        named = sum(node.get(role, 0.0) for node in window.nodes for role in ROLES)
        counts = sum(node["heard"] for node in window.nodes), window.nodes[0]["published"]
        behind.append((counts, window.database - named - costs["db_idle"] * window.seconds))
        for each in (one, none):
            each["cpu"] -= costs["node_idle"] * window.seconds
            each["seconds"] = window.seconds
            each["found"] = window.nodes[0]["published"]
            each["more"] = each["asks"] - window.seconds * 4
        one["cpu"] -= costs["connection_idle"] * 40 * window.seconds + costs["delivery"] * one["records"]
        empty.append(none)
        full.append(one)
    heard = await calls(bench, costs)
    heard += [(each["heard"], each["found"], each["seconds"], each["cpu"]) for each in empty]
    costs["hear"], costs["hear_rested"], costs["row"] = fit(
        [((number, number * rested(seconds / number), found), cpu) for number, found, seconds, cpu in heard]
    )
    costs["ask"], costs["record"] = fit(
        [
            ((each["more"], each["records"]), each["cpu"] - hearing(costs, each["heard"], each["seconds"]))
            for each in full
        ]
    )
    costs["db_ask"], costs["db_record"] = fit([((each["asks"], each["records"]), each["asker"]) for each in full])
    # The rest of PostgreSQL: what is listened by, its writer of the WAL, its checkpoints.
    costs["db_listener"], costs["db_behind"] = fit(behind)
    # A poll that finds publications has a row for each to look at, whoever follows their rooms.
    costs["db_row"] = fit([((each["found"],), each["asker"] - costs["db_poll"] * each["asks"]) for each in empty])[0]
    await members.leave()


def hearing(costs: Costs, heard: float, seconds: float) -> float:
    """Return what it costs a server to hear so many calls in so long."""
    return float(heard * (costs["hear"] + costs["hear_rested"] * rested(seconds / heard))) if heard else 0.0


async def calls(bench: Bench, costs: Costs) -> list[tuple[float, float, float, float]]:
    """Calls as from many servers, about rooms that nobody here follows: heard, found, in how long, for how much."""
    none, heard = bench.nodes[2], []
    epoch = (await none.ask("/poll?rooms=other&wait=0"))["cursor"].partition(":")[0]

    def call(rate: float, seconds: float) -> None:
        with psycopg.connect(bench.dsn, autocommit=True) as connection:
            began = time.monotonic()
            for number in range(int(rate * seconds)):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                told = json.dumps({"from": "another", "news": [f"other-{number % 100}"]})
                connection.execute("SELECT pg_notify(%s, %s)", (f"holdfast_{epoch}", told))

    for rate in (300, 1000, 2500):
        note(f"{rate} calls a second")
        window = await bench.over(asyncio.to_thread(call, rate, 2))
        one = window.nodes[2]
        heard.append((one["heard"], 0.0, 2.0, one["cpu"] - costs["node_idle"] * window.seconds))
    return heard


async def others_people(bench: Bench, costs: Costs) -> None:
    """People who come to another server: at one that has members in their rooms, and at one that has none."""
    here, there, _ = bench.nodes
    known, many = Members(there.server.port), Members(here.server.port)
    await known.join([f"lobby-{number}" for number in range(100)])
    await asyncio.sleep(1)
    spent, looked = [], []
    for pace, count in ((40, 120), (200, 400), (80, 200)):
        note(f"{count} people come to another server, {pace} a second")
        held = memory(there.server.pid)
        window = await bench.over(many.join([f"lobby-{number % 100}" for number in range(count)], pace), 1.0)
        one = window.nodes[1]
        own = (costs["node_idle"] + costs["connection_idle"] * 100) * window.seconds
        own += hearing(costs, one["heard"], window.seconds)
        spent.append(((one["looks"] - window.seconds, count), one["cpu"] - own))
        looked.append(((one["looks"], count), one["looker"]))
    costs["look"], costs["met"] = fit(spent)
    costs["db_look_busy"], costs["db_met"] = fit(looked)
    note("1,500 people come to a room that another server has")
    held = memory(there.server.pid)
    await many.join(["lobby-0"] * 1500, 250)
    await asyncio.sleep(2.5)
    costs["elsewhere_bytes"] = (memory(there.server.pid) - held) / 1500
    await many.leave(1000)
    await known.leave()


async def returns(bench: Bench, costs: Costs) -> None:
    """Members who come back to a server that does not know their rooms, ten publications behind."""
    here, there, _ = bench.nodes
    window = await bench.over(here.run(rate=20, burst=100, rooms=200, seconds=1, name="back"))
    await asyncio.sleep(1.0)
    epoch = (await here.ask("/poll?rooms=back-0&wait=0"))["cursor"].partition(":")[0]
    fresh, back, spent = Members(there.server.port), Members(there.server.port), []
    for members, since in ((fresh, None), (back, f"{epoch}:0")):
        note("200 come back, and have missed ten publications" if since else "200 come to rooms of their own")
        window = await bench.over(members.join([f"back-{number}" for number in range(200)], 100, since), 0.5)
        one = window.nodes[1]
        read = window.database - costs["db_idle"] * window.seconds
        read -= sum(node.get(role, 0.0) for node in window.nodes for role in ROLES)
        spent.append((one["cpu"] / 200, read / 200))
        await members.leave()
    costs["catch_up"], costs["db_catch_up"] = (max(0.0, a - b) for a, b in zip(spent[1], spent[0], strict=True))
    costs["db_span"] = spent[0][1]


def notifies(cluster: Cluster, costs: Costs) -> None:
    """A call, by how many listen to it: what it takes to wake one more."""
    xs, calling = [], []
    for listeners in (1, 8, 32):
        note(f"{listeners} listen")
        with ExitStack() as held:
            caller = held.enter_context(psycopg.connect(cluster.dsn("postgres"), autocommit=True))
            for _ in range(listeners):
                ear = held.enter_context(psycopg.connect(cluster.dsn("postgres"), autocommit=True))
                ear.execute('LISTEN "scale"')
            before = processor(caller.info.backend_pid)
            for _ in range(300):
                caller.execute("SELECT pg_notify(%s, call) FROM unnest(%s::text[]) call", ("scale", [TEXT]))
                time.sleep(0.004)
            xs.append(listeners)
            calling.append((processor(caller.info.backend_pid) - before) / 300)
    costs["db_signal"] = max(0.0, slope(xs, calling))


def leases(dsn: str, costs: Costs) -> None:
    """Renewals of a server's lease."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        node = connection.execute("SELECT id FROM holdfast_node WHERE until > now()").fetchone()
        assert node is not None
        spent = []
        for count in (100, 300):
            before = processor(connection.info.backend_pid)
            for _ in range(count):
                connection.execute(
                    "UPDATE holdfast_node SET until = now() + make_interval(secs => %s) "
                    "WHERE id = %s AND until > now()",
                    (12.0, node[0]),
                )
            spent.append(processor(connection.info.backend_pid) - before)
        costs["db_lease"] = slope((100, 300), spent)


def waits(dsn: str, costs: Costs) -> None:
    """What a commit waits for the disk, and what one log row leaves on it."""
    waited, plain = [], []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(250):
            connection.execute("BEGIN")
            connection.execute(
                "SELECT holdfast_append_many(%s, %s, %s, %s, %s)",
                ([f"wait-{number % 50}"], ["said"], [json.dumps({"text": TEXT})], [0], False),
            )
            before, began = processor(connection.info.backend_pid), time.perf_counter()
            connection.execute("COMMIT")
            waited.append(time.perf_counter() - began - (processor(connection.info.backend_pid) - before))
            began = time.perf_counter()
            connection.execute("SELECT 1")
            plain.append(time.perf_counter() - began)
            time.sleep(0.002)
        size = connection.execute(
            "SELECT pg_total_relation_size('holdfast_log'), count(*) FROM holdfast_log"
        ).fetchone()
        begin = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        for number in range(200):
            connection.execute(
                "SELECT holdfast_append_many(%s, %s, %s, %s, %s)",
                ([f"wait-{number % 50}"], ["said"], [json.dumps({"text": TEXT})], [0], False),
            )
        wal = connection.execute("SELECT pg_current_wal_lsn() - %s::pg_lsn", begin).fetchone()
    assert size is not None
    assert wal is not None
    waited.sort()
    # 21 points of the distribution, the last without the very slowest.
    costs["commit_waits"] = [
        round(waited[min(int(len(waited) * share / 20), len(waited) - 3)], 6) for share in range(21)
    ]
    costs["round_trip"] = median(plain)
    costs["log_bytes"] = size[0] / size[1]
    costs["wal_bytes"] = float(wal[0]) / 200


# Points that nothing is fitted to.


def percentiles(late: list[float]) -> dict[str, float]:
    late = sorted(late)
    return {"p50": median(late), "p99": late[int(0.99 * len(late))]}


async def point_latency(bench: Bench) -> dict[str, float]:
    """500 publications a second over 50 rooms at one server, heard at another by one member each."""
    here, there, _ = bench.nodes
    members = Members(there.server.port)
    await members.join([f"far-{number}" for number in range(50)])
    await here.run(rate=500, rooms=50, seconds=1, name="far")
    runs = []
    for _ in range(3):
        await asyncio.sleep(0.5)
        members.late.clear()
        window = await bench.over(here.run(rate=500, rooms=50, seconds=3, name="far"), 0)
        await asyncio.sleep(0.5)
        assert len(members.late) == 1500, len(members.late)
        runs.append({**percentiles(members.late), **rates(window)})
    await members.leave()
    return quietest(runs)


async def point_mix(bench: Bench) -> dict[str, float]:
    """1,000 people in rooms of 20, spread over two servers, 60 publications a second from each of these."""
    here, there, _ = bench.nodes
    first, second = Members(here.server.port), Members(there.server.port)
    for _ in range(10):
        await first.join([f"mix-{number}" for number in range(50)], 250)
        await second.join([f"mix-{number}" for number in range(50)], 250)
    await asyncio.sleep(2)
    runs = []
    for _ in range(3):
        first.late.clear()
        second.late.clear()
        work = (
            node.run(rate=60, rooms=50, seconds=3, name="mix", first=first) for node, first in ((here, 0), (there, 25))
        )
        window = await bench.over(asyncio.gather(*work), 0)
        await asyncio.sleep(0.5)
        assert len(first.late + second.late) == 2 * 60 * 3 * 20
        runs.append({**percentiles(first.late + second.late), **rates(window)})
    await first.leave()
    await second.leave()
    return quietest(runs)


def quietest(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the run in which others worked least on this machine."""
    return min(runs, key=lambda run: run["foreign_servers"] + run["foreign_database"])


def rates(window: Window) -> dict[str, float]:
    """Return shares of a core, and events per second, all over the window."""
    here, there, none = window.nodes
    return {
        "cpu_here": here["cpu"] / window.seconds,
        "cpu_there": there["cpu"] / window.seconds,
        "cpu_none": none["cpu"] / window.seconds,
        "cpu_database": window.database / window.seconds,
        "asks_there": there["asks"] / window.seconds,
        "calls": (here["calls"] + there.get("calls", 0)) / window.seconds,
        "batches": (here["batches"] + there["batches"]) / window.seconds,
        "foreign_servers": window.foreign[0],
        "foreign_database": window.foreign[1],
    }


async def point_race(bench: Bench, rooms: int) -> dict[str, float]:
    """64 writers, each of which publishes as soon as its last publication is acknowledged."""
    runs = []
    for _ in range(3):
        window = await bench.over(bench.nodes[0].ask(f"/race?writers=64&rooms={rooms}&seconds=2.5"), 0)
        (node,) = window.nodes
        foreign = {"foreign_servers": window.foreign[0], "foreign_database": window.foreign[1]}
        runs.append({"publications": node["published"] / window.seconds, **foreign})
    return quietest(runs)


async def measure(scale: float) -> dict[str, Any]:
    programs = binaries()
    if programs is None:
        sys.exit("there is no PostgreSQL (Debian: apt install postgresql)")
    allow_files()
    os.sched_setaffinity(0, {CORES[-1]})
    costs: Costs = {}
    points: dict[str, dict[str, float]] = {}
    shares: list[float] = []
    with Cluster(programs) as cluster:
        with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = on")
            connection.execute("SELECT pg_reload_conf()")
        with serving(cluster, "one", 1) as bench:
            await warm(bench)
            note("one server is idle")
            await idle(bench, costs)
            await crowds(bench, costs, scale)
            await commits(bench, costs)
            await deliveries(bench, costs, scale)
            bench.go_first()
            for rooms in (32, 1):
                note(f"64 writers, {rooms} room{'s' * (rooms > 1)}")
                points[f"race_{rooms}"] = await point_race(bench, rooms)
            shares += bench.foreign
            leases(bench.dsn, costs)
            waits(bench.dsn, costs)
        notifies(cluster, costs)
        with serving(cluster, "three", 3) as bench:
            await warm(bench)
            await others(bench, costs)
            await others_people(bench, costs)
            await returns(bench, costs)
            bench.go_first()
            note("500 publications/s over 50 rooms, from one server to another")
            points["latency"] = await point_latency(bench)
            note("1,000 people in rooms of 20 on two servers, 120 publications/s")
            points["mix"] = await point_mix(bench)
            shares += bench.foreign
    return {
        "machine": f"{len(CORES)} cores, {processor_name()}, Python {platform.python_version()}, PostgreSQL 15",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "foreign": round(sum(shares) / len(shares), 2),
        "costs": {key: value if isinstance(value, list) else float(f"{value:.4g}") for key, value in costs.items()},
        "points": {
            name: {key: float(f"{value:.4g}") for key, value in point.items()} for name, point in points.items()
        },
    }


def processor_name() -> str:
    with suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if found is not None:
            return found[1]
    return platform.machine()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="where the model is to find the constants")
    parser.add_argument("--scale", type=float, default=1.0, help="of the crowds, for a try")
    asked = parser.parse_args()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            found = await measure(asked.scale)
    finally:
        prefer(os.getpid(), 0)
    for name, value in found["costs"].items():
        print(f"  {name:18} {value}")
    for name, point in found["points"].items():
        print(f"  {name}: {point}")
    if asked.write is not None:
        asked.write.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
