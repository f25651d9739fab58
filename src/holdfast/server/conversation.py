"""
What does a client's message lead to?

Here is everything that has to be awaited before the mind may hear of it: who somebody is,
whether they may, and what the store has; then the mind is told, and answers at once.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET

from holdfast.core import inputs
from holdfast.core.ready import Span
from holdfast.errors import Conflict, Forbidden, Invalid, OutcomeUnknown, Refused, TooMany, Unauthorized
from holdfast.protocol import messages
from holdfast.protocol.codec import problem
from holdfast.protocol.cursor import Position, decode_position
from holdfast.protocol.messages import Auth, ClientMessage, Error, Join, Leave, Message, Reply, Sync, User
from holdfast.server import keyed
from holdfast.server.auth import Identity
from holdfast.server.connection import Connection
from holdfast.server.gate import Gate
from holdfast.server.hands import Hands

logger = logging.getLogger("holdfast.server")

#: What the Hub itself understands, unless the application has a handler of its own for it.
TYPING = ("typing", "stop_typing")


@dataclass(frozen=True, slots=True)
class Request:
    """
    A message of the application, as a handler gets it.

    Attributes:
        session: Whose it is, for `hub.broadcast(…, but=session)`; None if it came by HTTP.
        key: What makes a retry of it recognisable, if the client gave one: what you write and publish for it takes
            effect once.
    """

    type: str
    room: str | None
    data: dict[str, Any]
    user: User
    session: str | None = None
    key: str | None = None


#: May this user do this (`join`, `read` or `send`) in this room? Raising a `Refused` says why not.
Authorize = Callable[[User, str, str], Awaitable[bool] | bool]
#: Handles a message; what it returns goes back as the `reply`, if one was asked for.
Handler = Callable[[Request], Awaitable[Any] | Any]


@dataclass(slots=True)
class Hooks:
    """The application's own decisions."""

    authorize: Authorize | None = None
    handlers: dict[str, Handler] = field(default_factory=dict)


class Conversation:
    """What a Hub does with what its clients say."""

    def __init__(self, hands: Hands, gate: Gate, hooks: Hooks) -> None:
        self._hands = hands
        self._gate = gate
        self._hooks = hooks

    async def receive(self, connection: Connection, message: ClientMessage) -> None:
        """Answer one message of one connection."""
        try:
            await self._receive(connection, message)
        except Unauthorized as error:
            if connection in self._hands.connections:
                self._gate.turn_away(connection, error)
        except Refused as refusal:
            self._refuse(connection, message, refusal, problem(refusal))
        except OutcomeUnknown as error:
            self._refuse(connection, message, error, messages.Problem(str(error), error.code))
        except Exception as error:
            logger.exception("a message could not be handled")
            unexpected = messages.Problem("something went wrong on the server", "internal")
            self._refuse(connection, message, error, unexpected)

    def _refuse(self, connection: Connection, message: ClientMessage, error: Exception, said: messages.Problem) -> None:
        if isinstance(message, Auth) and connection.identity is None:
            self._gate.not_recognised(connection, error, said)
        elif isinstance(message, Message) and message.ref is not None:
            connection.say(Reply(message.ref, False, error=said))
        else:
            room = message.room if isinstance(message, Join | Leave | Sync) else UNSET
            connection.say(Error(said.error, said.code, room))

    async def _receive(self, connection: Connection, message: ClientMessage) -> None:
        if isinstance(message, Auth):
            await self._auth(connection, message)
            return
        session = self._hands.mind.session(connection)
        if session is None:
            if connection in self._hands.connections:
                raise Unauthorized("Unauthorized: sign in first")
            return
        match message:
            case Join(room, since):
                await self._join(connection, session.user, room, since)
            case Leave(room) if room in session.rooms:
                self._hands.tell(inputs.Went(connection, room))
            case Leave(room):
                connection.say(messages.Left(room))  # also to whoever was put out a moment ago: it waits for this
            case Sync(room, since):
                self._must_be_in(connection, room)
                position = decode_position(since, room)
                span = None if self._hands.mind.knows(room, position) else await self._hands.span(room)
                self._hands.tell(inputs.Asked(connection, room, position, span))
            case messages.Ping():
                connection.say(messages.Pong())  # it had to wait for its turn, behind `auth`
            case Message():
                await self._application(connection, message, session.user, session.id)

    async def _auth(self, connection: Connection, message: Auth) -> None:
        self._hands.tell(inputs.Greeted(connection))
        identity, session = await self._hands.expulsions.outlast(
            lambda met: met[0].user.user_id, lambda: self._meet(connection, message)
        )
        if connection in self._hands.connections:
            self._gate.admit(connection, identity, session, message.link)

    async def _meet(self, connection: Connection, message: Auth) -> tuple[Identity, str | None]:
        """Return who somebody is, and the session that they go on with: first the one, for nobody else may take it."""
        identity = await self._hands.expulsions.outlast(
            lambda identity: identity.user.user_id, lambda: self._identify(connection, message)
        )
        session = message.session
        if session is not None and not await self._hands.take_over(session, identity.user, message.link):
            session = None  # it comes as a new one, and is seen to
        return identity, session

    async def _identify(self, connection: Connection, message: Auth) -> Identity:
        identity = connection.identity
        if message.token is not None or identity is None:
            identity = await self._gate.identify(message.token, None)
        if identity is None:
            raise Unauthorized("Unauthorized: sign in first")
        return identity

    async def _join(self, connection: Connection, user: User, room: str, since: str | None) -> None:
        self._hands.codec.check_room(room)
        position = None if since is None else decode_position(since, room)
        span = await self._hands.expulsions.outlast(
            lambda _: user.user_id, lambda: self._ask_for_room(connection, user, room, position)
        )
        self._hands.tell(inputs.Entered(connection, room, position, span, self._hands.elsewhere(room)))

    async def _ask_for_room(
        self, connection: Connection, user: User, room: str, position: Position | None
    ) -> Span | None:
        """Return what the store has of a room, if that must be known, for somebody who may join it."""
        await self.authorize(user, room, "join")
        limit = self._hands.limits.rooms_per_connection
        session = self._hands.mind.session(connection)
        if session is not None and room not in session.rooms and len(session.rooms) >= limit:
            raise TooMany(f"a connection can be in at most {limit} rooms")
        return None if self._hands.mind.knows(room, position) else await self._hands.span(room)

    def _must_be_in(self, connection: Connection, room: str | None) -> None:
        session = self._hands.mind.session(connection)
        if session is not None and room not in session.rooms:
            raise Conflict(f"you are not in {room}; join it first", field=self._hands.codec.room_key)

    async def _application(self, connection: Connection, message: Message, user: User, session: str) -> None:
        if message.room is not None:
            self._must_be_in(connection, message.room)
            await self.authorize(user, message.room, "send")
        if message.type in TYPING and message.type not in self._hooks.handlers:
            if message.room is None:
                raise Invalid(f"{message.type}: {self._hands.codec.room_key} is missing")
            self._hands.tell(inputs.Typed(connection, message.room, message.type == "typing"))
            result = None
        else:
            request = Request(message.type, message.room, message.data, user, session, message.key)
            result = await self.handle(request)
        if message.ref is not None:
            connection.say(Reply(message.ref, True, data=msgspec.Raw(msgspec.json.encode(result))))

    async def handle(self, request: Request, asker: str | None = None) -> Any:
        """Hand a message of the application to its handler; `asker` is whose its key is, if not the user's."""
        handler = self._hooks.handlers.get(request.type)
        if handler is None and request.type in TYPING:
            raise Conflict("without a WebSocket nobody is in a room, to be seen typing there")
        if handler is None:
            known = ", ".join(sorted(self._hooks.handlers)) or "none"
            raise Invalid(f"unknown type {request.type!r} (this server's own: {known})", field="type")
        whose = request.user.user_id if asker is None else asker
        with keyed.command(whose, request.key, request.type, request.room, request.data):
            result = handler(request)
            return await result if inspect.isawaitable(result) else result

    async def authorize(self, user: User, room: str, action: str) -> None:
        """Raise a `Refused` unless `user` may do this in `room`."""
        may = self._hooks.authorize
        if may is not None and not await self._gate.ask(may, user, room, action):
            raise Forbidden(f"you may not {action} {room}")
