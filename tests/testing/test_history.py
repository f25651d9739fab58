"""A history is told at the first item that breaks a promise, and at no other."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Event, Resumed, Resync, Snapshot
from holdfast.testing.history import History, Violation


def event(offset: int, epoch: str = "e") -> Event:
    return Event("lobby", "said", {}, f"{epoch}:{offset}")


GOOD: list[list[Any]] = [
    [Resync("new", "e:0"), event(1), event(2), Event("lobby", "typing", {}), event(3)],
    [Resync("new", "e:7"), event(8), Resumed("e:8"), event(9)],
    [Resync("new", "e:7"), event(8), Resync("trimmed", "e:20"), event(21)],
    [Resync("new", "e:7"), event(8), Resync("epoch", "f:2"), event(3, "f")],
    [Snapshot([], "e:3", "new"), event(4), Snapshot([], "e:9", "trimmed"), event(10)],
]
BAD: list[tuple[list[Any], str]] = [
    ([event(1)], "where it begins"),
    ([Resumed("e:1")], "is resumed"),
    ([Resync("new", "e:0"), event(2)], "missing"),
    ([Resync("new", "e:0"), event(1), event(1)], "again"),
    ([Resync("new", "e:0"), event(1), event(2), event(1)], "again, or late"),
    ([Resync("new", "e:0"), event(1), event(2, "f")], "another epoch"),
    ([Resync("new", "e:5"), event(6), Resumed("e:5")], "is resumed"),
    ([Resync("new", "e:0"), event(1), Resync("trimmed", "e:5"), event(7)], "missing"),
    ([Snapshot([], "e:3", "new"), event(3)], "again"),
]


@pytest.mark.parametrize("items", GOOD)
def test_what_is_whole_is_taken(items: list[Any]) -> None:
    history = History("lobby")
    for item in items:
        history.told(item)


@pytest.mark.parametrize(("items", "complaint"), BAD)
def test_the_first_item_that_breaks_a_promise_is_told(items: list[Any], complaint: str) -> None:
    history = History("lobby", "ann")
    for item in items[:-1]:
        history.told(item)
    with pytest.raises(Violation, match=f"ann .*{complaint}"):
        history.told(items[-1])
