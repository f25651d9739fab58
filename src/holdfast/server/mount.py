"""
Which paths does `hub.app` have?

All roads, at their usual names, for `app.mount("/live", hub.app)`.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from holdfast.errors import Invalid, Malformed, OutcomeUnknown, Refused, TooMany, Unauthorized
from holdfast.protocol.codec import problem
from holdfast.protocol.messages import Auth, Message, Ping, Pong, Problem, Reply
from holdfast.server import eventstream, polling
from holdfast.server.auth import Identity, find_bearer
from holdfast.server.conversation import Request
from holdfast.server.opened import OpenHub
from holdfast.server.publication import Publication
from holdfast.web import REFUSALS, Json, decode_body, read_body

logger = logging.getLogger("holdfast.server")

Publish = Callable[[str, str, Any], Awaitable[Publication]]


def mountable(opened: Callable[[], OpenHub], websocket: ASGIApp, publish: Publish) -> Starlette:
    """Return the ASGI app with all roads of a Hub."""

    async def events(request: HttpRequest) -> Response:
        rooms, multiplexed = _rooms(request)
        return await eventstream.respond(opened(), request, rooms, multiplexed=multiplexed)

    async def poll(request: HttpRequest) -> Response:
        rooms, multiplexed = _rooms(request)
        if multiplexed:
            return Json(await polling.answer_several(opened(), request, rooms))
        return Json(await polling.answer(opened(), request, rooms[0], hold=True))

    async def snapshot(request: HttpRequest) -> Response:
        hub, room = opened(), _room(request)
        identity = await hub.gate.identify_request(request)
        await hub.check(identity.user, room, "read")
        data, cursor = await hub.snapshot(room)
        return Json({"data": data, "cursor": cursor})

    async def send(request: HttpRequest) -> Response:
        hub = opened()
        hub.gate.check_origin(request)
        message = hub.codec.decode(await read_body(request, hub.limits.message_bytes, hub.limits.request_seconds))
        identity = await hub.gate.identify_request(request)
        match message:
            case Auth():
                return Json(hub.gate.introduce(identity))
            case Ping():
                return Json(Pong())
            case Message():
                if not hub.sent.take("" if identity.is_new else identity.user.user_id, hub.hands.now()):
                    raise TooMany(f"more than {hub.limits.messages_per_second:g} messages a second")
                return await _handled(hub, identity, message)
            case _:
                raise Invalid("a room is entered by reading it: GET …/events, GET …/poll", field="type")

    async def publish_here(request: HttpRequest) -> Response:
        hub = opened()
        key = hub.settings.server_key
        given = find_bearer(request) or ""
        if key is None or not hmac.compare_digest(given.encode(), key.encode()):
            raise Unauthorized("Unauthorized: publishing needs the server key as a Bearer token")
        fields = decode_body(await read_body(request, hub.limits.body_bytes, hub.limits.request_seconds))
        match fields:
            case {"room": str(room), "type": str(type), "data": dict(data)}:
                publication = await publish(room, type, data)
            case _:
                raise Invalid("room and type must be strings, and data an object")
        return Json({"data": {"id": publication.id}}, 201)

    def module(name: str) -> Route:
        async def serve(request: HttpRequest) -> Response:
            return Response(CLIENT[name], media_type="text/javascript", headers={"cache-control": "no-cache"})

        return Route(f"/{name}", serve)

    return Starlette(
        routes=[
            WebSocketRoute("/ws", websocket),
            Route("/events", events),
            Route("/poll", poll),
            Route("/snapshot", snapshot),
            Route("/send", send, methods=["POST"]),
            Route("/publish", publish_here, methods=["POST"]),
            *map(module, CLIENT),
        ],
        exception_handlers=REFUSALS,
    )


def _without_comments(source: str) -> str:
    """Return a module of ours as it travels: whoever wants to read it has the source."""
    return re.sub(r"/\*\*.*?\*/[ \n]*|(?m:^ *//[^\n]*\n)|(?m: +// [^\n]*$)", "", source, flags=re.DOTALL)


def _served(name: str) -> bytes:
    source = files("holdfast.browser").joinpath(name).read_text()
    return f"/* holdfast, MIT licence */\n{_without_comments(source)}".encode()


#: The modules for browsers: the client, and what it loads only where there is no way for a WebSocket.
CLIENT = {name: _served(name) for name in ("holdfast.js", "holdfast-http.js")}


async def _handled(hub: OpenHub, identity: Identity, message: Message) -> Response:
    """Hand a message to its handler. Whoever gave it a `ref` is answered as on a WebSocket."""
    try:
        if message.room is not None:
            await hub.check(identity.user, message.room, "send")
        asked = Request(message.type, message.room, message.data, identity.user, None, message.key)
        # Whoever sends no token is a new guest each time, but it is the same client that tries again.
        result = await hub.conversation.handle(asked, "" if identity.is_new else None)
    except Refused as refusal:
        if message.ref is None:
            raise
        return Json(Reply(message.ref, False, error=problem(refusal)), refusal.status)
    except OutcomeUnknown as error:
        if message.ref is None:
            raise
        return Json(Reply(message.ref, False, error=Problem(str(error), error.code)), 500)
    except Exception:
        if message.ref is None:
            raise
        logger.exception("a message could not be handled")
        return Json(Reply(message.ref, False, error=Problem("something went wrong on the server", "internal")), 500)
    return Json({"data": result} if message.ref is None else Reply(message.ref, True, data=result))


def _room(request: HttpRequest) -> str:
    room = request.query_params.get("room")
    if not room:
        raise Malformed("?room= is missing", field="room")
    return room


def _rooms(request: HttpRequest) -> tuple[tuple[str, ...], bool]:
    """Return which rooms a request is about, and whether its cursor is one for several."""
    several = request.query_params.get("rooms")
    if several is None:
        return (_room(request),), False
    try:  # encoded as in a cursor: a name may have commas
        names = [unquote(name, errors="strict") for name in several.split(",")]
    except UnicodeDecodeError:
        raise Malformed("?rooms= are names in UTF-8, percent-encoded", field="rooms") from None
    return tuple(dict.fromkeys(names)), True
