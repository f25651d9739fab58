"""A history is told at the first item that breaks a promise, and at no other."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Event, Resumed, Resync, Snapshot
from holdfast.protocol.messages import Joined, Sync, Synced, UserLeft
from holdfast.protocol.messages import Resync as Said
from holdfast.testing.history import History, Line, Violation


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


JOINED = Joined("lobby", "e:7", True, (), 0)
GOOD_LINES: list[list[Any]] = [
    [JOINED, event(8), Event("lobby", "said", {}), UserLeft("lobby", "ann", "Ann", 0), event(9)],
    [JOINED, event(8), Sync("lobby", "e:7"), event(9), event(8), event(9), Synced("lobby", "e:9", 2), event(10)],
    [JOINED, Sync("lobby", "e:20"), event(8), event(21)],
    [JOINED, event(8), Said("lobby", "trimmed", "e:20"), event(21)],
    [JOINED, event(8), JOINED, event(8)],
]
BAD_LINES: list[list[Any]] = [
    [event(8)],
    [JOINED, event(9)],
    [JOINED, event(8), event(8)],
    [JOINED, event(8), Sync("lobby", "e:7"), event(10)],
    [JOINED, event(8), Sync("lobby", "e:7"), JOINED, event(8), event(9), event(8)],
    [JOINED, event(8, "f")],
]


def hear(line: Line, words: list[Any]) -> None:
    for word in words:
        if isinstance(word, Sync):
            line.asked(word.since)
        else:
            line.said(word)


@pytest.mark.parametrize("words", GOOD_LINES)
def test_a_line_on_which_nothing_is_left_out_or_repeated_unasked_is_good(words: list[Any]) -> None:
    hear(Line("lobby"), words)


@pytest.mark.parametrize("words", BAD_LINES)
def test_what_a_server_leaves_out_or_repeats_unasked_is_told(words: list[Any]) -> None:
    line = Line("lobby", "ann")
    hear(line, words[:-1])
    with pytest.raises(Violation, match=r"ann stood at .* and the server has sent"):
        hear(line, words[-1:])
