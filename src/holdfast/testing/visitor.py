"""
How does a real client run in the sea, with an application that would notice if it was lied to?

It keeps a copy of its rooms, from what it was told alone, and gives commands. What it was told
is judged as it comes (`History`); what its copies are must be what was true at that position.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import holdfast
from holdfast import Event, HoldfastError, Resync
from holdfast.client.room import Snapshot
from holdfast.core.replica import Resumed
from holdfast.testing.history import History
from holdfast.testing.network import SeaLoop
from holdfast.testing.virtual import Process


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
    snapshots: int = 0
    by_http: int = 0  # how many items came without a WebSocket


class Visitor:
    """A client in some rooms. `url` is asked for at each dial: servers come and go."""

    def __init__(self, loop: SeaLoop, name: str, url: str, rooms: tuple[str, ...], by: str) -> None:
        self.name = name
        self.process = Process(name)
        self.copies = {room: Copy(History(room, name)) for room in rooms}
        self.commands: list[Command] = []
        self.violations: list[BaseException] = []
        self.tired_until = 0.0  # until then it reads nothing of what it was told
        self.client: holdfast.Client | None = None
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

    async def _run(self) -> None:
        snapshot = self._snapshot if self._by == "snapshot" else None
        async with holdfast.connect(self._url, snapshot=snapshot) as self.client:
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
                    await self._told(copy, item)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.violations.append(error)

    async def _told(self, copy: Copy, item: Any) -> None:
        copy.history.told(item)
        copy.by_http += self.client is not None and self.client.status.road is holdfast.Road.HTTP
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
            await self.rooms[command.room].command("add", text=command.text)
            command.outcome = "done"
        except holdfast.OutcomeUnknown:
            command.outcome = "unknown"
        except holdfast.NotSent:
            command.outcome = "not sent"
        except HoldfastError as error:
            command.outcome, command.reason = "refused", repr(error)

    async def _snapshot(self, room: str) -> tuple[Any, str]:
        """Ask for a room's state, by HTTP."""
        host, port = self._url.split("/")[2].split(":")
        async with asyncio.timeout(5.0):
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
