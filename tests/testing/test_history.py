"""A history is told at the first item that breaks a promise, and at no other."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Event, Resumed, Resync, Snapshot
from holdfast.protocol.cursor import decode_position
from holdfast.protocol.messages import Join, Joined, Sync, Synced, UserLeft
from holdfast.protocol.messages import Resync as Said
from holdfast.testing.history import History, Line, Violation, is_true


def event(offset: int, epoch: str = "e") -> Event:
    return Event("lobby", "said", {}, f"{epoch}:{offset}")


GOOD: list[list[Any]] = [
    [Resync("new", "e:0"), event(1), event(2), Event("lobby", "typing", {}), event(3)],
    [Resync("new", "e:7"), event(8), Resumed("e:8"), event(9)],
    [Resync("new", "e:7"), event(8), Resync("trimmed", "e:20"), event(21)],
    [Resync("new", "e:7"), event(8), Resync("epoch", "f:2"), event(3, "f")],
    [Snapshot([], "e:3", "new"), event(4), Snapshot([], "e:9", "trimmed"), event(10)],
    [Resync("new", "e:7"), event(8), Resync("ahead", "e:2"), event(3)],
    [Resync("new", "e:7"), Resync("epoch", "f:2"), event(3, "f")],
    [Resync("new", "e:7"), Snapshot([], "e:8", "new"), event(9), Snapshot([], "e:10", "ahead"), event(11)],
    [Snapshot([], "e:7", "new"), event(8), Snapshot([], "e:6", "trimmed"), event(7), event(8), event(9)],
    [Resync("new", "e:7"), event(8), Resync("trimmed", "f:2"), Resync("epoch", "e:8"), event(9)],
    [Resync("new", "e:7"), event(8), event(9), Resync("ahead", "e:7"), event(8), Resync("epoch", "f:0"), event(1, "f")],
]
#: What is only told to who has chosen to begin anew after each reconnect.
CHOSEN: list[list[Any]] = [
    [item("new", "e:7"), event(8), item("chosen", cursor), event(int(cursor[2:]) + 1, cursor[0])]
    for cursor in ("e:8", "e:20", "f:2")
    for item in (Resync, lambda reason, cursor: Snapshot([], cursor, reason))
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
    ([Resync("new", "e:0"), event(1), Resync("epoch", "f:0"), Resync("epoch", "e:0"), event(1)], "again"),
    ([Resync("new", "e:0"), Event("attic", "said", {}, "e:1")], "what happens in attic"),
    ([Resync("new", "e:0"), Event("attic", "typing", {})], "what happens in attic"),
    ([Resync("trimmed", "e:5")], "start afresh at e:5: trimmed"),
    ([Resync("new", "e:7"), event(8), Resync("trimmed", "e:8")], "start afresh at e:8: trimmed"),
    ([Resync("new", "e:7"), event(8), Resync("new", "f:9")], "start afresh at f:9: new"),
    ([Snapshot([], "e:7", "new"), event(8), Snapshot([], "e:9", "nonsense")], "start afresh at e:9: nonsense"),
    ([Snapshot([], "e:7", "new"), event(8), Snapshot([], "e:9", "chosen")], "start afresh at e:9: chosen"),
    ([Resync("chosen", "e:7")], "start afresh at e:7: chosen"),
    *(
        ([Resync("new", "e:7"), event(8), Resync(reason, "e:20")], "start afresh at e:20: " + reason)
        for reason in ("epoch", "new", "chosen", "ahead", "nonsense")
    ),
    *(
        ([Resync("new", "e:7"), event(8), Resync(reason, "e:7")], "start afresh at e:7: " + reason)
        for reason in ("trimmed", "new", "chosen", "epoch")
    ),
    ([Resync("new", "e:7"), event(8), Snapshot([], "e:7", "chosen")], "start afresh at e:7: chosen"),
    ([Snapshot([], "e:7", "new"), event(8), Snapshot([], "e:6", "trimmed"), event(8)], "missing"),
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


@pytest.mark.parametrize("items", CHOSEN)
def test_who_has_chosen_it_begins_anew_and_nobody_else(items: list[Any]) -> None:
    history = History("lobby", recover="snapshot")
    for item in items:
        history.told(item)
    with pytest.raises(Violation, match="chosen"):
        history.told(Resync("chosen", items[-1].id[0] + ":0"))
    history = History("lobby")
    for item in items[:-2]:
        history.told(item)
    with pytest.raises(Violation, match="chosen"):
        history.told(items[-2])


def test_of_what_was_told_before_nothing_is_told_again() -> None:
    history = History("lobby", told="e:7")
    history.told(Resync("epoch", "f:0"))
    history.told(Resync("epoch", "e:3"))
    with pytest.raises(Violation, match="again"):
        history.told(event(4))


REASONS = ("new", "chosen", "epoch", "trimmed", "ahead")
JOIN, JOINED = Join("lobby", "e:7"), Joined("lobby", "e:7", True, (), 0)


def joined(cursor: str, reason: str) -> Joined:
    return Joined("lobby", cursor, False, (), 0, reason)


GOOD_LINES: list[list[Any]] = [
    [JOINED, event(8), Event("lobby", "said", {}), UserLeft("lobby", "ann", "Ann", 0), event(9)],
    [JOINED, event(8), Sync("lobby", "e:7"), event(9), event(8), event(9), Synced("lobby", "e:9", 2), event(10)],
    [JOINED, Sync("lobby", "e:20"), event(8), event(21)],
    [JOINED, event(8), Said("lobby", "trimmed", "e:20"), event(21)],
    [JOINED, event(8), JOINED, event(8)],
    [joined("e:20", "trimmed"), event(21)],
    [joined("f:2", "epoch"), event(3, "f")],
    [joined("e:6", "ahead"), event(7)],
    [Join("lobby"), Joined("lobby", "e:20", False, (), 0), event(21)],
    [JOINED, Sync("lobby", "e:30"), Said("lobby", "ahead", "e:20"), event(21)],
]
BAD_LINES: list[list[Any]] = [
    [event(8)],
    [JOINED, event(9)],
    [JOINED, event(8), event(8)],
    [JOINED, event(8), Sync("lobby", "e:7"), event(10)],
    [JOINED, event(8), Sync("lobby", "e:7"), JOINED, event(8), event(9), event(8)],
    [JOINED, event(8, "f")],
]
FALSE_REASONS: list[list[Any]] = [
    [joined("e:7", "trimmed")],
    [joined("e:20", "epoch")],
    [joined("e:20", "ahead")],
    [joined("f:6", "trimmed")],
    [Joined("lobby", "e:20", False, (), 0)],
    [Joined("lobby", "e:20", True, (), 0)],
    [Join("lobby"), joined("e:20", "trimmed")],
    [Said("lobby", "new", "e:8")],
    [JOINED, event(8), Said("lobby", "trimmed", "e:8")],
    [JOINED, event(8), Said("lobby", "epoch", "e:9")],
    [JOINED, event(8), Said("lobby", "ahead", "e:9")],
]


def hear(line: Line, words: list[Any]) -> None:
    line.joins(JOIN.since)
    for word in words:
        match word:
            case Join(_, since):
                line.joins(since)
            case Sync(_, since):
                line.asked(since)
            case _:
                line.said(word)


@pytest.mark.parametrize("words", GOOD_LINES)
def test_a_line_on_which_nothing_is_left_out_or_repeated_unasked_is_good(words: list[Any]) -> None:
    hear(Line("lobby"), words)


@pytest.mark.parametrize("words", BAD_LINES)
def test_what_a_server_leaves_out_or_repeats_unasked_is_told(words: list[Any]) -> None:
    line = Line("lobby", "ann")
    hear(line, words[:-1])
    with pytest.raises(Violation, match=r"ann stood at .* and the server has sent"):
        line.said(words[-1])


@pytest.mark.parametrize("words", FALSE_REASONS)
def test_who_is_not_let_go_on_for_a_reason_that_is_not_true_or_from_elsewhere_is_told(words: list[Any]) -> None:
    line = Line("lobby", "ann")
    hear(line, words[:-1])
    with pytest.raises(Violation, match=r"ann (stood|is to start afresh) at .*e:|f:"):
        line.said(words[-1])


@pytest.mark.parametrize(
    ("reason", "before", "after", "kept"),
    [
        ("new", None, "e:7", 0),
        ("epoch", "e:7", "f:7", 0),
        ("trimmed", "e:7", "e:8", 0),
        ("trimmed", "e:7", "e:18", 10),
        ("ahead", "e:7", "e:6", 0),
    ],
)
def test_a_reason_is_true_where_it_is_and_nowhere_else(reason: str, before: str | None, after: str, kept: int) -> None:
    stood, begins = before and decode_position(before, "lobby"), decode_position(after, "lobby")
    true = [each for each in (*REASONS, "nonsense") if is_true(each, stood or None, begins, kept=kept)]
    assert true == [reason]
    assert not any(is_true(each, begins, begins) for each in REASONS)
    assert not is_true("trimmed", stood or None, begins, kept=kept + 1)
