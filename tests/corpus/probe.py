"""
The application that is attacked: a Hub with its defaults, and what tells how the process fares.

The longest time that the loop was blocked is measured by the CPU that its thread used in one turn, not by the clock:
on a machine that others share, a thread that is not run for a while has blocked nobody.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from holdfast import Hub, User
from holdfast.web import Json

hub = Hub("memory:", server_key="the key of the corpus", require_login="HOLDFAST_CORPUS_LOGIN" in os.environ)
longest = 0.0  # seconds of CPU in one turn of the loop


@hub.authenticate
def who(token: str | None, request: Any) -> User | None:
    """Whoever says so is whoever they say they are."""
    return User(token[5:], token[5:]) if token is not None and token.startswith("user:") else None


@hub.on("say")
async def say(request: Any) -> Any:
    """Publish what somebody says, under whatever name they give it."""
    return (await hub.publish(request.room or "lobby", request.data.pop("as", "said"), request.data)).id


@hub.on("echo")
async def echo_command(request: Any) -> Any:
    """Say it back, to whoever asks, after a while."""
    await asyncio.sleep(0.001)
    return {"user": request.user.user_id, **request.data}


def _watch_turns() -> None:
    """Measure every turn of asyncio's loop."""
    turn = asyncio.BaseEventLoop._run_once  # type: ignore[attr-defined]

    def watched(loop: Any) -> None:
        global longest
        began = time.thread_time()
        turn(loop)
        longest = max(longest, time.thread_time() - began)

    asyncio.BaseEventLoop._run_once = watched  # type: ignore[attr-defined]


_watch_turns()


def _watch_uvloop(loop: asyncio.AbstractEventLoop) -> None:
    """Measure, where there are no turns to be seen, what was used between two rings of a timer."""
    last = time.thread_time()

    def ring() -> None:
        nonlocal last
        global longest
        now = time.thread_time()
        longest = max(longest, now - last)
        last = now
        loop.call_later(0.001, ring)

    ring()


async def probe(request: Request) -> Json:
    """Return how the process fares; the longest turn is that since it was last asked."""
    global longest
    loop: Any = asyncio.get_running_loop()
    hands = hub.opened.hands
    found = {
        "tasks": len(asyncio.all_tasks()),
        "fds": len(os.listdir("/proc/self/fd")),
        "timers": Counter(_name(timer) for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()),
        "connections": len(hands.connections),
        "listeners": len(hands.streams),
        "rooms": len(list(hands.mind.rooms())),
        "users": sum(len(list(room.attendance.roster.users())) for room in hands.mind.rooms()),
        "sockets": sum(1 for fd in os.listdir("/proc/self/fd") if _is_socket(fd)),
        "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "longest": longest,
    }
    longest = 0.0
    return Json(found)


def _name(timer: Any) -> str:
    call = timer._callback
    return str(getattr(call, "__qualname__", call))


def _is_socket(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:  # that of the listing itself
        return False


async def echo(socket: WebSocket) -> None:
    """A WebSocket of the application's own, beside the hub."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        _watch_uvloop(loop)
    async with hub:
        yield


app = Starlette(
    routes=[Route("/probe", probe), WebSocketRoute("/echo", echo), Mount("/", hub.app)],
    lifespan=lifespan,
)
