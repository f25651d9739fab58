"""
How long is one connection listened to before it is the others' turn?

asyncio reads up to 256 KiB in one turn of the loop, uvloop megabytes. In that there is room for many thousand frames,
or chunks of a body, each with nothing in it: nobody else is heard until the last one has been looked at. So what is
read is looked at in sips. What has cost little when it is all gone, as one large message does, has cost one turn; else
the rest waits for the next one, and nothing more is read until then.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

#: What is read at once: as much as asyncio does.
READ_BYTES = 256 * 1024
#: What is looked at at once. The most laborious 8 KiB that we know of take some 15 ms.
SIP_BYTES = 8 * 1024
#: After this the rest waits: some hundred small messages, or several of the largest.
TURN_SECONDS = 0.002

_buffer = memoryview(bytearray(READ_BYTES))  # one for all: what is read is copied before anything else is read


class Sipping(asyncio.BufferedProtocol):
    """A protocol to which what comes in is told in sips (`data_received`)."""

    __slots__ = ()

    _transport: asyncio.Transport

    @property
    def is_held(self) -> bool:
        """Whether it wants nothing to be read now."""
        return False

    @property
    def missing(self) -> int:
        """How many bytes come next that are no work, as they are inside of something."""
        return 0

    def data_received(self, data: bytes) -> None:
        """Take something in."""
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to what is read goes (asyncio)."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was read (asyncio)."""
        data = bytes(_buffer[:nbytes])
        if nbytes <= SIP_BYTES:
            self.data_received(data)
            return
        rest = _sip(self._transport, data)
        if rest or (nbytes == READ_BYTES and not _is_asyncio()):  # uvloop reads on at once, 32 times
            _go_on_soon(self._transport, rest)


def _is_asyncio() -> bool:
    return isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)


def _sip(transport: asyncio.Transport, data: bytes) -> bytes:
    """Tell of as much of it as there is time for in one turn, and return the rest."""
    now = asyncio.get_running_loop().time if _is_asyncio() else time.monotonic  # in a turn, uvloop's clock stands still
    until = now() + TURN_SECONDS
    start = 0
    while start < len(data) and now() < until and not transport.is_closing():
        protocol = cast(Sipping, transport.get_protocol())  # perhaps another one than that of the sip before
        end = start + protocol.missing + SIP_BYTES
        protocol.data_received(data[start:end])
        start = end
    return data[start:]


def _go_on_soon(transport: asyncio.Transport, rest: bytes) -> None:
    # Whoever resumes reading meanwhile: what is called soon is, before the loop looks at its sockets again.
    transport.pause_reading()
    asyncio.get_running_loop().call_soon(_go_on, transport, rest)


def _go_on(transport: asyncio.Transport, rest: bytes) -> None:
    rest = _sip(transport, rest)
    if transport.is_closing():
        return
    if rest:
        _go_on_soon(transport, rest)
    elif not cast(Sipping, transport.get_protocol()).is_held:
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
