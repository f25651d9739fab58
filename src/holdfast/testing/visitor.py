"""
How does a real client run in the sea, with an application that would notice if it was lied to?

It keeps a copy of its rooms, from what it was told alone, gives commands, and types. What it was
told is judged as it comes (`History`), and so is what the server has said (`Line`); what its copies
are must be what was true at that position.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import holdfast
from holdfast import Event, HoldfastError, Resync
from holdfast.client.room import Snapshot
from holdfast.core import roads
from holdfast.core.backoff import FLOOR
from holdfast.core.reader import How
from holdfast.core.replica import Resumed
from holdfast.protocol import messages
from holdfast.testing.history import History, Line, Violation
from holdfast.testing.network import SeaLoop
from holdfast.testing.virtual import Process

#: For a snapshot to arrive, in any weather. Seconds.
SNAPSHOT = 60.0


@dataclass
class Command:
    """Something that was asked of the server, and what became of it."""

    room: str
    text: str
    outcome: str = "open"  # done, refused, unknown, not sent
    reason: str = ""


@dataclass
class Copy:
    """A room as a client knows it."""

    history: History
    entries: list[str] = field(default_factory=list)
    is_whole: bool = True  # else it began in the middle
    given: list[Command] = field(default_factory=list)  # in the order in which they were
    snapshots: int = 0
    by_http: int = 0  # how many items came without a WebSocket
    by_polls: int = 0  # … and without an event stream
    left: int = 0  # how often some were left in the log, since the application is slow


class Visitor:
    """
    A client in some rooms. `url` is asked for at each dial: servers come and go.

    With a `token`, it is another tab of whoever that belongs to.
    """

    def __init__(
        self, loop: SeaLoop, name: str, url: str, rooms: tuple[str, ...], by: str, token: str | None = None
    ) -> None:
        self.name = name
        self.process = Process(name)
        self.copies = {room: Copy(History(room, name)) for room in rooms}
        self.commands: list[Command] = []
        self.violations: list[BaseException] = []
        self.on_wrong: Callable[[], None] = lambda: None  # called at each of them
        self.tired_until = 0.0  # until then it reads nothing of what it was told
        self.heard: list[tuple[str, str, str]] = []  # of people: in which room, what, and of which user
        self.moved = 0  # to another server, before the one that ends was gone
        self.user_id: str | None = None
        self.client: holdfast.Client | None = None
        self._lines = {room: Line(room, name) for room in rooms}
        self._dialed = float("-inf")
        self._token = token
        self._loop = loop
        self._url = url
        self._by = by
        self._leaves = asyncio.Event()
        self.rooms: dict[str, Any] = {}
        self.running = self.process.run(loop.create_task, self._run())

    async def leave(self) -> None:
        """End in good order."""
        self._leaves.set()
        await self.running

    def command(self, room: str, text: str) -> None:
        """Give a command, and note what becomes of it."""
        command = Command(room, text)
        self.commands.append(command)
        self.process.run(self._loop.create_task, self._give(command))

    def type(self, room: str, what: str = "typing") -> None:
        """Begin to type, or stop."""
        if room in self.rooms:
            self.process.run(self._loop.create_task, self._say(room, what))

    @property
    def credentials(self) -> str | None:
        """What another tab of the same person comes with."""
        return None if self.client is None else self.client._credentials

    async def _run(self) -> None:
        snapshot = self._snapshot if self._by == "snapshot" else None
        self.client = holdfast.connect(self._url, snapshot=snapshot, token=self._token)
        self._listen_in(self.client)
        async with self.client:
            reading = [asyncio.create_task(self._read(self.client, room)) for room in self.copies]
            await self._leaves.wait()
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _read(self, client: holdfast.Client, name: str) -> None:
        copy = self.copies[name]
        try:
            async with client.join(name) as room:
                self.rooms[name] = room
                async for item in room:
                    if self._loop.time() < self.tired_until:
                        await asyncio.sleep(self.tired_until - self._loop.time())
                        copy.left += room.replica._paused
                    self._told(copy, item)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.violations.append(error)

    def _listen_in(self, client: holdfast.Client) -> None:
        """Judge what the server says, how often it is dialed, and whom it takes us for."""
        told, say, dial, connected = client._told, client._say, client._dial, client._connected
        go_over = client._go_over

        def telling(room: Any, message: messages.RoomMessage) -> None:
            self._judge(lambda: self._lines[room.name].said(message))
            if isinstance(message, messages.UserJoined | messages.UserLeft):
                self.heard.append((message.room, type(message).__name__, message.user_id))
            told(room, message)

        def saying(message: Any) -> None:
            if isinstance(message, messages.Sync):
                self._lines[message.room].asked(message.since)
            say(message)

        def dialing(by: roads.Road) -> Any:
            if by is roads.Road.WEBSOCKET:
                self._judge(self._may_dial)
            return dial(by)

        def connecting(message: messages.Connected) -> None:
            self._judge(lambda: self._is(message.user.user_id))
            connected(message)

        def going_over() -> None:
            self.moved += 1
            go_over()

        client._go_over = going_over  # type: ignore[method-assign]
        client._told, client._say = telling, saying  # type: ignore[method-assign]
        client._dial, client._connected = dialing, connecting  # type: ignore[method-assign]

    def _judge(self, judge: Callable[[], None]) -> None:
        try:
            judge()
        except Violation as error:
            self.violations.append(error)
            self.on_wrong()

    def _may_dial(self) -> None:
        since, self._dialed = self._loop.time() - self._dialed, self._loop.time()
        if since < FLOOR - 1e-6:
            raise Violation(f"{self.name} has dialed, and {since:.3f} s later again")

    def _is(self, user_id: str) -> None:
        if self.user_id not in (None, user_id):
            raise Violation(f"{self.name} is taken for somebody else than before")
        self.user_id = user_id

    def _told(self, copy: Copy, item: Any) -> None:
        copy.history.told(item)
        if self.client is not None and self.client.status.road is holdfast.Road.HTTP:
            copy.by_http += 1
            copy.by_polls += self.client._reader.how is not How.STREAM
        match item:
            case Event(_, "added", data):
                copy.entries.append(data["text"])
            case Snapshot(data):
                copy.entries, copy.is_whole = list(data), True
                copy.snapshots += 1
            case Resync(_, cursor):
                copy.entries, copy.is_whole = [], cursor.endswith(":0")
            case Resumed():
                pass

    async def _give(self, command: Command) -> None:
        try:
            while command.room not in self.rooms:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            self.copies[command.room].given.append(command)
            await self.rooms[command.room].command("add", text=command.text)
            command.outcome = "done"
        except holdfast.OutcomeUnknown:
            command.outcome = "unknown"
        except holdfast.NotSent:
            command.outcome = "not sent"
        except HoldfastError as error:
            command.outcome, command.reason = "refused", repr(error)

    async def _say(self, room: str, what: str) -> None:
        with suppress(HoldfastError):  # there may be no link, and nobody sees it then
            await self.rooms[room].send(what)

    async def _snapshot(self, room: str) -> tuple[Any, str]:
        """Ask for a room's state, by HTTP."""
        host, port = self._url.split("/")[2].split(":")
        async with asyncio.timeout(SNAPSHOT):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                request = f"GET /snapshot?room={room} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(head[:60].decode())
        answer = json.loads(body)
        return answer["data"], answer["cursor"]
