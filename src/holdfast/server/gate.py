"""
Who may come in, and as whom?

Every road asks here: the upgrade of a WebSocket, an event stream, a poll, a request. A
WebSocket is refused in its own words, after it was accepted, for a page cannot read the
HTTP status of a refused upgrade; only a page of somebody else is refused before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ParamSpec, TypeVar

from msgspec import UNSET
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from holdfast.core import inputs
from holdfast.core.hub import Rules
from holdfast.errors import Forbidden, Unauthorized, Unavailable
from holdfast.protocol.codec import check_user
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.messages import Connected, Error, Goodbye, HeartbeatTerms, Problem, User
from holdfast.server.asgi import AsgiConnection
from holdfast.server.auth import Identity, Origins, Tokens, find_token, new_guest, new_session
from holdfast.server.connection import Connection
from holdfast.server.door import FULL_SECONDS, FULL_SPREAD, Door, drawn
from holdfast.server.hands import Hands
from holdfast.server.native import EXTENSION, NativeConnection

logger = logging.getLogger("holdfast.server")
P = ParamSpec("P")
T = TypeVar("T")

#: The subprotocol of clients that answer our pings in words, and understand `goodbye`.
SUBPROTOCOL = "holdfast.1"

#: Says who a token, or a request without one, belongs to; None: to nobody that is known.
Authenticate = Callable[[str | None, HTTPConnection | None], Awaitable[User | Identity | None] | User | Identity | None]


#: Who somebody is, if they have said so, or why they are not let in.
Answer = Identity | Unauthorized | Goodbye | None


class Asked:
    """Of how many the application is being asked: each of them has a place meanwhile."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


class Gate:
    """The way in to one Hub."""

    def __init__(
        self,
        hands: Hands,
        rules: Rules,
        tokens: Tokens,
        origins: Origins,
        authenticate: Authenticate | None,
        *,
        require_login: bool,
    ) -> None:
        self._hands = hands
        self._rules = rules
        self._tokens = tokens
        self._origins = origins
        self._authenticate = authenticate
        self._require_login = require_login
        self.door = Door(hands)
        self._coming, self._reading = Asked(), Asked()
        self._warned = False

    # Who it is.

    async def identify(self, token: str | None, request: HTTPConnection | None) -> Identity | None:
        """
        Return who this is; None: nobody, and login is required.

        Raises `Unauthorized` if a token is not good, whoever else would have been let in, `Unavailable` if the
        application does not say in time, and `ValueError` if it says that it is somebody who cannot be.
        """
        identity: User | Identity | None = None
        if self._authenticate is not None:
            identity = await self.ask(self._authenticate, token, request)
            if identity is None and token is not None:
                identity = self._tokens.read(token)  # a guest's, or one that `hub.token` has signed
        elif token is not None:
            identity = self._tokens.read(token)
        if isinstance(identity, User):
            identity = Identity(identity)
        if identity is not None:
            check_user(identity.user)
        if self._require_login and (identity is None or identity.is_guest):
            return None
        return new_guest() if identity is None else identity

    async def ask(self, hook: Callable[P, Awaitable[T] | T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Return what the application decides.

        Raises `Unavailable` if it takes longer than `auth_seconds`, or says so itself: to each a time of their own, for
        it says the same to all who ask.
        """
        limit = asyncio.timeout(self._hands.limits.auth_seconds)
        try:
            answer = hook(*args, **kwargs)
            if not isinstance(answer, Awaitable):
                return answer
            async with limit:
                return await answer
        except TimeoutError:
            if not limit.expired():
                raise  # it is the application's own
            why, after = "it took too long to find out who you are, or what you may", FULL_SECONDS
        except Unavailable as away:
            why, after = away.message, away.after
        raise Unavailable(why, after=after + random.uniform(0, FULL_SPREAD))

    async def identify_request(self, request: HTTPConnection, *, comes_in: bool = False) -> Identity:
        """
        Return who makes a request; raises `Unauthorized`, `Forbidden`, or `Unavailable` while nobody is served.

        Who comes in to listen may be one of too many, as on a WebSocket; who asks for something, or goes on, is not.
        """
        self.check_origin(request)
        if not self._hands.departure.is_final:  # else the last are still answered
            refusal = self.door.refusal(self._why_no_more_read()) if comes_in else self.door.closed()
            if refusal is not None:
                raise Unavailable(f"{refusal.reason}; come back later", after=drawn(refusal))
        with self.keep_place(comes_in):
            identity = await self.identify(find_token(request), request)
        if identity is None:
            raise Unauthorized("Unauthorized: sign in first")
        return identity

    def keep_place(self, comes_in: bool) -> AbstractContextManager[None]:
        """Keep a place for somebody who comes in to listen, while the application is asked about them."""
        return self._reading.one() if comes_in else nullcontext()

    def check_origin(self, request: HTTPConnection) -> None:
        """Raise `Forbidden` for a request from a page of somebody else."""
        if not self._origins.allow(request):
            origin = request.headers.get("origin", "other sites")[:200]
            raise Forbidden(f"pages from {origin} may not use this server unless it is told so (origins, --origin)")

    def admit(self, connection: Connection, identity: Identity, session: str | None, link: int | None = None) -> None:
        """Tell the mind who a connection is, and which session it brings; it answers `connected`."""
        now = self._hands.now()
        expires = None if identity.expires is None else now + identity.expires - time.time()
        token = self._guest_token(identity)
        user = identity.user
        self._hands.tell(inputs.Identified(connection, new_session(), user, token, expires, session, link))
        known = self._hands.mind.session(connection)
        if known is not None and known.user == identity.user:  # else it stays who it was
            connection.identity = identity

    def introduce(self, identity: Identity) -> Connected:
        """Return what a client without a WebSocket has to know; raises `Unavailable` while nobody is taken in."""
        if self._hands.departure.reason is not None:
            raise Unavailable(f"{self._hands.departure.reason}; come back in a moment")
        rules, token = self._rules, self._guest_token(identity)
        return Connected(
            user=identity.user,
            heartbeat=HeartbeatTerms(self._hands.limits.stream_heartbeat, rules.heartbeat.timeout),
            limits=rules.terms,
            room_key=rules.room_key,
            token=UNSET if token is None else token,
        )

    def _guest_token(self, identity: Identity) -> str | None:
        """Return what lets a guest stay the same one."""
        return self._tokens.sign(identity.user, None, is_guest=True) if identity.is_guest else None

    # The upgrade.

    async def websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI endpoint of the WebSocket."""
        request = HTTPConnection(scope)
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
        take_over = scope.get("extensions", {}).get(EXTENSION)
        refusal = self._refusal()  # once: it counts who comes
        is_accepted = False

        async def meet() -> Answer:
            nonlocal is_accepted
            answer = refusal or await self._identify_upgrade(request)
            if not isinstance(answer, Unauthorized):  # of which a page is told, whoever made it
                self.check_origin(request)
            if take_over is None and not is_accepted:
                is_accepted = True
                await receive()  # websocket.connect
                await send({"type": "websocket.accept", "subprotocol": subprotocol})
            return answer

        try:
            answer = await self._hands.expulsions.outlast(_user_id, meet)
        except Forbidden as forbidden:
            await _deny(scope, receive, send, forbidden)
            return
        # Since it was asked it may have come to that:
        if refusal is None and (self._hands.departure.reason is not None or not self._has_places()):
            answer = self._refusal()
        if take_over is None:
            self._warn()
            carried = AsgiConnection(self._hands, receive, send, knows_us=subprotocol is not None)
            self._enter(carried, answer)
            await carried.run()
        else:
            connection = take_over(
                lambda transport: NativeConnection(self._hands, transport, knows_us=subprotocol is not None),
                subprotocol,
                (),
            )
            if connection is not None:
                self._enter(connection, answer)

    def _refusal(self) -> Goodbye | None:
        return self.door.refusal(None if self._has_places() else "the server is full")

    def _why_no_more_read(self) -> str | None:
        is_full = len(self._hands.streams) + self._reading.count >= self._hands.limits.streams
        return "too many streams and polls are open" if is_full else None

    def _has_places(self) -> bool:
        return len(self._hands.connections) + self._coming.count < self._hands.limits.connections

    async def _identify_upgrade(self, request: HTTPConnection) -> Answer:
        try:
            with self._coming.one():
                return await self.identify(find_token(request), request)
        except Unauthorized as problem:
            return problem
        except Unavailable as problem:
            return Goodbye(problem.message, round(1000 * problem.after), 0)

    def _enter(self, connection: Connection, answer: Answer) -> None:
        """Let somebody in, who may have said who they are, or tell them why not."""
        try:
            if isinstance(answer, Goodbye):
                connection.say(answer)
                connection.close(CloseCode.TRY_LATER, answer.reason)
                return
            self._hands.opened(connection)
            if isinstance(answer, Unauthorized):
                self.turn_away(connection, answer)
            elif answer is not None:
                self.admit(connection, answer, None)
        except BaseException:
            connection.abort()  # it was handed over, and would be nobody's
            raise

    def not_recognised(self, connection: Connection, error: Exception, said: Problem) -> None:
        """Say why it was not found out who they are, and when to come back, if they may; and close."""
        if isinstance(error, Unavailable):
            self._hands.departure.say_goodbye(connection, error.message, error.after, 0)
            code = CloseCode.TRY_LATER
        else:
            connection.say(Error(said.error, said.code))
            code = CloseCode.FORBIDDEN if isinstance(error, Forbidden) else CloseCode.INTERNAL_ERROR
        self._hands.end(connection, code, said.error)

    def turn_away(self, connection: Connection, problem: Unauthorized) -> None:
        """Say that nobody is known by these credentials, and close with 4001."""
        connection.say(Error(problem.message, problem.code))
        self._hands.end(connection, CloseCode.UNAUTHORIZED, "unauthorized")

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "this server does not hand its connections over, so when a silent peer is dropped, and that a slow "
                "one is not, rests with it; `holdfast serve` and `uvicorn --ws holdfast.server.websocket:"
                "WebSocketProtocol` do"
            )


def _user_id(answer: Answer) -> str | None:
    return answer.user.user_id if isinstance(answer, Identity) else None


async def _deny(scope: Scope, receive: Receive, send: Send, refusal: Forbidden) -> None:
    """Refuse an upgrade before it happens."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await JSONResponse({"error": refusal.message}, refusal.status)(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": CloseCode.FORBIDDEN})
