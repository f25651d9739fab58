"""
What is there in the sea?

Servers, their clients, the network between them and the disk below, and misfortune; all that
happens follows from a seed. While things go wrong, nothing false may be told; when they stop
going wrong, everybody must come to know the same within a bound.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import sqlite3
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from holdfast import Hub
from holdfast.store.store import Retention
from holdfast.testing import calm
from holdfast.testing.disk import Disk
from holdfast.testing.endpoint import BUFFER, Endpoint
from holdfast.testing.misfortune import FAULTS, Fault, somebody
from holdfast.testing.mishap import Felt, Mishap, unfelt
from holdfast.testing.network import Network, SeaLoop, Weather
from holdfast.testing.outage import OUTAGES, REACHED_BY_SEVERAL
from holdfast.testing.server_process import LOCKED, RECORDS, REFUSED, InFile, ServerProcess, add
from holdfast.testing.trace import Trace
from holdfast.testing.turns import wait
from holdfast.testing.verdict import GHOST, REACHED, Verdict
from holdfast.testing.virtual import Endless, bury, expecting_an_end, seeded
from holdfast.testing.visitor import WAYS_IN, Visitor
from holdfast.testing.watch import Watch

if TYPE_CHECKING:
    from holdfast.testing.nodes import Nodes

#: When nothing goes wrong any more, everybody has everything by then: the longest delay, and being noticed. Seconds.
CONVERGED = 30.0 + 43.0 + 10.0 + 20.0
#: Whatever was to end later has ended by then. Seconds.
CALM = 100.0
#: What is said in the room into which nobody is let.
SECRET = b"behind closed doors"
#: When so much was told that is false, it goes on no further.
TOO_MUCH = 100


@dataclass(frozen=True)
class Plan:
    """How large a run is: how many clients, in how many rooms, and for how long how much goes wrong."""

    clients: int = 4
    rooms: int = 2
    seconds: float = 60.0
    faults: int = 6
    commands_per_second: float = 2.0
    nodes: int = 1


def faults_of(plan: Plan) -> list[tuple[str, Fault]]:
    """Return what can go wrong, each as often as it is likely."""
    return FAULTS if plan.nodes == 1 else OUTAGES


def roads_of(plan: Plan) -> tuple[str, ...]:
    """Return every road through the code that must have been taken."""
    return REACHED if plan.nodes == 1 else REACHED_BY_SEVERAL


@dataclass
class Report:
    """
    What happened in a run.

    Attributes:
        tried: What was to go wrong, by its kind.
        faults: … and did something to somebody.
        reached: Which roads through the code were taken.
    """

    seed: int
    virtual: float = 0.0
    real: float = 0.0
    trace: str = ""
    tried: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class World:
    """One run."""

    def __init__(self, seed: int, plan: Plan, loop: SeaLoop, dice: random.Random, disk: Disk, folder: Path) -> None:
        self.plan = plan
        self.loop = loop
        self.dice = dice
        self.disk = disk
        self.report = Report(seed)
        weather = Weather(
            (0.001, dice.choice([0.01, 0.05, 0.3])),
            dice.choice([0.0, 0.1, 0.6]),
            dice.choice([None, None, None, 25_000.0, 12_000.0]),
            dice.choice([BUFFER, BUFFER, 16 * 1024]),
        )
        self.network = Network(loop, dice, weather)
        disk.delay = (0.0005, dice.choice([0.005, 0.05, 0.5]))
        # A proxy that stays: it lets no WebSocket through, and perhaps no event stream.
        self._proxy = dice.choice([(False, False)] * 8 + [(True, False), (True, True)])
        self.lift_bars()
        retention = Retention(RECORDS, 7 * 24 * 3600.0, 24 * 3600.0)
        self._path = folder / "sea.db"
        self.nodes: Nodes | None = None
        if plan.nodes == 1:
            self.servers = [ServerProcess(loop, ("server", 80), InFile(loop, self._path, retention), self._opened)]
        else:
            from holdfast.testing.nodes import Nodes  # it needs psycopg

            self.nodes = Nodes(self, plan.nodes, retention)
            self.servers = self.nodes.servers
        self.rooms = tuple(f"room-{number}" for number in range(plan.rooms))
        self.visitors: list[Visitor] = []
        self.gone: list[Visitor] = []
        self.backup: dict[str, bytes] | None = None
        self.left: dict[str, float] = {}  # when a connection of a user ended in another way than by breaking off
        self.stood_still = 0.0  # a server, until then
        self.rolls_out = False  # all servers are restarted, one after the other
        self.verdict = Verdict(self)
        self._playing: asyncio.Task[None] | None = None
        self._wrongs = 0
        self._names = 0
        self._texts = 0
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._trace = Trace()
        self.network.on_arrival.append(self._arrived)

    async def run(self) -> None:
        """Have everything go wrong for a while, then nothing; judge. Where too much is wrong, that is all."""
        self._playing = self.loop.create_task(self._play())
        await asyncio.wait({self._playing})
        if self._playing.cancelled():
            self.verdict.judge_visitors()
        else:
            self._playing.result()

    async def _play(self) -> None:
        for server in self.servers:
            server.start()
        for _ in range(self.plan.clients - 1):
            self.arrive()
        self.later(self.dice.uniform(1, 20), self.arrive)
        if self.dice.random() < 0.3:
            self.later(self.dice.uniform(5, 30), self.back_up)
        working = asyncio.create_task(self._work())
        for _ in range(self.plan.faults):
            await asyncio.sleep(self.dice.expovariate(self.plan.faults / self.plan.seconds))
            kind, happen = self.dice.choice(faults_of(self.plan))
            if happen(self, Mishap(kind, self.report.faults).felt):
                self.report.tried[kind] += 1
                self.note("fault", kind)
        working.cancel()
        await asyncio.wait({working})
        if not working.cancelled():
            working.result()
        await self._calm_down()
        if await self._converge():
            await calm.scenes(self)
        await self._converge()
        self.verdict.judge()
        await self._leave()
        self.verdict.judge_what_is_left()
        for server in self.servers:
            await server.stop()

    async def _work(self) -> None:
        """Have clients do what they are there for."""
        while True:
            await asyncio.sleep(self.dice.expovariate(self.plan.commands_per_second))
            visitor = somebody(self)
            if visitor is None:
                continue
            room = self.dice.choice(list(visitor.copies))
            match self.dice.random():
                case what if what < 0.02:
                    self._whisper()
                    visitor.pry(self.dice.choice(WAYS_IN), LOCKED)
                case what if what < 0.1:
                    visitor.type(room)
                case what if what < 0.15:
                    visitor.type(room, "stop_typing")
                case what if what < 0.25:
                    visitor.command(room, self.new_text() + REFUSED)
                case what:
                    visitor.command(room, self.new_text(), looks=what > 0.95)

    def _whisper(self) -> None:
        """Have something said where nobody may hear it."""
        for server in self.servers:
            if server.process is not None and server.hub is not None and not server.process.is_stopped:
                self.publish(server, LOCKED, 1, SECRET.decode())
                return

    async def _calm_down(self) -> None:
        """Let nothing go wrong any more."""
        await asyncio.sleep(CALM)
        self.disk.recover()
        self.lift_bars()
        self.network.unreachable.clear()
        if self.nodes is not None:
            self.nodes.calm_down()
        for wire in self.network.open_wires():
            if any(end.is_silent for end in wire.ends) and self.dice.random() < 0.5:
                wire.heal()
        for visitor in self.visitors:
            visitor.process.go_on()
            visitor.tired_until = 0.0
        for server in self.servers:
            if server.process is not None:
                server.process.go_on()
            else:
                server.start()

    async def _converge(self) -> bool:
        """Wait until everybody knows the same; return whether they do in time."""
        until = self.loop.time() + CONVERGED
        while self.loop.time() < until:
            await asyncio.sleep(1.0)
            if self.verdict.all_agree():
                return True
        return False

    async def _leave(self) -> None:
        """Have everybody leave, some in the middle of something: nothing may be left of them."""
        if len(self.visitors) > 1 and self.dice.random() < 0.3:
            await self._put_out(self.dice.choice(self.visitors))
        while self.visitors:
            visitor = self.dice.choice(self.visitors)
            is_last = len(self.visitors) == 1
            if is_last and self.dice.random() < 0.3:
                for wire in self.network.open_wires():
                    wire.reset()
                await asyncio.sleep(0.1)  # and there is no link for as long
            visitor.command(self.dice.choice(list(visitor.copies)), self.new_text())
            await asyncio.sleep(self.dice.choice([0.0, 0.01]))
            await visitor.leave()
            self.visitors.remove(visitor)
            self.gone.append(visitor)
            if not is_last:
                await asyncio.sleep(calm.TOLD)
                self.verdict.expect_shown()
        await asyncio.sleep(GHOST)

    async def _put_out(self, visitor: Visitor) -> None:
        """Put somebody out, who leaves when they see that, and so do their other tabs."""
        if visitor.user_id is None:
            return
        await calm.puts_out(self, visitor.user_id)
        for other in [each for each in self.visitors if each.is_put_out]:
            await other.leave()
            self.visitors.remove(other)
            self.gone.append(other)

    # What can happen.

    def arrive(self) -> Visitor:
        """Have somebody come, perhaps with one tab more."""
        self._names += 1
        rooms = tuple(self.dice.sample(self.rooms, self.dice.randint(1, len(self.rooms))))
        by = self.dice.choice(["resume", "resume", "snapshot"])
        token = self.dice.choice([None, *(visitor.credentials for visitor in self.visitors)])
        url = self.servers[0].url if self.nodes is None else self.nodes.choose_url()
        visitor = Visitor(self.loop, f"visitor {self._names}", url, rooms, by, token)
        self.visitors.append(visitor)
        visitor.on_wrong = self._wrong_again
        return visitor

    def _wrong_again(self) -> None:
        self._wrongs += 1
        if self._wrongs == TOO_MUCH and self._playing is not None:
            self.loop.call_soon(self._playing.cancel, context=Context())

    def lose(self, visitor: Visitor, felt: Felt = unfelt) -> None:
        """Have somebody be gone without a word."""
        self.visitors.remove(visitor)
        self.gone.append(visitor)
        visitor.process.kill(felt)
        self.verdict.expect_no_ghost(visitor)

    def kill(self, server: ServerProcess, felt: Felt = unfelt) -> None:
        """End a server, now; its machine goes on."""
        self.verdict.read_logs()
        if self.nodes is None:
            server.kill(felt)
            self.disk.abandon()
        else:
            self.nodes.kill(server, felt)

    def lose_power(self, server: ServerProcess, felt: Felt = unfelt) -> None:
        """End a server with its machine, that says nothing any more, and has forgotten what was not synced."""
        self.verdict.read_logs()
        for wire in self.network.open_wires():
            if wire.ends[1].process is server.process:
                wire.fall_silent(unfelt if self.nodes is None else felt)
        if self.nodes is None:
            server.kill()
            self.disk.lose_power(felt)
        else:
            self.nodes.kill(server)

    def stand_still(self, server: ServerProcess, seconds: float, felt: Felt = unfelt) -> None:
        """Have a server do nothing for a while."""
        process = server.process
        assert process is not None
        process.stop(felt)
        self.stood_still = max(self.stood_still, self.loop.time() + seconds)
        self.later(seconds, process.go_on)

    def lift_bars(self) -> None:
        """Let through what a proxy barred that is gone."""
        self.network.bars_websockets, self.network.bars_streams = self._proxy
        self.network.barred = unfelt

    def back_up(self) -> None:
        """Make a backup, which may be put in the place of what clients have seen more of."""
        self.backup = self.disk.copy()

    def restore(self, felt: Felt = unfelt) -> bool:
        """Put the backup in its place."""
        (server,) = self.servers
        if server.process is None or self.backup is None:
            return False
        self.verdict.read_logs(goes_back=True)
        self.kill(server)
        self.disk.restore(self.backup, felt)
        self.backup = None
        self.start_later(server)
        return True

    def start_later(self, server: ServerProcess, at_most: float = 20.0) -> None:
        """Start a server again after a while."""
        self.later(self.dice.uniform(0.1, at_most), lambda: None if server.process is not None else server.start())

    def new_text(self) -> str:
        """Return a text that there was not before."""
        self._texts += 1
        return f"{self._texts}" + "." * self.dice.choice([0, 0, 0, self.dice.randrange(200)])  # frames of all lengths

    def publish(self, server: ServerProcess, room: str, count: int, rest: str = "", felt: Felt = unfelt) -> None:
        """Have a server publish many at once, each so much longer."""
        assert server.process is not None
        assert server.hub is not None
        for _ in range(count):
            server.process.run(self.loop.create_task, _publish(server.hub, room, self.new_text() + rest, felt))

    def _opened(self, hub: Hub) -> None:
        Watch(self, hub)
        if self.nodes is not None:
            self.nodes.watch(hub)

    def query(self, sql: str) -> list[Any]:
        """Return what is committed."""
        if self.nodes is not None:
            return self.nodes.shore.log.query(sql)
        connection = sqlite3.connect(str(self._path))
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        """Have something happen after a while that belongs to no process: whoever asks may stand still then."""
        self.loop.call_later(seconds, what, context=Context())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something happen that takes a while."""
        task = self.loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def note(self, *what: object) -> None:
        """Put something into the trace."""
        self._trace.note(self.loop.time(), *what)

    def _arrived(self, end: Endpoint, piece: bytes) -> None:
        at_server = end is end.wire.ends[1]
        self._trace.arrived(self.loop.time(), end.wire.number, at_server=at_server, piece=piece)
        if SECRET in piece and not at_server:
            self.verdict.wrong("what happens behind a closed door was heard outside")

    def finish(self) -> Report:
        """Return what happened."""
        self.report.virtual = self.loop.time()
        self.report.trace = str(self._trace)
        return self.report

    def bury(self) -> None:
        """Take apart what is left of all processes, when nothing that they still do matters."""
        if self.nodes is not None:
            self.nodes.bury()
        for server in self.servers:
            server.keeping.bury()
        servers = [
            process for server in self.servers for process in (*server.dead, server.process) if process is not None
        ]
        visitors = [visitor.process for visitor in (*self.gone, *self.visitors)]  # where it was cut short, some live
        bury(self.loop, [*servers, *visitors])

    def keep(self) -> None:
        """Keep it to the end of our process, and beyond: taken apart, what went on for ever might do so again."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))


async def _publish(hub: Hub, room: str, text: str, felt: Felt) -> None:
    with suppress(Exception):  # who publishes is told; here nobody asks
        await hub.write(add, room, text)
        felt()


def run(seed: int, plan: Plan | None = None) -> Report:
    """Run one seed, and return what happened."""
    loop = SeaLoop()
    asyncio.set_event_loop(loop)
    began = time.perf_counter()
    gc.disable()  # what it finds, and when, is no part of the run
    try:
        with (
            tempfile.TemporaryDirectory(prefix="holdfast-sea-", dir=_memory()) as folder,
            seeded(seed, loop) as dice,
            Disk(random.Random(dice.getrandbits(64))) as disk,
            patch("time.sleep", wait),
        ):
            world = World(seed, plan or Plan(), loop, dice, disk, Path(folder))
            bury = world.bury
            try:
                with expecting_an_end(loop):
                    loop.run_until_complete(world.run())
            except (Exception, Endless) as error:
                world.verdict.wrong(f"it could not go on: {error!r}{_where(error)}")
                bury = world.keep if isinstance(error, Endless) else bury
            report = world.finish()
            bury()
    finally:
        loop.close()
        asyncio.set_event_loop(None)
        gc.enable()
    report.real = time.perf_counter() - began
    return report


def _where(error: BaseException) -> str:
    """Return where it was raised, in code of holdfast."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [code for code in codes if "holdfast" in Path(code.co_filename).parts and "virtual" not in code.co_filename]
    return f" in {ours[-1].co_qualname}" if ours else ""


def _memory() -> str | None:
    folder = "/dev/shm"  # noqa: S108 - whoever runs it
    return folder if Path(folder).is_dir() else None
