"""
A swarm: listeners on every road, somebody who publishes, and what breaks meanwhile.

Whatever it is that serves them, every listener has everything, in order, once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx2
import msgspec

import holdfast
from holdfast import Event, Resumed, Resync

#: What is served; its store is in the environment.
APP = """
import os

from holdfast import Hub, web
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

store, listen, redis = os.environ.get("STORE", "swarm.db"), os.environ.get("LISTEN"), os.environ.get("REDIS")
hub = Hub(store, listen=listen, redis=redis, heartbeat_interval=1, heartbeat_timeout=1, presence_grace=2)

@hub.on("say")
async def say(request):
    publication = await hub.publish(request.room, "said", {"text": request.data["text"]})
    return {"id": publication.id}

async def short(request):
    return JSONResponse(await hub.poll(request, request.query_params["room"], hold=False))

routes = [Route("/short", short), Mount("/", hub.app)]
app = Starlette(routes=routes, lifespan=hub.lifespan, exception_handlers=web.REFUSALS)
"""

#: Seconds. A silent link is noticed after 5, a greeting waited for 10, and the longest delay is 30.
PATIENCE = 75.0
#: To read everybody's certificates takes 30 ms, at each attempt of each: on a busy machine nothing else would be done.
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}

Said = tuple[str, str]  # id and text
#: Breaks something, perhaps for a while; returns how much of it: links, packets, bytes, servers. None is no fault.
Fault = Callable[[], Awaitable[int]]


class Listener:
    """Somebody in one room, who notes every publication and whether it was told to start afresh."""

    road = ""

    def __init__(self, base: str, room: str) -> None:
        self.base = base
        self.room = room
        self.heard: list[Said] = []
        self.since: str | None = None  # where it began
        self.stands: str | None = None  # at this position
        self.afresh: list[tuple[str, str]] = []  # why, and from where on
        self.returns = 0

    def begin(self, cursor: str) -> None:
        self.since = self.stands = cursor

    def hear(self, id: str, text: str) -> None:
        self.heard.append((id, text))
        self.stands = id

    def begin_afresh(self, reason: str, cursor: str) -> None:
        self.afresh.append((reason, cursor))
        self.stands = cursor

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
                        self.hear(id, data["text"])
                    case Resync("new", cursor):
                        self.begin(cursor)
                    case Resync(reason, cursor):
                        self.begin_afresh(reason, cursor)
                    case Resumed():
                        self.returns += 1
                    case _:
                        pass


class OverStream(Listener):
    road = "sse"

    async def run(self) -> None:
        await self.patiently(self.attempt)

    async def attempt(self) -> None:
        headers = {} if self.stands is None else {"last-event-id": self.stands}
        timeout = httpx2.Timeout(5, read=3)  # it is silent for 15 s at most; here it gives up sooner
        async with (
            httpx2.AsyncClient(base_url=self.base, timeout=timeout, **PLAIN) as client,
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
                    self.begin(fields["id"])
                if fields.get("event") == "said":
                    self.hear(fields["id"], msgspec.json.decode(fields["data"])["text"])
                elif fields.get("event") == "resync":
                    self.begin_afresh(msgspec.json.decode(fields["data"])["reason"], fields["id"])
                fields = {}


class OverPoll(Listener):
    path = ""

    async def run(self) -> None:
        await self.patiently(self.attempt)

    async def attempt(self) -> None:
        async with httpx2.AsyncClient(base_url=self.base, timeout=4, **PLAIN) as client:
            if self.since is None:  # a long poll without a cursor starts at the head, but says so only when it ends
                response = await client.get(f"/short?room={self.room}")
                response.raise_for_status()
                self.begin(response.json()["cursor"])
            while True:
                response = await client.get(f"{self.path}?room={self.room}&cursor={self.stands}")
                response.raise_for_status()
                answer = response.json()
                if "resync" in answer:
                    self.begin_afresh(answer["resync"]["reason"], answer["cursor"])
                for event in answer["data"]:
                    self.hear(event["id"], event["text"])
                assert self.stands == answer["cursor"]
                if self.road == "short poll":
                    await asyncio.sleep(0.3)


class OverLongPoll(OverPoll):
    road, path = "long poll", "/poll"


class OverShortPoll(OverPoll):
    road, path = "short poll", "/short"


ROADS = (OverWebSocket, OverWebSocket, OverStream, OverLongPoll, OverShortPoll)


class Crowd:
    """Listeners on every road, in some rooms."""

    def __init__(self, base: str, clients: int, rooms: Sequence[str]) -> None:
        self.listeners = [ROADS[n % len(ROADS)](base, rooms[n % len(rooms)]) for n in range(clients)]

    async def gather(self) -> None:
        """Have everybody come, and wait until they all know where they stand."""
        self._tasks = [asyncio.create_task(listener.run()) for listener in self.listeners]
        async with asyncio.timeout(60):
            while any(listener.since is None for listener in self.listeners):
                await asyncio.sleep(0.05)

    async def hear_out(self, logs: dict[str, list[Said]]) -> None:
        """Wait until everybody has heard the last of their room, but not for ever; then they go."""

        def is_missing(one: Listener) -> bool:
            log = logs[one.room]
            return bool(log) and one.stands != log[-1][0]

        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while any(map(is_missing, self.listeners)):
                    await asyncio.sleep(0.1)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __str__(self) -> str:
        roads = Counter(listener.road for listener in self.listeners)
        deliveries = sum(len(listener.heard) for listener in self.listeners)
        returns = sum(listener.returns for listener in self.listeners)
        return f"{len(self.listeners)} clients {dict(roads)}, {deliveries} deliveries, {returns} returns"


class Publisher:
    """Publishes numbers, each under a key until it is acknowledged."""

    def __init__(self, base: str, rooms: Sequence[str]) -> None:
        self._base = base
        self._rooms = rooms
        self.attempts = 0
        self.acknowledged: dict[str, str] = {}  # texts, and the ids that they were given

    async def publish(self, numbers: range, seconds: float) -> None:
        """Publish these, spread over the time."""

        async def one(number: int) -> None:
            await asyncio.sleep(seconds * (number - numbers[0]) / len(numbers))
            room, text = self._rooms[number % len(self._rooms)], str(number)
            message = {"type": "say", "room": room, "text": text, "key": f"publication-{number}"}
            while True:
                self.attempts += 1
                with suppress(httpx2.HTTPError):
                    answer = await client.post("/send", json=message)
                    if answer.is_success:
                        self.acknowledged[text] = answer.json()["data"]["id"]
                        return
                await asyncio.sleep(0.2)

        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(base_url=self._base, timeout=5, trust_env=False, limits=limits) as client:
            await asyncio.gather(*map(one, numbers))

    async def logs(self) -> dict[str, list[Said]]:
        """Return everything that is in the log of each room, from the beginning, as it is told by a server that can."""
        async with (
            asyncio.timeout(PATIENCE),
            httpx2.AsyncClient(base_url=self._base, timeout=5, trust_env=False) as client,
        ):
            return {room: await self._log(client, room) for room in self._rooms}

    async def _log(self, client: httpx2.AsyncClient, room: str) -> list[Said]:
        async def ask(path: str) -> Any:
            while True:
                with suppress(httpx2.HTTPError):
                    response = await client.get(path)
                    if response.is_success:
                        return response.json()
                await asyncio.sleep(0.2)

        life = epoch((await ask(f"/short?room={room}"))["cursor"])
        # A server may not have heard yet of what was acknowledged just now by another.
        mine = [id for text, id in self.acknowledged.items() if self._rooms[int(text) % len(self._rooms)] == room]
        last = max((number(id) for id in mine if epoch(id) == life), default=0)
        cursor, log = f"{life}:0", list[Said]()
        while True:
            answer = await ask(f"/short?room={room}&cursor={cursor}")
            if not answer["data"] and number(cursor) >= last:
                return log
            log += [(event["id"], event["text"]) for event in answer["data"]]
            cursor = answer["cursor"]


async def swarm(
    listen_at: str,
    publish_at: str,
    faults: Sequence[Sequence[tuple[str, Fault]]],
    *,
    clients: int,
    rooms: int,
    publications: int,
    seconds: float,
    dice: random.Random,
) -> None:
    """
    Publish while things break, and see that everybody has everything, in order, once.

    Each of the `faults` happens at least once; those in one sequence happen one after the other, beside those of the
    others. What stands in it twice happens twice as often.
    """
    names = [f"room-{number}" for number in range(rooms)]
    crowd, publisher = Crowd(listen_at, clients, names), Publisher(publish_at, names)
    await crowd.gather()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    publishing = asyncio.create_task(publisher.publish(range(publications), seconds))
    happened: Counter[str] = Counter()

    async def break_things(these: Sequence[tuple[str, Fault]]) -> None:
        first = list(dict(these).items())
        dice.shuffle(first)
        while first or loop.time() < until:
            await asyncio.sleep(dice.uniform(0.2, 0.8))
            name, fault = first.pop() if first else dice.choice(these)
            happened[name] += await fault()

    await asyncio.gather(publishing, *map(break_things, faults))
    logs = await publisher.logs()
    await crowd.hear_out(logs)
    texts = [text for log in logs.values() for _, text in log]
    assert sorted(texts, key=int) == [str(number) for number in range(publications)]  # each once, by its key
    assert publisher.acknowledged == {text: id for log in logs.values() for id, text in log}
    wrong = []
    for listener in crowd.listeners:
        assert listener.since is not None
        expected = [entry for entry in logs[listener.room] if number(entry[0]) > number(listener.since)]
        if listener.heard != expected or listener.afresh:
            wrong.append(f"{listener.road} in {listener.room}: {describe(listener, expected)}")
    print(f"\n{crowd}, {len(texts)} publications in {publisher.attempts} attempts,", end=" ")
    print("faults", dict(happened), "wrong", len(wrong))
    assert not wrong, "\n".join(wrong)
    assert all(happened[name] for these in faults for name, _ in these), "not every fault has happened"


def epoch(id: str) -> str:
    return id.partition(":")[0]


def number(id: str) -> int:
    return int(id.partition(":")[2])


def describe(listener: Listener, expected: list[Said]) -> str:
    heard = listener.heard
    lost = [id for id, _ in expected if id not in {id for id, _ in heard}]
    repeated = [id for id, times in Counter(id for id, _ in heard).items() if times > 1]
    status = f", {listener.client.status}" if isinstance(listener, OverWebSocket) else ""
    return (
        f"{len(heard)} of {len(expected)}, lost {lost[:5]}, repeated {repeated[:5]}, afresh {listener.afresh}, "
        f"in order: {heard == sorted(heard, key=lambda entry: number(entry[0]))}{status}"
    )
