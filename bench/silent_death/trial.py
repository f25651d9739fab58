"""One fault at one system, with real sockets and real processes; and what came of it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from failures import Fault
from links import Link
from systems import Command, System

WATCHED = 120.0  # seconds, for ghosts from the fault on, for the rest from its end on
PATIENCE = 5.0  # that a publisher has for one answer
LATE = 1.0  # seconds after which something acknowledged should be everywhere


@dataclass(frozen=True)
class Scale:
    """How large it is, and how long it takes."""

    listeners: int = 10
    struck: int = 5
    warm: float = 5.0  # before the fault
    calm: float = 10.0  # all have been up to date for so long: it is over
    short: float = 1.0  # what a fault's length is multiplied by


@dataclass
class Outcome:
    """What came of it. Seconds; None: never, or not asked."""

    system: str
    fault: str
    struck: int = 0
    wanted: int = 0  # how many it wanted to publish
    acknowledged: int = 0
    lost: int = 0  # by those who were struck, together
    repeated: int = 0
    disordered: int = 0
    losers: int = 0  # who lost something
    told: int = 0  # of those
    warned: int = 0  # who were told, and had lost nothing
    ghost: float | None = None
    consistent: float | None = None
    growth: float | None = None  # bytes
    others_lost: int = 0
    others_waited: float = 0.0  # the longest, from publishing on
    not_run: str = ""
    date: str = ""
    versions: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Listener:
    """What one of them has said."""

    heard: list[tuple[float, int]] = field(default_factory=list)
    newest: int = 0
    up: float | None = None  # since when it has a connection
    told: int = 0

    def take(self, when: float, what: str, value: Any) -> None:
        match what:
            case "heard":
                self.heard.append((when, value))
                self.newest = max(self.newest, value)
            case "up":
                self.up = when
            case "down":
                self.up = None
            case "told":
                self.told += 1


class Process:
    """A process and its children, in a group of their own."""

    def __init__(self, command: Command, home: Path) -> None:
        self.command = command
        self.home = home
        self.running: asyncio.subprocess.Process | None = None

    async def start(self, **pipes: Any) -> asyncio.subprocess.Process:
        with (self.home / "log").open("ab") as log:
            self.running = await asyncio.create_subprocess_exec(
                *self.command.line,
                cwd=self.home,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **self.command.env},
                start_new_session=True,
                stderr=log,
                **{"stdout": log, "stdin": subprocess.DEVNULL, **pipes},
            )
        return self.running

    def signal(self, number: signal.Signals) -> None:
        if self.running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.running.pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.running is not None:
            await self.running.wait()

    def memory(self) -> int:
        """Return the bytes that it and its children hold; pages that they share are counted once."""
        return 0 if self.running is None else sum(resident(pid) for pid in family(self.running.pid))


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(other for child in children for other in family(int(child)))]


def resident(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def ask(port: int, path: str, body: bytes | None = None) -> bytes:
    """Return the answer to a GET or a POST; raises OSError if there is none that is good."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + (body or b""))
        said = await reader.read()
    finally:
        writer.close()
    status, _, answer = said.partition(b"\r\n\r\n")
    if status[8:11] != b" 20":
        raise OSError(status.split(b"\r\n")[0].decode() or "no answer")
    return answer


class Trial:
    """A server, those who listen to it, one who publishes, and a fault."""

    def __init__(self, system: System, fault: Fault, scale: Scale, home: Path) -> None:
        self.system = system
        self.fault = fault
        self.scale = scale
        self.home = home
        self.port = free_port()
        self.beside = free_port()
        self.server = Process(system.serve(home, self.port, self.beside), home)
        self.links = [Link(self.port) for _ in range(scale.listeners)]
        self.listeners = [Listener() for _ in range(scale.listeners + 1)]  # the last one has no link, and no fault
        self.published: dict[int, float] = {}  # when it was begun
        self.acknowledged: dict[int, float] = {}
        self.wanted = 0
        self.memories: list[int] = []
        self.struck_at = self.healed_at = 0.0
        self.ghost: float | None = None

    async def run(self) -> Outcome:
        async with AsyncExitStack() as stack:
            beside = self.system.prepare(self.home, self.beside)
            if beside is not None:
                await stack.enter_async_context(running(Process(beside, self.home)))
                await listens(self.beside)
            await stack.enter_async_context(running(self.server))
            await speaks(self.port)
            for link in self.links:
                await stack.enter_async_context(link)
            ports = [*(link.port for link in self.links), self.port]
            program = Process(self.system.listen([self.system.url.format(port=port) for port in ports]), self.home)
            listening = await program.start(stdout=subprocess.PIPE, stdin=subprocess.PIPE)
            stack.push_async_callback(program.kill)
            tasks = [asyncio.create_task(self._hear(listening))]
            stack.push_async_callback(stop, tasks)
            await self._all_are_up()
            publishing = asyncio.create_task(self._publish())
            tasks += [publishing, asyncio.create_task(self._weigh())]
            await asyncio.sleep(self.scale.warm)
            await self._break(tasks)
            await stop([publishing])
            await asyncio.sleep(2)
        return self._judge()

    async def _break(self, tasks: list[asyncio.Task[None]]) -> None:
        self.memories = self.memories[-1:]  # what grows from here on
        self.struck_at = time.monotonic()
        seconds = self.fault.seconds * self.scale.short
        if self.fault.strike is not None:
            for link in self.links[: self.scale.struck]:
                self.fault.strike(link)
            watching = asyncio.create_task(self._watch())
            tasks.append(watching)
            await asyncio.sleep(seconds)
            for link in self.links[: self.scale.struck]:
                link.heal()
            self.healed_at = time.monotonic()
        elif self.fault.dead:
            await self.server.kill()
            await asyncio.sleep(seconds)
            await self.server.start()
            await speaks(self.port)
            self.healed_at = time.monotonic()
            watching = asyncio.create_task(self._watch())
        else:
            self.server.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            self.server.signal(signal.SIGCONT)
            self.healed_at = time.monotonic()
            watching = asyncio.create_task(self._watch())
        tasks.append(watching)
        await self._settle()
        await watching

    async def _settle(self) -> None:
        calm = time.monotonic()
        while (now := time.monotonic()) < self.healed_at + WATCHED:
            known = max((number for number, when in self.acknowledged.items() if when < now - 2), default=0)
            if any(listener.newest < known for listener in self.listeners):
                calm = now
            if now - calm > self.scale.calm:
                return
            await asyncio.sleep(0.1)

    # What goes on meanwhile.

    async def _hear(self, listening: asyncio.subprocess.Process) -> None:
        assert listening.stdout is not None
        while line := await listening.stdout.readline():
            when, who, what, value = json.loads(line)
            self.listeners[who].take(when, what, value)

    async def _all_are_up(self) -> None:
        async with asyncio.timeout(30):
            while any(listener.up is None for listener in self.listeners):
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)

    async def _publish(self) -> None:
        begun = due = time.monotonic()
        number = 0
        while True:
            number += 1
            self.wanted = round((time.monotonic() - begun) / self.fault.every)
            padding = base64.b64encode(os.urandom(self.fault.padding * 3 // 4)).decode()  # or it would be compressed
            body = json.dumps({"n": number, "padding": padding}).encode()
            self.published[number] = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    await ask(self.port, self.system.publish, body)
            except (OSError, TimeoutError):
                pass  # whoever hears it or not: it was not promised
            else:
                self.acknowledged[number] = time.monotonic()
            due = max(due + self.fault.every, time.monotonic() - 1)
            await asyncio.sleep(due - time.monotonic())

    async def _weigh(self) -> None:
        while True:
            self.memories.append(self.server.memory())
            await asyncio.sleep(1)

    async def _watch(self) -> None:
        """Watch until the server has seen nobody for a second who is not there."""
        if not self.fault.leaves_ghosts:
            return
        begun, asked, none = time.monotonic(), False, None
        while time.monotonic() < begun + WATCHED:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    answer = await ask(self.port, self.system.members)
                asked = True
                seen = self.system.count(answer)
                now = time.monotonic()
                if seen > sum(self._is_there(number) for number in range(len(self.listeners))):
                    none = None
                elif none is None:
                    none = now
                elif now > none + 1:
                    self.ghost = none - begun
                    return
            await asyncio.sleep(0.25)
        if not asked:
            raise RuntimeError("the server never said who is there")

    def _is_there(self, number: int) -> bool:
        """Whether a listener has a connection that is not dead."""
        up = self.listeners[number].up
        struck = self.fault.dead and (self.fault.strikes_server or number < self.scale.struck)
        return up is not None and (not struck or up > self.struck_at)

    # What came of it.

    def _judge(self) -> Outcome:
        outcome = Outcome(self.system.slug, self.fault.name)
        outcome.wanted, outcome.acknowledged = self.wanted, len(self.acknowledged)
        struck = self.scale.listeners if self.fault.strikes_server else self.scale.struck
        outcome.struck = struck
        behind = self.healed_at
        for number, listener in enumerate(self.listeners):
            first: dict[int, float] = {}
            highest = disordered = 0
            for when, heard in listener.heard:
                if heard not in first:
                    first[heard] = when
                    disordered += heard < highest
                    highest = max(highest, heard)
            lost = len(self.acknowledged.keys() - first.keys())
            if number >= struck:
                if number < self.scale.listeners or not self.fault.strikes_server:
                    outcome.others_lost += lost
                    waits = [when - self.published[heard] for heard, when in first.items()]
                    outcome.others_waited = max(outcome.others_waited, *waits)
                continue
            outcome.lost += lost
            outcome.repeated += len(listener.heard) - len(first)
            outcome.disordered += disordered
            outcome.losers += lost > 0
            outcome.told += lost > 0 and listener.told > 0
            outcome.warned += lost == 0 and listener.told > 0
            for known, when in self.acknowledged.items():
                if (came := first.get(known, float("inf"))) > max(when + LATE, self.healed_at):
                    behind = max(behind, came)
        outcome.consistent = None if outcome.lost else behind - self.healed_at
        outcome.ghost = self.ghost
        if not (self.fault.strikes_server and self.fault.dead):  # else it is another process now
            outcome.growth = max(self.memories) - self.memories[0]
        return outcome


@asynccontextmanager
async def running(process: Process) -> AsyncIterator[Process]:
    await process.start()
    try:
        yield process
    finally:
        process.signal(signal.SIGCONT)
        await process.kill()


async def listens(port: int) -> None:
    """Wait until somebody listens there."""
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def speaks(port: int) -> None:
    """Wait until an HTTP server answers there, whatever it says."""
    async with asyncio.timeout(60):
        while True:
            await listens(port)
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
                spoken = await reader.read(1)
                writer.close()
                if spoken:
                    return
            await asyncio.sleep(0.05)


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def attempt(system: System, fault: Fault, scale: Scale) -> Outcome:
    """Run one; what fails says why."""
    with tempfile.TemporaryDirectory(prefix="silent-death-") as name:
        home = Path(name)
        home.chmod(0o755)  # nginx gives its rights away
        try:
            async with asyncio.timeout(600):
                return await Trial(system, fault, scale, home).run()
        except Exception as error:
            last = (
                (home / "log").read_text(errors="replace").strip().splitlines()[-3:] if (home / "log").exists() else []
            )
            return Outcome(system.slug, fault.name, not_run=" · ".join([f"{type(error).__name__}: {error}", *last]))
