"""
Who in a room has seen what, and what must each be sent next?

A member is *live*, which means that its position is the room's head, so that a
publication is simply handed to it; or it is *catching up* from its own position:
from the newest publications, which the room keeps ready, or a page at a time from the
store. The last step is synchronous, so no publication can fall between the two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from holdfast.core.agenda import Agenda
from holdfast.core.attendance import Attendance
from holdfast.core.effects import Connection, Effects, Read
from holdfast.core.ready import Item, Ready, Span, chunk
from holdfast.protocol.codec import Frame
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import Resync, Synced, User


class Session:
    """One client as the server knows it, while it is connected."""

    __slots__ = ("connection", "full", "id", "link", "rooms", "user")

    def __init__(
        self, connection: Connection, id: str, user: User, *, link: int | None = None, full: bool = False
    ) -> None:
        self.connection = connection
        self.id = id
        self.user = user
        self.link = link  # the number of this connection, if its client counts them
        self.rooms: dict[str, Member] = {}
        self.full = full  # its transport takes no more for now


class Member:
    """One session in one room. `offset` means something only while it is catching up."""

    __slots__ = ("live", "offset", "reading", "session", "sync_count", "typing")

    def __init__(self, session: Session, offset: int) -> None:
        self.session = session
        self.offset = offset
        self.live = False
        self.reading = False  # waits for a page
        self.sync_count: int | None = None  # sent so far of an answer to `sync`
        self.typing: dict[str, User] | None = None  # who was, when it was told of people last; None: it is told all


class Room:
    """One room while anybody is in it, follows it, or may yet return to it."""

    __slots__ = (
        "_audience", "_backlog", "_early", "_effects", "_live", "_reading", "_ready", "_unsettled", "_waiting",
        "attendance", "epoch", "head", "listeners", "members", "name",
    )  # fmt: skip

    def __init__(self, name: str, epoch: str, head: int, effects: Effects, agenda: Agenda) -> None:
        self.name = name
        self.epoch = epoch
        self.head = head  # the newest publication that the live members were sent
        self.attendance = Attendance(name, self.present, effects, agenda)
        self.members: dict[Connection, Member] = {}
        self.listeners = 0
        self._effects = effects
        self._ready = Ready(head)
        self._backlog: deque[Item] = deque()  # news that the live members are still to be sent
        self._live: dict[Connection, Member] = {}
        self._audience: tuple[Connection, ...] | None = None
        self._waiting: dict[Member, None] = {}  # for pages, in the order they came
        self._reading: int | None = None  # after which offset the store is being read
        self._early: dict[Member, None] = {}  # who know of more than the head, and wait for the news
        self._unsettled: dict[Member, None] = {}  # who can be sent more as soon as the last write is carried out

    # What it knows.

    @property
    def newest(self) -> int:
        """The newest publication that it has heard of."""
        return self._backlog[-1].offset if self._backlog else self.head

    @property
    def position(self) -> Position:
        """Where its live members stand."""
        return Position(self.epoch, self.head)

    @property
    def idle(self) -> bool:
        """Whether nobody would notice if it were forgotten."""
        return not self.members and not self.listeners and self.attendance.roster.is_elsewhere

    @property
    def settled(self) -> bool:
        """Whether nobody in it can be sent anything more right now."""
        return not self._unsettled and not self._backlog

    def has_ready(self, offset: int) -> bool:
        """Whether what follows `offset` is known here, without asking the store."""
        return self._ready.first - 1 <= offset <= self.newest

    def after(self, offset: int) -> tuple[Frame, ...] | None:
        """Return the chunk of ready frames that follows `offset`; None: ask the store."""
        return self._ready.after(offset)

    def refusal(self, since: Position, span: Span | None) -> str | None:
        """Return why a reader who stands at `since` cannot simply go on; None: it can."""
        if since.epoch != self.epoch:
            return "epoch"
        floor, head = self._ready.first, self.newest
        if span is not None:
            floor, head = min(floor, span.floor), max(head, span.head)
        if since.offset > head:
            return "ahead"
        return "trimmed" if since.offset + 1 < floor else None

    def present(self, but: str | None = None) -> tuple[Connection, ...]:
        """Return the connections that can take a word now, but not the session `but`; the others will be told."""
        to = []
        for connection, member in self.members.items():
            if member.session.full:
                member.typing = self.attendance.typing() if member.typing is None else member.typing
            elif member.session.id != but:
                to.append(connection)
        return tuple(to)

    # Who is in it.

    def add(self, session: Session, offset: int) -> Member:
        """Let a session in, catching up from `offset`."""
        member = session.rooms[self.name] = self.members[session.connection] = Member(session, offset)
        return member

    def remove(self, session: Session) -> None:
        """Let it out."""
        del session.rooms[self.name]
        member = self.members.pop(session.connection)
        self._set_back(member, member.offset)
        self._early.pop(member, None)
        self._unsettled.pop(member, None)

    # Live, or catching up.

    def send_from(self, member: Member, offset: int) -> None:
        """Send a member everything after `offset`, then keep it live."""
        self._set_back(member, offset)
        self._advance(member)

    def sync(self, member: Member, offset: int) -> None:
        """Send a member everything after `offset` (again), and say when that is done."""
        member.sync_count = 0
        self.send_from(member, offset)

    def resync(self, member: Member, reason: str) -> None:
        """Tell a member that what it has cannot be continued, and let it go on from the head."""
        self._effects.say(member.session.connection, Resync(self.name, reason, str(self.position)))
        member.sync_count = None
        self.send_from(member, self.head)

    def pause(self, member: Member) -> None:
        """Its transport is full: it stands where it was last written to."""
        if member.live:
            self._set_back(member, self.head)

    def resume(self, member: Member) -> None:
        """Its transport takes more again."""
        if member.typing is not None:
            told, member.typing = member.typing, None
            self._effects.tell((member.session.connection,), *self.attendance.now(told))
        self._unsettled[member] = None

    def settle(self) -> None:
        """Take everybody who can be sent more one write further."""
        if self._backlog:
            self._flush()
        unsettled, self._unsettled = self._unsettled, {}
        for member in unsettled:
            self._advance(member)

    def _set_back(self, member: Member, offset: int) -> None:
        member.offset = offset
        if member.reading:
            member.reading = False
            del self._waiting[member]
        if member.live:
            member.live = False
            del self._live[member.session.connection]
            self._audience = None

    def _advance(self, member: Member) -> None:
        """Take a member one write further; what remains is done when that one has been carried out."""
        if member.live or member.reading or member.session.full:
            return
        if member.offset > self.head:
            self._early[member] = None
            return
        frames = self._ready.after(member.offset)
        if frames is None:
            member.reading = True
            self._waiting[member] = None
            self._read()
            return
        self._send((member,), frames)
        if member.offset < self.head:
            self._unsettled[member] = None
        else:
            self._turn_live(member)

    def _turn_live(self, member: Member) -> None:
        """It has seen everything up to the head; from now on it is simply handed what comes."""
        member.live = True
        self._live[member.session.connection] = member
        self._audience = None
        if member.sync_count is not None:
            synced = Synced(self.name, str(self.position), member.sync_count)
            member.sync_count = None
            self._effects.say(member.session.connection, synced)

    def _send(self, members: tuple[Member, ...], frames: tuple[Frame, ...]) -> None:
        self._effects.deliver(tuple(member.session.connection for member in members), frames)
        for member in members:
            member.offset += len(frames)
            if member.sync_count is not None:
                member.sync_count += len(frames)

    # Pages from the store: one read at a time, and whoever it reaches takes it.

    def _read(self) -> None:
        if self._waiting and self._reading is None:
            self._reading = next(iter(self._waiting)).offset
            self._effects.add(Read(self.name, self._reading))

    def take_page(self, after: int, items: tuple[Item, ...]) -> None:
        """Take in what the store has after `after`: nothing, or publications without a hole."""
        if after != self._reading:
            return  # it was asked for in an earlier life of this room
        self._reading = None
        self._ready.reach_back(items)
        end = items[-1].offset if items else after + 1
        served: dict[int, list[Member]] = {}
        for member in tuple(self._waiting):
            if member.session.full or after <= member.offset < end:
                member.reading = False
                del self._waiting[member]
                if not member.session.full:
                    served.setdefault(member.offset, []).append(member)
        for offset, members in served.items():
            following = [item for item in items if item.offset > offset]
            if following and following[0].offset == offset + 1:
                self._send(tuple(members), chunk(item.frame for item in following))
                self._unsettled.update(dict.fromkeys(members))
            else:
                for member in members:
                    self.resync(member, "trimmed")
        self._read()

    # News.

    def learn(self, items: Iterable[Item]) -> None:
        """
        Take in news.

        News may repeat what is known (it was read from the store meanwhile), and may have a hole
        (a hint was lost): then those who were live read what is missing from the store.
        """
        fallen: list[Member] = []
        for item in items:
            if item.offset <= self.newest:
                continue
            if item.offset > self.newest + 1:
                fallen += self._live.values()
                for member in tuple(self._live.values()):
                    self._set_back(member, self.head)
                self._backlog.clear()
                self.head = item.offset - 1
                self._ready = Ready(self.head)
            self._backlog.append(item)
        for member in fallen:
            self._advance(member)
        self._flush()

    def _flush(self) -> None:
        """Hand one write's worth of news to the live members."""
        frames = chunk(item.frame for item in self._backlog)
        for _ in frames:
            item = self._backlog.popleft()
            self.head = item.offset
            self._ready.append(item.frame)
        if self._live:
            if self._audience is None:
                self._audience = tuple(self._live)
            self._effects.deliver(self._audience, frames)
        early, self._early = self._early, {}
        for member in early:
            self._advance(member)
