"""Each failure waits longer than the one before, at a random moment, and a welcome only counts if it lasts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.backoff import FLOOR, Backoff, Delay

dice = st.floats(0, 1, exclude_max=True)


def fail(backoff: Backoff, times: int, dice: float = 0.5) -> list[float]:
    return [backoff.next(dice).ceiling for _ in range(times)]


def test_the_ceilings_double_from_one_second_to_thirty() -> None:
    assert fail(Backoff(), 9) == [1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_the_attempts_are_counted() -> None:
    backoff = Backoff()
    assert [backoff.next(0.5).attempt for _ in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]


@given(dice, st.integers(1, 12))
def test_the_delay_is_drawn_below_the_ceiling_and_never_below_the_floor(dice: float, attempt: int) -> None:
    backoff = Backoff()
    fail(backoff, attempt - 1)
    delay = backoff.next(dice)
    assert delay.delay == max(0.25, delay.ceiling * dice)
    assert FLOOR == 0.25


def test_without_jitter_the_delays_are_the_ceilings_exactly() -> None:
    backoff = Backoff(jitter=False)
    assert [backoff.next(0.123).delay for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_link_that_lasted_puts_it_back_to_the_start() -> None:
    backoff = Backoff()
    fail(backoff, 5)
    backoff.welcomed(100.0)
    backoff.lost(110.0)
    assert backoff.next(0.5) == Delay(1, 1.0, 0.5)


def test_the_first_short_lived_link_puts_it_back_too() -> None:
    backoff = Backoff()
    fail(backoff, 5)
    backoff.welcomed(100.0)
    backoff.lost(100.1)
    assert backoff.next(0.5).ceiling == 1


def test_from_the_second_short_lived_link_in_a_row_on_it_goes_on_growing() -> None:
    backoff = Backoff()
    ceilings = []
    now = 0.0
    for _ in range(7):
        backoff.welcomed(now)
        backoff.lost(now + 9.99)
        ceilings.append(backoff.next(0.5).ceiling)
        now += 40
    assert ceilings == [1, 2, 4, 8, 16, 30, 30]


def test_attempts_that_fail_between_two_short_lived_links_are_not_forgotten() -> None:
    backoff = Backoff()
    backoff.welcomed(0.0)
    backoff.lost(1.0)
    assert fail(backoff, 3) == [1, 2, 4]
    backoff.lost(8.0)  # an attempt that was never welcomed says nothing about the server's links
    backoff.welcomed(10.0)
    backoff.lost(11.0)
    assert backoff.next(0.5).ceiling == 8


def test_a_link_that_lasted_ends_a_row_of_short_lived_ones() -> None:
    backoff = Backoff()
    for start in (0.0, 20.0, 40.0):
        backoff.welcomed(start)
        backoff.lost(start + 1)
        backoff.next(0.5)
    backoff.welcomed(60.0)
    backoff.lost(70.0)
    assert backoff.next(0.5).ceiling == 1
    backoff.welcomed(80.0)
    backoff.lost(81.0)
    assert backoff.next(0.5).ceiling == 1


def test_how_long_a_good_link_lasts_can_be_said() -> None:
    backoff = Backoff(stable_after=1.0)
    for start in (0.0, 10.0, 20.0):
        backoff.welcomed(start)
        backoff.lost(start + 1.0)
        assert backoff.next(0.5).ceiling == 1


@given(st.floats(0, 100), st.floats(0, 100), dice)
def test_the_servers_advice_goes_before_the_own_rule(after: float, spread: float, dice: float) -> None:
    for jitter in (True, False):
        backoff = Backoff(jitter=jitter)
        fail(backoff, 3)
        delay = backoff.next(dice, (after, spread))
        assert delay == Delay(4, after + spread, max(0.25, after + spread * dice))


@given(dice, st.integers(0, 12), st.none() | st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_who_only_peeks_is_told_the_same_and_nothing_is_counted(
    dice: float, attempts: int, advice: tuple[float, float] | None
) -> None:
    backoff = Backoff()
    fail(backoff, attempts)
    assert backoff.peek(dice, advice) == backoff.peek(dice, advice) == backoff.next(dice, advice)


def test_what_is_tried_without_a_wait_counts_too() -> None:
    backoff = Backoff()
    backoff.tried()
    assert backoff.next(0.5).attempt == 2


def test_advice_counts_as_an_attempt() -> None:
    backoff = Backoff()
    backoff.next(0.5, (0.0, 1.0))
    assert backoff.next(0.5).ceiling == 2
