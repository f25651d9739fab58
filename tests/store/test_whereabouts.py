"""Who is at other nodes is told once when they come and once when they go, whatever becomes of their node."""

from __future__ import annotations

import pytest

from holdfast.core.inputs import Elsewhere
from holdfast.protocol.messages import User
from holdfast.store.whereabouts import Whereabouts

ANN, BOB = User("ann", "Ann"), User("bob", "Bob")


class World:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.people = Whereabouts(self)
        self.people.meet("lobby", [])

    def met(self, room: str, came: Elsewhere, went: Elsewhere) -> None:
        self.told += [f"{user.user_id} came to {room}" for _, user in came]
        self.told += [f"{user.user_id} left {room}" for _, user in went]


@pytest.fixture
def world() -> World:
    return World()


def test_who_comes_and_goes_is_told_once(world: World) -> None:
    for _ in range(2):
        world.people.come("lobby", "s1", "one", ANN)
    assert world.people.known("lobby") == (("s1", ANN),)
    for _ in range(2):
        world.people.go("lobby", "s1")
    assert world.told == ["ann came to lobby", "ann left lobby"]


def test_of_a_room_that_nobody_has_met_nothing_is_told(world: World) -> None:
    world.people.come("attic", "s1", "one", ANN)
    world.people.go("attic", "s1")
    assert "attic" not in world.people
    assert world.told == []


def test_who_is_there_when_a_room_is_met_has_not_just_come(world: World) -> None:
    world.people.meet("attic", [("s1", "one", ANN)])
    world.people.meet("attic", [])  # it is known already
    assert world.people.known("attic") == (("s1", ANN),)
    world.people.forget(lambda room: room == "lobby")
    assert world.people.rooms() == ["lobby"]
    assert world.told == []


def test_who_is_there_when_a_room_is_met_has_left_when_their_node_is_gone(world: World) -> None:
    world.people.meet("attic", [("s1", "one", ANN)])
    world.people.bury({"two"}, 1.0)
    assert world.told == ["ann left attic"]


def test_who_has_left_while_they_were_in_doubt_is_in_doubt_no_more(world: World) -> None:
    world.people.come("lobby", "s1", "one", ANN)
    world.people.compare([], 5.0)
    world.people.go("lobby", "s1")
    world.people.give("lobby", "s1", "two", ANN)
    world.people.bury({"one", "two"}, 6.0)
    assert world.people.known("lobby") == (("s1", ANN),)


def test_a_session_that_is_handed_over_has_neither_come_nor_gone(world: World) -> None:
    world.people.give("lobby", "s1", "one", ANN)
    world.people.come("lobby", "s1", "two", ANN)
    world.people.take("lobby", "s1")
    world.people.go("lobby", "s1")
    assert world.told == []


@pytest.mark.parametrize("room", ["lobby", None])
def test_who_was_put_out_and_comes_again_has_come(world: World, room: str | None) -> None:
    world.people.come("lobby", "s1", "one", ANN)
    world.people.come("lobby", "s2", "one", BOB)
    world.people.put_out("ann", room)
    world.people.put_out("ann", "attic")
    assert world.people.known("lobby") == (("s2", BOB),)
    world.people.come("lobby", "s1", "one", ANN)
    assert world.told == ["ann came to lobby", "bob came to lobby", "ann came to lobby"]


def test_who_was_handed_over_to_a_node_that_is_gone_by_now_has_left(world: World) -> None:
    world.people.give("lobby", "s1", "one", ANN)
    world.people.bury({"two"}, 0.0)
    assert world.told == ["ann left lobby"]


def test_the_people_of_a_node_that_is_gone_have_left(world: World) -> None:
    world.people.come("lobby", "s1", "one", ANN)
    world.people.come("lobby", "s2", "two", BOB)
    world.people.bury({"two"}, 0.0)
    assert world.told[2:] == ["ann left lobby"]
    assert world.people.alive == {"two"}


def test_a_doubt_is_not_renewed_however_often_it_is_compared(world: World) -> None:
    world.people.come("lobby", "s1", "one", ANN)
    for now in (0.0, 3.0, 6.0):
        world.people.compare([], until=now + 5.0)
        world.people.bury({"one"}, now)
    assert world.told == ["ann came to lobby", "ann left lobby"]


def test_who_is_late_takes_nobody_for_dead_at_once(world: World) -> None:
    world.people.come("lobby", "s1", "one", ANN)
    world.people.come("lobby", "s2", "two", BOB)
    world.people.doubt(set(), until=5.0)
    world.people.bury(set(), 0.0)
    assert world.told == ["ann came to lobby", "bob came to lobby"]
    world.people.come("lobby", "s1", "one", ANN)
    world.people.bury({"one"}, 5.0)
    assert world.told[2:] == ["bob left lobby"]


def test_who_is_not_written_down_any_more_has_a_while_to_be(world: World) -> None:
    world.people.come("lobby", "s1", "one", ANN)
    world.people.come("lobby", "s2", "one", BOB)
    world.people.compare([], until=5.0)
    world.people.bury(set(), 4.9)  # with their node: the database has forgotten that too
    assert len(world.people.known("lobby")) == 2
    world.people.compare([("lobby", "s1", "one", ANN)], until=6.0)
    world.people.bury({"one"}, 6.0)
    assert world.told[2:] == ["bob left lobby"]
    assert world.people.known("lobby") == (("s1", ANN),)


def test_of_a_room_that_is_met_again_nobody_is_in_doubt(world: World) -> None:
    world.people.come("lobby", "s1", "one", ANN)
    world.people.compare([], until=5.0)
    world.people.forget(lambda room: False)
    world.people.meet("lobby", [("s1", "two", ANN)])
    world.people.bury({"two"}, 6.0)
    assert world.told == ["ann came to lobby"]
    assert world.people.known("lobby") == (("s1", ANN),)


def test_a_session_that_was_here_meanwhile_is_in_doubt_no_more(world: World) -> None:
    world.people.come("lobby", "s1", "one", ANN)
    world.people.compare([], until=5.0)
    world.people.take("lobby", "s1")
    world.people.give("lobby", "s1", "two", ANN)
    world.people.bury({"two"}, 6.0)
    assert world.told == ["ann came to lobby"]
