"""
How is a room polled, short and long?

A poll says where it stands and is told what follows; a held one (long poll) waits until
something does. The cursor is the client's, so an answer that is lost is simply asked for
again. A gap is told at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request

from holdfast.errors import TooMany
from holdfast.protocol.cursor import decode_cursor
from holdfast.server.follow import Event, Follow, Gap
from holdfast.server.opened import OpenHub


async def answer(opened: OpenHub, request: Request, room: str, *, hold: bool) -> dict[str, Any]:
    """Return `{data, cursor}`, with `timeout` if nothing came and `resync` if there is a gap."""
    identity = await opened.gate.identify_request(request)
    await opened.check(identity.user, room, "read")
    text = request.query_params.get("cursor")
    cursor = decode_cursor(text) if text else None
    if len(opened.hands.streams) >= opened.limits.streams:
        raise TooMany("too many streams and polls are open")
    async with opened.follow(identity, (room,), cursor, "poll", multiplexed=False) as follow:
        found = await (_held(request, follow, opened.limits.poll_seconds) if hold else follow.take())
        if found and isinstance(found[0], Gap):
            return {"data": [], "resync": {"reason": found[0].reason}, "cursor": follow.cursor}
        data = [msgspec.json.decode(item.frame.text) for item in found if isinstance(item, Event)]
        if not data and hold:
            return {"data": [], "cursor": follow.cursor, "timeout": True}
        return {"data": data, "cursor": follow.cursor}


async def _held(request: Request, follow: Follow, seconds: float) -> list[Event | Gap]:
    """Wait for something, unless the client goes first."""
    news = asyncio.ensure_future(follow.next(seconds))
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((news, gone), return_when=asyncio.FIRST_COMPLETED)
        return news.result() if news.done() else []
    finally:
        news.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
