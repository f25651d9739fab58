"""A text that is none is noticed at the first byte that is wrong; everything else is as the engine has it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets import frames
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol, Side, State
from websockets.uri import parse_uri

from holdfast.protocol import strict
from holdfast.protocol.strict import Reader, Strict

TEXT, BINARY, CONT, PING, CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CLOSE

#: A text, and with how many bytes of it it can be known to be none.
BAD = [
    (b"\xff", 1),
    (b"edited\xce\xba\xff.", 9),
    (b"\xc0\x80", 1),  # longer than it need be
    (b"\xe0\x80\x80", 2),
    (b"\xed\xa0\x80", 3),  # half of a surrogate pair: Python's decoder waits for all of it
    (b"\xf4\x90\x80\x80", 2),  # beyond U+10FFFF
    (b"\xf5", 1),
    (b"\xe2\x82\xe2", 3),  # a character that is broken off
]


def wire(side: Side, *frames: Frame) -> bytes:
    """Return what such a side is sent."""
    return b"".join(frame.serialize(mask=side is SERVER) for frame in frames)


def read(engine: Protocol, *parts: bytes) -> list[Frame]:
    frames = []
    for part in parts:
        engine.receive_data(part)
        frames += [event for event in engine.events_received() if isinstance(event, Frame)]
    return frames


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def failed_with(engine: Protocol) -> int | None:
    return None if engine.close_sent is None else engine.close_sent.code


PONG = Frame(Opcode.PONG, b"").serialize(mask=True)


@pytest.mark.parametrize(
    ("before", "is_between"),
    [
        (b"", True),
        (wire(SERVER, Frame(TEXT, b"hi")), True),
        (PONG, True),
        (PONG[:5], False),
        (wire(SERVER, Frame(TEXT, b"hi", fin=False)), False),  # the message that was begun goes on (RFC 6455 §5.4)
        (wire(SERVER, Frame(TEXT, b"hi"))[:1], False),
        (wire(SERVER, Frame(TEXT, b"hi"))[:2], False),
        (wire(SERVER, Frame(TEXT, b"hi"))[:6], False),
        (wire(SERVER, Frame(BINARY, b"x" * 200))[:3], False),
        (wire(SERVER, Frame(BINARY, b"x" * 9))[:-1], False),
        (wire(SERVER, Frame(CLOSE, b"")), False),
        (b"\x83\x00", False),
    ],
    ids=range(12),  # masks are different each time
)
def test_it_is_between_messages_when_nothing_of_the_next_has_come(before: bytes, is_between: bool) -> None:
    engine = Strict(SERVER)
    read(engine, before)
    assert engine.is_between is is_between


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut into parts, some of which may be empty."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def fragments(data: bytes, opcode: Opcode = TEXT, cuts: list[int] | None = None) -> list[Frame]:
    parts = split(data, cuts or [])
    last = len(parts) - 1
    return [Frame(CONT if number else opcode, part, fin=number == last) for number, part in enumerate(parts)]


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(("text", "known"), BAD)
def test_a_frame_fails_at_its_first_wrong_byte(side: Side, text: bytes, known: int) -> None:
    data = wire(side, Frame(TEXT, text + b"more, that is never waited for"))
    head = len(data) - len(text) - 30
    engine = Strict(side)
    for at, byte in enumerate(one_by_one(data), 1):
        assert read(engine, byte) == []
        assert failed_with(engine) == (1007 if at >= head + known else None), at


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(("text", "known"), BAD)
def test_a_message_fails_at_its_first_wrong_fragment(side: Side, text: bytes, known: int) -> None:
    engine = Strict(side)
    for at in range(len(text)):
        read(engine, wire(side, Frame(CONT if at else TEXT, text[at : at + 1], fin=False), Frame(PING, b"")))
        assert failed_with(engine) == (1007 if at + 1 >= known else None), at


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("cuts", [[], [3], [3, 3, 4]])
def test_a_text_that_is_broken_off_fails_at_its_end(side: Side, cuts: list[int]) -> None:
    *before, last = one_by_one(wire(side, *fragments("ende…".encode()[:-1], cuts=cuts)))
    engine = Strict(side)
    read(engine, *before)
    assert failed_with(engine) is None
    read(engine, last)
    assert failed_with(engine) == 1007


@given(st.data())
def test_what_is_right_is_read_as_ever_however_it_comes(data: st.DataObject) -> None:
    cuts = st.lists(st.integers(0, 10_000), max_size=5)
    side = data.draw(st.sampled_from(Side))
    frames: list[Frame] = []
    for _ in range(data.draw(st.integers(1, 4))):
        opcode = data.draw(st.sampled_from([TEXT, BINARY]))
        payload = data.draw(st.text(st.characters(codec="utf-8")).map(str.encode) if opcode is TEXT else st.binary())
        payload *= data.draw(st.sampled_from([1, 1, 130, 70_000 // (len(payload) + 1)]))
        for fragment in fragments(payload, opcode, data.draw(cuts)):
            frames += [fragment, *[Frame(PING, b"\xff")] * data.draw(st.integers(0, 1))]
    parts = split(wire(side, *frames), data.draw(cuts))
    strict, stock = Strict(side), Protocol(side)
    assert read(strict, *parts) == read(stock, *parts) == frames
    assert strict.parser_exc is None


@given(st.binary(min_size=1), st.lists(st.integers(0, 500), max_size=5), st.lists(st.integers(0, 500), max_size=5))
def test_of_a_text_in_parts_exactly_what_decodes_is_read(text: bytes, cuts: list[int], chops: list[int]) -> None:
    frames = fragments(text, cuts=[0, *cuts])
    engine = Strict(SERVER)
    got = read(engine, *split(wire(SERVER, *frames), chops))
    try:
        text.decode()
    except UnicodeDecodeError:
        assert (got != frames, failed_with(engine)) == (True, 1007)
    else:
        assert (got, failed_with(engine)) == (frames, None)


@pytest.mark.parametrize("side", Side)
def test_what_is_no_text_is_not_looked_at(side: Side) -> None:
    frames = [*fragments(b"\xff\xff\xff", BINARY, [1, 2]), Frame(PING, b"\xff")]
    assert read(Strict(side), *one_by_one(wire(side, *frames))) == frames


def test_a_compressed_text_is_not_looked_at() -> None:
    deflate = PerMessageDeflate(True, True, 15, 15)
    sent = [frame for text in ("é" * 300, "ü" * 300) for frame in fragments(text.encode(), cuts=[101, 202])]
    engine = Strict(CLIENT)
    engine.extensions = [PerMessageDeflate(True, True, 15, 15)]
    data = b"".join(frame.serialize(mask=False, extensions=[deflate]) for frame in sent)
    got = read(engine, *one_by_one(data))
    assert b"".join(bytes(frame.data) for frame in got).decode() == "é" * 300 + "ü" * 300


@pytest.mark.parametrize("side", Side)
def test_nothing_is_kept_of_a_message_that_is_complete(side: Side) -> None:
    engine = Strict(side)
    text = "schön".encode()
    for data in (wire(side, Frame(TEXT, text)), wire(side, *fragments(text, cuts=[4, 5]))):
        for parts in ([data], one_by_one(data)):
            read(engine, *parts)
            reader = engine.reader
            assert isinstance(reader, Reader)
            assert (reader._decoder, reader._head, bytes(reader.buffer)) == (None, b"", b"")


@pytest.mark.parametrize("side", Side)
def test_a_close_frame_in_the_middle_of_a_message_is_answered_in_kind(side: Side) -> None:
    engine = Strict(side)
    close = Frame(CLOSE, Close(1000, "enough").serialize())
    read(engine, wire(side, Frame(TEXT, b"begun", fin=False), close, Frame(CONT, b"never read")))
    assert engine.parser_exc is None
    assert engine.close_sent == engine.close_rcvd == Close(1000, "enough")


@pytest.mark.parametrize("body", ["", "n", "nobody is known by that"])
def test_an_answer_that_is_no_handshake_is_read_as_ever(body: str) -> None:
    class Client(Strict, ClientProtocol):
        pass

    engine = Client(parse_uri("ws://localhost/ws"), state=State.CONNECTING)
    read(engine, f"HTTP/1.1 401 Unauthorized\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    assert "HTTP 401" in str(engine.handshake_exc)


def test_a_mask_is_taken_off_by_what_the_engine_itself_uses() -> None:
    """In C, where that is built: in Python a message of 64 KiB costs twenty times as much."""
    assert strict.apply_mask is frames.apply_mask


def test_how_much_of_a_frame_is_missing() -> None:
    engine = Strict(SERVER)
    data = wire(SERVER, Frame(BINARY, b"x" * 100), Frame(TEXT, b"x" * 200))
    missing = []
    for part in one_by_one(data):
        engine.receive_data(part)
        missing.append(engine.missing)
    assert missing == [0] * 5 + list(range(100, -1, -1)) + [0] * 7 + list(range(200, -1, -1))
