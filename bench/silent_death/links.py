"""
A client's way to the server, in user space: it can be reset, fall silent in one direction or both, or become slow.

What falls silent is swallowed. The kernel at either end is told that it has arrived, so what only a kernel would notice
of a dead network (its retransmissions, for many minutes) is not in here: everybody depends on what they say themselves.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from contextlib import suppress
from typing import Self

UP, DOWN = "up", "down"  # from the client to the server, and back
OTHER = {UP: DOWN, DOWN: UP}
BUFFER = 64 * 1024  # of the socket that faces the server: what is on its way to a client, as its receive window is
LINGER_NOT = struct.pack("ii", 1, 0)


class Way(enum.Enum):
    """What becomes of those who connect."""

    OPEN = enum.auto()
    RESET = enum.auto()
    SILENT = enum.auto()  # until it is open again, as TCP repeats its SYN


class Cable:
    """One connection: two sockets, and what is lost between them."""

    def __init__(self, link: Link, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.link = link
        self.writers = {DOWN: near, UP: far}
        self.lost: set[str] = set()

    async def pump(self, reader: asyncio.StreamReader, direction: str) -> None:
        writer = self.writers[direction]
        try:
            while data := await self.link.read(reader, direction):
                if direction in self.lost:
                    continue
                try:
                    writer.write(data)
                    await writer.drain()
                except OSError:
                    if OTHER[direction] not in self.lost:
                        raise
                    self.lost.add(direction)  # nobody is there any more, and that cannot be told
        except OSError:
            if direction not in self.lost:
                reset(writer)
            return
        if direction not in self.lost:
            with suppress(OSError, RuntimeError):
                writer.write_eof()

    def reset(self, *directions: str) -> None:
        for direction in directions:
            reset(self.writers[direction])


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()


class Link:
    """What one client connects to instead of the server."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._cables: set[Cable] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = asyncio.Event()
        self._opened.set()
        self._way = Way.OPEN
        self._rate: float | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for cable in tuple(self._cables):
            cable.reset(UP, DOWN)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Faults.

    def reset(self) -> None:
        """Both sides get a RST, and so does who comes."""
        self._bar(Way.RESET)
        for cable in self._cables:
            cable.reset(UP, DOWN)

    def lose(self, *directions: str) -> None:
        """Nothing passes in these directions, nobody is told, and no new connection comes about."""
        self._bar(Way.SILENT)
        for cable in self._cables:
            cable.lost.update(directions)

    def abandon(self) -> None:
        """The client gets a RST, the server is not told; there is a way for new connections."""
        for cable in self._cables:
            cable.lost.update((UP, DOWN))
            cable.reset(DOWN)

    def slow(self, rate: float) -> None:
        """No more than so many bytes a second reach the client."""
        self._rate = rate

    def heal(self) -> None:
        """Let everything pass, on new connections: what old ones have lost is lost."""
        self._way = Way.OPEN
        self._rate = None
        self._opened.set()

    def _bar(self, way: Way) -> None:
        self._way = way
        self._opened.clear()

    # Connections.

    def _take(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._accept(reader, near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        early: bytes | None = b""
        if self._way is Way.SILENT:
            early = await self._wait(reader)
        if early is None:
            near.close()
            return
        if self._way is Way.RESET:
            reset(near)
            return
        try:
            far_reader, far = await self._dial()
        except OSError:
            reset(near)
            return
        far.write(early)
        cable = Cable(self, near, far)
        self._cables.add(cable)
        try:
            await asyncio.gather(cable.pump(reader, UP), cable.pump(far_reader, DOWN))
            if cable.lost:
                await asyncio.Event().wait()  # what is held open is held open
        finally:
            self._cables.discard(cable)
            near.close()
            far.close()

    async def _wait(self, reader: asyncio.StreamReader) -> bytes | None:
        """Wait until there is a way, and return what the client has said; None if it has given up."""
        early = bytearray()

        async def collect() -> None:
            with suppress(OSError):
                while data := await reader.read(65536):
                    early.extend(data)

        waits = [asyncio.ensure_future(collect()), asyncio.ensure_future(self._opened.wait())]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return None if waits[0] in done else bytes(early)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._target))
        except OSError:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, limit=BUFFER // 2)

    async def read(self, reader: asyncio.StreamReader, direction: str) -> bytes:
        if direction == UP or self._rate is None:
            return await reader.read(65536)
        await asyncio.sleep(0.1)
        return await reader.read(int(self._rate / 10) if self._rate else 65536)
