"""
What does an application see of holdfast?

A `Hub`: rooms with a log, and everybody who is in them. It is opened with the
application (`lifespan=hub.lifespan`), mounted into it (`app.mount("/live", hub.app)`), and
called from anywhere in it (`await hub.publish(…)`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

import anyio.lowlevel
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.core import inputs
from holdfast.core.hub import Rules
from holdfast.errors import Closed, StoreError
from holdfast.protocol.codec import Codec, check_room_key, check_server_key, check_terms
from holdfast.protocol.messages import HeartbeatTerms, Terms, User
from holdfast.server import crew, eventstream, metrics, polling
from holdfast.server.auth import Identity, Origins
from holdfast.server.conversation import Authorize, Handler, Hooks
from holdfast.server.gate import Authenticate
from holdfast.server.keyed import next_once
from holdfast.server.limits import Limits
from holdfast.server.mount import mountable
from holdfast.server.opened import Lives, OpenHub, Settings, Snapshot
from holdfast.server.publication import Publication
from holdfast.server.subscribers import Handler as SubscriberHandler
from holdfast.server.subscribers import to_publication
from holdfast.store.choice import Choice, chosen, store_at
from holdfast.store.store import AppendsElsewhere, Once, ReadTransaction, Record, Retention, Store, Transaction

if TYPE_CHECKING:
    import psycopg

P = ParamSpec("P")
T = TypeVar("T")


#: Servers that are told to end at the same time (workers, or all machines) hear of each other within this. Seconds.
WITHDRAW_SECONDS = 0.5


class Hub:
    """
    Rooms with a log, and everybody who is in them.

    Args:
        store: Where the log is kept: a file (`"chat.db"`), `"memory:"`, a PostgreSQL database that several processes
            may share (`"postgresql://…"`, or what else libpq understands), or a `Store` of your own.
        room_key: The field that names the room in messages.
        heartbeat_interval: Every connection is pinged as often as this, in seconds.
        heartbeat_timeout: A connection that sends nothing for this long after a ping is gone.
        presence_grace: How long somebody whose link broke is still shown, in seconds.
        require_login: Turn away who has not signed in; else they are guests.
        origins: Pages of other sites that may use this server, as `https://example.org`.
        server_key: Lets other programs publish by `POST …/publish` with `Authorization: Bearer <key>`.
        listen: How PostgreSQL is reached directly, if `store` leads through a pooler in transaction mode.
        redis: A Redis or Valkey (`"redis://…"`) by which servers that share a PostgreSQL database tell each other where
            there is news, and who types: faster than by way of the database. Nothing that may not be lost is there.
        migrations: SQL scripts for the application's own tables; each is run once on a store, in this order. If they
            differ, `{"sqlite": […], "postgresql": […]}`.
        limits: Everything else that is limited.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        room_key: str = "room",
        heartbeat_interval: float = 30.0,
        heartbeat_timeout: float = 10.0,
        presence_grace: float = 5.0,
        require_login: bool = False,
        origins: Sequence[str] = (),
        server_key: str | None = None,
        listen: str | None = None,
        redis: str | None = None,
        migrations: Sequence[str] | Mapping[str, Sequence[str]] = (),
        limits: Limits | None = None,
    ) -> None:
        if server_key is not None:
            check_server_key(server_key)
        self.limits = limits = Limits() if limits is None else limits
        codec = Codec(check_room_key(room_key))
        self._settings = Settings(
            codec=codec,
            limits=limits,
            rules=Rules(
                check_terms(HeartbeatTerms(heartbeat_interval, heartbeat_timeout)),
                check_terms(Terms(limits.message_bytes, limits.messages_per_second, limits.rooms_per_connection)),
                room_key,
                presence_grace,
                limits.auth_seconds,
            ),
            origins=Origins(tuple(origins)),
            require_login=require_login,
            server_key=server_key,
            hooks=Hooks(),
            subscribers=[],
        )
        retention = Retention(limits.log_records, limits.log_seconds, limits.verdict_seconds)
        self._choice = Choice(store, codec, migrations, retention)
        self._own_store: Store = (
            store_at(
                store,
                codec,
                migrations=migrations,
                retention=retention,
                listen=listen,
                redis=redis,
                poll=limits.news_seconds,
            )
            if isinstance(store, str)
            else store
        )
        self._store = self._own_store
        self._lives: Lives | None = None
        self.websocket = WebSocketEndpoint(self)

    # The application's own decisions.

    def authenticate(self, function: Authenticate) -> Authenticate:
        """
        Decide who a token belongs to (decorator).

        `function(token, request)` returns a `User`, or None for nobody, or raises `Unauthorized`. An id is 1 to 255
        printable characters, a name at most 255 without control characters; anybody else is a `ValueError`.
        Without one, tokens are those that `hub.token` has signed.
        """
        self._settings.authenticate = function
        return function

    def authorize(self, function: Authorize) -> Authorize:
        """Decide whether a user may `join`, `read` or `send` in a room (decorator): `function(user, room, action)`."""
        self._settings.hooks.authorize = function
        return function

    def on(self, type: str) -> Callable[[Handler], Handler]:
        """Handle a client's messages of this type (decorator). What the function returns is the `reply`'s data."""

        def register(function: Handler) -> Handler:
            self._settings.hooks.handlers[type] = function
            return function

        return register

    def subscribe(self, function: SubscriberHandler) -> SubscriberHandler:
        """Be told of every publication, in order, in this process (decorator). One that throws harms no other."""
        self._settings.subscribers.append(function)
        if self._lives is not None:
            self._lives.current.subscribe(function)
        return function

    def snapshot(self, function: Snapshot) -> Snapshot:
        """Say what a room's state is (decorator): a query, served by `GET …/snapshot?room=` with its cursor."""
        self._settings.snapshot = function
        return function

    # Its life.

    def lifespan(self, app: object) -> AbstractAsyncContextManager[None]:
        """For `FastAPI(lifespan=hub.lifespan)`: the hub is open while the application runs."""

        @asynccontextmanager
        async def life() -> AsyncIterator[None]:
            async with self:
                yield

        return life()

    async def __aenter__(self) -> Self:
        self._store = chosen(self._choice, self._own_store)
        if crew.duty() is not None and self._store.others is None:
            raise StoreError(
                "one process serves a file, and this is one of several: drop --workers, "
                "or keep the data in a database that they can share (postgresql://…)"
            )
        await anyio.lowlevel.checkpoint()  # imports its backend, for which everybody would wait in the first stream
        lives = Lives(self._settings, self._store)
        await lives.open()
        self._lives = lives
        open_hubs.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        open_hubs.discard(self)
        lives, self._lives = self._lives, None
        assert lives is not None, "it is left once for each time it is entered"
        await lives.close()

    def drain(self) -> None:
        """Send everybody away with advice when to come back; what was accepted is still answered."""
        self.opened.hands.departure.send_away("the server restarts", is_final=True)

    @property
    def is_alone(self) -> bool:
        """Whether no other server shares its store now, but for those that are about to end too."""
        return self._store.others is None or self._store.others.are_none

    async def withdraw(self) -> None:
        """Tell the other servers that this one is about to end, and find out which of them are too."""
        if self._store.others is not None:
            await self._store.others.withdraw(WITHDRAW_SECONDS if self.opened.hands.connections else 0.0)

    async def hand_over(self) -> None:
        """Have everybody move to the other servers that share the store, if there are any; then `drain`."""
        if not self.is_alone:
            await self.opened.hands.departure.hand_over("the server restarts", self.limits.drain_seconds - 2.0)
        self.drain()

    @property
    def opened(self) -> OpenHub:
        """What there is of it only while it is open."""
        if self._lives is None:
            raise Closed("the hub is not open; pass lifespan=hub.lifespan to the application, or use `async with hub`")
        return self._lives.current

    @property
    def is_draining(self) -> bool:
        """Whether it takes nobody in any more."""
        return self._lives is None or self.opened.hands.departure.is_final

    @property
    def is_ready(self) -> bool:
        """Whether it takes everybody in: it is open, does not drain, and its store answers."""
        return self._lives is not None and self.opened.hands.departure.reason is None

    # Writing and reading.

    async def write(self, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Run a change, and return what it returned, once it and what it published are on the disk.

        Then, and only then, members hear of it. It may be run twice, and acts only through its transaction.
        """
        once = next_once(getattr(change, "__qualname__", type(change).__qualname__))
        result: T = (await self._store.commit(change, args, kwargs, once)).result
        return result

    async def write_once(
        self, once: Once, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a change as `write` does, but once for all that say `once`: the others are answered the same."""
        result: T = (await self._store.commit(change, args, kwargs, once)).result
        return result

    async def read(self, query: Callable[Concatenate[ReadTransaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query, all of which is of one moment, and return what it returned."""
        return await self._store.read(query, *args, **kwargs)

    async def publish(self, room: str, type: str, data: Any) -> Publication:
        """Put an event into the log of `room`; it is on the disk when this returns, and on its way to the members."""

        def change(transaction: Transaction) -> None:
            transaction.publish(room, type, data)

        outcome = await self._store.commit(change, (), {}, next_once(f"{type} in {room}"))
        if outcome.publications:
            (record,) = outcome.publications
        else:  # it was said before, under the same key
            ((_, offset),) = outcome.positions
            record = Record(room, offset, type, self._settings.codec.encode_body(type, data))
        return to_publication(record, outcome.epoch)

    def publish_from_thread(self, room: str, type: str, data: Any) -> Publication:
        """
        Publish from a thread that is not the event loop's, and wait until it is on the disk.

        Raises `RuntimeError` in the event loop's, which would wait for itself.
        """
        loop = self.opened.hands.loop
        if _is_running_here(loop):
            raise RuntimeError("publish_from_thread would wait for its own event loop: there, await publish(…)")
        return asyncio.run_coroutine_threadsafe(self.publish(room, type, data), loop).result()

    @overload
    def publish_in(self, connection: psycopg.Connection[Any], room: str, type: str, data: Any) -> Publication: ...

    @overload
    def publish_in(
        self, connection: psycopg.AsyncConnection[Any], room: str, type: str, data: Any
    ) -> Awaitable[Publication]: ...

    def publish_in(self, connection: Any, room: str, type: str, data: Any) -> Publication | Awaitable[Publication]:
        """
        Publish in a transaction of your own on the PostgreSQL database that the store is in: they commit together.

        `connection` is psycopg's; on an `AsyncConnection` this is to be awaited. What it returns is true as soon as you
        have committed. Until then whoever else publishes in this room waits, so do it last. Raises `StoreError` on a
        connection that leads to another database.
        """
        codec, epoch = self._settings.codec, self._store.epoch
        body = codec.encode_body(type, data)

        def publication(offset: int) -> Publication:
            return to_publication(Record(room, offset, type, body), epoch)

        if not isinstance(self._store, AppendsElsewhere):
            raise StoreError("publish_in is for a store in PostgreSQL; hub.write does the same on every one")
        return self._store.append_in(connection, codec.check_room(room), type, body, publication)

    async def broadcast(self, room: str, type: str, data: Any, *, but: str | None = None) -> None:
        """Send an event to those who are in `room` now, but not to the session `but`. It is not recorded."""
        codec = self._settings.codec
        frame = codec.encode_event(codec.check_room(room), type, codec.encode_body(type, data))
        hands = self.opened.hands
        hands.say("broadcast", room, frame.text.decode(), but)
        hands.tell(inputs.Announced(room, frame, but))

    # People.

    def members(self, room: str) -> list[User]:
        """
        Return who is in `room` now, as far as this server knows without asking: nobody, if nobody of its own is there.

        Where several share a database, `find_members` is right at each of them.
        """
        known = self.opened.hands.mind.room(room)
        return [] if known is None else list(known.attendance.roster.users())

    async def find_members(self, room: str) -> list[User]:
        """Return who is in `room` now, at whichever server; this may ask the database."""
        hands = self.opened.hands
        if self._store.others is not None:
            await hands.span(
                self._settings.codec.check_room(room)
            )  # meanwhile the room is followed, and its people known
        found = {user.user_id: user for user in hands.mind.people(room)}
        for _, user in hands.elsewhere(room):
            found.setdefault(user.user_id, user)
        return list(found.values())

    async def remove(self, user_id: str, room: str) -> None:
        """
        Put a user out of a room, with all their tabs; `Unavailable`: perhaps nothing has happened, do it again.

        Take the right away first: if they are just coming in, they are asked about again (`authenticate`, `authorize`).
        The other servers do it as soon as they hear of it, and may put out once more whom they let in again meanwhile.
        """
        await self._expel(user_id, room)

    async def disconnect(self, user_id: str) -> None:
        """Close every connection of a user, for good (4003); `Unavailable` as with `remove`."""
        await self._expel(user_id, None)

    async def _expel(self, user_id: str, room: str | None) -> None:
        hands = self.opened.hands
        if self._store.others is None:
            hands.expel(user_id, room)
        else:
            await self._store.others.expel(user_id, room)  # this server hears of it as all do

    def token(self, user: User, lifetime: float | None = None) -> str:
        """Return a token that says "this is `user`", for `lifetime` seconds; `ValueError` for one who cannot be."""
        return self.opened.tokens.sign(user, lifetime)

    def guest_token(self, user: User) -> str:
        """Return a token for somebody who has not signed in, so that they stay the same guest."""
        return self.opened.tokens.sign(user, None, is_guest=True)

    async def identify(self, request: HTTPConnection) -> Identity:
        """Return who makes a request; raises `Unauthorized`, or `Forbidden` for a page of somebody else."""
        return await self.opened.gate.identify_request(request)

    def check_origin(self, request: HTTPConnection) -> None:
        """Raise `Forbidden` for a request from a page of somebody else."""
        self.opened.gate.check_origin(request)

    # Roads.

    @property
    def app(self) -> Starlette:
        """All roads at their usual paths, to be mounted: /ws /events /poll /send /snapshot /publish /holdfast.js."""
        return mountable(lambda: self.opened, self.websocket, self.publish)

    async def events(self, request: HTTPConnection, rooms: Sequence[str], *, multiplexed: bool = False) -> Response:
        """
        Return the event stream of some rooms, as the answer to a request of your own path.

        With `multiplexed`, its cursor is one for several rooms, even if it has only one.
        """
        return await eventstream.respond(self.opened, request, tuple(dict.fromkeys(rooms)), multiplexed=multiplexed)

    async def poll(self, request: Request, room: str, *, hold: bool = True) -> dict[str, Any]:
        """Return what follows the request's `cursor` in `room`; with `hold`, wait until there is something."""
        return await polling.answer(self.opened, request, room, hold=hold)

    def metrics(self) -> str:
        """Return the figures of this hub, in the text format that Prometheus reads."""
        return metrics.render(self.opened)

    def connection_count(self) -> int:
        """Return how many WebSockets, event streams and polls are open."""
        return len(self.opened.hands.connections) + len(self.opened.hands.streams)

    def listeners(self) -> dict[str, dict[str, int]]:
        """Return how many listen to each room, by road: `{room: {websocket, sse, poll}}`."""
        return self.opened.hands.listeners()


class WebSocketEndpoint:
    """The WebSocket of a Hub, for a path of your own: `WebSocketRoute("/ws", hub.websocket)`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an upgrade (ASGI)."""
        await self._hub.opened.gate.websocket(scope, receive, send)


#: The hubs that are open in this process, for `holdfast serve` to drain.
open_hubs: WeakSet[Hub] = WeakSet()


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
