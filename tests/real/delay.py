"""
A long way: everything arrives, in order, but late, and sometimes very late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from faults import Proxy


class LongWay(Proxy):
    """
    A proxy on which a piece of a connection takes `seconds()`, and none overtakes another.

    What is on its way waits nowhere: as many pieces as there are can be under way.
    """

    def __init__(self, port: int, seconds: Callable[[], float]) -> None:
        super().__init__(port)
        self._seconds = seconds

    async def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection(self._address, self._target)
        except OSError:
            near.transport.abort()
            return
        ways = [self._spawn(self._carry(near_reader, far)), self._spawn(self._carry(far_reader, near))]
        await asyncio.wait(ways)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                at, data = await pieces.get()
                await asyncio.sleep(max(0.0, at - loop.time()))
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
                pieces.put_nowait((loop.time() + self._seconds(), data))
            await arriving
        finally:
            arriving.cancel()
            writer.transport.abort()
