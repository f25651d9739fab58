"""Servers behind a proxy are replaced while people use them: what does it cost whom?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2

import holdfast
from crowd import Light
from holdfast import Event, Resync
from peers import Server


@dataclass
class Member:
    """What one client has heard: which task, and when."""

    heard: list[tuple[int, float]] = field(default_factory=list)
    is_in: bool = False

    def hear(self, event: Any) -> None:
        """Note an event."""
        self.heard.append((int(event["task"]["title"]), time.monotonic()))

    def late(self, written: Sequence[float], since: float) -> list[float]:
        """Return how long after it was written each task was heard of that was written since then."""
        return [when - written[number] for number, when in self.heard if written[number] >= since]


@dataclass
class Audience:
    """Who is on one board, and what was written there."""

    list_id: str
    written: list[float] = field(default_factory=list)  # when
    members: list[Member] = field(default_factory=list)


@dataclass
class Report:
    """What it has cost. Seconds."""

    written: int = 0
    failed: list[Any] = field(default_factory=list)  # writes that were not answered 201
    resyncs: list[Any] = field(default_factory=list)
    moves: int = 0  # of light clients
    wrong: list[str] = field(default_factory=list)  # who has missed something, or heard it twice or out of order
    late: list[float] = field(default_factory=list)  # of each delivery while servers were replaced, in order
    worst: list[float] = field(default_factory=list)  # the latest delivery of each client, in order

    def summary(self, clients: int) -> str:
        """Return it in words."""
        return (
            f"{clients} clients, {self.moves} moves, {self.written} writes: {len(self.failed)} failed, "
            f"{len(self.resyncs)} resyncs, {len(self.wrong)} clients missed or repeated something; {len(self.late)} "
            f"deliveries came after {shares(self.late)}; the latest of each client: {shares(self.worst)}"
        )


def shares(late: Sequence[float]) -> str:
    """Return how late half of them, and 99 % of them, were at most."""
    half, most = (round(1000 * late[int(part * len(late))]) for part in (0.5, 0.99)) if late else ("-", "-")
    return f"p50 {half} ms, p99 {most} ms"


async def rolling_deploy(
    url: str,
    replaced: Sequence[Server],
    *,
    clients: int,
    light: int = 0,
    boards: int = 1,
    writes_per_second: float = 30,
    tries_again_on: frozenset[int] = frozenset(),
) -> Report:
    """
    Replace one server after the other while people listen and write, all by way of `url`.

    `clients` are those of the library; beside them there are `light` ones (`crowd.Light`).
    """
    report = Report()
    audiences = {"board-1": Audience("list-todo")}
    async with httpx2.AsyncClient(base_url=url, verify=False, timeout=30) as service:
        for number in range(1, boards):
            made = (await service.post("/boards", json={"name": f"board {number}"})).json()["data"]
            audiences[made["id"]] = Audience(made["lists"][0]["id"])
    names = list(audiences)

    async def listen(board: str, member: Member) -> None:
        async with holdfast.connect(url) as client, client.join(board) as room:
            async for item in room:
                match item:
                    case Event(type="task_created", data=data):
                        member.hear({"task": data["task"]})
                    case Resync(reason="new"):
                        member.is_in = True
                    case Resync():
                        report.resyncs.append(item)

    async def write() -> None:
        async with httpx2.AsyncClient(base_url=url, verify=False, timeout=30) as service:
            for number in count():
                audience = audiences[names[number % boards]]
                task = {"listId": audience.list_id, "title": str(len(audience.written))}
                audience.written.append(time.monotonic())
                key = {"idempotency-key": f"key-{number}"}
                answer = await service.post("/tasks", json=task, headers=key)
                while answer.status_code in tries_again_on:
                    await asyncio.sleep(0.1)
                    answer = await service.post("/tasks", json=task, headers=key)
                if answer.status_code != 201:
                    report.failed.append((answer.status_code, answer.text))
                if has_ended.is_set():
                    return
                await asyncio.sleep(1 / writes_per_second)

    has_ended = asyncio.Event()
    listening, real, crowd = list[asyncio.Task[None]](), list[Member](), list[Light]()
    for number in range(clients + light):
        name, member = names[number % boards], Member()
        audiences[name].members.append(member)
        if number < clients:
            real.append(member)
            listening.append(asyncio.create_task(listen(name, member)))
        else:
            crowd.append(Light(int(url.rpartition(":")[2]), name, member.hear))
            crowd[-1].start()
    everybody: list[Member | Light] = [*crowd, *real]
    await until(lambda: all(each.is_in for each in everybody), 120)
    writing = asyncio.create_task(write())
    await asyncio.sleep(0.5)
    began = time.monotonic()
    for server in replaced:
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(0.5)
    has_ended.set()
    await writing
    with suppress(TimeoutError):
        for audience in audiences.values():
            await until(lambda: all(len(each.heard) >= len(audience.written) for each in audience.members), 60)  # noqa: B023
    for each in crowd:
        each.stop()
        report.resyncs += each.resyncs
        report.moves += each.moves
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    for name, audience in audiences.items():
        report.written += len(audience.written)
        for member in audience.members:
            numbers = [number for number, _ in member.heard]
            if numbers != list(range(len(audience.written))):
                report.wrong.append(f"on {name}, of {len(audience.written)}: {numbers}")
            late = member.late(audience.written, began)
            report.late += late
            report.worst += [max(late)] if late else []
    report.late.sort()
    report.worst.sort()
    return report


async def until(true: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)
