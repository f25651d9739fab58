"""
What if an application runs some of its work in threads?

Then no time passes while they work: an event loop in which time passes at once, but not before
those threads are done that were begun by it (`asyncio.to_thread`, `run_in_executor`, endpoints and
dependencies that are plain functions), or wait for something that only the loop can do for them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar
from unittest.mock import patch

import anyio.to_thread

from holdfast.testing.network import SeaLoop
from holdfast.testing.virtual import _Handle

T = TypeVar("T")

#: What a thread may take, in seconds of our own time, before time passes although it works …
PATIENCE = 2.0
#: … and for one that has asked the loop for something, or has had that patience already, before each next step.
MOMENT = 0.01


class PatientLoop(SeaLoop):
    """A loop of the sea that waits for threads. It belongs to the thread that makes it."""

    def __init__(self) -> None:
        super().__init__()
        self._own_thread = threading.get_ident()
        self._lock = threading.Lock()
        self._called: deque[_Handle] = deque()  # by threads
        self._call = threading.Event()
        self._at_work = 0
        self._begun = 0  # since the last turn
        self._finishing: set[int] = set()

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        """Have something called, for a thread or the loop itself."""
        me = threading.get_ident()
        if me == self._own_thread:
            return self.call_soon(callback, *args, context=context)
        if self.is_closed():
            raise RuntimeError("the event loop is closed")
        handle = _Handle(callback, args, self, copy_context() if context is None else context)
        with self._lock:
            if me in self._finishing:
                self._finishing.discard(me)
                self._at_work -= 1
            self._called.append(handle)
            self._call.set()
        return handle

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run it in a thread, if the executor has any; without one in ours."""
        if executor is None:
            executor = self._threads()
        if isinstance(executor, ThreadPoolExecutor):
            self.begin()
            func = self.ending(func)
        return super().run_in_executor(executor, func, *args)

    def begin(self) -> None:
        """Wait, before anything else happens, for a thread that begins to work now."""
        self._at_work += 1
        self._begun += 1

    def ending(self, function: Callable[..., T]) -> Callable[..., T]:
        """Return what such a thread is to run in place of `function`: what it calls next is its answer."""

        def run(*args: Any) -> T:
            try:
                return function(*args)
            finally:
                with self._lock:
                    self._finishing.add(threading.get_ident())

        return run

    def select(self, timeout: float | None) -> list[Any]:
        """Let the threads work, then the time pass."""
        while self._begun > 0 and self._wait(PATIENCE):
            self._begun -= self._take()
        self._begun = 0
        if self._ready or timeout == 0:  # type: ignore[attr-defined]
            self._take()
        elif not (self._at_work and self._wait(PATIENCE if timeout is None else MOMENT) and self._take()):
            return super().select(timeout)
        return []

    @contextmanager
    def waits_for_threads(self) -> Iterator[None]:
        """Have it wait also for those of anyio, which Starlette and FastAPI use."""
        begin = anyio.to_thread.run_sync

        def run_sync(
            function: Callable[..., T], *args: Any, limiter: anyio.CapacityLimiter | None = None, **options: Any
        ) -> Coroutine[Any, Any, T]:
            if threading.get_ident() != self._own_thread:
                return begin(function, *args, limiter=limiter, **options)
            turn: Any = _Turn(self, limiter)  # all of a limiter that is used
            return begin(self.ending(function), *args, limiter=turn, **options)

        with patch("anyio.to_thread.run_sync", run_sync):
            yield

    def _threads(self) -> ThreadPoolExecutor:
        if self._default_executor is None:  # type: ignore[has-type]
            self._default_executor = ThreadPoolExecutor(thread_name_prefix="holdfast-sea")
        return self._default_executor

    def _wait(self, seconds: float) -> bool:
        """Wait until a thread calls; return whether one did."""
        return bool(self._called) or self._call.wait(seconds)

    def _take(self) -> int:
        """Take over what threads have called."""
        with self._lock:
            count = len(self._called)
            self._ready.extend(self._called)  # type: ignore[attr-defined]
            self._called.clear()
            self._call.clear()
        return count


class _Turn:
    """A limiter, after which a thread begins to work."""

    def __init__(self, loop: PatientLoop, limiter: anyio.CapacityLimiter | None) -> None:
        self._loop = loop
        self._limiter = limiter

    async def __aenter__(self) -> None:
        if self._limiter is None:
            self._limiter = anyio.to_thread.current_default_thread_limiter()
        await self._limiter.__aenter__()
        self._loop.begin()

    async def __aexit__(self, *error: Any) -> None:
        assert self._limiter is not None
        await self._limiter.__aexit__(*error)
