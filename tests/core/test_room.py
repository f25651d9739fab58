"""A room knows who has seen what, and writes no more at once than one chunk."""

from __future__ import annotations

from typing import Any

import pytest

from core.small_world import frame_of
from holdfast.core.agenda import Agenda
from holdfast.core.effects import Deliver, Effect, Effects, Read
from holdfast.core.ready import Item, Span
from holdfast.core.room import Room, Session
from holdfast.protocol.codec import Codec
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import User

EPOCH = "k3f9"
codec = Codec()


def item(offset: int, size: int = 100) -> Item:
    return Item(offset, frame_of(size))


def items(*offsets: int, size: int = 100) -> tuple[Item, ...]:
    return tuple(item(offset, size) for offset in offsets)


class Stage:
    """A room with its head at 10, and what it wants done."""

    def __init__(self, head: int = 10) -> None:
        self.effects = Effects(codec)
        self.room = Room("lobby", EPOCH, head, self.effects, Agenda())

    def enter(self, name: str, offset: int) -> Session:
        session = Session(name, f"session-{name}", User(name, name.title()))
        member = self.room.add(session, offset)
        self.room.attendance.enter(session.user, session.id)
        self.room.send_from(member, offset)
        return session

    def member(self, session: Session) -> Any:
        return session.rooms["lobby"]

    def does(self) -> list[Effect]:
        return self.effects.take()

    def says(self) -> list[str]:
        """Return what is written, delivery by delivery: what it says it is, or how many publications it has."""
        return [
            effect.frames[0].type if effect.frames[0].text.startswith(b"{") else f"{len(effect.frames)} news"
            for effect in self.does()
            if isinstance(effect, Deliver)
        ]

    def sends(self) -> list[tuple[tuple[Any, ...], int]]:
        """Return to whom how many frames are sent."""
        return [(effect.to, len(effect.frames)) for effect in self.does() if isinstance(effect, Deliver)]


@pytest.fixture
def stage() -> Stage:
    return Stage()


# ── where one can go on ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("offset", "span", "reason"),
    [
        (10, None, None),
        (9, Span(5, 10), None),
        (4, Span(5, 10), None),
        (3, Span(5, 10), "trimmed"),
        (0, Span(1, 10), None),
        (10, Span(11, 10), None),  # everything was trimmed, and they have seen it all
        (9, Span(11, 10), "trimmed"),
        (11, Span(1, 10), "ahead"),
        (11, Span(1, 11), None),  # the news is on its way
        (12, Span(1, 11), "ahead"),
    ],
)
def test_why_a_reader_cannot_simply_go_on(offset: int, span: Span | None, reason: str | None) -> None:
    assert Stage().room.refusal(Position(EPOCH, offset), span) == reason
    assert Stage().room.refusal(Position("0ther", offset), span) == "epoch"


def test_what_is_ready_lets_one_go_on_though_the_store_has_forgotten_it(stage: Stage) -> None:
    stage.room.learn(items(11, 12, 13))
    assert stage.room.refusal(Position(EPOCH, 10), None) is None
    assert stage.room.refusal(Position(EPOCH, 10), Span(14, 13)) is None
    assert stage.room.refusal(Position(EPOCH, 9), Span(14, 13)) == "trimmed"


def test_what_live_members_are_still_to_be_sent_is_known_already(stage: Stage) -> None:
    stage.enter("ann", 10)
    stage.room.learn(items(11, 12, 13, size=40_000))
    assert (stage.room.head, stage.room.newest) == (11, 13)
    assert not stage.room.settled
    assert stage.room.has_ready(13)
    assert not stage.room.has_ready(14)
    assert stage.room.refusal(Position(EPOCH, 13), None) is None
    assert stage.room.refusal(Position(EPOCH, 14), None) == "ahead"
    assert stage.room.position == Position(EPOCH, 11)


# ── live, or catching up ──────────────────────────────────────────────────────────────────────────


def test_who_stands_at_the_head_is_live_at_once(stage: Stage) -> None:
    ann = stage.enter("ann", 10)
    assert stage.does() == []
    assert stage.member(ann).live
    assert stage.room.settled


def test_all_live_members_share_one_delivery(stage: Stage) -> None:
    for name in ("ann", "bob", "cy"):
        stage.enter(name, 10)
    stage.room.learn(items(11, 12))
    assert stage.sends() == [(("ann", "bob", "cy"), 2)]


def test_what_does_not_fit_one_write_follows_in_the_next(stage: Stage) -> None:
    ann = stage.enter("ann", 10)
    stage.room.learn(items(11, 12, 13, size=30_000))
    assert stage.sends() == [(("ann",), 2)]
    stage.room.settle()
    assert stage.sends() == [(("ann",), 1)]
    assert stage.room.settled
    assert stage.member(ann).live


def test_catching_up_from_what_is_ready_is_one_write_at_a_time_and_ends_live(stage: Stage) -> None:
    stage.room.learn(items(11, 12, 13, 14, 15, size=30_000))
    while not stage.room.settled:
        stage.room.settle()
    ann = stage.enter("ann", 10)
    assert (stage.sends(), stage.member(ann).live) == ([(("ann",), 2)], False)
    stage.room.settle()
    assert (stage.sends(), stage.member(ann).live) == ([(("ann",), 2)], False)
    stage.room.settle()
    assert (stage.sends(), stage.member(ann).live) == ([(("ann",), 1)], True)
    assert stage.room.settled


def test_who_is_full_stands_where_they_were_last_written_to(stage: Stage) -> None:
    ann = stage.enter("ann", 10)
    stage.room.learn(items(11, 12))
    ann.full = True
    stage.room.pause(stage.member(ann))
    stage.does()
    stage.room.learn(items(13, 14))
    assert stage.sends() == []
    ann.full = False
    stage.room.resume(stage.member(ann))
    stage.room.settle()
    assert stage.sends() == [(("ann",), 2)]
    assert stage.member(ann).live


def test_who_knows_more_than_the_news_waits_for_it(stage: Stage) -> None:
    ann, bob = stage.enter("ann", 12), stage.enter("bob", 13)
    stage.room.learn(items(11, 12))
    assert stage.sends() == []
    assert (stage.member(ann).live, stage.member(bob).live) == (True, False)
    stage.room.learn(items(13, 14))
    assert sorted(stage.sends()) == [(("ann",), 2), (("bob",), 1)]
    assert stage.member(bob).live


def test_who_is_early_and_asks_twice_waits_once(stage: Stage) -> None:
    ann = stage.enter("ann", 12)
    stage.room.sync(stage.member(ann), 12)
    stage.room.learn(items(11, 12, 13))
    assert stage.says() == ["1 news", "synced"]


def test_a_member_that_goes_is_in_no_queue_any_more(stage: Stage) -> None:
    reading, early, live = stage.enter("reading", 3), stage.enter("early", 12), stage.enter("live", 10)
    stage.does()
    for session in (reading, early, live):
        stage.room.remove(session)
        stage.room.attendance.break_off(session.user, session.id)
        stage.room.attendance.grace_over(session.user.user_id, session.id, 0.0)
        assert session.rooms == {}
    assert stage.room.idle
    stage.does()
    stage.room.take_page(3, items(4, 5))
    stage.room.learn(items(11, 12, 13))
    assert stage.sends() == []


def test_who_goes_in_the_middle_of_what_they_are_sent_is_sent_nothing_more(stage: Stage) -> None:
    stage.room.learn(items(11, 12, size=40_000))
    stage.room.settle()
    ann = stage.enter("ann", 10)
    assert stage.sends() == [(("ann",), 1)]
    stage.room.remove(ann)
    stage.room.settle()
    stage.room.learn(items(13))
    assert stage.sends() == []


def test_a_room_is_idle_when_nobody_is_in_it_listens_or_may_return(stage: Stage) -> None:
    assert stage.room.idle
    ann = stage.enter("ann", 10)
    assert not stage.room.idle
    stage.room.remove(ann)
    stage.room.attendance.break_off(ann.user, ann.id)
    assert not stage.room.idle
    stage.room.attendance.grace_over("ann", ann.id, 5.0)
    assert stage.room.idle
    stage.room.listeners += 1
    assert not stage.room.idle


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_crowd_that_comes_one_after_the_other_reads_the_log_once() -> None:
    stage = Stage(head=10)
    stage.enter("ann", 6)
    assert Read("lobby", 6) in stage.does()
    stage.room.take_page(6, items(7, 8, 9, 10))
    stage.does()
    for number in range(5):
        stage.enter(f"user-{number}", 6 + number)
    effects = stage.does()
    assert not any(isinstance(effect, Read) for effect in effects)
    assert [len(effect.frames) for effect in effects if isinstance(effect, Deliver)] == [4, 3, 2, 1]


def test_one_page_serves_everybody_it_reaches_and_one_is_read_at_a_time(stage: Stage) -> None:
    stage.enter("ann", 2)
    assert stage.does() == [Read("lobby", 2)]
    stage.enter("bob", 4)
    stage.enter("cy", 8)
    assert stage.does() == []
    stage.room.take_page(2, items(3, 4, 5, 6))
    *delivered, read = stage.does()
    assert [(effect.to, len(effect.frames)) for effect in delivered if isinstance(effect, Deliver)] == [
        (("ann",), 4),
        (("bob",), 2),
    ]
    assert read == Read("lobby", 8)
    stage.room.settle()
    assert stage.does() == []  # they wait for the page that is under way
    stage.room.take_page(8, items(9, 10))
    assert [effect for effect in stage.does() if isinstance(effect, Read)] == [Read("lobby", 6)]


def test_who_stands_before_the_page_or_behind_it_waits_for_the_next(stage: Stage) -> None:
    stage.enter("ann", 5)
    stage.enter("bob", 4)
    stage.enter("cy", 7)
    stage.does()
    stage.room.take_page(5, items(6, 7))
    assert stage.sends() == [(("ann",), 2)]
    stage.room.take_page(4, items(5, 6))
    assert stage.sends() == [(("bob",), 2)]
    stage.room.take_page(7, items(8, 9, 10))
    assert stage.sends() == [(("cy",), 3)]


def test_a_page_that_is_larger_than_a_chunk_is_written_in_two(stage: Stage) -> None:
    stage.enter("ann", 7)
    stage.does()
    stage.room.take_page(7, items(8, 9, size=40_000))  # and is far from the head
    assert stage.sends() == [(("ann",), 1)]
    stage.room.settle()
    assert stage.does() == [Read("lobby", 8)]


def test_a_page_with_a_hole_before_it_means_that_the_log_was_trimmed(stage: Stage) -> None:
    ann, bob = stage.enter("ann", 2), stage.enter("bob", 6)
    stage.does()
    stage.room.take_page(2, items(6, 7, 8))
    assert stage.says() == ["resync", "2 news"]
    assert stage.member(ann).live
    assert stage.member(bob).offset == 8


def test_an_empty_page_means_that_everything_was_trimmed(stage: Stage) -> None:
    ann = stage.enter("ann", 2)
    stage.does()
    stage.room.take_page(2, ())
    (said,) = stage.does()
    assert isinstance(said, Deliver)
    assert said.frames[0].text == b'{"type":"resync","room":"lobby","reason":"trimmed","cursor":"k3f9:10"}'
    assert stage.member(ann).live


def test_who_is_full_when_the_page_arrives_is_not_sent_it_and_asks_again_later(stage: Stage) -> None:
    ann = stage.enter("ann", 2)
    stage.does()
    ann.full = True
    stage.room.take_page(2, items(3, 4))
    assert stage.does() == []
    ann.full = False
    stage.room.resume(stage.member(ann))
    stage.room.settle()
    assert stage.does() == [Read("lobby", 2)]


def test_who_drains_before_the_page_arrives_takes_it(stage: Stage) -> None:
    ann = stage.enter("ann", 2)
    stage.does()
    ann.full = True
    stage.room.pause(stage.member(ann))
    ann.full = False
    stage.room.resume(stage.member(ann))
    stage.room.settle()
    assert stage.does() == []
    stage.room.take_page(2, items(3, 4))
    assert stage.sends() == [(("ann",), 2)]


def test_a_page_that_nobody_asked_for_is_no_page(stage: Stage) -> None:
    stage.enter("ann", 2)
    stage.does()
    stage.room.take_page(5, items(6, 7))
    stage.room.take_page(0, items(1, 2, 3))
    assert stage.does() == []
    stage.room.take_page(2, items(3, 4))
    assert stage.sends() == [(("ann",), 2)]


def test_a_page_may_be_newer_than_the_news(stage: Stage) -> None:
    ann = stage.enter("ann", 8)
    stage.does()
    stage.room.take_page(8, items(9, 10, 11, 12))
    assert stage.sends() == [(("ann",), 4)]
    stage.room.settle()
    stage.room.learn(items(11, 12, 13))
    assert stage.sends() == [(("ann",), 1)]
    assert stage.member(ann).live


# ── news with holes ───────────────────────────────────────────────────────────────────────────────


def test_after_a_hole_in_the_news_the_live_read_what_is_missing(stage: Stage) -> None:
    ann, bob = stage.enter("ann", 10), stage.enter("bob", 10)
    stage.room.learn(items(11))
    stage.does()
    stage.room.learn(items(14))
    assert stage.does() == [Read("lobby", 11)]
    stage.room.take_page(11, items(12, 13, 14))
    assert stage.sends() == [(("ann", "bob"), 3)]
    stage.room.settle()
    assert stage.member(ann).live
    assert stage.member(bob).live
    assert stage.room.refusal(Position(EPOCH, 10), None) == "trimmed"  # not ready; the store must be asked


def test_news_before_a_hole_that_was_not_yet_sent_is_read_again(stage: Stage) -> None:
    stage.enter("ann", 10)
    stage.room.learn(items(11, 12, size=40_000))
    assert stage.sends() == [(("ann",), 1)]
    stage.room.learn(items(20))
    assert stage.does() == [Read("lobby", 11)]
    assert (stage.room.head, stage.room.settled) == (20, True)
    assert len(stage.room.after(19) or ()) == 1
