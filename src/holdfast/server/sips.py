"""
How long is one connection listened to before it is the others' turn?

asyncio reads up to 256 KiB in one turn of the loop, uvloop megabytes. In that there is room for many thousand frames,
or chunks of a body, each with nothing in it: nobody else is heard until the last one has been looked at. So what is
read is looked at in sips. What has cost little when it is all gone, as one large message does, has cost one turn; else
the rest waits for the next one, and nothing more is read until then. So does everything that comes when those who came
before have been listened to for long enough in one turn.

What a few small messages lead to can be much all the same, in a room with many people. So whoever has said several
waits in line before the next one is handled, once that takes long; in each turn of the loop, the first in line go on.
So does each request: it is read and answered for some tenths of a millisecond, and hundreds may come at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import islice
from typing import Any, cast

#: What is read at once: as much as asyncio does.
READ_BYTES = 256 * 1024
#: What is looked at at once. The most laborious 8 KiB that we know of take some 15 ms.
SIP_BYTES = 8 * 1024
#: Less than this is looked at whole: a request, or a few messages.
SMALL_BYTES = 1024
#: After this the rest waits: some hundred small messages, or several of the largest.
TURN_SECONDS = 0.002
#: After this everybody's does. Half of it is kept for those who come anew.
ALL_SECONDS = 0.016
#: The share of that in which somebody's next message is handled in the same turn.
NEXT_SHARE = TURN_SECONDS / ALL_SECONDS
#: So many of those who wait in line are asked in one turn whether there is time for them.
CALLS = 32


class Sipping(asyncio.BufferedProtocol):
    """A protocol to which what comes in is told in sips (`data_received`)."""

    __slots__ = ()

    _transport: asyncio.Transport
    _attention: Attention

    @property
    def is_held(self) -> bool:
        """Whether it wants nothing to be read now."""
        return False

    @property
    def missing(self) -> int:
        """How many bytes come next that are no work, as they are inside of something."""
        return 0

    @property
    def is_waiting(self) -> bool:
        """Whether something was read that it has not been told."""
        return self._transport in self._attention.waiting

    def data_received(self, data: bytes) -> None:
        """Take something in."""
        raise NotImplementedError

    def eof_received(self) -> bool | None:
        """Take in, when what was said is told, that nothing more is (asyncio)."""
        self._attention.finish(self._transport)
        return None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to what is read goes (asyncio)."""
        return self._attention.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was read (asyncio)."""
        attention = self._attention
        data = bytes(attention.buffer[:nbytes])
        if self._transport in attention.waiting or not attention.is_left():
            attention.wait(self._transport, data)
        elif nbytes < SMALL_BYTES:
            self.data_received(data)
        elif (rest := attention.sip(self._transport, data)) or (nbytes == READ_BYTES and attention.reads_on):
            attention.wait(self._transport, rest)


class Attention:
    """What one turn of the loop has left for those who say much, and who waits for the next one."""

    __slots__ = ("_began", "_calls", "_is_marked", "_line", "_now", "buffer", "reads_on", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.buffer = memoryview(bytearray(READ_BYTES))  # for all: what is read is copied before anything else is read
        self.reads_on = not isinstance(loop, asyncio.BaseEventLoop)  # uvloop reads on at once, 32 times
        self._now = time.monotonic if self.reads_on else loop.time  # in a turn, uvloop's clock stands still
        self._began = self._now()
        self._is_marked = False  # what was begun, was so in this turn
        self._line: dict[object, asyncio.Future[None]] = {}  # who waits for a turn, the first to come first
        self._calls = False  # those in line, in every turn
        self.waiting: dict[asyncio.Transport, bytes] = {}  # with what was read of them, in the order of their turns

    def is_left(self, share: float = 1.0) -> bool:
        """Whether there is any of it, or of a share of it."""
        now = self._now()
        if now - self._began <= ALL_SECONDS * share:
            return True
        if self._is_marked:
            return False
        self._begin(now)  # perhaps long after the turn itself has begun
        return True

    def wait(self, transport: asyncio.Transport, data: bytes) -> None:
        """Read nothing more from somebody until it is their turn again, and this has been told."""
        transport.pause_reading()
        if not self.waiting:
            self.loop.call_soon(self._go_on)
        self.waiting[transport] = self.waiting.get(transport, b"") + data  # perhaps somebody else has resumed it

    def is_crowded(self) -> bool:
        """Whether whoever comes now is to wait in line."""
        return bool(self._line) or not self.is_left()

    async def when_left(self) -> None:
        """Return now if nobody has to wait, else when it is their turn."""
        if self.is_crowded():
            await self.turn()

    async def turn(self) -> None:
        """Wait in line until there is some of it, in another turn."""
        if not self._calls:
            self._calls = True
            self.loop.call_soon(self._call)
        place = object()
        try:
            while True:
                self._line[place] = called = self.loop.create_future()
                await called
                if self.is_left():
                    return
        finally:
            del self._line[place]

    def _call(self) -> None:
        for called in islice(self._line.values(), CALLS) if self.is_left() else ():
            if not called.done():
                called.set_result(None)
        self._calls = bool(self._line)
        if self._calls:
            self.loop.call_soon(self._call)

    def _begin(self, now: float) -> None:
        self._began = now
        self._is_marked = True
        self.loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._is_marked = False

    def _go_on(self) -> None:
        self._begin(self._now())
        for transport in tuple(self.waiting):
            if not self.is_left(0.5):
                break
            try:
                rest = self.sip(transport, self.waiting.pop(transport))
            except Exception as error:  # as the loop does with who fails: the others go on
                self.loop.call_exception_handler({"message": "what came could not be taken in", "exception": error})
                transport.abort()
            if transport.is_closing():
                continue
            if rest:
                self.waiting[transport] = rest
            elif not cast(Sipping, transport.get_protocol()).is_held:
                transport.resume_reading()
        for transport in self.waiting:
            transport.pause_reading()  # whoever has resumed it
        if self.waiting:
            self.loop.call_soon(self._go_on)

    def finish(self, transport: asyncio.Transport) -> None:
        """Tell what waits of somebody who says nothing more."""
        rest = self.waiting.pop(transport, b"")
        while rest and not transport.is_closing():
            rest = self.sip(transport, rest)

    def sip(self, transport: asyncio.Transport, data: bytes) -> bytes:
        """Tell of as much of it as there is time for in one turn, and return the rest."""
        until = self._now() + TURN_SECONDS
        start = 0
        while start < len(data) and self._now() < until and not transport.is_closing():
            protocol = cast(Sipping, transport.get_protocol())  # perhaps another one than that of the sip before
            end = start + protocol.missing + SIP_BYTES
            protocol.data_received(data[start:end])
            start = end
        return data[start:]


class _OfThread(threading.local):
    attention: Attention | None = None


_here = _OfThread()


def attention() -> Attention:
    """Return that of the loop that runs here."""
    loop, known = asyncio.get_running_loop(), _here.attention
    if known is None or known.loop is not loop:
        known = _here.attention = Attention(loop)
    return known


class Sips(Sipping):
    """Tells another protocol, one of uvicorn's, what comes in."""

    __slots__ = ("_attention", "_transport", "inner")

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._attention = attention()
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
        """Pass it on, after what was said before it."""
        super().eof_received()
        answer: bool | None = self.inner.eof_received()
        return answer

    def pause_writing(self) -> None:
        """Pass it on."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self.inner.resume_writing()
