"""
A swarm on every road, while the network and the server break in every way: every client has everything, in order, once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

import holdfast
from faults import Proxy
from holdfast import Event, Resumed, Resync
from peers import Server

APP = """
from holdfast import Hub, web
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

hub = Hub("swarm.db", heartbeat_interval=1, heartbeat_timeout=1, presence_grace=2)

@hub.on("say")
async def say(request):
    await hub.publish(request.room, "said", {"text": request.data["text"]})

async def short(request):
    return JSONResponse(await hub.poll(request, request.query_params["room"], hold=False))

routes = [Route("/short", short), Mount("/", hub.app)]
app = Starlette(routes=routes, lifespan=hub.lifespan, exception_handlers=web.REFUSALS)
"""


class Listener:
    """Somebody in one room, who notes every publication and whether it was told to start afresh."""

    road = ""

    def __init__(self, base: str, room: str) -> None:
        self.base = base
        self.room = room
        self.heard: list[tuple[str, str]] = []  # id and text
        self.since: str | None = None  # where it began
        self.afresh: list[str] = []
        self.returns = 0

    def hear(self, event: Any) -> None:
        self.heard.append((event["id"], event["text"]))

    async def run(self) -> None:
        raise NotImplementedError

    async def patiently(self, attempt: Any) -> None:
        """Try for ever: what breaks is tried again after a moment."""
        while True:
            with suppress(httpx2.HTTPError, TimeoutError, OSError, EOFError):
                await attempt()
            self.returns += 1
            await asyncio.sleep(random.uniform(0.05, 0.5))


class OverWebSocket(Listener):
    road = "websocket"

    async def run(self) -> None:
        async with holdfast.connect(f"{self.base}/ws") as self.client, self.client.join(self.room) as room:
            async for item in room:
                match item:
                    case Event(_, "said", data, str(id)):
                        self.heard.append((id, data["text"]))
                    case Resync("new", cursor):
                        self.since = cursor
                    case Resync(reason, _):
                        self.afresh.append(reason)
                    case Resumed():
                        self.returns += 1
                    case _:
                        pass


class OverStream(Listener):
    road = "sse"

    async def run(self) -> None:
        await self.patiently(self.attempt)

    async def attempt(self) -> None:
        headers = {} if self.since is None else {"last-event-id": self.heard[-1][0] if self.heard else self.since}
        timeout = httpx2.Timeout(5, read=3)  # it is silent for 15 s at most; here it gives up sooner
        async with (
            httpx2.AsyncClient(base_url=self.base, timeout=timeout, trust_env=False) as client,
            client.stream("GET", f"/events?room={self.room}", headers=headers) as response,
        ):
            response.raise_for_status()
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                    continue
                if self.since is None and "id" in fields:
                    self.since = fields["id"]
                if fields.get("event") == "said":
                    self.hear(msgspec.json.decode(fields["data"]))
                elif fields.get("event") == "resync":
                    self.afresh.append(msgspec.json.decode(fields["data"])["reason"])
                fields = {}


class OverPoll(Listener):
    path = ""

    async def run(self) -> None:
        await self.patiently(self.attempt)

    async def attempt(self) -> None:
        async with httpx2.AsyncClient(base_url=self.base, timeout=4, trust_env=False) as client:
            if self.since is None:  # a long poll without a cursor starts at the head, but says so only when it ends
                self.since = self.cursor = (await client.get(f"/short?room={self.room}")).json()["cursor"]
            while True:
                response = await client.get(f"{self.path}?room={self.room}&cursor={self.cursor}")
                response.raise_for_status()
                answer = response.json()
                if "resync" in answer:
                    self.afresh.append(answer["resync"]["reason"])
                for event in answer["data"]:
                    self.hear(event)
                self.cursor = answer["cursor"]
                if self.road == "short poll":
                    await asyncio.sleep(0.3)


class OverLongPoll(OverPoll):
    road, path = "long poll", "/poll"


class OverShortPoll(OverPoll):
    road, path = "short poll", "/short"


ROADS = (OverWebSocket, OverWebSocket, OverStream, OverLongPoll, OverShortPoll)


async def publish(server: Server, rooms: list[str], count: int, seconds: float) -> int:
    """Publish so many, spread over the time, each under a key until it is acknowledged; return how often that took."""
    attempts = 0

    async def one(number: int) -> None:
        nonlocal attempts
        await asyncio.sleep(seconds * number / count)
        room = rooms[number % len(rooms)]
        message = {"type": "say", "room": room, "text": str(number), "key": f"publication-{number}"}
        while True:
            attempts += 1
            with suppress(httpx2.HTTPError):
                answer = await client.post("/send", json=message)
                if answer.is_success:
                    return
            await asyncio.sleep(0.2)

    limits = httpx2.Limits(max_connections=50)
    async with httpx2.AsyncClient(base_url=server.url, timeout=5, trust_env=False, limits=limits) as client:
        await asyncio.gather(*(one(number) for number in range(count)))
    return attempts


async def everything(server: Server, room: str) -> list[tuple[str, str]]:
    """Return the log of a room, from the beginning, as the server tells it."""
    head = (await server.get(f"/short?room={room}"))["cursor"]
    cursor = head.partition(":")[0] + ":0"
    log: list[tuple[str, str]] = []
    while cursor != head:
        answer = await server.get(f"/short?room={room}&cursor={cursor}")
        log += [(event["id"], event["text"]) for event in answer["data"]]
        cursor = answer["cursor"]
    return log


async def swarm(folder: Path, *, clients: int, rooms: int, publications: int, seconds: float, seed: int) -> None:
    dice = random.Random(seed)
    (folder / "swarm.py").write_text(APP)
    names = [f"room-{number}" for number in range(rooms)]
    faults: Counter[str] = Counter()
    with Server(folder, "serve", "swarm:app") as server:
        async with Proxy(server.port) as proxy:
            base = f"http://127.0.0.1:{proxy.port}"
            listeners = [ROADS[n % len(ROADS)](base, names[n % rooms]) for n in range(clients)]
            tasks = [asyncio.create_task(listener.run()) for listener in listeners]
            async with asyncio.timeout(30):
                while any(listener.since is None for listener in listeners):
                    await asyncio.sleep(0.05)
            publishing = asyncio.create_task(publish(server, names, publications, seconds))

            async def break_things() -> None:
                each = dice.sample(["reset", "silent", "freeze", "kill"], 4)  # once at least
                while each or not publishing.done():
                    await asyncio.sleep(dice.uniform(0.2, 0.8))
                    match each.pop() if each else dice.choice(["reset", "reset", "silent", "silent", "freeze", "kill"]):
                        case "reset":
                            faults["reset"] += proxy.reset(dice.uniform(0.05, 0.5), dice)
                        case "silent":
                            faults["fell silent"] += proxy.fall_silent(dice.uniform(0.05, 0.3), dice)
                        case "freeze":
                            faults["server frozen"] += 1
                            server.freeze()
                            await asyncio.sleep(dice.uniform(0.2, 2.5))
                            server.thaw()
                        case "kill":
                            faults["server killed"] += 1
                            server.kill()
                            await asyncio.sleep(dice.uniform(0, 0.5))
                            await asyncio.to_thread(server.start)

            breaking = asyncio.create_task(break_things())
            attempts = await publishing
            await breaking
            logs = {name: await everything(server, name) for name in names}

            def missing() -> list[Listener]:
                return [
                    one
                    for one in listeners
                    if logs[one.room] and (not one.heard or one.heard[-1] != logs[one.room][-1])
                ]

            with suppress(TimeoutError):
                # A silent link is noticed after 5 s, a greeting waited for 10 s, and the longest delay is 30 s.
                async with asyncio.timeout(75):
                    while missing():
                        await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    total = sum(map(len, logs.values()))
    texts = [text for log in logs.values() for _, text in log]
    assert sorted(texts, key=int) == [str(number) for number in range(publications)]  # each once, by its key
    wrong = []
    for listener in listeners:
        assert listener.since is not None
        expected = [entry for entry in logs[listener.room] if number(entry[0]) > number(listener.since)]
        if listener.heard != expected or listener.afresh:
            wrong.append(f"{listener.road} in {listener.room}: {describe(listener, expected)}")
    deliveries = sum(len(listener.heard) for listener in listeners)
    roads = Counter(listener.road for listener in listeners)
    returns = sum(listener.returns for listener in listeners)
    print(f"\n{clients} clients {dict(roads)}, {total} publications in {attempts} attempts,", end=" ")
    print(deliveries, "deliveries,", end=" ")
    print(returns, "returns, faults", dict(faults), "wrong", len(wrong))
    assert not wrong, "\n".join(wrong)
    assert set(faults) == {"reset", "fell silent", "server frozen", "server killed"}, "not every fault has happened"


def number(id: str) -> int:
    return int(id.partition(":")[2])


def describe(listener: Listener, expected: list[tuple[str, str]]) -> str:
    heard = listener.heard
    lost = [id for id, _ in expected if id not in {id for id, _ in heard}]
    repeated = [id for id, times in Counter(id for id, _ in heard).items() if times > 1]
    status = f", {listener.client.status}" if isinstance(listener, OverWebSocket) else ""
    return (
        f"{len(heard)} of {len(expected)}, lost {lost[:5]}, repeated {repeated[:5]}, afresh {listener.afresh}, "
        f"in order: {heard == sorted(heard, key=lambda entry: number(entry[0]))}{status}"
    )


async def test_a_small_swarm_misses_nothing_and_hears_nothing_twice(tmp_path: Path) -> None:
    await swarm(tmp_path, clients=40, rooms=5, publications=600, seconds=15, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_two_hundred_clients_and_three_thousand_publications(tmp_path: Path, seed: int) -> None:
    await swarm(tmp_path, clients=200, rooms=10, publications=3000, seconds=40, seed=seed)
