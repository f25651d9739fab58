"""Frames: how many, how large, how deflated; each named by where it was a hole once (`entries.py`)."""

from __future__ import annotations

import socket
import time
import zlib
from contextlib import ExitStack

import pytest

from corpus.target import BINARY, CLOSE, CONT, PING, PONG, TEXT, Target, frame, head, heard, say
from holdfast import Limits

LIMITS = Limits()
MIB = 1 << 20


# ── fragments ─────────────────────────────────────────────────────────────────────────────────────


def test_CVE_2026_48779_a_message_of_fifty_thousand_tiny_fragments(either: Target) -> None:
    flood = frame(TEXT, b"{", fin=False) + frame(CONT, b" ", fin=False) * 50_000
    with either.attacked(), either.peer(flood) as peer:
        assert peer.closed() == 1009


def test_CVE_2026_62389_messages_that_are_begun_by_many_and_ended_by_none(target: Target) -> None:
    """Each may have one that is not whole, of no more bytes and frames than a whole one; whoever goes on is ended."""
    begun = frame(TEXT, b"x" * 60_000, fin=False) + frame(CONT, b"", fin=False) * 30 + head(CONT, 5_000, fin=False)
    in_bytes = b"x" * 5_000 + frame(CONT, b"x" * 60_000, fin=False) * 30
    in_frames = b"x" * 5_000 + frame(CONT, b"", fin=False) * 40
    with target.attacked(memory=40 * 200 + 4_000), ExitStack() as held:
        peers = [held.enter_context(target.peer(begun)) for _ in range(40)]
        assert target.probe()["connections"] == 1 + len(peers)  # and one who is honest
        for peer, more in zip(peers, [in_bytes, in_frames] * 20, strict=True):
            assert peer.send(more).closed() == 1009


def test_CVE_2026_12151_fragments_with_nothing_in_them(either: Target) -> None:
    with either.attacked(), either.peer(frame(BINARY, fin=False) + frame(CONT, fin=False) * 50_000) as peer:
        assert peer.closed() == 1009


def test_CVE_2026_42786_continuations_that_never_end_add_up_to_no_more_than_one_message(either: Target) -> None:
    part = frame(CONT, b"x" * 1200, fin=False)  # not too many of them, but too much
    with either.attacked(), either.peer(frame(TEXT, b"{", fin=False) + part * 60) as peer:
        assert peer.closed() == 1009


def test_CVE_2026_63495_control_frames_between_fragments_reset_no_limit(target: Target) -> None:
    part = frame(CONT, b"", fin=False) * 5 + frame(PONG)
    with target.attacked(), target.peer(frame(TEXT, b"{", fin=False) + part * 19) as peer:
        assert peer.closed() == 1009


def test_CVE_2026_44545_the_limit_on_a_message_holds_by_default(either: Target) -> None:
    most = 64 * 1024
    fits = b'{"type":"ping","x":"' + b"x" * (most - 22) + b'"}'
    with either.attacked():
        with either.peer(frame(TEXT, fits)) as peer:
            assert b'"pong"' in peer.until(b'"pong"')
        for flood in (
            frame(TEXT, fits + b" "),
            frame(TEXT, fits, fin=False) + frame(CONT, b" "),
            frame(BINARY, b"x" * (most + 1)),
        ):
            with either.peer(flood) as peer:
                assert peer.closed() == 1009


def test_CVE_2021_21419_what_a_frame_says_that_it_will_be_is_not_made_room_for(either: Target) -> None:
    with either.attacked():
        for size in (LIMITS.message_bytes + 1, 1 << 31, 1 << 40):
            with either.peer(head(TEXT, size)) as peer:
                assert peer.closed() == 1009


def test_CVE_2026_1528_lengths_of_64_bits_are_too_much_or_no_length_at_all(either: Target) -> None:
    with either.attacked():
        for length in (1 << 63, (1 << 64) - 1, (1 << 63) - 1):
            with either.peer(b"\x81\xff" + length.to_bytes(8, "big") + b"\0\0\0\0") as peer:
                assert peer.closed() in (1002, 1009)


def test_empty_messages_pings_and_pongs_by_the_ten_thousand(either: Target) -> None:
    for flood, code in (
        (frame(TEXT), 4129),
        (frame(BINARY), 4129),
        (frame(PING), 4129),
        (frame(PONG), 4129),
        (frame(CLOSE, b"\x03\xe8"), 1000),
    ):
        with either.attacked(), either.peer(flood * 20_000) as peer:
            assert peer.closed() in (code, 1006)


def test_the_same_at_a_websocket_of_the_applications_own(either: Target) -> None:
    """It is uvicorn's, which has no limits; but it keeps nobody waiting for long."""
    for flood in (frame(PING), frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 200, frame(TEXT)):
        said = len(either.log.read_text())
        with either.attacked(memory=60_000), either.peer(flood * (MIB // 3 // len(flood)), path="/echo"):
            time.sleep(0.2)
        assert "?" not in either.log.read_text()[said:]


def test_a_frame_that_comes_a_byte_at_a_time_is_a_frame(target: Target) -> None:
    with target.attacked(), target.peer() as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in say(type="ping"):
            peer.send(bytes([byte]))
            time.sleep(0.002)
        peer.until(b'"pong"')


# ── what is not well formed ───────────────────────────────────────────────────────────────────────

MALFORMED = {
    "not masked": (frame(TEXT, b"{}", mask=False), 1002),
    "RSV2": (frame(TEXT, b"{}", rsv=2), 1002),
    "RSV3": (frame(TEXT, b"{}", rsv=1), 1002),
    **{f"opcode {opcode}": (frame(opcode, b"{}"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a long ping": (frame(PING, b"x" * 126), 1002),
    "a ping in parts": (frame(PING, b"x", fin=False), 1002),
    "a continuation of nothing": (frame(CONT, b"{}"), 1002),
    "a message in a message": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"{}"), 1002),
    "close with one byte": (frame(CLOSE, b"\x03"), 1002),
    **{
        f"close with {code}": (frame(CLOSE, code.to_bytes(2, "big")), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "close with no UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "no UTF-8": (frame(TEXT, b'{"type":"\xc3\x28"}'), 1007),
    "a surrogate": (frame(TEXT, b'{"type":"\xed\xa0\x80"}'), 1007),
    "no UTF-8 in parts": (frame(TEXT, b'"\xe2\x82', fin=False) + frame(CONT, b'\xff"'), 1007),
    "an end in the middle": (frame(TEXT, b'"\xe2\x82'), 1007),
}


def test_what_is_no_frame_or_no_text_ends_the_connection_with_the_code_for_it(target: Target) -> None:
    with target.attacked():
        for name, (sent, code) in MALFORMED.items():
            with target.peer(sent) as peer:
                assert peer.closed() == code, name


def test_a_character_may_be_in_two_fragments(target: Target) -> None:
    euro = '"€"'.encode()
    with target.attacked(), target.peer(frame(TEXT, euro[:2], fin=False) + frame(CONT, euro[2:])) as peer:
        assert b"a message is an object" in peer.until(b'"malformed"')


def test_what_follows_a_close_frame_is_not_heard(target: Target) -> None:
    with target.attacked(), target.join("attic") as honest:
        with target.peer(say(type="join", room="attic")) as peer:
            peer.until(b'"joined"')
            peer.says_goodbye = False
            peer.send(frame(CLOSE, b"\x03\xe8") + say(type="say", room="attic"))
        heard(honest, "user_left")
        with pytest.raises(TimeoutError):
            heard(honest, "said", seconds=0.2)


# ── what is deflated ──────────────────────────────────────────────────────────────────────────────


def bomb(size: int) -> bytes:
    """Return what inflates to so many bytes (RFC 7692)."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(b" " * size) + deflate.flush(zlib.Z_SYNC_FLUSH)[:-4]


OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def test_CVE_2018_1000518_nothing_is_inflated(either: Target) -> None:
    with either.attacked(), either.raw(either.upgrade("/ws", OFFER)) as peer:
        assert b"permessage-deflate" not in peer.until(b'"connected"')
        assert peer.send(frame(TEXT, bomb(10 * MIB), rsv=4)).closed() == 1002


def test_GHSA_mq44_7p77_q5h7_deflated_without_an_agreement_is_an_error(either: Target) -> None:
    with either.attacked():
        for sent in (
            frame(TEXT, bomb(10), rsv=4),
            frame(BINARY, b"{", fin=False) + frame(CONT, bomb(10), rsv=4),
            frame(PING, b"", rsv=4),
        ):
            with either.peer(sent) as peer:
                assert peer.closed() == 1002


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=99999999999999999999",
        "permessage-deflate; server_max_window_bits=08, permessage-deflate; client_max_window_bits=",
        "permessage-deflate; " * 300,
        "permessage-bzip2, x-webkit-deflate-frame",
        ';;=,"',
    ],
    ids=lambda offer: offer[:45],
)
def test_CVE_2026_2229_whatever_windows_are_offered_none_is_taken(target: Target, offer: str) -> None:
    with target.attacked(), target.raw(target.upgrade("/ws", f"Sec-WebSocket-Extensions: {offer}")) as peer:
        answer = peer.until(b"\r\n\r\n")
        assert b" 101 " in answer
        assert b"Extensions" not in answer
