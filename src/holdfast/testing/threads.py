"""
What if an application runs some of its work in threads?

Then no time passes while they work: an event loop in which time passes at once, but not before
those threads are done that were begun by it (`asyncio.to_thread`, `run_in_executor`, endpoints and
dependencies that are plain functions), or have asked the loop for something. One that does not come
to an end is named (`Stuck`).
"""

from __future__ import annotations

import sys
import threading
import traceback
from asyncio import futures
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar
from unittest.mock import patch

import anyio.to_thread

from holdfast.testing.network import SeaLoop
from holdfast.testing.virtual import Stuck, _Handle

T = TypeVar("T")

#: What a thread may take, in seconds of our own time, before it is said that it does not come to an end …
PATIENCE = 30.0
#: … and what one that has asked the loop for something is given before time passes.
MOMENT = 0.01


class PatientLoop(SeaLoop):
    """A loop of the sea that waits for threads. It belongs to the thread that makes it."""

    def __init__(self) -> None:
        super().__init__()
        self._own_thread = threading.get_ident()
        self._lock = threading.Lock()
        self._called: deque[_Handle] = deque()  # by threads
        self._call = threading.Event()
        self._working: dict[_Work, None] = {}  # and have called nothing yet
        self._asking: set[_Work] = set()  # have, and are not done
        self._wanted: _Work | None = None  # whose answer is asked for now

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        """Have something called, for a thread or the loop itself."""
        if threading.get_ident() == self._own_thread:
            if self._wanted is not None:  # and has answered before anybody could wait for that
                with self._lock:
                    self._working.pop(self._wanted, None)
                    self._asking.discard(self._wanted)
            return self.call_soon(callback, *args, context=context)
        if self.is_closed():
            raise RuntimeError("the event loop is closed")
        handle = _Handle(callback, args, self, copy_context() if context is None else context)
        work: _Work | None = getattr(_here, "work", None)
        with self._lock:
            if work is not None:
                self._working.pop(work, None)
                (self._asking.discard if work.is_done else self._asking.add)(work)
            self._called.append(handle)
            self._call.set()
        return handle

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run it in a thread, if the executor has any; without one in ours."""
        if executor is None:
            executor = self._threads()
        if not isinstance(executor, ThreadPoolExecutor):
            return super().run_in_executor(executor, func, *args)
        work = _Work(func)
        self.begin(work)
        try:
            future = executor.submit(work, *args)
        except BaseException:
            self._working.pop(work, None)
            raise
        future.add_done_callback(lambda done: self._working.pop(work, None) if done.cancelled() else None)
        self._wanted = work
        try:
            return futures.wrap_future(future, loop=self)  # which calls here, and now, if it is done
        finally:
            self._wanted = None

    def begin(self, work: _Work) -> None:
        """Wait, before anything else happens, for a thread that does this now."""
        with self._lock:
            self._working[work] = None

    def select(self, timeout: float | None) -> list[Any]:
        """Let the threads work, then the time pass."""
        while self._working:
            if not self._wait(PATIENCE):
                self._give_up()
            self._take()
        self._take()
        if not self._ready and timeout != 0 and self._asking:  # type: ignore[attr-defined]
            self._wait(PATIENCE if timeout is None else MOMENT)
            self._take()
        return [] if self._ready else super().select(timeout)  # type: ignore[attr-defined]

    @contextmanager
    def waits_for_threads(self) -> Iterator[None]:
        """Have it wait also for those of anyio, which Starlette and FastAPI use."""
        begin = anyio.to_thread.run_sync

        def run_sync(
            function: Callable[..., T], *args: Any, limiter: anyio.CapacityLimiter | None = None, **options: Any
        ) -> Coroutine[Any, Any, T]:
            if threading.get_ident() != self._own_thread:
                return begin(function, *args, limiter=limiter, **options)
            work = _Work(function)
            turn: Any = _Turn(self, limiter, work)  # all of a limiter that is used
            return begin(work, *args, limiter=turn, **options)

        with patch("anyio.to_thread.run_sync", run_sync):
            yield

    def _threads(self) -> ThreadPoolExecutor:
        if self._default_executor is None:  # type: ignore[has-type]
            self._default_executor = ThreadPoolExecutor(thread_name_prefix="holdfast-sea")
        return self._default_executor

    def _give_up(self) -> None:
        """Say which threads do not come to an end, and wait for them no more."""
        with self._lock:
            works, self._working = self._working, {}
        stuck = Stuck("\n".join(f"{work} after {PATIENCE:g} s, and no time passes meanwhile" for work in works))
        for work in works:
            stuck.add_note(work.where())
        raise stuck

    def _wait(self, seconds: float) -> bool:
        """Wait until a thread calls; return whether one did."""
        return bool(self._called) or self._call.wait(seconds)

    def _take(self) -> None:
        """Take over what threads have called."""
        with self._lock:
            self._ready.extend(self._called)  # type: ignore[attr-defined]
            self._called.clear()
            self._call.clear()


class _Work:
    """What a thread is to do. What it calls when it is done is its answer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._thread: threading.Thread | None = None  # until one is free
        self.is_done = False

    def __call__(self, *args: Any) -> Any:
        self._thread, _here.work = threading.current_thread(), self
        try:
            return self._function(*args)
        finally:
            self.is_done = True

    def __str__(self) -> str:
        return f"{self._function!r} still runs in {self._thread and self._thread.name!r}"

    def where(self) -> str:
        """Return where its thread is."""
        frame = None if self._thread is None else sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame else "no thread was free"


class _Turn:
    """A limiter, after which a thread begins to work."""

    def __init__(self, loop: PatientLoop, limiter: anyio.CapacityLimiter | None, work: _Work) -> None:
        self._loop = loop
        self._limiter = limiter
        self._work = work

    async def __aenter__(self) -> None:
        if self._limiter is None:
            self._limiter = anyio.to_thread.current_default_thread_limiter()
        await self._limiter.__aenter__()
        self._loop.begin(self._work)

    async def __aexit__(self, *error: Any) -> None:
        assert self._limiter is not None
        await self._limiter.__aexit__(*error)


_here = threading.local()  # in a thread: the work that it is at, or was
