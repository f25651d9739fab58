"""A calm room hears of each coming and going at once, a busy one once a second of all of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.agenda import Agenda
from holdfast.core.attendance import (
    BUSY_CHANGES,
    BUSY_MESSAGES,
    BUSY_PERIOD,
    TYPING_LAPSE,
    TYPING_PERIOD,
    TYPING_STARTS,
    Attendance,
)
from holdfast.core.effects import Deliver, Effects
from holdfast.core.replica import Replica
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import Joined, User

ANN = User("ann", "Ann")
EVERYBODY = ("somebody",)


class Room:
    """A room as its attendance sees it: somebody is always here to be told."""

    def __init__(self) -> None:
        self.effects = Effects(Codec())
        self.agenda = Agenda()
        self.asked_for: list[str | None] = []
        self.attendance = Attendance("lobby", self.present, self.effects, self.agenda)

    def present(self, but: str | None) -> tuple[str, ...]:
        self.asked_for.append(but)
        return EVERYBODY

    def comes(self, name: str, now: float, tab: str = "") -> None:
        user = User(name, name.title())
        if self.attendance.enter(user, name + tab):
            self.attendance.arrived(user, name + tab, now)

    def goes(self, name: str, now: float, tab: str = "", *, grace: bool = False) -> None:
        self.attendance.break_off(User(name, name.title()), name + tab)
        if not grace:
            self.attendance.grace_over(name, name + tab, now)

    def told(self) -> list[dict[str, Any]]:
        """Return what the room has been told since the last time."""
        return [
            msgspec.json.decode(frame.text)
            for effect in self.effects.take()
            if isinstance(effect, Deliver)
            for frame in effect.frames
        ]

    def ring(self, now: float) -> None:
        """Do what is due."""
        for key in self.agenda.due(now):
            assert isinstance(key, tuple)
            if key[0] == "presence":
                self.attendance.tell_changes(now)
            else:
                self.attendance.stop_typing(key[2])


@pytest.fixture
def room() -> Room:
    return Room()


def test_a_calm_room_is_told_at_once_who_came_and_who_is_here(room: Room) -> None:
    room.comes("ann", 0.0)
    assert room.told() == [
        {"type": "user_joined", "room": "lobby", "userId": "ann", "name": "Ann", "roomSize": 1},
        {"type": "presence", "room": "lobby", "users": [{"userId": "ann", "name": "Ann"}], "roomSize": 1},
    ]
    assert room.asked_for == ["ann"]  # who came was told by `joined`
    room.goes("ann", 1.0)
    assert room.told() == [
        {"type": "user_left", "room": "lobby", "userId": "ann", "name": "Ann", "roomSize": 0},
        {"type": "presence", "room": "lobby", "users": [], "roomSize": 0},
    ]
    assert room.asked_for == ["ann", None]


def test_a_second_tab_is_not_told(room: Room) -> None:
    room.comes("ann", 0.0)
    room.told()
    room.comes("ann", 0.1, tab="2")
    room.goes("ann", 0.2, tab="2")
    room.goes("ann", 0.3, grace=True)
    room.comes("ann", 0.4)
    assert room.told() == []


def test_who_does_not_return_is_told_when_the_grace_is_over(room: Room) -> None:
    room.comes("ann", 0.0)
    room.goes("ann", 1.0, grace=True)
    room.told()
    room.attendance.grace_over("ann", "ann", 6.0)
    assert [message["type"] for message in room.told()] == ["user_left", "presence"]
    room.attendance.grace_over("ann", "ann", 7.0)
    assert room.told() == []


def test_twenty_changes_a_second_are_calm_and_more_are_busy(room: Room) -> None:
    assert (BUSY_CHANGES, BUSY_PERIOD) == (20, 1.0)
    for number in range(20):
        room.comes(f"user-{number}", 0.02 * number)
    assert sum(message["type"] == "user_joined" for message in room.told()) == 20
    room.comes("one-more", 0.5)
    room.comes("and-more", 0.6)
    room.goes("user-3", 0.7)
    assert room.told() == []
    assert room.agenda.next() == 1.5
    room.ring(1.5)
    (presence,) = room.told()
    assert [user["userId"] for user in presence["joined"]] == ["one-more", "and-more"]
    assert [user["userId"] for user in presence["left"]] == ["user-3"]
    assert presence["roomSize"] == 21
    assert "users" not in presence


def test_twenty_changes_in_more_than_a_second_never_make_a_room_of_a_hundred_busy(room: Room) -> None:
    for number in range(100):
        room.comes(f"user-{number}", 0.0625 * number)
    room.goes("user-99", 20.0)
    for number in range(20):
        room.goes(f"user-{number}", 21.0)
    assert all("joined" not in message for message in room.told())
    assert room.agenda.next() is None


@pytest.mark.parametrize(("people", "calm"), [(100, 20), (200, 10), (1_000, 2), (1_001, 1), (10_000, 1)])
def test_in_a_large_room_fewer_changes_are_told_at_once_for_each_is_told_to_everybody(
    room: Room, people: int, calm: int
) -> None:
    assert BUSY_MESSAGES == 2_000
    for number in range(people):
        room.attendance.enter(User(f"user-{number}", "U"), f"user-{number}")
    for number in range(calm + 20):
        room.attendance.remove(f"user-{number}", 1.0)
    told = [message for message in room.told() if message["type"] != "presence"]
    assert 0 <= len(told) - calm <= 2  # those that leave make it smaller
    room.ring(2.0)
    (presence,) = room.told()
    assert len(presence["left"]) == calm + 20 - len(told)
    room.attendance.remove("user-99", 3.5)
    assert room.told() == []  # it was busy until a second has brought nothing
    room.ring(4.0)
    room.ring(5.0)
    room.told()
    room.attendance.remove("user-98", 6.5)
    assert room.told()[0]["type"] == "user_left"


def test_a_busy_room_is_told_once_a_second_until_a_second_brings_nothing(room: Room) -> None:
    for number in range(30):
        room.comes(f"user-{number}", 0.0)
    room.told()
    room.ring(1.0)
    assert len(room.told()[0]["joined"]) == 10
    room.comes("late", 1.9)
    assert room.told() == []
    room.ring(2.0)
    assert [user["userId"] for user in room.told()[0]["joined"]] == ["late"]
    room.ring(3.0)
    assert room.told() == []
    assert room.agenda.next() is None
    room.comes("calm", 3.5)
    assert [message["type"] for message in room.told()] == ["user_joined", "presence"]


def test_a_crowd_costs_the_room_a_message_a_second(room: Room) -> None:
    now = 0.0
    for number in range(1000):
        now = number / 200
        room.ring(now)
        room.comes(f"user-{number}", now)
    room.ring(now + 1)
    messages = room.told()
    assert len(messages) == 2 * 20 + 5


def test_who_came_and_went_within_a_busy_second_is_told_as_gone(room: Room) -> None:
    """Somebody may have joined in between, and was told that they are here."""
    for number in range(25):
        room.comes(f"user-{number}", 0.0)
    room.comes("brief", 0.1)
    room.goes("brief", 0.2)
    room.goes("user-0", 0.3)
    room.comes("user-0", 0.4)
    room.told()
    room.ring(1.0)
    (presence,) = room.told()
    assert [user["userId"] for user in presence["left"]] == ["brief"]
    assert [user["userId"] for user in presence["joined"]] == [f"user-{n}" for n in (20, 21, 22, 23, 24)] + ["user-0"]


def test_at_most_a_hundred_are_shown_and_in_a_larger_room_only_the_changes_are_told(room: Room) -> None:
    for number in range(100):
        room.comes(f"user-{number}", float(number))
    assert len(room.told()[-1]["users"]) == 100
    room.comes("user-100", 100.0)
    (joined,) = room.told()
    assert (joined["type"], joined["roomSize"]) == ("user_joined", 101)
    everybody = room.attendance.everybody()
    assert (len(everybody.users), everybody.room_size) == (100, 101)
    room.goes("user-5", 101.0)
    assert [message["type"] for message in room.told()] == ["user_left", "presence"]


def test_removing_somebody_is_told_once(room: Room) -> None:
    room.comes("ann", 0.0)
    room.comes("ann", 0.0, tab="2")
    room.told()
    room.attendance.remove("ann", 1.0)
    room.attendance.remove("ann", 1.0)
    room.attendance.remove("nobody", 1.0)
    assert [message["type"] for message in room.told()] == ["user_left", "presence"]


# ── typing ────────────────────────────────────────────────────────────────────────────────────────


def test_typing_is_told_once_to_the_others_and_its_end_too(room: Room) -> None:
    room.comes("ann", 0.0)
    room.told()
    room.attendance.type(ANN, "ann", 1.0)
    room.attendance.type(ANN, "ann", 2.0)
    assert room.told() == [{"type": "user_typing", "room": "lobby", "userId": "ann", "name": "Ann"}]
    assert room.asked_for[-1] == "ann"
    room.attendance.stop_typing("ann", "ann")
    room.attendance.stop_typing("ann", "ann")
    assert room.told() == [{"type": "user_stopped_typing", "room": "lobby", "userId": "ann", "name": "Ann"}]
    assert room.asked_for[-1] == "ann"
    assert room.agenda.next() is None


def test_typing_lapses(room: Room) -> None:
    assert TYPING_LAPSE == 5.0
    room.comes("ann", 0.0)
    room.told()
    room.attendance.type(ANN, "ann", 1.0)
    room.attendance.type(ANN, "ann", 3.0)
    assert room.agenda.next() == 8.0
    room.ring(8.0)
    assert [message["type"] for message in room.told()] == ["user_typing", "user_stopped_typing"]
    assert room.asked_for[-1] is None
    assert room.agenda.next() is None


@pytest.mark.parametrize("grace", [True, False])
def test_who_is_not_connected_does_not_type_grace_or_not(room: Room, grace: bool) -> None:
    room.comes("ann", 0.0)
    room.attendance.type(ANN, "ann", 1.0)
    room.told()
    room.goes("ann", 2.0, grace=grace)
    assert room.told()[0]["type"] == "user_stopped_typing"
    assert room.agenda.next() is None


def test_who_closes_one_of_two_tabs_may_type_on(room: Room) -> None:
    room.comes("ann", 0.0)
    room.comes("ann", 0.0, tab="2")
    room.attendance.type(ANN, "ann", 1.0)
    room.told()
    room.goes("ann", 2.0, tab="2")
    assert room.told() == []
    assert room.agenda.next() == 6.0


def test_a_tab_that_was_told_of_typing_in_another_is_told_of_its_end_whichever_ends_it(room: Room) -> None:
    room.comes("ann", 0.0)
    room.comes("ann", 0.0, "-2")
    room.asked_for.clear()
    room.attendance.type(ANN, "ann", 1.0)
    room.attendance.type(ANN, "ann-2", 2.0)
    room.attendance.stop_typing("ann", "ann-2")
    assert room.asked_for == ["ann", None]


def test_who_closes_the_tab_that_they_typed_in_types_no_more(room: Room) -> None:
    room.comes("ann", 0.0)
    room.comes("ann", 0.0, tab="2")
    room.attendance.type(ANN, "ann", 1.0)
    room.told()
    room.goes("ann", 2.0)
    assert [message["type"] for message in room.told()] == ["user_stopped_typing"]
    assert room.agenda.next() is None


def test_who_typed_at_a_node_that_is_gone_types_no_more_whatever_tabs_they_have_elsewhere(room: Room) -> None:
    room.comes("ann", 0.0)
    for tab in ("ann2", "ann3"):
        room.attendance.meet(ANN, tab, 0.0)
    room.attendance.type(ANN, "ann2", 1.0)
    room.told()
    room.attendance.part("ann", "ann3", 2.0)
    assert room.told() == []
    room.attendance.part("ann", "ann2", 2.0)
    assert [message["type"] for message in room.told()] == ["user_stopped_typing"]
    assert room.agenda.next() is None


def test_who_goes_on_at_another_node_with_the_tab_that_they_typed_in_types_no_more(room: Room) -> None:
    for tab in ("", "2"):
        room.comes("ann", 0.0, tab)
    room.attendance.type(ANN, "ann", 1.0)
    room.told()
    room.attendance.hand_over(ANN, "ann2")
    assert room.told() == []
    room.attendance.hand_over(ANN, "ann")
    assert [message["type"] for message in room.told()] == ["user_stopped_typing"]
    assert room.agenda.next() is None


def test_who_is_removed_does_not_type(room: Room) -> None:
    room.comes("ann", 0.0)
    room.attendance.type(ANN, "ann", 1.0)
    room.told()
    room.attendance.remove("ann", 2.0)
    assert [message["type"] for message in room.told()] == ["user_stopped_typing", "user_left", "presence"]


def test_who_begins_to_type_again_and_again_is_told_to_so_often_in_so_many_seconds(room: Room) -> None:
    room.comes("ann", 0.0)
    room.told()
    for number in range(480):
        room.attendance.type(ANN, "ann", number / 48)
        room.attendance.stop_typing("ann", "ann")
    assert len(room.told()) == 2 * TYPING_STARTS
    room.attendance.type(ANN, "ann", TYPING_PERIOD + 0.01)
    assert [message["type"] for message in room.told()] == ["user_typing"]
    room.goes("ann", 11.0)
    room.told()
    room.comes("ann", 11.0)
    room.attendance.type(ANN, "ann", 11.0)
    assert room.told()[-1]["type"] == "user_typing"


def test_more_changes_than_can_be_named_are_told_as_who_is_here(room: Room) -> None:
    for number in range(1500):
        room.comes(f"user-{number}", 0.5)
    room.told()
    room.ring(2.0)
    (presence,) = room.told()
    assert (presence["type"], len(presence["users"]), presence["roomSize"]) == ("presence", 100, 1500)
    for number in range(1400):
        room.goes(f"user-{number}", 2.1)
    room.ring(3.1)
    (presence,) = room.told()
    assert [user["userId"] for user in presence["users"]] == [f"user-{number}" for number in range(1400, 1500)]


@given(
    st.lists(st.tuples(st.integers(1, 130), st.booleans(), st.sampled_from([0.0, 0.01, 0.3, 2.5])), max_size=25),
    st.integers(0, 150),
)
def test_a_member_knows_everybody_where_a_hundred_are_and_half_of_those_who_can_be_named_where_more_are(
    waves: list[tuple[int, bool, float]], here: int
) -> None:
    room, people, came = Room(), dict.fromkeys(f"first-{number}" for number in range(here)), 0
    for now, name in enumerate(people):
        room.comes(name, float(now))
    room.told()
    now = float(here)
    member, everybody = Replica("lobby"), room.attendance.everybody()
    member.join()
    member.receive(Joined("lobby", "e:0", False, everybody.users, everybody.room_size))

    for count, is_coming, pause in waves:
        for _ in range(count):
            if is_coming:
                came += 1
                people[name := f"user-{came}"] = None
                room.comes(name, now)
            elif people:
                name = next(iter(people))
                del people[name]
                room.goes(name, now)
            while (due := room.agenda.next()) is not None and due <= now:
                room.ring(due)
            now += pause / count
    now += 5
    while (due := room.agenda.next()) is not None and due <= now:
        room.ring(due)
    for message in room.told():
        member.receive(Codec().decode_server(msgspec.json.encode(message)))  # type: ignore[arg-type]
    assert member.size == len(people)
    assert set(member.users) <= set(people)
    assert len(member.users) >= min(len(people), 50 if len(people) > 100 else 100)
