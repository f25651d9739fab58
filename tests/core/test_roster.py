"""A person is one entry in a room, however many tabs they have, until the last has ended and its grace is over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.roster import USERS_SHOWN, Roster
from holdfast.protocol.messages import User

ANN, BOB = User("ann", "Ann"), User("bob", "Bob")


@pytest.fixture
def roster() -> Roster:
    return Roster()


def test_a_person_arrives_with_their_first_tab_and_leaves_with_their_last(roster: Roster) -> None:
    assert roster.enter(ANN, "tab 1")
    assert not roster.enter(ANN, "tab 2")
    assert roster.users() == (ANN,)
    assert roster.leave("ann", "tab 1") is None
    assert roster.connected("ann")
    assert roster.leave("ann", "tab 2") == ANN
    assert len(roster) == 0
    assert not roster.connected("ann")


def test_entering_twice_with_one_tab_is_entering_once(roster: Roster) -> None:
    assert roster.enter(ANN, "tab")
    assert not roster.enter(ANN, "tab")
    assert roster.leave("ann", "tab") == ANN


def test_people_are_shown_in_the_order_they_came_by_their_newest_name(roster: Roster) -> None:
    roster.enter(BOB, "b")
    roster.enter(ANN, "a")
    roster.enter(User("bob", "Robert"), "b2")
    assert roster.users() == (User("bob", "Robert"), ANN)
    assert roster.leave("bob", "b") is None
    assert roster.leave("bob", "b2") == User("bob", "Robert")


def test_with_grace_a_person_is_still_shown_but_not_connected(roster: Roster) -> None:
    roster.enter(ANN, "tab")
    roster.break_off("ann", "tab")
    assert roster.users() == (ANN,)
    assert not roster.connected("ann")
    assert roster.grace_over("ann", "tab") == ANN
    assert roster.users() == ()
    assert roster.grace_over("ann", "tab") is None


def test_a_session_that_returned_in_time_has_no_grace_to_be_over(roster: Roster) -> None:
    roster.enter(ANN, "tab")
    roster.break_off("ann", "tab")
    assert not roster.enter(ANN, "tab")
    assert roster.grace_over("ann", "tab") is None
    assert roster.connected("ann")
    assert roster.leave("ann", "tab") == ANN


def test_the_grace_of_one_tab_keeps_a_person_whose_other_tab_ended(roster: Roster) -> None:
    roster.enter(ANN, "tab 1")
    roster.enter(ANN, "tab 2")
    roster.break_off("ann", "tab 1")
    assert roster.leave("ann", "tab 2") is None
    assert roster.users() == (ANN,)
    assert roster.grace_over("ann", "tab 1") == ANN


def test_a_tab_keeps_a_person_whose_other_tabs_grace_is_over(roster: Roster) -> None:
    roster.enter(ANN, "tab 1")
    roster.break_off("ann", "tab 1")
    assert not roster.enter(ANN, "tab 2")
    assert roster.grace_over("ann", "tab 1") is None
    assert roster.connected("ann")


def test_a_clean_end_takes_back_an_earlier_grace_of_the_same_session(roster: Roster) -> None:
    roster.enter(ANN, "tab")
    roster.break_off("ann", "tab")
    assert roster.leave("ann", "tab") == ANN


def test_removing_a_person_forgets_all_their_tabs(roster: Roster) -> None:
    roster.enter(ANN, "tab 1")
    roster.enter(ANN, "tab 2")
    roster.break_off("ann", "tab 2")
    assert roster.remove("ann") == ANN
    assert roster.remove("ann") is None
    assert roster.leave("ann", "tab 1") is None
    assert roster.grace_over("ann", "tab 2") is None
    assert len(roster) == 0
    assert roster.is_elsewhere


def test_at_most_a_hundred_people_are_shown_and_all_are_counted(roster: Roster) -> None:
    assert USERS_SHOWN == 100
    people = [User(f"u{number}", f"User {number}") for number in range(150)]
    for user in people:
        roster.enter(user, user.user_id)
    assert roster.shown() == tuple(people[:100])
    assert roster.users() == tuple(people)
    assert len(roster) == 150


who, tabs = st.sampled_from(["ann", "bob"]), st.sampled_from(["1", "2", "3"])
steps = st.lists(st.tuples(st.sampled_from(["enter", "leave", "break off", "grace over", "remove"]), who, tabs))


@given(steps)
def test_a_person_is_there_exactly_while_a_tab_or_its_grace_is(steps: list[tuple[str, str, str]]) -> None:
    roster = Roster()
    here: dict[tuple[str, str], str] = {}
    for verb, name, tab in steps:
        was_there = any(user == name for user, _ in here)
        user, told = User(name, name), False
        match verb:
            case "enter":
                told = roster.enter(user, tab)
                here[name, tab] = "connected"
            case "leave":
                told = roster.leave(name, tab) is not None
                here.pop((name, tab), None)
            case "break off" if here.get((name, tab)) == "connected":
                roster.break_off(name, tab)
                here[name, tab] = "grace"
            case "grace over":
                told = roster.grace_over(name, tab) is not None
                if here.get((name, tab)) == "grace":
                    del here[name, tab]
            case "remove":
                told = roster.remove(name) is not None
                here = {key: state for key, state in here.items() if key[0] != name}
        is_there = any(user == name for user, _ in here)
        assert told == (was_there != is_there)
        assert {user.user_id for user in roster.users()} == {user for user, _ in here}
        for person in ("ann", "bob"):
            connected = any(key[0] == person and state == "connected" for key, state in here.items())
            assert roster.connected(person) == connected
