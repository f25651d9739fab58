"""
What is a request, before any application sees it?

Its head comes in time and is not too long, it has one answer, and nobody who reads it before or
after us could take it for another. uvicorn's classes, and what parses for them, are content with less.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from h11 import LocalProtocolError
from h11._receivebuffer import ReceiveBuffer
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.server.limits import Limits
from holdfast.server.sips import Sips, attention
from holdfast.server.websocket import WebSocketProtocol


def http_protocol(stock: type[Any], limits: Limits) -> Callable[..., Sips]:
    """Return what makes uvicorn's HTTP protocol, with limits on how long, in bytes and seconds, a request's head is."""
    by_httptools = hasattr(stock, "on_headers_complete")
    protocol = type("HttpProtocol", (_LimitedHttp, stock), {"limits": limits, "by_httptools": by_httptools})
    return lambda **known: Sips(protocol(**known))


#: A timer that is so late says nothing of a peer, and everything of the server: it listens for as long again.
LATE_SECONDS = 0.2

#: What is asked for, as a path or as an address of ours (RFC 9112 §3.2), or `*`, by OPTIONS.
_TARGET = re.compile(rb"(?:(?i:https?)://[^/?#@]+)?(/[^#]*)|\*")
_ASKED = re.compile(rb"[^ :]+ (.*) HTTP/\S*")
#: No header has them (RFC 9110 §5.5).
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_Stock: Any = object  # which it is before it is mixed with one of uvicorn's two


class _LimitedHttp(_Stock):  # type: ignore[misc]
    """What uvicorn's HTTP protocols lack."""

    limits: Limits
    url: bytes  # of httptools: what is asked for
    by_httptools: bool  # and not by h11, which has a limit on how long a head is (`h11_max_incomplete_event_size`)
    _head_timer: asyncio.TimerHandle | None = None
    _idle_bytes = 0  # that have come to nothing so far
    _size = 0  # of what is being read
    _handshake_waits = False  # for the answers to what was asked before it
    app: Any
    _begun: Any = None  # the request that the application was told of last
    _ends = False  # its peer says nothing more, and perhaps listens
    _started: Any = None  # by httptools: what is being answered, while `cycle` is what was read last

    @property
    def _running(self) -> Any:
        """The request that is being answered, or was answered last."""
        return self._started if self.by_httptools else self.cycle

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._application, self.app = self.app, self._in_turn
        if not self.by_httptools:
            self.conn._receive_buffer = _Lines()
        self._wait_for_head(self.limits.request_seconds)

    def data_received(self, data: bytes) -> None:
        if self._handshake_waits:
            self._cut()  # RFC 6455 §4.1: a client waits
            return
        self._size = len(data)
        self._idle_bytes += len(data)
        super().data_received(data)
        if isinstance(getattr(self.transport.get_protocol(), "inner", None), WebSocketProtocol):
            self._cancel_timer()
            return
        if not self._between_requests():
            self._cancel_timer()
        elif self._head_timer is None:  # the next request has begun
            self._wait_for_head(self.limits.request_seconds)
        if self.by_httptools and self._idle_bytes > self.limits.head_bytes and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def handle_websocket_upgrade(self, *request: object) -> None:
        if self.scope["http_version"] != "1.1":  # RFC 6455 §4.2.1
            self.send_400_response("A WebSocket begins with HTTP/1.1.")
        elif self._is_followed():
            self._cut()  # as if it had come later: the stock class would lose it
        elif self._is_answering():
            self._handshake_waits = True  # h11 tells of it when it is its turn, httptools at once
        else:
            self._upgrade(*request)

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _is_followed(self) -> bool:
        """Whether something came with the handshake that is told of now, behind it."""
        if not self.by_httptools:
            return bool(self.conn.trailing_data[0])
        told: Any = sys.exception()  # of httptools: where it ends
        return bool(told.args[0] < self._size)

    def _upgrade(self, *request: object) -> None:
        self._unset_keepalive_if_required()
        sips = self.transport.get_protocol()
        super().handle_websocket_upgrade(*request)
        upgraded = self.transport.get_protocol()
        if isinstance(upgraded, WebSocketProtocol):
            sips.inner = upgraded
            self.transport.set_protocol(sips)
            self.app = None  # it knows us as we know it
            if self.by_httptools:
                self.parser = None  # it knows us as we know it, so both would wait for the collector

    def _cut(self) -> None:
        """End it at once, and have nobody answer: uvloop fails at what is written then."""
        self._forget_requests()
        self.transport.abort()

    def send_400_response(self, reason: str) -> None:
        cycle = self._running
        if cycle is not None and (cycle.more_body or not cycle.response_complete):
            is_answered = cycle.response_started
            self._forget_requests()  # whatever the application still says, the stock class would say behind this
            if is_answered:  # what is wrong is in the body, or behind the request: there is no second answer
                self.transport.close()
                return
        super().send_400_response(reason)

    def _start_asgi_task(self, cycle: Any, app: ASGIApp) -> None:
        self._started = cycle
        super()._start_asgi_task(cycle, app)

    def _forget_requests(self) -> None:
        """Have nobody answer: who does already is told that nobody listens, and those that wait are not begun."""
        if self.by_httptools:
            self.pipeline.clear()
        self.cycle = cycle = self._running  # one that is never begun would know us as we know it, for good
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if getattr(self, "pipeline", None):
            self.flow.pause_reading()  # the stock class reads on, however many requests wait for their turn
        elif self._handshake_waits and not self._is_answering() and not self.transport.is_closing():
            self._upgrade()

    # What httptools tells. It keeps whatever else comes, however much: lines of a head, or of a trailer.

    def on_headers_complete(self) -> None:
        self._idle_bytes = 0
        self.url = _path(self.url)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        super().on_message_complete()

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel_timer()
        self.app = None  # it knows us as we know it
        self._forget_requests()  # the stock class tells only the one that was read last
        super().connection_lost(error)
        self._unset_keepalive_if_required()  # the stock class keeps it, and itself, if there was an error

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the application of a request, where many come at once when it is their turn (ASGI)."""
        application = self._application
        await attention().when_left()
        self._begun = self._running
        if self._ends:
            self.loop.call_soon(self.transport.close)
        await application(scope, receive, send)

    def eof_received(self) -> bool | None:
        running = self._running
        if running is None or running.response_complete or running is self._begun:
            answer: bool | None = super().eof_received()
            return answer
        self._ends = True  # which is not to overtake what it has asked before
        return True

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _cancel_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _wait_for_head(self, seconds: float) -> None:
        self._head_timer = self.loop.call_later(seconds, self._too_slow, self.loop.time() + seconds)

    def _too_slow(self, due: float) -> None:
        if not self._between_requests():
            return
        if self.loop.time() > due + LATE_SECONDS or self.transport.get_protocol().is_waiting:
            self._wait_for_head(LATE_SECONDS)  # perhaps it has said more, and it is we who have not listened
        else:
            self.transport.abort()


def _path(target: bytes | bytearray) -> bytes:
    """Return what is asked for as a path, also if it was named by a whole address; or raise `ValueError`."""
    found = _TARGET.fullmatch(target)
    if found is None:
        raise ValueError("it asks for no path of ours")
    return bytes(found[1] or target)


class _Lines(ReceiveBuffer):
    """
    What h11 reads from, where a line ends with CR LF, no line goes on in the next one, and a path is asked for.

    A server may take both (RFC 9112 §2.2, §5.2), and h11 does. One before us perhaps does not, and reads other lines.
    It must take an address for a path (§3.2.2), and h11 does not; nor does it mind what no header may have in it.
    """

    def maybe_extract_lines(self) -> list[bytearray] | None:
        before = len(self)
        lines = super().maybe_extract_lines()
        if lines is None:
            return None
        if before - len(self) != sum(map(len, lines)) + 2 * (len(lines) + 1):
            raise LocalProtocolError("a line ends with CR LF")
        if any(line.startswith((b" ", b"\t")) for line in lines):
            raise LocalProtocolError("a line goes on in the next one")
        if any(_CONTROL.search(line) for line in lines):
            raise LocalProtocolError("a line has a control character in it")
        if lines and (found := _ASKED.fullmatch(lines[0])) is not None:  # else it is a trailer, or no request
            try:
                lines[0][found.start(1) : found.end(1)] = _path(found[1])
            except ValueError as error:
                raise LocalProtocolError(str(error)) from None
        return lines


class Unambiguous:
    """An ASGI app that refuses what another server may read in another way, and passes on what is plain."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or refuse it (ASGI)."""
        reason = None if scope["type"] == "lifespan" else _why_ambiguous(scope)
        if reason is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(reason, scope, send)


def _why_ambiguous(scope: Scope) -> str | None:
    """
    Return why another server, one before us, may read this request's head in another way; None: nobody would.

    h11 and httptools let some of that pass. Who can make two servers disagree on where a request ends, or whom it is
    for, can smuggle one in among somebody else's.
    """
    if scope["http_version"] not in ("1.0", "1.1"):
        return "neither HTTP/1.0 nor HTTP/1.1"  # RFC 9110 §6.2
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names and b"content-length" in names:
        return "Transfer-Encoding and Content-Length in one request"  # RFC 9112 §6.1
    if b"transfer-encoding" in names and scope["http_version"] == "1.0":
        return "Transfer-Encoding with HTTP/1.0"  # RFC 9112 §6.1
    hosts = names.count(b"host")
    if hosts > 1 or (hosts == 0 and scope["http_version"] != "1.0"):
        return "a request has one Host"  # RFC 9112 §3.2
    return None


async def _refuse(reason: str, scope: Scope, send: Send) -> None:
    """Answer such a request, and listen to its sender no more."""
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    body = msgspec.json.encode({"error": reason})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    await send({"type": f"{kind}.response.start", "status": 400, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})
