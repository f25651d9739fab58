"""Whatever is answered, a client goes on: it loses the link at once, says why, and comes back by its own rule."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

import holdfast
from holdfast import Event, Resync, State
from holdfast.client.road import MESSAGE_BYTES
from holdfast.client.room import WAITING, Snapshot
from holdfast.protocol.codes import CloseCode
from hostile import CONNECTED, SSE, Answer, Hostile, endless, hostile, refused, stream
from peers import SRC, WELCOME

GOOD = stream("id: k:lobby=0", 'event: said\nid: k:lobby=1\ndata: {"type":"said","room":"lobby","id":"k:1"}')
MIB = 1 << 20


async def reasons(client: holdfast.Client) -> AsyncIterator[str]:
    """Yield why each link is lost."""
    async for status in client.statuses():
        if status.state is State.WAITING:
            yield status.reason


async def lost_and_back(peer: Hostile, seconds: float = 5.0) -> str:
    """See that a client loses its first link within this, and is told all on the next; return why it lost that."""
    async with holdfast.connect(peer.url, jitter=False) as client, client.join("lobby") as room:
        async with asyncio.timeout(seconds):
            reason = await anext(reasons(client))
        client.retry_now()
        async with asyncio.timeout(10):
            while not isinstance(item := await anext(room), Event):
                assert isinstance(item, Resync | holdfast.Resumed)
            assert item.id == "k:1"
        assert client.status.state is State.LIVE
        return reason


def refusal(**fields: str) -> Answer:
    return json.dumps({"type": "error", "error": "no", "code": "forbidden", **fields}).encode(), {
        "status": "403 Forbidden"
    }


@pytest.mark.parametrize(
    "answer",
    [refusal(), refusal(room="attic"), refusal(place="lobby"), (endless(b"{" * 1000), {"status": "403 Forbidden"})],
    ids=["no room", "another room", "under another key", "without end"],
)
@pytest.mark.parametrize("road", ["events", "poll"])
async def test_a_refusal_that_names_no_room_of_ours_is_about_us(answer: Answer, road: str) -> None:
    async with hostile(**{"events": [refused()], road: [answer]}) as peer, holdfast.connect(peer.url) as client:
        async with client.join("lobby") as room, asyncio.timeout(5):
            with pytest.raises(holdfast.Closed):
                await anext(room)
        assert client.status.code == CloseCode.FORBIDDEN


async def test_a_refusal_in_a_stream_is_of_a_room_that_was_asked_for() -> None:
    error = '{"type":"error","error":"not now","code":"conflict","room":"%s"}'
    streams = [stream(f"data: {error % 'attic'}", "id: k:lobby=0", f"data: {error % 'lobby'}")]
    async with hostile(events=streams) as peer, holdfast.connect(peer.url) as client, client.join("lobby") as room:
        async with asyncio.timeout(5):
            assert isinstance(await anext(room), Resync)
            with pytest.raises(holdfast.Conflict, match="not now"):
                await anext(room)
        assert client.status.state is State.LIVE


# ── what is not in the protocol ───────────────────────────────────────────────────────────────────


def connected(**changed: Any) -> Answer:
    return json.dumps(CONNECTED | changed).encode()


WELCOMES = {
    "a rate of nothing": connected(limits=CONNECTED["limits"] | {"messagesPerSecond": 0}),
    "no heartbeat": connected(heartbeat={"interval": -1, "timeout": 0}),
    "a heartbeat in an age": connected(heartbeat={"interval": 1e300, "timeout": 10}),
    "a token with a line's end": connected(token="t\r\nX-Evil: 1"),
    "a list": b"[1]",
    "nested without end": b"[" * 100_000,
    "no text": b'{"type":"connected\xff"}',
    "back in an age": b'{"type":"goodbye","reason":"x","spread_ms":0,"after_ms":' + b"9" * 400 + b"}",
    "back before now": b'{"type":"goodbye","reason":"x","spread_ms":0,"after_ms":-1000}',
}


@pytest.mark.parametrize("welcome", WELCOMES.values(), ids=WELCOMES)
async def test_a_bad_welcome_is_a_lost_link(welcome: Answer) -> None:
    async with hostile(send=[welcome, connected()], events=[GOOD]) as peer:
        await lost_and_back(peer)
        assert not any(b"Evil" in head for _, _, head in peer.asked)


START = "id: k:lobby=0"
GAP = 'event: resync\ndata: {"type":"resync","room":"lobby","reason":"epoch","cursor":"k:0"}'
JOINED = '{"type":"joined","room":"lobby","cursor":"","recovered":true,"users":[],"roomSize":0}'
STREAMS = {
    "an id that lacks the room": stream("id: k:attic=5"),
    "an id that is no cursor": stream("id: nonsense"),
    "an id of another number of rooms": stream("id: k:" + ";".join(f"{n}=1" for n in range(50))),
    "an event at no position": stream(
        START, 'event: said\nid: k:lobby=1\ndata: {"type":"said","room":"lobby","id":"x"}'
    ),
    "an event that is none": stream(START, "event: said\ndata: [1]"),
    "an answer to nothing": stream(START, f"event: joined\ndata: {JOINED}"),
    "gaps without end": stream(*[GAP] * 40),
}


@pytest.mark.parametrize("first", STREAMS.values(), ids=STREAMS)
async def test_a_bad_stream_is_a_lost_link_at_once(first: Answer) -> None:
    async with hostile(events=[first, GOOD]) as peer:
        assert "not in the protocol" in await lost_and_back(peer)


POLLS = {
    "no cursor": b'{"data":[]}',
    "a cursor that lacks the room": b'{"data":[],"cursor":"k:attic=5"}',
    "a cursor that is none": b'{"data":[],"cursor":"nonsense"}',
    "data that are none": b'{"data":5,"cursor":"k:lobby=0"}',
    "no object": b"null",
    "nested without end": b"[" * 100_000,
    "nested without end inside": b'{"data":[' + b"[" * 100_000,
}


@pytest.mark.parametrize("first", POLLS.values(), ids=POLLS)
async def test_a_bad_poll_is_a_lost_link_at_once(first: Answer) -> None:
    async with (
        hostile(events=[refused(), GOOD], poll=[first, refused()]) as peer,
        holdfast.connect(peer.url, jitter=False) as client,
        client.join("lobby"),
        asyncio.timeout(5),
    ):
        assert "not in the protocol" in await anext(reasons(client))


GAP_IN_PLACE = '{"type":"resync","room":"lobby","reason":"trimmed","cursor":"k:lobby=0"}'
HASTY = {
    "an event at no position": (b'{"data":[{"type":"called","room":"lobby"}],"cursor":"k:lobby=0"}', 3),
    "a gap that leads nowhere": (f'{{"data":[{GAP_IN_PLACE}],"cursor":"k:lobby=0"}}'.encode(), 2),
}


@pytest.mark.parametrize(("answer", "told"), HASTY.values(), ids=HASTY)
async def test_whoever_answers_each_poll_at_once_and_leads_no_further_is_not_asked_again_at_once(
    answer: Answer, told: int
) -> None:
    async with (
        hostile(events=[refused()], poll=[answer]) as peer,
        holdfast.connect(peer.url) as client,
        client.join("lobby") as room,
        asyncio.timeout(5),
    ):
        for _ in range(told):  # by a poll that is not to be held, and one that is
            await anext(room)
        await asyncio.sleep(0.3)
        assert len(peer.times("poll")) == 2
        assert client.status.state is State.LIVE


async def test_whatever_fails_in_a_road_is_a_lost_link_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from holdfast.core.reader import Reader

    real, failures = Reader.receive, [ZeroDivisionError("a mistake of ours")]

    def receive(self: Reader, *told: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(self, *told)

    monkeypatch.setattr(Reader, "receive", receive)
    async with hostile(events=[GOOD]) as peer:
        assert "a mistake of ours" in await lost_and_back(peer)
    assert "unexpected failure" in caplog.text


@pytest.mark.parametrize("after", ["9" * 9, "9" * 400, "-5", "²", "1e400", "soon"])
@pytest.mark.parametrize("road", ["send", "events"])
async def test_whoever_is_sent_away_for_an_age_is_back_in_hours_or_by_its_own_rule(after: str, road: str) -> None:
    busy = refused("503 Service Unavailable", **{"retry-after": after})
    async with (
        hostile(**{road: [busy]}) as peer,
        holdfast.connect(peer.url, jitter=False) as client,
        client.join("lobby"),
        asyncio.timeout(5),
    ):
        async for status in client.statuses():
            if status.state is State.WAITING:
                break
        if after == "9" * 9:  # and once more as long at most, for not all to be back at once
            assert 3600.0 <= status.delay <= 7200.0
        else:
            assert status.delay == 1.0


@pytest.mark.parametrize("retry", ["9" * 400, "-5"])
async def test_a_stream_that_sends_away_for_an_age_or_before_now_is_dialed_again(retry: str) -> None:
    async def body(writer: asyncio.StreamWriter) -> None:
        writer.write(f"retry: {retry}\n\n".encode())

    async with (
        hostile(events=[(body, {"content-type": "text/event-stream"})]) as peer,
        holdfast.connect(peer.url) as client,
        client.join("lobby"),
        asyncio.timeout(5),
    ):
        async for status in client.statuses():
            if status.state is State.WAITING:
                break
        assert 0.25 <= status.delay <= 3600.0


@pytest.mark.parametrize("token", ["t\r\nX-Evil: 1", "", "tök"])
async def test_a_token_that_cannot_stand_in_a_header_is_said_to_be_none(token: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        holdfast.connect("http://localhost", token=token)
    async with holdfast.connect("http://localhost:1", token=lambda: token) as client, asyncio.timeout(5):
        assert "a token is 1 to 4096 printable" in await anext(reasons(client))


BAD = {
    "a rate of nothing": WELCOME.replace('"messagesPerSecond":1', '"messagesPerSecond":0'),
    "back in an age": '{"type":"goodbye","reason":"x","spread_ms":0,"after_ms":' + "9" * 400 + "}",
    "a heartbeat of nothing": WELCOME.replace('"interval":30', '"interval":0'),
    "a room's key that is another field's": WELCOME.replace('"roomKey":"room"', '"roomKey":"type"'),
    "a token with a line's end": WELCOME.replace('"session"', '"token":"t\\r\\nX-Evil: 1","session"'),
}


@pytest.mark.parametrize("said", BAD.values(), ids=BAD)
async def test_the_same_on_a_websocket(said: str) -> None:
    dials: list[float] = []

    async def welcome(socket: ServerConnection) -> None:
        dials.append(asyncio.get_running_loop().time())
        await socket.recv()
        await socket.send(said if len(dials) < 3 else WELCOME)
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "join":
                await socket.send(
                    '{"type":"joined","room":"lobby","cursor":"k:0","recovered":false,"users":[],"roomSize":1}'
                )
            elif "ref" in message:
                await socket.send(json.dumps({"type": "reply", "ref": message["ref"], "ok": True}))

    async with serve(welcome, "127.0.0.1", 0) as server, asyncio.timeout(10):
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}", jitter=False) as client, client.join("lobby") as room:
            assert await room.command("add") is None
            assert client.status.state is State.LIVE
    first, second = (after - before for before, after in pairwise(dials))
    assert first > 0.9
    assert second > 1.9


# ── what leads elsewhere ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("road", ["ws", "send", "events", "poll"])
@pytest.mark.parametrize("status", ["302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_whoever_is_sent_elsewhere_says_nothing_there(road: str, status: str) -> None:
    async def listen(socket: ServerConnection) -> None:
        said.extend([text async for text in socket])

    said: list[Any] = []
    async with serve(listen, "127.0.0.1", 0) as there, hostile() as elsewhere:
        port = there.sockets[0].getsockname()[1] if road == "ws" else elsewhere.port
        redirect = refused(status, location=f"{'ws' if road == 'ws' else 'http'}://127.0.0.1:{port}/{road}")
        answers = {"events": [refused()] if road == "poll" else [stream()], road: [redirect]}
        if road == "ws":
            answers["send"] = [redirect]
        async with (
            hostile(**answers) as peer,
            holdfast.connect(peer.url, token="secret", jitter=False) as client,
            client.join("lobby"),
            asyncio.timeout(5),
        ):
            reason = await anext(reasons(client))
            assert any(asked == road for _, asked, _ in peer.asked)
            assert all(b"Bearer secret" in head for _, _, head in peer.asked)
        assert elsewhere.asked == said == []
        assert f"redirect (HTTP {status[:3]})" in reason


# ── what comes again and again ────────────────────────────────────────────────────────────────────

MANY = 3_000
RESYNC = '{"type":"resync","room":"lobby","reason":"trimmed","cursor":"k:#"}'
IN = '{"type":"joined","room":"%s","cursor":"k:0","recovered":false,"users":[],"roomSize":1}'


@asynccontextmanager
async def flooded(flood: str, **options: Any) -> AsyncIterator[tuple[holdfast.Room, list[str]]]:
    """Have a client told this many times of a room that it does not read; yields that, and what it has joined."""
    joins: list[str] = []

    async def say(socket: ServerConnection) -> None:
        await socket.send(WELCOME)
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "join":
                joins.append(message["room"])
                for number in range(MANY if joins == ["lobby", "over"] else 0):
                    await socket.send(flood.replace("#", str(number)))
                await socket.send(IN % message["room"])

    async with (
        serve(say, "127.0.0.1", 0) as server,
        asyncio.timeout(20),
        holdfast.connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", **options) as client,
        client.join("lobby") as room,
        client.join("over") as over,
    ):
        await anext(over)
        yield room, joins


async def test_a_room_that_is_refused_again_and_again_is_joined_again_once() -> None:
    async with flooded('{"type":"error","room":"lobby","code":"internal","error":"not now"}') as (room, joins):
        assert len(asyncio.all_tasks()) < 30
        assert isinstance(await anext(room), Resync)
        assert isinstance(await anext(room), Resync)
        assert joins == ["lobby", "over", "lobby"]


async def test_a_room_that_was_entered_is_joined_again_as_soon_as_after_its_first_refusal() -> None:
    async with flooded('{"type":"error","room":"lobby","code":"internal","error":"not now"}') as (room, _):
        for _ in range(2):
            assert isinstance(await anext(room), Resync)
        assert room.backoff.peek(1.0).ceiling == 1.0


async def test_who_starts_afresh_again_and_again_is_told_of_the_last_time() -> None:
    async with flooded(RESYNC) as (room, _):
        assert room.waiting == WAITING
        cursors = []
        while f"k:{MANY - 1}" not in cursors:
            item = await anext(room)
            assert isinstance(item, Resync)
            cursors.append(item.cursor)
        assert len(cursors) == WAITING + 1


async def test_one_snapshot_is_taken_at_a_time() -> None:
    snapshots: list[str] = []

    async def take(room: str) -> tuple[Any, str]:
        snapshots.append(room)
        return (None, "k:0") if room == "over" else await asyncio.Future()

    async with flooded('{"type":"resync","room":"lobby","reason":"trimmed","cursor":"k:#"}', snapshot=take) as (
        room,
        _,
    ):
        assert snapshots.count("lobby") == 1
        assert room.waiting == 0


async def test_a_snapshot_that_is_older_than_the_log_is_not_taken_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one from a cache is: whoever starts from it is told at once that it cannot be continued."""
    monkeypatch.setattr("random.random", lambda: 0.0)
    snapshots = []

    async def answer(socket: ServerConnection) -> None:
        await socket.send(WELCOME)
        async for text in socket:
            match json.loads(text)["type"]:
                case "join":
                    await socket.send(IN % "lobby")
                case "sync" if len(snapshots) % 3:
                    await socket.send(RESYNC.replace("#", "9"))
                case "sync":
                    await socket.send('{"type":"synced","room":"lobby","cursor":"k:0","count":0}')
                    await socket.send('{"type":"said","room":"lobby","id":"k:1"}')
                    await socket.send(RESYNC.replace("#", "9"))

    async def take(room: str) -> tuple[Any, str]:
        snapshots.append(client_room.backoff.peek(1.0).ceiling)
        return None, "k:0"

    async with serve(answer, "127.0.0.1", 0) as server, asyncio.timeout(20):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with holdfast.connect(url, snapshot=take) as client:
            client_room = client.join("lobby")
            async with client_room:
                for _ in range(7):
                    while not isinstance(await anext(client_room), Snapshot):
                        pass
    assert snapshots == [1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0]


async def test_a_ping_that_is_quiet_wants_no_answer() -> None:
    said: list[str] = []

    async def ping(socket: ServerConnection) -> None:
        await socket.send(WELCOME)
        for quiet in (', "quiet": true', "", ', "quiet": true'):
            await socket.send(f'{{"type": "ping"{quiet}}}')
        async for text in socket:
            said.append(json.loads(text)["type"])
            if said[-1] == "join":
                await socket.send(IN % "lobby")

    async with serve(ping, "127.0.0.1", 0) as server, asyncio.timeout(20):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with holdfast.connect(url) as client, client.join("lobby") as room:
            await anext(room)
    assert said.count("pong") == 1


async def test_of_a_crowd_a_hundred_are_known() -> None:
    async with flooded('{"type":"user_joined","room":"lobby","userId":"#","name":"x","roomSize":5}') as (room, _):
        assert [user.user_id for user in room.users] == [str(number) for number in range(100)]
    async with flooded('{"type":"user_typing","room":"lobby","userId":"#","name":"x"}') as (room, _):
        assert len(room.replica.typing) == 100
    people = json.dumps([{"userId": str(number), "name": "x"} for number in range(200)])
    for named in (f'"users":{people}', f'"left":[],"joined":{people}'):
        async with flooded(f'{{"type":"presence","room":"lobby","roomSize":200,{named}}}') as (room, _):
            assert len(room.users) == 100


# ── what is shown of what others say ──────────────────────────────────────────────────────────────

WILD = "\x1b[31m \x07 \x7f \x9b2J \u2028 \u202e \r\n2026-11-27 CRITICAL forged"


async def told(socket: ServerConnection, *messages: dict[str, Any]) -> None:
    for message in messages:
        await socket.send(json.dumps(message))


async def test_what_a_server_says_is_one_line_of_a_log_and_no_order_to_a_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def say(socket: ServerConnection) -> None:
        await told(socket, json.loads(WELCOME), {"type": "error", "error": WILD, "code": "x"}, {"type": WILD})
        await socket.wait_closed()

    async with serve(say, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with holdfast.connect(f"http://127.0.0.1:{port}", jitter=False) as client, asyncio.timeout(5):
            await anext(reasons(client))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("holdfast")]
    assert ["refused" in line for line in lines] == [True, False]
    assert all("CRITICAL forged" in line and line.isprintable() for line in lines)


async def test_nor_is_it_what_holdfast_watch_prints() -> None:
    shown = asyncio.Event()

    async def say(socket: ServerConnection) -> None:
        user = {"userId": "u", "name": f"Ann {WILD}"}
        joined = json.loads(IN % "lobby") | {"reason": f"trimmed {WILD}"}
        said = {"type": f"said {WILD}", "room": "lobby", "id": "k:1", "text": f"hello {WILD}"}
        await told(socket, json.loads(WELCOME) | {"user": user})
        async for text in socket:
            if '"join"' in text:  # type: ignore[operator]
                await told(socket, joined, said)
                await shown.wait()
                await socket.close(CloseCode.FORBIDDEN, "bye \x1b[2J")

    async with serve(say, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        command = [sys.executable, "-m", "holdfast", "watch", url, "lobby"]
        environment = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONIOENCODING": "utf-8"}
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(20):
            async for line in process.stdout:
                lines.append(line.decode().removesuffix("\n"))
                if "hello" in lines[-1]:
                    shown.set()
            await process.wait()
    assert [line for line in lines if not line.isprintable()] == []
    for what in ("as Ann", "trimmed", "said", "hello", "bye"):
        assert [what in line for line in lines].count(True) == 1
    assert all(re.match(r"[0-9:]{8}  ", line) for line in lines)


async def test_nor_the_error_that_ends_it() -> None:
    async def say(socket: ServerConnection) -> None:
        await told(socket, json.loads(WELCOME))
        async for text in socket:
            if '"join"' in text:  # type: ignore[operator]
                await told(socket, {"type": "error", "error": WILD, "code": "forbidden", "room": "lobby"})

    for command in ("watch", "bench"):
        async with serve(say, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "holdfast", command, url, "lobby"],
                env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONIOENCODING": "utf-8"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(20):
                printed, _ = await process.communicate()
        assert "CRITICAL forged" in printed.decode()
        assert all(line.isprintable() for line in printed.decode().split("\n"))


# ── what has no end ───────────────────────────────────────────────────────────────────────────────


PART = b"x" * MIB
ENDLESS: dict[str, dict[str, list[Answer]]] = {
    "an answer": {"send": [endless(PART, b'{"type":"'), connected()]},
    "an answer that is no success": {"send": [(endless(PART), {"status": "500 Oops"}), connected()]},
    "a poll": {"events": [refused(), GOOD], "poll": [endless(PART, b'{"data":["')]},
    "a poll that is refused": {"events": [refused(), GOOD], "poll": [(endless(PART), {"status": "500 Oops"})]},
    "a line of a stream": {"events": [(endless(PART, b"data: "), SSE), GOOD]},
    "a comment of a stream": {"events": [(endless(PART, b": "), SSE), GOOD]},
    "an event of a stream": {"events": [(endless(b"data: " + PART + b"\n"), SSE), GOOD]},
    "gaps of a stream": {"events": [(endless(f"{GAP}\n\n".encode() * 100), SSE), GOOD]},
}


def peak() -> int:
    """Return how much memory this process has had at most, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("answers", ENDLESS.values(), ids=ENDLESS)
async def test_an_answer_without_end_is_a_lost_link(answers: dict[str, list[Answer]]) -> None:
    before = peak()
    async with (
        hostile(**{name: [*given] for name, given in answers.items()}) as peer,
        holdfast.connect(peer.url, jitter=False) as client,
        client.join("lobby"),
        asyncio.timeout(30),
    ):
        await anext(reasons(client))
    assert peak() - before < 6 * MESSAGE_BYTES


async def test_an_answer_of_64_mib_is_taken_and_one_more_byte_is_not() -> None:
    assert MESSAGE_BYTES == 64 * MIB
    for extra, taken in ((0, True), (1, False)):
        said = connected(filled="")
        assert isinstance(said, bytes)
        said = said[:-2] + b"x" * (MESSAGE_BYTES - len(said) + extra) + said[-2:]
        assert len(said) == MESSAGE_BYTES + extra
        async with hostile(send=[said]) as peer, holdfast.connect(peer.url, jitter=False) as client:
            async with asyncio.timeout(20):
                async for status in client.statuses():
                    if status.state in (State.LIVE, State.WAITING):
                        break
            assert (status.state is State.LIVE) is taken
            assert taken or "more than 67108864 bytes" in status.reason


async def test_an_event_of_a_megabyte_and_more_comes_by_a_stream_as_on_a_websocket() -> None:
    text = "x" * (3 * MIB)
    said = f'event: said\nid: k:lobby=1\ndata: {{"type":"said","room":"lobby","id":"k:1","text":"{text}"}}'
    async with (
        hostile(events=[stream("id: k:lobby=0", said)]) as peer,
        asyncio.timeout(20),
        holdfast.connect(peer.url) as client,
        client.join("lobby") as room,
    ):
        assert isinstance(await anext(room), Resync)
        event = await anext(room)
        assert isinstance(event, Event)
        assert event.data["text"] == text


BOMB = gzip.compress(b"x" * (300 * MIB), 9)
ROADS: dict[str, dict[str, list[Answer]]] = {
    "an answer": {"send": [(BOMB, {"content-encoding": "gzip"}), connected()]},
    "a refusal": {"send": [(BOMB, {"content-encoding": "gzip", "status": "500 Oops"}), connected()]},
    "a poll": {"events": [refused(), GOOD], "poll": [(BOMB, {"content-encoding": "gzip"})]},
    "a stream": {"events": [(BOMB, {**SSE, "content-encoding": "gzip"}), GOOD]},
}


@pytest.mark.parametrize("answers", ROADS.values(), ids=ROADS)
async def test_nothing_is_inflated(answers: dict[str, list[Answer]]) -> None:
    before, slowest = peak(), 0.0

    async def watch() -> None:
        nonlocal slowest
        while True:
            last = time.thread_time()
            await asyncio.sleep(0.001)
            slowest = max(slowest, time.thread_time() - last)

    watching = asyncio.create_task(watch())
    async with (
        hostile(**{name: [*given] for name, given in answers.items()}) as peer,
        holdfast.connect(peer.url, jitter=False) as client,
        client.join("lobby"),
        asyncio.timeout(5),
    ):
        assert "compressed" in await anext(reasons(client))
        assert all(b"accept-encoding: identity" in head.lower() for _, name, head in peer.asked if name != "ws")
    watching.cancel()
    assert peak() - before < 20 * MIB
    assert slowest < 0.2
