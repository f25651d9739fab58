"""Several servers on one PostgreSQL database: what is promised on one is promised on all of them together."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

import holdfast
from databases import Cluster, Redis, create
from deploy.rolling import rolling_deploy
from holdfast import Hub, User
from holdfast.store.postgres_people import LOOK_SECONDS
from peers import Balancer, Peer, Server

Start = Callable[..., Server]
PRESENCE = ("user_joined", "user_left")


@pytest.fixture
def start(tmp_path: Path, database: str) -> Iterator[Start]:
    """Start boards on one database."""
    with ExitStack() as running:

        def board(*options: str, store: str = database) -> Server:
            folder = tmp_path / f"node-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return running.enter_context(Server(folder, "board", "--store", store, *options))

        yield board


dialled: list[Peer] = []


@pytest.fixture(autouse=True)
async def hang_up() -> AsyncIterator[None]:
    """Close what a test has opened."""
    yield
    while dialled:
        await dialled.pop().close()


async def dial(server: Server) -> Peer:
    dialled.append(await server.dial())
    return dialled[-1]


async def sign_in(server: Server, name: str) -> str:
    return str((await server.post("/login", {"name": name}))["data"]["token"])


async def arrive(server: Server, token: str, session: str | None = None) -> tuple[Peer, str]:
    """Connect as somebody, perhaps with a session from before; return the session."""
    peer = await dial(server)
    await peer.next()
    await peer.send({"type": "auth", "token": token, **({} if session is None else {"session": session})})
    return peer, (await peer.until("connected"))["session"]


async def until_told(peer: Peer, type: str, seconds: float = 5.0) -> Any:
    return await peer.until(type, seconds)


async def enter(hub: Hub, token: str, room: str = "lobby") -> None:
    """Have somebody in a room, as long as the hub is open; put out of it, they come again at once."""
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    is_in = asyncio.Event()
    join = {"type": "websocket.receive", "text": json.dumps({"type": "join", "room": room})}

    async def send(message: Any) -> None:
        if '"joined"' in message.get("text", ""):
            is_in.set()
        if '"left"' in message.get("text", ""):
            incoming.put_nowait(join)

    for message in ({"type": "websocket.connect"}, join):
        incoming.put_nowait(message)
    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": f"token={token}".encode()}
    hub.opened.hands.spawn(hub.websocket(scope, incoming.get, send))
    await is_in.wait()


async def until_shown(hub: Hub, users: list[str], room: str = "lobby") -> None:
    """Wait until these are shown in a room; and the database says so, too."""
    async with asyncio.timeout(5):
        while sorted(user.user_id for user in hub.members(room)) != users:
            await asyncio.sleep(0.02)
    assert sorted(user.user_id for user in await hub.find_members(room)) == users


def names(joined: Any) -> list[str]:
    return sorted(user["name"] for user in joined["users"])


async def test_what_is_written_at_one_is_heard_at_the_other_and_positions_are_the_same(start: Start) -> None:
    one, two = start(), start()
    ann, bob = await dial(one), await dial(two)
    await ann.join()
    await bob.join()
    made = await two.new_task("at the other")
    told = [await peer.until("task_created") for peer in (ann, bob)]
    assert told[0] == told[1]
    assert told[0]["task"] == made
    await one.new_task("at this")
    told = [await peer.until("task_created") for peer in (ann, bob)]
    assert told[0] == told[1]
    late = await dial(one)
    assert (await late.join(since=(await one.get("/boards/board-2/tasks"))["cursor"]))["recovered"]


async def test_a_cursor_of_one_is_good_at_the_other_on_every_road(start: Start) -> None:
    one, two = start(), start()
    cursor = (await one.get("/boards/board-1/tasks"))["cursor"]
    for number in range(5):
        await (one, two)[number % 2].new_task(f"task {number}")
    for server in (one, two):
        polled = await server.get(f"/boards/board-1/poll?cursor={cursor}")
        assert [event["task"]["title"] for event in polled["data"]] == [f"task {number}" for number in range(5)]
        peer = await dial(server)
        assert (await peer.join(since=cursor))["recovered"]
        for number in range(5):
            assert (await peer.until("task_created"))["task"]["title"] == f"task {number}"


async def test_people_of_all_servers_are_shown_once(start: Start) -> None:
    one, two = start(), start()
    ann, bob = await sign_in(one, "Ann"), await sign_in(two, "Bob")
    first, _ = await arrive(one, ann)
    await first.join()
    second, _ = await arrive(two, bob)
    assert names(await second.join()) == ["Ann", "Bob"]
    assert (await first.until("user_joined"))["name"] == "Bob"
    tab, _ = await arrive(two, ann)
    joined = await tab.join()
    assert (names(joined), joined["roomSize"]) == (["Ann", "Bob"], 2)
    await first.close()
    await asyncio.sleep(0.5)
    assert not [message for message in second.heard if message["type"] == "user_left"]
    await tab.close()
    assert (await second.until("user_left"))["name"] == "Ann"


async def test_a_session_goes_on_at_another_server_and_nobody_sees_it_leave(start: Start) -> None:
    one, two = start(), start()
    ann, bob = await sign_in(one, "Ann"), await sign_in(one, "Bob")
    watchers = []
    for server in (one, two):
        watcher, _ = await arrive(server, bob)
        await watcher.join()
        watchers.append(watcher)
    twin, session = await arrive(one, ann)
    await twin.join()
    for watcher in watchers:
        await watcher.until("user_joined")
    returned, same = await arrive(two, ann, session)
    assert same == session
    await returned.join()
    assert await twin.closed(2.0) == 4009
    await asyncio.sleep(6.0)  # longer than the grace
    for watcher in watchers:
        before = len(watcher.heard)
        await watcher.send({"type": "ping"})
        await watcher.until("pong")
        assert not [message for message in watcher.heard[before:] if message["type"] in PRESENCE]
    await returned.close()
    for watcher in watchers:
        assert (await watcher.until("user_left"))["name"] == "Ann"


async def test_somebody_elses_session_is_not_taken_over(start: Start) -> None:
    one, two = start(), start()
    victim, session = await arrive(one, await sign_in(one, "Ann"))
    await victim.join()
    _, other = await arrive(two, await sign_in(one, "Bob"), session)
    assert other != session
    await victim.send({"type": "ping"})
    await victim.until("pong")


async def test_nobody_makes_a_server_deaf_by_what_no_database_takes(start: Start) -> None:
    one, two = start(), start()
    strangers = [await dial(one) for _ in range(3)]
    for stranger in strangers:
        await stranger.until("connected")
        await stranger.send({"type": "auth", "session": "\0"})
        assert (await stranger.until("error"))["code"] == "malformed"
        await stranger.join()
    await strangers[0].send({"type": "command", "boardId": "board-1", "key": "\0", "ref": 1})
    assert (await strangers[0].until("error"))["code"] == "malformed"
    for path in ("/tasks", "/boards", "/login"):
        body = {"listId": "list-todo", "title": "a\0", "name": "a\0"}
        assert (await one.request("POST", path, body)).status_code == 422
    assert (await one.request("GET", "/boards/%00/tasks")).status_code == 404
    ann, _ = await arrive(one, await sign_in(one, "Ann"))
    await ann.join()
    bob, _ = await arrive(two, await sign_in(two, "Bob"))
    joined = await bob.join()
    assert {"Ann", "Bob"} <= set(names(joined))
    assert joined["roomSize"] == 5
    assert "NUL" not in one.log.read_text()
    assert "Traceback" not in one.log.read_text()


async def test_a_server_that_is_killed_leaves_no_ghost_longer_than_15_seconds(start: Start) -> None:
    one, two = start(), start()
    ghost, _ = await arrive(one, await sign_in(one, "Ann"))
    await ghost.join()
    watcher, _ = await arrive(two, await sign_in(two, "Bob"))
    assert names(await watcher.join()) == ["Ann", "Bob"]
    one.kill()
    began = time.monotonic()
    assert (await watcher.until("user_left", 20.0))["name"] == "Ann"
    assert time.monotonic() - began <= 15.0
    late, _ = await arrive(two, await sign_in(two, "Cy"))
    assert names(await late.join()) == ["Bob", "Cy"]


@pytest.mark.long
async def test_a_server_that_stood_still_is_thought_dead_and_its_people_come_back_with_it(start: Start) -> None:
    one, two = start(), start()
    stalled, _ = await arrive(one, await sign_in(one, "Ann"))
    await stalled.join()
    watcher, _ = await arrive(two, await sign_in(two, "Bob"))
    await watcher.join()
    one.freeze()
    assert (await watcher.until("user_left", 20.0))["name"] == "Ann"
    one.thaw()
    assert (await watcher.until("user_joined", 10.0))["name"] == "Ann"
    await two.new_task("after")
    await stalled.until("task_created")


@pytest.mark.long
async def test_a_server_that_drains_hands_its_people_over(start: Start) -> None:
    one, two = start(), start()
    ann = await sign_in(one, "Ann")
    moving, session = await arrive(one, ann)
    await moving.join()
    watcher, _ = await arrive(two, await sign_in(two, "Bob"))
    await watcher.join()
    stopping = asyncio.create_task(asyncio.to_thread(one.stop))
    await moving.until("goodbye")
    await moving.closed()
    returned, same = await arrive(two, ann, session)
    await returned.join()
    assert same == session
    await stopping
    await asyncio.sleep(13.0)  # longer than the lease of the server that has gone
    before = len(watcher.heard)
    await watcher.send({"type": "ping"})
    await watcher.until("pong")
    assert not [message for message in watcher.heard[before:] if message["type"] in PRESENCE]


async def test_who_is_in_a_room_can_be_asked_at_a_server_where_nobody_is(database: str) -> None:
    one, two = Hub(database), Hub(database)
    for hub in (one, two):
        hub.authenticate(lambda token, request: None if token is None else User(token, token.title()))
    async with one, two:
        await asyncio.gather(enter(one, "ann"), enter(one, "bob"), enter(two, "cy", "attic"), enter(one, "cy", "attic"))
        for hub in (one, two):
            async with asyncio.timeout(5):
                while sorted(user.name for user in await hub.find_members("lobby")) != ["Ann", "Bob"]:
                    await asyncio.sleep(0.02)
            async with asyncio.timeout(5):
                while [user.name for user in await hub.find_members("attic")] != ["Cy"]:
                    await asyncio.sleep(0.02)
            assert await hub.find_members("cellar") == []
        assert two.members("lobby") == []


@pytest.fixture
async def two_hubs(database: str) -> AsyncIterator[tuple[Hub, Hub]]:
    """Two servers: with Ann and Bob at the one, and Cy at the other, in the same room."""
    one, two = Hub(database), Hub(database)
    for hub in (one, two):
        hub.authenticate(lambda token, request: None if token is None else User(token, token.title()))
    async with one, two:
        await asyncio.gather(enter(one, "ann"), enter(one, "bob"), enter(two, "cy"))
        for hub in (one, two):
            await until_shown(hub, ["ann", "bob", "cy"])
        yield one, two


async def test_who_is_removed_and_comes_back_at_once_is_shown_at_every_server(
    two_hubs: tuple[Hub, Hub], database: str
) -> None:
    one, two = two_hubs
    with psycopg.connect(database) as apart:
        apart.execute("LOCK TABLE holdfast_expulsion IN SHARE MODE")  # so it takes a while
        removing = asyncio.create_task(one.remove("ann", "lobby"))
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with psycopg.connect(database, autocommit=True) as looking:
            while not looking.execute(waiting).fetchall():
                await asyncio.sleep(0.02)
    await removing
    await asyncio.sleep(1.5 * LOOK_SECONDS)
    for hub in (one, two):
        await until_shown(hub, ["ann", "bob", "cy"])


async def test_who_was_to_be_removed_until_that_was_given_up_is_shown_as_before(two_hubs: tuple[Hub, Hub]) -> None:
    one, two = two_hubs
    removing = asyncio.create_task(one.remove("cy", "lobby"))
    await asyncio.sleep(0)
    removing.cancel()
    await asyncio.sleep(1.5 * LOOK_SECONDS)
    for hub in (one, two):
        await until_shown(hub, ["ann", "bob", "cy"])


async def test_typing_is_seen_at_the_other_server(start: Start) -> None:
    one, two = start(), start()
    ann, _ = await arrive(one, await sign_in(one, "Ann"))
    await ann.join()
    bob, _ = await arrive(two, await sign_in(two, "Bob"))
    await bob.join()
    await asyncio.sleep(0.3)
    await ann.send({"type": "typing", "boardId": "board-1"})
    assert (await bob.until("user_typing"))["name"] == "Ann"
    await ann.send({"type": "stop_typing", "boardId": "board-1"})
    assert (await bob.until("user_stopped_typing"))["name"] == "Ann"


async def test_a_new_life_of_the_log_makes_everybody_start_afresh(start: Start, database: str) -> None:
    server = start()
    peer = await dial(server)
    cursor = (await peer.join())["cursor"]
    command = [sys.executable, "-m", "holdfast", "store", "new-epoch", database]
    said = subprocess.run(command, env=server.env, capture_output=True, text=True, check=True).stdout
    epoch = said.split()[-2]
    assert (await peer.until("goodbye"))["reason"] == "the log has begun anew"
    assert await peer.closed() == 1012
    again = await dial(server)
    joined = await again.join(since=cursor)
    assert (joined["recovered"], joined["reason"]) == (False, "epoch")
    assert joined["cursor"].startswith(f"{epoch}:")
    await server.new_task("after")
    assert (await again.until("task_created"))["id"].startswith(f"{epoch}:")


async def test_a_server_without_its_database_serves_nothing_and_comes_back(start: Start, cluster: Cluster) -> None:
    server = start(store=create(cluster.dsn("postgres"), "board"))
    peer = await dial(server)
    await peer.join()
    await server.new_task("before")
    event = await peer.until("task_created")
    await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
    assert (await peer.until("goodbye", 10.0))["reason"] == "the database does not answer"
    assert await peer.closed() == 1012
    assert (await server.request("GET", "/readyz")).status_code == 503
    assert (await server.request("GET", "/healthz")).status_code == 200
    for method, path in (("GET", "/boards/board-1/tasks"), ("GET", "/boards/board-1/poll")):
        assert (await server.request(method, path)).status_code == 503
    written = await server.request("POST", "/tasks", {"listId": "list-todo", "title": "meanwhile"})
    assert written.status_code == 503
    turned_away = await dial(server)
    assert (await turned_away.until("goodbye"))["reason"] == "the database does not answer"
    await asyncio.to_thread(cluster.start)
    async with asyncio.timeout(10):
        while (await server.request("GET", "/readyz")).status_code != 200:
            await asyncio.sleep(0.1)
    again = await dial(server)
    assert (await again.join(since=event["id"]))["recovered"]
    await server.new_task("after")
    assert (await again.until("task_created"))["task"]["title"] == "after"


CROWDED = """
import os
from holdfast import Hub
from holdfast.server import departure
from starlette.applications import Starlette
from starlette.routing import Mount

departure.MOVES_PER_SECOND = 1  # so that a few are a crowd
hub = Hub(os.environ["STORE"])
app = Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan)
"""


@pytest.fixture
def crowded(tmp_path: Path, database: str) -> Iterator[Server]:
    """A server for which a few are a crowd, and which is not alone."""
    (tmp_path / "crowded.py").write_text(CROWDED)
    with ExitStack() as running:
        servers = [
            running.enter_context(Server(tmp_path, "serve", "crowded:app", env={"STORE": database})) for _ in range(2)
        ]
        yield servers[0]


# ── deploys ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
async def test_who_knows_how_moves_before_it_leaves_and_nothing_is_missed_or_repeated(start: Start) -> None:
    servers = [start() for _ in range(3)]
    async with Balancer(servers) as url:
        report = await rolling_deploy(url, servers[:2], clients=60)
    assert report.written > 30
    assert (report.failed, report.resyncs, report.wrong) == ([], [], [])


async def test_who_moves_is_not_seen_to_leave(start: Start) -> None:
    ends, stays = start(), start()
    watcher, _ = await arrive(stays, await sign_in(stays, "Bob"))
    await watcher.join()
    balancer = Balancer([ends])
    async with balancer as url, AsyncExitStack() as held:
        for number in range(12):
            token = await sign_in(stays, f"Somebody {number}")
            client = await held.enter_async_context(holdfast.connect(url, token=token))
            await held.enter_async_context(client.join("board-1"))
        while len((await watcher.until("presence"))["users"]) < 13:
            pass
        watcher.heard.clear()
        balancer.servers = [stays]
        await asyncio.to_thread(ends.stop)
        await asyncio.sleep(2.0)
        await stays.new_task("afterwards")
        await watcher.until("task_created")
        assert [message["type"] for message in watcher.heard] == ["task_created"]


async def test_a_server_waits_for_those_who_move_as_long_as_somebody_does(crowded: Server) -> None:
    late, later, never = [await crowded.dial(subprotocols=["holdfast.1"]) for _ in range(3)]
    stopping = asyncio.create_task(asyncio.to_thread(crowded.stop))
    await never.until("goodbye")  # they have 3 s, and 2 s more
    await asyncio.sleep(4.0)
    await late.close()
    await asyncio.sleep(2.0)
    await later.send({"type": "ping"})
    await later.until("pong")
    await later.close()
    assert await never.closed(3.0) == 1012
    await stopping


async def test_with_redis_the_other_server_is_told_by_it_and_when_it_is_killed_nothing_is_missed(
    start: Start, redis: Redis
) -> None:
    one, two = start("--redis", redis.url), start("--redis", redis.url)
    ann, _ = await arrive(one, await sign_in(one, "Ann"))
    await ann.join()
    bob, _ = await arrive(two, await sign_in(two, "Bob"))
    await bob.join()
    await asyncio.sleep(0.3)
    await ann.send({"type": "typing", "boardId": "board-1"})
    assert (await bob.until("user_typing"))["name"] == "Ann"
    for number in range(20):
        if number == 5:
            redis.kill()
        if number == 15:
            await asyncio.to_thread(redis.start)
        await one.new_task(str(number))
    titles = [(await bob.until("task_created"))["task"]["title"] for _ in range(20)]
    assert titles == [str(number) for number in range(20)]


async def test_a_connection_that_was_kept_is_ended_with_an_answer_and_not_before(crowded: Server) -> None:
    waiting = await crowded.dial(subprotocols=["holdfast.1"])  # so that there is something to wait for
    async with httpx2.AsyncClient(base_url=crowded.url, trust_env=False) as client:
        assert "connection" not in (await client.get("/holdfast.js")).headers
        stopping = asyncio.create_task(asyncio.to_thread(crowded.stop))
        await waiting.until("goodbye")
        assert (await client.get("/holdfast.js")).headers["connection"] == "close"
    await waiting.close()
    await stopping


async def test_a_crowd_is_given_no_more_time_to_move_than_the_server_has(crowded: Server) -> None:
    crowd = [await crowded.dial(subprotocols=["holdfast.1"]) for _ in range(20)]
    stopping = asyncio.create_task(asyncio.to_thread(crowded.stop))
    told = [await peer.until("goodbye") for peer in crowd]
    assert {(each["after_ms"], each["spread_ms"]) for each in told} == {(0, 6000)}  # of 10 s; 2 s for the last, 2 more
    for peer in crowd:
        await peer.close()
    await stopping
