"""
How do several processes serve one port?

The first one makes sockets for all of them on this port, among which the kernel shares out
what comes (SO_REUSEPORT), and starts the others with them. It starts those again that end by
themselves, passes on what it is told (SIGTERM), and when it is gone they go too.
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
from itertools import chain

logger = logging.getLogger("holdfast.server")

#: Tells a worker which sockets are its own, where it says that it is ready, and what ends when the first process does.
SOCKETS, READY, LIFE = "HOLDFAST_SOCKETS", "HOLDFAST_READY", "HOLDFAST_LIFE"

#: A worker that ends by itself is started again no sooner than this after its start. Seconds.
RESTART_SECONDS = 1.0
#: How often is looked whether all are there. Seconds.
LOOK_SECONDS = 0.1


def is_worker() -> bool:
    """Whether this process is one of several."""
    return SOCKETS in os.environ


def inherited() -> list[socket.socket]:
    """Return the sockets that this worker was started with."""
    return [socket.socket(fileno=int(number)) for number in os.environ[SOCKETS].split(",")]


def report_for_duty(loop: asyncio.AbstractEventLoop) -> None:
    """Say that this worker serves; from now on it ends when the first process has ended, however that was."""
    os.write(int(os.environ[READY]), b".")
    life = int(os.environ[LIFE])

    def end() -> None:
        loop.remove_reader(life)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(life, end)


class Worker:
    """One of the processes that serve."""

    def __init__(self, command: Sequence[str], sockets: Sequence[socket.socket], life: int) -> None:
        self._ready, ready = os.pipe()
        os.set_blocking(self._ready, False)
        numbers = [each.fileno() for each in sockets]
        environment = {SOCKETS: ",".join(map(str, numbers)), READY: str(ready), LIFE: str(life)}
        self.started = time.monotonic()
        self.is_ready = False
        self.process = subprocess.Popen(  # noqa: S603 - it is our own command
            command, env={**os.environ, **environment}, pass_fds=(*numbers, ready, life), start_new_session=True
        )
        os.close(ready)

    def look(self) -> int | None:
        """See how it is: None while it runs, else its exit status."""
        status = self.process.poll()  # before it is read what it said last
        if not self.is_ready:
            with suppress(BlockingIOError):
                self.is_ready = os.read(self._ready, 1) == b"."
        return status

    def close(self) -> None:
        """Let go of it."""
        os.close(self._ready)


class Crew:
    """The processes that serve, each with its own sockets, as the first one sees to them."""

    def __init__(self, command: Sequence[str], sockets: Sequence[Sequence[socket.socket]]) -> None:
        self._command = command
        self._sockets = sockets
        self._is_told = False  # to end
        self._life, self._breath = os.pipe()  # the second is held by this process alone

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status: that of a worker, if one cannot begin."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        workers = [self._start(sockets) for sockets in self._sockets]
        has_served, failure = False, 0
        while not self._is_told and not failure:
            time.sleep(LOOK_SECONDS)
            for place, worker in enumerate(workers):
                status = worker.look()
                if status is not None and not has_served:
                    failure = status or 1  # it has said why
                elif status is not None and time.monotonic() > worker.started + RESTART_SECONDS:
                    logger.error("worker %d ended (%d), and is started again", worker.process.pid, status)
                    worker.close()
                    workers[place] = self._start(self._sockets[place])
            if not has_served and all(worker.is_ready for worker in workers):
                has_served = True
                on_ready()
        self._end(workers)
        return failure

    def _start(self, sockets: Sequence[socket.socket]) -> Worker:
        return Worker(self._command, sockets, self._life)

    def _tell(self, number: int, frame: object) -> None:
        self._is_told = True

    def _end(self, workers: Sequence[Worker]) -> None:
        """Tell all to end, and wait: each knows how long it may take."""
        for each in chain.from_iterable(self._sockets):
            each.close()
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.process.wait()
            worker.close()


def command() -> list[str]:
    """Return the command that a worker is started by: this one."""
    return [sys.executable, "-m", "holdfast", *sys.argv[1:]]
