"""
How does a real server run in the sea?

The whole of it: uvicorn with our class, the Hub, the store. Only what it stands on is not real: the
event loop, the network, and the disk, or the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any, Protocol

import msgspec

from holdfast import Hub
from holdfast.errors import Invalid, OutcomeUnknown, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.server.conversation import Request
from holdfast.server.hub import open_hubs
from holdfast.server.limits import Limits
from holdfast.server.runner import Server, configure
from holdfast.store.sqlite import SqliteStore
from holdfast.store.store import ReadTransaction, Retention, Store, Transaction
from holdfast.testing.endpoint import Socket
from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.network import SeaLoop
from holdfast.testing.turns import Turns, TurnWorker
from holdfast.testing.virtual import Inline, Process

TABLE = "CREATE TABLE entry (id INTEGER PRIMARY KEY, room TEXT NOT NULL, text TEXT NOT NULL)"
#: A log is kept so short that some who were away find it trimmed.
RECORDS = 300
#: A room into which nobody is let, and of which nobody may hear.
LOCKED = "locked"
#: What ends like this is refused.
REFUSED = "!"


def add(tx: Transaction, room: str, text: str) -> str:
    """Write an entry down, and publish it: state and event are one (a change). It finds out late what it refuses."""
    tx.execute("INSERT INTO entry (room, text) VALUES (?, ?)", (room, text))
    tx.publish(room, "added", {"text": text})
    if text.endswith(REFUSED):
        raise Invalid("such a text is not taken", field="text")
    return text


def entries(tx: ReadTransaction, room: str) -> list[str]:
    """Return what was written down in a room, in order (a query)."""
    return [str(row["text"]) for row in tx.all("SELECT text FROM entry WHERE room = ? ORDER BY id", (room,))]


class InOrder(dict[Any, None]):
    """A set that is always gone through in the same order: the addresses of its members do not decide."""

    def add(self, member: Any) -> None:
        """Have it in the set."""
        self[member] = None

    def discard(self, member: Any) -> None:
        """Have it no more."""
        self.pop(member, None)

    def remove(self, member: Any) -> None:
        """Have it no more."""
        del self[member]


class Keeping(Protocol):
    """Where a server keeps its log."""

    def open(self, codec: Codec) -> Store:
        """Return a store, in the process that is to have it."""

    def abandon(self) -> None:
        """That process is gone (SIGKILL); its threads are taken apart later."""

    def close(self) -> None:
        """That process has ended in good order."""

    def bury(self) -> None:
        """Take apart the threads of all processes."""


class InFile:
    """In a file."""

    def __init__(self, loop: SeaLoop, path: Path, retention: Retention) -> None:
        self._loop = loop
        self._path = path
        self._retention = retention
        self._store: SqliteStore | None = None
        self._turns: list[Turns] = []

    def open(self, codec: Codec) -> Store:
        """Return a store, in the process that is to have it."""
        self._turns.append(Turns(self._loop))
        self._store = SqliteStore(
            str(self._path),
            codec,
            migrations=[TABLE],
            retention=self._retention,
            worker=TurnWorker(self._turns[-1]),
            reads=Inline(),
            wall=lambda: time.time(),
        )
        return self._store

    def abandon(self) -> None:
        """That process is gone, and its threads may be in the middle of something."""
        if self._store is not None:
            self._store.abandon()
        self._store = None

    def close(self) -> None:
        """That process has ended in good order."""
        self._store = None
        self._turns.pop().end()

    def bury(self) -> None:
        """Take apart the threads of all processes."""
        for turns in self._turns:
            turns.end()


class ServerProcess:
    """
    A server, as one process after the other, on the same log. `opened` is called with each hub that opens.

    Attributes:
        process: The one that runs, if any does.
        hub: Its hub, once that is open.
        starts: How often it was started.
        put_off: The texts that it could not write down for now. Whoever is not told so asks for them again.
    """

    def __init__(
        self,
        loop: SeaLoop,
        address: tuple[str, int],
        keeping: Keeping,
        opened: Callable[[Hub], None],
    ) -> None:
        self._loop = loop
        self.address = address
        self.keeping = keeping
        self._opened = opened
        self._limits = Limits()
        self.process: Process | None = None
        self.hub: Hub | None = None
        self.dead: list[Process] = []
        self.starts = 0
        self.put_off: set[str] = set()
        self._running: asyncio.Task[None] | None = None
        self._told_to_end = asyncio.Event()

    @property
    def url(self) -> str:
        """Where its WebSocket is."""
        return f"ws://{self.address[0]}:{self.address[1]}/ws"

    @property
    def is_up(self) -> bool:
        """Whether it runs, and is not about to end."""
        return self.process is not None and self.process.is_alive

    def start(self) -> None:
        """Start it."""
        self.starts += 1
        self._told_to_end = asyncio.Event()
        self.process = Process(f"server {self.starts}")
        self._running = self.process.run(self._loop.create_task, self._serve())
        self._running.add_done_callback(self._ended)

    def kill(self, felt: Felt = unfelt) -> None:
        """End it, now (SIGKILL)."""
        assert self.process is not None
        self.process.kill(felt)
        self.dead.append(self.process)
        if self.hub is not None:
            open_hubs.discard(self.hub)
        self.keeping.abandon()
        self.process = self.hub = None

    async def stop(self, felt: Felt = unfelt) -> None:
        """End it in good order (SIGTERM)."""
        running = self._running
        assert running is not None
        self._told_to_end.set()
        await running
        felt()
        if running is self._running:  # else somebody who told it too has started it again
            self.keeping.close()
            self.process = self.hub = None

    def _ended(self, running: asyncio.Task[None]) -> None:
        """See to it that one that could not begin is started again, as a service manager does."""
        if not running.cancelled() and running.exception() is not None and running is self._running and self.is_up:
            self.kill()
            self._loop.call_later(1.0, lambda: None if self.is_up else self.start(), context=Context())

    async def _serve(self) -> None:
        hub = Hub(self.keeping.open(Codec("room")), limits=self._limits)
        hub.on("add")(_adding(hub, self.put_off))
        hub.snapshot(entries)
        hub.authorize(lambda user, room, action: room != LOCKED)
        config = configure(hub.app, self._limits, speed=False, log_level="critical")
        async with hub:
            self.hub = hub
            self._opened(hub)
            server = Server(config, lambda: None)
            server.hubs = lambda: (hub,)  # type: ignore[method-assign]
            state: Any = server.server_state
            state.connections, state.tasks = InOrder(), InOrder()
            server.lifespan = config.lifespan_class(config)
            await server.startup([Socket(self.address)])  # type: ignore[list-item]
            await self._told_to_end.wait()
            await server.shutdown()


def _adding(hub: Hub, put_off: set[str]) -> Callable[[Request], Any]:
    async def adding(request: Request) -> str:
        assert request.room is not None
        text = msgspec.convert(request.data["text"], str)
        try:
            return await hub.write(add, request.room, text)
        except (OutcomeUnknown, Unavailable):
            put_off.add(text)
            raise

    return adding
