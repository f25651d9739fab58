"""
A long way: everything arrives, in order, but late, and sometimes very late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from faults import Cable, Proxy


class LongWay(Proxy):
    """
    A proxy on which a piece of a connection takes `seconds()`, and none overtakes another.

    What is on its way waits nowhere: as many pieces as there are can be under way.

    Attributes:
        took: How long each piece that has arrived was on its way, in seconds.
    """

    def __init__(self, port: int, seconds: Callable[[], float]) -> None:
        super().__init__(port)
        self._seconds = seconds
        self.took: list[float] = []

    async def _carry(self, cable: Cable, near_reader: asyncio.StreamReader, far_reader: asyncio.StreamReader) -> None:
        await asyncio.wait(
            (self._spawn(self._way(near_reader, cable.far)), self._spawn(self._way(far_reader, cable.near)))
        )

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                left, at, data = await pieces.get()
                await asyncio.sleep(max(0.0, at - loop.time()))
                self.took.append(loop.time() - left)
                if not data:
                    writer.close()
                    return
                with suppress(OSError):
                    writer.write(data)

        arriving = self._spawn(arrive())
        try:
            data = b"\0"
            while data:
                data = b""
                with suppress(OSError):
                    data = await reader.read(65536)
                pieces.put_nowait((loop.time(), loop.time() + self._seconds(), data))
            await arriving
        finally:
            arriving.cancel()
            writer.transport.abort()
