"""
How does a program stay in its rooms?

One task owns the link and carries out what `core.link` decides: it alone dials, so there
is one path to reconnect. Everything else puts what has happened into its queue; what
comes from a socket that was given up is passed over.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import UNSET

from holdfast.client.road import News, Road, websocket_url
from holdfast.client.room import Room
from holdfast.client.rooms import Rooms, Said, TakeSnapshot
from holdfast.core import link, roads
from holdfast.core.link import Link, LinkEffect, LinkInput, State, Status
from holdfast.core.reader import Reader
from holdfast.core.replica import Replica
from holdfast.errors import Closed, Refused, Unauthorized
from holdfast.protocol import messages
from holdfast.protocol.codec import Codec, check_token
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.messages import User

logger = logging.getLogger("holdfast.client")

#: What is received and not yet looked at; beyond this the socket is not read, and the server waits with the rest.
WAITING = 1_000

#: A token, or what returns one.
Token = str | Callable[[], str | Awaitable[str]]


def connect(
    url: str,
    *,
    token: Token | None = None,
    recover: str = "resume",
    snapshot: TakeSnapshot | None = None,
    jitter: bool = True,
) -> Client:
    """
    Return a client of the hub at `url`, which keeps itself connected from `async with` on.

    Args:
        url: Of the WebSocket: `ws://localhost:8000/live/ws`.
        token: Who you are. A function is asked again, once, when the server no longer takes its token; and in the next
            attempt if it has not returned after 60 s.
        recover: `"resume"` is sent what it missed; `"snapshot"` starts afresh after each reconnect.
        snapshot: Called whenever there is a start afresh; then rooms yield `Snapshot` instead of `Resync`.
        jitter: Without it, the delays before the attempts are exactly 1, 2, 4, 8, 16, 30, 30 … seconds.
    """
    if recover not in ("resume", "snapshot"):
        raise ValueError(f"recover is 'resume' or 'snapshot', not {recover!r}")
    if isinstance(token, str):
        check_token(token)
    return Client(url, token=token, resume=recover == "resume", snapshot=snapshot, jitter=jitter)


class _Wake:
    """Nothing has happened, but the next deadline may be another one."""


class Client:
    """A client that stays connected, and in its rooms. See `connect`."""

    def __init__(
        self, url: str, *, token: Token | None, resume: bool, snapshot: TakeSnapshot | None, jitter: bool
    ) -> None:
        self.url = websocket_url(url)
        self.user: User | None = None
        self._token = token
        self._resume = resume
        self._rooms = Rooms(say=self._say, send=self._send, spawn=self._spawn, wake=self._wake, snapshot=snapshot)
        self._link = Link(jitter=jitter, renewable=callable(token), fallback=True)
        self._codec = Codec()
        self._credentials: str | None = None
        self._session: str | None = None
        self._links = 0  # so far
        self._road: Road | None = None
        self._spare: Road | None = None  # beside it, to go over to
        self._reader = Reader()
        self._queue: asyncio.Queue[tuple[Road | None, LinkInput | News | _Wake]]  # of one life each
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._partings: dict[asyncio.Task[None], None] = {}  # of those, who say goodbye: soon over
        self._running: asyncio.Task[None] | None = None
        self._asked = 0  # for a token
        self._watchers: dict[asyncio.Event, None] = {}

    # What an application uses.

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("this client was entered already, and has not been closed")
        self._queue = asyncio.Queue(WAITING)
        self._rooms.begin()
        self._tell(link.Start())
        self._running = asyncio.create_task(self._run(), name="holdfast-client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def status(self) -> Status:
        """How the link is: its state, and, while it waits, which attempt comes when, and why."""
        return self._link.status

    async def statuses(self) -> AsyncIterator[Status]:
        """Yield the status now, and again whenever it has changed, until it is closed."""
        changed = asyncio.Event()
        self._watchers[changed] = None
        try:
            while True:
                status = self.status
                yield status
                if status.state is State.CLOSED:
                    return
                while self.status == status:
                    changed.clear()
                    await changed.wait()
        finally:
            self._watchers.pop(changed, None)

    async def ready(self) -> None:
        """Wait until the link is live; raises `Closed` if it never will be."""
        async for status in self.statuses():
            if status.state is State.LIVE:
                return
            if status.state is State.CLOSED:
                raise self._closed()

    def retry_now(self) -> None:
        """Do not wait for the next attempt."""
        self._put(None, link.Nudged())

    def join(self, room: str) -> Room:
        """Return a room, which is joined from `async with` on."""
        self._codec.check_room(room)
        return Room(self._rooms, room, Replica(room, resume=self._resume))

    async def close(self) -> None:
        """End it."""
        try:
            if self._running is not None:
                self._put(None, link.Stop())
                await self._running
        finally:
            await asyncio.gather(*self._partings, return_exceptions=True)  # who says goodbye has not vanished
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._running = None

    # The one task.

    async def _run(self) -> None:
        why = self._closed
        try:
            await self._live()
        except Exception as error:
            logger.exception("this client cannot go on")
            why = partial(Closed, f"this client failed: {error!r}")
            self._tell(link.Stop())
            raise
        finally:
            self._rooms.end(why)

    async def _live(self) -> None:
        while self._link.state is not State.CLOSED:
            try:
                async with asyncio.timeout_at(self._deadline()):
                    source, what = await self._queue.get()
            except TimeoutError:
                self._carry(self._link.tick(self._now(), random.random()))
                self._rooms.tick(self._now())
                continue
            if isinstance(what, _Wake):
                continue
            if source is not None and source is self._spare and isinstance(what, link.Opened):
                self._go_over()
                continue
            if source is not None and source is not self._road:
                continue
            match what:
                case str():
                    self._tell(link.Heard())
                    self._received(what)
                case link.Lost():
                    self._abandon(CloseCode.NORMAL)
                    self._tell(what)
                case _ if isinstance(what, LinkInput):
                    self._tell(what)
                case _:
                    self._received(what)

    def _deadline(self) -> float | None:
        times = (self._link.deadline(), self._rooms.deadline())
        return min((when for when in times if when is not None), default=None)

    def _put(self, source: Road | None, what: LinkInput | _Wake) -> None:
        if self._link.state in (State.IDLE, State.CLOSED):
            return  # nobody takes it out
        try:
            self._queue.put_nowait((source, what))
        except asyncio.QueueFull:
            self._spawn(self._queue.put((source, what)))

    def _wake(self) -> None:
        self._put(None, _Wake())

    async def _heard(self, source: Road, what: News) -> None:
        if self._link.state is not State.CLOSED:  # else nobody takes it out any more, and it would wait for ever
            await self._queue.put((source, what))

    def _tell(self, input: LinkInput) -> None:
        self._carry(self._link.receive(input, self._now(), random.random()))

    def _carry(self, effects: list[LinkEffect]) -> None:
        for effect in effects:
            match effect:
                case link.Authorize(fresh):
                    self._asked += 1
                    self._spawn(self._authorize(fresh, self._asked))
                case link.Dial(road):
                    self._road = self._dial(road)
                case link.Move():  # beside the road that carries
                    if self._spare is not None:
                        self._spawn(self._spare.abandon(CloseCode.NORMAL))
                    self._spare = self._dial(roads.Road.WEBSOCKET)
                case link.Try():
                    self._spawn(self._try())
                case link.Introduce():
                    self._links += 1  # of two that are open, the later one is the one to be heard
                    self._say(messages.Auth(self._credentials, self._session, self._links))
                case link.Rejoin():
                    assert self._road is not None, "it has just been heard on"
                    self._rooms.rejoin(self._road)
                case link.Probe():
                    self._say(messages.Ping())
                case link.Abandon(code):
                    self._abandon(code)
        for changed in self._watchers:
            changed.set()

    def _dial(self, by: roads.Road) -> Road:
        if by is roads.Road.WEBSOCKET:
            from holdfast.client.websocket import WebSocketRoad  # which takes longer than all that a server needs

            road: Road = WebSocketRoad(self._heard)
        else:
            from holdfast.client.http import HttpRoad  # and with it an HTTP client: most links never need one

            road = HttpRoad(self._heard, self._reader)
        self._spawn(road.run(self.url, self._credentials))
        return road

    async def _try(self) -> None:
        from holdfast.client.websocket import is_free

        if await is_free(self.url, self._credentials):
            self._put(None, link.Free())

    def _go_over(self) -> None:
        """Let go of the road that carried, and go on by the other."""
        spare, self._spare = self._spare, None
        self._abandon(CloseCode.AWAY)
        self._road = spare
        self._tell(link.Moved())

    async def _authorize(self, fresh: bool, asked: int) -> None:
        try:
            if callable(self._token) and (fresh or self._credentials is None):
                token = self._token()
                self._credentials = check_token(await token if inspect.isawaitable(token) else token)
            elif self._token is None and fresh:
                self._credentials = None  # as another guest, then
            elif isinstance(self._token, str):
                self._credentials = self._token
        except Unauthorized as error:
            self._has_no_token(asked, link.Lost(CloseCode.UNAUTHORIZED, error.message))
        except (Exception, asyncio.CancelledError) as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # it is we who end; else what the function waited for was cancelled
            logger.warning("the token function failed: %r", error)
            self._has_no_token(asked, link.Lost(reason=f"no token: {error}"))
        else:
            self._put(None, link.Authorized())

    def _has_no_token(self, asked: int, lost: link.Lost) -> None:
        if asked == self._asked:  # else it was asked for again since, and what comes of that counts
            self._put(None, lost)

    def _abandon(self, code: int) -> None:
        for road in (self._road, self._spare):
            if road is not None:
                parting = self._spawn(road.abandon(code))
                self._partings[parting] = None
                parting.add_done_callback(lambda done: self._partings.pop(done, None))
        self._road = self._spare = None
        self._rooms.broken()

    # What the server says.

    def _received(self, said: str | messages.ServerMessage | messages.Event) -> None:
        try:
            self._heed(self._codec.decode_server(said) if isinstance(said, str) else said)
        except Refused as problem:
            # Its place in the log stays open: to ask for it again at once would be to ask for ever.
            logger.warning("the server said something that is not in the protocol: %.300r", problem.message)
            self._abandon(CloseCode.NORMAL)
            self._tell(link.Lost(reason=f"the server said something that is not in the protocol: {problem}"))

    def _heed(self, message: messages.ServerMessage | messages.Event) -> None:
        match message:
            case messages.Connected():
                self._connected(message)
            case messages.ServerPing(quiet):
                if not quiet:
                    self._say(messages.Pong())
            case messages.Goodbye(_, after_ms, spread_ms):
                self._tell(link.Advised(after_ms / 1000, spread_ms / 1000))
            case messages.Pong():
                pass
            case _:
                self._rooms.heed(message)

    def _connected(self, message: messages.Connected) -> None:
        if message.session is not UNSET:
            self._session = message.session
            self._reader = Reader()  # there is a way for a WebSocket: forget what else was barred
        self._codec = Codec(message.room_key)
        self.user = message.user
        if isinstance(message.token, str) and self._token is None:
            self._credentials = message.token
            self._link.renewable = True
        self._rooms.rate = 0.8 * message.limits.messages_per_second  # the rest is for what is no command
        self._tell(link.Welcomed(message.heartbeat.interval, message.heartbeat.timeout))

    # What it says.

    def _say(self, message: messages.Auth | messages.Ping | messages.Pong | Said) -> None:
        fields = {name: value for name, value in msgspec.to_builtins(message).items() if value is not None}
        room = fields.pop("room", None)
        self._write(fields if room is None else {**fields, self._codec.room_key: room})

    def _send(self, room: str, fields: dict[str, Any]) -> None:
        self._write({**fields, self._codec.room_key: room})

    def _write(self, fields: dict[str, Any]) -> None:
        if self._road is not None and not self._road.say(msgspec.json.encode(fields).decode()):
            self._put(self._road, link.Lost(reason="the server takes nothing more"))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task  # type: ignore[no-any-return]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("unexpected failure", exc_info=error)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _closed(self) -> Closed:
        status = self.status
        why = "" if status.code is None else f" by the server: {status.code} {status.reason}"
        return Closed(f"this client was closed{why}", code=status.code)
