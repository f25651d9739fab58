"""
What time is it where nobody waits?

An event loop in which time passes at once: when nothing is left to do now, it is the time of
what comes next. All that runs in it runs in one thread, and in the same order each time.

What runs belongs to a process (`Process`), which can be stopped, and killed: then nothing of it
ever runs again, no `finally`, no `except`, as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import logging
import random
import signal
import threading
import time
from asyncio import base_events, events
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from itertools import count
from types import FrameType
from typing import Any, TypeVar
from unittest.mock import patch

from holdfast.testing.mishap import Felt, unfelt

T = TypeVar("T")

#: When it begins, in seconds since 1970.
EPOCH = 1_800_000_000.0
#: If no time passes while a processor works so long, none ever will. Seconds of its time.
ENDLESS = 3.0
#: So often it is looked who goes on for ever, and again after so many seconds.
GLANCES, GLANCE = 100, 0.001
#: So often a coroutine may wait once more when it is closed: a `finally` in it awaits something, and the next one, too.
PARTING = 100


class Process:
    """Something that runs, and can be stopped or killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_stopped = False
        self.was_stopped = False
        self.ahead = 0.0  # of the time, what its machine's clock on the wall shows; `set_clock` does that
        self._misread: Felt = unfelt  # called when that clock is read
        self._missed: Felt = (
            unfelt  # called when something waits, since it is stopped, or will never run, since it is dead
        )
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.late: list[events.Handle] = []  # what was due while it was stopped
        self.on_change: list[Callable[[], None]] = []  # called when it is killed, or goes on

    def kill(self, felt: Felt = unfelt) -> None:
        """End it, now (SIGKILL)."""
        if self.is_alive:
            self.is_alive = False
            self._missed = felt
            self.late.clear()
            self._tell()

    def stop(self, felt: Felt = unfelt) -> None:
        """Let it stand still (SIGSTOP)."""
        if self.is_alive:
            self.is_stopped = self.was_stopped = True
            self._missed = felt

    def set_clock(self, seconds: float, felt: Felt = unfelt) -> None:
        """Set the clock on its machine's wall, by so much."""
        self.ahead += seconds
        self._misread = felt

    def read_clock(self) -> float:
        """Return how much that clock is ahead of the time."""
        if self.ahead:
            self._misread()
        return self.ahead

    def miss(self, handle: events.Handle) -> None:
        """Something of it was to run now, and cannot."""
        if self.is_alive:
            self.late.append(handle)
        self._missed()

    def go_on(self) -> None:
        """Let it go on (SIGCONT)."""
        if self.is_stopped:
            self.is_stopped = False
            late, self.late = self.late, []
            for handle in late:
                handle._loop._ready.append(handle)  # type: ignore[attr-defined]
            self._tell()

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call something as this process: what it begins belongs to it."""
        context = copy_context()
        context.run(_process.set, self)
        return context.run(function, *args)

    def _tell(self) -> None:
        for changed in tuple(self.on_change):
            changed()


_process: ContextVar[Process | None] = ContextVar("process", default=None)


def current_process() -> Process | None:
    """Return the process that runs."""
    return _process.get()


class _Handle(events.Handle):
    """What is to be run next."""

    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(_process)  # type: ignore[attr-defined]
        if process is None or (process.is_alive and not process.is_stopped):
            events.Handle._run(self)
        else:
            process.miss(self)


class _TimerHandle(events.TimerHandle):
    """What is to be run at its time."""

    __slots__ = ()

    _run = _Handle._run


class Stuck(Exception):
    """Nothing will ever happen: everybody waits for the others, or for somebody who does not come to an end."""


class Endless(BaseException):
    """Somebody goes on for ever, and time does not; who catches errors, to go on, does not catch this."""


class EndlessRun(Endless, KeyboardInterrupt):
    """… and asyncio lets it through: nothing goes on."""


@contextmanager
def expecting_an_end(
    loop: VirtualLoop,
    seconds: float = ENDLESS,
    clock: Callable[[], float] = time.process_time,
    error: type[Endless] = EndlessRun,
) -> Iterator[None]:
    """
    Raise an error, wherever that is, if the time of the loop stands still while a processor works for so many seconds.

    Whoever catches it there has it raised here again. Work during which `clock` hardly goes on is not counted.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield  # signals are not for us
        return
    seen, glances = (loop.time(), clock()), GLANCES
    raised: Endless | None = None

    def look(_: int, frame: FrameType | None) -> None:
        nonlocal seen, glances, raised
        now, worked = loop.time(), clock() - seen[1]
        if now != seen[0] or worked < seconds / 2:
            seen = now, clock()
        elif glances and not _is_in_coroutine(frame):  # but between two steps of one: then it would not be told
            glances -= 1
            signal.setitimer(signal.ITIMER_VIRTUAL, GLANCE, seconds)
        else:
            raised = error(f"no time has passed in {seconds:g} s")
            raise raised

    before = signal.signal(signal.SIGVTALRM, look)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    if raised is not None:
        raise raised


def _is_in_coroutine(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        frame = frame.f_back
    return frame is not None


class VirtualLoop(base_events.BaseEventLoop):
    """An event loop in which time passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, _TimerHandle]] = []  # a heap
        self._numbers = count()  # of two at the same time, the one comes first that was asked for first
        self.set_task_factory(_new_task)

    def time(self) -> float:
        """Return the time, in seconds since the loop was made."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Let the time pass."""
        if timeout is None:
            raise Stuck("everybody waits, and nothing will ever happen")
        if timeout > 0:
            self._now = max(self._now, self._timers[0][0])
        return []

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        """Have something called after what is to be called already."""
        handle = _Handle(callback, args, self, copy_context() if context is None else context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """Have something called at a time."""
        timer = _TimerHandle(when, callback, args, self, copy_context() if context is None else context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """Have something called after a while."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run it at once: there are no threads."""
        return super().run_in_executor(Inline() if executor is None else executor, func, *args)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's
        """There is none."""

    def _run_once(self) -> None:
        """Let the time pass, if there is nothing to do now; then do what there is. (asyncio's asks a selector, too.)"""
        timers, ready = self._timers, self._ready  # type: ignore[attr-defined]
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if ready or self._stopping:  # type: ignore[attr-defined]
            self.select(0)
        else:
            self.select(timers[0][0] - self._now if timers else None)
        while timers and timers[0][0] <= self._now:
            _, _, timer = heapq.heappop(timers)
            if not timer._cancelled:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _write_to_self(self) -> None:
        pass


class Inline(Executor):
    """Runs what it is given in the thread that asks."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run it."""
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def _new_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T] | Generator[Any, None, T], **options: Any
) -> asyncio.Task[T]:
    task = asyncio.Task(work, loop=loop, **options)
    process = _process.get()
    if process is not None:  # it lives as long as its process, even if nobody waits for it
        process.tasks[task] = None
        task.add_done_callback(lambda done: process.tasks.pop(done, None))
    return task


def bury(loop: asyncio.AbstractEventLoop, processes: Iterable[Process]) -> None:
    """
    Take apart what is left of dead processes, when nothing that they still do matters.

    What is thrown away in the middle does everything that it was to do in the end as soon as its memory is freed,
    wherever that is, and complains if no loop runs there. So it does that here, as the task that it is.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    events._set_running_loop(loop)
    try:
        for task in [task for process in processes for task in process.tasks]:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            asyncio.tasks._enter_task(loop, task)
            try:
                with suppress(BaseException):
                    for _ in range(PARTING):
                        task.get_coro().throw(_Buried())
            finally:
                asyncio.tasks._leave_task(loop, task)
    finally:
        events._set_running_loop(None)
        logging.disable(disabled)


class _Buried(BaseException):
    """What all that is left of a process ends by; asynchronous generators do not hand on a `GeneratorExit`."""


def _ahead() -> float:
    process = _process.get()
    return 0.0 if process is None else process.read_clock()


def _in_nanoseconds(clock: Callable[[], float]) -> Callable[[], int]:
    return lambda: int(clock() * 1e9)


class Chance:
    """
    Dice that fall as a seed says, and clocks that show the time of a loop; while it `rules`, all of this process.

    Attributes:
        dice: For whoever lets things happen.
    """

    def __init__(self, seed: int, loop: VirtualLoop, wall: Callable[[], float] | None = None) -> None:
        self.dice = random.Random(seed)
        self._state = random.Random(self.dice.getrandbits(64)).getstate()
        self._secrets = random.Random(self.dice.getrandbits(64))
        self._loop = loop
        self._wall = (lambda: EPOCH + loop.time() + _ahead()) if wall is None else wall

    @contextmanager
    def rules(self) -> Iterator[None]:
        """Let it rule for a while; when it rules again, it goes on from there."""
        before = random.getstate()
        random.setstate(self._state)
        with (
            patch("os.urandom", self._secrets.randbytes),
            patch("random._urandom", self._secrets.randbytes),
            patch("time.time", self._wall),
            patch("time.time_ns", _in_nanoseconds(self._wall)),
            patch("time.monotonic", self._loop.time),
            patch("time.monotonic_ns", _in_nanoseconds(self._loop.time)),
        ):
            try:
                yield
            finally:
                self._state = random.getstate()
                random.setstate(before)


@contextmanager
def seeded(seed: int, loop: VirtualLoop) -> Iterator[random.Random]:
    """Have all dice of this process fall as `seed` says, and all clocks show the time of the loop."""
    chance = Chance(seed, loop)
    with chance.rules():
        yield chance.dice
