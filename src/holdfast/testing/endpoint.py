"""
What does one end of a wire see?

TCP as it looks from both ends, with nothing below it: bytes arrive late, in other pieces than
they were written, or not at all; a wire is reset, or falls silent half-open so that no end is
told; a peer takes nothing, and what is written waits, in its kernel first and then in ours.
Nothing is ever changed or swapped.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.virtual import Process

if TYPE_CHECKING:
    from holdfast.testing.network import Network

#: What each kernel keeps of what its process has written, or not read yet, unless the weather is another. Bytes.
BUFFER = 128 * 1024
#: What is on its way at once where little gets through in a second. Bytes.
PIECE = 4 * 1024
#: A transport's limits, unless it is told others (asyncio's own).
HIGH_WATER = 64 * 1024


class Endpoint(asyncio.Transport):
    """One end of a wire, as a protocol sees it."""

    def __init__(self, wire: Wire, process: Process | None, address: tuple[str, int]) -> None:
        super().__init__()
        self.wire = wire
        self.process = process
        self.address = address
        self.peer: Endpoint
        self._loop = wire.network.loop
        self._protocol: asyncio.BaseProtocol | None = None
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._own: bytearray = bytearray()  # written, and not taken by the kernel
        self.most = 0  # that there ever was of it
        self._sent: bytearray = bytearray()  # taken by the kernel, and not on its way
        self._flying: deque[bytes] = deque()
        self._in_flight = 0  # bytes
        self._unread: bytearray = bytearray()  # in this end's kernel
        self._arrives = self._sent_at = 0.0  # what is on its way last
        self.is_silent = False  # nothing that this end sends gets through
        self._vanished: Felt = unfelt  # called when something has not got through
        self._vanished_here: Felt = unfelt  # … and something from the other end has
        self._has_vanished = False
        self.user_timeout: float | None = None  # after which, without an acknowledgement, the kernel ends it (tcp(7))
        self._waits_for_acknowledgement = False
        self._unconfirmed = 0  # of what has arrived, how much cannot be acknowledged
        self._acknowledged = 0  # of what was written, how much has arrived
        self._ends = False  # nothing more will be written
        self._end_sent = self._end_heard = self._end_told = False
        self._is_full = False
        self._is_reading = True
        self._is_lost = False
        self._closing = self._resets = False
        self._waits_to_read = False
        if process is not None:
            process.on_change.append(self._process_changed)

    # What a protocol does.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the wire."""
        match name:
            case "peername":
                return self.peer.address
            case "sockname":
                return self.address
            case "socket":
                return Socket(self.address, self.peer.address)
            case "kernel":
                return self
            case _:
                return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on tell this one."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return whoever is told."""
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        """Whether it ends."""
        return self._closing

    def write(self, data: Any) -> None:
        """Send it, when there is room."""
        if self._is_lost or self._ends:
            return
        if self.wire.network.bars_websockets and b"\r\nUpgrade: websocket" in data:
            self.wire.reset(self.wire.network.barred)
            return
        if self.wire.network.bars_streams and b"\r\ncontent-type: text/event-stream" in data:
            self.wire.reset(self.wire.network.barred)
            return
        self._own += data
        self._push()
        self.most = max(self.most, len(self._own))
        if len(self._own) > self._high and not self._is_full:
            self._is_full = True
            self.get_protocol().pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Send all of it."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def write_eof(self) -> None:
        """Say that nothing more is written."""
        self._ends = True
        self._push()

    def get_write_buffer_size(self) -> int:
        """Return how much waits in the process."""
        return len(self._own)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when it is full."""
        self._high = HIGH_WATER if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return when it is full no longer, and when it is."""
        return self._low, self._high

    def is_reading(self) -> bool:
        """Whether it is read."""
        return self._is_reading and not self._closing

    def pause_reading(self) -> None:
        """Leave what comes in the kernel."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Read it."""
        self._is_reading = True
        self._read_soon()

    def close(self) -> None:
        """End it when everything is written."""
        if not self._closing:
            self._closing = self._ends = True
            self._push()
            if not self._own:
                self._lose(None)

    def abort(self) -> None:
        """End it now: for the peer a reset if something is unread, else an end behind what the kernel has taken."""
        if not self._is_lost:
            self._closing = self._ends = True
            self._own.clear()
            if self._unread or self._resets:
                self._sent.clear()
                self._reset_peer()
            else:
                self._send()
            self._lose(None)

    # What the kernel does.

    def unacknowledged(self) -> int:
        """Return how much it has taken that has not arrived."""
        return len(self._sent) + self._in_flight

    def acknowledged(self) -> int | None:
        """Return how much has arrived."""
        return self._acknowledged

    def wait_for_ever(self) -> None:
        """Do not end it because nothing is acknowledged."""
        self.user_timeout = None

    def reset_on_abort(self) -> None:
        """Have the peer told by a reset in any case."""
        self._resets = True

    def unread(self) -> bool:
        """Whether something has come that was not read."""
        return bool(self._unread)

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell the protocol that there is a wire."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._read_soon()

    def _push(self) -> None:
        """Have the kernel take what it has room for, and send it."""
        if not (self._own or self._sent or self._ends):
            return
        room = self.wire.network.weather.buffer - len(self._sent)
        if room > 0 and self._own:
            self._sent += self._own[:room]
            del self._own[:room]
            if self._is_full and len(self._own) <= self._low and self._protocol is not None:
                self._is_full = False
                self.get_protocol().resume_writing()
        self._send()
        if self._closing and not self._own and not self._is_lost:
            self._lose(None)

    def _expect_acknowledgement(self) -> None:
        if self.user_timeout is None or self._waits_for_acknowledgement or not self.unacknowledged():
            return
        self._waits_for_acknowledgement, before = True, self._acknowledged

        def look() -> None:
            self._waits_for_acknowledgement = False
            if self.unacknowledged() and self._acknowledged == before and self.user_timeout is not None:
                self._lose(TimeoutError("nothing was acknowledged"))
            elif not self._is_lost:
                self._expect_acknowledgement()

        self.wire.network.at(self._loop.time() + self.user_timeout, look)

    def _send(self) -> None:
        """Put on its way what the peer has room for."""
        self._expect_acknowledgement()
        if self.is_silent:
            if self._sent or (self._ends and not self._own and not self._end_sent):
                self._vanish()
            return
        weather, dice = self.wire.network.weather, self.wire.network.dice
        while self._sent:
            room = weather.buffer - len(self.peer._unread) - self._in_flight
            size = min(len(self._sent), room)
            if size <= 0:
                return
            if weather.rate is not None:
                size = min(size, PIECE)
            if dice.random() < weather.torn:
                size = 1 + int(dice.random() * size)
            self._flying.append(bytes(self._sent[:size]))
            self._in_flight += size
            del self._sent[:size]
            if weather.rate is not None:
                self._sent_at = max(self._sent_at, self._loop.time()) + size / weather.rate
            self._arrive_at(dice.uniform(*weather.delay), self._arrived)
        if self._ends and not self._own and not self._end_sent:
            self._end_sent = True
            self._arrive_at(dice.uniform(*weather.delay), self._end_arrived)

    def _arrive_at(self, delay: float, what: Callable[[], None]) -> None:
        self._arrives = max(self._arrives, max(self._sent_at, self._loop.time()) + delay)
        self.wire.network.at(self._arrives, what)

    def _arrived(self) -> None:
        """A piece is there, unless the wire has fallen silent meanwhile: then it will be sent again."""
        if not self._flying:
            return
        if self.is_silent:
            again = b"".join(self._flying)
            self._forget_flying()
            self._sent[:0] = again
            self._vanish()
            return
        piece = self._flying.popleft()
        self._in_flight -= len(piece)
        if self.peer.is_silent:
            self._unconfirmed += len(piece)
            if self.peer._has_vanished:
                self.peer._vanished_here()
        else:
            self._acknowledged += len(piece)
        if self.peer._is_lost:
            self.peer._reset_peer()
            return
        for arrived in self.wire.network.on_arrival:
            arrived(self.peer, piece)
        self.peer._unread += piece
        self.peer._read_soon()
        self._push()

    def _end_arrived(self) -> None:
        if self.is_silent:
            self._end_sent = False
        elif not self.peer._is_lost:
            self.peer._end_heard = True
            self.peer._read_soon()

    def _vanish(self) -> None:
        self._has_vanished = True
        self._vanished()

    def _forget_flying(self) -> None:
        self._flying.clear()
        self._in_flight = 0

    def fall_silent(self, vanished: Felt = unfelt, vanished_here: Felt = unfelt) -> None:
        """
        Let nothing get through that this end sends, and tell nobody.

        Where something does not, `vanished` is called; where something from the other end does, `vanished_here`.
        """
        self.wire.was_silent = self.is_silent = True
        self._has_vanished = False
        self._vanished, self._vanished_here = vanished, vanished_here

    def _heal(self) -> None:
        self._acknowledged += self._unconfirmed
        self._unconfirmed = 0
        if self._is_lost:
            self._reset_peer()  # what comes for a wire that is no more is answered so
        self._push()

    def _read_soon(self) -> None:
        if not self._waits_to_read:
            self._waits_to_read = True
            self.wire.network.soon(self._read)

    def _read(self) -> None:
        """Give the process what is there for it."""
        self._waits_to_read = False
        if self._is_lost or not self._is_reading or self._protocol is None or not self._runs():
            return
        if self._unread:
            data = bytes(self._unread)
            self._unread.clear()
            self.wire.network.soon(self.peer._push)  # there is room again
            self._call(self._take_in, data)
        if self._end_heard and not self._end_told and not self._is_lost and self._is_reading and not self._unread:
            self._end_told = True
            self._call(self._take_end)

    def _take_in(self, data: bytes) -> None:
        protocol = self.get_protocol()
        if isinstance(protocol, asyncio.BufferedProtocol):
            while data:
                buffer = memoryview(protocol.get_buffer(len(data)))
                size = min(len(buffer), len(data))
                buffer[:size] = data[:size]
                data = data[size:]
                protocol.buffer_updated(size)
        else:
            protocol.data_received(data)  # type: ignore[attr-defined]

    def _take_end(self) -> None:
        if not self.get_protocol().eof_received():  # type: ignore[attr-defined]
            self.close()

    def _runs(self) -> bool:
        return self.process is None or (self.process.is_alive and not self.process.is_stopped)

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        if self.process is None:
            function(*args)
        else:
            self.process.run(function, *args)

    def _process_changed(self) -> None:
        if self.process is not None and not self.process.is_alive:
            self._died()
        else:
            self._read_soon()

    def _died(self) -> None:
        """The process is gone; its kernel sends what it has taken, and says that this was all."""
        if self._is_lost:
            return
        self._is_lost = self._closing = self._ends = True
        self._own.clear()
        if self._unread:
            self._reset_peer()
        else:
            self._send()

    def _reset(self, felt: Felt = unfelt) -> None:
        """The peer's kernel knows nothing of this wire."""
        if not self._is_lost:
            self._closing = True
            self._own.clear()
            self._sent.clear()
            self._lose(ConnectionResetError("reset by the peer"), felt)

    def _reset_peer(self) -> None:
        if not self.is_silent:  # it comes behind what is on its way already
            self._arrive_at(self.wire.network.dice.uniform(*self.wire.network.weather.delay), self.peer._reset)

    def _lose(self, error: Exception | None, felt: Felt = unfelt) -> None:
        if self._is_lost:
            return
        self._is_lost = self._closing = True
        if self.process is not None and self._process_changed in self.process.on_change:
            self.process.on_change.remove(self._process_changed)
        if self._protocol is not None and (self.process is None or self.process.is_alive):
            self._call(self._loop.call_soon, self._tell_lost, error, felt)

    def _tell_lost(self, error: Exception | None, felt: Felt) -> None:
        felt()
        self.get_protocol().connection_lost(error)


@dataclass(eq=False)
class Wire:
    """A connection between two processes."""

    network: Network
    number: int
    was_silent: bool = False
    ends: tuple[Endpoint, Endpoint] = field(init=False)

    def fall_silent(self, felt: Felt = unfelt) -> None:
        """Let nothing through from now on, and tell nobody."""
        for end in self.ends:
            end.fall_silent(felt)

    def heal(self) -> None:
        """Let it through again, with what was written meanwhile."""
        for end in self.ends:
            end.is_silent = False
        for end in self.ends:
            end._heal()

    def reset(self, felt: Felt = unfelt) -> None:
        """End it for both, now; what was on its way is lost."""
        for end in self.ends:
            end._forget_flying()
            end._sent.clear()
        for end in self.ends:
            end._reset(felt)

    @property
    def is_open(self) -> bool:
        """Whether it is one for both."""
        return not any(end._is_lost for end in self.ends)


class Socket:
    """What can be asked of a socket that there is not."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM

    def __init__(self, address: tuple[str, int], peer: tuple[str, int] | None = None) -> None:
        self._address = address
        self._peer = peer

    def getsockname(self) -> tuple[str, int]:
        """Return its address."""
        return self._address

    def getpeername(self) -> tuple[str, int] | None:
        """Return the peer's."""
        return self._peer

    def setsockopt(self, *_: Any) -> None:
        """Set something that nothing depends on here."""

    def getsockopt(self, *_: Any) -> int:
        """Return nothing in particular."""
        return 0

    def listen(self, backlog: int = 0) -> None:
        """It listens already."""

    def close(self) -> None:
        """Nothing is held."""

    def fileno(self) -> int:
        """Return that there is no file."""
        return -1
