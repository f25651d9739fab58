"""Commands are sent in their order, again when their answers are missing, and each is settled once and honestly."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.outbox import (
    BURST,
    COMMANDS,
    MEMORY_SECONDS,
    UNDER_WAY,
    Answered,
    Broken,
    Outbox,
    OutboxEffect,
    Put,
    Ready,
    Result,
    Send,
    Settle,
    Stop,
    Withdrawn,
)

READY = Ready(40.0)


def sends(*keys: str) -> list[OutboxEffect]:
    return [Send(key, f"do {key}") for key in keys]


def put(outbox: Outbox, *keys: str, now: float = 0.0) -> list[OutboxEffect]:
    return [effect for key in keys for effect in outbox.receive(Put(key, f"do {key}"), now)]


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


def test_what_was_commanded_offline_is_sent_in_its_order_when_there_is_a_way(outbox: Outbox) -> None:
    assert put(outbox, "a", "b", "c") == []
    assert outbox.deadline() is None
    assert outbox.receive(READY, 5.0) == sends("a", "b", "c")
    assert put(outbox, "d", now=5.0) == sends("d")


def test_an_answer_settles_its_command_once(outbox: Outbox) -> None:
    outbox.receive(READY, 0.0)
    put(outbox, "a", "b")
    assert outbox.receive(Answered("b", True, {"n": 1}), 1.0) == [Settle("b", Result.DONE, {"n": 1})]
    assert outbox.receive(Answered("a", False, "no"), 1.0) == [Settle("a", Result.REJECTED, "no")]
    for key in ("a", "b", "never given"):
        assert outbox.receive(Answered(key, True), 1.0) == []
    assert (len(outbox), outbox.deadline()) == (0, None)


def test_what_is_unanswered_when_the_link_breaks_is_sent_again_before_what_came_later(outbox: Outbox) -> None:
    outbox.receive(READY, 0.0)
    put(outbox, "a", "b")
    outbox.receive(Answered("a", True), 0.1)
    outbox.receive(Broken(), 0.2)
    assert put(outbox, "c", now=0.3) == []
    assert outbox.receive(READY, 9.0) == sends("b", "c")


def test_no_more_than_16_are_under_way(outbox: Outbox) -> None:
    assert UNDER_WAY == 16
    keys = [str(number) for number in range(20)]
    put(outbox, *keys)
    assert outbox.receive(READY, 0.0) == sends(*keys[:16])
    assert outbox.receive(Answered("3", True), 0.1) == [Settle("3", Result.DONE), *sends("16")]


def test_a_long_queue_keeps_to_the_rate_that_the_server_has_named(outbox: Outbox) -> None:
    put(outbox, *map(str, range(200)))
    now, times = 0.0, []
    effects = outbox.receive(READY, now)
    while len(outbox):
        times += [now for effect in effects if isinstance(effect, Send)]
        answers = [Answered(effect.key, True) for effect in effects if isinstance(effect, Send)]
        effects = [effect for answer in answers for effect in outbox.receive(answer, now)]
        if not any(isinstance(effect, Send) for effect in effects) and len(outbox):
            when = outbox.deadline()
            assert when is not None
            assert when > now
            now = when
            effects = outbox.tick(now)
    assert len(times) == 200
    for begin in times:
        assert sum(begin <= time < begin + 1 for time in times) <= READY.rate + BURST + 1
    assert 200 / READY.rate - 1 < times[-1] < 200 / READY.rate


def test_beyond_a_thousand_a_command_is_not_taken(outbox: Outbox) -> None:
    assert COMMANDS == 1_000
    put(outbox, *map(str, range(1_000)))
    assert put(outbox, "one more") == [Settle("one more", Result.NOT_SENT)]
    outbox.receive(Withdrawn("5"), 0.0)
    assert put(outbox, "now") == []


def test_when_there_is_no_way_any_more_everybody_is_told_the_truth(outbox: Outbox) -> None:
    outbox.receive(READY, 0.0)
    put(outbox, "sent")
    outbox.receive(Broken(), 1.0)
    put(outbox, "kept")
    assert outbox.receive(Stop(), 2.0) == [Settle("sent", Result.UNKNOWN), Settle("kept", Result.NOT_SENT)]


def test_a_command_that_nobody_waits_for_is_not_sent_unless_it_was(outbox: Outbox) -> None:
    put(outbox, "a", "b")
    assert outbox.receive(Withdrawn("a"), 0.0) == [Settle("a", Result.NOT_SENT)]
    assert outbox.receive(READY, 0.0) == sends("b")
    assert outbox.receive(Withdrawn("b"), 0.0) == [Settle("b", Result.UNKNOWN)]
    assert outbox.receive(Withdrawn("b"), 0.0) == []


def test_what_the_server_has_forgotten_by_now_is_unknown(outbox: Outbox) -> None:
    outbox.receive(READY, 0.0)
    put(outbox, "a")
    outbox.receive(Broken(), 1.0)
    assert outbox.deadline() == MEMORY_SECONDS
    assert outbox.tick(MEMORY_SECONDS) == [Settle("a", Result.UNKNOWN)]
    assert outbox.receive(READY, MEMORY_SECONDS + 1) == []


@given(st.lists(st.one_of(
    st.tuples(st.just("put"), st.integers(0, 30)), st.just(("ready", 0)), st.just(("broken", 0)),
    st.tuples(st.just("answer"), st.integers(0, 30)), st.tuples(st.just("withdraw"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.integers(1, 100)),
), max_size=80))  # fmt: skip
def test_each_is_settled_once_and_what_is_sent_is_in_order(story: list[tuple[str, int]]) -> None:
    outbox = Outbox()
    now = 0.0
    given_keys: list[str] = []
    settled: Counter[str] = Counter()
    on_this_way: list[str] = []
    sent: set[str] = set()

    def do(effects: list[OutboxEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                assert effect.key not in settled
                assert effect.key not in on_this_way
                on_this_way.append(effect.key)
                sent.add(effect.key)
            else:
                settled[effect.key] += 1
                assert (effect.result is Result.NOT_SENT) is (effect.key not in sent)
        assert on_this_way == sorted(on_this_way, key=given_keys.index)

    for what, number in story:
        match what:
            case "put" if str(number) not in given_keys:
                given_keys.append(str(number))
                do(outbox.receive(Put(str(number), None), now))
            case "ready":
                on_this_way.clear()
                do(outbox.receive(Broken(), now))
                do(outbox.receive(READY, now))
            case "broken":
                do(outbox.receive(Broken(), now))
                on_this_way.clear()
            case "answer" if str(number) in on_this_way:
                do(outbox.receive(Answered(str(number), True), now))
            case "withdraw":
                do(outbox.receive(Withdrawn(str(number)), now))
            case "wait":
                now += number / 50
                do(outbox.tick(now))
            case _:
                pass
    do(outbox.receive(Stop(), now))
    assert settled == Counter(given_keys)
    assert len(outbox) == 0


def test_every_result_has_its_word() -> None:
    words: Any = {result.value for result in Result}
    assert words == {"done", "rejected", "not sent", "unknown"}
