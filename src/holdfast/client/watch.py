"""
What does `holdfast watch` print?

One line for each thing that happens: to the link, and in the room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.client.client import Client, connect
from holdfast.client.room import Room
from holdfast.core.link import State, Status
from holdfast.core.replica import Resumed, Resync
from holdfast.core.roads import Road
from holdfast.errors import Closed

Print = Callable[[str], None]


async def watch(url: str, room: str, *, token: str | None, jitter: bool, out: Print) -> int | None:
    """Print a room's life until the client is closed for good; return the code that it was closed with."""
    out(_line("watching", f"{room} at {url}"))
    async with connect(url, token=token, jitter=jitter) as client, client.join(room) as joined:
        telling = asyncio.create_task(_tell_statuses(client, out))
        try:
            await _tell_events(joined, out)
        except Closed as closed:
            await telling
            return closed.code
        finally:
            telling.cancel()
    return None


async def _tell_statuses(client: Client, out: Print) -> None:
    async for status in client.statuses():
        for line in _status(status, client):
            out(line)


def _status(status: Status, client: Client) -> list[str]:
    """Return what a status says, if anybody would want to read it."""
    match status.state:
        case State.LIVE:
            by = " by HTTP, for want of a WebSocket" if status.road is Road.HTTP else ""
            return [_line("connected", (f"as {client.user.name}" if client.user else "") + by)]
        case State.PROBING:
            return [_line("silent", "asking the server whether it is there")]
        case State.WAITING:
            # RFC 6455 §7.1.5: 1006 stands for no close frame at all
            ended = _line("disconnected", f"({status.code}) {status.reason}".rstrip())
            jittered = f", at most {status.ceiling:g} s" if status.delay != status.ceiling else ""
            wait = f"reconnecting in {status.delay:.3g} s (attempt {status.attempt}{jittered})"
            return [ended, _line("waiting", wait)]
        case State.CLOSED if status.code is not None:
            why = "sign in again" if status.code == 4001 else status.reason
            return [_line("closed", f"({status.code}) {why}; not coming back")]
        case _:
            return []


async def _tell_events(room: Room, out: Print) -> None:
    async for item in room:
        match item:
            case Resumed(cursor):
                out(_line("resumed", f"at {cursor}, nothing missed"))
            case Resync(reason, cursor):
                out(_line("resync", f"({reason}) at {cursor}: take a snapshot"))
            case _:
                out(_line(item.type, _compact(item.data)))


def _compact(data: Any) -> str:
    text = msgspec.json.encode(data).decode()
    return text if len(text) <= 300 else text[:299] + "…"


def _line(what: str, more: str) -> str:
    return f"{time.strftime('%H:%M:%S')}  {what:<20} {more}".rstrip()
