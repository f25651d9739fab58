"""Who is connected as whom, who is in which room, and what they are told: each rule of the design as a short story."""

from __future__ import annotations

import pytest

from core.small_world import ANSWERS, EPOCH, Peer, World
from holdfast.core import inputs
from holdfast.core.effects import Deliver
from holdfast.core.inputs import Ending
from holdfast.core.ready import Span
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import User

ANN, BOB = {"userId": "ann", "name": "Ann"}, {"userId": "bob", "name": "Bob"}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ann(world: World) -> Peer:
    """Somebody who is in the lobby, and has read what was said so far."""
    peer = world.arrive("ann")
    world.join(peer, "lobby")
    peer.take()
    return peer


@pytest.fixture
def bob(world: World, ann: Peer) -> Peer:
    """Somebody else in the lobby."""
    peer = world.arrive("bob")
    world.join(peer, "lobby")
    peer.take()
    ann.take()
    return peer


def types(peer: Peer) -> list[object]:
    return [message["type"] for message in peer.take()]


def ids(peer: Peer) -> list[object]:
    return [message["id"] for message in peer.take("news")]


def people(world: World, room: str = "lobby") -> list[str]:
    known = world.mind.room(room)
    return [] if known is None else [user.user_id for user in known.attendance.roster.users()]


# ── who somebody is ───────────────────────────────────────────────────────────────────────────────


def test_nothing_is_said_to_a_stranger_and_connected_is_the_first_word(world: World) -> None:
    peer = world.open()
    assert peer.take() == []
    assert world.mind.session(peer) is None
    world.identify(peer, "ann", name="Ann")
    (connected,) = peer.take()
    assert connected == {
        "type": "connected",
        "session": peer.session,
        "user": ANN,
        "heartbeat": {"interval": 30.0, "timeout": 10.0},
        "limits": {"messageBytes": 65536, "messagesPerSecond": 50.0, "rooms": 100},
        "roomKey": "room",
    }


def test_a_guest_is_given_their_token(world: World) -> None:
    peer = world.open()
    world.tell(inputs.Identified(peer, "s", User("guest-1", "Guest"), token="signed"))
    assert peer.take()[0]["token"] == "signed"


def test_who_does_not_say_who_they_are_in_time_is_closed_with_4108(world: World) -> None:
    peer = world.open()
    world.pass_time(9.99)
    assert peer.closed is None
    world.pass_time(0.01)
    (error,) = peer.take()
    assert (error["type"], error["code"]) == ("error", "unauthorized")
    assert str(error["error"]).startswith("Unauthorized")
    assert peer.closed == 4108


def test_who_has_said_it_has_no_deadline_any_more(world: World) -> None:
    peer = world.open()
    world.pass_time(9.9)
    world.identify(peer, "ann")
    world.pass_time(1000)
    assert peer.closed is None
    assert world.mind.deadline() is None


def test_a_stranger_that_goes_leaves_no_deadline_behind(world: World) -> None:
    peer = world.open()
    world.lose(peer)
    assert world.mind.deadline() is None
    world.check_end()


def test_a_token_that_expires_is_an_error_and_then_4001(world: World, bob: Peer) -> None:
    peer = world.open()
    world.identify(peer, "cy", expires=world.now + 60)
    world.join(peer, "lobby")
    peer.take(), bob.take()
    world.pass_time(59.9)
    assert peer.closed is None
    world.pass_time(0.1)
    (error,) = peer.take()
    assert (error["type"], error["code"]) == ("error", "unauthorized")
    assert str(error["error"]).startswith("Unauthorized")
    assert peer.closed == 4001
    assert types(bob) == ["user_left", "presence"]  # at once: it will not come back by itself


def test_a_token_that_is_renewed_in_time_does_not_expire(world: World) -> None:
    peer = world.open()
    world.identify(peer, "ann", expires=world.now + 60)
    world.join(peer, "lobby")
    session = peer.session
    world.pass_time(50)
    world.identify(peer, "ann", expires=world.now + 60)
    world.pass_time(50)
    assert (peer.closed, peer.session) == (None, session)
    world.identify(peer, "ann")  # by one that never expires
    world.pass_time(1000)
    assert peer.closed is None


def test_nobody_becomes_somebody_else_while_in_a_room(world: World, ann: Peer, bob: Peer) -> None:
    world.identify(ann, "mallory")
    (error,) = ann.take()
    assert (error["type"], error["code"]) == ("error", "conflict")
    assert people(world) == ["ann", "bob"]
    world.leave(ann, "lobby")
    world.identify(ann, "mallory")
    world.join(ann, "lobby")
    assert people(world) == ["bob", "mallory"]


def test_who_becomes_somebody_else_gets_another_session(world: World, ann: Peer) -> None:
    session = ann.session
    world.leave(ann, "lobby")
    world.identify(ann, "bob")
    assert ann.session != session
    thief = world.arrive("ann", replaces=session)
    assert thief.session != session  # nobody holds it any more
    assert ann.closed is None


def test_who_becomes_somebody_else_within_the_grace_leaves_no_ghost(world: World, bob: Peer, ann: Peer) -> None:
    world.lose(ann, Ending.UNCLEAN)
    back = world.arrive("ann", replaces=ann.session)
    world.identify(back, "cy")
    world.join(back, "lobby")
    world.lose(back, Ending.UNCLEAN)
    world.pass_time(5)
    assert people(world) == ["bob"]


# ── coming back ───────────────────────────────────────────────────────────────────────────────────


def test_a_session_that_goes_on_elsewhere_cuts_its_twin_and_nobody_sees_them_leave(
    world: World, ann: Peer, bob: Peer
) -> None:
    again = world.arrive("ann", replaces=ann.session)
    assert again.session == ann.session
    assert ann.closed == 4009
    world.join(again, "lobby")
    world.pass_time(60)
    assert bob.take() == []
    assert people(world) == ["ann", "bob"]
    world.publish("lobby")
    assert len(ids(again)) == len(ids(bob)) == 1


def test_a_session_that_went_on_elsewhere_and_does_not_rejoin_has_left_after_the_grace(
    world: World, ann: Peer, bob: Peer
) -> None:
    world.arrive("ann", replaces=ann.session)
    world.pass_time(4.99)
    assert bob.take() == []
    world.pass_time(0.01)
    assert types(bob) == ["user_left", "presence"]


def test_nobody_takes_over_the_session_of_somebody_else(world: World, ann: Peer, bob: Peer) -> None:
    mallory = world.arrive("mallory", replaces=ann.session)
    assert mallory.session != ann.session
    assert ann.closed is None
    world.lose(ann, Ending.UNCLEAN)
    mallory = world.arrive("mallory", replaces=ann.session)
    assert mallory.session != ann.session  # nor one that is on its way back


@pytest.mark.parametrize("is_lost", [True, False])
def test_what_an_older_link_said_and_is_heard_late_takes_no_session_from_a_newer_one(
    world: World, bob: Peer, *, is_lost: bool
) -> None:
    ann, late = world.open(), world.open()
    world.identify(ann, "ann", link=3)
    world.join(ann, "lobby")
    bob.take()
    if is_lost:
        world.lose(ann, Ending.UNCLEAN)
    world.identify(late, "ann", replaces=ann.session, link=2)
    assert late.session != ann.session
    assert ann.closed is None
    newer = world.open()
    world.identify(newer, "ann", replaces=ann.session, link=4)
    assert newer.session == ann.session
    assert ann.closed == (None if is_lost else 4009)
    world.join(newer, "lobby")
    world.pass_time(60)
    assert bob.take() == []


def test_a_session_that_was_never_given_is_not_given(world: World) -> None:
    assert world.arrive("ann", replaces="made up").session != "made up"


def test_a_connection_may_claim_its_old_session_after_connected(world: World, ann: Peer, bob: Peer) -> None:
    again = world.arrive("ann")  # by cookie: `connected` came before it could say anything
    world.identify(again, "ann", replaces=ann.session)
    assert again.session == ann.session
    assert ann.closed == 4009
    world.join(again, "lobby")
    world.pass_time(60)
    assert bob.take() == []


def test_a_session_in_a_room_is_not_exchanged_for_another(world: World, ann: Peer) -> None:
    other = world.arrive("ann")
    world.join(other, "kitchen")
    session = other.session
    world.identify(other, "ann", replaces=ann.session)
    assert other.session == session
    assert ann.closed is None


def test_an_unclean_end_and_a_return_within_the_grace_are_silent(world: World, ann: Peer, bob: Peer) -> None:
    world.lose(ann, Ending.UNCLEAN)
    world.pass_time(4.9)
    again = world.arrive("ann", replaces=ann.session)
    world.join(again, "lobby")
    world.pass_time(60)
    assert bob.take() == []
    assert people(world) == ["ann", "bob"]


def test_a_return_without_the_old_session_is_as_silent(world: World, ann: Peer, bob: Peer) -> None:
    world.lose(ann, Ending.UNCLEAN)
    world.pass_time(1)
    world.join(world.arrive("ann"), "lobby")
    world.pass_time(60)
    assert bob.take() == []
    assert people(world) == ["ann", "bob"]


def test_who_does_not_return_within_the_grace_has_left(world: World, ann: Peer, bob: Peer) -> None:
    world.lose(ann, Ending.UNCLEAN)
    world.pass_time(4.99)
    assert bob.take() == []
    assert people(world) == ["ann", "bob"]
    world.pass_time(0.01)
    left, presence = bob.take()
    assert left == {"type": "user_left", "room": "lobby", **ANN, "roomSize": 1}
    assert presence == {"type": "presence", "room": "lobby", "users": [BOB], "roomSize": 1}


@pytest.mark.parametrize("ending", [Ending.CLEAN, Ending.DEAD])
def test_a_clean_end_and_a_death_are_told_at_once(world: World, ann: Peer, bob: Peer, ending: Ending) -> None:
    world.lose(ann, ending)
    assert types(bob) == ["user_left", "presence"]
    assert people(world) == ["bob"]
    world.pass_time(60)
    assert bob.take() == []


def test_without_a_grace_an_unclean_end_is_told_at_once() -> None:
    world = World(grace=0.0)
    ann, bob = world.arrive("ann"), world.arrive("bob")
    for peer in (ann, bob):
        world.join(peer, "lobby")
    bob.take()
    world.lose(ann, Ending.UNCLEAN)
    assert types(bob) == ["user_left", "presence"]
    world.check_end()


def test_the_grace_runs_anew_from_each_unclean_end(world: World, ann: Peer, bob: Peer) -> None:
    for _ in range(5):
        world.lose(ann, Ending.UNCLEAN)
        world.pass_time(4)
        ann = world.arrive("ann", replaces=ann.session)
        world.join(ann, "lobby")
    world.lose(ann, Ending.UNCLEAN)
    world.pass_time(4.99)
    assert bob.take() == []
    world.pass_time(0.01)
    assert types(bob) == ["user_left", "presence"]


def test_a_room_that_is_not_joined_again_is_left_after_its_own_grace(world: World, ann: Peer, bob: Peer) -> None:
    world.lose(ann, Ending.UNCLEAN)
    world.pass_time(3)
    ann = world.arrive("ann", replaces=ann.session)
    world.join(ann, "kitchen")
    world.lose(ann, Ending.UNCLEAN)
    world.pass_time(2)
    assert (people(world), people(world, "kitchen")) == (["bob"], ["ann"])
    world.pass_time(3)
    assert people(world, "kitchen") == []


def test_a_room_is_kept_while_somebody_may_return_to_it_and_then_forgotten(world: World, ann: Peer) -> None:
    world.lose(ann, Ending.UNCLEAN)
    world.pass_time(4.9)
    assert world.mind.room("lobby") is not None
    world.pass_time(0.1)
    assert world.mind.room("lobby") is None
    world.check_end()


def test_saying_twice_that_a_connection_is_gone_does_no_harm(world: World, ann: Peer, bob: Peer) -> None:
    world.lose(ann, Ending.CLEAN)
    bob.take()
    world.lose(ann, Ending.UNCLEAN)
    world.pass_time(60)
    assert bob.take() == []
    world.check_end()


# ── people ────────────────────────────────────────────────────────────────────────────────────────


def test_who_joins_is_told_who_is_here_and_the_others_that_they_came(world: World, ann: Peer) -> None:
    bob = world.arrive("bob")
    bob.take()
    world.join(bob, "lobby")
    assert bob.take() == [
        {
            "type": "joined",
            "room": "lobby",
            "cursor": f"{EPOCH}:0",
            "recovered": False,
            "users": [ANN, BOB],
            "roomSize": 2,
        }
    ]
    assert ann.take() == [
        {"type": "user_joined", "room": "lobby", **BOB, "roomSize": 2},
        {"type": "presence", "room": "lobby", "users": [ANN, BOB], "roomSize": 2},
    ]


def test_two_tabs_are_one_person(world: World, ann: Peer, bob: Peer) -> None:
    tab = world.arrive("ann")
    world.join(tab, "lobby")
    assert tab.take("joined")[0]["roomSize"] == 2
    assert bob.take() == []
    world.lose(ann, Ending.CLEAN)
    assert bob.take() == []
    world.leave(tab, "lobby")
    assert types(bob) == ["user_left", "presence"]
    assert types(tab) == ["left"]


def test_who_leaves_is_told_so_and_the_others_too(world: World, ann: Peer, bob: Peer) -> None:
    world.leave(ann, "lobby")
    assert ann.take() == [{"type": "left", "room": "lobby"}]
    assert types(bob) == ["user_left", "presence"]
    world.leave(ann, "lobby")  # again: nothing
    assert ann.take() == []
    assert bob.take() == []


def test_who_joins_again_is_answered_again_and_nobody_else_hears(world: World, ann: Peer, bob: Peer) -> None:
    world.publish("lobby", 3)
    ann.take(), bob.take()
    world.join(ann, "lobby", f"{EPOCH}:1")
    joined, *news = ann.take()
    assert (joined["type"], joined["recovered"], joined["cursor"]) == ("joined", True, f"{EPOCH}:1")
    assert [event["id"] for event in news] == [f"{EPOCH}:2", f"{EPOCH}:3"]
    assert bob.take() == []
    world.check_rest()


def test_typing_is_told_to_the_others_until_it_stops(world: World, ann: Peer, bob: Peer) -> None:
    world.type(ann, "lobby")
    world.type(ann, "lobby")
    assert bob.take() == [{"type": "user_typing", "room": "lobby", **ANN}]
    world.type(ann, "lobby", active=False)
    world.type(ann, "lobby", active=False)
    assert bob.take() == [{"type": "user_stopped_typing", "room": "lobby", **ANN}]
    assert ann.take() == []


def test_typing_lapses_five_seconds_after_the_last_word_of_it(world: World, ann: Peer, bob: Peer) -> None:
    world.type(ann, "lobby")
    world.pass_time(4)
    world.type(ann, "lobby")
    world.pass_time(4.9)
    assert types(bob) == ["user_typing"]
    world.pass_time(0.1)
    assert types(bob) == ["user_stopped_typing"]


@pytest.mark.parametrize("ending", [Ending.CLEAN, Ending.UNCLEAN, Ending.DEAD])
def test_who_is_gone_does_not_type(world: World, ann: Peer, bob: Peer, ending: Ending) -> None:
    world.type(ann, "lobby")
    bob.take()
    world.lose(ann, ending)
    assert types(bob)[0] == "user_stopped_typing"
    world.check_rest()


def test_nobody_types_in_a_room_they_are_not_in(world: World, ann: Peer, bob: Peer) -> None:
    stranger = world.arrive("cy")
    world.type(stranger, "lobby")
    world.type(ann, "kitchen")
    assert ann.take() == []
    assert bob.take() == []
    world.type(world.open(), "lobby")
    assert bob.take() == []


def test_a_broadcast_reaches_who_is_here_but_not_who_is_named(world: World, ann: Peer, bob: Peer) -> None:
    world.announce("lobby")
    assert (types(ann), types(bob)) == (["wave"], ["wave"])
    world.announce("lobby", but=ann.session)
    assert (types(ann), types(bob)) == ([], ["wave"])
    world.announce("nowhere")
    assert (types(ann), types(bob)) == ([], [])


def test_who_is_put_out_of_a_room_is_told_so_with_all_their_tabs(world: World, ann: Peer, bob: Peer) -> None:
    tab = world.arrive("ann")
    world.join(tab, "lobby")
    world.join(tab, "kitchen")
    bob.take(), tab.take()
    world.expel("ann", "lobby")
    assert types(ann) == types(tab) == ["left"]
    assert types(bob) == ["user_left", "presence"]
    assert (people(world), people(world, "kitchen")) == (["bob"], ["ann"])


def test_who_is_put_out_during_the_grace_is_gone_at_once(world: World, ann: Peer, bob: Peer) -> None:
    world.lose(ann, Ending.UNCLEAN)
    world.expel("ann", "lobby")
    assert types(bob) == ["user_left", "presence"]
    world.pass_time(60)
    assert bob.take() == []
    world.check_end()


def test_who_is_disconnected_is_closed_with_4003_everywhere(world: World, ann: Peer, bob: Peer) -> None:
    tab = world.arrive("ann")
    world.join(tab, "kitchen")
    world.expel("ann")
    assert ann.closed == tab.closed == 4003
    assert bob.closed is None
    assert types(bob) == ["user_left", "presence"]
    assert world.mind.room("kitchen") is None


# ── what was missed ───────────────────────────────────────────────────────────────────────────────


def test_a_live_member_is_handed_what_is_published(world: World, ann: Peer, bob: Peer) -> None:
    world.publish("lobby", 3)
    expected = [f"{EPOCH}:{offset}" for offset in (1, 2, 3)]
    assert ids(ann) == ids(bob) == expected  # its author hears of it too


def test_what_is_published_in_one_turn_is_one_write(world: World, ann: Peer, bob: Peer) -> None:
    world.commit("lobby", 3)
    effects = world.mind.receive(inputs.Published("lobby", world.log("lobby").items([1, 2, 3])), world.now)
    assert [(effect.to, len(effect.frames)) for effect in effects if isinstance(effect, Deliver)] == [((ann, bob), 3)]


def test_who_returns_gets_what_they_missed_and_nothing_twice(world: World, ann: Peer, bob: Peer) -> None:
    world.publish("lobby", 2)
    world.lose(ann, Ending.UNCLEAN)
    world.publish("lobby", 3)
    again = world.arrive("ann", replaces=ann.session)
    again.take()
    world.join(again, "lobby", f"{EPOCH}:2")
    joined, *news = again.take()
    assert joined["recovered"] is True
    assert [event["id"] for event in news] == [f"{EPOCH}:{offset}" for offset in (3, 4, 5)]
    world.publish("lobby")
    assert ids(again) == [f"{EPOCH}:6"]


def test_who_was_away_for_long_reads_page_by_page_from_the_store(world: World, ann: Peer) -> None:
    world.publish("lobby", 300)  # more than the room keeps ready
    ann.take()
    late = world.arrive("bob")
    world.join(late, "lobby", f"{EPOCH}:0")
    assert ids(late) == []
    assert [(one.room, one.after) for one in world.reading] == [("lobby", 0)]
    while world.reading:
        world.answer()
        world.publish("lobby")  # life goes on meanwhile
    assert late.rooms["lobby"].position == world.log("lobby").head
    assert ids(late)[:3] == [f"{EPOCH}:1", f"{EPOCH}:2", f"{EPOCH}:3"]
    world.check_rest()


def test_many_who_were_away_read_each_page_once(world: World) -> None:
    world.commit("lobby", 100)
    world.news.clear()
    late = [world.arrive(f"user-{number}") for number in range(20)]
    for peer in late:
        world.join(peer, "lobby", f"{EPOCH}:0")
    pages = 0
    while world.reading:
        assert len(world.reading) == 1
        world.answer()
        pages += 1
    assert pages == 25  # of four each
    assert {peer.rooms["lobby"].position for peer in late} == {100}


def test_a_position_that_was_trimmed_is_said_at_the_join(world: World) -> None:
    world.commit("lobby", 10)
    world.trim("lobby", 5)
    peer = world.arrive("ann")
    world.join(peer, "lobby", f"{EPOCH}:4")
    (joined,) = peer.take("joined")
    assert (joined["recovered"], joined["reason"], joined["cursor"]) == (False, "trimmed", f"{EPOCH}:10")
    world.join(peer, "lobby", f"{EPOCH}:5")
    assert peer.take("joined")[0]["recovered"] is True


def test_a_position_that_is_trimmed_while_it_is_read_is_a_prefix_without_holes_and_then_a_resync(
    world: World, ann: Peer
) -> None:
    world.publish("lobby", 300)
    late = world.arrive("bob")
    world.join(late, "lobby", f"{EPOCH}:0")
    world.answer()
    world.trim("lobby", 20)
    late.take("joined")
    world.answer()
    (resync,) = late.take()
    assert resync == {"type": "resync", "room": "lobby", "reason": "trimmed", "cursor": f"{EPOCH}:300"}
    world.publish("lobby")
    assert ids(late) == [f"{EPOCH}:301"]


def test_another_epoch_is_a_gap(world: World, ann: Peer) -> None:
    world.publish("lobby", 5)
    for room in ("lobby", "a room that nobody is in"):
        peer = world.arrive("bob")
        world.join(peer, room, "0ther:3")
        (joined,) = peer.take("joined")
        assert (joined["recovered"], joined["reason"]) == (False, "epoch")


def test_a_forged_position_in_the_future_is_ahead_and_changes_nothing(world: World, ann: Peer, bob: Peer) -> None:
    world.publish("lobby", 5)
    ann.take(), bob.take()
    mallory = world.arrive("mallory")
    world.join(mallory, "lobby", f"{EPOCH}:{2**63 - 1}")
    (joined,) = mallory.take("joined")
    assert (joined["recovered"], joined["reason"], joined["cursor"]) == (False, "ahead", f"{EPOCH}:5")
    world.sync(mallory, "lobby", f"{EPOCH}:1000")
    (resync,) = mallory.take("resync")
    assert (resync["reason"], resync["cursor"]) == ("ahead", f"{EPOCH}:5")
    ann.take(), bob.take()
    world.publish("lobby")
    assert ids(ann) == ids(bob) == ids(mallory) == [f"{EPOCH}:6"]


def test_a_quiet_room_never_gives_a_false_gap(world: World) -> None:
    """Whoever stood at the head has missed nothing, also when everything was trimmed since."""
    world.commit("lobby", 5)
    world.news.clear()
    world.trim("lobby")
    peer = world.arrive("ann")
    world.join(peer, "lobby", f"{EPOCH}:5")
    assert peer.take("joined")[0]["recovered"] is True
    world.sync(peer, "lobby", f"{EPOCH}:5")
    assert types(peer) == ["synced"]
    world.publish("lobby")
    assert ids(peer) == [f"{EPOCH}:6"]


def test_a_room_in_which_nothing_was_ever_published_can_be_resumed(world: World) -> None:
    peer = world.arrive("ann")
    world.join(peer, "lobby", f"{EPOCH}:0")
    assert peer.take("joined")[0]["recovered"] is True


def test_a_snapshot_that_is_newer_than_the_news_is_not_a_gap(world: World, ann: Peer) -> None:
    world.publish("lobby", 5)
    world.commit("lobby")  # 6 is in the store; the news of it is on its way
    peer = world.arrive("bob")
    peer.take()
    world.join(peer, "lobby", f"{EPOCH}:6")
    (joined,) = peer.take()
    assert (joined["recovered"], joined["cursor"]) == (True, f"{EPOCH}:6")
    world.tell_news()
    assert ids(peer) == []  # it has that one
    assert ids(ann)[-1] == f"{EPOCH}:6"
    world.publish("lobby")
    assert ids(peer) == ids(ann) == [f"{EPOCH}:7"]


def test_a_snapshot_amid_much_news_goes_on_behind_its_position(world: World, ann: Peer) -> None:
    world.publish("lobby", 5)
    world.commit("lobby", 4, size=40_000)  # more than one write carries
    peer = world.arrive("bob")
    world.join(peer, "lobby", f"{EPOCH}:7")
    peer.take()
    world.tell_news()
    assert ids(peer) == [f"{EPOCH}:8", f"{EPOCH}:9"]
    world.check_rest()


def test_a_room_that_is_only_listened_to_knows_all_news_at_once(world: World) -> None:
    world.listen("lobby")
    world.publish("lobby", 5, size=40_000)  # more than one write carries, and nobody is written to
    room = world.mind.room("lobby")
    assert room is not None
    assert room.head == room.newest == 5
    world.unlisten("lobby")
    world.check_end()


# ── sync ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_sync_sends_again_what_follows_and_says_how_much_it_was(world: World, ann: Peer, bob: Peer) -> None:
    world.publish("lobby", 5)
    ann.take(), bob.take()
    world.sync(ann, "lobby", f"{EPOCH}:2")
    *news, synced = ann.take()
    assert [event["id"] for event in news] == [f"{EPOCH}:{offset}" for offset in (3, 4, 5)]
    assert synced == {"type": "synced", "room": "lobby", "cursor": f"{EPOCH}:5", "count": 3}
    assert bob.take() == []


def test_a_sync_from_the_head_counts_nothing(world: World, ann: Peer) -> None:
    world.publish("lobby", 5)
    ann.take()
    world.sync(ann, "lobby", f"{EPOCH}:5")
    assert ann.take() == [{"type": "synced", "room": "lobby", "cursor": f"{EPOCH}:5", "count": 0}]


def test_a_long_sync_counts_its_pages_and_what_was_published_meanwhile(world: World, ann: Peer) -> None:
    world.publish("lobby", 300)
    ann.take()
    world.sync(ann, "lobby", f"{EPOCH}:0")
    world.publish("lobby", 2)
    world.answer_all()
    *news, synced = ann.take()
    assert len(news) == synced["count"] == 302
    assert synced["cursor"] == f"{EPOCH}:302"


@pytest.mark.parametrize(
    ("since", "reason"), [("0ther:3", "epoch"), (f"{EPOCH}:9", "ahead"), (f"{EPOCH}:1", "trimmed")]
)
def test_a_sync_that_cannot_be_answered_is_a_resync(world: World, since: str, reason: str) -> None:
    world.commit("lobby", 5)
    world.news.clear()
    world.trim("lobby", 3)
    peer = world.arrive("ann")
    world.join(peer, "lobby")
    peer.take()
    world.sync(peer, "lobby", since)
    assert peer.take() == [{"type": "resync", "room": "lobby", "reason": reason, "cursor": f"{EPOCH}:5"}]
    world.publish("lobby")
    assert ids(peer) == [f"{EPOCH}:6"]


def test_who_is_not_in_the_room_is_not_synced(world: World, ann: Peer) -> None:
    stranger = world.arrive("bob")
    stranger.take()
    world.sync(stranger, "lobby", f"{EPOCH}:0")
    world.tell(inputs.Asked(world.open(), "lobby", Position(EPOCH, 0), Span(1, 0)))
    assert stranger.take() == []


def test_who_syncs_and_then_rejoins_while_a_page_is_on_its_way_has_no_false_gap(world: World, ann: Peer) -> None:
    world.publish("lobby", 300)
    world.sync(ann, "lobby", f"{EPOCH}:0")
    reading = world.reading[0]
    world.join(ann, "lobby", f"{EPOCH}:300")
    world.answer(reading)
    assert world.reading == []  # it has everything; there is nothing to be read
    world.publish("lobby", 300)
    assert ann.take("resync") == []
    world.check_rest()


def test_a_page_for_an_earlier_life_of_a_room_is_not_taken_for_another(world: World) -> None:
    world.commit("lobby", 100)
    world.news.clear()
    first = world.arrive("ann")
    world.join(first, "lobby", f"{EPOCH}:10")
    old = world.reading[0]
    world.lose(first, Ending.CLEAN)
    assert world.mind.room("lobby") is None
    world.answer(old)  # for nobody
    world.join(world.arrive("bob"), "lobby", f"{EPOCH}:50")
    world.mind.receive(inputs.Page("lobby", 10, old.items or ()), world.now)
    assert len(world.reading) == 1
    world.check_rest()


# ── the slow ──────────────────────────────────────────────────────────────────────────────────────


def test_who_is_full_is_sent_nothing_and_caught_up_when_it_drains(world: World, ann: Peer, bob: Peer) -> None:
    world.publish("lobby", 2)
    ann.take(), bob.take()
    world.fill(ann)
    world.publish("lobby", 5)
    assert ann.take() == []
    assert len(ids(bob)) == 5
    world.drain(ann)
    assert ids(ann) == [f"{EPOCH}:{offset}" for offset in range(3, 8)]
    world.publish("lobby")
    assert ids(ann) == [f"{EPOCH}:8"]


def test_who_was_full_for_long_reads_from_the_store_and_who_was_for_too_long_starts_afresh(
    world: World, ann: Peer, bob: Peer
) -> None:
    world.fill(ann)
    world.publish("lobby", 300)
    world.drain(ann)
    assert len(world.reading) == 1
    world.answer_all()
    assert len(ids(ann)) == 300
    world.fill(ann)
    world.publish("lobby", 300)
    world.trim("lobby")
    world.drain(ann)
    world.answer_all()
    assert types(ann) == ["resync"]
    world.check_rest()


def test_who_was_full_learns_afterwards_who_is_here(world: World, ann: Peer, bob: Peer) -> None:
    world.fill(ann)
    world.lose(bob, Ending.CLEAN)
    world.join(world.arrive("cy"), "lobby")
    assert ann.take() == []
    world.drain(ann)
    (presence,) = ann.take()
    assert presence == {
        "type": "presence",
        "room": "lobby",
        "users": [ANN, {"userId": "cy", "name": "Cy"}],
        "roomSize": 2,
    }


def test_who_was_full_learns_afterwards_who_is_typing(world: World, ann: Peer, bob: Peer) -> None:
    for active, told in ((True, "user_typing"), (False, "user_stopped_typing")):
        world.fill(ann)
        world.type(bob, "lobby", active=active)
        assert ann.take() == []
        world.drain(ann)
        assert types(ann) == ["presence", told]
    world.fill(ann)
    world.type(bob, "lobby")
    world.type(bob, "lobby", active=False)
    world.drain(ann)
    assert types(ann) == ["presence"]


def test_who_missed_nothing_while_full_is_told_nothing(world: World, ann: Peer) -> None:
    world.fill(ann)
    world.drain(ann)
    assert ann.take() == []


def test_who_is_full_is_still_answered(world: World, ann: Peer) -> None:
    world.publish("lobby", 5)
    ann.take()
    world.fill(ann)
    world.sync(ann, "lobby", f"{EPOCH}:2")
    assert ann.take() == []  # what it asks for waits
    world.sync(ann, "lobby", "0ther:2")
    world.join(ann, "kitchen")
    world.leave(ann, "kitchen")
    assert set(types(ann)) == {"resync", "joined", "left"} <= ANSWERS
    world.drain(ann)
    world.check_rest()


def test_whose_transport_is_full_before_they_say_who_they_are_is_full_afterwards(world: World, ann: Peer) -> None:
    world.publish("lobby", 5)
    for is_full in (True, False):
        peer = world.open()
        world.fill(peer)
        if not is_full:
            world.drain(peer)
        world.identify(peer, "bob")
        world.join(peer, "lobby", f"{EPOCH}:0")
        world.publish("lobby")
        assert bool(ids(peer)) is not is_full
        world.drain(peer)
    world.check_rest()


def test_catching_up_takes_one_write_at_a_time_and_stops_when_the_transport_is_full() -> None:
    world = World(high=50_000, low=10_000)
    ann = world.arrive("ann")
    world.join(ann, "lobby")
    world.publish("lobby", 1)
    world.fill(ann, 60_000)
    world.publish("lobby", 10, size=30_000)
    ann.take()
    world.drain(ann, 60_000)
    assert ids(ann) == [f"{EPOCH}:2", f"{EPOCH}:3"]  # that much fills it again
    assert ann.buffered < 2 * 64 * 1024
    for expected in (5, 7, 9, 11):
        world.drain(ann)
        assert ids(ann)[-1] == f"{EPOCH}:{expected}"
    world.check_rest()


def test_who_is_in_many_rooms_is_caught_up_in_one_after_the_other() -> None:
    """Else a hundred rooms would be a hundred writes before the transport could say that it is full."""
    world = World(high=64 * 1024, low=16 * 1024)
    ann = world.arrive("ann")
    rooms = [f"room-{number}" for number in range(20)]
    for room in rooms:
        world.join(ann, room)
    world.fill(ann, 70_000)
    for room in rooms:
        world.publish(room, 1, size=60_000)
    ann.take()
    world.drain(ann)
    assert ann.buffered < 2 * 70_000
    assert ids(ann)
    while ann.full:
        world.drain(ann)
    assert all(ann.rooms[room].position == 1 for room in rooms)
    world.check_rest()


def test_a_slow_member_slows_nobody(world: World, ann: Peer, bob: Peer) -> None:
    world.fill(ann)
    for _ in range(1000):
        world.publish("lobby")
    assert len(ids(bob)) == 1000
    assert world.reading == []  # and costs nothing while it is full


# ── news ──────────────────────────────────────────────────────────────────────────────────────────


def test_news_that_repeats_what_is_known_is_passed_over(world: World, ann: Peer) -> None:
    world.publish("lobby", 3)
    world.commit("lobby", 2)
    world.tell_news(repeat=3)
    assert ids(ann) == [f"{EPOCH}:{offset}" for offset in range(1, 6)]


def test_a_hint_that_was_lost_is_read_from_the_store(world: World, ann: Peer) -> None:
    world.publish("lobby", 3)
    ann.take()
    world.commit("lobby", 2)
    world.lose_news()
    world.tell_news()
    assert ids(ann) == []
    assert [one.after for one in world.reading] == [3]
    world.answer()
    assert ids(ann) == [f"{EPOCH}:4", f"{EPOCH}:5"]
    world.publish("lobby")
    assert ids(ann) == [f"{EPOCH}:6"]


def test_news_of_a_room_that_nobody_is_in_is_nobodys_business(world: World) -> None:
    world.commit("lobby")
    assert world.mind.receive(inputs.Published("lobby", world.log("lobby").items([1])), world.now) == []
    assert world.mind.receive(inputs.Page("lobby", 0, ()), world.now) == []
    assert list(world.mind.rooms()) == []


def test_what_becomes_of_a_connection_that_was_lost_meanwhile_is_nobodys_business(world: World, ann: Peer) -> None:
    world.lose(ann, Ending.CLEAN)
    position = Position(EPOCH, 0)
    for late in (
        inputs.Entered(ann, "lobby", None, Span(1, 0)),
        inputs.Asked(ann, "lobby", position, Span(1, 0)),
        inputs.Went(ann, "lobby"),
        inputs.Typed(ann, "lobby", True),
        inputs.Full(ann),
        inputs.Drained(ann),
        inputs.Lost(ann, Ending.DEAD),
    ):
        assert world.mind.receive(late, world.now) == []
    world.check_end()


def test_the_store_is_asked_only_where_the_room_does_not_know(world: World, ann: Peer) -> None:
    world.publish("lobby", 300)
    knows = world.mind.knows
    assert not knows("kitchen", None)
    assert knows("lobby", None)
    assert knows("lobby", Position("0ther", 1))
    assert knows("lobby", Position(EPOCH, 300))
    assert knows("lobby", Position(EPOCH, 44))  # 256 are ready
    assert not knows("lobby", Position(EPOCH, 43))
    assert not knows("lobby", Position(EPOCH, 301))
