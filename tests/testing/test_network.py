"""Bytes arrive in order or not at all, whatever becomes of a link; and each end is told what a kernel would tell it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from holdfast.testing.endpoint import BUFFER, Endpoint, Socket, Wire
from holdfast.testing.mishap import unfelt
from holdfast.testing.network import Network, SeaLoop, Weather
from holdfast.testing.virtual import Process


class Peer(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard = b""
        self.pieces = 0
        self.lost: list[Exception | None] = []
        self.ended = False
        self.is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Endpoint)
        self.end = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.pieces += 1

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False


class Link:
    """Two processes with a link between them."""

    def __init__(self, weather: Weather) -> None:
        self.loop = SeaLoop()
        self.network = Network(self.loop, random.Random(1), weather)
        self.client, self.server = Process("client"), Process("server")
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        served: list[Peer] = []

        def accept() -> Peer:
            served.append(Peer())
            return served[-1]

        async def serve() -> None:
            await self.loop.create_server(accept, sock=Socket(("server", 80)))

        async def dial() -> Peer:
            _, peer = await self.loop.create_connection(Peer, "server", 80)
            assert isinstance(peer, Peer)
            return peer

        await self.server.run(self.loop.create_task, serve())
        self.near = await self.client.run(self.loop.create_task, dial())
        await asyncio.sleep(1)
        (self.far,) = served

    @property
    def wire(self) -> Wire:
        (wire,) = self.network.wires
        return wire

    def wait(self, seconds: float = 5.0) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link(Weather((0.01, 0.1), torn=0.5))
    yield link
    link.loop.close()


def test_what_is_sent_arrives_in_order_and_in_other_pieces(link: Link) -> None:
    sent = b"".join(b"%d," % number for number in range(1000))
    for start in range(0, len(sent), 10):
        link.near.end.write(sent[start : start + 10])
    link.wait()
    assert link.far.heard == sent
    assert link.far.pieces != len(sent) // 10
    assert link.near.end.acknowledged() == len(sent)
    assert link.near.end.unacknowledged() == 0


def test_a_silent_link_tells_nobody_and_when_it_heals_everything_comes(link: Link) -> None:
    link.wire.fall_silent()
    link.near.end.write(b"hello")
    link.wait(30)
    assert link.far.heard == b""
    assert (link.near.lost, link.far.lost) == ([], [])
    assert link.near.end.unacknowledged() == 5
    link.wire.heal()
    link.wait()
    assert link.far.heard == b"hello"
    assert link.near.end.unacknowledged() == 0


def test_of_a_link_that_is_silent_one_way_the_other_way_arrives_and_is_not_acknowledged(link: Link) -> None:
    link.near.end.is_silent = True
    link.near.end.write(b"lost")
    link.far.end.write(b"heard")
    link.wait()
    assert (link.far.heard, link.near.heard) == (b"", b"heard")
    assert link.far.end.acknowledged() == 0
    link.wire.heal()
    link.wait()
    assert link.far.heard == b"lost"
    assert link.far.end.acknowledged() == 5


def test_a_reset_is_told_to_both(link: Link) -> None:
    link.near.end.write(b"x" * 100)
    link.wire.reset()
    link.wait()
    assert [type(error) for error in (*link.near.lost, *link.far.lost)] == [ConnectionResetError] * 2


@pytest.mark.parametrize("end", ["close", "write_eof"])
def test_an_end_comes_after_what_was_written(link: Link, end: str) -> None:
    link.near.end.write(b"all of it")
    getattr(link.near.end, end)()
    link.wait()
    assert link.far.heard == b"all of it"
    assert link.far.ended
    assert link.far.lost == [None]


def test_an_abort_is_an_end_for_the_peer_behind_what_the_kernel_had_taken(link: Link) -> None:
    link.near.end.write(b"last words")
    link.near.end.abort()
    link.wait()
    assert link.near.lost == [None]
    assert (link.far.heard, link.far.lost) == (b"last words", [None])


def test_an_abort_is_a_reset_for_the_peer_if_that_was_asked_for(link: Link) -> None:
    link.near.end.reset_on_abort()
    link.near.end.abort()
    link.wait()
    assert link.near.lost == [None]
    assert isinstance(link.far.lost[0], ConnectionResetError)


def test_an_abort_is_a_reset_for_the_peer_if_it_has_said_what_was_not_read(link: Link) -> None:
    link.near.end.pause_reading()
    link.far.end.write(b"hello?")
    link.wait()
    link.near.end.abort()
    link.wait()
    assert isinstance(link.far.lost[0], ConnectionResetError)


def test_where_little_gets_through_in_a_second_much_takes_long() -> None:
    link = Link(Weather((0.01, 0.02), rate=10_000.0))
    began = link.loop.time()
    link.near.end.write(b"x" * 50_000)
    while len(link.far.heard) < 50_000:
        link.wait(0.1)
    assert 4.9 < link.loop.time() - began < 5.5
    link.loop.close()


def test_a_process_that_is_killed_is_told_nothing_and_its_kernel_ends_its_links(link: Link) -> None:
    link.near.end.write(b"last words")
    link.client.kill()
    link.wait()
    assert link.far.heard == b"last words"
    assert link.far.ended
    assert link.near.lost == []


def test_a_process_that_is_stopped_reads_nothing_until_it_goes_on(link: Link) -> None:
    link.server.stop()
    link.near.end.write(b"hello")
    link.wait()
    assert link.far.heard == b""
    assert link.near.end.unacknowledged() == 0, "its kernel has it"
    assert link.far.end.unread()
    link.server.go_on()
    link.wait()
    assert link.far.heard == b"hello"


def test_what_nobody_reads_waits_in_its_kernel_then_in_ours_then_in_us(link: Link) -> None:
    link.far.end.pause_reading()
    much = b"x" * (2 * BUFFER + 100_000)
    link.near.end.write(much)
    link.wait()
    assert link.near.is_full
    assert link.near.end.get_write_buffer_size() == 100_000
    assert link.near.end.unacknowledged() == BUFFER
    link.far.end.resume_reading()
    link.wait(30)
    assert not link.near.is_full
    assert link.far.heard == much


def test_a_listener_s_kernel_ends_a_link_on_which_nothing_is_acknowledged(link: Link) -> None:
    link.wire.fall_silent()
    link.far.end.write(b"is anybody there?")
    link.wait(39)
    assert link.far.lost == []
    link.wait(2)
    assert isinstance(link.far.lost[0], TimeoutError)


def test_where_nobody_listens_a_dial_is_refused_and_where_nothing_gets_through_it_waits(link: Link) -> None:
    async def dial(host: str) -> None:
        async with asyncio.timeout(10):
            await link.loop.create_connection(Peer, host, 80)

    with pytest.raises(ConnectionRefusedError):
        link.loop.run_until_complete(dial("nowhere"))
    link.network.unreachable["server"] = unfelt
    with pytest.raises(TimeoutError):
        link.loop.run_until_complete(dial("server"))
    link.network.unreachable.clear()
    link.server.kill()
    with pytest.raises(ConnectionRefusedError):
        link.loop.run_until_complete(dial("server"))


def test_a_proxy_may_bar_websockets_alone(link: Link) -> None:
    link.network.bars_websockets = True
    link.near.end.write(b"GET / HTTP/1.1\r\n\r\n")
    link.wait()
    assert link.near.lost == []
    link.near.end.write(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
    link.wait()
    assert isinstance(link.near.lost[0], ConnectionResetError)


def test_the_same_dice_make_the_same_run() -> None:
    def run() -> tuple[bytes, int, float]:
        link = Link(Weather((0.01, 0.5), torn=0.9))
        for number in range(50):
            link.near.end.write(b"%d " % number)
        link.wait(20)
        link.loop.close()
        return link.far.heard, link.far.pieces, link.loop.time()

    assert run() == run()
