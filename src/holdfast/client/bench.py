"""
What does `holdfast bench` measure?

A server of yours, from where you are: how long it takes to get in, how late a publication is with everybody, and how
long a command takes. It does so with this library's clients, each of which costs more than a server spends on it: with
more than a few hundred, it is they who are measured. Nor does a client command more often than its server allows:
what is beyond that waits with it, and that is in the time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2

from holdfast.client.client import Client, connect
from holdfast.client.road import http_url, websocket_url
from holdfast.client.room import Room
from holdfast.core.replica import Resumed, Resync
from holdfast.errors import HoldfastError, Unavailable
from holdfast.protocol.codec import check_server_key
from holdfast.protocol.messages import Event

Print = Callable[[str], None]

#: Clients that are on their way in at once.
AT_ONCE = 50
#: For so long it is waited for what is late (or for the first to get in, before it is said why), and for the last.
PATIENCE, DOOR_PATIENCE = 5.0, 30.0  # seconds
#: So far these clients may be behind with asking, in seconds: it is in the times, for those count from when it was due.
BEHIND = 0.5


@dataclass(frozen=True)
class Plan:
    """What is to be done; `rate` is how many publications, and how many commands, there are in a second."""

    url: str
    room: str
    clients: int
    seconds: float
    rate: float
    token: str | None
    server_key: str | None
    command: str | None
    data: dict[str, Any]

    def __post_init__(self) -> None:
        if taken := {"self", "type"} & set(self.data):
            raise ValueError(f"what a command says besides its type cannot be called {' or '.join(sorted(taken))}")
        if self.server_key is not None:
            check_server_key(self.server_key)


class Bench:
    """A plan that is carried out. Times are in seconds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._mark = uuid4().hex  # of the publications that are ours
        self._published = 0
        self._came = asyncio.Event()
        self._late: dict[tuple[Room, float], float] = {}  # by whom and what: when it came, after it was due
        self._answered: list[float] = []
        self._refused: Counter[str] = Counter()
        self._returns = self._resyncs = 0
        self._events = 0

    async def run(self, out: Print) -> bool:
        """Do it, and say what it was; return whether all came that was due, nothing was refused, nobody was cut off."""
        plan, door, came, got_in = self._plan, asyncio.Semaphore(AT_ONCE), list[Client](), list[float]()
        async with AsyncExitStack() as clients:

            async def come() -> Room:
                async with door:
                    began = time.perf_counter()
                    client = await clients.enter_async_context(connect(plan.url, token=plan.token))
                    came.append(client)
                    room = await clients.enter_async_context(client.join(plan.room))
                    try:
                        async with asyncio.timeout(DOOR_PATIENCE):
                            await anext(room)  # where it begins
                    except TimeoutError:
                        raise Unavailable(f"somebody was not in after {DOOR_PATIENCE:g} s: {_why(client)}") from None
                    got_in.append(time.perf_counter() - began)
                    return room

            async def say_why_not() -> None:
                await asyncio.sleep(PATIENCE)
                if not got_in:
                    out(f"nobody is in after {PATIENCE:g} s: {_why(came[0])}")

            began = time.perf_counter()
            explaining = asyncio.create_task(say_why_not())
            coming = asyncio.gather(*(come() for _ in range(plan.clients)))
            try:
                rooms = await coming
            finally:
                coming.cancel()  # if one is refused, nobody else comes after that
                explaining.cancel()
            seconds = time.perf_counter() - began
            roads = Counter(client.status.road.value for client in came)
            by = ", ".join(f"{count} by {road}" for road, count in roads.most_common())
            out(f"in        {plan.clients} clients after {seconds:.2f} s ({by}); each took {_times(got_in)}")
            reading = asyncio.gather(*map(self._read, rooms))
            working = asyncio.gather(asyncio.sleep(plan.seconds), self._publish(), self._command(rooms))
            try:
                await asyncio.wait((reading, working), return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()  # somebody was sent away for good, and this says why
                working.result()
                await self._catch_up()
            finally:
                reading.cancel()
                working.cancel()
                await asyncio.gather(reading, working, return_exceptions=True)
            return self._tell(out)

    async def _read(self, room: Room) -> None:
        async for item in room:
            match item:
                case Event(data={"bench": str(mark), "at": float(at)}) if mark == self._mark:
                    if (room, at) in self._late:
                        self._refused["a publication came to somebody who had it"] += 1
                    else:
                        self._late[room, at] = time.perf_counter() - at
                        self._came.set()
                case Event():
                    self._events += 1
                case Resumed():
                    self._returns += 1
                case Resync():
                    self._resyncs += 1

    async def _publish(self) -> None:
        plan = self._plan
        if plan.server_key is None:
            return
        url = http_url(websocket_url(plan.url), "publish")
        key = {"authorization": f"Bearer {plan.server_key}"}
        async with httpx2.AsyncClient(headers=key, trust_env=False) as http:

            async def publish(due: float) -> None:
                data = {"bench": self._mark, "at": due}
                try:
                    answer = await http.post(url, json={"room": plan.room, "type": "bench", "data": data})
                except httpx2.HTTPError as error:
                    self._refused[f"{type(error).__name__} at {url}"] += 1
                    return
                if answer.status_code == 201:
                    self._published += 1
                else:
                    self._refused[f"HTTP {answer.status_code} at {url}"] += 1

            await self._again_and_again(publish)

    async def _command(self, rooms: Sequence[Room]) -> None:
        plan, turn = self._plan, 0
        if plan.command is None:
            return

        async def command(due: float) -> None:
            nonlocal turn
            turn += 1
            try:
                await rooms[turn % len(rooms)].command(plan.command or "", **plan.data)
            except HoldfastError as refusal:
                self._refused[str(refusal)] += 1
            else:
                self._answered.append(time.perf_counter() - due)

        await self._again_and_again(command)

    async def _again_and_again(self, work: Callable[[float], Awaitable[None]]) -> None:
        """Do something, and say when it was due, as often as is planned, whether or not what was begun has ended."""
        plan, began, tasks = self._plan, time.perf_counter(), list[asyncio.Future[None]]()
        planned = max(1, round(plan.seconds * plan.rate))
        try:
            for number in range(planned):
                due = began + number / plan.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if time.perf_counter() > began + plan.seconds + BEHIND:
                    never = f"never asked: from here not {plan.rate:g} can be asked in a second"
                    self._refused[never] += planned - number
                    break
                tasks.append(asyncio.ensure_future(work(due)))
            done, late = await asyncio.wait(tasks, timeout=PATIENCE)
            await asyncio.gather(*done)
            if late:
                self._refused[f"no answer after {PATIENCE:g} s"] += len(late)
        finally:
            for task in tasks:
                task.cancel()

    async def _catch_up(self) -> None:
        """Wait for what is late."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while len(self._late) < self._published * self._plan.clients:
                    self._came.clear()
                    await self._came.wait()

    def _tell(self, out: Print) -> bool:
        plan = self._plan
        due = self._published * plan.clients
        if plan.server_key is not None:
            came = f"{len(self._late)} of {due} deliveries came, after {_times(self._late.values())}"
            out(f"published {self._published}, {came}")
        if plan.command is not None:
            out(f"commanded {len(self._answered)}, answered after {_times(self._answered)}")
        out(f"heard     {self._events} other events")
        cut_off = self._returns + self._resyncs
        out(f"cut off   {cut_off} times, and started afresh {self._resyncs} times")
        for reason, count in self._refused.most_common():
            out(f"refused   {count}: {reason}")
        return not self._refused and not cut_off and len(self._late) == due


def _why(client: Client) -> str:
    return client.status.reason or "no answer"


def _times(values: Collection[float]) -> str:
    """Return how long something took: half of it, 99 % of it, and the longest."""
    if not values:
        return "–"
    ordered = sorted(values)
    half, most = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, 99 * len(ordered) // 100)]
    return f"{1000 * half:.1f} ms (99 % within {1000 * most:.1f}, all within {1000 * ordered[-1]:.1f})"
