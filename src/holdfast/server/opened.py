"""
What is there of a Hub only while it is open?

Everything that needs a running event loop and an open store: the hands with the mind they
carry out, the gate, the conversation, and the subscribers. The roads are given this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import HTTPConnection

from holdfast.core import inputs
from holdfast.core.heartbeat import Heartbeat
from holdfast.core.hub import Hub as Mind
from holdfast.core.hub import Rules
from holdfast.core.inputs import Elsewhere
from holdfast.errors import Malformed, NotFound, Refused, Unauthorized
from holdfast.protocol.codec import Codec, problem
from holdfast.protocol.cursor import MAX_LENGTH, MAX_OFFSET, Cursor, decode_cursor, encode_cursor
from holdfast.protocol.messages import Error, Problem, User
from holdfast.server.auth import Identity, Origins, Tokens
from holdfast.server.conversation import Conversation, Hooks
from holdfast.server.follow import Follow
from holdfast.server.gate import Authenticate, Gate
from holdfast.server.hands import Hands
from holdfast.server.limits import Limits
from holdfast.server.rate import Allowances
from holdfast.server.subscribers import Handler, Subscriber
from holdfast.store.store import ReadTransaction, Record, Store

Snapshot = Callable[[ReadTransaction, str], Any]


@dataclass(slots=True)
class Settings:
    """What a Hub was told when it was made, and what the application decides for it."""

    codec: Codec
    limits: Limits
    rules: Rules
    origins: Origins
    require_login: bool
    server_key: str | None
    hooks: Hooks
    subscribers: list[Handler]
    authenticate: Authenticate | None = None
    snapshot: Snapshot | None = None


class OpenHub:
    """A Hub while it is open."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.codec = settings.codec
        self.limits = settings.limits
        self._subscribers: list[Subscriber] = []
        self._tasks: list[asyncio.Task[None]] = []
        terms = settings.rules.heartbeat
        self.hands = Hands(
            Mind(settings.codec, store.epoch, msgspec.structs.replace(settings.rules, shared=store.others is not None)),
            Heartbeat(terms.interval, terms.timeout),
            store,
            settings.codec,
            settings.limits,
        )
        self.tokens = Tokens(store.secret)
        self.gate = Gate(
            self.hands,
            settings.rules,
            self.tokens,
            settings.origins,
            settings.authenticate,
            require_login=settings.require_login,
        )
        # By HTTP, of each person; of those who say nothing by which they could be known, together.
        self.sent = Allowances(settings.limits.messages_per_second, settings.limits.message_burst)
        self.conversation = Conversation(self.hands, self.gate, settings.hooks)
        self.hands.handle = self.conversation.receive
        for handler in settings.subscribers:
            self.subscribe(handler)

    async def close(self, reason: str) -> None:
        """Send everybody away, and finish what was accepted."""
        self.hands.departure.send_away(reason, is_final=True)
        for task in self._tasks:
            task.cancel()
        self.gate.door.close()
        await self.hands.finish(self.limits.close_seconds)

    def subscribe(self, handler: Handler) -> None:
        """Tell a handler of every publication from now on."""
        subscriber = Subscriber(handler, self.store)
        self._subscribers.append(subscriber)
        self._tasks.append(self.hands.spawn(subscriber.run()))

    def follows(self, room: str) -> bool:
        """Whether anybody here wants the news of a room."""
        return bool(self._subscribers) or self.hands.follows(room)

    def news(self, records: Sequence[Record]) -> None:
        """Take in what was committed."""
        self.hands.news(records)
        for subscriber in self._subscribers:
            subscriber.news(records)

    def follow(
        self, identity: Identity, rooms: tuple[str, ...], cursor: Cursor | None, kind: str, *, multiplexed: bool
    ) -> Follow:
        """Return a reader of some rooms, from a cursor on."""
        return Follow(self.hands, identity, rooms, cursor, kind, multiplexed=multiplexed)

    async def admit_reader(
        self, request: HTTPConnection, rooms: tuple[str, ...], *, multiplexed: bool, comes_in: bool = True
    ) -> tuple[Identity, Cursor | None]:
        """
        Return who wants to read these rooms, and from where on (`Last-Event-ID`, `?cursor=`), if they may.

        Who goes on, and does not come in, is not one of too many that come at once.
        If they may not because of one of several, the request knows how a WebSocket says so (`web.refusal_of`).
        """
        if not 0 < len(rooms) <= self.limits.stream_rooms:
            raise Malformed(f"1 to {self.limits.stream_rooms} rooms can be read at once")
        if len(rooms) > 1 and len(encode_cursor(self.store.epoch, dict.fromkeys(rooms, MAX_OFFSET))) > MAX_LENGTH:
            raise Malformed("the names of these rooms are too long for one cursor; read them in two parts")
        identity = await self.hands.expulsions.outlast(
            lambda identity: identity.user.user_id,
            lambda: self._identify_reader(request, rooms, multiplexed=multiplexed, comes_in=comes_in),
        )
        text = request.headers.get("last-event-id") or request.query_params.get("cursor")
        return identity, decode_cursor(text) if text else None

    async def _identify_reader(
        self, request: HTTPConnection, rooms: tuple[str, ...], *, multiplexed: bool, comes_in: bool
    ) -> Identity:
        identity = await self.gate.identify_request(request, comes_in=comes_in)
        with self.gate.keep_place(comes_in):
            for room in rooms:
                try:
                    await self.check(identity.user, room, "read")
                except Unauthorized:
                    raise  # it is about them, and not about a room
                except Exception as error:
                    if multiplexed:
                        request.state.holdfast_refusal = self._refusal(room, error)
                    raise
        return identity

    def _refusal(self, room: str, error: Exception) -> bytes:
        """Return what a WebSocket would say of a room that may not be entered."""
        unexpected = Problem("something went wrong on the server", "internal")
        said = problem(error) if isinstance(error, Refused) else unexpected
        return self.codec.encode(Error(said.error, said.code, room)).text

    async def check(self, user: User, room: str, action: str) -> None:
        """Raise a `Refused` unless `user` may do this in `room`."""
        await self.conversation.authorize(user, self.codec.check_room(room), action)

    async def snapshot(self, room: str) -> tuple[Any, str]:
        """Return a room's state, and the cursor at which it is true."""
        function = self.settings.snapshot
        if function is None:
            raise NotFound("this server has no snapshots (@hub.snapshot)")

        def query(transaction: ReadTransaction) -> tuple[Any, str]:
            position = str(transaction.position(room))
            return function(transaction, room), position

        return await self.store.read(query)


class Lives:
    """
    The lives of a Hub that is open, one after the other: when its log is another one, it begins anew.

    It is the store's listener.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open the store, and take up work."""
        await self._store.open(self)
        self.current = OpenHub(self._settings, self._store)

    async def close(self) -> None:
        """Send everybody away, finish what was accepted, and close the store."""
        await self.current.close("the server stops")
        if self._ending:
            await asyncio.wait(self._ending)
        await self._store.close()

    def news(self, records: Sequence[Record]) -> None:
        """Take in what was committed."""
        self.current.news(records)

    def follows(self, room: str) -> bool:
        """Whether anybody here wants the news of a room."""
        return self.current.follows(room)

    def shows(self, room: str) -> bool:
        """Whether it is shown to anybody here who is in a room."""
        return self.current.hands.follows(room)

    def met(self, room: str, came: Elsewhere, went: Elsewhere) -> None:
        """Take in who came and went at other nodes."""
        self.current.hands.tell(inputs.Met(room, came, went))

    def taken(self, session: str, rooms: tuple[str, ...]) -> None:
        """Let go of a session that went on at another node."""
        self.current.hands.tell(inputs.Taken(session, rooms))

    def awaited(self, session: str, user: User, rooms: tuple[str, ...]) -> None:
        """Wait, as long as a grace, for a session that was taken over."""
        self.current.hands.tell(inputs.Awaited(session, user, rooms))

    def departed(self, room: str, session: str) -> None:
        """Show somebody no longer whose grace is over, if they are not elsewhere."""
        self.current.hands.tell(inputs.Departed(room, session))

    def expelled(self, user_id: str, room: str | None) -> None:
        """Put a user out, as some node was told to."""
        self.current.hands.expel(user_id, room)

    def heard(self, word: Any) -> None:
        """Take in what another node has said."""
        self.current.hands.heard(word)

    def away(self) -> None:
        """Send everybody to where the truth is known, and let nobody in."""
        self.current.hands.departure.send_away("the database does not answer")

    def back(self) -> None:
        """Let them in again."""
        self.current.hands.departure.reopen()

    def moved(self) -> None:
        """Have everybody come back, to be told that their positions mean nothing any more."""
        ended = self.current
        self.current = OpenHub(self._settings, self._store)
        self.current.hands.departure.succeed(ended.hands.departure)
        task = asyncio.create_task(ended.close("the log has begun anew"))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
