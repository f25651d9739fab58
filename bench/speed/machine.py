"""What runs where, and what it costs: programs in C, servers on the first core, clients on the last."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from processes import children, memory, processor  # noqa: E402

#: Where what was compiled is kept.
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "holdfast-bench"
CORES = sorted(os.sched_getaffinity(0))
SERVERS, CLIENTS = {CORES[0]}, {CORES[-1]}
#: Seconds that a server has to be there, and that whatever is sent has to arrive.
START_SECONDS, ARRIVAL_SECONDS = 30.0, 60.0


@cache
def compiled(name: str) -> str:
    """Return a program of this folder that was written in C."""
    compiler = shutil.which("cc") or sys.exit("the floor and the clients are in C: there is no cc (apt install gcc)")
    source = HERE / f"{name}.c"
    program = CACHE / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
    return str(program)


def free_port() -> int:
    """Return a port that nobody has now, nor the next, and that nobody dials from."""
    while True:
        port = random.randrange(10_000, 30_000)
        with suppress(OSError), socket.socket() as one, socket.socket() as next:
            one.bind(("127.0.0.1", port))
            next.bind(("127.0.0.1", port + 1))
            return port


class Running:
    """A process, with those that it starts."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def _all(self, pid: int) -> Iterator[int]:
        yield pid
        for child in children(pid):
            yield from self._all(child)

    def processor(self) -> float:
        """Return the seconds of processor time that they have used."""
        return sum(map(processor, self._all(self.process.pid)))

    def memory(self) -> int:
        """Return the bytes of memory that are theirs."""
        return sum(map(memory, self._all(self.process.pid)))


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which something is measured: Python keeps what it has compiled."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | dict(more)


@contextmanager
def server(line: Sequence[str], env: Mapping[str, str], port: int, home: Path) -> Iterator[Running]:
    """Run a server on its core until it is not needed any more."""
    log = home / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            line, cwd=home, env=environment(env), stdout=out, stderr=out, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, SERVERS),
        )  # fmt: skip
        try:
            wait_for(port, process, log)
            yield Running(process)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[str], log: Path) -> None:
    """Wait until somebody listens there."""
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.005)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")


def post(port: int, path: str, body: bytes = b"") -> bytes:
    """Ask a server to do something, and wait until it has."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=120) as answer:
        return bytes(answer.read())


@dataclass(frozen=True)
class Stat:
    """What a crowd has heard, all together; who had least of it, and who had most. Times in milliseconds."""

    deliveries: int
    messages: int
    bytes: int
    lost: int
    missing: int
    repeated: int
    least: int
    most: int
    p50: float
    p99: float
    longest: float

    def check(self, each: int) -> None:
        """Raise unless everybody had so many deliveries, each of them once, and stayed."""
        if (self.least, self.most) != (each, each) or self.lost or self.missing or self.repeated:
            raise RuntimeError(f"of {each} deliveries to each not all came once: {self}")


@dataclass(frozen=True)
class Returned:
    """How a crowd came back (`crowd.c`, `return`); times in seconds, NaN: there was none."""

    back: int
    behind: int
    missing: int
    repeated: int
    resyncs: int
    sent_away: int
    unanswered: int
    refused: int
    p50: float
    p95: float
    longest: float
    late: float
    waited: float


class Program:
    """A program of this folder, that is told what to do line by line, and answers each with one."""

    def __init__(self, name: str, *arguments: object, cores: set[int]) -> None:
        self.process = subprocess.Popen(
            [compiled(name), *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip

    def ask(self, line: str) -> list[str]:
        """Say a line, and return the words of the answer."""
        self.say(line)
        return self.hear()

    def say(self, line: str) -> None:
        """Say a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> list[str]:
        """Return the words of the next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


class Crowd(Program):
    """Many WebSockets that cost next to nothing (`crowd.c`)."""

    def __init__(self, port: int, count: int, *options: object) -> None:
        super().__init__("crowd", "127.0.0.1", port, count, *options, cores=CLIENTS)
        self.count = count

    def open(self) -> float:
        """Have all of them in; return how many seconds it took."""
        come, turned_away, seconds = self.ask("open")
        if int(come) != self.count or int(turned_away):
            raise RuntimeError(f"{come} of {self.count} got in, {turned_away} were turned away meanwhile")
        return float(seconds)

    @contextmanager
    def expecting(self, deliveries: int) -> Iterator[None]:
        """
        Wait until so many deliveries have come since `stat`, from here on: they do not sleep while they wait.

        Else the server pays for waking them, here where they are on the same machine: the more, the slower it is.
        """
        self.say(f"await {deliveries} {ARRIVAL_SECONDS}")
        yield
        (come,) = self.hear()
        if int(come) != deliveries:
            raise RuntimeError(f"of {deliveries} deliveries {come} came")

    def wait(self, deliveries: int) -> None:
        """Wait until so many deliveries have come since `stat`."""
        with self.expecting(deliveries):
            pass

    def stat(self) -> Stat:
        """Return what has come since this was asked last."""
        *counts, p50, p99, longest = self.ask("stat")
        return Stat(*map(int, counts), *(float(us) / 1000 for us in (p50, p99, longest)))

    def all_there(self) -> Stat:
        """Return what has come since `stat`, if nobody was lost meanwhile."""
        stat = self.stat()
        if stat.lost:
            raise RuntimeError(f"{stat.lost} of {self.count} were lost")
        return stat

    def echo(self, each: int, seconds: float, text: str) -> tuple[int, float]:
        """Have each of them say something so many times; return how many answers there were, after how many seconds."""
        answers, took = self.ask(f"echo {each} {seconds} {text}")
        if int(answers) != each * self.count:
            raise RuntimeError(f"of {each * self.count} messages {answers} were answered")
        return int(answers), float(took)

    def heads(self) -> list[int]:
        """Return the offset of the last publication of each room that anybody has heard."""
        return list(map(int, self.ask("heads")))

    def returned(self, seconds: float) -> Returned:
        """Wait until all are in again and have all that there is, but no longer than so many seconds."""
        *counts, p50, p95, longest, late, waited = self.ask(f"return {seconds}")
        return Returned(*map(int, counts), *(float(ms) / 1000 for ms in (p50, p95, longest, late, waited)))


@contextmanager
def crowd(port: int, count: int, *options: object) -> Iterator[Crowd]:
    """Have a crowd, that is not in yet."""
    clients = Crowd(port, count, *options)
    try:
        yield clients
    finally:
        clients.end()


@contextmanager
def sender(port: int, size: int) -> Iterator[Program]:
    """Run the C program that does nothing but send (`floor.c`)."""
    program = Program("floor", port, size, cores=SERVERS)
    try:
        program.hear()
        yield program
    finally:
        program.end()


def floor(members: int, size: int, rounds: int, gap: float) -> float:
    """Return what a delivery costs a C program that does nothing but send: seconds of processor time."""
    port = free_port()
    with sender(port, size) as program, crowd(port, members) as clients:
        clients.open()
        with clients.expecting((3 + rounds) * members):
            program.ask("go 3 1000")
            nanoseconds, sent = map(int, program.ask(f"go {rounds} {round(gap * 1e6)}"))
    return nanoseconds / sent / 1e9
