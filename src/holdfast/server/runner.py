"""
How is an application served so that all promises hold?

On uvicorn, with our connection class; and on SIGTERM everybody is told to come back
before any listener closes, for after that uvicorn waits for event streams that nobody
would end.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.errors import HoldfastError
from holdfast.server.hub import open_hubs
from holdfast.server.limits import Limits
from holdfast.server.websocket import WebSocketProtocol


class CannotListen(HoldfastError):
    """The address is in use, or not ours."""


def with_deadline(base: type[Any]) -> type[Any]:
    """Return uvicorn's HTTP class with a limit on the time until a request is there: else a socket is held for ever."""

    class HttpProtocol(base):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._request_timer = self.loop.call_later(Limits().auth_seconds, self._too_slow)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None:
                self._request_timer.cancel()

        def connection_lost(self, error: Exception | None) -> None:
            self._request_timer.cancel()
            super().connection_lost(error)

        def _too_slow(self) -> None:
            if self.cycle is None and self.transport.get_protocol() is self:  # else it has become a WebSocket
                self.transport.abort()

    return HttpProtocol


class Server(uvicorn.Server):
    """uvicorn's, but everybody is told to come back before a listener closes."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop."""
        for hub in tuple(open_hubs):
            hub.drain()
        await asyncio.sleep(0)
        await super().shutdown(sockets)


def serve(
    app: Any,
    *,
    host: str,
    port: int,
    limits: Limits,
    log_level: str = "info",
    speed: bool = True,
    on_listening: Callable[[list[socket.socket]], None] | None = None,
) -> None:
    """
    Serve an ASGI app (or `"module:app"`) until SIGTERM or SIGINT.

    With `speed`, on uvloop and httptools where they are installed.
    """
    sockets = listen(host, port, user_timeout=40.0)
    config = uvicorn.Config(
        app,
        ws=WebSocketProtocol,
        http=with_deadline(AutoHTTPProtocol if speed else H11Protocol),
        loop="auto" if speed else "asyncio",
        lifespan="on",
        log_level=log_level,
        access_log=False,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=round(limits.drain_seconds),
        timeout_keep_alive=75,
        server_header=False,
        backlog=2048,
    )
    if on_listening is not None:
        on_listening(sockets)
    with suppress(KeyboardInterrupt):
        Server(config).run(sockets)


def listen(host: str, port: int, *, user_timeout: float) -> list[socket.socket]:
    """
    Return sockets that listen on every address of `host`.

    What is accepted on them inherits TCP_USER_TIMEOUT: the kernel ends a link on which nothing has been
    acknowledged for so long (tcp(7)), which is how a dead event stream is found: it has nothing to say.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotListen(f"cannot listen on {host}: {error.strerror}") from None
    sockets: list[socket.socket] = []
    problem: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if sys.platform == "linux":
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * user_timeout))
            if port == 0 and sockets:  # the same free port on every address
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            listener.bind(address)
            listener.listen(2048)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            problem = error
            if error.errno == 98:  # EADDRINUSE: half a port would mislead
                break
        else:
            sockets.append(listener)
    if problem is not None and (not sockets or problem.errno == 98):
        for listener in sockets:
            listener.close()
        raise CannotListen(f"cannot listen on {host}, port {port}: {problem.strerror}; choose another with --port")
    return sockets
