"""
What is just within a limit passes, and a little more does not: by default, exactly.

The server is the real one, in a sea that is calm: nothing is on its way for any time, and time passes only while it is
slept, however slow the machine is.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Self

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, Protocol, State

from holdfast import Hub, Limits, Transaction, User
from holdfast.core.ready import Span
from holdfast.server.native import NativeConnection
from holdfast.store import choice, retention
from holdfast.store.sqlite import SqliteStore
from holdfast.store.store import Once
from holdfast.testing import Sea
from holdfast.testing.network import Weather
from holdfast.testing.served import Served

#: A moment more than it takes until the next one is allowed, in a hundredth of which nothing is.
MORE = 1.01


@pytest.fixture
def calm() -> Iterator[Sea]:
    with Sea(weather=Weather(delay=(0.0, 0.0), torn=0.0)) as sea:
        yield sea


class Peer(asyncio.Protocol):
    """A WebSocket that does only what it is told: it answers no ping, and no close frame."""

    def __init__(self) -> None:
        self._protocol = Protocol(CLIENT, state=State.OPEN, max_size=None)
        self._head: bytes | None = b""
        self.frames: list[Frame] = []
        self.has_ended = False

    @classmethod
    @asynccontextmanager
    async def dial(cls, server: Served, query: str = "") -> AsyncIterator[Self]:
        await server.ready()
        transport, peer = await asyncio.get_running_loop().create_connection(cls, "localhost", 8000)
        transport.write(
            b"GET /ws%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % query.encode()
        )
        await all_is_said()
        try:
            yield peer
        finally:
            transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in self._head
            self._head = None
        self._protocol.receive_data(data)
        self.frames += [event for event in self._protocol.events_received() if isinstance(event, Frame)]

    def connection_lost(self, error: Exception | None) -> None:
        self.has_ended = True

    def read(self, reads: bool) -> None:
        (self._transport.resume_reading if reads else self._transport.pause_reading)()

    async def say(self, *frames: Frame) -> None:
        self._transport.write(b"".join(frame.serialize(mask=True) for frame in frames))
        await all_is_said()

    def said(self, opcode: Opcode, words: bytes = b"") -> int:
        """Return how many of these have come."""
        return sum(frame.opcode is opcode and words in bytes(frame.data) for frame in self.frames)

    @property
    def code(self) -> int | None:
        """The code of the close frame that has come."""
        said = (bytes(frame.data) for frame in self.frames if frame.opcode is Opcode.CLOSE)
        return next((Close.parse(data).code for data in said), None)


class Listener(asyncio.Protocol):
    """Somebody who has asked for something, and notes what comes."""

    received = b""
    has_ended = False

    @classmethod
    def ask(cls, path: str) -> AbstractAsyncContextManager[Self]:
        return cls.say(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")

    @classmethod
    @asynccontextmanager
    async def say(cls, words: str) -> AsyncIterator[Self]:
        transport, listener = await asyncio.get_running_loop().create_connection(cls, "localhost", 8000)
        await listener.go_on(words)
        try:
            yield listener
        finally:
            transport.abort()

    async def go_on(self, words: str) -> None:
        self._transport.write(words.encode())
        await all_is_said()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.has_ended = True


def text(words: str) -> Frame:
    return Frame(Opcode.TEXT, words.encode())


async def all_is_said() -> None:
    """Wait until nothing more is said now."""
    await asyncio.sleep(1e-6)


def serve(sea: Sea, **options: Any) -> Served:
    hub = Hub("memory:", **options)

    @hub.on("say")
    async def say(request: Any) -> str:
        return "heard"

    @hub.on("wait")
    async def wait(request: Any) -> None:
        await asyncio.Event().wait()

    return sea.serve(Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan))


def test_a_hundred_messages_pass_at_once_and_fifty_more_each_second(calm: Sea) -> None:
    server = serve(calm)

    async def scenario() -> None:
        async with Peer.dial(server) as peer:
            await peer.say(*[text('{"type":"ping"}')] * 100)
            assert (peer.said(Opcode.TEXT, b'"pong"'), peer.code) == (100, None)
            await calm.sleep(MORE)
            await peer.say(*[text('{"type":"ping"}')] * 50)
            assert (peer.said(Opcode.TEXT, b'"pong"'), peer.code) == (150, None)
            await peer.say(text('{"type":"ping"}'))
            assert (peer.said(Opcode.TEXT, b'"pong"'), peer.code) == (150, 4129)
        async with Peer.dial(server) as peer:
            await peer.say(*[text('{"type":"ping"}')] * 101)
            assert (peer.said(Opcode.TEXT, b'"pong"'), peer.code) == (100, 4129)

    calm.run(scenario())


def test_by_http_they_are_as_many(calm: Sea) -> None:
    server = serve(calm)

    async def scenario() -> None:
        async with server.http() as client:

            async def heard(count: int) -> list[int]:
                return [(await client.post("/send", json={"type": "say"})).status_code for _ in range(count)]

            assert await heard(101) == [200] * 100 + [429]
            await calm.sleep(MORE)
            assert await heard(51) == [200] * 50 + [429]

    calm.run(scenario())


def test_twenty_control_frames_pass_in_a_second(calm: Sea) -> None:
    server = serve(calm)

    async def scenario() -> None:
        async with Peer.dial(server) as peer:
            await peer.say(*[Frame(Opcode.PING, b"")] * 20)
            assert (peer.said(Opcode.PONG), peer.code) == (20, None)
            await calm.sleep(MORE)
            await peer.say(*[Frame(Opcode.PONG, b"")] * 10, *[Frame(Opcode.PING, b"")] * 10)
            assert (peer.said(Opcode.PONG), peer.code) == (30, None)
            await calm.sleep(MORE / 2)
            await peer.say(*[Frame(Opcode.PING, b"")] * 10)
            assert (peer.said(Opcode.PONG), peer.code) == (40, None)
            await peer.say(Frame(Opcode.PONG, b""))
            assert peer.code == 4129

    calm.run(scenario())


def test_who_says_much_and_reads_nothing_has_no_more_kept_for_them_than_who_only_reads_nothing(calm: Sea) -> None:
    hub = Hub("memory:")
    server = calm.serve(Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan))

    async def scenario() -> None:
        async with Peer.dial(server) as peer:
            await peer.say(text('{"type":"join","room":"room"}'))
            peer.read(False)
            for _ in range(100):
                await hub.publish("room", "said", {"text": "x" * 20_000})
            await all_is_said()
            (connection,) = hub.opened.hands.connections
            assert isinstance(connection, NativeConnection)
            kept, had = connection._transport.get_write_buffer_size(), len(peer.frames)
            assert kept > 64 * 1024
            for second in range(600):
                await peer.say(*[Frame(Opcode.PING, b"%d" % second)] * 10, *[text('{"type":"ping"}')] * 10)
                if second < 100:
                    await peer.say(Frame(Opcode.BINARY, b"x"))
                await calm.sleep(1)
            assert connection._transport.get_write_buffer_size() - kept <= 2  # a ping of ours
            peer.read(True)
            await calm.sleep(1)
            assert peer.code is None
            pongs = [bytes(frame.data) for frame in peer.frames[had:] if frame.opcode is Opcode.PONG]
            assert pongs == [b"599"]
            assert peer.said(Opcode.TEXT, b"binary messages are not understood") == 100
            await peer.say(Frame(Opcode.PING, b"again"))
            assert bytes(peer.frames[-1].data) == b"again"

    calm.run(scenario())


def test_128_messages_wait_while_one_is_handled_and_no_more(calm: Sea) -> None:
    server = serve(calm)

    async def scenario() -> None:
        async with Peer.dial(server) as peer:
            await peer.say(text('{"type":"wait"}'))
            await peer.say(*[text('{"type":"x"}')] * 90)
            await calm.sleep(MORE)
            await peer.say(*[text('{"type":"x"}')] * 38)
            assert peer.code is None
            await peer.say(text('{"type":"x"}'))
            assert peer.code == 4129

    calm.run(scenario())


def test_messages_wait_that_are_512_kib_together_and_not_a_byte_more(calm: Sea) -> None:
    server = serve(calm)
    most = text('{"type":"wait"}'.ljust(64 * 1024))

    async def scenario() -> None:
        for more, code in ((0, None), (1, 4129)):
            async with Peer.dial(server) as peer:
                await peer.say(text('{"type":"wait"}'))  # this one is handled, for ever
                await peer.say(*[most] * 7, text('{"type":"wait"}'.ljust(64 * 1024 - 15)))
                assert peer.code is None
                await peer.say(text('{"type":"x"}'.ljust(15 + more)))
                assert peer.code == code

    calm.run(scenario())


def test_a_close_frame_is_to_be_answered_within_a_second(calm: Sea) -> None:
    server = serve(calm)

    async def scenario() -> None:
        async with Peer.dial(server) as peer:
            await peer.say(*[Frame(Opcode.PING, b"")] * 21)
            assert peer.code == 4129
            await calm.sleep(0.99)
            assert not peer.has_ended
            await calm.sleep(0.02)
            assert peer.has_ended

    calm.run(scenario())


def test_who_it_is_is_to_be_said_within_ten_seconds(calm: Sea) -> None:
    server = serve(calm, require_login=True)

    async def scenario() -> None:
        async with Peer.dial(server) as peer:
            await calm.sleep(9.99)
            assert peer.code is None
            await calm.sleep(0.02)
            assert peer.code == 4108

    calm.run(scenario())


def test_the_application_is_to_say_within_ten_seconds_who_somebody_is_and_what_they_may(calm: Sea) -> None:
    hub, asked = Hub("memory:"), list[str]()

    @hub.authenticate
    async def who(token: str | None, request: object) -> User:
        if token != "ann":
            asked.append("who")
            await asyncio.Event().wait()
        return User("ann", "Ann")

    @hub.authorize
    async def may(user: User, room: str, action: str) -> bool:
        asked.append("may")
        await asyncio.Event().wait()
        return True

    server = calm.serve(Starlette(routes=[Mount("/", hub.app)], lifespan=hub.lifespan))

    async def scenario() -> None:
        await server.ready()
        tasks = len(asyncio.all_tasks())
        async with AsyncExitStack() as stack:
            for token in ("bob", "ann"):
                query = f"rooms=room&token={token}"
                all = [
                    await stack.enter_async_context(Listener.ask(f"{path}?{query}")) for path in ("/events", "/poll")
                ]
                body = '{"type":"x","room":"room"}'
                said = f"POST /send?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                all.append(await stack.enter_async_context(Listener.say(said)))
                await calm.sleep(9.99)
                assert [one.received for one in all] == [b"", b"", b""]
                await calm.sleep(0.02)
                stream, poll, sent = (one.received for one in all)
                assert b" 200 " in stream
                assert b"retry: " in stream
                assert b" 503 " in poll
                assert b"retry-after" in poll
                assert b" 503 " in sent
            peer = await stack.enter_async_context(Peer.dial(server, "?token=ann"))
            for words in ('{"type":"join","room":"room"}', '{"type":"auth","token":"bob"}'):
                await peer.say(text(words))
                await calm.sleep(9.99)
                assert not peer.said(Opcode.TEXT, b"unavailable")
                await calm.sleep(0.02)
                assert peer.said(Opcode.TEXT, b"unavailable") == 1
                peer.frames.clear()
            assert asked == ["who"] * 3 + ["may"] * 4 + ["who"]
        await calm.sleep(1)
        assert len(asyncio.all_tasks()) == tasks

    calm.run(scenario())


def test_a_head_and_a_body_are_to_come_within_ten_seconds_each(calm: Sea) -> None:
    server = serve(calm)

    async def scenario() -> None:
        await server.ready()
        async with Listener.say("POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Le") as slow:
            await calm.sleep(9.99)
            await slow.go_on("ngth: 2\r\n\r\n{")
            await calm.sleep(9.99)
            assert slow.received == b""
            await calm.sleep(0.02)
            assert slow.received.startswith(b"HTTP/1.1 408 ")
        async with Listener.say("GET /poll") as slow:
            await calm.sleep(9.99)
            assert not slow.has_ended
            await calm.sleep(0.02)
            assert slow.has_ended

    calm.run(scenario())


def test_a_poll_is_held_for_thirty_seconds_and_a_stream_commented_on_after_fifteen(calm: Sea) -> None:
    server = serve(calm)

    async def scenario() -> None:
        await server.ready()
        async with Listener.ask("/events?room=lobby") as stream, Listener.ask("/poll?room=lobby") as poll:
            await calm.sleep(14.99)
            assert b": heartbeat" not in stream.received
            await calm.sleep(0.02)
            assert b": heartbeat" in stream.received
            await calm.sleep(14.98)
            assert poll.received == b""
            await calm.sleep(0.02)
            assert b'"timeout":true' in poll.received

    calm.run(scenario())


@pytest.mark.parametrize(
    ("limits", "places"), [(Limits(connections=5), 5), pytest.param(Limits(), 10_000, marks=pytest.mark.long)]
)
def test_ten_thousand_websockets_have_a_place_and_no_more(calm: Sea, limits: Limits, places: int) -> None:
    server = serve(calm, limits=limits)

    async def scenario() -> None:
        async with AsyncExitStack() as held:
            for _ in range(places):
                peer = await held.enter_async_context(Peer.dial(server))
                assert peer.said(Opcode.TEXT, b'"connected"')
            late = await held.enter_async_context(Peer.dial(server))
            (told,) = [json.loads(bytes(frame.data)) for frame in late.frames if frame.opcode is Opcode.TEXT]
            assert told == {"type": "goodbye", "reason": "the server is full", "after_ms": 1002, "spread_ms": 5000}
            assert late.code == 1013
            await peer.say(Frame(Opcode.CLOSE, b"\x03\xe8"))
            another = await held.enter_async_context(Peer.dial(server))
            assert another.said(Opcode.TEXT, b'"connected"')

    calm.run(scenario())


@pytest.mark.parametrize(
    ("limits", "places"), [(Limits(streams=5), 5), pytest.param(Limits(), 5_000, marks=pytest.mark.long)]
)
def test_five_thousand_streams_and_held_polls_have_a_place_and_no_more(calm: Sea, limits: Limits, places: int) -> None:
    server = serve(calm, limits=limits)

    async def scenario() -> None:
        await server.ready()
        async with AsyncExitStack() as held:
            for number in range(places):
                path = "/poll?room=lobby" if number % 2 else "/events?room=lobby"
                stream = await held.enter_async_context(Listener.ask(path))
                assert (b'"connected"' in stream.received) is (number % 2 == 0)
            late = await held.enter_async_context(Listener.ask("/events?room=lobby"))
            assert b"retry: " in late.received
            assert b'"connected"' not in late.received
            assert (await server.get("/poll?room=lobby")).status_code == 503

    calm.run(scenario())


# ── what is forgotten ─────────────────────────────────────────────────────────────────────────────

DAY = 24 * 3600.0


class House:
    """A hub in a file of its own, on a wall clock that is set by hand, which looks for what to forget all the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        self._looks = 0
        monkeypatch.setattr(choice, "SqliteStore", partial(SqliteStore, wall=lambda: self.now))
        monkeypatch.setattr(retention, "FORGET_EVERY", 0.0)
        forget = retention.forget

        async def forget_and_count(*args: Any) -> None:
            await forget(*args)
            self._looks += 1

        monkeypatch.setattr(retention, "forget", forget_and_count)
        self.hub = Hub("memory:")

    async def has_looked(self) -> None:
        """Wait until all is forgotten that may be now."""
        looks = self._looks
        async with asyncio.timeout(30):
            while self._looks < looks + 2:  # one may have begun before
                await asyncio.sleep(0.001)

    async def kept(self) -> Span:
        """Return what is there of the lobby then."""
        await self.has_looked()
        return await self.hub.opened.store.span("lobby")


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def publish(tx: Transaction, count: int) -> None:
    for _ in range(count):
        tx.publish("lobby", "said", {})


async def test_ten_thousand_publications_are_kept_and_no_more(house: House) -> None:
    async with house.hub as hub:
        await hub.write(publish, 10_000)
        assert await house.kept() == Span(1, 10_000)
        await hub.write(publish, 1)
        assert await house.kept() == Span(2, 10_001)


async def test_publications_are_kept_for_a_week_and_no_longer(house: House) -> None:
    async with house.hub as hub:
        await hub.publish("lobby", "said", {})
        house.now += 7 * DAY - 1
        assert await house.kept() == Span(1, 1)
        house.now += 2
        assert await house.kept() == Span(2, 1)


async def test_an_answer_is_remembered_for_a_day_and_no_longer(house: House) -> None:
    once = Once("ann", "a key", "what it says")
    async with house.hub as hub:
        await hub.write_once(once, publish, 1)
        house.now += DAY - 1
        await house.has_looked()
        await hub.write_once(once, publish, 1)
        assert await house.kept() == Span(1, 1)
        house.now += 2
        await house.has_looked()
        await hub.write_once(once, publish, 1)
        assert await house.kept() == Span(1, 2)
