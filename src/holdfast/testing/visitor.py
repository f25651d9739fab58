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

from msgspec import UNSET

import holdfast
from holdfast import Event, HoldfastError, Resync
from holdfast.client.room import Snapshot
from holdfast.core import roads
from holdfast.core.backoff import FLOOR
from holdfast.core.link import State
from holdfast.core.reader import How
from holdfast.core.replica import Resumed
from holdfast.protocol import messages
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.cursor import Position, decode_position
from holdfast.testing.history import History, Line, Violation
from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.network import SeaLoop
from holdfast.testing.virtual import Process

#: For an answer to arrive by HTTP, in any weather. Seconds.
ANSWER = 60.0
#: How one might hear of a room into which one is not let: by word, or by HTTP.
WAYS_IN = ("join", "/snapshot?", "/poll?wait=0&", "/events?")


@dataclass
class Command:
    """Something that was asked of the server, and what became of it."""

    room: str
    text: str
    outcome: str = "open"  # done, refused, unknown, not sent
    reason: str = ""
    given: float = 0.0  # when
    answered: float = float("inf")
    seen: bool | None = None  # whether it was there for whoever looked after it was done; None: nobody did


@dataclass
class Copy:
    """A room as a client knows it."""

    history: History
    entries: list[str] = field(default_factory=list)
    is_whole: bool = True  # else it began in the middle
    given: list[Command] = field(default_factory=list)  # in the order in which they were
    taken: list[tuple[Position, list[str]]] = field(default_factory=list)  # snapshots, and where they are true
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
        self.left_unread: Felt = unfelt  # called when something waits for that
        self.heard: list[tuple[str, str, str]] = []  # of people: in which room, what, and of which user
        self.moved = 0  # to another server, before the one that ends was gone
        self.probes = 0  # how often it has asked whether anybody is there
        self.kept_out = 0  # how often it was not let in where nobody is
        self.is_put_out = False  # for good
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

    def command(self, room: str, text: str, *, looks: bool = False) -> None:
        """Give a command, and note what becomes of it; with `looks`, see by HTTP whether it is there then."""
        command = Command(room, text)
        self.commands.append(command)
        self.process.run(self._loop.create_task, self._give(command, looks=looks))

    def pry(self, way: str, room: str) -> None:
        """Try to hear of a room into which one is not let."""
        if way == "join":
            self.process.run(self._knock, room)
        else:
            self.process.run(self._loop.create_task, self._look_in(way, room))

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
                        self.left_unread()
                        await asyncio.sleep(self.tired_until - self._loop.time())
                        copy.left += room.replica._paused
                    self._told(copy, item)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not (self.is_put_out and isinstance(error, holdfast.Closed)):
                self.violations.append(error)

    def _listen_in(self, client: holdfast.Client) -> None:
        """Judge what the server says, how often it is dialed, and whom it takes us for."""
        rooms = client._rooms
        told, say, dial, connected = rooms._told, client._say, client._dial, client._connected
        go_over, heed = client._go_over, client._heed

        def heeding(message: Any) -> None:
            room = getattr(message, "room", UNSET)
            if room is not UNSET and room not in self.copies:
                self.kept_out += isinstance(message, messages.Error)
                self._judge(lambda: self._must_be_kept_out(message))
            heed(message)

        def telling(room: Any, message: messages.RoomMessage) -> None:
            self._judge(lambda: self._lines[room.name].said(message))
            if isinstance(message, messages.UserJoined | messages.UserLeft):
                self.heard.append((message.room, type(message).__name__, message.user_id))
            told(room, message)

        def saying(message: Any) -> None:
            match message:
                case messages.Join(room, since) if room in self._lines:
                    self._lines[room].joins(since)
                case messages.Sync(room, since) if room in self._lines:
                    self._lines[room].asked(since)
                case messages.Ping():
                    self.probes += 1
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

        client._go_over, client._heed = going_over, heeding  # type: ignore[method-assign]
        rooms._told, rooms._say, client._say = telling, saying, saying  # type: ignore[method-assign]
        client._dial, client._connected = dialing, connecting  # type: ignore[method-assign]

    def _judge(self, judge: Callable[[], None]) -> None:
        try:
            judge()
        except Violation as error:
            self._wrong(error)

    def _wrong(self, error: Violation) -> None:
        self.violations.append(error)
        self.on_wrong()

    def _may_dial(self) -> None:
        if self.is_put_out and self.client is not None and self.client.status.code == CloseCode.FORBIDDEN:
            raise Violation(f"{self.name} was put out, and comes back")
        since, self._dialed = self._loop.time() - self._dialed, self._loop.time()
        if since < FLOOR - 1e-6:
            raise Violation(f"{self.name} has dialed, and {since:.3f} s later again")

    def _must_be_kept_out(self, message: Any) -> None:
        if not isinstance(message, messages.Error):
            raise Violation(f"{self.name} is not in {message.room}, and was told {message}")

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
            case Snapshot(data, cursor):
                copy.entries, copy.is_whole = list(data), True
                copy.taken.append((decode_position(cursor, copy.history.room), data))
            case Resync(_, cursor):
                copy.entries, copy.is_whole = [], cursor.endswith(":0")
            case Resumed():
                pass

    async def _give(self, command: Command, *, looks: bool) -> None:
        try:
            while command.room not in self.rooms:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            self.copies[command.room].given.append(command)
            command.given = self._loop.time()
            answer = await self.rooms[command.room].command("add", text=command.text)
            command.outcome, command.answered = "done", self._loop.time()
            if answer != command.text:
                self._wrong(Violation(f"{self.name} has given the command {command.text}, and is answered {answer}"))
        except holdfast.OutcomeUnknown:
            command.outcome = "unknown"
        except holdfast.NotSent:
            command.outcome = "not sent"
        except HoldfastError as error:
            command.outcome, command.reason = "refused", repr(error)
        if looks and command.outcome == "done":
            with suppress(OSError, TimeoutError):
                there, _ = await self._snapshot(command.room)
                command.seen = command.text in there

    async def _say(self, room: str, what: str) -> None:
        with suppress(HoldfastError):  # there may be no link, and nobody sees it then
            await self.rooms[room].send(what)

    async def _snapshot(self, room: str) -> tuple[Any, str]:
        """Ask for a room's state."""
        status, answer = await self.get(f"/snapshot?room={room}")
        if status != 200:
            raise OSError(f"{status}: {answer}")
        return answer["data"], answer["cursor"]

    async def get(self, path: str) -> tuple[int, Any]:
        """Ask for something by HTTP; return the status, and what was answered."""
        host, port = self._url.split("/")[2].split(":")
        async with asyncio.timeout(ANSWER):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        try:
            return int(head.split(b" ", 2)[1]), json.loads(body)
        except (IndexError, ValueError):
            raise OSError(f"this is no answer: {head[:60]!r}") from None

    def _knock(self, room: str) -> None:
        if self.client is not None and self.client.status.state is State.LIVE:
            self.client._say(messages.Join(room))

    async def _look_in(self, way: str, room: str) -> None:
        with suppress(OSError, TimeoutError):
            status, answer = await self.get(f"{way}room={room}")
            self.kept_out += status == 403
            if status < 400:
                self._wrong(Violation(f"{self.name} is not let into {room}, and was told {answer}"))
