"""What is ready is bounded, and comes in chunks that one write can carry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.small_world import frame_of as frame
from holdfast.core.ready import CHUNK_BYTES, READY_BYTES, READY_FRAMES, Item, Ready, chunk
from holdfast.protocol.codec import Frame

# ── chunks ────────────────────────────────────────────────────────────────────────────────────────


def test_a_chunk_is_at_most_64_kib() -> None:
    assert CHUNK_BYTES == 64 * 1024
    half = frame(CHUNK_BYTES // 2)
    assert len(half.wire) == CHUNK_BYTES // 2
    assert chunk([half, half, frame(10)]) == (half, half)
    assert chunk([half, frame(CHUNK_BYTES // 2 + 1)]) == (half,)


def test_a_frame_that_is_larger_than_a_chunk_is_one_by_itself() -> None:
    big, small = frame(CHUNK_BYTES + 100), frame(10)
    assert chunk([big, small]) == (big,)
    assert chunk([small, big]) == (small,)
    assert chunk([]) == ()


@given(st.lists(st.integers(3, 40_000), max_size=20))
def test_chunks_take_everything_in_its_order_and_are_never_larger_than_they_may(sizes: list[int]) -> None:
    frames = [frame(size) for size in sizes]
    taken: list[Frame] = []
    while len(taken) < len(frames):
        part = chunk(frames[len(taken) :])
        assert part
        assert len(part) == 1 or sum(len(one.wire) for one in part) <= CHUNK_BYTES
        rest = frames[len(taken) + len(part) :]
        assert not rest or sum(len(one.wire) for one in (*part, rest[0])) > CHUNK_BYTES
        taken += part
    assert taken == frames


# ── what is ready ─────────────────────────────────────────────────────────────────────────────────


def test_the_newest_256_frames_are_ready() -> None:
    assert READY_FRAMES == 256
    ready = Ready(10)
    frames = [frame(20) for _ in range(300)]
    for one in frames:
        ready.append(one)
    assert ready.first == 10 + 1 + 44
    assert ready.after(54) == tuple(frames[44:])
    assert ready.after(53) is None
    assert ready.after(309) == (frames[-1],)
    assert ready.after(310) == ()


def test_what_is_ready_is_at_most_a_mebibyte() -> None:
    assert READY_BYTES == 1024 * 1024
    ready = Ready(0)
    for _ in range(100):
        ready.append(frame(64 * 1024))
    assert ready.first == 100 - 16 + 1
    ready.append(frame(100))
    assert ready.first == 100 - 15 + 1


def test_what_is_forgotten_makes_room_for_as_much_as_it_was() -> None:
    ready = Ready(0)
    for size in [64 * 1024] * 16 + [100] * 3:
        ready.append(frame(size))
    assert ready.first == 2


def test_one_frame_that_is_larger_than_all_that_may_be_ready_is_not_ready() -> None:
    ready = Ready(0)
    ready.append(frame(READY_BYTES + 1))
    assert ready.after(0) is None
    assert ready.after(1) == ()
    ready.append(frame(10))
    assert len(ready.after(1) or ()) == 1


def test_what_is_ready_comes_in_chunks() -> None:
    ready = Ready(0)
    for _ in range(5):
        ready.append(frame(30_000))
    assert [len(ready.after(offset) or ()) for offset in range(6)] == [2, 2, 2, 2, 1, 0]


def page(first: int, *sizes: int) -> list[Item]:
    return [Item(offset, frame(size)) for offset, size in enumerate(sizes, first)]


def test_what_was_read_from_the_store_is_ready_if_it_is_what_was_just_before() -> None:
    ready = Ready(10)
    ready.append(frame(20))
    before = page(7, 20, 20, 20, 20)
    ready.reach_back(before)
    assert ready.first == 7
    assert ready.after(6) == (*(item.frame for item in before), ready.after(10)[0])  # type: ignore[index]
    ready.reach_back(page(2, 20, 20, 20))
    assert ready.first == 7  # 5 and 6 are not there
    ready.reach_back([*page(5, 20, 20), *before, *page(11, 20)])
    assert ready.first == 5
    ready.reach_back([])
    assert ready.first == 5


def test_of_what_was_before_the_newest_is_ready_and_within_the_same_bounds() -> None:
    ready = Ready(1000)
    ready.reach_back(page(1, *[20] * 1000))
    assert ready.first == 1000 - READY_FRAMES + 1
    ready = Ready(100)
    ready.reach_back(page(1, *[64 * 1024] * 100))
    assert ready.first == 100 - 16 + 1
    ready.append(frame(100))
    assert ready.first == 100 - 15 + 1
