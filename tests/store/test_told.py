"""What was told lately is remembered, the rest for a while."""

from __future__ import annotations

import pytest

from holdfast.store import told
from holdfast.store.told import Told


def test_the_newest_of_each_room_is_known() -> None:
    rooms = Told()
    assert rooms.get("lobby") is None
    rooms.update({"lobby": 1, "side": 7})
    rooms.update({"lobby": 2})
    assert (rooms.get("lobby"), rooms.get("side"), rooms.get("cellar")) == (2, 7, None)


def test_however_many_rooms_there_are_it_stays_small_and_knows_what_was_told_since_it_aged_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert told.ROOMS == 100_000
    monkeypatch.setattr(told, "ROOMS", 100)
    rooms = Told()
    for number in range(10_000):
        rooms.update({f"room-{number}": number})
        rooms.age()
        assert rooms.get(f"room-{number}") == number
        assert rooms.get(f"room-{max(0, number - 99)}") == max(0, number - 99)
        assert len(rooms) <= 202
    assert rooms.get("room-0") is None


def test_few_rooms_are_never_forgotten() -> None:
    rooms = Told()
    rooms.update({"lobby": 1})
    for _ in range(10):
        rooms.age()
    assert rooms.get("lobby") == 1


def test_some_rooms_are_those_of_which_something_was_told_last(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told.SOME == 1_000
    monkeypatch.setattr(told, "SOME", 2)
    rooms = Told()
    for name in ("busy", "attic", "cellar", "busy"):
        rooms.update({name: 1})
    assert rooms.some() == ["busy", "cellar"]
