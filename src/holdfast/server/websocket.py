"""
How is a WebSocket carried on uvicorn, so that the promises hold?

uvicorn's own classes break two of them: a peer that stops reading is never cut (`close()`
waits for a buffer that nobody reads), and a healthy busy one is (while a message waits,
its pongs are not read). So the handshake goes through the application like any request,
and when the Hub accepts, the connection is handed over to a small protocol of ours
(`server/native.py`).

Other WebSocket routes of the same application keep uvicorn's stock behaviour.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from holdfast.server.native import EXTENSION, NativeConnection, engine_logger
from holdfast.server.sips import attention

Headers = Iterable[tuple[bytes, bytes]]


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """
    The class for uvicorn's `ws=`: `uvicorn --ws holdfast.server.websocket:WebSocketProtocol app:app`.

    It makes the handshake, and offers the application to hand the connection over.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _Discreet(self.logger)  # type: ignore[assignment]
        self._is_ending = False
        self.conn.logger, self.conn.debug = engine_logger, False  # at DEBUG it would write down every head and message

    def data_received(self, data: bytes) -> None:
        """Take in the handshake, which comes in one piece."""
        if self.handshake_initiated and not self.handshake_complete:
            self.transport.abort()  # RFC 6455 §4.1: a client waits; at what comes before, the engine fails
            return
        super().data_received(data)
        if not self.handshake_initiated:  # it is none; the stock class would be silent about that for ever
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Let the application answer the upgrade."""
        super().handle_connect(event)
        if not self.handshake_complete:
            cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = self.take_over

    async def run_asgi(self) -> None:
        """Tell the application of it, where many come at once when it is its turn, unless it has gone by then."""
        await attention().when_left()
        if not self.transport.is_closing():
            await super().run_asgi()

    async def send(self, message: Any) -> None:
        """Send what the application answers."""
        await super().send(message)
        if self._is_ending and message["type"] == "websocket.accept":
            self.shutdown()
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # by a refusal; the stock class would log it as the application's failure

    def shutdown(self) -> None:
        """The server stops: whoever is being let in is told so when they are; the stock class would answer with 500."""
        if self.handshake_complete or not self.handshake_initiated:
            super().shutdown()
        else:
            self._is_ending = True

    def take_over(
        self, make: Callable[[asyncio.Transport], NativeConnection], subprotocol: str | None, headers: Headers
    ) -> NativeConnection | None:
        """Accept the handshake, and hand the connection over; None: the peer has gone meanwhile."""
        transport = self.transport
        if transport.is_closing():
            self.handshake_complete = True  # by its end, which the stock class has not heard of yet
            return None
        connection = make(transport)
        transport.set_protocol(connection)  # first: from here on `pause_writing` must reach it
        transport.write(self._accepted(subprotocol, headers))
        self.connections.discard(self)
        self.connections.add(connection)  # type: ignore[arg-type]
        connection.on_server(self.connections)
        if self._is_ending:
            self.loop.call_soon(connection.shutdown)  # when it has been let in
        # What is left of this object has nothing to say about the connection any more.
        self.handshake_complete = True
        self.transport = cast(asyncio.Transport, _Nothing())
        self.scope["extensions"] = {}
        return connection

    def _accepted(self, subprotocol: str | None, headers: Headers) -> bytes:
        # RFC 6455 §4.2.2. Extensions that the stock class would have offered are not part of ours.
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + self.response.headers["Sec-WebSocket-Accept"].encode(),
        ]
        if subprotocol is not None:
            lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode())
        given = (*self.default_headers, *headers)  # a server that ends says `connection: close` with every answer
        lines += [name + b": " + value for name, value in given if name != b"connection"]
        return b"\r\n".join(lines) + b"\r\n\r\n"


class _Discreet(logging.LoggerAdapter[logging.Logger]):
    """A logger that is told of paths with their query, where tokens are, and does not write that down."""

    @property
    def level(self) -> int:
        """That of the logger itself."""
        return self.logger.level

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Write it down."""
        super().log(level, msg, *(_without_query(each) for each in args), **kwargs)


def _without_query(said: object) -> object:
    return said.partition("?")[0] if isinstance(said, str) else said


class _Nothing:
    """Stands where a transport stood that has been handed over."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass
