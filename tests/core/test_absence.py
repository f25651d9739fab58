"""Who is awaited, where, and for how long."""

from __future__ import annotations

from holdfast.core.absence import Absence
from holdfast.core.agenda import Agenda
from holdfast.protocol.messages import User

ANN, BOB = User("ann", "Ann"), User("bob", "Bob")


def test_who_is_awaited_is_found_by_session_by_room_and_by_user() -> None:
    absence = Absence(Agenda())
    absence.begin("s1", ANN, None, ["lobby", "attic"], 5.0)
    absence.begin("s2", ANN, None, ["lobby"], 5.0)
    absence.begin("s3", BOB, None, ["attic"], 5.0)
    assert absence.room("lobby") == {"s1": ANN, "s2": ANN}
    assert absence.room("cellar") == {}
    assert sorted(absence.user("ann")) == [("s1", "attic"), ("s1", "lobby"), ("s2", "lobby")]
    assert absence.session("s9") is None


def test_a_grace_is_of_one_room_and_is_over_when_it_is_begun_anew_and_not_before() -> None:
    absence = Absence(agenda := Agenda())
    absence.begin("s1", ANN, None, ["lobby"], 5.0)
    absence.begin("s1", ANN, None, ["attic"], 7.0)
    absence.begin("s1", ANN, None, ["lobby"], 8.0)
    assert list(agenda.due(7.5)) == [("grace", "s1", "attic")]
    assert list(agenda.due(8.0)) == [("grace", "s1", "lobby")]


def test_the_newest_link_that_is_counted_is_known() -> None:
    absence = Absence(Agenda())
    absence.begin("s1", ANN, 3, ["lobby"], 5.0)
    absence.begin("s1", ANN, 4, ["attic"], 5.0)
    absence.begin("s1", ANN, None, ["attic"], 5.0)
    absentee = absence.session("s1")
    assert absentee is not None
    assert (absentee.link, absentee.rooms) == (4, {"lobby", "attic"})


def test_of_who_has_come_nothing_is_left_and_to_come_twice_is_no_harm() -> None:
    absence = Absence(agenda := Agenda())
    absence.begin("s1", ANN, None, ["lobby", "attic"], 5.0)
    absence.end("s1", "lobby")
    absence.end("s1", "lobby")
    absence.end("s2", "lobby")
    assert (absence.room("lobby"), absence.room("attic")) == ({}, {"s1": ANN})
    absence.end("s1", "attic")
    assert (absence._sessions, absence._rooms, len(agenda)) == ({}, {}, 0)
