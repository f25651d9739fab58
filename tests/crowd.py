"""Clients of which thousands fit beside the servers: they do what the protocol asks of a client, and no more."""

from __future__ import annotations

import asyncio
import random
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from websockets.frames import Opcode

MASK = b"\0\0\0\0"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Protocol: holdfast.1\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Link(asyncio.Protocol):
    """One WebSocket: `hear` is told each message, and at the end None."""

    def __init__(self, hear: Callable[[Link, Any], None]) -> None:
        self._hear = hear
        self._buffer = bytearray()
        self._is_open = False  # the handshake is done
        self.is_over = False  # it was said when to come back

    @classmethod
    async def dial(cls, port: int, hear: Callable[[Link, Any], None], address: str = "127.0.0.1") -> None:
        await asyncio.get_running_loop().create_connection(lambda: cls(hear), address, port)

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        transport.write(UPGRADE)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_open:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), bytes(head)
            self._is_open, self._buffer = True, rest
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == Opcode.TEXT:
                self._hear(self, msgspec.json.decode(payload))
            elif opcode == Opcode.PING:
                self._send(Opcode.PONG, payload)

    def connection_lost(self, error: Exception | None) -> None:
        self._hear(self, None)

    def say(self, message: dict[str, Any]) -> None:
        self._send(Opcode.TEXT, msgspec.json.encode(message))

    def close(self) -> None:
        self._send(Opcode.CLOSE, b"\x03\xe8")
        self._transport.close()

    def break_off(self) -> None:
        self._transport.abort()

    def _send(self, opcode: int, payload: bytes) -> None:
        """Send a frame, masked by nothing (RFC 6455, 5.2: its key is the client's choice)."""
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        self._transport.write(bytes([0x80 | opcode]) + size + MASK + payload)

    def _frame(self) -> tuple[int, bytes] | None:
        """Take the next frame out of what has come, if it is there."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        opcode = buffer[0] & 0x0F
        del buffer[: start + size]
        return opcode, payload


class Light:
    """
    A client of the board, in one room for ever: it comes back, and moves before it leaves where it is asked to.

    `heard` is told every event.
    """

    def __init__(self, port: int, board: str, heard: Callable[[Any], None]) -> None:
        self.is_in = False
        self.resyncs: list[Any] = []
        self.moves = 0
        self._port = port
        self._board = board
        self._heard = heard
        self._link: Link | None = None
        self._since: str | None = None
        self._known: dict[str, str] = {}  # token and session
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._dial_in(0.0)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.is_over = True
            link.close()

    def _dial_in(self, seconds: float) -> None:
        task = asyncio.get_running_loop().create_task(self._dial(seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            with suppress(OSError):
                await Link.dial(self._port, self._hear)
                return
            seconds = random.uniform(0.25, 1.0)

    def _join(self) -> None:
        since = {} if self._since is None else {"since": self._since}
        if self._link is not None:
            self._link.say({"type": "join", "boardId": self._board, **since})

    def _hear(self, link: Link, message: Any) -> None:
        kind = None if message is None else message["type"]
        if kind is None:
            if link is self._link:
                self._link = None
            if not link.is_over:
                self._dial_in(random.uniform(0.25, 1.0))
        elif kind == "goodbye":
            self.moves += link is self._link
            link.is_over = True
            self._dial_in((message["after_ms"] + random.uniform(0, message["spread_ms"])) / 1000)
        elif kind == "connected" and link is not self._link:
            old, self._link = self._link, link
            if old is not None:
                old.is_over = True
                old.close()
            link.say({"type": "auth", **self._known} if self._known else {"type": "auth"})
        elif kind == "connected":
            self._known = {"session": message["session"], "token": message.get("token", self._known.get("token"))}
            self._join()
        elif kind == "joined":
            if self._since is not None and not message["recovered"]:
                self.resyncs.append(message)
            if self._since is None or not message["recovered"]:
                self._since = message["cursor"]
            self.is_in = True
        elif kind == "error":  # for now: the database was asked in vain
            asyncio.get_running_loop().call_later(1.0, self._join)
        elif kind == "resync":
            self.resyncs.append(message)
            self._since = message["cursor"]
        elif "id" in message and link is self._link:
            self._since = message["id"]
            self._heard(message)


def allow_files() -> None:
    """Let this process open as many files as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
