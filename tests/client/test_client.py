"""
What a client does while its link is well: rooms, messages, a reader that is slow, a server that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.server import ServerConnection, serve

import holdfast
from holdfast import Closed, ConcurrencyError, Event, Forbidden, Hub, Resync, State, Unavailable
from holdfast.client.room import WAITING
from holdfast.core import link
from holdfast.testing import Sea
from peers import Server, StartBoard

APP = """
from holdfast import Hub
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

hub = Hub("memory:")
failures = iter([True, False])

@hub.authorize
def may(user, room, action):
    if room == "attic" and next(failures, False):
        raise RuntimeError("the database of permissions is away")
    return True

async def put_out(request):
    await hub.remove(request.query_params["user"], "lobby")
    return Response()

async def fill(request):
    for number in range(int(request.query_params["count"])):
        await hub.publish("lobby", "number", {"number": number})
    return Response()

routes = [Route("/fill", fill, methods=["POST"]), Route("/out", put_out, methods=["POST"]), Mount("/", hub.app)]
app = Starlette(routes=routes, lifespan=hub.lifespan)
"""


async def test_a_room_can_be_left_and_joined_again(start_board: StartBoard) -> None:
    server = start_board()
    async with holdfast.connect(server.url) as client:
        room = client.join("board-1")
        for title in ("first", "second"):
            async with room:
                assert isinstance(await anext(room), Resync if title == "first" else holdfast.Resumed)
                await server.new_task(title)
                event = await anext(room)
                assert isinstance(event, Event)
                assert event.data["task"]["title"] == title


async def test_a_client_is_in_a_room_once(start_board: StartBoard) -> None:
    server = start_board()
    async with holdfast.connect(server.url) as client, client.join("board-1"):
        with pytest.raises(ValueError, match="is in board-1 already"):
            async with client.join("board-1"):
                pass


async def test_without_a_link_a_message_is_refused_and_not_kept() -> None:
    async with holdfast.connect("http://localhost:9") as client, client.join("board-1") as room:
        with pytest.raises(Unavailable, match="no link"):
            await room.send("typing")


@pytest.mark.parametrize("ends", ["late", "cancelled"])
async def test_a_token_that_does_not_come_is_asked_for_again(
    start_board: StartBoard, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr(link, "TOKEN_SECONDS", 0.2)
    server = start_board()
    known = (await server.post("/login", {"name": "Ann"}))["data"]
    asked: list[asyncio.Future[str]] = []

    def token() -> asyncio.Future[str]:
        asked.append(asyncio.get_running_loop().create_future())
        if len(asked) == 1 and ends == "cancelled":
            asked[0].cancel()  # what several have waited for, say
        elif len(asked) == 2:
            asked[1].set_result(known["token"])
        return asked[-1]

    async with holdfast.connect(server.url, token=token) as client:
        async with asyncio.timeout(10):
            await client.ready()
        assert client.user is not None
        assert client.user.name == "Ann"
        if ends == "late":
            asked[0].set_exception(RuntimeError("too late"))
        await asyncio.sleep(0.1)
        assert client.status.state is State.LIVE
        assert len(asked) == 2


async def test_a_closed_client_says_so_to_whoever_joins(start_board: StartBoard) -> None:
    client = holdfast.connect(start_board().url)
    async with client:
        await client.ready()
    with pytest.raises(Closed):
        async with client.join("board-1"):
            pass


async def test_a_room_that_is_refused_fails_where_it_is_iterated(start_board: StartBoard) -> None:
    server = start_board()
    async with holdfast.connect(server.url) as client, client.join("no-such-board") as room:
        with pytest.raises(holdfast.NotFound):
            await anext(room)


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "chat.py").write_text(APP)
    with Server(tmp_path, "serve", "chat:app") as server:
        yield server


async def test_a_slow_reader_holds_a_bounded_number_of_events_and_misses_none(chat: Server) -> None:
    count = 3 * WAITING
    async with holdfast.connect(f"{chat.url}/ws") as client, client.join("lobby") as room:
        assert isinstance(await anext(room), Resync)
        await chat.request("POST", f"/fill?count={count}")
        await asyncio.sleep(0.5)  # everything has come that will come by itself
        assert room.waiting <= WAITING
        numbers = []
        async with asyncio.timeout(20):
            while len(numbers) < count:
                event = await anext(room)
                assert isinstance(event, Event)
                numbers.append(event.data["number"])
        assert numbers == list(range(count))


@pytest.mark.long
async def test_a_reader_that_pauses_again_and_again_misses_none_of_a_room_that_has_fallen_quiet(chat: Server) -> None:
    count = 9 * WAITING
    async with holdfast.connect(f"{chat.url}/ws") as client, client.join("lobby") as room:
        assert isinstance(await anext(room), Resync)
        await chat.request("POST", f"/fill?count={count}")
        numbers = []
        async with asyncio.timeout(30):
            while len(numbers) < count:
                event = await anext(room)
                assert isinstance(event, Event)
                numbers.append(event.data["number"])
                if len(numbers) % 400 == 0:
                    await asyncio.sleep(0.03)
        assert numbers == list(range(count))


async def test_of_two_who_read_a_room_at_once_the_second_is_told_so(chat: Server) -> None:
    async with holdfast.connect(f"{chat.url}/ws") as client, client.join("lobby") as room:
        assert isinstance(await anext(room), Resync)
        first = asyncio.ensure_future(anext(room))
        await asyncio.sleep(0)
        with pytest.raises(ConcurrencyError, match="lobby is being read by another task already"):
            await anext(room)
        await chat.request("POST", "/fill?count=1")
        assert isinstance(await first, Event), "the first is not harmed"
        stops = asyncio.ensure_future(anext(room))
        await asyncio.sleep(0)
        stops.cancel()
        await asyncio.wait([stops])
        await chat.request("POST", "/fill?count=1")
        assert isinstance(await anext(room), Event)


async def test_a_join_that_failed_for_no_fault_of_ours_is_tried_again(chat: Server) -> None:
    async with holdfast.connect(f"{chat.url}/ws") as client, client.join("attic") as room:
        async with asyncio.timeout(5):
            assert isinstance(await anext(room), Resync)


async def test_whoever_is_put_out_of_a_room_is_told(chat: Server) -> None:
    async with holdfast.connect(f"{chat.url}/ws") as client, client.join("lobby") as room:
        await anext(room)
        assert client.user is not None
        await chat.request("POST", f"/out?user={client.user.user_id}")
        async with asyncio.timeout(5):
            with pytest.raises(Forbidden, match="put this client out of lobby"):
                _ = [item async for item in room]


CONNECTED = (
    '{"type":"connected","session":"s","user":{"userId":"u","name":"U"},"roomKey":"room",'
    '"heartbeat":{"interval":30,"timeout":10},"limits":{"messageBytes":1,"rooms":1,"messagesPerSecond":1}}'
)


@pytest.mark.parametrize(("pause", "waits"), [(0.4, 0.4), (5.0, 1.0)])
async def test_who_closes_a_client_says_goodbye_and_waits_a_second_for_it_to_be_heard(
    pause: float, waits: float
) -> None:
    async def greet_and_pause(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(CONNECTED)
        connection.transport.pause_reading()
        asyncio.get_running_loop().call_later(pause, connection.transport.resume_reading)
        await connection.wait_closed()

    async with serve(greet_and_pause, "localhost", 0, close_timeout=1) as server:
        client = holdfast.connect(f"ws://localhost:{server.sockets[0].getsockname()[1]}")
        async with client:
            await client.ready()
            began = asyncio.get_running_loop().time()
        assert waits - 0.1 < asyncio.get_running_loop().time() - began < waits + 1.0
        server.close()


async def test_a_server_that_takes_nothing_is_left() -> None:
    async def greet_and_read_no_more(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(CONNECTED)
        await connection.wait_closed()

    async with serve(greet_and_read_no_more, "localhost", 0, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"ws://localhost:{port}", jitter=False) as client, client.join("lobby") as room:
            await client.ready()
            async with asyncio.timeout(60):
                while client.status.state is State.LIVE:
                    await room.send("filler", text="x" * 20_000)
                    await asyncio.sleep(0)
            assert client.status.reason == "the server takes nothing more"


@pytest.mark.parametrize("breaks", [False, True])
def test_what_is_answered_to_whoever_was_in_before_is_nothing_to_who_joins_again_at_once(breaks: bool) -> None:
    hub = Hub("memory:")
    app = Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan)

    async def story() -> None:
        async with sea.connect(sea.serve(app)) as ann:
            first = ann.join("lobby")
            await first.__aenter__()
            if breaks:
                assert isinstance(await anext(first), Resync)
                sea.cut(ann)
                for state in (State.WAITING, State.LIVE):
                    async for status in ann.statuses():
                        if status.state is state:
                            break
                assert not first.replica.is_joined  # it has asked
            await first.__aexit__(None, None, None)
            async with ann.join("lobby") as second:
                told = await sea.history(second)
                await hub.publish("lobby", "said", {"text": "one"})
                await sea.sleep(5)
                assert told.data == [{"text": "one"}]
                assert told.ended is None
                assert ann.status.state is State.LIVE

    with Sea() as sea:
        sea.run(story())


def test_a_room_that_is_joined_while_the_link_is_probed_is_joined() -> None:
    hub = Hub("memory:")
    app = Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan)

    async def story() -> None:
        async with sea.connect(sea.serve(app)) as ann:
            ann.retry_now()
            async for status in ann.statuses():
                if status.state is State.PROBING:
                    break
            async with ann.join("lobby") as room:
                told = await sea.history(room)
                await hub.publish("lobby", "said", {"text": "one"})
                await sea.sleep(5)
                assert told.data == [{"text": "one"}]

    with Sea() as sea:
        sea.run(story())
