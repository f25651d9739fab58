"""Whatever breaks, and however the server is asked: what is told is what a WebSocket would have said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.core.reader import (
    BREAKS,
    HOLD_SECONDS,
    SHORT_SECONDS,
    Again,
    Answer,
    Ask,
    Barred,
    Broken,
    GiveUp,
    How,
    Reader,
    ReaderInput,
    Tell,
)
from holdfast.core.replica import Replica
from holdfast.core.replica import Resync as Afresh
from holdfast.errors import Malformed
from holdfast.protocol.cursor import MAX_ROOMS, decode_cursor, encode_cursor
from holdfast.protocol.messages import Error, Event, Join, Joined, Leave, Left, Resync, Sync, Synced

ROOMS = ("a", "b", "c")


class Sea:
    """A server with three logs, a client with three copies, and a reader between them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.epoch = "k"
        self.logs = dict.fromkeys(ROOMS, 0)
        self.trimmed = dict.fromkeys(ROOMS, 0)
        self.replicas = {room: Replica(room) for room in ROOMS}
        self.seen: dict[str, list[Any]] = {room: [] for room in ROOMS}
        self.reader = Reader()
        self.joined: set[str] = set()
        self.held: set[str] = set()  # rooms whose snapshot is being taken
        self.locked: set[str] = set()  # rooms that may not be read
        self.refused: set[str] = set()  # … and of which that was told, on this link
        self.asked: Ask | None = None
        self.stands: dict[str, int] = {}
        self.gaps: list[tuple[str, str]] = []

    def told(self, input: ReaderInput) -> None:
        self.carry(self.reader.receive(input, self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.carry(self.reader.tick(self.now))

    def carry(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Ask():
                    self.open(effect)
                case Tell(message):
                    self.heard(message)
                case GiveUp():
                    self.redial()

    def redial(self) -> None:
        self.asked = None
        self.reader.begin()
        self.refused.clear()
        for room in sorted(self.joined):
            self.told(self.replicas[room].join())
        self.wait(0)

    def restart(self, room: str) -> None:
        """A snapshot has arrived, of now."""
        self.held.discard(room)
        self.seen[room].append(("afresh", self.logs[room]))
        self.told(self.replicas[room].restart(f"{self.epoch}:{self.logs[room]}"))

    def join(self, room: str) -> None:
        self.joined.add(room)
        self.refused.discard(room)
        self.told(self.replicas[room].join())

    def heard(self, message: Any) -> None:
        match message:
            case Left():
                return
            case Error(code="forbidden", room=str(room)):
                assert room in self.locked
                assert room not in self.refused
                self.refused.add(room)
                return
            case Error(code="conflict", room=str(room)):
                assert room in self.refused
                return
        assert message.room not in self.refused
        before = self.replicas[message.room].cursor
        outcome = self.replicas[message.room].receive(message)
        for item in outcome.items:
            match item:
                case Event(id=str(id)):
                    self.seen[message.room].append(int(id.split(":")[1]))
                case Afresh(reason=reason, cursor=cursor):
                    if reason == "epoch":
                        assert before is not None
                        assert before.split(":")[0] != cursor.split(":")[0]
                    self.seen[message.room].append(("afresh", int(cursor.split(":")[1])))
        if outcome.ask is not None:
            self.told(outcome.ask)
            self.wait(0)

    # The server.

    def open(self, ask: Ask) -> None:
        self.asked = ask if ask.rooms else None
        cursor = None if ask.cursor is None else decode_cursor(ask.cursor)
        self.stands, self.gaps = {}, []
        for room in ask.rooms:
            position = None if cursor is None else cursor.position(room)
            self.stands[room] = self.logs[room]
            if position is None:
                continue
            if position.epoch != self.epoch:
                self.gaps.append((room, "epoch"))
            elif position.offset < self.trimmed[room]:
                self.gaps.append((room, "trimmed"))
            else:
                self.stands[room] = position.offset

    def answer(self) -> None:
        """Answer with some of what there is."""
        if self.asked is None:
            return
        assert not self.refused.intersection(self.asked.rooms)
        for room in self.asked.rooms:
            if room in self.locked:
                self.asked = None
                self.told(Error(f"you may not read {room}", "forbidden", room))
                return
        messages: list[Any] = []
        for room in self.asked.rooms:
            if self.stands[room] < self.trimmed[room]:
                self.gaps.append((room, "trimmed"))
                self.stands[room] = self.logs[room]
        if self.gaps:
            cursor = encode_cursor(self.epoch, self.stands)
            messages = [Resync(room, reason, cursor) for room, reason in self.gaps]
            self.gaps = []
        else:
            for room in self.asked.rooms:
                if self.stands[room] < self.logs[room]:
                    self.stands[room] += 1
                    messages.append(Event(room, "n", {}, f"{self.epoch}:{self.stands[room]}"))
                    break
        cursor = encode_cursor(self.epoch, self.stands)
        if self.asked.how is not How.STREAM:
            self.asked = None
        self.told(Answer(tuple(messages), cursor))


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(ROOMS)),
    st.tuples(st.just("trim"), st.sampled_from(ROOMS)),
    st.tuples(st.just("join"), st.sampled_from(ROOMS)),
    st.tuples(st.just("leave"), st.sampled_from(ROOMS)),
    st.tuples(st.sampled_from(("lock", "unlock")), st.sampled_from(ROOMS)),
    st.tuples(st.sampled_from(("hold", "restart")), st.sampled_from(ROOMS)),
    st.tuples(st.sampled_from(("answer", "answer", "answer", "barred", "broken", "again", "epoch")), st.none()),
    st.tuples(st.just("wait"), st.sampled_from((0.0, 1.0, 3.0, 20.0))),
)


#: A snapshot of the new log arrives while another room is still asked about in the old one.
BETWEEN_EPOCHS: list[tuple[str, Any]] = [
    *(("join", "a"), ("join", "b"), ("wait", 0.0), ("answer", None)),
    *(("epoch", None), ("restart", "b"), ("wait", 0.0), ("answer", None)),
]


@settings(max_examples=400)
@example(BETWEEN_EPOCHS)
@given(st.lists(STEPS, max_size=60))
def test_each_room_is_told_without_holes_and_without_repeats(steps: list[tuple[str, Any]]) -> None:
    sea = Sea()
    for step, what in steps:
        match step:
            case "publish":
                sea.logs[what] += 1
            case "trim":
                sea.trimmed[what] = sea.logs[what]
            case "lock":
                sea.locked.add(what)
            case "unlock":
                sea.locked.discard(what)
            case "join" if what not in sea.joined - sea.refused:
                sea.join(what)
            case "leave" if what in sea.joined:
                sea.joined.discard(what)
                sea.held.discard(what)
                sea.told(Leave(what))
                sea.refused.discard(what)
            case "hold" if what in sea.joined:
                sea.held.add(what)
                sea.replicas[what].hold()
            case "restart" if what in sea.joined:
                sea.restart(what)
            case "answer":
                sea.answer()
            case "barred" if sea.asked is not None:
                sea.told(Barred())
            case "broken" if sea.asked is not None:
                sea.told(Broken())
            case "again":
                sea.told(Again())
            case "epoch":
                sea.epoch += "k"
                if sea.asked is not None:
                    sea.told(Broken())
            case "wait":
                sea.wait(what)
    # The faults stop: everybody gets there.
    sea.locked.clear()
    for room in ROOMS:
        if room not in sea.joined - sea.refused:
            sea.join(room)
        if room in sea.held:
            sea.restart(room)
    for _ in range(100 + sum(sea.logs.values())):
        sea.wait(3.0 if sea.asked is None else 0.0)
        sea.answer()
    for room in ROOMS:
        assert sea.replicas[room].cursor == f"{sea.epoch}:{sea.logs[room]}"
        last = None
        for item in sea.seen[room]:
            if isinstance(item, tuple):
                last = item[1]
            else:
                assert last is not None
                assert item == last + 1
                last = item


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(ROOMS), st.integers(0, 3), min_size=1),
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from(ROOMS),
            st.sampled_from(("nothing", "unnumbered", "told before", "gap", "gap back")),
        ),
        min_size=10,
        max_size=40,
    ),
)
def test_whoever_answers_at_once_and_leads_no_further_is_asked_twice_in_three_seconds(
    stands: dict[str, int], answers: list[tuple[float, str, str]]
) -> None:
    reader, now, asked = Reader(), 0.0, []
    reader.how = How.HELD
    for room, offset in stands.items():
        reader.receive(Join(room, f"k:{offset}"), now)
    effects = reader.tick(now)
    for seconds, room, kind in answers:
        if not any(isinstance(effect, Ask) for effect in effects):
            deadline = reader.deadline()
            assert deadline is not None
            now = max(now, deadline)
            effects = reader.tick(now)
        asked.append(now)
        now += seconds
        stands[room] = stands.get(room, 0) - (kind == "gap back" and stands.get(room, 0) > 0)
        cursor = encode_cursor("k", stands)
        messages: dict[str, tuple[Any, ...]] = {
            "nothing": (),
            "unnumbered": (Event(room, "said", {}),),
            "told before": (Event(room, "said", {}, f"k:{stands[room]}"),),
        }
        effects = reader.receive(Answer(messages.get(kind, (Resync(room, "trimmed", cursor),)), cursor), now)
    assert all(after >= before + SHORT_SECONDS for before, after in zip(asked[1:], asked[3:], strict=False))


def test_whoever_answers_at_once_with_what_is_new_is_asked_at_once() -> None:
    reader = Reader()
    reader.how = How.HELD
    reader.receive(Join("a", "k:0"), 0)
    reader.tick(0)
    for number in range(10):
        events = (Event("a", "called", {}), Event("a", "said", {}, f"k:{number + 1}"))
        *_, ask = reader.receive(Answer(events, f"k:a={number + 1}"), 0)
        assert ask == Ask(How.HELD, ("a",), f"k:a={number + 1}", HOLD_SECONDS)


def test_in_one_turn_everything_is_asked_for_at_once() -> None:
    reader = Reader()
    for room in ROOMS:
        assert reader.receive(Join(room), 0) == []
    assert reader.tick(0) == [Ask(How.STREAM, ROOMS, None, 0.0)]


def test_a_client_without_a_websocket_is_in_as_many_rooms_as_a_cursor_can_name() -> None:
    reader = Reader()
    for number in range(MAX_ROOMS):
        assert reader.receive(Join(f"room-{number}"), 0) == []
    (told,) = reader.receive(Join("one-more"), 0)
    assert isinstance(told, Tell)
    assert isinstance(told.message, Error)
    assert (told.message.room, told.message.code) == ("one-more", "too_many")
    assert reader.receive(Join("room-0", "k:1"), 0) == []


@pytest.mark.parametrize(("how", "then"), [(How.STREAM, How.HELD), (How.HELD, How.SHORT), (How.SHORT, How.SHORT)])
def test_what_breaks_again_and_again_is_given_up(how: How, then: How) -> None:
    reader = Reader()
    reader.how = how
    for _ in range(BREAKS):
        reader.begin()
        reader.receive(Join("a"), 0)
        reader.tick(0)
        assert reader.receive(Broken(), 0) == [GiveUp("the answer broke off")]
    assert reader.how is then


def test_a_join_is_answered_before_what_follows_it() -> None:
    reader = Reader()
    reader.how = How.SHORT
    reader.receive(Join("a", "k:1"), 0)
    reader.tick(0)
    event = Event("a", "said", {}, "k:2")
    assert reader.receive(Answer((event,), "k:a=2"), 0) == [Tell(Joined("a", "k:1", True, (), 0)), Tell(event)]


def test_a_sync_is_answered_with_synced() -> None:
    reader = Reader()
    reader.receive(Join("a"), 0)
    reader.tick(0)
    reader.receive(Answer((), "k:a=2"), 0)
    reader.receive(Sync("a", "k:1"), 0)
    reader.tick(0)
    assert reader.receive(Answer((), "k:a=1"), 0) == [Tell(Synced("a", "k:1", 0))]


def test_what_answers_an_older_question_is_not_for_who_has_asked_anew() -> None:
    reader = Reader()
    for room in ("a", "b"):
        reader.receive(Join(room, "k:1"), 0)
    reader.tick(0)
    reader.receive(Sync("a", "k:5"), 0)  # a snapshot of then
    events = tuple(Event(room, "said", {}, "k:2") for room in ("a", "b"))
    assert reader.receive(Answer(events, "k:a=2;b=2"), 0) == [Tell(Joined("b", "k:1", True, (), 0)), Tell(events[1])]
    assert reader.tick(0) == [Ask(How.STREAM, ("a", "b"), "k:a=5;b=2", 0.0)]
    assert reader.receive(Answer((), "k:a=5;b=2"), 0) == [Tell(Joined("a", "k:5", True, (), 0))]


def test_a_join_that_a_snapshot_overtakes_is_answered_as_a_join() -> None:
    reader = Reader()
    reader.receive(Join("a"), 0)
    reader.tick(0)
    reader.receive(Sync("a", "k:1"), 0)
    reader.tick(0)
    assert reader.receive(Answer((), "k:a=1"), 0) == [Tell(Joined("a", "k:1", True, (), 0))]


@pytest.mark.parametrize("cursor", ["k:b=1", "k:", "nonsense", "", "k:" + "9" * 400])
def test_an_answer_that_does_not_say_where_a_room_stands_is_no_answer(cursor: str) -> None:
    reader = Reader()
    reader.receive(Join("a"), 0)
    reader.tick(0)
    with pytest.raises(Malformed):
        reader.receive(Answer((), cursor), 0)
