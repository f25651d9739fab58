"""A WebSocket wherever there is a way for one; plain HTTP where not."""

from __future__ import annotations

import pytest

from holdfast.core.roads import LONGEST_TRIAL_SECONDS, PATIENCE, TRIAL_SECONDS, Road, Roads


@pytest.fixture
def roads() -> Roads:
    return Roads(fallback=True)


def test_it_begins_with_a_websocket(roads: Roads) -> None:
    assert roads.road is Road.WEBSOCKET


def test_one_that_leads_nowhere_is_followed_by_http(roads: Roads) -> None:
    assert roads.barred()
    assert roads.road is Road.HTTP


def test_where_neither_leads_anywhere_a_websocket_is_first_again(roads: Roads) -> None:
    for _ in range(3):
        assert roads.barred()
        assert not roads.barred()
        assert roads.road is Road.WEBSOCKET


def test_one_that_has_worked_is_not_given_up_at_once(roads: Roads) -> None:
    roads.welcomed(0)
    assert [roads.barred() for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]


def test_patience_begins_anew_when_it_works_again(roads: Roads) -> None:
    for _ in range(3):
        roads.welcomed(0)
        assert not roads.barred()


def test_trials_come_less_and_less_often(roads: Roads) -> None:
    assert roads.trial_at is None
    roads.barred()
    roads.welcomed(100)
    waits, now = [], 100.0
    while not waits or waits[-1] < LONGEST_TRIAL_SECONDS:
        assert roads.trial_at is not None
        waits.append(roads.trial_at - now)
        now = roads.trial_at
        roads.tried(now)
    assert waits[:3] == [TRIAL_SECONDS, 2 * TRIAL_SECONDS, 4 * TRIAL_SECONDS]
    assert waits == sorted(waits)


def test_after_a_websocket_that_carried_trials_come_often_again(roads: Roads) -> None:
    roads.barred()
    roads.welcomed(0)
    for now in (5, 15, 35):
        roads.tried(now)
    roads.free()
    roads.welcomed(40)
    assert [roads.barred() for _ in range(PATIENCE)][-1]
    roads.welcomed(100)
    assert roads.trial_at == 100 + TRIAL_SECONDS


def test_nothing_is_tried_while_nothing_carries(roads: Roads) -> None:
    roads.barred()
    roads.welcomed(0)
    roads.left()
    assert roads.trial_at is None


def test_without_a_fallback_there_is_no_other_road() -> None:
    roads = Roads(fallback=False)
    assert not any(roads.barred() for _ in range(10))
    assert roads.road is Road.WEBSOCKET
