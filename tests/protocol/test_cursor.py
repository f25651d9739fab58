"""A cursor says where a reader stands, survives every road as one string, and is refused politely if it is forged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import Malformed
from holdfast.protocol.cursor import (
    MAX_LENGTH,
    MAX_OFFSET,
    MAX_ROOMS,
    Cursor,
    Position,
    decode_cursor,
    decode_position,
    encode_around,
    encode_cursor,
)

epochs = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)
offsets = st.integers(0, MAX_OFFSET)
#: Whatever a room may be called, and above all what a cursor itself is made of.
rooms = st.text(st.one_of(st.sampled_from(";=%:&+ /é板🏠"), st.characters(codec="utf-8")), max_size=20)
#: Also what no well-behaved program sends: halves of surrogate pairs, and what looks nearly right.
anything = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.text(st.sampled_from("k3:;=%-+0123456789²٣é\ud800\n "), max_size=30),
)


@given(epochs, offsets)
def test_a_position_comes_back_as_it_went(epoch: str, offset: int) -> None:
    position = Position(epoch, offset)
    assert decode_cursor(str(position)) == Cursor(epoch, offset, {})
    assert decode_position(str(position), "any room") == position


@given(epochs, st.dictionaries(rooms, offsets, min_size=1, max_size=8))
def test_a_cursor_of_several_rooms_comes_back_as_it_went_whatever_they_are_called(
    epoch: str, offsets: dict[str, int]
) -> None:
    text = encode_cursor(epoch, offsets)
    assert text.isascii()
    assert text.isprintable()
    assert decode_cursor(text) == Cursor(epoch, None, offsets)
    for room, offset in offsets.items():
        assert decode_position(text, room) == Position(epoch, offset)


def test_the_two_forms_look_as_the_protocol_says() -> None:
    assert str(Position("k3f9", 43)) == "k3f9:43"
    assert encode_cursor("k3f9", {"board-1": 43, "board-2": 7}) == "k3f9:board-1=43;board-2=7"
    assert encode_cursor("k3f9", {"a;b=c%d": 1}) == "k3f9:a%3Bb%3Dc%25d=1"


@given(anything)
def test_any_text_is_a_cursor_or_malformed(text: str) -> None:
    try:
        cursor = decode_cursor(text)
    except Malformed as refusal:
        assert refusal.field == "cursor"
    else:
        assert cursor.epoch
        assert all(0 <= offset <= MAX_OFFSET for offset in (cursor.offset or 0, *cursor.offsets.values()))


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "k3f9", "k3f9:", ":43", "k3f9:-1", "k3f9:+1", "k3f9: 1", "k3f9:1 ", "k3f9:4.0", "k3f9:0x1", "k3f9:1_0",
        "k3f9:²", "k3f9:٣", "k 3:1", "k-3:1", "é:1", "k3f9:a=", "k3f9:a=1;", "k3f9:;a=1", "k3f9:a=1;b", "k3f9:a=-1",
        "k3f9:a=1=2", "k3f9:%ff=1", "k3f9:\ud800=1",
    ],
)  # fmt: skip
def test_what_is_nearly_a_cursor_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        decode_cursor(text)


def test_a_cursor_of_one_room_stands_for_whatever_room_is_read() -> None:
    assert decode_cursor("k3f9:43").position("lobby") == Position("k3f9", 43)


def test_a_cursor_of_several_rooms_says_nothing_of_others() -> None:
    cursor = decode_cursor("k3f9:lobby=43")
    assert cursor.position("lobby") == Position("k3f9", 43)
    assert cursor.position("kitchen") is None
    with pytest.raises(Malformed, match="nothing of this room"):
        decode_position("k3f9:lobby=43", "kitchen")


def test_a_cursor_names_at_most_32_rooms() -> None:
    assert MAX_ROOMS == 32
    assert len(decode_cursor(encode_cursor("k", {f"room-{number}": 1 for number in range(32)})).offsets) == 32
    with pytest.raises(Malformed, match="32 rooms"):
        decode_cursor(encode_cursor("k", {f"room-{number}": 1 for number in range(33)}))


def test_a_cursor_is_at_most_4_kib_long() -> None:
    assert MAX_LENGTH == 4096
    longest = f"k:{'r' * (4096 - 4)}=1"
    assert len(longest) == 4096
    assert decode_cursor(longest).offsets == {"r" * 4092: 1}
    with pytest.raises(Malformed, match="4096"):
        decode_cursor(longest + "0")


def test_an_offset_is_at_most_the_largest_row_number() -> None:
    assert decode_cursor(f"k:{2**63 - 1}").offset == 2**63 - 1
    for digits in (str(2**63), "9" * 19, "1" * 20, "0" * 20, "7" * 4000):
        with pytest.raises(Malformed):
            decode_cursor(f"k:{digits}")
        with pytest.raises(Malformed):
            decode_cursor(f"k:lobby={digits}")


@given(epochs, st.dictionaries(rooms, offsets, min_size=1, max_size=5), st.data())
def test_around_one_room_the_others_stand_where_they_are(
    epoch: str, stands: dict[str, int], data: st.DataObject
) -> None:
    room = data.draw(st.sampled_from(sorted(stands)))
    before, behind = encode_around(epoch, stands, room)
    for offset in (0, 7, 2**63 - 1):
        assert f"{before}{offset}{behind}" == encode_cursor(epoch, {**stands, room: offset})
