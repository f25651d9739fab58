"""
The server is killed, and the client comes back: by itself, as the same person, to the same rooms.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

import holdfast
from faults import Proxy
from holdfast import Client, Event, Malformed, Resumed, Resync, Snapshot, State, Status
from peers import StartBoard


class Log:
    """What a client was told, as it came."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.statuses: list[Status] = []
        self._more = asyncio.Event()

    def add(self, to: list[Any], what: Any) -> None:
        to.append(what)
        self._more.set()

    async def until(self, found: Any, seconds: float = 10.0) -> Any:
        """Wait until `found(self)` is true, and return what it is."""
        async with asyncio.timeout(seconds):
            while not (result := found(self)):
                self._more.clear()
                await self._more.wait()
            return result

    def events(self, type: str) -> list[Event]:
        return [item for item in self.items if isinstance(item, Event) and item.type == type]

    def waits(self) -> list[float]:
        return [status.delay for status in self.statuses if status.state is State.WAITING]

    def lives(self) -> int:
        return sum(status.state is State.LIVE for status in self.statuses)


@asynccontextmanager
async def watched(client: Client, room: str = "board-1") -> AsyncIterator[Log]:
    """Note what a client is told."""
    log = Log()

    async def watch_items() -> None:
        async for item in joined:
            log.add(log.items, item)

    async def watch_statuses() -> None:
        async for status in client.statuses():
            log.add(log.statuses, status)

    async with client, client.join(room) as joined:
        tasks = [asyncio.create_task(watch_items()), asyncio.create_task(watch_statuses())]
        try:
            yield log
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.long
async def test_a_client_returns_after_kill_9_with_ceilings_1_2_4_and_then_1_again(start_board: StartBoard) -> None:
    server = start_board()
    login = await server.post("/login", {"name": "Alice"})
    client = holdfast.connect(server.url, token=login["data"]["token"], jitter=False)
    async with watched(client) as log:
        await log.until(lambda log: log.items)
        assert isinstance(log.items[0], Resync)
        assert log.items[0].reason == "new"
        await asyncio.sleep(holdfast.core.backoff.STABLE_AFTER)  # a link that lived
        server.kill()
        await log.until(lambda log: len(log.waits()) == 3)
        assert log.waits() == [1, 2, 4]
        server.start()
        await log.until(lambda log: log.lives() == 2)
        await log.until(lambda log: [item for item in log.items if isinstance(item, Resumed)])
        assert client.user is not None
        assert client.user.name == "Alice"  # still signed in
        task = await server.new_task("it is in the room again")
        await log.until(lambda log: log.events("task_created"))
        assert log.events("task_created")[0].data["task"] == task
        server.kill()  # at once
        await log.until(lambda log: len(log.waits()) == 4)
        assert log.waits()[3] == 1


async def test_with_jitter_every_delay_is_below_its_ceiling(start_board: StartBoard) -> None:
    client = holdfast.connect("http://127.0.0.1:9")  # nobody is there
    async with watched(client) as log:
        await log.until(lambda log: len(log.waits()) == 3, 20)
        waiting = [status for status in log.statuses if status.state is State.WAITING]
        assert [status.ceiling for status in waiting] == [1, 2, 4]
        assert all(0.25 <= status.delay <= status.ceiling for status in waiting)


async def test_what_was_missed_comes_once_and_in_order(start_board: StartBoard) -> None:
    server = start_board()
    async with watched(holdfast.connect(server.url, jitter=False)) as log:
        await log.until(lambda log: log.items)
        first = await server.new_task("before")
        await log.until(lambda log: log.events("task_created"))
        server.kill()
        await log.until(lambda log: log.waits())
        server.start()
        missed = [await server.new_task(f"missed {n}") for n in range(300)]
        await log.until(lambda log: len(log.events("task_created")) == 301)
        assert [event.data["task"]["id"] for event in log.events("task_created")] == [
            task["id"] for task in (first, *missed)
        ]
        assert len([item for item in log.items if isinstance(item, Resumed | Resync)]) == 2


async def test_with_a_snapshot_function_a_start_afresh_is_a_snapshot_and_nothing_falls_between(
    start_board: StartBoard,
) -> None:
    server = start_board()

    async def snapshot(room: str) -> tuple[Any, str]:
        answer = await server.get(f"/boards/{room}/tasks")
        await server.new_task("between the snapshot and the join")
        return answer["data"], answer["cursor"]

    client = holdfast.connect(server.url, snapshot=snapshot, recover="snapshot", jitter=False)
    async with watched(client) as log:
        await log.until(lambda log: log.events("task_created"))
        assert isinstance(log.items[0], Snapshot)
        assert len(log.items[0].data) == 4
        server.kill()
        await log.until(lambda log: log.waits())
        server.start()
        await log.until(lambda log: len(log.events("task_created")) == 2)
        snapshots = [item for item in log.items if isinstance(item, Snapshot)]
        assert [item.reason for item in snapshots] == ["new", "chosen"]
        assert len(snapshots[1].data) == 5


async def test_a_snapshot_that_arrives_while_another_link_is_dialed_is_as_good(start_board: StartBoard) -> None:
    server = start_board()
    async with Proxy(server.port) as proxy:

        async def snapshot(room: str) -> tuple[Any, str]:
            answer = await server.get(f"/boards/{room}/tasks")
            if len(answer["data"]) == 4:
                proxy.reset(1.0, random.Random(0))
                await server.new_task("after the snapshot")
                async for status in client.statuses():
                    if status.state in (State.DIALING, State.GREETING):
                        break
            return answer["data"], answer["cursor"]

        client = holdfast.connect(f"ws://127.0.0.1:{proxy.port}/ws", snapshot=snapshot, jitter=False)
        async with watched(client) as log:
            await log.until(lambda log: log.events("task_created"))
            assert isinstance(log.items[0], Snapshot)


async def test_a_snapshot_that_was_begun_on_a_link_that_is_gone_is_for_nothing_on_the_next() -> None:
    begun: asyncio.Queue[asyncio.Future[tuple[Any, str]]] = asyncio.Queue()
    sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def start_afresh(socket: ServerConnection) -> None:
        await socket.send(WELCOME)
        async for text in socket:
            if '"join"' in str(text):
                await socket.send(
                    '{"type":"joined","room":"r","cursor":"k:0","recovered":false,"users":[],"roomSize":1}'
                )
                await sockets.put(socket)

    async def snapshot(room: str) -> tuple[Any, str]:
        await begun.put(taken := asyncio.get_running_loop().create_future())
        return await taken

    async with asyncio.timeout(10), serve(start_afresh, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = holdfast.connect(f"http://127.0.0.1:{port}", snapshot=snapshot, jitter=False)
        async with client, client.join("r") as room:
            old = await begun.get()
            await (await sockets.get()).close(1012)
            new = await begun.get()
            old.set_result(("old", "k:0"))
            new.set_result(("new", "k:1"))
            item = await anext(room)
            assert isinstance(item, Snapshot)
            assert item.data == "new"


async def test_a_database_that_was_replaced_is_told_as_a_start_afresh(start_board: StartBoard) -> None:
    server = start_board()
    async with watched(holdfast.connect(server.url, jitter=False)) as log:
        await log.until(lambda log: log.items)
        server.kill()
        for file in server.folder.glob("board.db*"):
            file.unlink()
        server.start()
        found = await log.until(lambda log: [i for i in log.items[1:] if isinstance(i, Resync)], 15)
        assert found[0].reason == "epoch"


async def test_a_client_never_returns_after_4001(start_board: StartBoard) -> None:
    server = start_board("--require-login")
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        return "not a token"

    for given, times in ((None, 0), ("not a token", 0), (token, 2)):
        client = holdfast.connect(server.url, token=given)
        async with client:
            with pytest.raises(holdfast.Closed) as caught:
                await asyncio.wait_for(client.ready(), 10)
            assert caught.value.code == 4001
            assert client.status.state is State.CLOSED
        assert asked == times
    assert (await server.get("/metrics-are-text", accept="*/*"))["error"]


async def test_a_server_that_welcomes_and_dies_is_not_hammered() -> None:
    dials: list[float] = []

    async def die(socket: ServerConnection) -> None:
        dials.append(asyncio.get_running_loop().time())
        await socket.close(1013)

    async with serve(die, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}"):
            await asyncio.sleep(5)
    assert len(dials) <= 8
    assert all(after - before >= 0.25 for before, after in pairwise(dials))


async def test_a_server_that_never_greets_is_given_up(start_board: StartBoard) -> None:
    async def be_silent(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(be_silent, "127.0.0.1", 0, close_timeout=0) as server:
        port = server.sockets[0].getsockname()[1]
        async with watched(holdfast.connect(f"http://127.0.0.1:{port}", jitter=False)) as log:
            await log.until(lambda log: log.waits(), 12)
            assert log.lives() == 0


async def test_a_frozen_server_is_noticed_and_returned_to(start_board: StartBoard) -> None:
    server = start_board("--heartbeat-interval", "1", "--heartbeat-timeout", "1")
    async with watched(holdfast.connect(server.url, jitter=False)) as log:
        await log.until(lambda log: log.items)
        server.freeze()
        # interval + timeout, then a probe of 3 s
        await log.until(lambda log: log.waits(), 7)
        server.thaw()
        await log.until(lambda log: log.lives() == 2, 15)
        await server.new_task("again")
        await log.until(lambda log: log.events("task_created"))
        assert not [item for item in log.items if item.type in ("user_joined", "user_left")]  # its own twin is nobody


async def test_advice_goes_before_backoff() -> None:
    async def advise(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(WELCOME)
        await socket.send('{"type":"goodbye","reason":"moving","after_ms":3000,"spread_ms":500}')
        await socket.close(1012)

    async with serve(advise, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for jitter in (True, False):
            async with watched(holdfast.connect(f"http://127.0.0.1:{port}", jitter=jitter)) as log:
                await log.until(lambda log: log.waits())
                (waiting,) = [status for status in log.statuses if status.state is State.WAITING]
                assert waiting.ceiling == 3.5
                assert 3.0 <= waiting.delay <= 3.5


WELCOME = (
    '{"type":"connected","session":"s","user":{"userId":"u","name":"U"},"roomKey":"room",'
    '"heartbeat":{"interval":30,"timeout":10},"limits":{"messageBytes":1,"rooms":1,"messagesPerSecond":1}}'
)


@pytest.mark.parametrize("cursor", ["nothing", None, 7])
async def test_a_snapshot_without_a_cursor_fails_where_the_room_is_iterated(
    start_board: StartBoard, cursor: object
) -> None:
    async def fetch(room: str) -> Any:
        return [], cursor

    server = start_board()
    connected = holdfast.connect(f"{server.url}/ws", snapshot=fetch)
    async with asyncio.timeout(10), connected as client, client.join("board-1") as room:
        with pytest.raises(Malformed, match="has no cursor"):
            await anext(room)
