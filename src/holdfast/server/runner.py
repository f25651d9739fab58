"""
How is an application served so that all promises hold?

On uvicorn, with our connection class; and on SIGTERM everybody is told to come back
before any listener closes, for after that uvicorn waits for event streams that nobody
would end.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.errors import HoldfastError
from holdfast.server import crew
from holdfast.server.crew import CLOSE_SECONDS, Crew
from holdfast.server.hub import Hub, open_hubs
from holdfast.server.limits import Limits
from holdfast.server.requests import Unambiguous, http_protocol
from holdfast.server.websocket import WebSocketProtocol

logger = logging.getLogger("holdfast.server")

#: A link on which nothing was acknowledged for so long is ended by the kernel. Seconds.
USER_TIMEOUT = 40.0
#: Newcomers that the kernel keeps until it is their turn: as many as it will (net.core.somaxconn, as a rule 4,096). Who
#: finds no place there is not told so, and comes again after 1, 3 and 7 seconds (tcp_syn_retries).
QUEUE = 65_535
#: Of those, so many are taken in before anybody else has their turn: by asyncio, …
ACCEPTS = 16
#: … and by uvloop, which takes in one for each listener. If it is one, each of a crowd costs a third more; if it is
#: many, the crowd is late before anything can be done about it, and most of it is sent away.
LISTENERS = 8
#: Files that are open beside the connections: the store, listeners, whatever the application opens.
FILES = 1_000


class CannotListen(HoldfastError):
    """The address is in use, or not ours."""


class Server(uvicorn.Server):
    """uvicorn's, but everybody is told to come back before a listener closes."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        self._listeners: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_complain)
        self._listeners = list(sockets or ())
        if not isinstance(loop, asyncio.BaseEventLoop):
            self._listeners += [listener.dup() for listener in self._listeners for _ in range(LISTENERS - 1)]
        await super().startup(self._listeners)
        for listener in self._listeners:
            listener.listen(QUEUE)
        duty = crew.duty()
        if self.started and duty is not None:
            duty.report(loop)
        elif self.started:
            self._on_listening()

    async def on_tick(self, counter: int) -> bool:
        """Look after what uvicorn does, ten times a second; once a second, whether anybody can be let in."""
        if counter % 10 == 0:
            try:
                os.close(os.open(os.devnull, os.O_RDONLY))
            except OSError as error:  # asyncio says so for each newcomer, and uvloop never
                logger.error("nobody can be let in: %s (ulimit -n)", error)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Drain, then stop.

        While those who are here move to other servers, newcomers must find those too: nobody listens here any more; and
        whoever asks once more on a connection that was kept is told that it ends, before it does.
        """
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        hubs = self.hubs()
        await asyncio.gather(*(hub.withdraw() for hub in hubs))
        if not all(hub.is_alone for hub in hubs):
            for server in self.servers:
                server.close()
            for listener in self._listeners:
                listener.close()
        await asyncio.gather(*(hub.hand_over() for hub in hubs))
        await asyncio.sleep(0)
        await super().shutdown(self._listeners)

    def hubs(self) -> tuple[Hub, ...]:
        """Return those whose people it sends away when it ends: all that are open in this process."""
        return tuple(open_hubs)


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what an event loop says went wrong, but not for each newcomer that there are no files left."""
    if "out of system resource" not in context.get("message", ""):
        loop.default_exception_handler(context)


def allow_files(wanted: int) -> None:
    """Let this process open so many files, as far as it may; a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("this process may open %d files, and needs %d for all its connections (ulimit -n)", hard, wanted)


def serve(
    app: Any,
    *,
    host: str,
    port: int,
    limits: Limits,
    log_level: str = "info",
    speed: bool = True,
    workers: int = 1,
    on_listening: Callable[[int], None] = lambda port: None,
) -> None:
    """
    Serve an ASGI app (or `"module:app"`) until SIGTERM or SIGINT; `on_listening` is told the port.

    With several `workers`, the command that this process was started by is run in as many others.

    With `speed`, on uvloop and httptools where they are installed. Raises what one of ours has raised if the
    application cannot start.
    """
    duty = crew.duty()
    if workers > 1 and duty is None:
        held = hold(host, port)
        seconds = limits.drain_seconds + CLOSE_SECONDS
        status = Crew(crew.command(), held, workers, seconds).run(lambda: on_listening(held[0].getsockname()[1]))
        if status:
            raise SystemExit(status)
        return
    if duty is not None:
        sockets = listen(host, duty.port, user_timeout=USER_TIMEOUT, is_shared=True)
    else:
        sockets = listen(host, port, user_timeout=USER_TIMEOUT)
    allow_files(limits.connections + limits.streams + FILES)
    config = configure(app, limits, speed=speed, log_level=log_level)
    _log_as_uvicorn(log_level)
    config.loaded_app = start = Start(config.loaded_app)
    _collect_less()
    try:
        Server(config, partial(on_listening, sockets[0].getsockname()[1])).run(sockets)
    except KeyboardInterrupt:
        pass
    finally:
        if start.failure is not None:
            raise start.failure from None  # and not uvicorn's SystemExit


def _collect_less() -> None:
    """
    Have the collector of cycles look less often, and never at what is there for good.

    Each of ten thousand connections is a few dozen objects that are in no cycle: to look at them all took a tenth of
    what a crowd costs that comes, and a fifth of a message. What asyncio leaves in cycles of those who have gone is
    found before it is much.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _log_as_uvicorn(level: str) -> None:
    """Have what we log look like what uvicorn does, unless the application has said how it is to."""
    ours = logging.getLogger("holdfast")
    if not ours.hasHandlers():
        ours.handlers, ours.propagate = logging.getLogger("uvicorn").handlers, False
        ours.setLevel(level.upper())


def configure(app: Any, limits: Limits, *, speed: bool, log_level: str | None) -> uvicorn.Config:
    """
    Return how uvicorn serves an application so that the promises hold.

    Without a `log_level`, what is logged goes where this process has what is logged already.
    """
    config = uvicorn.Config(
        app,
        ws=WebSocketProtocol,
        http=http_protocol(AutoHTTPProtocol if speed else H11Protocol, limits),  # type: ignore[arg-type]
        h11_max_incomplete_event_size=limits.head_bytes,
        loop="auto" if speed else "asyncio",
        lifespan="on",
        log_level=log_level,
        log_config=None if log_level is None else LOGGING_CONFIG,
        access_log=False,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=round(limits.drain_seconds),
        timeout_keep_alive=75,
        server_header=False,
        backlog=ACCEPTS,
    )
    config.load()
    config.loaded_app = Unambiguous(config.loaded_app)
    return config


class Start:
    """An ASGI app that keeps to itself why it could not start, if that is an error of ours: a traceback says less."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.failure: HoldfastError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on (ASGI)."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        refusal: Message | None = None

        async def hold_refusal(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "lifespan.startup.failed":
                refusal = message
            else:
                await send(message)

        try:
            await self._app(scope, receive, hold_refusal)
        except HoldfastError as failure:
            self.failure = failure
            refusal = {"type": "lifespan.startup.failed", "message": ""}
        finally:
            if refusal is not None:
                await send(refusal)


def hold(host: str, port: int) -> list[socket.socket]:
    """Return sockets that hold a port for the processes of this command, and do not listen there themselves."""
    first = listen(host, port, user_timeout=USER_TIMEOUT)  # alone: another program that listens there is an error
    port = first[0].getsockname()[1]
    for listener in first:
        listener.close()
    held = listen(host, port, user_timeout=USER_TIMEOUT, is_shared=True)
    for holder in held:  # who would have the port alone is refused also while none of ours listens there
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return held


def listen(host: str, port: int, *, user_timeout: float, is_shared: bool = False) -> list[socket.socket]:
    """
    Return sockets that listen on every address of `host`; one `is_shared` with other processes is not listened on yet.

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
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # links that have ended hold it for a minute
            if is_shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if sys.platform == "linux":
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * user_timeout))
            if port == 0 and sockets:  # the same free port on every address
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            listener.bind(address)
            if not is_shared:
                listener.listen(QUEUE)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            problem = error
            if error.errno == errno.EADDRINUSE:  # half a port would mislead
                break
        else:
            sockets.append(listener)
    if problem is not None and (not sockets or problem.errno == errno.EADDRINUSE):
        for listener in sockets:
            listener.close()
        raise CannotListen(f"cannot listen on {host}, port {port}: {problem.strerror}; choose another with --port")
    return sockets
