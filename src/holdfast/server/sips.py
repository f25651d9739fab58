"""
How much is read of one connection before it is the others' turn?

asyncio reads up to 256 KiB in one turn of the loop, uvloop megabytes. In that there is room for many thousand frames,
or chunks of a body, each with nothing in it: nobody else is heard until the last one has been looked at.
"""

from __future__ import annotations

import asyncio
from typing import Any

#: What is read in one turn. The most laborious 8 KiB that we know of take some 15 ms.
SIP_BYTES = 8 * 1024

_buffer = memoryview(bytearray(SIP_BYTES))  # one for all: what is read is handed on before anything else is read


class Sipping(asyncio.BufferedProtocol):
    """A protocol to which what comes in is told in sips (`data_received`), one in each turn."""

    __slots__ = ()

    _transport: asyncio.Transport

    @property
    def is_held(self) -> bool:
        """Whether it wants nothing to be read now."""
        return False

    def data_received(self, data: bytes) -> None:
        """Take something in."""
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to what is read goes (asyncio)."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was read (asyncio)."""
        self.data_received(bytes(_buffer[:nbytes]))
        loop = asyncio.get_running_loop()
        if nbytes == SIP_BYTES and not isinstance(loop, asyncio.BaseEventLoop) and self._transport.is_reading():
            # uvloop reads on at once, 32 times, while there is something.
            self._transport.pause_reading()
            loop.call_soon(_read_on, self._transport)


def _read_on(transport: asyncio.Transport) -> None:
    protocol = transport.get_protocol()  # perhaps another one by now
    if not transport.is_closing() and not (isinstance(protocol, Sipping) and protocol.is_held):
        transport.resume_reading()


class Sips(Sipping):
    """Tells another protocol, one of uvicorn's, what comes in."""

    __slots__ = ("_transport", "inner")

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._transport = inner.transport

    @property
    def is_held(self) -> bool:
        """Whether it wants nothing to be read now."""
        return bool(getattr(self.inner, "flow", self.inner).read_paused)

    def connection_made(self, transport: Any) -> None:
        """Pass it on."""
        self._transport = transport
        self.inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Pass it on."""
        self.inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        answer: bool | None = self.inner.eof_received()
        return answer

    def pause_writing(self) -> None:
        """Pass it on."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self.inner.resume_writing()
