"""
The application that is attacked: a Hub with its defaults, and what tells how the process fares.

The longest time that the loop was blocked is measured by the CPU that its thread used in one turn, not by the clock:
on a machine that others share, a thread that is not run for a while has blocked nobody.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from held import descriptors, memory, threads, timers
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from holdfast import Hub, User
from holdfast.web import Json

logging.basicConfig(format="%(levelname)s: %(message)s")  # else nobody could tell a failure of ours from a word
hub = Hub(
    "memory:",
    server_key="the key of the corpus",
    require_login="HOLDFAST_CORPUS_LOGIN" in os.environ,
    origins=os.environ.get("HOLDFAST_CORPUS_ORIGINS", "").split(),
)
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
    """Return how the process fares; the longest turn, and the most memory, are those since it was last asked."""
    global longest
    hands = hub.opened.hands
    found = {
        "tasks": len(asyncio.all_tasks()),
        "timers": Counter(timers()),
        "connections": len(hands.connections),
        "listeners": len(hands.streams),
        "rooms": len(list(hands.mind.rooms())),
        "users": sum(len(list(room.attendance.roster.users())) for room in hands.mind.rooms()),
        **descriptors(),
        "threads": threads(),
        "longest": longest,
        **memory(),
    }
    longest = 0.0
    return Json(found)


planted: list[Any] = []


class Thread(threading.Thread):
    """One that waits."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        self._ended.wait(60)

    def end(self) -> None:
        self._ended.set()
        self.join()


async def plant(request: Request) -> Json:
    """Do what no input may bring about: that it would be seen, is tested too (`test_probe.py`)."""
    loop = asyncio.get_running_loop()
    match request.query_params["what"]:
        case "a long turn":
            until = time.thread_time() + 0.1
            while time.thread_time() < until:
                pass
        case "a task":
            planted.append(asyncio.create_task(asyncio.sleep(60), name="planted"))
        case "a timer":
            planted.append(loop.call_later(60, print))
        case "a socket":
            planted.append(socket.socket())
        case "a file":
            planted.append(open(os.devnull))  # noqa: SIM115
        case "a thread":
            planted.append(Thread())
        case "memory":
            planted.append(b"x" * (16 << 20))
        case "a failure":
            raise RuntimeError("planted")
        case "an error in the log":
            logging.getLogger("holdfast").error("planted")
        case "nothing":
            while planted:
                match planted.pop():
                    case asyncio.Task() | asyncio.Handle() as held:
                        held.cancel()
                    case socket.socket() | io.IOBase() as held:
                        held.close()
                    case Thread() as held:
                        held.end()
                    case held if hasattr(held, "cancel"):
                        held.cancel()
    return Json({})


async def echo(link: WebSocket) -> None:
    """A WebSocket of the application's own, beside the hub."""
    await link.accept()
    async for text in link.iter_text():
        await link.send_text(text)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        _watch_uvloop(loop)
    async with hub:
        yield


app = Starlette(
    routes=[Route("/probe", probe), Route("/plant", plant), WebSocketRoute("/echo", echo), Mount("/", hub.app)],
    lifespan=lifespan,
)
