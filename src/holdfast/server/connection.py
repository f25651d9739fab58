"""
What is one WebSocket to the Hub, whichever server carries it?

What comes in is read also while an earlier message is being handled: messages wait meanwhile,
in a queue of their own, which is bounded. So a handler that takes long keeps nobody from being heard,
and a client that asks faster than it is answered runs into a limit and not into memory.
Nor does it keep others from being heard, however much its messages lead to (`server/sips.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.core.heartbeat import Pinged, Seen
from holdfast.errors import Refused, TooMany
from holdfast.protocol.codec import Frame, problem
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.messages import Auth, ClientMessage, Error, Ping, Pong, ServerMessage
from holdfast.server.auth import Identity
from holdfast.server.rate import Allowance
from holdfast.server.sips import NEXT_SHARE, Attention

if TYPE_CHECKING:
    from holdfast.server.hands import Hands


class Connection:
    """One WebSocket: the part that does not depend on who carries it."""

    __slots__ = (
        "_allowance", "_drained", "_handling", "_is_greeting", "_unknown_bytes", "_waiting", "_waiting_bytes", "full",
        "hands", "heard", "identity", "knows_us",
    )  # fmt: skip

    def __init__(self, hands: Hands, *, knows_us: bool) -> None:
        self.hands = hands
        self.knows_us = knows_us  # it offered the subprotocol, so it answers our pings in words
        self.identity: Identity | None = None
        self.full = False  # the transport takes no more
        self.heard: float | None = None  # when the last byte came
        limits = hands.limits
        self._allowance = Allowance(limits.messages_per_second, limits.message_burst, hands.now())
        self._waiting: list[tuple[ClientMessage | Error, int]] = []  # a deque that is empty is ten times as large
        self._waiting_bytes = 0
        self._unknown_bytes = 0  # from nobody, so far
        self._handling: asyncio.Task[None] | None = None
        self._is_greeting = False  # what is handled says who it is
        self._drained: asyncio.Future[None] | None = None

    # What the carrier does.

    def write(self, wire: bytes, frames: Sequence[Frame]) -> None:
        """Send `frames`, which are, as WebSocket frames and joined, `wire`."""
        raise NotImplementedError

    def ping(self) -> Pinged | None:
        """Send a ping; return where in the stream it is, if anything is before it."""
        raise NotImplementedError

    def look(self) -> Seen:
        """Return what the socket shows."""
        raise NotImplementedError

    def hold(self, is_held: bool) -> None:
        """Read nothing more for a moment, or go on; a carrier that cannot will have read what is to wait."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and abort soon after, whatever the peer does."""
        raise NotImplementedError

    def abort(self) -> None:
        """End it now."""
        raise NotImplementedError

    # What the carrier tells.

    def received(self, text: str) -> None:
        """Take in one message: answer it at once if it is refused, else when its turn has come."""
        hands = self.hands
        limits = hands.limits
        size = len(text) if text.isascii() else len(text.encode())
        if size > limits.message_bytes:
            self.refuse(CloseCode.MESSAGE_TOO_BIG, f"a message is at most {limits.message_bytes} bytes")
            return
        if self._allowed():
            self._take_in(text, size)

    def received_binary(self, size: int) -> None:
        """Take in a message that is not a text: it is refused when its turn has come."""
        if self._allowed():
            self._wait(Error("binary messages are not understood; send JSON as text", "malformed"), size)

    def from_nobody(self, size: int) -> bool:
        """Count what comes before it is known who sends it, in whatever form; whether it is still to be taken."""
        limit = self.hands.limits.auth_bytes
        self._unknown_bytes += size
        if self._unknown_bytes > limit:
            self.refuse(CloseCode.MESSAGE_TOO_BIG, f"before auth at most {limit} bytes are taken")
        return self._unknown_bytes <= limit

    def _allowed(self) -> bool:
        """Whether it may say something now; if not, it is ended."""
        if self._allowance.take(self.hands.now()):
            return True
        self.refuse(CloseCode.TOO_FAST, f"more than {self.hands.limits.messages_per_second:g} messages a second")
        return False

    def _take_in(self, text: str, size: int) -> None:
        message: ClientMessage | Error
        try:
            message = self.hands.codec.decode(text)
        except Refused as refusal:
            said = problem(refusal)
            message = Error(said.error, said.code)
        if isinstance(message, Ping | Pong) and self.identity is not None:
            # At once, whatever is being handled: it asks whether we live. If the transport is full,
            # what is on its way already says so.
            if isinstance(message, Ping) and not self.full:
                self.say(Pong())
            return
        self._wait(message, size)

    def _wait(self, message: ClientMessage | Error, size: int) -> None:
        limits = self.hands.limits
        if len(self._waiting) >= limits.messages_waiting or self._waiting_bytes + size > limits.bytes_waiting:
            self.refuse(CloseCode.TOO_FAST, "too many messages are waiting for their turn")
            return
        self._waiting.append((message, size))
        self._waiting_bytes += size
        if self._handling is None:
            self._handling = self.hands.spawn(self._handle())

    def refuse(self, code: CloseCode, why: str) -> None:
        """A limit was broken: say so, and end it."""
        self.say(Error(why, TooMany.code if code is CloseCode.TOO_FAST else "too_large"))
        self.hands.end(self, code, why)

    def paused(self) -> None:
        """The transport takes no more."""
        self.full = True
        self.hands.filled(self)

    def resumed(self) -> None:
        """It does again."""
        self.full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self.hands.drained(self)

    def ended(self) -> None:
        """It is gone: what is being handled is finished, what waits is not begun, and nobody asks who it would be."""
        self._waiting.clear()
        if self._handling is not None and self._is_greeting:
            self._handling.cancel()  # or it would claim a session that has gone on elsewhere by now
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # What it does with that.

    def say(self, message: ServerMessage) -> None:
        """Tell it something."""
        frame = self.hands.codec.encode(message)
        self.write(frame.wire, (frame,))

    async def _handle(self) -> None:
        here, share = self.hands.attention, 1.0
        try:
            while self._waiting:
                if self.full:
                    self._drained = self.hands.loop.create_future()
                    await self._drained  # it is to read our answers before it asks again
                    continue
                if not here.is_left(share):
                    await self._wait_in_line(here)
                    share = 1.0
                    continue
                share = NEXT_SHARE
                message, size = self._waiting.pop(0)
                self._waiting_bytes -= size
                if isinstance(message, Error):
                    self.say(message)
                else:
                    self._is_greeting = isinstance(message, Auth)
                    await self.hands.handle(self, message)
        except Exception:
            self.hands.failed(self)  # what came of it could not be said
        finally:
            self._handling = None

    async def _wait_in_line(self, here: Attention) -> None:
        self.hold(True)  # its end is not to overtake what it has said before
        try:
            await here.turn()
        finally:
            self.hold(False)
