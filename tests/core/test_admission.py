"""A crowd is let in as fast as the server can take it in, and the rest is told when to come back."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest
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
    Returns,
    TurnAway,
)


def arrive(door: Admission, count: int, now: float) -> list[TurnAway]:
    """Have so many come; return what those are told who are turned away."""
    return [answer for answer in (door.arrive(now) for _ in range(count)) if answer is not None]


def begin(door: Admission, late: float = 0.0) -> float:
    """Have somebody stand in line when it is time, or so much later; return when that is."""
    looks_at = door.deadline()
    assert looks_at is not None
    door.stand_in_line(looks_at + late)
    return looks_at + late


def rest(door: Admission) -> float:
    """Have somebody look who does not wait for long; return when."""
    now = begin(door) + LATE_SECONDS / 2
    door.look(now)
    return now


def crowded(rate: int = 700) -> tuple[Admission, float]:
    """Return a door that has seen a crowd, and when it did."""
    door = Admission()
    arrive(door, 1, 0.0)
    began = begin(door)
    arrive(door, round(rate / 0.7), began)
    door.look(began + 1.0)
    assert door.rate == rate
    return door, began + 1.0


def test_everybody_is_let_in_while_the_server_keeps_up() -> None:
    door = Admission()
    now = 0.0
    for _ in range(100):
        assert arrive(door, 10_000, now) == []
        now = rest(door)
    assert door.rate is None


@pytest.mark.parametrize("count", [0, CROWD - 1])
def test_who_looks_and_waits_for_something_else_than_newcomers_turns_nobody_away(count: int) -> None:
    door = Admission()
    arrive(door, 1, 0.0)
    now = begin(door)
    assert arrive(door, count, now) == []
    door.look(now + 30.0)
    assert door.rate is None
    assert arrive(door, 1000, now + 30.0) == []


def test_a_server_that_stood_still_turns_nobody_away_for_it() -> None:
    door = Admission()
    arrive(door, 1000, 0.0)
    now = begin(door, late=30.0)  # somebody's handler blocks, or it was suspended
    assert arrive(door, 1000, now) == []
    door.look(now + LATE_SECONDS)
    assert door.rate is None


def test_a_crowd_that_has_to_wait_is_let_in_more_slowly_than_it_was_served() -> None:
    door, now = crowded(700)  # 1,000 were served in a second
    assert len(arrive(door, 1000, now)) == 1000
    assert len(arrive(door, 1000, now + 0.1)) == 1000 - 70


def test_a_crowd_is_seen_before_it_has_gone_by() -> None:
    door = Admission()
    arrive(door, 1, 0.0)
    now = begin(door)
    arrive(door, CROWD, now)
    arrive(door, 1, now + LATE_SECONDS + 0.05)  # who looks still stands in line
    assert door.rate == 0.7 * CROWD / 0.25


def test_too_few_to_be_a_crowd_are_one_if_more_of_them_are_served_meanwhile() -> None:
    door = Admission()
    arrive(door, 1, 0.0)
    now = begin(door)
    arrive(door, CROWD - 10, now)
    arrive(door, 10, now + 0.5)
    assert door.rate is None
    arrive(door, 1, now + 1.0)
    assert door.rate == 0.7 * CROWD


def test_who_did_not_come_leaves_no_place_for_more_than_a_second_of_them() -> None:
    door, now = crowded(700)
    assert len(arrive(door, 1000, now + 5.0)) == 1000 - 700


def test_that_it_is_late_for_those_whom_it_turns_away_lets_in_no_fewer() -> None:
    door, now = crowded(700)
    for _ in range(20):
        now = begin(door)
        arrive(door, 1000, now)
        door.look(now + 1.0)
    assert door.rate == 700


def test_the_rate_rises_a_little_while_they_wait_if_it_was_measured_when_the_server_did_something_else() -> None:
    door, now = crowded(70)
    now = begin(door)
    arrive(door, 1000, now)
    arrive(door, 1, now + LATE_SECONDS + 0.1)
    assert door.rate == pytest.approx(1.25 * 70)


def test_each_is_told_a_time_of_their_own() -> None:
    door, now = crowded(700)
    times = [one.after for one in arrive(door, 560, now)]
    assert times == sorted(set(times))
    assert 0.99 < times[-1] < 1.01  # 80 % of 700 a second


def test_a_crowd_that_is_too_large_for_that_is_spread() -> None:
    door, now = crowded(700)
    told = arrive(door, 100_000, now)
    assert max(one.after + one.spread for one in told) <= LONGEST_SECONDS
    assert told[-1] == TurnAway(LONGEST_SECONDS / 2, LONGEST_SECONDS / 2)


def test_who_comes_after_more_than_can_be_given_a_time_does_not_wait_for_them() -> None:
    returns = Returns()
    for _ in range(1_000_000):
        told = returns.next(500.0, 0.0)
    assert told == TurnAway(LONGEST_SECONDS / 2, LONGEST_SECONDS / 2)
    assert returns.next(500.0, LONGEST_SECONDS).after < 0.01


@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_however_many_stay_outside_no_more_of_them_ask_again_in_a_second_than_are_to(count: int) -> None:
    returns, rate = Returns(), 500.0
    asks = [0.0] * count
    asked = [0] * 60
    while (now := heapq.heappop(asks)) < 60.0:
        asked[int(now)] += 1
        turn = returns.next(rate, now)
        assert turn.spread == 0.0
        heapq.heappush(asks, now + 1.0 + turn.after)
    assert asked[0] == count
    assert max(asked[1:]) <= rate + 1
    assert min(asked[1:]) > 0 or count < rate


def test_a_time_is_forgotten_when_it_has_come() -> None:
    returns = Returns()
    assert [returns.next(500.0, 7.0).after for _ in range(1000)][-1] == 2.0
    assert returns.next(500.0, 8.0).after == pytest.approx(1.002)
    assert returns.next(500.0, 60.0).after == 0.002


def test_who_comes_later_is_told_a_time_for_which_the_server_is_as_fast_as_it_is_by_then() -> None:
    door, now = crowded(70)
    assert arrive(door, 560, now)[-1].after == pytest.approx(10.0)
    for _ in range(10):
        now = rest(door)
    assert door.rate is not None
    assert door.rate > 600
    arrive(door, round(door.rate), now)
    assert arrive(door, 1, now)[0].after < 2.0


def test_somebody_always_gets_in() -> None:
    door, now = crowded(700)
    for _ in range(50):
        now = begin(door)
        arrive(door, CROWD, now)
        door.look(now + 5.0)
    assert door.rate == SLOWEST


def test_the_rate_is_forgotten_when_nobody_has_waited_for_a_while_and_then_nobody_looks_any_more() -> None:
    door, now = crowded()
    began = now
    while door.rate is not None:
        now = rest(door)
    assert CALM_SECONDS <= now - began <= CALM_SECONDS + 2 * PERIOD + LATE_SECONDS
    assert door.deadline() is None


def test_the_rate_is_kept_until_nobody_has_waited_for_a_while_since_somebody_did() -> None:
    door, now = crowded()
    while now < CALM_SECONDS - 1:
        now = rest(door)
    again = begin(door) + 0.5
    door.look(again)  # few come, but somebody waits
    now = again
    while door.rate is not None:
        now = rest(door)
    assert now - again >= CALM_SECONDS


@dataclass
class Line:
    """A server that serves `capacity` newcomers a second, in line; each who is turned away is a share of the work."""

    capacity: float
    refusal: float
    patience: float = 1e9
    pause: float = 0.0  # for which it stands still, once
    door: Admission = field(default_factory=Admission)
    waits: list[float] = field(default_factory=list)
    attempts: int = 0

    def serve(self, coming: list[float]) -> None:
        """Serve all who come at these times, until all of them are in."""
        line = [(when, number, when, 0) for number, when in enumerate(coming)]
        heapq.heapify(line)
        now, looker = 0.0, None
        while line:
            when, number, first, failures = line[0]
            looks_at = self.door.deadline()
            if looks_at is not None and looks_at <= max(now, when):
                now = max(now, looks_at)
                self.door.stand_in_line(now)
                looker = now
            if looker is not None and looker < when:
                now, looker = max(now, looker), None
                self.door.look(now)
                continue
            heapq.heappop(line)
            now = max(now, when)
            if len(self.waits) > len(coming) / 2:
                now, self.pause = now + self.pause, 0.0
            if now > when + self.patience:  # it has gone, and comes again
                later = when + self.patience + number % 100 / 100 * min(30, 2**failures)
                heapq.heappush(line, (later, number, first, failures + 1))
                continue
            self.attempts += 1
            answer = self.door.arrive(now)
            if answer is None:
                self.waits.append(now - first)
                now += 1 / self.capacity
            else:
                now += self.refusal / self.capacity
                later = now + answer.after + number % 100 / 100 * answer.spread
                heapq.heappush(line, (later, number, first, failures))


refusals, patience = st.floats(0.1, 0.9), st.sampled_from([10.0, 1e9])


@settings(max_examples=50)
@given(st.integers(30, 2_000), st.integers(100, 10_000), refusals, patience)
def test_a_crowd_of_any_size_gets_in_about_as_fast_as_the_server_can(
    capacity: int, crowd: int, refusal: float, patience: float
) -> None:
    """All of them come again when they were told to, or when they have waited for too long."""
    line = Line(capacity, refusal, patience)
    line.serve([number / crowd for number in range(crowd)])
    assert len(line.waits) == crowd
    assert max(line.waits) < 5 + 2 * crowd / capacity
    assert line.attempts < 4 * crowd


@settings(max_examples=50)
@given(st.integers(500, 2_000), st.floats(0.1, 0.8), st.floats(0.0, 5.0), refusals)
def test_those_who_come_while_a_server_stands_still_are_in_soon(
    capacity: int, load: float, pause: float, refusal: float
) -> None:
    """It is busy with so much of what it can do."""
    line = Line(capacity, refusal, pause=pause)
    line.serve([number / (load * capacity) for number in range(10 * capacity)])
    assert max(line.waits) < 2 + 4 * pause
