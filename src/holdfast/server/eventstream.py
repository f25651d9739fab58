"""
How does an event stream (SSE) carry a room?

As what follows a position, for ever: the `id:` of every event is the cursor with which a
stream, a poll or a join can go on from there, so a native EventSource resumes by itself.
A gap is told in the stream; a page cannot read headers.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from holdfast.errors import Unavailable
from holdfast.protocol.messages import Goodbye
from holdfast.server.departure import RESTART_SECONDS
from holdfast.server.door import drawn
from holdfast.server.follow import Event, Follow, Gap
from holdfast.server.opened import OpenHub
from holdfast.web import refusal_of

#: What an EventSource waits before it dials again, in seconds.
RETRY = 2.0
MEDIA_TYPE = "text/event-stream"

HEADERS = {
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx would hold events back
}


async def respond(opened: OpenHub, request: HTTPConnection, rooms: tuple[str, ...], *, multiplexed: bool) -> Response:
    """Return the stream of `rooms`, from `Last-Event-ID` (or `?cursor=`) on."""
    hands = opened.hands
    try:
        identity, cursor = await opened.admit_reader(request, rooms, multiplexed=multiplexed)
    except Unavailable as full:
        return _come_back(full.after, refusal_of(request))
    follow = opened.follow(identity, rooms, cursor, "sse", multiplexed=multiplexed)
    if len(hands.streams) >= opened.limits.streams:
        return _come_back(drawn(opened.gate.door.full("too many streams and polls are open")))
    if hands.departure.reason is not None or request.scope["method"] == "HEAD":
        return _come_back(RESTART_SECONDS + random.uniform(0, hands.departure.spread()))
    return EventStream(opened, follow)


def _come_back(seconds: float, refusal: bytes | None = None) -> Response:
    """Return a stream of nothing but why it is none: any status but 200 would end a native EventSource for ever."""
    said = "" if refusal is None else f"data: {refusal.decode()}\n\n"
    return Response(_retry(seconds) + said, headers=HEADERS, media_type=MEDIA_TYPE)


class EventStream(StreamingResponse):
    """The stream of one reader, who stands where it begins before anything is sent, and is let go of in every case."""

    def __init__(self, opened: OpenHub, follow: Follow) -> None:
        super().__init__(_stream(opened, follow), headers=HEADERS, media_type=MEDIA_TYPE)
        self._follow = follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        async with self._follow:
            await super().__call__(scope, receive, send)


async def _stream(opened: OpenHub, follow: Follow) -> AsyncIterator[str]:
    await opened.hands.attention.when_left()  # all who come at once are there by now
    yield _retry(RETRY) + 'data: {"type":"connected"}\n\n'
    if not follow.has_gaps:
        yield f"id: {follow.cursor}\n\n"  # an id alone: from here on a reconnect resumes, even if nothing happens
    while follow.ended is None:
        items = await follow.next(opened.limits.stream_heartbeat)
        if items:
            yield "".join(_event(opened, item, is_last=item is items[-1]) for item in items)
        elif follow.ended is None:
            yield ": heartbeat\n\n"
    spread = opened.hands.departure.spread()
    back = RESTART_SECONDS + random.uniform(0, spread)  # drawn here: an EventSource draws nothing
    goodbye = opened.codec.encode(Goodbye(follow.ended, round(1000 * back), 0)).text.decode()
    yield _retry(back) + f"event: goodbye\ndata: {goodbye}\n\n"


def _retry(seconds: float) -> str:
    """Return the field that tells an EventSource how long to wait before it dials again."""
    return f"retry: {round(1000 * seconds)}\n\n"


def _event(opened: OpenHub, item: Event | Gap, *, is_last: bool) -> str:
    if isinstance(item, Event):
        return f"id: {item.cursor}\nevent: {item.frame.type}\ndata: {item.frame.text.decode()}\n\n"
    # Whoever is cut off between two gaps must hear of the second: only the last one moves them on.
    id = f"id: {item.cursor}\n" if is_last else ""
    return f"{id}event: resync\ndata: {opened.codec.encode(item.resync()).text.decode()}\n\n"
