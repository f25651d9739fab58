"""What is told at a glance is what the engine would have read."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER

from holdfast.protocol.strict import Strict
from holdfast.protocol.whole import is_pong, whole_text

TEXT, PING, PONG = Opcode.TEXT, Opcode.PING, Opcode.PONG
OTHERS = [Opcode.CONT, Opcode.BINARY]

FRAMES = st.builds(Frame, st.sampled_from([TEXT, *OTHERS]), st.binary(max_size=130), st.booleans()) | st.builds(
    Frame, st.sampled_from([PING, PONG]), st.binary(max_size=125)
)


def masked(*frames: Frame) -> bytes:
    return b"".join(frame.serialize(mask=True) for frame in frames)


@given(st.lists(FRAMES, min_size=1, max_size=3).map(lambda frames: masked(*frames)), st.binary(max_size=9))
@example(b"", b"")
@example(masked(Frame(TEXT, b"")), b"")
@example(masked(Frame(PONG, b"")), b"")
def test_what_is_told_at_a_glance_is_what_the_engine_would_have_read(data: bytes, more: bytes) -> None:
    engine = Strict(SERVER)
    engine.receive_data(data + more)
    found = [event for event in engine.events_received() if isinstance(event, Frame)]
    one = found[0] if len(found) == 1 and engine.is_between and engine.parser_exc is None else None
    is_text = one is not None and one.opcode is TEXT and one.fin and 0 < len(one.data) < 126
    assert whole_text(data + more) == (bytes(one.data) if one is not None and is_text else None)
    assert is_pong(data + more) is (one is not None and one.opcode is PONG and not one.data)


@pytest.mark.parametrize("size", range(1, 126))
def test_two_texts_that_come_at_once_are_two(size: int) -> None:
    first = masked(Frame(TEXT, b"x" * size))
    for more in range(1, 300):
        assert whole_text(first + b"x" * more) is None


@pytest.mark.parametrize(
    "other",
    [
        b"", masked(Frame(PONG, b""))[:5], masked(Frame(PONG, b"")) + b"\x81", 2 * masked(Frame(PONG, b"")),
        masked(Frame(PING, b"")), masked(Frame(PONG, b"x"))[:6], Frame(PONG, b"1234").serialize(mask=False),
    ],
    ids=range(7),
)  # fmt: skip
def test_nothing_else_is_an_empty_pong(other: bytes) -> None:
    assert not is_pong(other)
