"""A crowd is let in as fast as the server can take it in, and the rest is told when to come back."""

from __future__ import annotations

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.admission import (
    CALM_SECONDS,
    CROWD,
    LATE_SECONDS,
    LONGEST_SECONDS,
    PERIOD,
    SLOWEST,
    Admission,
    Arrived,
    TurnAway,
)


def late(door: Admission, seconds: float) -> float:
    """Let it look so much later than it should; return when that is."""
    looks_at = door.deadline()
    assert looks_at is not None
    assert door.tick(looks_at + seconds) == []
    return looks_at + seconds


def arrive(door: Admission, count: int, now: float) -> list[TurnAway]:
    return [turned_away for _ in range(count) for turned_away in door.receive(Arrived(), now)]


def test_everybody_is_let_in_while_the_server_keeps_up() -> None:
    door = Admission()
    now = 0.0
    for _ in range(100):
        assert arrive(door, 10_000, now) == []
        now = late(door, LATE_SECONDS / 2)
    assert door.rate is None


def test_a_server_that_is_late_for_another_reason_turns_nobody_away() -> None:
    door = Admission()
    assert arrive(door, CROWD - 1, 0.0) == []
    now = late(door, 30.0)  # it was suspended, or somebody's handler blocks
    assert door.rate is None
    assert arrive(door, 1000, now) == []


def test_a_crowd_that_makes_it_late_is_let_in_more_slowly_than_it_came() -> None:
    door = Admission()
    assert arrive(door, 1000, 0.0) == []
    now = late(door, 0.75)  # 1,000 in a second were too many
    assert door.rate == 700
    assert len(arrive(door, 1000, now)) == 1000
    assert len(arrive(door, 1000, now + 0.1)) == 1000 - 70


def test_who_did_not_come_leaves_no_place_for_more_than_a_second_of_them() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    now = late(door, 0.75)
    assert len(arrive(door, 1000, now + 5.0)) == 1000 - 700


def test_a_server_that_is_late_and_has_let_nobody_in_lets_them_in_as_fast_as_before() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    late(door, 0.75)
    late(door, 5.0)
    assert door.rate == 700


def test_that_it_is_late_for_those_whom_it_turns_away_lets_in_no_fewer() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    now = late(door, 0.75)
    for _ in range(20):
        arrive(door, 1000, now)
        now = late(door, 0.5)
    assert door.rate == 700


def test_too_few_to_be_a_crowd_are_one_if_it_stays_late_for_them() -> None:
    door = Admission()
    arrive(door, CROWD - 10, 0.0)
    now = late(door, 0.25)
    assert door.rate is None
    arrive(door, 20, now)
    late(door, 0.25)
    assert door.rate == 0.7 * (CROWD + 10)  # in one second


def test_too_few_to_be_a_crowd_are_forgotten_when_it_is_not_late_any_more() -> None:
    door = Admission()
    arrive(door, CROWD - 10, 0.0)
    now = late(door, 5.0)
    now = late(door, 0.0)
    arrive(door, CROWD - 10, now)
    late(door, 5.0)
    assert door.rate is None


def test_each_is_told_a_time_of_their_own() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    now = late(door, 0.75)
    times = [one.after for one in arrive(door, 560, now)]
    assert times == sorted(set(times))
    assert 0.99 < times[-1] < 1.01  # 80 % of 700 a second
    assert max(one.after for one in arrive(door, 100_000, now)) == LONGEST_SECONDS


def test_somebody_always_gets_in() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    now = late(door, 1.0)
    for _ in range(50):
        arrive(door, CROWD, now)
        now = late(door, 5.0)
    assert door.rate == SLOWEST


def test_the_rate_is_forgotten_when_the_crowd_has_gone_by_and_then_it_looks_no_more() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    began = now = late(door, 1.0)
    while door.rate is not None:
        now = late(door, 0.0)
    assert CALM_SECONDS <= now - began <= CALM_SECONDS + 2 * PERIOD
    late(door, 0.0) if door.deadline() is not None else None
    assert door.deadline() is None


def test_the_rate_is_kept_until_the_server_has_kept_up_for_a_while_since_it_was_late() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    now = late(door, 0.75)
    while now < CALM_SECONDS - 1:
        now = late(door, 0.0)
    arrive(door, 1, now)
    again = now = late(door, 0.5)
    while door.rate is not None:
        now = late(door, 0.0)
    assert now - again >= CALM_SECONDS


def test_the_rate_is_kept_until_everybody_who_was_turned_away_was_to_be_back() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    began = now = late(door, 0.75)
    last = arrive(door, 5600, now)[-1].after
    assert last > CALM_SECONDS + PERIOD
    while door.rate is not None:
        now = late(door, 0.0)
    assert last <= now - began <= last + PERIOD


@settings(max_examples=50)
@given(st.integers(50, 2_000), st.integers(1_000, 10_000), st.floats(0.1, 0.9))
def test_a_crowd_of_any_size_gets_in_about_as_fast_as_the_server_can(capacity: int, crowd: int, refusal: float) -> None:
    """Each arrival is work, one that is not let in a share of it, and all of them come again when they were told to."""
    door = Admission()
    coming = [(0.0, number) for number in range(crowd)]
    heapq.heapify(coming)
    now, inside, turned_away = 0.0, 0, 0
    while coming:
        when, number = heapq.heappop(coming)
        now = max(now, when)  # or it has waited in the queue of the kernel
        answer = door.receive(Arrived(), now)
        if answer:
            turned_away += 1
            now += refusal / capacity
            heapq.heappush(coming, (now + answer[0].after, number))
        else:
            inside += 1
            now += 1 / capacity
        while (looks_at := door.deadline()) is not None and looks_at <= now:
            if coming and coming[0][0] <= looks_at:
                break  # whoever looks waits in line, behind all who came before
            door.tick(now)
    assert inside == crowd
    assert now < 5 + 2 * crowd / capacity
    assert turned_away < 10 * crowd
