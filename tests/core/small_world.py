"""
A hub in miniature: the real mind, and around it a store, transports and clients as simple as can be.

Each client believes what it is told and checks it: publications come one by one, without hole or repeat,
unless it is told to start afresh. What the hands owe the mind is done as `server/hands.py` does it.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from msgspec import Struct

from holdfast.core import attendance as attendance_module
from holdfast.core import inputs
from holdfast.core import ready as ready_module
from holdfast.core.effects import Close, Deliver, Effect, Read
from holdfast.core.hub import Hub, Rules
from holdfast.core.inputs import Ending
from holdfast.core.ready import Item, Span
from holdfast.core.room import Room
from holdfast.protocol.codec import Codec, Frame
from holdfast.protocol.cursor import Position, decode_position
from holdfast.protocol.messages import HeartbeatTerms, Terms, User

EPOCH = "k3f9"
GRACE = 5.0
AUTH_DEADLINE = 10.0

#: What may be said to a connection whose transport is full: answers to what it asked, never what others do.
ANSWERS = {"connected", "joined", "left", "resync", "error"}

codec = Codec()


@contextmanager
def tight_limits() -> Iterator[None]:
    """Make every limit so small that a short story runs into all of them."""
    with (
        patch.multiple(ready_module, READY_FRAMES=5, READY_BYTES=1500, CHUNK_BYTES=300),
        patch.multiple(attendance_module, BUSY_CHANGES=3),
    ):
        yield


def frame_of(size: int) -> Frame:
    """Return a frame of so many bytes on the wire."""
    return Frame(b"x" * (size - (2 if size < 128 else 4 if size < 65540 else 10)))


class Log:
    """What the store has of one room."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.floor = 1
        self.frames: list[Frame] = []  # all that there ever were

    @property
    def head(self) -> int:
        return len(self.frames)

    @property
    def span(self) -> Span:
        return Span(self.floor, self.head)

    def commit(self, size: int) -> int:
        offset = self.head + 1
        body = json.dumps({"n": offset, "text": "x" * size}).encode()
        self.frames.append(codec.encode_event(self.name, "news", body, Position(EPOCH, offset)))
        return offset

    def items(self, offsets: Sequence[int]) -> tuple[Item, ...]:
        return tuple(Item(offset, self.frames[offset - 1]) for offset in offsets)

    def page(self, after: int) -> tuple[Item, ...]:
        taken: list[int] = []
        size = 0
        for offset in range(max(after + 1, self.floor), self.head + 1):
            size += len(self.frames[offset - 1].wire)
            if taken and (size > ready_module.CHUNK_BYTES or len(taken) == 4):
                break
            taken.append(offset)
        return self.items(taken)


class View:
    """What a client knows of a room that it is in."""

    def __init__(self, position: int, users: dict[str, str], size: int) -> None:
        self.position = position
        self.users = users
        self.size = size
        self.typing: set[str] = set()
        self.syncing: int | None = None  # publications that came since it asked


class Expected(Struct):
    """What a client has asked for, and what the store had at that time."""

    since: Position | None
    head: int


class Peer:
    """One connection: a transport, and the client at its other end."""

    def __init__(self, world: World, name: str, user: User | None = None) -> None:
        self.world = world
        self.name = name
        self.user = user
        self.session = ""
        self.rooms: dict[str, View] = {}
        self.heard: list[dict[str, object]] = []
        self.closed: int | None = None
        self.gone = False
        self.buffered = 0
        self.full = False
        self.told_full = False  # the mind knows
        self.expected: dict[str, Expected] = {}

    def __repr__(self) -> str:
        return self.name

    def take(self, *types: str) -> list[dict[str, object]]:
        """Return what was heard since the last time, and forget it; of some types only, if they are named."""
        heard, self.heard = self.heard, []
        return [message for message in heard if not types or message["type"] in types]

    def write(self, frames: tuple[Frame, ...], written: Counter[Peer]) -> None:
        """Take what the mind wants it sent."""
        assert not self.gone, f"{self} is written to after its end"
        messages = [json.loads(frame.text) for frame in frames]
        size = sum(len(frame.wire) for frame in frames)
        if any("id" in message for message in messages):
            assert not self.told_full, f"{self} is full and is sent publications"
            written[self] += 1
            assert written[self] == 1, f"{self} is sent more than one write before its transport was looked at"
            assert size <= ready_module.CHUNK_BYTES or len(frames) == 1, "a write is larger than a chunk"
        elif self.told_full:
            assert {message["type"] for message in messages} <= ANSWERS
        self.add_to_buffer(size)
        for message, frame in zip(messages, frames, strict=True):
            self.heard.append(message)
            self._read(message, frame)

    def add_to_buffer(self, size: int) -> None:
        self.buffered += size
        if self.buffered > self.world.high and not self.full:
            self.full = True
            self.world.filled.append(self)

    def _read(self, message: dict[str, object], frame: Frame) -> None:
        room = str(message.get("room", ""))
        log = self.world.log(room) if room else None
        match message:
            case {"type": "connected", "session": str(session)}:
                self.session = session
            case {"type": "joined", "cursor": str(cursor), "users": list(users), "roomSize": int(size)}:
                offset = decode_position(cursor, room).offset
                self.world.check_joined(self, room, message)
                syncing = self.rooms[room].syncing if room in self.rooms else None
                view = View(offset, {user["userId"]: user["name"] for user in users}, size)
                view.syncing = syncing
                self.rooms[room] = view
            case {"type": "left"}:
                del self.rooms[room]
            case {"type": "resync", "reason": str(reason), "cursor": str(cursor)}:
                assert log is not None
                view = self.rooms[room]
                self.world.check_resync(self, log, view, reason)
                view.position = decode_position(cursor, room).offset
                assert view.position <= log.head
                view.syncing = None
            case {"type": "synced", "cursor": str(cursor), "count": int(count)}:
                view = self.rooms[room]
                assert (cursor, count) == (f"{EPOCH}:{view.position}", view.syncing)
                view.syncing = None
                self.world.seen["synced"] += 1
            case {"type": "news", "id": str(id)}:
                assert log is not None
                view = self.rooms[room]
                view.position += 1
                assert id == f"{EPOCH}:{view.position}", f"{self} has a hole or a repeat in {room}"
                assert frame.text == log.frames[view.position - 1].text
                if view.syncing is not None:
                    view.syncing += 1
            case {"type": "presence", "users": list(users), "roomSize": int(size)}:
                self.rooms[room].users = {user["userId"]: user["name"] for user in users}
                self.rooms[room].size = size
            case {"type": "presence", "joined": list(joined), "left": list(left), "roomSize": int(size)}:
                view = self.rooms[room]
                assert joined or left
                view.users |= {user["userId"]: user["name"] for user in joined}
                for user in left:
                    view.users.pop(user["userId"], None)
                view.size = size
                self.world.seen["busy presence"] += 1
            case {"type": "user_joined", "userId": str(user_id), "name": str(name), "roomSize": int(size)}:
                view = self.rooms[room]
                assert user_id not in view.users, f"{user_id} came to {room} twice"
                view.users[user_id] = name
                view.size = size
            case {"type": "user_left", "userId": str(user_id), "roomSize": int(size)}:
                view = self.rooms[room]
                assert user_id in view.users, f"{user_id} left {room} twice"
                del view.users[user_id]
                view.size = size
            case {"type": "user_typing", "userId": str(user_id)}:
                self.rooms[room].typing.add(user_id)
            case {"type": "user_stopped_typing", "userId": str(user_id)}:
                self.rooms[room].typing.discard(user_id)
            case {"type": "error" | "wave"}:
                pass
            case _:
                raise AssertionError(f"nobody understands {message}")


class Asking:
    """A join or a sync that waits for the store."""

    def __init__(self, peer: Peer, room: str, since: Position | None, head: int, *, sync: bool) -> None:
        self.peer = peer
        self.room = room
        self.since = since
        self.head = head
        self.sync = sync
        self.span: Span | None = None
        self.newest = 0  # that there was news of meanwhile


class Reading:
    """A page that the mind wants."""

    def __init__(self, room: str, after: int, instance: Room | None) -> None:
        self.room = room
        self.after = after
        self.instance = instance
        self.items: tuple[Item, ...] | None = None


class World:
    """The mind, and everything around it."""

    def __init__(self, *, high: float = float("inf"), low: int = 0, grace: float = GRACE) -> None:
        rules = Rules(HeartbeatTerms(30.0, 10.0), Terms(65536, 50.0, 100), "room", grace, AUTH_DEADLINE)
        self.mind = Hub(codec, EPOCH, rules)
        self.now = 1000.0
        self.high = high
        self.low = low
        self.grace = grace
        self.logs: dict[str, Log] = {}
        self.peers: list[Peer] = []  # that are connected
        self.news: deque[tuple[str, int]] = deque()  # committed, and not yet told
        self.asking: list[Asking] = []
        self.reading: list[Reading] = []
        self.filled: list[Peer] = []
        self.seen: Counter[str] = Counter()  # what has happened, so that a test can say that it was about something
        self.here: dict[str, dict[tuple[str, str], float]] = {}  # by room: (user, session) -> until when
        self.owners: dict[str, str] = {}  # of sessions
        self.last_seen: dict[tuple[str, str], int] = {}  # by user and room: where they stood when they were lost
        self._closing: list[Close] = []
        self._carrying = False
        self._names = 0

    # The store.

    def log(self, room: str) -> Log:
        return self.logs.setdefault(room, Log(room))

    def commit(self, room: str, count: int = 1, size: int = 0) -> None:
        """Publish, without anybody hearing of it yet."""
        for _ in range(count):
            self.news.append((room, self.log(room).commit(size)))

    def tell_news(self, count: int | None = None, *, repeat: int = 0) -> None:
        """Give the news, or some of it, as one batch; with some that were told already."""
        groups: dict[str, list[int]] = {}
        for _ in range(len(self.news) if count is None else min(count, len(self.news))):
            room, offset = self.news.popleft()
            groups.setdefault(room, []).append(offset)
        for room, offsets in groups.items():
            for asking in self.asking:
                if asking.room == room:
                    asking.newest = offsets[-1]
            if self.mind.room(room) is not None:
                again = range(max(1, offsets[0] - repeat), offsets[0])
                self.tell(inputs.Published(room, self.log(room).items([*again, *offsets])))

    def lose_news(self) -> None:
        """A hint is lost: nobody will hear of the next publication by itself."""
        if self.news:
            self.news.popleft()

    def publish(self, room: str, count: int = 1, size: int = 0) -> None:
        """Publish, and give the news."""
        self.commit(room, count, size)
        self.tell_news()

    def trim(self, room: str, count: int | None = None) -> None:
        """Forget the oldest publications; all of them, if no number is given."""
        log = self.log(room)
        log.floor = log.head + 1 if count is None else min(log.head + 1, log.floor + count)

    # People.

    def open(self) -> Peer:
        """Somebody connects, and does not yet say who it is."""
        self._names += 1
        peer = Peer(self, f"peer-{self._names}")
        self.peers.append(peer)
        self.tell(inputs.Opened(peer))
        return peer

    def identify(
        self,
        peer: Peer,
        user: str,
        *,
        name: str = "",
        replaces: str | None = None,
        link: int | None = None,
        expires: float | None = None,
    ) -> None:
        """… and now it does."""
        self._names += 1
        twin = next((one for one in self.peers if one.session == replaces and one is not peer), None)
        before, rooms = peer.session, set(peer.rooms)
        session = f"session-{self._names}"
        self.tell(inputs.Identified(peer, session, User(user, name or user.title()), None, expires, replaces, link))
        if rooms and peer.user is not None and peer.user.user_id != user:
            assert peer.session == before
            return  # it was refused
        peer.user = User(user, name or user.title())
        assert self.owners.setdefault(peer.session, user) == user, "a session of somebody else was taken over"
        if twin is not None and peer.session == replaces:
            assert twin.closed == 4009
            assert twin not in self.peers
            self.seen["takeover"] += 1

    def arrive(self, user: str, *, replaces: str | None = None) -> Peer:
        """Somebody connects and says who they are."""
        peer = self.open()
        self.identify(peer, user, replaces=replaces)
        return peer

    def lose(self, peer: Peer, ending: Ending = Ending.UNCLEAN) -> None:
        """A connection ends."""
        self._forget(peer, ending)
        self.tell(inputs.Lost(peer, ending))

    def _forget(self, peer: Peer, ending: Ending) -> None:
        peer.gone = True
        if peer in self.peers:
            self.peers.remove(peer)
        for room in self.here.values():
            for user, session in tuple(room):
                if session == peer.session and room[user, session] == float("inf"):
                    if ending is Ending.UNCLEAN and self.grace:
                        room[user, session] = self.now + self.grace
                    else:
                        del room[user, session]
        if peer.user is not None:
            for name, view in peer.rooms.items():
                self.last_seen[peer.user.user_id, name] = view.position

    def expel(self, user: str, room: str | None = None) -> None:
        for name, people in self.here.items():
            if room in (None, name):
                for key in [key for key in people if key[0] == user]:
                    del people[key]
        self.tell(inputs.Expelled(user, room))

    # What they ask for.

    def join(self, peer: Peer, room: str, since: str | Position | None = None) -> None:
        """Join, and wait for the answer."""
        self.begin(peer, room, since, sync=False)
        self.finish_asking(peer)

    def sync(self, peer: Peer, room: str, since: str | Position) -> None:
        self.begin(peer, room, since, sync=True)
        self.finish_asking(peer)

    def begin(self, peer: Peer, room: str, since: str | Position | None, *, sync: bool) -> None:
        """Ask to join or sync; where the store must be asked, the answer comes later."""
        if isinstance(since, str):
            since = decode_position(since, room)
        asking = Asking(peer, room, since, self.log(room).head, sync=sync)
        if self.mind.knows(room, since):
            self._ask(asking, None)
        else:
            self.asking.append(asking)

    def look_up(self, asking: Asking) -> None:
        """The store says what it has of the room."""
        if asking.span is None:
            asking.span = self.log(asking.room).span

    def finish_asking(self, peer: Peer | None = None) -> None:
        """The oldest question is answered; or all of one peer."""
        for asking in [one for one in self.asking if peer in (None, one.peer)]:
            self.look_up(asking)
            self.asking.remove(asking)
            assert asking.span is not None
            self._ask(asking, Span(asking.span.floor, max(asking.span.head, asking.newest)))
            if peer is None:
                return

    def _ask(self, asking: Asking, span: Span | None) -> None:
        peer, room, since = asking.peer, asking.room, asking.since
        peer.expected[room] = Expected(since, asking.head)
        if asking.sync:
            assert since is not None
            view = peer.rooms.get(room)
            if view is not None:
                view.syncing = 0
                if since.epoch == EPOCH:
                    view.position = since.offset
            self.tell(inputs.Asked(peer, room, since, span))
        else:
            if not peer.gone and peer.session:
                assert peer.user is not None
                self.here.setdefault(room, {})[peer.user.user_id, peer.session] = float("inf")
            self.tell(inputs.Entered(peer, room, since, span))
            assert peer.gone or not peer.session or room in peer.rooms, "a join was not answered in the same step"

    def leave(self, peer: Peer, room: str) -> None:
        if peer.user is not None and room in peer.rooms:
            del self.here[room][peer.user.user_id, peer.session]
        self.tell(inputs.Went(peer, room))

    def type(self, peer: Peer, room: str, *, active: bool = True) -> None:
        self.tell(inputs.Typed(peer, room, active))

    def announce(self, room: str, but: str | None = None) -> None:
        self.tell(inputs.Announced(room, codec.encode_event(room, "wave", b"{}"), but))

    def listen(self, room: str) -> None:
        span = self.log(room).span
        known = self.mind.room(room)
        self.tell(inputs.Listened(room, span if known is None else Span(span.floor, max(span.head, known.newest))))

    def unlisten(self, room: str) -> None:
        self.tell(inputs.Unlistened(room))

    # Transports.

    def fill(self, peer: Peer, size: int | None = None) -> None:
        """Something that is not the mind's business is written to a transport, and may fill it."""
        if size is None:
            peer.full = True
            self.filled.append(peer)
        else:
            peer.add_to_buffer(size)
        filled, self.filled = self.filled, []
        for one in filled:
            one.told_full = True
            self.tell(inputs.Full(one))

    def drain(self, peer: Peer, size: int | None = None) -> None:
        """The other side takes something."""
        peer.buffered = 0 if size is None else max(0, peer.buffered - size)
        if peer.full and peer.buffered <= self.low:
            peer.full = peer.told_full = False
            self.seen["drained"] += 1
            self.tell(inputs.Drained(peer))

    # Pages.

    def read(self, reading: Reading) -> None:
        """The store reads a page."""
        if reading.items is None:
            reading.items = self.log(reading.room).page(reading.after)

    def answer(self, reading: Reading | None = None) -> None:
        """A page arrives."""
        if reading is None:
            reading = self.reading[0]
        self.read(reading)
        self.reading.remove(reading)
        assert reading.items is not None
        self.seen["page"] += 1
        if reading.instance is not self.mind.room(reading.room):
            for other in self.reading:  # a page that an earlier life of the room wanted is as good
                if (other.room, other.after) == (reading.room, reading.after):
                    other.instance = None
        self.tell(inputs.Page(reading.room, reading.after, reading.items))

    def answer_all(self) -> None:
        while self.reading:
            self.answer()

    # Time.

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while (when := self.mind.deadline()) is not None and when <= until:
            self.now = max(self.now, when)
            self._forget_the_graces()
            self._carry(self.mind.tick(self.now))
        self.now = until
        self._forget_the_graces()

    def _forget_the_graces(self) -> None:
        for people in self.here.values():
            for key in [key for key, until in people.items() if until <= self.now]:
                del people[key]

    # What the hands do.

    def tell(self, input: inputs.Input) -> None:
        self._carry(self.mind.receive(input, self.now))

    def _carry(self, effects: list[Effect]) -> None:
        assert not self._carrying
        self._carrying = True
        while effects:
            written: Counter[Peer] = Counter()
            for effect in effects:
                self._do(effect, written)
            effects = self._settle()
        self._carrying = False
        closing, self._closing = self._closing, []
        for close in closing:
            self.tell(inputs.Lost(close.connection, Ending.CLEAN))
        assert self.mind.settled, "somebody waits for a word that nobody will say"

    def _settle(self) -> list[Effect]:
        effects: list[Effect] = []
        filled, self.filled = self.filled, []
        for peer in filled:
            if peer.full and not peer.gone:
                peer.told_full = True
                self.seen["full"] += 1
                effects += self.mind.receive(inputs.Full(peer), self.now)
        if not effects and not self.mind.settled:
            effects = self.mind.receive(inputs.Settled(), self.now)
        return effects

    def _do(self, effect: Effect, written: Counter[Peer]) -> None:
        match effect:
            case Deliver(to, frames):
                assert to
                assert frames
                for peer in to:
                    assert isinstance(peer, Peer)
                    peer.write(frames, written)
            case Read(room, after):
                instance = self.mind.room(room)
                assert all(one.instance is not instance for one in self.reading), f"two reads at once for {room}"
                self.reading.append(Reading(room, after, instance))
            case Close(peer, code, _):
                assert isinstance(peer, Peer)
                peer.closed = code
                self._forget(peer, Ending.UNCLEAN if code == 4009 else Ending.CLEAN)
                self._closing.append(effect)

    # What must be true.

    def check_joined(self, peer: Peer, room: str, message: dict[str, object]) -> None:
        """A join is recovered whenever the store has what follows, and only then; else it says why not."""
        asked, log = peer.expected[room], self.log(room)
        since, recovered, reason = asked.since, message["recovered"], message.get("reason")
        position = decode_position(str(message["cursor"]), room)
        assert position.epoch == EPOCH
        if since is None:
            assert (recovered, reason) == (False, None)
        elif since.epoch != EPOCH:
            assert (recovered, reason) == (False, "epoch")
        elif since.offset > log.head:
            assert (recovered, reason) == (False, "ahead")
        elif log.floor - 1 <= since.offset <= asked.head:
            assert (recovered, reason) == (True, None)
        else:
            assert (recovered, reason) in ((True, None), (False, "trimmed"), (False, "ahead"))
        assert not recovered or position == since
        self.seen[f"joined {reason or ('resumed' if recovered else 'fresh')}"] += 1
        instance = self.mind.room(room)
        assert instance is not None
        if position.offset > instance.head:
            self.seen["early"] += 1

    def check_resync(self, peer: Peer, log: Log, view: View, reason: str) -> None:
        """Nobody is told to start afresh who could have gone on."""
        asked = peer.expected[log.name]
        self.seen[f"resync {reason}"] += 1
        match reason:
            case "trimmed":
                assert view.position + 1 < log.floor, "the log has what follows"
            case "epoch":
                assert asked.since is not None
                assert asked.since.epoch != EPOCH
            case "ahead":
                assert asked.since is not None
                assert asked.since.offset > asked.head
            case _:
                raise AssertionError(f"{reason} is no reason")

    def check_presence(self) -> None:
        """Who is shown in a room is who is in it, or may yet return."""
        for name in {*self.here, *(room.name for room in self.mind.rooms())}:
            room = self.mind.room(name)
            shown = [] if room is None else [user.user_id for user in room.attendance.roster.users()]
            assert len(shown) == len(set(shown))
            assert set(shown) == {user for user, _ in self.here.get(name, {})}, f"presence in {name} is wrong"

    def come_to_rest(self) -> None:
        """Everything that is under way arrives."""
        while self.asking or self.news or self.reading or any(peer.full for peer in self.peers):
            while self.asking:
                self.finish_asking()
            self.tell_news()
            for peer in tuple(self.peers):
                self.drain(peer)
            self.answer_all()

    def check_rest(self) -> None:
        """At rest, everybody is at the head and knows who is here."""
        self.come_to_rest()
        for name in self.logs:
            self.publish(name)  # whoever missed a hint learns of it now
        self.come_to_rest()
        self.pass_time(3.0)  # a busy room has told what there was to tell
        self.come_to_rest()
        self.check_presence()
        for peer in self.peers:
            for name, view in peer.rooms.items():
                assert view.position == self.log(name).head, f"{peer} has not everything of {name}"
                assert view.syncing is None, f"{peer} was never told that its sync is complete"
                room = self.mind.room(name)
                assert room is not None
                roster = room.attendance.roster
                assert room.members[peer].live
                assert view.users == {user.user_id: user.name for user in roster.users()}, f"{peer} in {name}"
                assert view.size == len(roster)
            session = self.mind.session(peer)
            assert set(peer.rooms) == (set() if session is None else set(session.rooms))

    def check_end(self) -> None:
        """When all have gone and the grace is over, nothing is left."""
        for peer in tuple(self.peers):
            self.lose(peer)
        self.come_to_rest()
        self.pass_time(self.grace)
        mind = self.mind
        assert list(mind.sessions()) == []
        assert [room.name for room in mind.rooms()] == []
        assert mind.deadline() is None
        assert mind.settled
        assert (mind._strangers, mind._by_id, len(mind._agenda)) == ({}, {}, 0)
        assert (mind._absence._sessions, mind._absence._rooms) == ({}, {})
