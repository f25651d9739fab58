"""A client's copy of a room tells the application each publication once, in order, or to start afresh."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from holdfast.core.replica import Outcome, Replica, Resumed, Resync
from holdfast.errors import Malformed
from holdfast.protocol import messages
from holdfast.protocol.messages import (
    Event,
    Join,
    Joined,
    Presence,
    PresenceChanges,
    Sync,
    Synced,
    User,
    UserJoined,
    UserLeft,
    UserStoppedTyping,
    UserTyping,
)

ANN, BOB = User("ann", "Ann"), User("bob", "Bob")
NOTHING = Outcome()


def joined(offset: int, *, recovered: bool = False, reason: str | None = None, epoch: str = "k") -> Joined:
    return Joined("lobby", f"{epoch}:{offset}", recovered, (ANN,), 1, UNSET if reason is None else reason)


def happens(replica: Replica, offset: int, epoch: str = "k") -> Outcome:
    return replica.receive(Event("lobby", "news", {"n": offset}, f"{epoch}:{offset}"))


def event(offset: int) -> Outcome:
    return Outcome((Event("lobby", "news", {"n": offset}, f"k:{offset}"),))


@pytest.fixture
def replica() -> Replica:
    """A copy that stands at 5."""
    replica = Replica("lobby")
    replica.join()
    replica.receive(joined(5))
    return replica


def test_the_first_join_asks_for_nothing_and_starts_afresh() -> None:
    replica = Replica("lobby")
    assert replica.cursor is None
    assert replica.join() == Join("lobby", None)
    assert replica.receive(joined(5)) == Outcome((Resync("new", "k:5"),))
    assert replica.cursor == "k:5"


def test_a_rejoin_asks_for_what_follows_its_position(replica: Replica) -> None:
    happens(replica, 6)
    assert replica.join() == Join("lobby", "k:6")
    assert replica.receive(joined(6, recovered=True)) == Outcome((Resumed("k:6"),))
    assert happens(replica, 7) == event(7)


@pytest.mark.parametrize("reason", ["trimmed", "epoch", "ahead"])
def test_a_rejoin_that_cannot_be_resumed_says_why(replica: Replica, reason: str) -> None:
    replica.join()
    assert replica.receive(joined(90, reason=reason, epoch="new")) == Outcome((Resync(reason, "new:90"),))
    assert replica.cursor == "new:90"


def test_without_resuming_every_join_starts_afresh() -> None:
    replica = Replica("lobby", resume=False)
    assert replica.join() == Join("lobby", None)
    assert replica.receive(joined(5)) == Outcome((Resync("new", "k:5"),))
    assert replica.join() == Join("lobby", None)
    assert replica.receive(joined(9)) == Outcome((Resync("chosen", "k:9"),))


def test_what_follows_is_an_event_what_it_has_is_dropped_and_a_hole_is_asked_for(replica: Replica) -> None:
    assert happens(replica, 6) == event(6)
    assert happens(replica, 6) == NOTHING
    assert happens(replica, 3) == NOTHING
    assert happens(replica, 8) == Outcome(ask=Sync("lobby", "k:6"))
    assert replica.cursor == "k:6"
    assert happens(replica, 9) == NOTHING  # asked for already
    assert happens(replica, 7) == event(7)
    assert happens(replica, 8) == event(8)
    assert replica.receive(Synced("lobby", "k:8", 2)) == NOTHING
    assert happens(replica, 10) == Outcome(ask=Sync("lobby", "k:8"))


def test_events_of_another_epoch_are_dropped(replica: Replica) -> None:
    assert happens(replica, 6, epoch="0ther") == NOTHING
    assert replica.cursor == "k:5"


def test_what_is_only_broadcast_has_no_place_in_the_order(replica: Replica) -> None:
    assert replica.cursor == "k:5"


def test_before_the_join_is_answered_nothing_is_an_event(replica: Replica) -> None:
    replica.join()
    assert happens(replica, 6) == NOTHING
    assert replica.receive(Event("lobby", "wave", {})) == NOTHING
    assert happens(Replica("lobby"), 1) == NOTHING


def test_a_resync_moves_the_position(replica: Replica) -> None:
    happens(replica, 8)
    assert replica.receive(messages.Resync("lobby", "trimmed", "k:20")) == Outcome((Resync("trimmed", "k:20"),))
    assert happens(replica, 21) == event(21)
    assert happens(replica, 25) == Outcome(ask=Sync("lobby", "k:21"))


def test_a_rejoin_may_ask_again(replica: Replica) -> None:
    assert happens(replica, 9) == Outcome(ask=Sync("lobby", "k:5"))
    assert happens(replica, 10) == NOTHING
    replica.join()
    replica.receive(joined(5, recovered=True))
    assert happens(replica, 11) == Outcome(ask=Sync("lobby", "k:5"))


def test_what_comes_while_the_application_is_slow_stays_in_the_log(replica: Replica) -> None:
    replica.pause()
    assert happens(replica, 6) == NOTHING
    assert replica.resume() == Outcome(ask=Sync("lobby", "k:5"))
    assert replica.resume() == NOTHING
    assert happens(replica, 6) == event(6)


def test_a_reader_that_is_slow_in_the_middle_of_a_sync_is_sent_the_rest_too(replica: Replica) -> None:
    assert happens(replica, 9) == Outcome(ask=Sync("lobby", "k:5"))
    assert happens(replica, 6) == event(6)
    replica.pause()
    assert happens(replica, 7) == NOTHING
    assert replica.resume() == NOTHING  # the answer is still coming
    assert happens(replica, 8) == NOTHING
    assert replica.receive(Synced("lobby", "k:9", 4)) == Outcome(ask=Sync("lobby", "k:6"))


def test_a_reader_that_is_slow_until_after_a_sync_asks_when_it_goes_on(replica: Replica) -> None:
    happens(replica, 9)
    replica.pause()
    assert happens(replica, 6) == NOTHING
    assert replica.receive(Synced("lobby", "k:9", 4)) == NOTHING
    assert replica.resume() == Outcome(ask=Sync("lobby", "k:5"))


def test_while_a_snapshot_is_taken_nothing_is_told_and_nothing_is_resumed(replica: Replica) -> None:
    replica.hold()
    assert replica.cursor is None
    assert happens(replica, 6) == NOTHING
    replica.pause()
    assert replica.resume() == NOTHING
    assert replica.join() == Join("lobby", None)


def test_after_a_snapshot_it_asks_for_what_follows_it(replica: Replica) -> None:
    replica.hold()
    assert replica.restart("k:7") == Sync("lobby", "k:7")
    assert happens(replica, 7) == NOTHING
    assert happens(replica, 9) == NOTHING  # the sync is under way
    assert happens(replica, 8) == event(8)
    replica.receive(Synced("lobby", "k:8", 1))
    assert happens(replica, 10) == Outcome(ask=Sync("lobby", "k:8"))


def test_it_is_stuck_until_something_follows_a_snapshot_or_the_link_is_another_one(replica: Replica) -> None:
    assert not replica.is_stuck
    for _ in range(2):
        replica.hold()
        replica.restart("k:7")
        assert replica.is_stuck
        replica.receive(messages.Resync("lobby", "trimmed", "k:9"))
        assert replica.is_stuck
    replica.hold()
    replica.restart("k:9")
    happens(replica, 9)
    replica.receive(Event("lobby", "n", {}))
    assert replica.is_stuck
    happens(replica, 10)
    assert not replica.is_stuck
    replica.restart("k:10")
    replica.join()
    assert not replica.is_stuck


def test_a_cursor_that_is_none_is_refused(replica: Replica) -> None:
    with pytest.raises(Malformed):
        replica.receive(Event("lobby", "news", {}, "nonsense"))
    with pytest.raises(Malformed):
        replica.restart("nonsense")


def test_it_knows_who_is_here(replica: Replica) -> None:
    assert replica.users == {"ann": ANN}
    replica.receive(UserJoined("lobby", "bob", "Bob", 2))
    assert (replica.users, replica.size) == ({"ann": ANN, "bob": BOB}, 2)
    replica.receive(UserLeft("lobby", "ann", "Ann", 1))
    assert (replica.users, replica.size) == ({"bob": BOB}, 1)
    replica.receive(UserLeft("lobby", "ann", "Ann", 1))
    replica.receive(PresenceChanges("lobby", (ANN,), (BOB, User("cy", "Cy")), 7))
    assert (replica.users, replica.size) == ({"ann": ANN}, 7)
    replica.receive(Presence("lobby", (BOB,), 101))
    assert (replica.users, replica.size) == ({"bob": BOB}, 101)
    replica.join()
    replica.receive(joined(9))
    assert (replica.users, replica.size) == ({"ann": ANN}, 1)


def test_it_knows_who_is_typing(replica: Replica) -> None:
    typing = UserTyping("lobby", "ann", "Ann")
    assert replica.receive(typing) == Outcome((Event("lobby", "user_typing", {"userId": "ann", "name": "Ann"}),))
    assert replica.typing == {"ann": ANN}
    replica.receive(UserStoppedTyping("lobby", "ann", "Ann"))
    assert replica.typing == {}
    for goes in (UserLeft("lobby", "ann", "Ann", 0), PresenceChanges("lobby", (), (ANN,), 0)):
        replica.receive(typing)
        replica.receive(goes)
        assert replica.typing == {}
    replica.receive(typing)
    replica.join()
    replica.receive(joined(5))
    assert replica.typing == {}


def test_what_it_tells_has_its_words_as_data_too() -> None:
    assert Resumed("k:5").data == {"cursor": "k:5"}
    assert Resync("trimmed", "k:5").data == {"reason": "trimmed", "cursor": "k:5"}
    assert (Resumed("k:5").type, Resync("trimmed", "k:5").type) == ("resumed", "resync")


@given(st.lists(st.integers(1, 40), max_size=80))
def test_whatever_arrives_the_application_sees_each_once_and_in_order(offsets: list[int]) -> None:
    replica = Replica("lobby")
    replica.join()
    replica.receive(joined(5))
    seen: list[str | None] = []
    asked = 0
    for offset in offsets:
        outcome = happens(replica, offset)
        seen += [item.id for item in outcome.items if isinstance(item, Event)]
        if outcome.ask is not None:
            asked += 1
            assert outcome.ask == Sync("lobby", replica.cursor or "")
    assert seen == [f"k:{offset}" for offset in range(6, 6 + len(seen))]
    assert replica.cursor == f"k:{5 + len(seen)}"
    assert asked <= 1  # nobody has answered


def test_while_the_application_takes_no_more_nothing_waits_and_then_it_is_told_who_is_here(replica: Replica) -> None:
    replica.pause()
    for message in (
        Event("lobby", "waved", {"by": "bob"}, None),
        UserJoined("lobby", "bob", "Bob", 2),
        UserTyping("lobby", "bob", "Bob"),
    ):
        assert replica.receive(message) == NOTHING
    assert replica.users == {"ann": ANN, "bob": BOB}
    happens(replica, 6)
    outcome = replica.resume()
    assert outcome.ask == Sync("lobby", "k:5")
    (told,) = outcome.items
    assert isinstance(told, Event)
    assert told.type == "presence"
    assert [user["userId"] for user in told.data["users"]] == ["ann", "bob"]
    replica.pause()
    assert replica.resume().items == ()


def test_of_the_starts_that_the_application_was_not_told_it_is_told_the_last(replica: Replica) -> None:
    replica.pause()
    for reason, offset in (("trimmed", 50), ("epoch", 60)):
        assert replica.receive(messages.Resync("lobby", reason, f"k:{offset}")) == NOTHING
    replica.join()
    assert replica.receive(joined(60, recovered=True)) == NOTHING  # from where it has not been told to start
    assert replica.resume() == Outcome((Resync("epoch", "k:60"),), Sync("lobby", "k:60"))
    replica.pause()
    replica.join()
    assert replica.receive(joined(60, recovered=True)) == NOTHING
    assert replica.resume() == Outcome((Resumed("k:60"),), Sync("lobby", "k:60"))
    replica.pause()
    assert replica.resume().items == ()


def test_a_hole_that_stays_where_what_follows_was_asked_for_is_not_asked_for_for_ever(replica: Replica) -> None:
    assert happens(replica, 7).ask == Sync("lobby", "k:5")
    replica.receive(Synced("lobby", "k:5", 0))
    with pytest.raises(Malformed, match="nothing has come since"):
        happens(replica, 7)


def test_who_is_asked_for_a_hole_and_knows_of_more_has_sent_it(replica: Replica) -> None:
    assert happens(replica, 7).ask == Sync("lobby", "k:5")
    with pytest.raises(Malformed, match="nothing has come since"):
        replica.receive(Synced("lobby", "k:7", 0))


def test_a_hole_that_was_filled_says_nothing_of_the_next(replica: Replica) -> None:
    for number in (5, 6, 7):
        assert happens(replica, number + 2).ask == Sync("lobby", f"k:{number}")
        assert happens(replica, number + 1) == event(number + 1)
        replica.receive(Synced("lobby", f"k:{number + 1}", 1))


def test_where_a_hole_was_before_a_snapshot_is_no_proof_against_a_server_afterwards(replica: Replica) -> None:
    """The answer that came meanwhile was for nobody; the one to the snapshot is still on its way."""
    assert happens(replica, 7).ask == Sync("lobby", "k:5")
    replica.hold()
    assert happens(replica, 6) == happens(replica, 7) == NOTHING
    replica.restart("k:5")
    assert replica.receive(Synced("lobby", "k:7", 2)).ask == Sync("lobby", "k:5")


def test_where_it_was_behind_before_a_pause_is_no_proof_against_a_server_afterwards(replica: Replica) -> None:
    """What was asked for came, and was left where it is; so it may stand where it stood when it was behind."""
    assert happens(replica, 7).ask == Sync("lobby", "k:5")
    replica.pause()
    assert happens(replica, 6) == NOTHING
    assert replica.receive(Synced("lobby", "k:7", 2)) == NOTHING
    assert replica.resume().ask == Sync("lobby", "k:5")
    replica.pause()
    assert happens(replica, 6) == NOTHING
    assert replica.resume() == NOTHING  # asked for already
    assert replica.receive(Synced("lobby", "k:7", 2)).ask == Sync("lobby", "k:5")
