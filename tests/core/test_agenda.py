"""An agenda holds one appointment for each key, and brings them up in their order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.agenda import Agenda


def test_what_is_due_comes_up_earliest_first_and_once() -> None:
    agenda = Agenda()
    agenda.set("late", 3.0)
    agenda.set("early", 1.0)
    agenda.set("middle", 2.0)
    assert list(agenda.due(2.5)) == ["early", "middle"]
    assert list(agenda.due(2.5)) == []
    assert list(agenda.due(3.0)) == ["late"]
    assert agenda.next() is None
    assert len(agenda) == 0


def test_what_is_due_now_is_due() -> None:
    agenda = Agenda()
    agenda.set("now", 1.0)
    assert list(agenda.due(0.999)) == []
    assert list(agenda.due(1.0)) == ["now"]


def test_setting_an_appointment_again_moves_it() -> None:
    agenda = Agenda()
    agenda.set("a", 1.0)
    agenda.set("a", 5.0)
    assert agenda.next() == 5.0
    assert list(agenda.due(4.0)) == []
    agenda.set("a", 2.0)
    assert agenda.next() == 2.0
    assert list(agenda.due(9.0)) == ["a"]
    assert len(agenda) == 0


def test_a_cancelled_appointment_never_comes_up() -> None:
    agenda = Agenda()
    agenda.set("a", 1.0)
    agenda.set("b", 2.0)
    agenda.cancel("a")
    agenda.cancel("never set")
    assert "a" not in agenda
    assert "b" in agenda
    assert agenda.next() == 2.0
    assert list(agenda.due(9.0)) == ["b"]


def test_of_equal_times_the_first_set_comes_first_and_keys_need_not_compare() -> None:
    agenda = Agenda()
    for key in (("auth", object()), "x", 7, ("auth", object())):
        agenda.set(key, 1.0)
    assert [type(key) for key in agenda.due(1.0)] == [tuple, str, int, tuple]


def test_an_appointment_that_is_made_while_others_come_up_waits_for_its_own_time() -> None:
    agenda = Agenda()
    agenda.set("again", 1.0)
    seen = []
    for key in agenda.due(1.0):
        seen.append(key)
        agenda.set(key, 2.0)
    assert seen == ["again"]
    assert agenda.next() == 2.0


@pytest.mark.parametrize(
    "when", [float, lambda time: 1e7, lambda time: float(time % 2)], ids=["on", "there", "to and fro"]
)
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_moving_an_appointment_for_ever_does_not_fill_the_memory(
    when: Callable[[int], float], is_cancelled: bool
) -> None:
    agenda = Agenda()
    for key in range(10):
        agenda.set(key, 1e9)
    for time in range(10_000):
        agenda.set("typing", when(time))
        if is_cancelled:
            agenda.cancel("typing")
    assert len(agenda._heap) + sum(map(len, agenda._pages.values())) < 200
    assert list(agenda.due(1e8)) == ([] if is_cancelled else ["typing"])
    assert len(agenda) == 10


steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("due"), st.just(0), st.integers(0, 20)),
    ),
    max_size=200,
)


@given(steps)
def test_it_does_what_a_plain_dict_would(steps: list[tuple[str, int, int]]) -> None:
    agenda, plain = Agenda(), dict[int, int]()
    for verb, key, time in steps:
        match verb:
            case "set":
                agenda.set(key, time)
                plain[key] = time
            case "cancel":
                agenda.cancel(key)
                plain.pop(key, None)
            case _:
                came = list(agenda.due(time))
                assert sorted(came) == sorted(key for key, when in plain.items() if when <= time)
                assert [plain[key] for key in came] == sorted(plain[key] for key in came)
                plain = {key: when for key, when in plain.items() if when > time}
        assert len(agenda) == len(plain)
        assert agenda.next() == min(plain.values(), default=None)
        assert all(key in agenda for key in plain)
