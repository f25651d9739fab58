"""
How do several processes serve one port?

Each listens there, as soon as it is ready and not before, and the kernel shares out among
them what comes (SO_REUSEPORT): nobody waits for one that has ended, or does not get far. The
first one only holds the port. It starts those again that end by themselves, passes on what it
is told (SIGTERM), and when it is gone they go too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

logger = logging.getLogger("holdfast.server")

#: Tells a worker which port is theirs, where it says that it is ready, and what ends when the first process does.
PORT, READY, LIFE = "HOLDFAST_WORKER_PORT", "HOLDFAST_WORKER_READY_FD", "HOLDFAST_WORKER_LIFE_FD"

#: A worker that ends by itself is started again no sooner than this after its start …
PAUSE_SECONDS = 1.0
#: … and one that ends again and again after twice as long each time, up to this: who lived longer has done well. Both
#: in seconds.
LONGEST_PAUSE_SECONDS = 30.0
#: How often is looked whether all are there. Seconds.
LOOK_SECONDS = 0.1
#: What a worker may take to end beyond the time that it drains for. Seconds.
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Duty:
    """What one of several processes was told: the port that they share, and two ends of pipes."""

    port: int
    ready: int
    life: int

    def report(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say that this worker serves; from now on it ends when the first process has ended, however that was."""
        os.write(self.ready, b".")

        def end() -> None:
            loop.remove_reader(self.life)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(self.life, end)


@cache
def duty() -> Duty | None:
    """Return what this process was told, if it is one of several; what it starts itself does not inherit that."""
    told = [os.environ.pop(name, "") for name in (PORT, READY, LIFE)]
    if not all(each.isdecimal() for each in told):
        return None
    found = Duty(*map(int, told))
    for end in (found.ready, found.life):
        os.set_inheritable(end, False)
    return found


class Worker:
    """One of the processes that serve."""

    def __init__(self, command: Sequence[str], port: int, life: int) -> None:
        self._ready, ready = os.pipe()
        os.set_blocking(self._ready, False)
        environment = {PORT: str(port), READY: str(ready), LIFE: str(life)}
        self.started = time.monotonic()
        self.is_ready = False
        try:
            self.process = subprocess.Popen(  # noqa: S603 - it is our own command
                command, env={**os.environ, **environment}, pass_fds=(ready, life), start_new_session=True
            )
        except OSError:
            os.close(self._ready)
            raise
        finally:
            os.close(ready)

    def look(self) -> int | None:
        """See how it is: None while it runs, else its exit status."""
        status = self.process.poll()  # before it is read what it said last
        if not self.is_ready:
            with suppress(BlockingIOError):
                self.is_ready = os.read(self._ready, 1) == b"."
        return status

    def tell(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._ready)


class Place:
    """One worker, and when it has ended the next."""

    def __init__(self, start: Callable[[], Worker]) -> None:
        self._start = start
        self._pause = PAUSE_SECONDS
        self._next_at: float | None = None
        self.worker = start()

    def replace(self, status: int) -> None:
        """Start the next worker, if it is time: the last has ended."""
        now = time.monotonic()
        if self._next_at is None:
            if now > self.worker.started + LONGEST_PAUSE_SECONDS:
                self._pause = PAUSE_SECONDS
            self._next_at = max(now, self.worker.started + self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            pid, pause = self.worker.process.pid, self._next_at - now
            logger.error("worker %d ended (%d), and is started again in %.1f s", pid, status, pause)
        if now >= self._next_at:
            try:
                worker = self._start()
            except OSError as error:
                logger.error("no worker can be started (%s); it is tried again", error)
                self._next_at = now + self._pause
            else:
                self.worker.close()
                self.worker, self._next_at = worker, None


class Crew:
    """
    The processes that serve one port, which `sockets` hold, as the first one sees to them.

    A worker that is told to end has `seconds` for it; then it is killed.
    """

    def __init__(
        self, command: Sequence[str], sockets: Sequence[socket.socket], workers: int, seconds: float = CLOSE_SECONDS
    ) -> None:
        self._command = command
        self._sockets = sockets
        self._workers = workers
        self._seconds = seconds
        self._told = 0  # to end, how often
        self._life, self._breath = os.pipe()  # the second is held by this process alone

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status: that of a worker, if one cannot begin."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        places = [Place(self._start) for _ in range(self._workers)]
        has_served, failure = False, 0
        while not self._told and not failure:
            time.sleep(LOOK_SECONDS)
            for place in places:
                status = place.worker.look()
                if status is not None and not has_served:
                    failure = exit_status(status)  # it has said why
                elif status is not None:
                    place.replace(status)
            if not has_served and all(place.worker.is_ready for place in places):
                has_served = True
                on_ready()
        self._end([place.worker for place in places])
        return failure

    def _start(self) -> Worker:
        return Worker(self._command, self._sockets[0].getsockname()[1], self._life)

    def _tell(self, number: int, frame: object) -> None:
        self._told += 1

    def _end(self, workers: Sequence[Worker]) -> None:
        """Tell all to end, and wait; who is told once more, or has waited long enough, does not wait for the rest."""
        until, told = time.monotonic() + self._seconds, max(1, self._told)
        for worker in workers:
            worker.tell(signal.SIGTERM)
        while any(worker.process.poll() is None for worker in workers):
            if self._told > told or time.monotonic() > until:
                for worker in workers:
                    if worker.process.poll() is None:
                        logger.error("worker %d does not end, and is killed", worker.process.pid)
                        worker.tell(signal.SIGKILL)
                break
            time.sleep(LOOK_SECONDS)
        for worker in workers:
            worker.process.wait()
            worker.close()
        for each in self._sockets:
            each.close()


def exit_status(status: int) -> int:
    """Return the exit status of a process whose worker has ended with `status` and should not have; never 0."""
    return 128 - status if status < 0 else status or 1


def command() -> list[str]:
    """Return the command that a worker is started by: this one."""
    return [sys.executable, "-m", "holdfast", *sys.argv[1:]]
