"""
How does a WebSocket live after its handshake, on a transport of its own?

It reads also while its peer does not, answers control frames at once, and ends with `abort()`: a peer
that stops reading is cut, and a healthy busy one is not. Whoever makes handshakes offers such a
connection to the application under `EXTENSION` (`server/websocket.py` does, for uvicorn).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import SERVER, State

from holdfast.core.heartbeat import Pinged, Seen
from holdfast.core.inputs import Ending
from holdfast.core.ready import CHUNK_BYTES
from holdfast.protocol.codec import Codec, Frame
from holdfast.protocol.codes import CloseCode, close_reason
from holdfast.protocol.messages import ServerMessage, ServerPing
from holdfast.protocol.strict import Strict
from holdfast.protocol.whole import is_pong, whole_text
from holdfast.server.connection import Connection
from holdfast.server.hands import Hands
from holdfast.server.kernel import kernel_of
from holdfast.server.rate import Allowance
from holdfast.server.sips import Sipping

#: Under this name the ASGI scope of a WebSocket offers to hand its connection over.
EXTENSION = "holdfast.takeover"

#: A transport is full when this much waits in it; with one more chunk, no more than 128 KiB ever does.
HIGH_WATER = CHUNK_BYTES
LOW_WATER = CHUNK_BYTES // 4
#: Over TLS something waits also in a transport below, which does not show how much; it is no more than this. To take it
#: for more than it is does no harm: who acknowledges anything has time, and who does not has it from then on.
BELOW_TLS = 256 * 1024

_PONG = 0x80 | Opcode.PONG
_PING = b"\x89\x00"
_PING_TOO_IN_WORDS = _PING + Codec().encode(ServerPing(quiet=True)).wire
_CLEAN_CODES = {CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS}

# The engine says "connection closed" at INFO for each of ten thousand.
engine_logger = logging.getLogger("holdfast.engine")
engine_logger.setLevel(logging.WARNING)


class NativeConnection(Connection, Sipping):
    """A WebSocket after its handshake, on a transport of its own."""

    __slots__ = (
        "_aborting", "_asked_at", "_attention", "_below", "_closing", "_control", "_fragments", "_held", "_kernel",
        "_lost", "_made", "_on_server", "_pong", "_transport",
    )  # fmt: skip

    def __init__(self, hands: Hands, transport: asyncio.Transport, *, knows_us: bool) -> None:
        super().__init__(hands, knows_us=knows_us)
        limits = hands.limits
        self._transport = transport
        self._attention = hands.attention
        self._made: Strict | None = None
        self._fragments: list[bytes] | None = None
        self._control = Allowance(limits.control_frames_per_second, limits.control_frames_per_second, hands.now())
        self._closing = False
        self._aborting: asyncio.TimerHandle | None = None
        self._lost = False
        self._held = False
        self._on_server: set[Any] | None = None
        self._pong: bytes | None = None  # that waits until the transport takes more
        self._asked_at = 0  # where in the stream the last ping of ours is, if anything was before it
        self._below = 0 if transport.get_extra_info("sslcontext") is None else BELOW_TLS
        self._kernel = kernel_of(transport)
        self._kernel.wait_for_ever()
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)

    def on_server(self, connections: set[Any]) -> None:
        """Remember the server's own list of connections, which its shutdown waits for."""
        self._on_server = connections

    # What the transport tells.

    @property
    def is_held(self) -> bool:
        """Whether it wants nothing to be read now."""
        return self._held

    @property
    def missing(self) -> int:
        """How many bytes come next that are no work, as they are inside of a frame."""
        return 0 if self._made is None else self._made.missing

    def data_received(self, data: bytes) -> None:
        """Any received byte is life."""
        self.heard = self.hands.now()
        if self._closing and self._engine.eof_sent:
            return
        if self.identity is None and not self._closing and not self.from_nobody(len(data)):
            return
        if self._made is None or self._made.is_between:
            if is_pong(data):
                self._controlled()
                return
            if (text := whole_text(data)) is not None:
                self._text(text)
                return
        self._engine.receive_data(data)
        for event in self._engine.events_received():
            if isinstance(event, WireFrame) and not self._closing:
                self._frame(event)
        self._flush()
        if self._engine.parser_exc is not None and not self._closing:
            # The engine has sent the close frame that says what was wrong.
            self._closing = True
            self.hands.lost(self, Ending.UNCLEAN)
            self._abort_soon()
        if self._engine.eof_sent:
            self._transport.close()  # both close frames have passed (RFC 6455 §7.1.1); if it cannot, the abort will

    def connection_lost(self, error: Exception | None) -> None:
        """The link is gone; without a close frame, unclean."""
        self._closing = self._lost = True
        if self._made is not None:
            self._made.end()
        if self._aborting is not None:
            self._aborting.cancel()
        if self._on_server is not None:
            self._on_server.discard(self)
        self.hands.lost(self, Ending.UNCLEAN)

    def pause_writing(self) -> None:
        """The transport is full."""
        self.paused()

    def resume_writing(self) -> None:
        """The transport takes more."""
        if self._pong is not None and not self._closing:
            self._transport.write(self._pong)
        self._pong = None
        self.resumed()

    # Frames.

    def _frame(self, frame: WireFrame) -> None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY if frame.fin:
                self._message(frame.opcode, bytes(frame.data))
            case Opcode.TEXT | Opcode.BINARY:
                self._fragments = [bytes((frame.opcode,)), bytes(frame.data)]
            case Opcode.CONT:
                self._continued(frame)
            case Opcode.PING | Opcode.PONG:
                if frame.opcode is Opcode.PING:
                    self._answer(self._engine.take_pong())  # before what follows is answered
                self._controlled()
            case Opcode.CLOSE:
                received = self._engine.close_rcvd
                clean = received is not None and received.code in _CLEAN_CODES
                self._closing = True
                self.hands.lost(self, Ending.CLEAN if clean else Ending.UNCLEAN)
                self._abort_soon()

    def _answer(self, pong: bytes) -> None:
        if self.full:
            self._pong = pong  # nobody reads it now; the newest will do (RFC 6455 §5.5.3)
        else:
            self._transport.write(pong)

    def _controlled(self) -> None:
        if not self._control.take(self.hands.now()):
            self.refuse(CloseCode.TOO_FAST, "too many control frames")

    def _continued(self, frame: WireFrame) -> None:
        assert self._fragments is not None, "the engine checks the sequence (RFC 6455 §5.4)"
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > self.hands.limits.message_fragments + 1:
            self.refuse(CloseCode.MESSAGE_TOO_BIG, "too many fragments in one message")
        elif frame.fin:
            (kind, *parts), self._fragments = self._fragments, None
            self._message(Opcode(kind[0]), b"".join(parts))

    def _message(self, opcode: Opcode, data: bytes) -> None:
        if opcode is Opcode.TEXT:
            self._text(data)
        else:
            self.received_binary(len(data))

    def _text(self, data: bytes) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            # RFC 6455 §8.1. What comes in parts has been looked at by the engine.
            self.hands.end(self, CloseCode.INVALID_DATA, "text must be UTF-8")
        else:
            self.received(text)

    # What the Hub does.

    def write(self, wire: bytes, frames: Sequence[Frame]) -> None:
        """Send frames."""
        self._transport.write(wire)

    def say(self, message: ServerMessage) -> None:
        """Tell it something, unless a close frame was said (RFC 6455 §5.5.1)."""
        if not self._closing:
            super().say(message)

    def ping(self) -> Pinged | None:
        """Send a ping; return where in the stream it is, if anything is before it."""
        if self.full and (acknowledged := self._kernel.acknowledged()) is not None and acknowledged < self._asked_at:
            return Pinged(self, self._asked_at, acknowledged)  # the last one waits yet: another would say no more
        waiting = self._unacknowledged()
        self._transport.write(_PING_TOO_IN_WORDS if self.knows_us and self.identity is not None else _PING)
        acknowledged = self._kernel.acknowledged() if waiting else None
        self._asked_at = 0 if acknowledged is None else acknowledged + self._unacknowledged()
        return None if acknowledged is None else Pinged(self, self._asked_at, acknowledged)

    def look(self) -> Seen:
        """Return what the socket shows."""
        return Seen(self, self.heard, self.is_waiting or self._kernel.unread(), self._kernel.acknowledged())

    def hold(self, is_held: bool) -> None:
        """Read nothing more for a moment, or go on."""
        self._held = is_held
        if not self._transport.is_closing() and not self.is_waiting:
            (self._transport.pause_reading if is_held else self._transport.resume_reading)()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and abort soon after, whatever the peer does."""
        if not self._closing:
            self._closing = True
            self._abort_soon()
            if self._engine.state is State.OPEN:  # else the peer's own close frame has just come
                self._engine.send_close(code, close_reason(reason))
                self._flush()

    def abort(self) -> None:
        """End it now."""
        self._closing = True
        if not self._lost:
            self._kernel.reset_on_abort()
        self._transport.abort()

    def shutdown(self) -> None:
        """The server stops, and has drained nobody (a plain uvicorn, which says so to each)."""
        self.hands.departure.send_away("the server restarts")

    @property
    def _engine(self) -> Strict:
        """What reads frames in steps, and ends the connection: most who only listen never need one."""
        if self._made is None:
            self._made = Strict(SERVER, max_size=self.hands.limits.message_bytes, logger=engine_logger)
        return self._made

    def _flush(self) -> None:
        for data in self._engine.data_to_send():
            if data and not (self._closing and data[0] == _PONG):  # behind a close frame nobody waits for it
                self._transport.write(data)

    def _unacknowledged(self) -> int:
        """Return how many bytes were written, at most, that the peer has not acknowledged."""
        known = self._transport.get_write_buffer_size() + self._kernel.unacknowledged()
        return known + self._below if known else 0

    def _abort_soon(self) -> None:
        self._aborting = self.hands.loop.call_later(self.hands.limits.close_seconds, self.abort)
