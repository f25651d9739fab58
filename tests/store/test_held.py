"""A room that somebody holds is waited for once, and then only looked at again from time to time."""

from __future__ import annotations

import pytest

from holdfast.store.held import AGAIN_SECONDS, BRIEF_MS, FORGET_SECONDS, PATIENCE_MS, Held, HeldRooms


class Clock:
    """A clock that is set by hand."""

    time = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.time


def test_a_room_that_was_held_is_tried_again_a_little_later_and_briefly() -> None:
    clock = Clock()
    rooms = HeldRooms(clock)
    assert rooms.patience({"lobby", "attic"}) == PATIENCE_MS
    rooms.hold({"lobby"})
    with pytest.raises(Held) as held:
        rooms.patience({"lobby", "attic"})
    assert list(held.value.rooms) == ["lobby"]
    assert rooms.patience({"attic"}) == PATIENCE_MS
    clock.time += AGAIN_SECONDS
    assert rooms.patience({"lobby", "attic"}) == BRIEF_MS


def test_a_room_that_is_free_again_is_waited_for_as_any_other() -> None:
    rooms = HeldRooms(Clock())
    rooms.hold({"lobby", "attic"})
    rooms.free({"lobby", "cellar"})
    assert rooms.patience({"lobby"}) == PATIENCE_MS
    with pytest.raises(Held):
        rooms.patience({"attic"})


def test_a_room_in_which_nobody_tries_any_more_is_forgotten() -> None:
    clock = Clock()
    rooms = HeldRooms(clock)
    rooms.hold({"lobby"})
    clock.time += AGAIN_SECONDS + FORGET_SECONDS
    rooms.hold({"attic"})
    assert rooms.patience({"lobby"}) == PATIENCE_MS


def test_a_room_that_was_held_is_waited_for_briefly_also_when_others_are_held_meanwhile() -> None:
    clock = Clock()
    rooms = HeldRooms(clock)
    rooms.hold({"lobby"})
    clock.time += AGAIN_SECONDS + FORGET_SECONDS / 2
    rooms.hold({"attic"})
    assert rooms.patience({"lobby"}) == BRIEF_MS
