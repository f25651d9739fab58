"""
Those who are on a server while something breaks: what were they told, when did they notice, when were they back?
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import holdfast
from holdfast.core.link import PROBE_SECONDS, State
from holdfast.testing import History

INTERVAL, TIMEOUT, SLACK = 1.0, 1.0, 0.5
#: For so long somebody is shown whose link broke.
GRACE = 2.0


def bound(interval: float = INTERVAL, timeout: float = TIMEOUT) -> float:
    """Within this a server has ended a dead peer. Seconds."""
    return interval + timeout + SLACK


def client_bound(interval: float = INTERVAL, timeout: float = TIMEOUT) -> float:
    """Within this a client knows that its link is dead. Seconds."""
    return interval + timeout + PROBE_SECONDS + SLACK


BOUND, CLIENT_BOUND = bound(), client_bound()
#: From when a network works again until everybody is back and has everything: an attempt that is under way (a SYN that
#: was lost is sent again after 1, 2, 4 … s, a greeting is waited for 10 s), and two delays of at most 8 s.
PATIENCE = 30.0

#: What stands between, so that a client goes by this road; and what it asks for then.
ROADS: dict[str, tuple[dict[str, Any], str]] = {
    "websocket": ({"websocket": "passes"}, "/ws"),
    "event stream": ({"websocket": "refused"}, "/events?"),
    "long poll": ({"websocket": "refused", "streams": "held back"}, "/poll?"),
    "short poll": ({"websocket": "refused", "streams": "held back", "patience": 0.5}, "wait=0"),
}

#: What is served. It says what only it can know, among it how long it did not get the processor when it wanted it.
APP = """
import asyncio
import os
import pathlib
import time

from holdfast import Hub, web
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

interval, timeout = float(os.environ.get("INTERVAL", 1)), float(os.environ.get("TIMEOUT", 1))
hub = Hub("real.db", heartbeat_interval=interval, heartbeat_timeout=timeout, presence_grace=2.0)
stood_still = 0.0

@hub.on("say")
async def say(request):
    publication = await hub.publish(request.room, "said", {"text": request.data["text"]})
    return {"id": publication.id}

async def publish(request):
    room, texts = request.query_params["room"], (await request.body()).decode().splitlines()
    return JSONResponse([(await hub.publish(room, "said", {"text": text})).id for text in texts])

async def short(request):
    return JSONResponse(await hub.poll(request, request.query_params["room"], hold=False))

async def measure():
    global stood_still
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.02)
        stood_still += max(0.0, time.monotonic() - before - 0.05)

async def state(request):
    return JSONResponse({
        "connections": hub.connection_count(),
        "tasks": len(asyncio.all_tasks()),
        "sockets": sum(path.is_socket() for path in pathlib.Path("/proc/self/fd").iterdir()),
        "stood_still": stood_still,
        "metrics": hub.metrics(),
    })

async def alone(request):
    while hub.connection_count() > int(request.query_params["with"]):
        await asyncio.sleep(0.01)
    return JSONResponse({"at": time.monotonic()})

async def begin():
    global measuring
    measuring = asyncio.create_task(measure())

class Lifespan:
    def __init__(self, app):
        self._within = hub.lifespan(app)
    async def __aenter__(self):
        await begin()
        return await self._within.__aenter__()
    async def __aexit__(self, *error):
        measuring.cancel()
        return await self._within.__aexit__(*error)

routes = [
    Route("/publish", publish, methods=["POST"]), Route("/short", short), Route("/state", state),
    Route("/alone", alone), Mount("/", hub.app),
]
app = Starlette(routes=routes, lifespan=Lifespan, exception_handlers=web.REFUSALS)
"""


def app_in(folder: Path) -> tuple[Path, str, str]:
    """Put the app into a folder; return what a `Server` of it is made of."""
    (folder / "real_app.py").write_text(APP)
    return folder, "serve", "real_app:app"


class Follower:
    """A client of ours in one room: what it was told, and how its link was."""

    def __init__(self, url: str, room: str, name: str) -> None:
        self.history = History(room, name)
        self.changes: list[tuple[float, State]] = []  # when it was in which state
        self.given: dict[str, str] = {}  # texts, and the ids that they were answered with
        self._url = url

    async def run(self) -> None:
        async with holdfast.connect(self._url) as self.client:
            watching = asyncio.create_task(self._watch())
            try:
                async with self.client.join(self.history.room) as self.room:
                    async for item in self.room:
                        self.history.told(item)
            finally:
                watching.cancel()

    async def _watch(self) -> None:
        async for status in self.client.statuses():
            self.changes.append((time.monotonic(), status.state))

    async def say(self, text: str) -> None:
        """Have it published, once, however long that takes."""
        self.given[text] = (await self.room.command("say", text=text))["id"]

    @property
    def texts(self) -> list[str]:
        return [data["text"] for data in self.history.data]

    @property
    def ids(self) -> list[str]:
        return [str(position) for position, _ in self.history.events]

    @property
    def is_live(self) -> bool:
        return self.client.status.state is State.LIVE

    def lost_at(self, since: float) -> float | None:
        """When it gave its link up."""
        left = (when for when, state in self.changes if when >= since and state not in (State.LIVE, State.PROBING))
        return next(left, None)


@asynccontextmanager
async def following(url: str, number: int, room: str = "lobby") -> AsyncIterator[list[Follower]]:
    """Have so many followers, who have all begun."""
    followers = [Follower(f"{url}/ws", room, f"follower {place}") for place in range(number)]
    tasks = [asyncio.create_task(follower.run()) for follower in followers]
    try:
        await until(lambda: all(follower.history.position for follower in followers), 30)
        yield followers
    finally:
        for task in tasks:
            task.cancel()
        for told in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(told, Exception):
                raise told


async def until(is_so: Callable[[], Any], seconds: float) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.02)


def all_have(followers: list[Follower], texts: list[str]) -> Callable[[], bool]:
    return lambda: all(len(follower.texts) >= len(texts) for follower in followers)


async def everybody_has(followers: list[Follower], texts: list[str], seconds: float = PATIENCE) -> None:
    """See that they have all been told all of it, in order, once, and never to start afresh."""
    with suppress(TimeoutError):
        await until(all_have(followers, texts), seconds)
    for follower in followers:
        assert follower.texts == texts, follower.history.who
        assert [reason for reason, _, _ in follower.history.breaks] == ["new"], follower.history.who


def memory(pid: int) -> float:
    """Return what a process has for itself, in MiB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon")) / 1024
