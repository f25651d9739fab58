"""
The primary is killed, and its standby promoted, while three servers are at work on them.

What was acknowledged is there if the standby was synchronous. If it was not, some of it is lost; that is told, by
another epoch, and no position of before is taken for one of now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from websockets.asyncio.client import connect

from databases import Cluster, Standby, create, whichever
from faults import Proxy
from peers import Balancer, Server
from swarm.swarm import APP, Crowd, Listener, Publisher, Said, epoch, number

ROOMS = ["room-0", "room-1", "room-2"]


@asynccontextmanager
async def nodes(folder: Path, dsn: str) -> AsyncIterator[str]:
    """Three servers; where their balancer is."""
    (folder / "swarm_app.py").write_text(APP)
    servers = []
    try:
        for place in range(3):
            server = Server(folder, "serve", "swarm_app:app", env={"STORE": dsn})
            server.log = folder / f"server-{place}.log"
            await asyncio.to_thread(server.start)
            servers.append(server)
        async with Balancer(servers) as url:
            yield url
    finally:
        for server in servers:
            await asyncio.to_thread(server.__exit__)


def see_what_was_heard(listener: Listener, log: list[Said], before: dict[str, str]) -> None:
    """
    See that somebody was told once to start afresh, and has missed nothing before or after that.

    `before` are the texts of the life of the log that has ended, by their ids, as they were acknowledged.
    """
    assert [reason for reason, _ in listener.afresh] == ["epoch"], f"{listener.road}: {listener.afresh}"
    assert listener.since is not None
    anew = listener.afresh[0][1]
    assert (epoch(anew), epoch(listener.since)) == (epoch(log[-1][0]), epoch(next(iter(before))))
    old = [said for said in listener.heard if epoch(said[0]) == epoch(listener.since)]
    new = [said for said in listener.heard if epoch(said[0]) == epoch(anew)]
    assert listener.heard == old + new
    first = number(listener.since) + 1
    assert [number(id) for id, _ in old] == list(range(first, first + len(old)))
    assert all(before.get(id, text) == text for id, text in old)
    assert new == [said for said in log if number(said[0]) > number(anew)], f"{listener.road} after {anew}"


@pytest.fixture
def standby(cluster: Cluster) -> Iterator[Standby]:
    """A synchronous standby of `cluster`."""
    with Standby(cluster) as standby:
        cluster.wait_for_standby()
        yield standby


async def fail_over(
    folder: Path, primary: Cluster, standby: Standby, *, clients: int, numbers: range, seconds: float
) -> None:
    create(primary.dsn("postgres"), "swarm")
    async with nodes(folder, whichever([primary, standby], "swarm")) as url:
        crowd, publisher = Crowd(url, clients, ROOMS), Publisher(url, ROOMS)
        await crowd.gather()
        publishing = asyncio.create_task(publisher.publish(numbers, seconds))
        await asyncio.sleep(seconds / 2)
        await asyncio.to_thread(primary.kill)
        acknowledged = dict(publisher.acknowledged)
        await asyncio.to_thread(standby.promote)
        await publishing
        logs = await publisher.logs()
        await crowd.hear_out(logs)
    texts = [text for log in logs.values() for _, text in log]
    old = {epoch(id) for id in acknowledged.values()}
    print(f"\n{crowd}, {len(texts)} publications in {publisher.attempts} attempts,", end=" ")
    print(f"{len(acknowledged)} acknowledged by the first primary, lost {len(set(acknowledged) - set(texts))}")
    assert 0 < len(acknowledged) < len(numbers)
    assert not set(acknowledged) - set(texts)
    assert sorted(texts, key=int) == list(map(str, numbers))  # and each once, by its key
    assert len(old) == 1
    assert old != {epoch(id) for log in logs.values() for id, _ in log}
    for listener in crowd.listeners:
        mine = {id: text for text, id in acknowledged.items() if ROOMS[int(text) % len(ROOMS)] == listener.room}
        see_what_was_heard(listener, logs[listener.room], mine)


@pytest.mark.long
async def test_a_synchronous_standby_has_everything_that_was_acknowledged_and_everybody_goes_on(
    tmp_path: Path, cluster: Cluster, standby: Standby
) -> None:
    await fail_over(tmp_path, cluster, standby, clients=20, numbers=range(200), seconds=6)


@pytest.mark.long
async def test_two_hundred_clients_go_on_at_a_synchronous_standby(
    tmp_path: Path, cluster: Cluster, standby: Standby
) -> None:
    await fail_over(tmp_path, cluster, standby, clients=200, numbers=range(1500), seconds=30)


@pytest.mark.long
async def test_what_a_standby_that_lagged_has_lost_is_told_and_no_old_position_is_misread(
    tmp_path: Path, cluster: Cluster
) -> None:
    create(cluster.dsn("postgres"), "swarm")
    async with Proxy(cluster.port) as stream:
        standby = Standby(cluster, stream.port)
        await asyncio.to_thread(standby.__enter__)
        try:
            await lag_and_fail_over(tmp_path, cluster, standby, stream)
        finally:
            await asyncio.to_thread(standby.__exit__)


async def lag_and_fail_over(folder: Path, primary: Cluster, standby: Standby, stream: Proxy) -> None:
    async with nodes(folder, whichever([primary, standby], "swarm")) as url:
        crowd, publisher = Crowd(url, 20, ROOMS), Publisher(url, ROOMS)
        await crowd.gather()
        await publisher.publish(range(60), 1.0)
        await asyncio.to_thread(primary.wait_until_followed)
        stream.silence()
        await publisher.publish(range(60, 120), 1.0)
        lost = await publisher.logs()
        async with asyncio.timeout(30):
            while any(listener.heard[-1:] != lost[listener.room][-1:] for listener in crowd.listeners):
                await asyncio.sleep(0.05)
        before = dict(publisher.acknowledged)
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.promote)
        await publisher.publish(range(120, 240), 3.0)  # they take the offsets of what was lost, and go beyond
        logs = await publisher.logs()
        await crowd.hear_out(logs)
        texts = {text for log in logs.values() for _, text in log}
        gone = [text for text in before if text not in texts]
        print(f"\n{crowd}, {len(gone)} of {len(before)} acknowledged publications were lost, and that was told")
        assert sorted(gone, key=int) == [str(number) for number in range(60, 120)]
        for listener in crowd.listeners:
            mine = {id: text for text, id in before.items() if ROOMS[int(text) % len(ROOMS)] == listener.room}
            see_what_was_heard(listener, logs[listener.room], mine)
        await see_that_old_positions_are_refused(url, lost)


async def see_that_old_positions_are_refused(url: str, lost: dict[str, list[Said]]) -> None:
    """Whatever somebody had who comes only now: before what was lost, in the midst of it, behind it."""
    for room, log in lost.items():
        for position in (log[0][0], log[25][0], log[-1][0], f"{epoch(log[0][0])}:0"):
            answers: list[Any] = await asyncio.gather(*(by(url, room, position) for by in (join, poll, stream)))
            assert answers == ["epoch"] * 3


async def join(url: str, room: str, position: str) -> str:
    async with connect(f"{url.replace('http', 'ws')}/ws", proxy=None) as socket:
        await socket.send(msgspec.json.encode({"type": "join", "room": room, "since": position}).decode())
        async with asyncio.timeout(10):
            while True:
                message = msgspec.json.decode(await socket.recv())
                if message["type"] == "joined":
                    assert not message["recovered"]
                    return str(message["reason"])


async def poll(url: str, room: str, position: str) -> str:
    async with httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        answer = (await client.get(f"/poll?room={room}&cursor={position}")).json()
        assert answer["data"] == []
        return str(answer["resync"]["reason"])


async def stream(url: str, room: str, position: str) -> str:
    async with (
        httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False) as client,
        client.stream("GET", f"/events?room={room}", headers={"last-event-id": position}) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data:") and '"reason"' in line:
                return str(msgspec.json.decode(line.removeprefix("data:"))["reason"])
    raise AssertionError("the stream ended")
