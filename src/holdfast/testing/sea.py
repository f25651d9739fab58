"""
How is an application of yours tried, with everything that can go wrong?

A `Sea` runs it in virtual time: your ASGI app on the real server, real clients, and between them a
network that does what you say. An hour takes a moment, and the same seed is the same run.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from starlette.types import ASGIApp

from holdfast.client.client import Token
from holdfast.client.rooms import TakeSnapshot
from holdfast.errors import HoldfastError
from holdfast.store.choice import Choice, kept_elsewhere
from holdfast.store.store import Store
from holdfast.store.worker import InlineWorker
from holdfast.testing.client import SeaClient, SeaRoom
from holdfast.testing.endpoint import Wire
from holdfast.testing.history import History, Violation
from holdfast.testing.network import Network, Weather
from holdfast.testing.served import Served
from holdfast.testing.threads import PatientLoop
from holdfast.testing.virtual import Chance, Endless, Inline, bury, current_process, expecting_an_end

T = TypeVar("T")

#: What waits longer than this for something that does not come will not see it. Seconds, beside `sea.sleep`.
LIMIT = 3600.0
#: If no time passes while this thread works so long, none ever will. Seconds of its time, and at most twice as many.
ENDLESS = 20.0
#: A room that was joined on a link answers within this. Seconds.
JOINED = 60.0


class Sea:
    """
    Where an application is tried in virtual time: `with Sea() as sea: sea.run(…)`, or the fixture `sea`.

    Args:
        seed: From which all delays, and all dice of the application, follow.
        weather: How slow the network is, and into which pieces it takes what is sent.
    """

    def __init__(self, seed: int = 0, *, weather: Weather | None = None) -> None:
        self.loop = PatientLoop()
        began = int(time.time())  # the present: what was signed outside is valid here
        # Microseconds, for then a time is written in as many digits in each run.
        self._chance = Chance(seed, self.loop, lambda: round(began + self.loop.time(), 6))
        self.network = Network(self.loop, self._chance.dice, weather)
        self._servers: list[Served] = []
        self._files: dict[str, Path] = {}
        self._failures: list[Violation] = []  # of histories
        self._reading: dict[asyncio.Task[None], None] = {}
        self._deadline: asyncio.Timeout | None = None

    # Its life.

    def __enter__(self) -> Self:
        memory = Path("/dev/shm")  # noqa: S108 - whoever runs it
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-sea-", dir=memory if memory.is_dir() else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.run(self._leave())
        finally:
            self._bury()
            self.loop.close()
            self._folder.cleanup()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the sea, and return what it returned; raises `Violation` if a history was broken."""
        # Of other threads it is the loop that says whether they come to an end.
        with self._ruling(), expecting_an_end(self.loop, ENDLESS, time.thread_time, Endless):
            return self.loop.run_until_complete(self._watched(work))

    # Time.

    @property
    def time(self) -> float:
        """Seconds since it began."""
        return self.loop.time()

    async def sleep(self, seconds: float) -> None:
        """Let time pass. It takes no time."""
        self._must_be_here()
        assert self._deadline is not None
        self._deadline.reschedule(max(self.time + seconds + LIMIT, self._deadline.when() or 0.0))
        await asyncio.sleep(seconds)

    # Who is there.

    def serve(
        self, app: ASGIApp | Callable[[], ASGIApp], *, host: str = "localhost", port: int | None = None
    ) -> Served:
        """
        Serve an ASGI app, as `holdfast serve` does; requests and clients wait until it has started.

        Its hubs are kept in files of the sea, whatever store they were told to have; those in `memory:` are
        there, and lost with their process. After `kill_server` and `start` the same app runs again, with all that
        it has in variables; a function that returns an app is called for each process, and begins anew.
        """
        served = Served(self.loop, app, host, 8000 + len(self._servers) if port is None else port)
        self._servers.append(served)
        served.start()
        return served

    def connect(
        self,
        server: Served,
        path: str = "/live/ws",
        *,
        token: Token | None = None,
        recover: str = "resume",
        snapshot: TakeSnapshot | None = None,
        jitter: bool = True,
    ) -> SeaClient:
        """Return a client of the hub at `path` of a server, for `async with`; its options are `holdfast.connect`'s."""
        if recover not in ("resume", "snapshot"):
            raise ValueError(f"recover is 'resume' or 'snapshot', not {recover!r}")

        async def ready() -> bool:
            self._must_be_here()
            if server.process is not None:
                await server.ready()
            return server.is_up

        url = server.url + path
        return SeaClient(url, ready, token=token, resume=recover == "resume", snapshot=snapshot, jitter=jitter)

    async def history(self, room: SeaRoom) -> History:
        """
        Read a room from now on, and return what its client is told there; nobody else may read it meanwhile.

        The test fails (`Violation`) at the first publication that does not follow the one before it (some are missing
        between them, or it is told again), and at a start afresh for a reason that cannot be true. Whether the last
        ones have come is for the test to see: compare `.data` with what was published. Whoever is put out is told
        nothing more, and `.ended` says why.
        """
        self._must_be_here()
        history = History(room.name, recover=room.recover, told=room.told)
        begun: asyncio.Future[None] = self.loop.create_future()
        task = self.loop.create_task(self._read(room, history, begun))
        self._reading[task] = None
        task.add_done_callback(lambda done: self._reading.pop(done, None))
        if room.told is not None:
            self.loop.call_soon(_begin, begun)  # when it has tried to read
        try:
            async with asyncio.timeout(JOINED):
                await begun
        except TimeoutError:
            raise TimeoutError(f"{room.name} was not joined within {JOINED:g} s") from None
        return history

    # What goes wrong.

    def half_open(self, client: SeaClient) -> None:
        """Let a client's links fall silent: nothing gets through any more, and neither end is told."""
        for wire in self._links(client):
            wire.fall_silent()

    def cut(self, client: SeaClient) -> None:
        """Reset a client's links: both ends are told at once."""
        for wire in self._links(client):
            wire.reset()

    def slow_reader(self, client: SeaClient, seconds: float) -> None:
        """Have the application of a client take in nothing for a while: no iteration over its rooms goes on."""
        client.reads_again = max(client.reads_again, self.time + seconds)

    def kill_server(self, server: Served) -> None:
        """End a server's process, now (SIGKILL); `server.start()` begins another one."""
        server.kill()

    # Inside.

    def _must_be_here(self) -> None:
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                "this runs on another event loop than the sea: use it in an async test that asks for `sea`, in an "
                "async fixture that asks for it by name, or in what you give to sea.run(…)"
            )

    def _links(self, client: SeaClient) -> list[Wire]:
        wires = self.network.open_wires()
        links = [wire for wire in wires if wire.ends[0].process is client.process and not wire.was_silent]
        if not links:
            raise RuntimeError("this client has no link now, so that nothing can happen to it")
        return links

    async def _read(self, room: SeaRoom, history: History, begun: asyncio.Future[None]) -> None:
        try:
            async for item in room:
                history.told(item)
                _begin(begun)
        except Violation as error:
            self._failures.append(error)
            if not begun.done():
                begun.set_exception(error)
        except HoldfastError as error:
            history.ended = error
            if not begun.done():
                begun.set_exception(error)

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(LIMIT) as self._deadline:
                result = await work
        except GeneratorExit:  # it is taken apart, wherever it stands
            raise
        except BaseException as error:
            failures, self._failures = self._failures, []
            for failure in failures:
                if failure is not error:
                    error.add_note(f"{type(failure).__name__}: {failure}")
            if self._deadline is not None and self._deadline.expired():
                raise TimeoutError(
                    f"for {LIMIT / 3600:g} h of virtual time this has waited for what did not come"
                ) from error
            raise
        failures, self._failures = self._failures, []
        if failures:
            raise failures[0]
        return result

    async def _leave(self) -> None:
        """End everything in good order."""
        myself = asyncio.current_task()
        servers = {task for served in self._servers for task in (served.process.tasks if served.process else ())}
        dead = {task for served in self._servers for process in served.dead for task in process.tasks}
        others = asyncio.all_tasks() - servers - dead - {myself}
        for task in others:
            task.cancel()
        if others:
            _, left = await asyncio.wait(others, timeout=LIMIT / 2)
            if left:
                names = ", ".join(sorted(f"{task.get_name()} ({task.get_coro()})" for task in left))
                raise RuntimeError(f"cancelled when the test was over, and still there half an hour later: {names}")
        for served in self._servers:
            if served.process is not None:
                await served.stop()
        for served in self._servers:
            if served.failed_unheard:
                await served.ready()

    def _bury(self) -> None:
        """Take apart what is left of dead processes, when nothing that they still do matters."""
        for served in self._servers:
            if served.process is not None:
                served.kill()
        bury(self.loop, [process for served in self._servers for process in served.dead])

    @contextmanager
    def _ruling(self) -> Iterator[None]:
        """Have this process of ours live in the sea."""
        collects = gc.isenabled()
        gc.disable()  # what it finds, and when, is no part of the run
        try:
            with self._chance.rules(), self.loop.waits_for_threads(), kept_elsewhere(self._store):
                yield
        finally:
            if collects:
                gc.enable()

    def _store(self, choice: Choice) -> Store | None:
        """Return the store of a hub that is opened here."""
        if not isinstance(choice.place, str):
            return None
        place = choice.place
        if place != "memory:":
            number = len(self._files)
            place = str(self._files.setdefault(place, Path(self._folder.name, f"{number}.db")))
        store = choice.in_file(place, worker=InlineWorker(), reads=Inline(), wall=lambda: time.time())
        process = current_process()
        for served in self._servers:
            if served.process is not None and served.process is process:
                served.stores.append(store)
        return store


def _begin(begun: asyncio.Future[None]) -> None:
    if not begun.done():
        begun.set_result(None)
