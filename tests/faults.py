"""
A network that breaks: a proxy whose connections can be reset, or fall silent and stay open.
"""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from typing import Self


class Cable:
    """One connection through the proxy: two sockets, and what is pumped between them."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.silent = False

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.silent:
                    continue  # swallowed: neither side learns of anything
                writer.write(data)
                await writer.drain()
        if not self.silent:
            self.close()

    def close(self) -> None:
        for writer in (self.near, self.far):
            writer.close()

    def reset(self) -> None:
        """Both sides get a RST."""
        for writer in (self.near, self.far):
            sock = writer.transport.get_extra_info("socket")
            with suppress(OSError, AttributeError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            writer.transport.abort()


class Proxy:
    """Stands before a server, on a port of its own."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._cables: list[Cable] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        for cable in self._cables:
            cable.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            near.transport.abort()
            return
        cable = Cable(near, far)
        self._cables.append(cable)
        pumps = (self._spawn(cable.pump(near_reader, far)), self._spawn(cable.pump(far_reader, near)))
        await asyncio.wait(pumps)
        if not cable.silent:
            self._cables.remove(cable)

    def _spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def some(self, share: float, dice: random.Random) -> list[Cable]:
        """Return a share of the connections that work."""
        working = [cable for cable in self._cables if not cable.silent]
        return dice.sample(working, round(share * len(working)))

    def reset(self, share: float, dice: random.Random) -> int:
        """Reset a share of the connections; return how many."""
        cables = self.some(share, dice)
        for cable in cables:
            cable.reset()
        return len(cables)

    def fall_silent(self, share: float, dice: random.Random) -> int:
        """Let a share of the connections fall silent, half-open: nothing passes, nobody is told."""
        cables = self.some(share, dice)
        for cable in cables:
            cable.silent = True
        return len(cables)
