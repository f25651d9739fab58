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

from holdfast.errors import Malformed, Unavailable
from holdfast.server.door import drawn
from holdfast.server.follow import Event, Follow, Gap
from holdfast.server.opened import OpenHub


async def answer(opened: OpenHub, request: Request, room: str, *, hold: bool) -> dict[str, Any]:
    """Return `{data, cursor}` of a room, with `timeout` if nothing came and `resync` if there is a gap."""
    seconds = _wait(opened, request) if hold else 0.0
    found, cursor = await _poll(opened, request, (room,), seconds, multiplexed=False)
    if found and isinstance(found[0], Gap):
        return {"data": [], "resync": {"reason": found[0].reason}, "cursor": cursor}
    data = [_message(opened, item) for item in found]
    if not data and hold:
        return {"data": [], "cursor": cursor, "timeout": True}
    return {"data": data, "cursor": cursor}


async def answer_several(opened: OpenHub, request: Request, rooms: tuple[str, ...]) -> dict[str, Any]:
    """Return `{data, cursor}` of several rooms; a gap is a `resync` among the data."""
    found, cursor = await _poll(opened, request, rooms, _wait(opened, request), multiplexed=True)
    return {"data": [_message(opened, item) for item in found], "cursor": cursor}


def _wait(opened: OpenHub, request: Request) -> float:
    """Return for how many seconds a poll is to be held (`?wait=`)."""
    limit = opened.limits.poll_seconds
    text = request.query_params.get("wait", str(limit))
    try:
        wait = float(text)
    except ValueError:
        wait = -1.0
    if not 0 <= wait <= limit:
        raise Malformed(f"wait must be a number of seconds from 0 to {limit:g}", field="wait")
    return wait


async def _poll(
    opened: OpenHub, request: Request, rooms: tuple[str, ...], seconds: float, *, multiplexed: bool
) -> tuple[list[Event | Gap], str]:
    """Return what there is, if need be after so many seconds, and the cursor behind it."""
    # Whoever waits for more from where they stand is here: all of a room ask anew whenever something is published.
    goes_on = bool(seconds) and "cursor" in request.query_params
    identity, cursor = await opened.admit_reader(request, rooms, multiplexed=multiplexed, comes_in=not goes_on)
    if len(opened.hands.streams) >= opened.limits.streams:
        full = opened.gate.door.full("too many streams and polls are open")
        raise Unavailable(f"{full.reason}; come back later", after=drawn(full))
    async with opened.follow(identity, rooms, cursor, "poll", multiplexed=multiplexed) as follow:
        return await (_held(request, follow, seconds) if seconds else follow.take()), follow.cursor


def _message(opened: OpenHub, item: Event | Gap) -> Any:
    text = item.frame.text if isinstance(item, Event) else opened.codec.encode(item.resync()).text
    return msgspec.json.decode(text)


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
