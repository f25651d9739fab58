"""
How does an event stream (SSE) carry a room?

As what follows a position, for ever: the `id:` of every event is the cursor with which a
stream, a poll or a join can go on from there, so a native EventSource resumes by itself.
A gap is told in the stream; a page cannot read headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse

from holdfast.errors import Malformed
from holdfast.protocol.cursor import decode_cursor
from holdfast.server.follow import Event, Follow, Gap
from holdfast.server.opened import OpenHub

#: What an EventSource waits before it dials again, in seconds.
RETRY = 2.0
MEDIA_TYPE = "text/event-stream"

HEADERS = {
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx would hold events back
}


async def respond(opened: OpenHub, request: HTTPConnection, rooms: tuple[str, ...], *, multiplexed: bool) -> Response:
    """Return the stream of `rooms`, from `Last-Event-ID` (or `?cursor=`) on."""
    if not 0 < len(rooms) <= opened.limits.stream_rooms:
        raise Malformed(f"a stream carries 1 to {opened.limits.stream_rooms} rooms")
    identity = await opened.gate.identify_request(request)
    for room in rooms:
        await opened.check(identity.user, room, "read")
    text = request.headers.get("last-event-id") or request.query_params.get("cursor")
    cursor = decode_cursor(text) if text else None
    hands = opened.hands
    if hands.draining.is_set() or len(hands.streams) >= opened.limits.streams:
        # Any status but 200 would end a native EventSource for ever.
        return StreamingResponse(iter((_retry(hands.spread() + 5),)), headers=HEADERS, media_type=MEDIA_TYPE)
    follow = opened.follow(tuple(dict.fromkeys(rooms)), cursor, "sse", multiplexed=multiplexed)
    return StreamingResponse(_stream(opened, follow), headers=HEADERS, media_type=MEDIA_TYPE)


async def _stream(opened: OpenHub, follow: Follow) -> AsyncIterator[str]:
    yield _retry(RETRY)
    yield 'data: {"type":"connected"}\n\n'
    draining = asyncio.ensure_future(opened.hands.draining.wait())
    try:
        async with follow:
            yield f"id: {follow.cursor}\n\n"  # an id alone: from here on a reconnect resumes, even if nothing happens
            while not draining.done():
                news = asyncio.ensure_future(follow.next())
                try:
                    await asyncio.wait(
                        (news, draining), timeout=opened.limits.stream_heartbeat, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    if not news.done():
                        news.cancel()
                if news.done() and not news.cancelled():
                    yield "".join(_event(opened, item) for item in news.result())
                elif not draining.done():
                    yield ": heartbeat\n\n"
    finally:
        draining.cancel()
    yield _retry(opened.hands.spread())
    yield "event: goodbye\ndata: {}\n\n"


def _retry(seconds: float) -> str:
    """Return the field that tells an EventSource how long to wait before it dials again."""
    return f"retry: {round(1000 * seconds)}\n\n"


def _event(opened: OpenHub, item: Event | Gap) -> str:
    if isinstance(item, Event):
        return f"id: {item.cursor}\nevent: {item.frame.type}\ndata: {item.frame.text.decode()}\n\n"
    data = {"type": "resync", opened.codec.room_key: item.room, "reason": item.reason, "cursor": item.cursor}
    return f"id: {item.cursor}\nevent: resync\ndata: {msgspec.json.encode(data).decode()}\n\n"
