"""
How does a thread of the store wait where time passes at once?

It says for how long, and stands still while the event loop goes on: one of them runs at a time,
and only while the loop waits for it, so that all happens in the same order each time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from typing import Any, TypeVar

from holdfast.testing.virtual import VirtualLoop

T = TypeVar("T")

_here = threading.local()


class Ended(BaseException):
    """Nothing of this process runs any more, and this thread was in the middle of something."""


def may_wait() -> bool:
    """Whether this is a thread of the sea; the event loop itself cannot wait."""
    return getattr(_here, "turn", None) is not None


def wait(seconds: float) -> None:
    """Let time pass, in a thread of the sea; elsewhere none passes."""
    turn: _Turn | None = getattr(_here, "turn", None)
    if turn is not None:
        turn.pause(seconds)


class _Turn:
    """A thread, and when it is its turn."""

    def __init__(self, loop: VirtualLoop, idle: list[_Turn]) -> None:
        self.ends = False
        self._loop = loop
        self._idle = idle
        self._work: Callable[[], None] = lambda: None
        self._context = copy_context()
        self._begins, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._context.run, args=(self._run,), daemon=True)
        self._thread.start()

    def take(self, work: Callable[[], None]) -> None:
        """Do some work, soon."""
        self._work = work
        self._loop.call_soon(self._go, context=self._context.copy())

    def pause(self, seconds: float) -> None:
        """Stand still for so long (in the thread)."""
        self._must_live()
        self._loop.call_later(seconds, self._go, context=self._context.copy())
        self._stands.release()
        self._begins.acquire()
        self._must_live()

    def end(self) -> None:
        """Have the thread end, in the middle of whatever it is at."""
        self.ends = True
        self._go()
        self._thread.join()

    def _go(self) -> None:
        """Let it run until it stands still again (in the loop)."""
        if not self._thread.is_alive():
            return  # it was asked for before it ended
        self._begins.release()
        self._stands.acquire()

    def _must_live(self) -> None:
        if self.ends:
            raise Ended

    def _run(self) -> None:
        _here.turn = self
        while not self.ends:
            self._begins.acquire()
            try:
                if not self.ends:
                    self._work()
            except Ended:
                pass
            finally:
                self._idle.append(self)
                self._stands.release()


class Turns(Executor):
    """The threads of the process that makes this."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._context = copy_context()  # what they run belongs to it
        self._idle: list[_Turn] = []
        self._all: list[_Turn] = []

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run it in a thread, soon."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        if not self._idle:
            turn: _Turn = self._context.copy().run(_Turn, self._loop, self._idle)
            self._all.append(turn)
        else:
            turn = self._idle.pop()
        turn.take(work)
        return future

    def end(self) -> None:
        """Have all threads end: their process is gone."""
        for turn in self._all:
            turn.end()
        self._all.clear()


class TurnWorker:
    """One of these threads, for the store's changes (see `Worker`)."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._is_wanted = False
        self._running: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin."""
        self._work = work

    def wake(self) -> None:
        """There is something to do."""
        self._is_wanted = True
        if self._running is None:
            self._running = self._turns.submit(self._run)

    def _run(self) -> None:
        while self._is_wanted:
            self._is_wanted = False
            self._work()
        self._running = None

    async def stop(self) -> None:
        """Let it finish what it is at, and end."""
        self.wake()
        if self._running is not None:
            await asyncio.wrap_future(self._running)
