"""
A network that breaks: a proxy whose connections can be reset, or fall silent and stay open.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self


class Cable:
    """One connection through the proxy: two sockets, and what is pumped between them."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.silent = False
        self.swallowed = 0  # bytes
        self.forward = True
        self.answered = asyncio.Event()
        self.switching: asyncio.Future[bytes] | None = None

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.silent:
                    self.swallowed += len(data)  # neither side learns of anything
                    continue
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

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self._target = port
        self._address = address
        self._cables: list[Cable] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.is_silent = False  # also for those that come

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

    def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        connected = self._spawn(self._connect(near_reader, near))
        connected.add_done_callback(lambda task: near.transport.abort() if task.cancelled() else None)
        if not self._server.is_serving():  # it came while this ended
            connected.cancel()

    async def _connect(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection(self._address, self._target)
        except OSError:
            near.transport.abort()
            return
        cable = Cable(near, far)
        cable.silent = self.is_silent
        self._cables.append(cable)
        await self._carry(cable, near_reader, far_reader)
        if not cable.silent:
            self._cables.remove(cable)

    async def _carry(self, cable: Cable, near_reader: asyncio.StreamReader, far_reader: asyncio.StreamReader) -> None:
        await asyncio.wait(
            (self._spawn(cable.pump(near_reader, cable.far)), self._spawn(cable.pump(far_reader, cable.near)))
        )

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

    def silence(self) -> None:
        """Let nothing pass, and tell nobody, until `restore`."""
        self.is_silent = True
        for cable in self._cables:
            cable.silent = True
            cable.swallowed = 0

    def restore(self) -> int:
        """Let new connections pass; the old ones are lost. Return how many bytes have not passed since `silence`."""
        self.is_silent = False
        return sum(cable.swallowed for cable in self._cables)

    def fall_silent(self, share: float, dice: random.Random) -> int:
        """Let a share of the connections fall silent, half-open: nothing passes, nobody is told."""
        cables = self.some(share, dice)
        for cable in cables:
            cable.silent = True
        return len(cables)


@contextmanager
def in_a_thread(proxy: Proxy) -> Iterator[Proxy]:
    """Run a proxy beside the event loop, for who waits without leaving that."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(30)
        try:
            yield proxy
        finally:
            asyncio.run_coroutine_threadsafe(proxy.__aexit__(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Middlebox(Proxy):
    """
    A proxy that knows no WebSockets, and does worse things, as those of offices and hotels do.

    Attributes:
        websocket: What becomes of an upgrade: `passes`, is `refused` (an HTTP status), `cut` (closed without a
            word) or `swallowed` (the handshake passes, and nothing after it).
        streams: What becomes of an event stream: `pass`, or `held back` until they end, which is never.
        patience: An answer that has not begun after so many seconds is given up. None: any time.
    """

    def __init__(
        self,
        port: int,
        address: str = "127.0.0.1",
        *,
        websocket: str,
        streams: str = "pass",
        patience: float | None = None,
    ) -> None:
        super().__init__(port, address)
        self.websocket = websocket
        self.streams = streams
        self.patience = patience
        self.asked: list[str] = []  # the paths and queries, in their order

    async def _carry(self, cable: Cable, near_reader: asyncio.StreamReader, far_reader: asyncio.StreamReader) -> None:
        pumps = self._spawn(self._upward(cable, near_reader)), self._spawn(self._downward(cable, far_reader))
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        cable.close()

    async def _upward(self, cable: Cable, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                head = data.split(b"\r\n\r\n")[0].lower()
                if head.startswith((b"get ", b"post ")):
                    self.asked.append(head.split()[1].decode())
                if cable.switching is not None:
                    pass  # no HTTP any more
                elif b"\r\nupgrade: websocket" not in head:
                    held_back = self.streams == "held back" and b"/events?" in head
                    cable.forward = not held_back
                elif self.websocket == "refused":
                    cable.near.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    return
                elif self.websocket == "cut":
                    return
                elif self.websocket == "swallowed":
                    cable.forward = False
                    cable.near.write(await self._handshake(cable, data))
                    continue
                cable.answered = asyncio.Event()
                if self.patience is not None and b"upgrade" not in head:
                    self._spawn(self._lose_patience(cable, cable.answered, self.patience))
                cable.far.write(data)

    async def _handshake(self, cable: Cable, data: bytes) -> bytes:
        cable.switching = asyncio.get_running_loop().create_future()
        cable.far.write(data)
        return await cable.switching

    async def _downward(self, cable: Cable, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                cable.answered.set()
                if cable.switching is not None and not cable.switching.done():
                    head, end, _ = data.partition(b"\r\n\r\n")
                    cable.switching.set_result(head + end)
                if cable.forward:
                    cable.near.write(data)

    async def _lose_patience(self, cable: Cable, answered: asyncio.Event, seconds: float) -> None:
        try:
            await asyncio.wait_for(answered.wait(), seconds)
        except TimeoutError:
            cable.reset()
