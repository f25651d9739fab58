"""
How is a WebSocket carried on a server that knows nothing of us?

By plain ASGI messages: slower, with a task for each connection, and with the heartbeat
that the server itself has. Which promises then rest with it is said once in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from starlette.types import Message, Receive, Send

from holdfast.core.heartbeat import Seen
from holdfast.core.inputs import Ending
from holdfast.core.ready import CHUNK_BYTES
from holdfast.protocol.codec import Frame
from holdfast.protocol.codes import CloseCode, close_reason
from holdfast.protocol.messages import ServerPing
from holdfast.server.connection import Connection
from holdfast.server.hands import Hands

_CLEAN_CODES = {CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS}


class AsgiConnection(Connection):
    """A WebSocket as ASGI messages."""

    __slots__ = ("_closed", "_more", "_outgoing", "_outgoing_bytes", "_receive", "_send")

    def __init__(self, hands: Hands, receive: Receive, send: Send, *, knows_us: bool) -> None:
        super().__init__(hands, knows_us=knows_us)
        self._receive = receive
        self._send = send
        self._outgoing: deque[tuple[Message, int]] = deque()  # each with its size in bytes
        self._outgoing_bytes = 0
        self._more = asyncio.Event()
        self._closed = False

    async def run(self) -> None:
        """Carry it until it ends."""
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.hands.lost(self, Ending.UNCLEAN)
            for task in (reading, writing):
                task.cancel()
            await asyncio.wait((reading, writing))

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            self.heard = self.hands.now()
            if message["type"] == "websocket.disconnect":
                clean = message.get("code", CloseCode.NO_STATUS) in _CLEAN_CODES
                self.hands.lost(self, Ending.CLEAN if clean else Ending.UNCLEAN)
                return
            if self._closed:
                continue
            text = message.get("text")
            if self.identity is None and not self.from_nobody(len(message.get("bytes") or (text or "").encode())):
                continue
            if text is None:
                self.received_binary(len(message["bytes"]))
            else:
                self.received(text)

    async def _write(self) -> None:
        while True:
            while self._outgoing:
                message, size = self._outgoing.popleft()
                await self._send(message)
                if message["type"] == "websocket.close":
                    return
                self._outgoing_bytes -= size
                if self.full and self._outgoing_bytes <= CHUNK_BYTES // 4:
                    self.resumed()
            self._more.clear()
            await self._more.wait()

    def write(self, wire: bytes, frames: Sequence[Frame]) -> None:
        """Send frames."""
        if self._closed:
            return
        for frame in frames:
            self._outgoing.append(({"type": "websocket.send", "text": frame.text.decode()}, len(frame.text)))
            self._outgoing_bytes += len(frame.text)
        self._more.set()
        if not self.full and self._outgoing_bytes > CHUNK_BYTES:
            self.paused()

    def ping(self) -> None:
        """Send a ping in words; one of the protocol is the server's to send."""
        if self.knows_us and self.identity is not None and not self.full:
            self.say(ServerPing())

    def look(self) -> Seen:
        """Return that it lives: the verdict is the server's."""
        return Seen(self, self.hands.now())

    def close(self, code: int, reason: str) -> None:
        """Say goodbye."""
        if not self._closed:
            self._closed = True
            self._outgoing.append(({"type": "websocket.close", "code": int(code), "reason": close_reason(reason)}, 0))
            self._more.set()

    def abort(self) -> None:
        """Ask the server to end it."""
        self._outgoing.clear()
        self.close(CloseCode.INTERNAL_ERROR, "")
