"""What is measured: each figure is a function that yields its results for one contestant."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from contestants import SIZE, Board, Contestant, Holdfast, Started
from machine import CLIENTS, SERVERS, Crowd, Stat, crowd, environment, floor, free_port, post, server

#: Bytes of the frame of a message.
FRAME = SIZE + 4
MEMBERS = (1_000, 5_000)
#: Messages of one moment.
BURST = 20
#: Of processor time, about, that deliveries one after the other are to take.
SECONDS = 1.0
#: What a send costs, about, for how often it is to be done.
FLOOR = 6e-6
#: Until everybody has been told who else has come; and until what comes twice is there, too.
SETTLED_SECONDS, TWICE_SECONDS = 3.0, 0.1
#: How many say something, how often, and how long all answers have to come.
ECHO_PEOPLE, ECHO_EACH, ECHO_SECONDS = 500, 40, 60.0
#: Of people who come and go.
CHURN_SECONDS = 3600.0
MIB = 1 << 20
Result = dict[str, Any]


@contextmanager
def started(contestant: Contestant) -> Iterator[Started]:
    """Run a contestant in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as home, contestant.serving(Path(home)) as one:
        yield one


def deliver(one: Started, clients: Crowd, rounds: int, burst: int, gap: float) -> tuple[float, Stat]:
    """Publish to all of them; return what a delivery cost the server, and how late they were."""
    clients.all_there()
    before, deliveries = one.running.processor(), rounds * burst * clients.count
    with clients.expecting(deliveries):
        began = time.monotonic()
        one.go(rounds, burst, gap, SIZE)
        took = time.monotonic() - began
    if gap and took > rounds * gap / 0.9:
        raise RuntimeError(f"{rounds} rounds, one every {gap:.3f} s, took {took:.3f} s: what was due came later")
    cost = (one.running.processor() - before) / deliveries
    time.sleep(TWICE_SECONDS)
    stat = clients.stat()
    stat.check(rounds * burst)
    return cost, stat


def fanout(contestant: Contestant) -> Iterator[Result]:
    """A delivery of a message to a member of a large room, one after the other and in bursts."""
    sizes = MEMBERS[:1] if contestant.dear else (*MEMBERS, 9_900) if isinstance(contestant, Holdfast) else MEMBERS
    for members in sizes:
        with started(contestant) as one, crowd(one.port, members, *contestant.crowd, "--in-order") as clients:
            clients.open()
            time.sleep(SETTLED_SECONDS)
            guess, _ = deliver(one, clients, 3, 1, 0.0)
            rounds = max(3, round(SECONDS / guess / members))
            for mode, burst in (("paced", 1), ("burst", BURST)):
                gap = 2.2 * guess * members if mode == "paced" else 0.0
                sends = max(10, round(SECONDS / FLOOR / members))
                least = floor(members, SIZE, sends, 2.2 * FLOOR * members if gap else 0.0)
                each, stat = deliver(one, clients, rounds if gap else max(3, rounds // burst), burst, gap)
                if abs(stat.bytes / stat.deliveries - FRAME) > 3:
                    raise RuntimeError(f"a message has {stat.bytes / stat.deliveries:.0f} bytes, the floor's {FRAME}")
                yield {
                    "members": members, "mode": mode, "cost": each, "floor": least, "ratio": each / least,
                    "p50": stat.p50, "p99": stat.p99,
                }  # fmt: skip


def burst(contestant: Contestant) -> Iterator[Result]:
    """How late the twenty messages of one moment are."""
    for members in () if contestant.dear else MEMBERS:
        with started(contestant) as one, crowd(one.port, members, *contestant.crowd, "--in-order") as clients:
            clients.open()
            time.sleep(SETTLED_SECONDS)
            guess, _ = deliver(one, clients, 3, 1, 0.0)
            gap = 2.2 * BURST * guess * members
            _, stat = deliver(one, clients, 5, BURST, gap)
            yield {"members": members, "p99": stat.p99}


def rooms(contestant: Contestant) -> Iterator[Result]:
    """A delivery in a room of 1,000, alone and beside 8,900 other rooms."""
    if not isinstance(contestant, Holdfast):
        return
    members, others = 1_000, 8_900
    elsewhere = [word.replace("user-", "other-") for word in contestant.crowd]
    elsewhere = [word.replace('"room":"room"', '"room":"room-%r"') for word in elsewhere]
    with started(contestant) as one, crowd(one.port, members, *contestant.crowd, "--in-order") as clients:
        clients.open()
        gap = 3 * FLOOR * members
        deliver(one, clients, 10, 1, gap)
        alone, _ = deliver(one, clients, 150, 1, gap)
        with crowd(one.port, others, *elsewhere, "--rooms", others) as neighbours:
            neighbours.open()
            time.sleep(SETTLED_SECONDS)
            beside, _ = deliver(one, clients, 150, 1, gap)
    yield {"others": others, "alone": alone, "beside": beside}


def people(contestant: Contestant) -> Iterator[Result]:
    """Somebody who comes, into one room with all the others, and who is there then and says nothing."""
    count = 1_000 if contestant.dear else 9_900
    with started(contestant) as one, crowd(one.port, 100, *contestant.crowd) as first:
        first.open()
        first.ask("close")
        time.sleep(1)
        before, memory = one.running.processor(), one.running.memory()
        with crowd(one.port, count, *contestant.crowd) as clients:
            seconds = clients.open()
            came = one.running.processor() - before
            time.sleep(SETTLED_SECONDS)
            result = {"count": count, "cost": came / count, "bytes": (one.running.memory() - memory) / count}
            stat = clients.all_there()
            if isinstance(contestant, Holdfast):  # beside `connected` and `joined`, all that they heard is who came
                result["presence"] = (stat.messages - 2 * count) / seconds / count
                # its pings are spread; of others it matters when it is looked
                before = one.running.processor()
                time.sleep(15)
                result["idle"] = (one.running.processor() - before) / 15
                result["busy"] = float(post(one.port, "/busy?seconds=15"))
                result |= more(one, clients, contestant)
    yield result


def more(one: Started, clients: Crowd, contestant: Contestant) -> Result:
    """A few more at once, where all the others are already: in how many seconds, and how often these were told."""
    late = [word.replace("user-", "late-") for word in contestant.crowd]
    with crowd(one.port, 90, *late) as few:
        clients.all_there()
        seconds = few.open()
        time.sleep(SETTLED_SECONDS)
        stat = clients.all_there()
        if stat.messages < clients.count:
            raise RuntimeError(f"{stat.messages} messages told {clients.count} that more have come")
        return {"more": few.count, "more_seconds": seconds, "more_told": stat.messages / clients.count}


def echo(contestant: Contestant) -> Iterator[Result]:
    """A small message of a client, which is handed to the application and said back."""
    if not contestant.echo:
        return
    options = (*contestant.crowd, "--echoed", contestant.echoed)
    with started(contestant) as one, crowd(one.port, ECHO_PEOPLE, *options) as clients:
        clients.open()
        clients.echo(5, ECHO_SECONDS, contestant.echo)
        time.sleep(2)  # what a client may say in a second is limited
        before = one.running.processor()
        answers, seconds = clients.echo(ECHO_EACH, ECHO_SECONDS, contestant.echo)
        used = one.running.processor() - before
        time.sleep(TWICE_SECONDS)
        if repeated := clients.all_there().repeated:
            raise RuntimeError(f"{repeated} answers came twice")
    yield {"cost": used / answers, "rate": answers / seconds}


def resume(contestant: Contestant) -> Iterator[Result]:
    """A client that returns, 100 publications behind: the handshake, and what it has missed."""
    if not isinstance(contestant, Holdfast):
        return
    behind, count = 100, 1_000
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as home:
        with contestant.serving(Path(home)) as one:
            one.go(1, behind, 0.0, SIZE)
            since = json.loads(post(one.port, f"/head?behind={behind}"))
            options = [word.replace('"room":"room"', '"room":"room"%p') for word in contestant.crowd]
            options += ["--since", since]
            returning(one, count, behind, options)  # once for nothing: what is needed later is made now
            cost = returning(one, count, behind, options)
        with contestant.serving(Path(home)) as one:
            with crowd(one.port, count, *contestant.crowd) as clients:  # they have missed nothing
                clients.open()
                clients.ask("close")
            time.sleep(1)
            yield {"cost": cost, "restarted": returning(one, count, behind, options)}


def returning(one: Started, count: int, behind: int, options: Sequence[str]) -> float:
    """Have so many return; return what each cost."""
    before = one.running.processor()
    with crowd(one.port, count, *options) as clients:
        clients.open()
        clients.wait(count * behind)
        cost = (one.running.processor() - before) / count
        time.sleep(TWICE_SECONDS)
        clients.stat().check(behind)
        clients.ask("close")
    time.sleep(1)
    return cost


def storm(contestant: Contestant) -> Iterator[Result]:
    """10,000 in 50 rooms, whose server is killed, or told to end, and started again, while there is news."""
    if not isinstance(contestant, Holdfast):
        return
    rooms, count = 50, 9_900
    crowded = [word.replace('"room":"room"', '"room":"room-%r"%p') for word in contestant.crowd]
    options = [*crowded, "--rooms", rooms, "--return"]
    for kind, how in (("kill -9", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder, ExitStack() as stack:
            home, port = Path(folder), free_port()
            first = stack.enter_context(server(contestant.line(port, home), contestant.env(), port, home))
            clients = stack.enter_context(crowd(port, count, *options))
            clients.open()
            news = News(port, rooms)
            with news.running():
                time.sleep(3)
                steady, stat, failed = first.memory(), clients.all_there(), news.failed
                if stat.missing or stat.repeated or failed:
                    raise RuntimeError(f"not all was well before, and {failed} publications failed: {stat}")
                began, before = time.monotonic(), news.published
                first.process.send_signal(how)
                first.process.wait(15)
                second = stack.enter_context(server(contestant.line(port, home), contestant.env(), port, home))
                failed, looks = news.failed, list[int]()
                with Meanwhile(0.5, lambda: looks.append(second.memory())):  # noqa: B023 - it ends here
                    clients.returned(60)
                    due, published = News.due(time.monotonic() - began), news.published - before
                    time.sleep(3)
            time.sleep(1)  # what came last is on its way
            then, lost = clients.returned(5), clients.stat().lost
            if news.failed > failed or published < 0.8 * due:
                raise RuntimeError(f"{published} of {due} were published meanwhile, {news.failed - failed} failed")
            unheard = sum(max(0, said - heard) for said, heard in zip(news.offsets(), clients.heads(), strict=True))
            yield {
                "kind": kind, "count": count, "back": then.back, "behind": then.behind, "again": lost - count,
                "missing": then.missing + unheard, "repeated": then.repeated, "resyncs": then.resyncs,
                "forgotten": news.forgotten, "sent_away": then.sent_away, "unanswered": then.unanswered,
                "refused": then.refused,
                "p50": then.p50, "p95": then.p95, "longest": then.longest, "waited": then.waited, "late": then.late,
                "published": published, "slowest": news.slowest,
                "memory": max(looks) / steady,
            }  # fmt: skip


def churn(contestant: Contestant) -> Iterator[Result]:
    """An hour in which people come and go, each of them once: a thousand every ten seconds, in 50 rooms with news."""
    if not isinstance(contestant, Holdfast):
        return
    rooms, count = 50, 1_000
    with started(contestant) as one, (news := News(one.port, rooms)).running():
        began, crowds, looks = time.monotonic(), 0, list[tuple[float, int]]()
        while (since := time.monotonic() - began) < CHURN_SECONDS:
            mine = [word.replace("user-", f"user-{crowds}-") for word in contestant.crowd]
            mine = [word.replace('"room":"room"', '"room":"room-%r"') for word in mine]
            with crowd(one.port, count, *mine, "--rooms", rooms) as clients:
                clients.open()
                if crowds % 2:
                    clients.ask("close")  # else their process is killed
            crowds += 1
            time.sleep(max(0.0, began + 10 * crowds - time.monotonic()))
            looks.append((since, one.running.memory()))
            if crowds % 6 == 0:
                say(f"churn: {crowds * count:,} came and went, {looks[-1][1] / MIB:.1f} MiB")
        if news.failed or news.forgotten or news.published < 0.9 * News.due(time.monotonic() - began):
            raise RuntimeError(f"{news.published} were published, {news.failed} failed, {news.forgotten} are forgotten")
        settled = [memory for since, memory in looks if since >= CHURN_SECONDS / 10]
        part = len(settled) // 3
        yield {
            "seconds": CHURN_SECONDS, "came": crowds * count, "begin": statistics.median(settled[:part]) / MIB,
            "end": statistics.median(settled[-part:]) / MIB, "most": max(settled) / MIB,
        }  # fmt: skip


class Meanwhile(threading.Thread):
    """Does something every so many seconds, beside all else, until it is over; what goes wrong there is raised then."""

    def __init__(self, seconds: float, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._seconds, self._work = seconds, work
        self._over = threading.Event()
        self._problem: Exception | None = None

    def __enter__(self) -> Meanwhile:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        if self._problem is not None:
            raise self._problem

    def run(self) -> None:
        """Do it."""
        os.sched_setaffinity(0, CLIENTS)
        due = time.monotonic()
        try:
            while not self._over.wait(max(0.0, due - time.monotonic())):
                self._work()
                due = max(due + self._seconds, time.monotonic() - 1)  # of what could not be, a second is made up for
        except Exception as problem:
            self._problem = problem


class News:
    """
    Publishes, into a few of the rooms at a time, and looks whether the log goes on where it was acknowledged.

    By several links, each when it is due, or as soon as the one before is acknowledged: what is late because the server
    is, counts as late.
    """

    FEW, EVERY, LINKS = 5, 0.1, 4  # rooms, seconds, links

    def __init__(self, port: int, rooms: int) -> None:
        self._port = port
        self._positions: list[tuple[str, int]] = [("", 0)] * rooms
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.published = 0
        self.failed = 0  # times that nobody answered
        self.forgotten = 0  # publications that were acknowledged, and are not in the log
        self.slowest = 0.0  # seconds that one took, with the dialing

    @contextmanager
    def running(self) -> Iterator[None]:
        """Publish until this is left; what goes wrong there is raised then."""
        began = time.monotonic()
        with ThreadPoolExecutor(self.LINKS) as pool:
            publishing = [pool.submit(self._publish, number, began) for number in range(self.LINKS)]
            try:
                yield
            finally:
                self._over.set()
            for each in publishing:
                each.result()

    def _publish(self, number: int, began: float) -> None:
        os.sched_setaffinity(0, CLIENTS)
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for turn in itertools.count(number, self.LINKS):
            due = began + turn * self.EVERY
            if self._over.wait(max(0.0, due - time.monotonic())):
                return
            while not self._say(link, turn * self.FEW % len(self._positions), due):
                self.failed += 1
                if self._over.wait(0.02):
                    return

    def _say(self, link: http.client.HTTPConnection, first: int, due: float) -> bool:
        """Publish once; return whether there is a server."""
        before, began = self._positions[first : first + self.FEW], time.monotonic()
        try:
            link.request("POST", f"/say?first={first}&rooms={self.FEW}&at={int(1e9 * due)}")
            answer = link.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException):
            link.close()  # the next time it dials
            return False
        if answer.status != 200:
            raise RuntimeError(f"a publication was refused: {answer.status}")
        with self._lock:
            self.slowest = max(self.slowest, time.monotonic() - began)
            for room, position in enumerate(json.loads(said), first):
                epoch, offset = position.split(":")
                known, last = before[room - first]
                self.forgotten += known not in ("", epoch) or int(offset) <= last
                self._positions[room] = epoch, max(int(offset), self._positions[room][1])
                self.published += 1
        return True

    @classmethod
    def due(cls, seconds: float) -> int:
        """Return how many publications are to be made in so many seconds."""
        return cls.FEW * round(seconds / cls.EVERY)

    def offsets(self) -> list[int]:
        """Return where each room stands."""
        return [offset for _, offset in self._positions]


def publish(contestant: Contestant) -> Iterator[Result]:
    """A publication, acknowledged when SQLite has it on the disk (`synchronous=FULL`)."""
    if not isinstance(contestant, Holdfast):
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as home, contestant.serving(Path(home)) as one:
        races = [json.loads(post(one.port, f"/race?writers={writers}&seconds=5")) for writers in (64, 1, 64)]
        with closing(sqlite3.connect(Path(home, "bench.db"))) as file:
            [[there]] = file.execute("SELECT sum(head) FROM holdfast_room")
    if there != sum(count for count, _ in races):
        raise RuntimeError(f"{there} publications are there, and {races} were acknowledged, in so many seconds")
    _, alone, rate = (count / seconds for count, seconds in races)
    if alone * (flushed := fsync()) > 1:
        raise RuntimeError(f"{alone:.0f} publications a second do not wait for an fsync of {flushed:.6f} s")
    yield {"alone": alone, "rate": rate, "fsync": flushed}


def fsync() -> float:
    """Return how long the disk takes to have four more kilobytes of a file for certain, in seconds."""
    with tempfile.NamedTemporaryFile() as file:
        times = []
        for _ in range(200):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def board(contestant: Contestant) -> Iterator[Result]:
    """A task that is created by REST, 100 a second, until everybody on the board has it: 1,000 WebSockets."""
    if contestant.slug != "holdfast":
        return
    members, count, rate, links = 1_000, 500, 100, 4
    with started(Board()) as one, crowd(one.port, members, *Board.crowd) as clients:
        clients.open()
        time.sleep(SETTLED_SECONDS)
        clients.all_there()
        began = time.monotonic() + 0.1

        def create(number: int) -> None:
            os.sched_setaffinity(0, CLIENTS)
            link = http.client.HTTPConnection("127.0.0.1", one.port)
            for turn in range(number, count, links):
                due = began + turn / rate  # from when it counts, also if the one before is not answered yet
                time.sleep(max(0.0, due - time.monotonic()))
                task = {"listId": "list-todo", "title": f"at={int(1e9 * due)}"}
                link.request("POST", "/tasks", json.dumps(task), {"content-type": "application/json"})
                answer = link.getresponse()
                answer.read()
                if answer.status != 201:
                    raise RuntimeError(f"a task was refused: {answer.status}")

        before = one.running.processor()
        with clients.expecting(count * members), ThreadPoolExecutor(links) as pool:
            list(pool.map(create, range(links)))
            took = time.monotonic() - began
        if took > count / rate / 0.95:
            raise RuntimeError(f"{count / took:.0f} tasks a second could be created, and not {rate}")
        busy = (one.running.processor() - before) / took
        time.sleep(TWICE_SECONDS)
        stat = clients.stat()
    stat.check(count)
    yield {"p50": stat.p50, "p99": stat.p99, "longest": stat.longest, "busy": busy}


def start(contestant: Contestant) -> Iterator[Result]:
    """From nothing to the first byte of an answer; and how long Python takes to import either side."""
    began = time.perf_counter()
    with started(contestant) as one, socket.create_connection(("127.0.0.1", one.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        sock.recv(1)
        result = {"seconds": time.perf_counter() - began}
    if contestant.slug == "holdfast":
        result |= {name: imported(contestant, f"from holdfast import {name}") for name in ("Hub", "connect")}
        result["asyncio"] = imported(contestant, "import asyncio")
    yield result


def imported(contestant: Contestant, statement: str) -> float:
    """Return how many seconds an interpreter that has started takes for that, when it has been compiled."""
    program = f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    line = [str(contestant.python), "-c", program]
    said = [subprocess.run(
        line, env=environment(contestant.env()), stdout=subprocess.PIPE, check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, SERVERS),
    ).stdout for _ in range(2)]  # fmt: skip
    return float(said[-1])


def say(line: str) -> None:
    """Tell whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


FIGURES: dict[str, Callable[[Contestant], Iterator[Result]]] = {
    figure.__name__: figure
    for figure in (fanout, burst, rooms, people, echo, resume, storm, publish, board, start, churn)
}
