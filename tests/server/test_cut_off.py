"""
A server whose link to the database falls silent: it neither acknowledges nor shows what it cannot know, and it returns.

The link is not cut: every byte is swallowed, and nobody is told, as where a cable is pulled behind a switch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from databases import by_way_of, port_of
from faults import Proxy
from peers import Peer, Server

#: A server says after 5 s that it does not know; on a machine that is so busy that it doubts its clock, later. Seconds.
AWAY = 15.0
#: … and it is back when it has dialled once more.
BACK = 30.0
#: … and after which a write that was on its way is given up: an answer is waited for, then its fate is asked.
SETTLED = 30.0


class Pair:
    """Two boards on one database; `one` reaches it by `wire`."""

    def __init__(self, one: Server, two: Server, wire: Proxy) -> None:
        self.one = one
        self.two = two
        self.wire = wire


@pytest.fixture
async def pair(tmp_path: Path, database: str) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as held:
        wire = await held.enter_async_context(Proxy(port_of(database)))
        servers = []
        for number, dsn in enumerate((by_way_of(database, wire.port), database)):
            folder = tmp_path / f"node-{number}"
            folder.mkdir()
            server = Server(folder, "board", "--store", dsn)
            held.push_async_callback(asyncio.to_thread, server.__exit__)  # what it ends with goes by the wire
            servers.append(await asyncio.to_thread(server.start))
        yield Pair(*servers, wire)


async def arrive(server: Server, name: str, session: str | None = None) -> tuple[Peer, str]:
    """Sign in, connect and join; return the session."""
    token = (await server.post("/login", {"name": name}))["data"]["token"]
    peer = await server.dial()
    await peer.send({"type": "auth", "token": token, **({} if session is None else {"session": session})})
    session = (await peer.until("connected", where=lambda message: message["user"]["name"] == name))["session"]
    return peer, session


async def is_ready(server: Server) -> bool:
    return (await server.request("GET", "/readyz")).status_code == 200


async def until_ready(server: Server, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await is_ready(server):
            await asyncio.sleep(0.1)


async def titles(server: Server) -> list[str]:
    return [task["title"] for task in (await server.get("/boards/board-1/tasks"))["data"]]


async def test_it_tells_its_clients_and_turns_newcomers_away_and_serves_nothing_old(pair: Pair) -> None:
    ann = await pair.one.dial()
    await ann.join()
    cursor = (await pair.one.get("/boards/board-1/tasks"))["cursor"]
    held = asyncio.create_task(pair.one.request("GET", f"/boards/board-1/poll?cursor={cursor}"))
    await asyncio.sleep(0.3)
    pair.wire.silence()
    began = time.monotonic()
    await pair.two.new_task("meanwhile")
    asked = [
        asyncio.create_task(pair.one.request("GET", path))
        for path in ("/boards/board-1/tasks", f"/boards/board-1/updates?cursor={cursor}", "/boards/board-1/updates")
    ]
    assert (await ann.until("goodbye", AWAY))["reason"] == "the database does not answer"
    assert await ann.closed() == 1012
    assert not await is_ready(pair.one)
    for path in ("/boards/board-1/tasks", "/boards/board-1/poll", f"/boards/board-1/updates?cursor={cursor}"):
        answer = await pair.one.request("GET", path)
        assert (answer.status_code, path) == (503, path)
    turned_away = await pair.one.dial()
    assert (await turned_away.until("goodbye"))["reason"] == "the database does not answer"
    assert await turned_away.closed() in (1012, 1013)
    assert time.monotonic() - began < 2 * AWAY
    assert (await held).json()["data"] == []
    async with asyncio.timeout(SETTLED):  # what was asked just when it fell silent
        assert {(await answer).status_code for answer in asked} == {503}


async def test_what_is_written_at_it_is_refused_or_its_fate_is_told_and_no_acknowledged_task_is_lost(
    pair: Pair,
) -> None:
    outcomes: dict[str, int] = {}
    has_ended = asyncio.Event()

    async def write(server: Server, name: str) -> None:
        number = 0
        while not has_ended.is_set():
            title = f"{name}-{number}"
            answer = await server.request("POST", "/tasks", {"listId": "list-todo", "title": title})
            outcomes[title] = answer.status_code
            number += 1
            await asyncio.sleep(0.01)

    writing = [asyncio.create_task(write(pair.one, f"at-one-{number}")) for number in range(4)]
    await asyncio.sleep(1.0)
    pair.wire.silence()
    silent_since = time.monotonic()
    known = set(outcomes)
    while len([title for title in outcomes if title not in known]) < 4:
        assert time.monotonic() - silent_since < SETTLED
        await asyncio.sleep(0.1)
    pair.wire.restore()
    await until_ready(pair.one, BACK)
    await asyncio.sleep(1.0)
    has_ended.set()
    async with asyncio.timeout(SETTLED):
        await asyncio.gather(*writing)
    print(f"\n{sorted(set(outcomes.values()))}, {len(outcomes)} writes")
    there = await titles(pair.two)
    assert len(there) == len(set(there))
    assert {title for title, status in outcomes.items() if status == 201} <= set(there)
    assert not {title for title, status in outcomes.items() if status == 503} & set(there)
    assert set(outcomes.values()) <= {201, 503, 500}
    assert outcomes[list(outcomes)[-1]] == 201


@pytest.mark.long
async def test_others_are_not_held_up_for_long_by_what_it_was_writing(pair: Pair) -> None:
    has_ended = asyncio.Event()

    async def write(server: Server) -> None:
        while not has_ended.is_set():
            await server.request("POST", "/tasks", {"listId": "list-todo", "title": "at one"})

    writing = [asyncio.create_task(write(pair.one)) for _ in range(4)]
    for _ in range(3):  # one of them is caught in the middle of a transaction
        await asyncio.sleep(0.5)
        pair.wire.silence()
        began = time.monotonic()
        async with asyncio.timeout(60):
            while not (await pair.two.request("POST", "/tasks", {"listId": "list-todo", "title": "2"})).is_success:
                await asyncio.sleep(0.1)
        assert time.monotonic() - began < 20.0
        pair.wire.restore()
        await until_ready(pair.one, BACK)
    has_ended.set()
    async with asyncio.timeout(SETTLED):
        await asyncio.gather(*writing)


async def test_it_comes_back_by_itself_and_nothing_was_missed(pair: Pair) -> None:
    ann = await pair.one.dial()
    await ann.join()
    await pair.one.new_task("before")
    cursor = (await ann.until("task_created"))["id"]
    pair.wire.silence()
    await ann.until("goodbye", AWAY)
    for number in range(5):
        await pair.two.new_task(f"meanwhile {number}")
    await asyncio.sleep(3.0)  # it tries to return, and what it dials is swallowed too
    pair.wire.restore()
    await until_ready(pair.one, BACK)
    back = await pair.one.dial()
    assert (await back.join(since=cursor))["recovered"]
    for number in range(5):
        assert (await back.until("task_created"))["task"]["title"] == f"meanwhile {number}"
    await pair.two.new_task("after")
    assert (await back.until("task_created"))["task"]["title"] == "after"
    assert await titles(pair.one) == await titles(pair.two)
    async with asyncio.timeout(SETTLED):  # every thread of it, not only the one that was lucky
        await asyncio.gather(*(pair.one.new_task(f"at both {number}") for number in range(8)))
    for _ in range(8):
        await back.until("task_created")


@pytest.mark.long
async def test_what_is_called_out_is_heard_again_when_it_is_back(pair: Pair) -> None:
    bob, _ = await arrive(pair.two, "Bob")
    await bob.join()
    pair.wire.silence()
    async with asyncio.timeout(2 * AWAY):
        while await is_ready(pair.one):
            await asyncio.sleep(0.1)
    pair.wire.restore()
    await until_ready(pair.one, BACK)
    ann, _ = await arrive(pair.one, "Ann")
    await ann.join()

    async def type_again() -> None:
        while True:  # it may still be about to notice that what it says goes nowhere
            for type in ("typing", "stop_typing"):
                await ann.send({"type": type, "boardId": "board-1"})
                await asyncio.sleep(1.0)

    typing = asyncio.create_task(type_again())
    assert (await bob.until("user_typing", 20.0))["name"] == "Ann"
    typing.cancel()


async def test_its_people_are_gone_for_others_within_15_seconds_and_come_back_with_it(pair: Pair) -> None:
    ann, session = await arrive(pair.one, "Ann")
    await ann.join()
    bob, _ = await arrive(pair.two, "Bob")
    await bob.join()
    pair.wire.silence()
    began = time.monotonic()
    assert (await bob.until("user_left", 20.0))["name"] == "Ann"
    assert time.monotonic() - began <= 15.0
    pair.wire.restore()
    await until_ready(pair.one, BACK)
    ann, _ = await arrive(pair.one, "Ann", session)
    if {user["name"] for user in (await ann.join())["users"]} == {"Ann"}:  # it asks for people by another link
        assert (await ann.until("user_joined", 10.0))["name"] == "Bob"
    assert (await bob.until("user_joined", 10.0))["name"] == "Ann"


@pytest.mark.long
async def test_who_goes_on_at_another_server_does_not_leave_for_the_others(pair: Pair) -> None:
    ann, session = await arrive(pair.one, "Ann")
    await ann.join()
    bob, _ = await arrive(pair.two, "Bob")
    assert sorted(user["name"] for user in (await bob.join())["users"]) == ["Ann", "Bob"]
    pair.wire.silence()
    await ann.until("goodbye", AWAY)
    returned, same = await arrive(pair.two, "Ann", session)
    assert same == session
    await returned.join()
    await asyncio.sleep(14.0)  # longer than the lease of the server that is cut off, and than the grace
    pair.wire.restore()
    await until_ready(pair.one, BACK)
    await asyncio.sleep(3.0)  # it looks, and learns that she has gone on
    before = len(bob.heard)
    await bob.send({"type": "ping"})
    await bob.until("pong")
    flickered: list[Any] = [
        message for message in bob.heard[before:] if message["type"] in ("user_left", "user_joined")
    ]
    assert flickered == []
