"""
What has stopped other clients for good, or made them storm: servers that welcome and hang up, proxies that answer for a
server that is away, loops that raise or leave, and tasks that are cancelled.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus
from itertools import pairwise

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

import holdfast
from holdfast import Event, State
from peers import WELCOME, StartBoard

JOINED = '{"type":"joined","room":"lobby","cursor":"e:0","recovered":false,"users":[],"roomSize":1}'


async def test_servers_that_welcome_and_hang_up_are_not_hammered() -> None:
    """Whatever they hang up with: the attempts grow apart, for a welcome that did not last is a failure."""
    dials: dict[int, list[float]] = {}

    def hang_up(code: int) -> object:
        async def welcome(socket: ServerConnection) -> None:
            dials[code].append(asyncio.get_running_loop().time())
            await socket.close(code)

        return welcome

    async with AsyncExitStack() as stack:
        for code in (1000, 1001, 1008, 1011, 1013, 3000, 4401, 4999):
            dials[code] = []
            server = await stack.enter_async_context(serve(hang_up(code), "127.0.0.1", 0))  # type: ignore[arg-type]
            port = server.sockets[0].getsockname()[1]
            await stack.enter_async_context(holdfast.connect(f"http://127.0.0.1:{port}"))
        await asyncio.sleep(6)
    for code, times in dials.items():
        assert 2 <= len(times) <= 9, (code, times)
        assert all(after - before >= 0.25 for before, after in pairwise(times)), (code, times)


@pytest.mark.parametrize("lets_move", [True, False])
async def test_a_server_that_says_move_over_and_over_is_not_hammered(*, lets_move: bool) -> None:
    """Whether each new link is told so too, or there is none to be had: it is dialed ever less often."""
    dials: list[float] = []

    def answer(socket: ServerConnection, request: Request) -> Response | None:
        dials.append(asyncio.get_running_loop().time())
        return None if lets_move or len(dials) == 1 else socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "not now\n")

    async def say_goodbye(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await socket.recv()
            await socket.send(WELCOME)
            while True:
                await socket.send('{"type":"goodbye","reason":"on you go","after_ms":0,"spread_ms":0}')
                await asyncio.sleep(0.01)

    async with serve(say_goodbye, "127.0.0.1", 0, process_request=answer) as server:
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}", jitter=False):
            await asyncio.sleep(7)
    gaps = [after - before for before, after in pairwise(dials)]
    least = (0.25, 0.25, 2.0, 4.0) if lets_move else (0.25, 2.0, 4.0)
    assert 2 <= len(gaps) <= len(least), gaps
    assert all(gap > at_least - 0.02 for gap, at_least in zip(gaps, least, strict=False)), gaps


@pytest.mark.parametrize(
    "frame", ["oops", '{"type":"said","room":"lobby","id":"e:1","n":1e400}', '{"type":1}', "[]", ""]
)
async def test_a_server_that_says_what_cannot_be_read_is_not_hammered(frame: str) -> None:
    """Its log has a publication that nobody can read; to ask for it again would be answered the same."""
    said: list[float] = []

    async def serve_poison(socket: ServerConnection) -> None:
        async for text in socket:
            assert isinstance(text, str)
            if '"auth"' in text:
                await socket.send(WELCOME)
            else:
                said.append(asyncio.get_running_loop().time())
                await socket.send(
                    '{"type":"joined","room":"lobby","cursor":"e:0","recovered":false,"users":[],"roomSize":1}'
                )
                await socket.send(frame)
                await socket.send('{"type":"said","room":"lobby","id":"e:2"}')

    async with serve(serve_poison, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}") as client, client.join("lobby"):
            await asyncio.sleep(4)
    assert 2 <= len(said) <= 8
    assert all(after - before >= 0.25 for before, after in pairwise(said))


async def test_a_reader_that_wakes_while_there_is_no_link_asks_for_nothing_before_it_has_joined() -> None:
    """The server would answer that it is not in the room, which would be the end of the room."""
    links: list[list[str]] = []
    may_welcome = asyncio.Event()

    async def serve_much(socket: ServerConnection) -> None:
        links.append([])
        if len(links) > 1:
            await may_welcome.wait()
        async for text in socket:
            links[-1].append(msgspec.json.decode(text)["type"])
            if links[-1] == ["auth"]:
                await socket.send(WELCOME)
            elif len(links) == 1:
                await socket.send(
                    '{"type":"joined","room":"lobby","cursor":"e:0","recovered":false,"users":[],"roomSize":1}'
                )
                for number in range(1, 1200):
                    await socket.send(f'{{"type":"said","room":"lobby","id":"e:{number}"}}')
                await socket.close(1012)

    async with serve(serve_much, "127.0.0.1", 0) as server, asyncio.timeout(20):
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}") as client, client.join("lobby") as room:
            while len(links) < 2:
                await asyncio.sleep(0.05)
            reading = asyncio.create_task(_read_for_ever(room))
            while room.waiting:
                await asyncio.sleep(0.05)
            may_welcome.set()
            while len(links[1]) < 2:
                await asyncio.sleep(0.05)
            reading.cancel()
    assert links[1][:2] == ["auth", "join"]


async def _read_for_ever(room: holdfast.Room) -> None:
    async for _ in room:
        pass


@pytest.mark.parametrize("status", [404, 408, 429, 500, 502, 503, 504])
async def test_what_a_proxy_answers_for_a_server_that_is_away_ends_nothing(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [status] * 2

    def answer(socket: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/ws") and answers:
            answers.pop()
            return socket.respond(HTTPStatus(status), "not now\n")
        return None if request.path.startswith("/ws") else socket.respond(HTTPStatus(status), "not now\n")

    async def greet(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(WELCOME)
        await socket.wait_closed()

    async with serve(greet, "127.0.0.1", 0, process_request=answer) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20), holdfast.connect(f"http://127.0.0.1:{port}") as client:
            await client.ready()
            assert client.status.state is State.LIVE
    assert not [record for record in caplog.records if record.exc_info], caplog.text


async def test_a_loop_that_raises_harms_only_itself(start_board: StartBoard) -> None:
    server = start_board()
    async with holdfast.connect(server.url) as client:
        with suppress(ZeroDivisionError):
            async with client.join("board-1") as room:
                async for _ in room:
                    raise ZeroDivisionError
        async with client.join("board-1") as room:
            await anext(room)
            task = await server.new_task("still there")
            event = await anext(room)
    assert isinstance(event, Event)
    assert event.data["task"] == task


async def test_whoever_leaves_and_joins_again_in_the_middle_of_a_loop_sees_each_once(start_board: StartBoard) -> None:
    """What was told is not told again, though the room is joined anew in the loop's own body."""
    server = start_board()
    seen: list[str] = []
    async with asyncio.timeout(30), holdfast.connect(server.url) as client:
        for number in range(5):
            async with client.join("board-1") as room:
                assert (await anext(room)).type == "resync"
                await server.new_task(f"number {number}")
                async for item in room:
                    assert isinstance(item, Event)
                    seen.append(item.data["task"]["title"])
                    break
    assert seen == [f"number {number}" for number in range(5)]


async def test_a_cancelled_task_ends_at_once_whatever_the_client_is_about(start_board: StartBoard) -> None:
    server = start_board()

    async def follow() -> None:
        async with holdfast.connect(server.url) as client, client.join("board-1") as room:
            arrived.set()
            async for _ in room:
                pass

    for is_there in (True, False):
        arrived = asyncio.Event()
        if not is_there:
            server.kill()
        task = asyncio.create_task(follow())
        await arrived.wait()
        await asyncio.sleep(0.5)
        task.cancel()
        async with asyncio.timeout(2):
            with pytest.raises(asyncio.CancelledError):
                await task
    assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}  # type: ignore[union-attr]
