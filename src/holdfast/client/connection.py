"""
When does a WebSocket fail on which something wrong has come?

When whoever reads from it has had what came before, and asks for more. websockets fails at
once, and what is answered to messages that still wait to be read is not sent any more.
"""

from __future__ import annotations

from collections.abc import Generator
from inspect import GEN_RUNNING, getgeneratorstate
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event, State
from websockets.typing import Data

from holdfast.protocol.strict import Strict


class StrictEngine(Strict, ClientProtocol):
    """An engine that hears nothing more when something wrong has come, and leaves it to others to say so."""

    failure: tuple[int, str] | None = None

    def fail(self, code: int, reason: str = "") -> None:
        """Say what is wrong; but if that has just been read, only note it."""
        if getgeneratorstate(self.parser) == GEN_RUNNING:
            self.failure = code, reason
            self.parser = self._ignore(code, reason)
            next(self.parser)
        else:
            super().fail(code, reason)

    def _ignore(self, code: int, reason: str) -> Generator[None]:
        while not (yield from self.reader.at_eof()):
            self.reader.discard()
        super().fail(code, reason)
        yield


class StrictConnection(ClientConnection):
    """A connection on which a message can be answered although what came behind it is wrong."""

    protocol: StrictEngine

    def __init__(self, engine: ClientProtocol, **options: Any) -> None:
        strict = StrictEngine(
            engine.uri,
            origin=engine.origin,
            extensions=engine.available_extensions,
            subprotocols=engine.available_subprotocols,
            max_size=(engine.max_message_size, engine.max_fragment_size),
            logger=engine.logger,
        )
        super().__init__(strict, **options)
        self._unread = 0  # messages
        self._is_read = False  # somebody waits for the next one

    def process_event(self, event: Event) -> None:
        """Take in a frame."""
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES and event.fin:
            self._unread += 1
        super().process_event(event)

    def data_received(self, data: bytes) -> None:
        """Take in what comes."""
        super().data_received(data)
        self._fail_when_all_is_read()

    async def recv(self, decode: bool | None = None) -> Data:  # type: ignore[override]
        """Return the next message."""
        self._is_read = True
        try:
            self._fail_when_all_is_read()
            message = await super().recv(decode)
        finally:
            self._is_read = False
        self._unread -= 1
        return message

    def _fail_when_all_is_read(self) -> None:
        failure = self.protocol.failure
        if failure is not None and self._is_read and not self._unread and self.protocol.state is State.OPEN:
            self.protocol.fail(*failure)
            self.send_data()
