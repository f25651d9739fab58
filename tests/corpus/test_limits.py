"""Limits on time, with many at once who wait for them."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from corpus.target import PING, PONG, Strict, Target, frame, say, works


def test_who_does_not_answer_a_close_frame_is_cut_off_after_a_second(target: Target) -> None:
    with target.attacked(), target.peer(frame(PING) * 100) as peer:
        began = time.monotonic()
        peer.says_goodbye = False
        assert peer.closed() == 4129
        peer.answer()
        assert time.monotonic() - began < 2.0


ROOMS = ",".join(f"room-{number}" for number in range(32))
CROWD = 500
#: Of one turn, where a crowd of them in one would take several times that. What one peer does may take half.
CROWDED = 0.1


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        pytest.param(None, b"", id="WebSockets"),
        pytest.param(f"GET /events?rooms={ROOMS}", b"", id="event streams"),
        pytest.param(f"GET /poll?rooms={ROOMS}&wait=0", b"", id="polls of many rooms"),
        pytest.param("GET /poll?room=lobby&wait=0", b"", id="polls of one room"),
        pytest.param("POST /send", b'{"type":"auth"}', id="messages"),
    ],
)
def test_hundreds_who_come_in_one_moment_are_let_in_in_turns(either: Target, asked: str | None, body: bytes) -> None:
    head = f"{asked} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with either.attacked(memory=100_000, longest=CROWDED), ExitStack() as held:
        crowd = [held.enter_context(either.raw()) for _ in range(CROWD)]
        either.freeze()
        for peer in crowd:
            peer.send(either.upgrade() if asked is None else head + body)
        either.thaw()
        for peer in crowd:
            peer.until(b"\r\n\r\n", 10.0)


def test_who_says_nothing_more_and_waits_in_line_is_answered(either: Target) -> None:
    with either.attacked(memory=100_000, longest=CROWDED), ExitStack() as held:
        crowd = [held.enter_context(either.raw()) for _ in range(CROWD)]
        either.freeze()
        for peer in crowd:
            peer.send(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
            peer.sock.shutdown(socket.SHUT_WR)
        either.thaw()
        for peer in crowd:
            assert peer.answer().startswith(b"HTTP/1.1 404 ")


@pytest.mark.long
def test_a_server_that_stood_still_takes_nobody_for_late(either: Target) -> None:
    head = either.upgrade()
    with either.attacked(memory=100_000, longest=CROWDED, patience=15.0), ExitStack() as held:
        crowd = [held.enter_context(either.raw(head[:20])) for _ in range(CROWD)]
        time.sleep(0.5)
        either.freeze()
        for peer in crowd:
            peer.send(head[20:])
        time.sleep(10.5)  # longer than anybody has for a head
        either.thaw()
        for peer in crowd:
            assert peer.until(b"\r\n\r\n", 10.0).startswith(b"HTTP/1.1 101 ")


def test_hundreds_who_say_something_in_one_moment_are_heard_in_turns(either: Target) -> None:
    with either.attacked(memory=100_000, longest=CROWDED) as honest, ExitStack() as held:
        crowd = [held.enter_context(either.peer()) for _ in range(CROWD)]
        for said in (say(type="join", room="lobby"), say(type="echo", ref=1), say(type="leave", room="lobby")):
            either.freeze()
            for peer in crowd:
                peer.send(said)
            either.thaw()
            works(honest)


@pytest.mark.long
def test_a_thousand_slow_handshakes_are_all_ended_in_time(either: Target) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_000, hard), hard))
    try:
        slow_handshakes(either)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def slow_handshakes(target: Target) -> None:
    """Half of them send a byte each second, half nothing at all; nobody else notices."""
    head = target.upgrade()
    with target.attacked(memory=40_000) as honest, ExitStack() as held:
        slow = [held.enter_context(target.raw()) for _ in range(1_000)]
        began = time.monotonic()
        ended: dict[int, float] = {}
        for second in range(16):
            honest.send(frame(PONG))  # it is there, whenever it is pinged
            for number, peer in enumerate(slow):
                if number in ended:
                    continue
                if number % 2:
                    peer.send(head[second : second + 1])
                peer.sock.settimeout(0)
                try:
                    data = peer.sock.recv(100)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    data = b""
                assert data == b""
                ended[number] = time.monotonic() - began
            if len(ended) == len(slow):
                break
            knocking = time.monotonic()
            with target.guest("lobby") as newcomer:
                works(newcomer)
            assert time.monotonic() - knocking < 1.0
            time.sleep(max(0.0, second + 1 - (time.monotonic() - began)))
        assert len(ended) == len(slow)
        assert min(ended.values()) > 9.0
        assert max(ended.values()) < 13.0


@pytest.mark.long
def test_three_hundred_who_are_nobody_and_say_nothing_are_all_ended_in_time(tmp_path: Path) -> None:
    """After the handshake, without signing in."""
    with Strict(tmp_path) as server, ExitStack() as held:
        came = time.monotonic()
        silent = [held.enter_context(server.raw(server.upgrade())) for _ in range(300)]
        for peer in silent:
            peer.until(b"\r\n\r\n", 10.0)
        began = time.monotonic()
        for peer in silent:
            peer.send(say(type="pong")[:3])
        for peer in silent:
            assert peer.closed(13.0) in (4108, 1006)
            assert time.monotonic() - came > 9.5
        assert time.monotonic() - began < 13.0
