"""
Who runs the store's work: a thread of its own, or, in a simulation, the event loop itself?

Either begins when the turn of the loop in which it was asked for is over: what one turn asks for is done in one go.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol


class Worker(Protocol):
    """Runs one function again whenever it is woken, never twice at once."""

    def start(self, work: Callable[[], None]) -> None:
        """Begin; `work` is called after each `wake`, and need not be called once for each."""

    def wake(self) -> None:
        """There is something to do."""

    async def stop(self) -> None:
        """Let it finish what it is at, and end."""


class ThreadWorker:
    """A thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked = False
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        self._wanted: SimpleQueue[None] = SimpleQueue()  # a semaphore is in Python, and this is in C
        self._ended = False

        def run() -> None:
            while not self._ended:
                self._wanted.get()
                work()

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._asked = False
        self._wanted.put(None)

    async def stop(self) -> None:
        """Let it finish what it is at, and end."""
        if self._thread is not None:
            self._ended = True
            self._begin()
            await asyncio.to_thread(self._thread.join)


class InlineWorker:
    """The event loop that wakes it."""

    def start(self, work: Callable[[], None]) -> None:
        """Begin."""
        self._work = work
        self._asked = False

    def wake(self) -> None:
        """There is something to do."""
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._asked = False
        self._work()

    async def stop(self) -> None:
        """Let it finish what it is at, and end."""
        self._work()
