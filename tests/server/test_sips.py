"""What is laborious waits for the others, what is not does not, and everything is told once and in order."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER

from holdfast.protocol.codec import Codec
from holdfast.protocol.strict import Strict
from holdfast.server.connection import Connection
from holdfast.server.limits import Limits
from holdfast.server.runner import configure
from holdfast.server.sips import ALL_SECONDS, READ_BYTES, SIP_BYTES, TURN_SECONDS, Sipping, Sips, attention

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]
DATA = random.Random(8192).randbytes(2 * 1024 * 1024)
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


class Clock:
    """A time that passes when a test says so: what is decided by it is decided so on every machine."""

    seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def spend(self, seconds: float) -> None:
        self.seconds += seconds


def clock_here() -> Clock:
    """Return what those who are listened to in this loop take their time of."""
    clock = Clock()
    here = attention()
    here._now = clock.now  # before anything was noted of a turn
    here._began = clock.now()
    return clock


@pytest.fixture
async def clock() -> Clock:
    """Return that of a test's own loop."""
    return clock_here()


class Hearer:
    """What is told of what comes in: it takes its time, and may hold back or resume whenever it likes."""

    read_paused = False
    seconds = 0.0

    def __init__(self, spend: Callable[[float], None]) -> None:
        self.spend = spend
        self.heard: list[bytes] = []
        self.ended = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        self.spend(self.seconds)

    def eof_received(self) -> None:
        assert b"".join(self.heard) == DATA, "the end came before something"

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)


async def told(hearer: Hearer) -> None:
    """Send it everything, and wait until it knows."""
    server = await asyncio.get_running_loop().create_server(lambda: Sips(hearer), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(DATA)
    writer.write_eof()
    async with asyncio.timeout(20):
        await hearer.ended
    writer.transport.abort()
    server.close()
    assert b"".join(hearer.heard) == DATA


async def measure(turns: list[float], clock: Clock) -> None:
    """Note how long each turn of the loop takes."""
    while True:
        began = clock.seconds
        await asyncio.sleep(0)
        turns.append(clock.seconds - began)


@LOOPS
def test_what_costs_time_is_told_in_order_and_others_come_between(new_loop: NewLoop) -> None:
    class Laborious(Hearer):
        seconds = TURN_SECONDS / 2

    turns: list[float] = []

    async def main() -> None:
        clock = clock_here()
        waiting = asyncio.create_task(measure(turns, clock))
        await told(Laborious(clock.spend))
        waiting.cancel()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert len(turns) > len(DATA) // SIP_BYTES // 4
    assert max(turns) < 10 * TURN_SECONDS  # all of one read would be 32 sips


@LOOPS
def test_who_was_read_and_not_heard_yet_is_known_to_wait(new_loop: NewLoop) -> None:
    class Laborious(Hearer):
        seconds = TURN_SECONDS

    async def main() -> None:
        hearer = Laborious(clock_here().spend)
        sips = Sips(hearer)
        server = await asyncio.get_running_loop().create_server(lambda: sips, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(DATA[:READ_BYTES])
        waited = 0
        while sum(map(len, hearer.heard)) < READ_BYTES:
            await asyncio.sleep(0)
            waited += sips.is_waiting
        assert waited
        await asyncio.sleep(0)
        assert not sips.is_waiting
        writer.transport.abort()
        server.close()
        await hearer.ended

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@LOOPS
def test_however_many_speak_at_once_nobody_waits_for_all_of_them(new_loop: NewLoop) -> None:
    class Laborious(Hearer):
        seconds = TURN_SECONDS

    turns: list[float] = []
    crowd: list[Laborious] = []

    async def main() -> None:
        clock = clock_here()

        def newcomer() -> Sips:
            crowd.append(Laborious(clock.spend))
            return Sips(crowd[-1])

        loop = asyncio.get_running_loop()
        server = await loop.create_server(newcomer, "127.0.0.1", 0)
        peers = [await asyncio.open_connection(*server.sockets[0].getsockname()) for _ in range(41)]
        while len(crowd) < len(peers):
            await asyncio.sleep(0)
        *laborious, (_, honest) = peers
        waiting = asyncio.create_task(measure(turns, clock))
        for _, writer in laborious:
            writer.write(DATA[: READ_BYTES // 8])
        while not any(hearer.heard for hearer in crowd):
            await asyncio.sleep(0)
        honest.write(b"it is me")
        async with asyncio.timeout(20):
            while not (heard := sum(hearer.heard == [b"it is me"] for hearer in crowd)):
                await asyncio.sleep(0)
            told = sum(map(len, (hearer.heard for hearer in crowd))) - heard
            while sum(len(part) for hearer in crowd for part in hearer.heard) < len(laborious) * READ_BYTES // 8:
                await asyncio.sleep(0)
        assert told < len(laborious) * 2, "of four sips each"
        waiting.cancel()
        for _, writer in peers:
            writer.transport.abort()
        for hearer in crowd:
            await hearer.ended
        server.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert all(b"".join(hearer.heard) in (b"it is me", DATA[: READ_BYTES // 8]) for hearer in crowd)
    assert max(turns) < 2 * ALL_SECONDS + 10 * TURN_SECONDS  # a sip of each would be 80 ms


@LOOPS
def test_whoever_holds_back_and_resumes_in_between_hears_everything_once_and_in_order(new_loop: NewLoop) -> None:
    class Moody(Hearer):
        seconds = TURN_SECONDS / 3

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if len(self.heard) % 3 == 0:
                self.read_paused = True
                self.transport.pause_reading()
                loop = asyncio.get_running_loop()
                wait = (loop.call_soon, self.resume) if len(self.heard) % 2 else (loop.call_later, 0.001, self.resume)
                wait[0](*wait[1:])  # type: ignore[operator]

        def resume(self) -> None:
            self.read_paused = False
            self.transport.resume_reading()

    async def main() -> None:
        await told(Moody(clock_here().spend))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


class Link:
    """A transport without a socket."""

    def __init__(self, protocol: Sipping) -> None:
        self.protocol = protocol
        self.is_paused = False

    def get_protocol(self) -> Sipping:
        return self.protocol

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


def reads(protocol: Sipping, data: bytes) -> None:
    """Have it read this at once."""
    protocol.get_buffer(-1)[: len(data)] = data
    protocol.buffer_updated(len(data))


async def test_what_costs_nothing_is_told_at_once(clock: Clock) -> None:
    hearer = Hearer(clock.spend)
    hearer.transport = Link(sips := Sips(hearer))
    sips.connection_made(hearer.transport)
    reads(sips, DATA[: READ_BYTES - 1])
    assert b"".join(hearer.heard) == DATA[: READ_BYTES - 1]
    assert not hearer.transport.is_paused


async def test_what_is_left_goes_to_whoever_has_the_connection_then(clock: Clock) -> None:
    first, second = Hearer(clock.spend), Hearer(clock.spend)
    first.seconds = TURN_SECONDS * 2
    link: Any = Link(sips := Sips(first))
    sips.connection_made(link)
    reads(sips, DATA[: SIP_BYTES * 4])
    assert link.is_paused
    link.protocol = Sips(second)
    await asyncio.sleep(0)
    assert first.heard + second.heard == [DATA[at : at + SIP_BYTES] for at in range(0, SIP_BYTES * 4, SIP_BYTES)]
    assert not link.is_paused


async def test_whoever_waits_is_not_read_though_somebody_resumes_it(clock: Clock) -> None:
    hearer = Hearer(clock.spend)
    hearer.seconds = TURN_SECONDS * 2
    link: Any = Link(sips := Sips(hearer))
    sips.connection_made(link)
    reads(sips, DATA[: SIP_BYTES * 3])
    link.resume_reading()
    while len(hearer.heard) < 2:
        await asyncio.sleep(0)
    assert sips.is_waiting
    assert link.is_paused


async def test_whoever_holds_back_is_not_read_when_all_is_told(clock: Clock) -> None:
    hearer = Hearer(clock.spend)
    hearer.seconds = TURN_SECONDS * 2
    link: Any = Link(sips := Sips(hearer))
    sips.connection_made(link)
    reads(sips, DATA[: SIP_BYTES * 2])
    hearer.read_paused = True
    while sips.is_waiting:
        await asyncio.sleep(0)
    assert link.is_paused


async def test_what_is_small_waits_too_when_others_have_had_the_turn(clock: Clock) -> None:
    crowd = [Hearer(clock.spend) for _ in range(40)]
    links: list[Any] = []
    for hearer in crowd:
        hearer.seconds = ALL_SECONDS / 8
        links.append(Link(sips := Sips(hearer)))
        sips.connection_made(links[-1])
    for link in links:
        reads(link.protocol, b"hello")
    turns = []
    while not all(hearer.heard for hearer in crowd):
        turns.append(sum(map(len, (hearer.heard for hearer in crowd))))
        await asyncio.sleep(0)
    assert turns[0] <= 17
    assert max(after - before for before, after in pairwise(turns)) <= 17  # in a turn whose begin nobody has noted
    assert not any(link.is_paused for link in links)


async def test_of_many_requests_some_are_begun_in_each_turn_and_the_first_to_come_first(clock: Clock) -> None:
    begun: list[tuple[int, int]] = []  # in which turn, and who
    requests: list[asyncio.Task[None]] = []
    turn = 0

    def comes() -> None:
        async def request(number: int) -> None:
            await attention().when_left()
            begun.append((turn, number))
            clock.spend(ALL_SECONDS / 8)

        requests.append(asyncio.create_task(request(len(requests))))

    for _ in range(40):
        comes()
    while len(begun) < len(requests):
        await asyncio.sleep(0)
        turn += 1
        if len(requests) < 100:
            comes()
    assert max(Counter(turn for turn, _ in begun).values()) <= 17
    assert [number for _, number in begun] == list(range(100))
    await asyncio.gather(*requests)


@pytest.mark.parametrize("speed", [False, True], ids=["h11", "httptools"])
@pytest.mark.parametrize("lines", [b"", UPGRADE], ids=["HTTP", "WebSocket"])
async def test_of_many_who_come_at_once_some_are_begun_in_each_turn(clock: Clock, speed: bool, lines: bytes) -> None:
    begun: list[int] = []  # in which turn
    turn = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(turn)
        clock.spend(ALL_SECONDS / 8)
        await Response(status_code=403)(scope, receive, send)

    config = configure(app, Limits(), speed=speed, log_level=None)
    make: Any = config.http_protocol_class
    server = await asyncio.get_running_loop().create_server(
        lambda: make(config=config, server_state=ServerState(), app_state={}), "127.0.0.1", 0
    )
    with ExitStack() as held:
        for _ in range(40):
            comer = held.enter_context(socket.create_connection(server.sockets[0].getsockname()))
            comer.sendall(REQUEST + lines + b"\r\n")
        async with asyncio.timeout(20):
            while len(begun) < 40:
                await asyncio.sleep(0)
                turn += 1
    assert max(Counter(begun).values()) <= 17
    server.close()


async def test_a_large_message_is_no_more_work_than_a_small_one(clock: Clock) -> None:
    """The inside of a frame is taken at once, and not looked at again with each sip."""

    class Native(Sipping):
        def __init__(self) -> None:
            self._engine = Strict(SERVER)
            self._transport = Link(self)  # type: ignore[assignment]
            self._attention = attention()
            self.sips: list[int] = []

        @property
        def missing(self) -> int:
            return self._engine.missing

        def data_received(self, data: bytes) -> None:
            self.sips.append(len(data))
            self._engine.receive_data(data)

    wire = Frame(Opcode.TEXT, b"x" * 60_000).serialize(mask=True)
    native = Native()
    reads(native, wire * 4)
    assert len(native.sips) <= 5
    assert len(native._engine.events_received()) == 4
    assert native.missing == 0


@LOOPS
def test_one_that_fails_is_cut_and_deafens_nobody(new_loop: NewLoop) -> None:
    class Failing(Hearer):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if len(self.heard) == 4:
                raise RuntimeError("a mistake of ours")

    crowd: list[Hearer] = []
    failures: list[str] = []

    async def main() -> None:
        clock = clock_here()

        def newcomer() -> Sips:
            hearer = Hearer(clock.spend) if crowd else Failing(clock.spend)
            hearer.seconds = TURN_SECONDS
            crowd.append(hearer)
            return Sips(hearer)

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: failures.append(str(context["exception"])))
        server = await loop.create_server(newcomer, "127.0.0.1", 0)
        peers = []
        for count in range(1, 9):
            peers.append(await asyncio.open_connection(*server.sockets[0].getsockname()))
            while len(crowd) < count:
                await asyncio.sleep(0)
        for _, writer in peers:
            writer.write(DATA[: READ_BYTES // 4])
        async with asyncio.timeout(20):
            await crowd[0].ended
            while any(sum(map(len, hearer.heard)) < READ_BYTES // 4 for hearer in crowd[1:]):
                await asyncio.sleep(0.01)
        for _, writer in peers:
            writer.transport.abort()
        for hearer in crowd[1:]:
            await hearer.ended
        server.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert failures[0] == "a mistake of ours"


class Said(Connection):
    """A connection whose messages are handled by a test."""

    is_held = False
    holds = 0

    def hold(self, is_held: bool) -> None:
        self.is_held = is_held
        self.holds += is_held

    def say_all(self, count: int) -> None:
        for number in range(count):
            self.received(f'{{"type":"say","number":{number}}}')


class Handled:
    """The hands of such connections: each message takes its time, and is noted."""

    def __init__(self, seconds: float, spend: Callable[[float], None]) -> None:
        self.spend = spend
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.attention = attention()
        self.limits = Limits()
        self.codec = Codec()
        self.seconds = seconds
        self.handled: list[tuple[Connection, int]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Any) -> asyncio.Task[None]:
        self.tasks.append(self.loop.create_task(work))
        return self.tasks[-1]

    async def handle(self, connection: Connection, message: Any) -> None:
        self.spend(self.seconds)
        self.handled.append((connection, message.data["number"]))


@LOOPS
def test_what_several_messages_lead_to_is_done_in_turns_and_in_their_order(new_loop: NewLoop) -> None:
    turns: list[float] = []

    async def main() -> None:
        clock = clock_here()
        hands: Any = Handled(TURN_SECONDS / 2, clock.spend)
        one = Said(hands, knows_us=True)
        waiting = asyncio.create_task(measure(turns, clock))
        one.say_all(100)
        await hands.tasks[0]
        waiting.cancel()
        assert hands.handled == [(one, number) for number in range(100)]
        assert one.holds > 100 // 8, "its end could overtake what it has said"
        assert not one.is_held

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert max(turns) < ALL_SECONDS  # all of them would be 100 ms


@LOOPS
def test_however_many_say_much_at_once_who_says_little_waits_for_a_few_of_their_messages(new_loop: NewLoop) -> None:
    turns: list[float] = []

    async def main() -> None:
        clock = clock_here()
        hands: Any = Handled(TURN_SECONDS / 2, clock.spend)
        crowd = [Said(hands, knows_us=True) for _ in range(40)]
        waiting = asyncio.create_task(measure(turns, clock))
        for each in crowd:
            each.say_all(20)
        await asyncio.sleep(0)
        honest = Said(hands, knows_us=True)
        honest.say_all(1)
        await asyncio.gather(*hands.tasks)
        waiting.cancel()
        assert [said for said, _ in hands.handled].index(honest) < 4 * len(crowd)
        for each in crowd:
            assert [number for said, number in hands.handled if said is each] == list(range(20))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert max(turns) < 2 * ALL_SECONDS + 10 * TURN_SECONDS  # a message of each would be 40 ms, all of them 800


async def test_who_ends_while_it_waits_in_line_leaves_nobody_there(clock: Clock) -> None:
    hands: Any = Handled(TURN_SECONDS, clock.spend)
    first, second = (Said(hands, knows_us=True) for _ in range(2))
    for each in (first, second):
        each.say_all(10)
    while not first.is_held:
        await asyncio.sleep(0)
    first.ended()
    hands.tasks[1].cancel()
    await asyncio.wait(hands.tasks)
    assert not first.is_held
    assert not second.is_held
    await asyncio.wait_for(attention().turn(), 1.0)
    await asyncio.sleep(0)
    assert not attention()._calls
    assert len([said for said, _ in hands.handled if said is first]) < 10
