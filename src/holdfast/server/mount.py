"""
Which paths does `hub.app` have?

All roads, at their usual names, for `app.mount("/live", hub.app)`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from holdfast.errors import Invalid, Malformed, Unauthorized
from holdfast.protocol.messages import Message
from holdfast.server import eventstream, polling
from holdfast.server.conversation import Request
from holdfast.server.opened import OpenHub
from holdfast.server.publication import Publication
from holdfast.web import REFUSALS, Json, decode_body, read_body

Publish = Callable[[str, str, Any], Awaitable[Publication]]


def mountable(opened: Callable[[], OpenHub], websocket: ASGIApp, publish: Publish) -> Starlette:
    """Return the ASGI app with all roads of a Hub."""

    async def events(request: HttpRequest) -> Response:
        many = request.query_params.get("rooms")
        rooms = (many or _room(request)).split(",")
        return await eventstream.respond(opened(), request, tuple(rooms), multiplexed=many is not None)

    async def poll(request: HttpRequest) -> Response:
        return Json(await polling.answer(opened(), request, _room(request), hold=True))

    async def snapshot(request: HttpRequest) -> Response:
        hub, room = opened(), _room(request)
        identity = await hub.gate.identify_request(request)
        await hub.check(identity.user, room, "read")
        data, cursor = await hub.snapshot(room)
        return Json({"data": data, "cursor": cursor})

    async def send(request: HttpRequest) -> Response:
        hub = opened()
        identity = await hub.gate.identify_request(request)
        message = hub.codec.decode(await read_body(request, hub.limits.message_bytes, hub.limits.request_seconds))
        if not isinstance(message, Message):
            raise Invalid("here only messages of the application can be sent", field="type")
        if message.room is not None:
            await hub.check(identity.user, message.room, "send")
        asked = Request(message.type, message.room, message.data, identity.user, None, message.key)
        # Whoever sends no token is a new guest each time, but it is the same client that tries again.
        result = await hub.conversation.handle(asked, "" if identity.is_new else None)
        return Json({"data": result})

    async def publish_here(request: HttpRequest) -> Response:
        hub = opened()
        key = hub.settings.server_key
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key is None or not hmac.compare_digest(given.encode(), key.encode()):
            raise Unauthorized("Unauthorized: publishing needs the server key as a Bearer token")
        fields = decode_body(await read_body(request, hub.limits.body_bytes, hub.limits.request_seconds))
        match fields:
            case {"room": str(room), "type": str(type), "data": dict(data)}:
                publication = await publish(room, type, data)
            case _:
                raise Invalid("room and type must be strings, and data an object")
        return Json({"data": {"id": publication.id}}, 201)

    async def client(request: HttpRequest) -> Response:
        return Response(CLIENT, media_type="text/javascript", headers={"cache-control": "no-cache"})

    return Starlette(
        routes=[
            WebSocketRoute("/ws", websocket),
            Route("/events", events),
            Route("/poll", poll),
            Route("/snapshot", snapshot),
            Route("/send", send, methods=["POST"]),
            Route("/publish", publish_here, methods=["POST"]),
            Route("/holdfast.js", client),
        ],
        exception_handlers=REFUSALS,
    )


def _without_comments(source: str) -> str:
    """Return a module of ours as it travels: whoever wants to read it has the source."""
    return re.sub(r"/\*\*.*?\*/[ \n]*|(?m:^ *//[^\n]*\n)|(?m: +// [^\n]*$)", "", source, flags=re.DOTALL)


#: The module for browsers.
CLIENT = (
    "/* holdfast, MIT licence */\n" + _without_comments(files("holdfast.browser").joinpath("holdfast.js").read_text())
).encode()


def _room(request: HttpRequest) -> str:
    room = request.query_params.get("room")
    if not room:
        raise Malformed("?room= is missing", field="room")
    return room
