"""Who comes while a server ends, or while it is full, is told so, and when to come back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from holdfast import Hub, Limits, Refused, Unavailable, User
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import Goodbye
from holdfast.server.departure import Departure
from holdfast.server.door import Door
from peers import SRC, Server, free_port


async def test_while_a_server_ends_nobody_is_let_in() -> None:
    async with Hub("memory:") as hub:
        hands = hub.opened.hands
        door = Door(hands)
        assert door.refusal() is None
        hands.departure.reason = "the server restarts"
        goodbye = door.refusal()
        assert goodbye is not None
        assert goodbye.reason == "the server restarts"
        assert 2000 <= goodbye.after_ms <= 2010


async def test_who_is_being_let_in_when_a_server_begins_to_hand_over_is_sent_on() -> None:
    hub = Hub("memory:")
    asked, answer = asyncio.Event(), asyncio.Event()
    told: asyncio.Queue[Any] = asyncio.Queue()

    @hub.authenticate
    async def who(token: str | None, request: object) -> User:
        asked.set()
        await answer.wait()
        return User("ann", "Ann")

    incoming: asyncio.Queue[Any] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": ["holdfast.1"]}
    async with hub:
        hands = hub.opened.hands
        hands.spawn(hub.websocket(scope, incoming.get, told.put))
        await asked.wait()
        await hands.departure.hand_over("the server restarts", 5.0)
        answer.set()
        async with asyncio.timeout(5):
            said = [(await told.get()) for _ in range(3)]
        assert [message["type"] for message in said] == ["websocket.accept", "websocket.send", "websocket.close"]
        assert json.loads(said[1]["text"])["type"] == "goodbye"


@pytest.mark.parametrize("seconds", [0.1, -1.0])
async def test_a_server_that_has_hardly_any_time_hands_over_at_once_and_waits_as_long_as_it_may(seconds: float) -> None:
    hub = Hub("memory:", require_login=False)
    async with hub, asyncio.timeout(5):
        hands = hub.opened.hands
        told = await come(hub, until="connected")
        began = hands.now()
        await hands.departure.hand_over("the server restarts", seconds)
        assert max(seconds, 0.0) <= hands.now() - began < 1.0
        goodbye = Codec().decode_server((await told.get())["text"])
        assert goodbye == Goodbye("the server restarts", 0, 0)


async def test_who_has_no_place_to_go_is_told_that_the_server_is_full() -> None:
    async with Hub("memory:") as hub:
        goodbye = Door(hub.opened.hands).refusal("the server is full")
        assert goodbye is not None
        assert goodbye.reason == "the server is full"


@pytest.mark.parametrize(("reason", "soonest", "rate"), [(None, 1.0, 500), ("the log is gone", 2.0, 1_500)])
async def test_of_those_whom_nobody_lets_in_so_many_ask_again_in_a_second(
    reason: str | None, soonest: float, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that they ask is a handshake: ten thousand who asked every three seconds would cost half a core."""
    async with Hub("memory:") as hub:
        hands = hub.opened.hands
        door, now = Door(hands), hands.now()
        monkeypatch.setattr(hands, "now", lambda: now)
        if reason is not None:
            hands.departure.refuse(reason)
        told = [door.refusal("the server is full") for _ in range(3_000)]
    times = [goodbye.after_ms / 1000 for goodbye in told if goodbye is not None]
    assert times == pytest.approx([soonest + count / rate for count in range(1, 3_001)], abs=0.001)


async def test_who_asks_for_something_while_nobody_is_let_in_takes_no_turn_of_those_who_want_in() -> None:
    async with Hub("memory:") as hub:
        door = hub.opened.gate.door
        hub.opened.hands.departure.refuse("the log is gone")
        for _ in range(20_000):
            assert door.closed() == Goodbye("the log is gone", 2000, 1000)
        goodbye = door.refusal()
        assert goodbye is not None
        assert goodbye.after_ms == 2001


@pytest.mark.parametrize("path", ["/poll?rooms=lobby", "/poll?rooms=lobby&wait=25", "/events?rooms=lobby"])
async def test_who_finds_no_place_for_a_poll_or_a_stream_asks_again_in_turn(path: str) -> None:
    async with Hub("memory:", require_login=False, limits=Limits(streams=0)) as hub:
        app = httpx2.ASGITransport(hub.app)
        async with httpx2.AsyncClient(transport=app, base_url="http://hub") as client:
            for _ in range(5_000):
                hub.opened.gate.door.full("full")
            answer = await client.get(path)
        if path.startswith("/events"):
            assert 9_000 < int(answer.text.split("retry: ")[1].split()[0]) <= 17_000
        else:
            said = {"error": "too many streams and polls are open; come back later"}
            assert (answer.status_code, answer.json()) == (503, said)
            assert 9 < int(answer.headers["retry-after"]) <= 17


async def test_of_whom_the_application_is_asked_who_they_are_has_a_place_meanwhile_but_not_for_ever() -> None:
    hub = Hub("memory:", limits=Limits(connections=3, auth_seconds=0.2))
    asked = 0

    @hub.authenticate
    async def who(token: str | None, request: object) -> User | None:
        nonlocal asked
        asked += 1
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async with hub, asyncio.timeout(5):
        crowd = await asyncio.gather(*(come(hub, until="goodbye") for _ in range(10)))
        assert asked == 3
        assert len(crowd) == 10
        assert hub.opened.gate.door.refusal() is None


SLOW = """
import asyncio
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from holdfast import Hub, User

hub = Hub('memory:')

@hub.authenticate
async def who(token, request):
    print('asked', flush=True)
    await asyncio.sleep(1)
    return User('ann', 'Ann')

async def own(websocket):
    print('asked', flush=True)
    await asyncio.sleep(1)
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass

routes = [WebSocketRoute('/own', own), Mount('/', hub.app)]
app = Starlette(routes=routes, lifespan=hub.lifespan)
"""
PROTOCOL = "holdfast.server.websocket:WebSocketProtocol"


@pytest.mark.parametrize("path", ["/ws", "/own"])
@pytest.mark.parametrize("program", ["holdfast", "uvicorn"])
async def test_who_is_being_let_in_when_a_server_ends_is_told_so_and_it_ends(
    tmp_path: Path, program: str, path: str
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    port = free_port()
    line = [sys.executable, "-m", *(("holdfast", "serve") if program == "holdfast" else ("uvicorn", "--ws", PROTOCOL))]
    env = {**os.environ, "PYTHONPATH": f"{SRC}:{tmp_path}", "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*line, "slow:app", "--port", str(port)], env=env, cwd=tmp_path, stdout=log, stderr=log
        )
    said: list[str] = []

    async def come() -> int | None:
        link = None
        while link is None:
            with suppress(OSError):  # it does not listen yet
                link = await connect(f"ws://localhost:{port}{path}", subprotocols=[Subprotocol("holdfast.1")])
        with suppress(ConnectionClosed):
            while True:
                said.append(json.loads(await link.recv())["type"])
        return link.close_code

    try:
        async with asyncio.timeout(20):
            coming = asyncio.create_task(come())
            while "asked" not in (tmp_path / "log").read_text():
                await asyncio.sleep(0.01)
            server.terminate()
            code = await coming
            await asyncio.to_thread(server.wait, 10)
    finally:
        server.kill()
        server.wait()
    assert said[-1:] == (["goodbye"] if path == "/ws" else [])
    assert code in {1012, 1013}


BUSY = """
from starlette.applications import Starlette
from starlette.routing import Mount
from holdfast import Forbidden, Hub, Limits, Unavailable
import asyncio

hub = Hub('memory:', require_login=True, limits=Limits(auth_seconds=1))

@hub.authenticate
async def who(token, request):
    match token:
        case 'busy':
            raise Unavailable('über' * 40, after=7)
        case 'half':
            raise Unavailable('Zürich\\udc80', after=1e9)
        case 'hangs':
            await asyncio.sleep(100)
        case 'banned':
            raise Forbidden('not you')
        case 'broken':
            raise Unavailable('never', after=float('nan'))

app = Starlette(routes=[Mount('/', hub.app)], lifespan=hub.lifespan)
"""


class Stock(Server):
    """A stock uvicorn."""

    def command_line(self, *command: str) -> list[str]:
        self.env["PYTHONPATH"] = f"{SRC}:{self.folder}"
        return [sys.executable, "-m", "uvicorn", command[-1], "--host", "localhost", "--port", str(self.port)]


@pytest.fixture(scope="module", params=[Server, Stock])
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("busy")
    (folder / "busy.py").write_text(BUSY)
    with request.param(folder, "serve", "busy:app") as server:
        yield server


@pytest.mark.parametrize(
    ("token", "reason", "after"),
    [
        ("busy", "über" * 40, range(7_000, 15_000)),
        ("half", "Zürich?", [3_600_000]),
        ("hangs", "it took too long to find out who you are, or what you may", range(1_000, 9_000)),
    ],
)
@pytest.mark.parametrize("path", ["/ws", "/ws?token="])
async def test_while_nobody_can_be_recognised_whoever_comes_is_told_when_to_come_back(
    busy: Server, path: str, token: str, reason: str, after: Sequence[int]
) -> None:
    async with await busy.dial(path + token if path.endswith("=") else path) as peer:
        if path == "/ws":
            await peer.send({"type": "auth", "token": token})
        said = await peer.next()
        assert (said["type"], said["reason"], said["spread_ms"]) == ("goodbye", reason, 0)
        assert said["after_ms"] in after
        assert await peer.closed() == 1013
        assert len((peer.socket.close_reason or "").encode()) <= 123
        assert reason.startswith((peer.socket.close_reason or "")[:30])


@pytest.mark.parametrize(
    ("token", "error", "code"),
    [("banned", "forbidden", 4003), ("broken", "internal", 1011), ("other", "unauthorized", 4001)],
)
async def test_whoever_is_not_recognised_is_told_why_and_does_not_stay(
    busy: Server, token: str, error: str, code: int
) -> None:
    async with await busy.dial() as peer:
        await peer.send({"type": "auth", "token": token})
        assert (await peer.next())["code"] == error
        assert await peer.closed(0.5) == code  # and not after the second in which one is to say who one is


async def test_what_cannot_be_told_lets_nobody_hang_between_the_door_and_the_room(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(
        BUSY + "def fails(*_):\n    raise ValueError\nfrom holdfast.server.native import NativeConnection\n"
        "NativeConnection.say = fails\n"
    )
    with Server(tmp_path, "serve", "busy:app") as server:
        async with await server.dial("/ws?token=busy") as peer:
            assert await peer.closed(0.5) == 1006


async def test_a_timeout_of_the_application_itself_is_not_taken_for_ours() -> None:
    hub = Hub("memory:")

    @hub.authenticate
    async def who(token: str | None, request: object) -> User | None:
        raise TimeoutError("the database does not answer")

    async with hub:
        with pytest.raises(TimeoutError, match="the database does not answer"):
            await hub.opened.gate._identify_upgrade(
                HTTPConnection({"type": "websocket", "headers": [], "path": "/ws", "query_string": b""})
            )


@pytest.mark.parametrize("path", ["/poll?rooms=room", "/events?rooms=room"])
async def test_whoever_is_asked_about_to_read_has_a_place_meanwhile(path: str) -> None:
    hub, asked = Hub("memory:", limits=Limits(streams=3, auth_seconds=0.2)), 0

    @hub.authorize
    async def may(user: User, room: str, action: str) -> bool:
        nonlocal asked
        asked += 1
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async with hub, httpx2.AsyncClient(transport=httpx2.ASGITransport(hub.app), base_url="http://test") as client:
        async with asyncio.timeout(5):
            await asyncio.gather(*(client.get(path) for _ in range(10)))
        assert asked == 3


async def test_a_new_life_of_a_hub_knows_whom_the_one_before_has_sent_away() -> None:
    async with Hub("memory:") as hub, Hub("memory:") as other:
        hands = hub.opened.hands
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hands, "connections", range(6_000))
            hands.departure.refuse("the log has begun anew")
        other.opened.hands.departure.succeed(hands.departure)
        assert Door(other.opened.hands).closed() == Goodbye("the log has begun anew", 2000, 4000)


async def test_nobody_is_looked_after_when_a_hub_has_closed() -> None:
    async with Hub("memory:") as hub:
        door = hub.opened.gate.door
        assert door.refusal() is None
        assert door._alarm._timer is not None
    assert door._alarm._timer is None


async def come(hub: Hub, *says: str, until: str) -> asyncio.Queue[Any]:
    """Have somebody come and say this, until they are told that; return what they are told from then on."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    for text in says:
        incoming.put_nowait({"type": "websocket.receive", "text": text})
    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": ["holdfast.1"]}
    hub.opened.hands.spawn(hub.websocket(scope, incoming.get, told.put))
    while f'"{until}"' not in (await told.get()).get("text", ""):
        pass
    return told


async def test_all_who_are_sent_away_are_told_of_the_same_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.server.departure.RETURNS_PER_SECOND", 2)
    async with Hub("memory:", require_login=False) as hub, asyncio.timeout(5):
        crowd = [await come(hub, until="connected") for _ in range(8)]
        hub.opened.hands.departure.send_away("the server restarts")
        goodbyes = [Codec().decode_server((await told.get())["text"]) for told in crowd]
        assert goodbyes == [Goodbye("the server restarts", 2000, 4000)] * 8
        assert hub.opened.hands.departure.spread() == 4.0  # also for streams, who draw when they have ended


async def test_nobody_who_is_sent_away_is_told_that_the_others_are() -> None:
    """Else a crowd of ten thousand would be told of each of them: a hundred million messages."""
    async with Hub("memory:", require_login=False) as hub, asyncio.timeout(5):
        crowd = [await come(hub, '{"type":"join","room":"lobby"}', until="joined") for _ in range(8)]
        hub.opened.hands.departure.send_away("the server restarts")
        for told in crowd:
            said = [await told.get()]
            while said[-1]["type"] != "websocket.close":
                said.append(await told.get())
            assert not [word for word in said if '"user_left"' in word.get("text", "")]


@pytest.mark.parametrize(("is_alone", "seconds"), [(True, 2), (False, 6)], ids=["alone", "with others"])
async def test_a_crowd_comes_back_faster_to_a_server_where_nobody_is(is_alone: bool, seconds: int) -> None:
    async with Hub("memory:") as hub:
        hands = hub.opened.hands
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hands, "connections", range(2_000))
            patch.setattr(hands, "streams", range(1_000))
            patch.setattr(hands, "departure", Departure(hands, is_alone=is_alone))
            hands.departure.refuse("the server restarts")
            goodbye = Door(hands).refusal()
        assert goodbye is not None
        assert goodbye.spread_ms == 1000 * seconds


async def test_who_comes_by_http_is_told_a_time_of_their_own_for_a_request_draws_none() -> None:
    async with Hub("memory:", require_login=False) as hub:
        hands = hub.opened.hands
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hands, "connections", range(6_000))
            hands.departure.refuse("the server restarts")
        times = []
        for _ in range(50):
            request = HTTPConnection({"type": "http", "path": "/poll", "headers": [], "query_string": b""})
            with pytest.raises(Unavailable) as refused:
                await hub.opened.gate.identify_request(request, comes_in=True)
            times.append(refused.value.after)
        assert min(times) >= 2.0
        assert max(times) <= 6.0 + 50 / hands.departure.returns_per_second  # each in their turn, too
        assert len(set(times)) > 40


async def test_a_refusal_that_cannot_be_said_ends_the_connection_and_holds_up_nothing() -> None:
    class Odd(Refused):
        code = "half of a surrogate pair: \udc80"

    hub = Hub("memory:")

    @hub.authorize
    async def may(user: User, room: str, action: str) -> bool:
        raise Odd("no")

    async with hub, asyncio.timeout(5):
        told = await come(hub, '{"type":"join","room":"a"}', '{"type":"join","room":"b"}', until="connected")
        while (last := await told.get())["type"] != "websocket.close":
            pass
        assert last["code"] == 1011
