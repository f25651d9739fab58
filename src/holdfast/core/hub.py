"""
The server's mind: what happened goes in, what the hands must do comes out.

It knows who is connected as whom, and who is in which room. It promises: within a room
everybody is sent the publications in one order, without holes or repeats, or is told
plainly to start afresh; a person is one entry; and what it forgets it forgets at once,
whether or not the socket is closed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import UNSET, Struct

from holdfast.core import inputs
from holdfast.core.absence import Absence
from holdfast.core.agenda import Agenda
from holdfast.core.effects import Attends, Close, Connection, Departs, Effect, Effects, Types
from holdfast.core.inputs import Elsewhere, Ending, Input
from holdfast.core.ready import Span
from holdfast.core.room import Room, Session
from holdfast.protocol.codec import Codec
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import Connected, Error, HeartbeatTerms, Joined, Left, Terms, User


class Rules(Struct, frozen=True):
    """What the mind is to go by. Seconds. With `shared`, there are other nodes, who are to know who is here."""

    heartbeat: HeartbeatTerms
    terms: Terms
    room_key: str
    presence_grace: float
    auth_deadline: float
    shared: bool = False


class Hub:
    """
    Everybody who is connected to this process, and every room that they are in.

    `epoch` names the store's log: positions of another epoch mean nothing.
    """

    def __init__(self, codec: Codec, epoch: str, rules: Rules) -> None:
        self.epoch = epoch
        self._rules = rules
        self._effects = Effects(codec)
        self._agenda = Agenda()
        self._strangers: dict[Connection, bool] = {}  # who have yet to say who they are: is the transport full?
        self._sessions: dict[Connection, Session] = {}
        self._by_id: dict[str, Session] = {}
        self._absence = Absence(self._agenda)
        self._departing: dict[tuple[str, str], str] = {}  # by room and session: who has left, if they are not elsewhere
        self._rooms: dict[str, Room] = {}
        self._unsettled: dict[Room, None] = {}  # in the order in which they are to be settled
        self._now = 0.0
        self._decide: dict[type[Any], Callable[[Any], None]] = {
            inputs.Opened: self._opened,
            inputs.Greeted: self._greeted,
            inputs.Identified: self._identified,
            inputs.Entered: self._entered,
            inputs.Went: self._went,
            inputs.Asked: self._asked,
            inputs.Typed: self._typed,
            inputs.Announced: self._announced,
            inputs.Published: self._published,
            inputs.Page: self._page,
            inputs.Full: self._full,
            inputs.Drained: self._drained,
            inputs.Settled: self._settled,
            inputs.Listened: self._listened,
            inputs.Unlistened: self._unlistened,
            inputs.Lost: self._lost,
            inputs.Expelled: self._expelled,
            inputs.Met: self._met,
            inputs.Taken: self._taken,
            inputs.Awaited: self._awaited,
            inputs.Departed: self._departed,
            inputs.TypedElsewhere: self._typed_elsewhere,
        }

    # Three verbs.

    def receive(self, input: Input, now: float) -> list[Effect]:
        """Decide what follows from `input`."""
        self._now = now
        self._decide[type(input)](input)
        return self._effects.take()

    def tick(self, now: float) -> list[Effect]:
        """Decide what follows from the time."""
        self._now = now
        for key in self._agenda.due(now):
            match key:
                case ("auth", connection):
                    self._turn_away(connection, CloseCode.AUTH_DEADLINE, "nobody said in time who this is")
                case ("expiry", connection):
                    self._turn_away(connection, CloseCode.UNAUTHORIZED, "the token has expired")
                case ("grace", str(session_id), str(room)):
                    self._grace_over(session_id, room)
                case ("typing", str(room), str(user_id)):
                    self._rooms[room].attendance.stop_typing(user_id)
                case ("presence", str(room)):
                    self._rooms[room].attendance.tell_changes(now)
        return self._effects.take()

    def deadline(self) -> float | None:
        """When `tick` is due next."""
        return self._agenda.next()

    # What it can answer.

    @property
    def settled(self) -> bool:
        """Whether nobody can be sent anything more right now; else it waits to be told `Settled`."""
        return not self._unsettled

    def session(self, connection: Connection) -> Session | None:
        """Return who a connection is."""
        return self._sessions.get(connection)

    def sessions(self) -> Iterable[Session]:
        """Return everybody who is connected, and has said who they are."""
        return self._sessions.values()

    def room(self, name: str) -> Room | None:
        """Return a room that somebody is in, follows, or may yet return to."""
        return self._rooms.get(name)

    def rooms(self) -> Iterable[Room]:
        """Return all of them."""
        return self._rooms.values()

    def is_in(self, session: str, room: str) -> bool:
        """Whether a session is in a room, or may return to it."""
        here = self._by_id.get(session)
        return (here is not None and room in here.rooms) or session in self._absence.room(room)

    def people(self, room: str) -> tuple[User, ...]:
        """Return who is in a room, or may return to it."""
        known = self._rooms.get(room)
        return tuple(self._absence.room(room).values()) if known is None else known.attendance.roster.users()

    def knows(self, room: str, since: Position | None) -> bool:
        """Whether a join or sync from `since` can be decided without asking the store."""
        known = self._rooms.get(room)
        if known is None:
            return False
        return since is None or since.epoch != self.epoch or known.has_ready(since.offset)

    # Who is there.

    def _opened(self, input: inputs.Opened) -> None:
        self._strangers[input.connection] = False
        self._agenda.set(("auth", input.connection), self._now + self._rules.auth_deadline)

    def _greeted(self, input: inputs.Greeted) -> None:
        self._agenda.cancel(("auth", input.connection))

    def _identified(self, input: inputs.Identified) -> None:
        connection, user = input.connection, input.user
        session = self._sessions.get(connection)
        if session is None:
            full = self._strangers.pop(connection, False)
            session = Session(connection, self._session_id(input), user, link=input.link, full=full)
            self._sessions[connection] = session
            self._agenda.cancel(("auth", connection))
        elif session.rooms and session.user.user_id != user.user_id:
            error = Error("this connection is in rooms as somebody else; leave them first", "conflict")
            self._effects.say(connection, error)
            return
        elif session.user.user_id != user.user_id or (input.replaces not in (None, session.id) and not session.rooms):
            del self._by_id[session.id]  # a session is only its user's
            session.id = self._session_id(input)
        self._by_id[session.id] = session
        session.user, session.link = user, input.link or session.link
        if input.expires is None:
            self._agenda.cancel(("expiry", connection))
        else:
            self._agenda.set(("expiry", connection), input.expires)
        token = UNSET if input.token is None else input.token
        rules = self._rules
        connected = Connected(
            session=session.id,
            user=user,
            heartbeat=rules.heartbeat,
            limits=rules.terms,
            room_key=rules.room_key,
            token=token,
        )
        self._effects.say(connection, connected)

    def _session_id(self, input: inputs.Identified) -> str:
        """Return the id that this client goes on with; a twin that still holds it is cut, unless that one is newer."""
        wanted = input.replaces
        if wanted is None:
            return input.session
        twin = self._by_id.get(wanted)
        known = self._absence.session(wanted) if twin is None else twin
        if known is not None and (known.user.user_id != input.user.user_id or _is_older(input.link, known.link)):
            return input.session
        if twin is not None:
            self._forget(twin.connection, Ending.UNCLEAN)
            self._effects.add(Close(twin.connection, CloseCode.TAKEN_OVER, "the session went on elsewhere"))
        return input.session if known is None else wanted

    def _turn_away(self, connection: Connection, code: CloseCode, why: str) -> None:
        self._effects.say(connection, Error(f"Unauthorized: {why}", "unauthorized"))
        self._forget(connection, Ending.CLEAN)
        self._effects.add(Close(connection, code, why))

    def _lost(self, input: inputs.Lost) -> None:
        self._forget(input.connection, input.ending)

    def _forget(self, connection: Connection, ending: Ending) -> None:
        self._agenda.cancel(("auth", connection))
        self._agenda.cancel(("expiry", connection))
        self._strangers.pop(connection, None)
        session = self._sessions.pop(connection, None)
        if session is None:
            return
        del self._by_id[session.id]
        grace = ending is Ending.UNCLEAN and self._rules.presence_grace > 0 and bool(session.rooms)
        if grace:
            until = self._now + self._rules.presence_grace
            self._absence.begin(session.id, session.user, session.link, session.rooms, until)
        for name in tuple(session.rooms):
            self._leave(self._rooms[name], session, Ending.UNCLEAN if grace else Ending.CLEAN)

    def _grace_over(self, session_id: str, name: str) -> None:
        user = self._absence.room(name)[session_id]
        self._absence.end(session_id, name)
        self._depart(name, session_id, user)

    def _depart(self, name: str, session_id: str, user: User) -> None:
        """Somebody has left; it is told when it is known whether they have gone on at another node."""
        self._departing[name, session_id] = user.user_id
        if self._rules.shared:
            self._share(Departs(name, session_id))
        else:
            self._departed(inputs.Departed(name, session_id))

    def _expelled(self, input: inputs.Expelled) -> None:
        for session in [one for one in self._sessions.values() if one.user.user_id == input.user_id]:
            if input.room is None:
                self._forget(session.connection, Ending.CLEAN)
                self._effects.add(Close(session.connection, CloseCode.FORBIDDEN, "you were asked to leave"))
            elif input.room in session.rooms:
                self._leave(self._rooms[input.room], session, Ending.CLEAN)
                self._effects.say(session.connection, Left(input.room, "removed"))
        for session_id, name in self._absence.user(input.user_id):
            if input.room in (None, name):
                self._grace_over(session_id, name)
        for room in tuple(self._rooms.values()):
            if input.room in (None, room.name):
                room.attendance.remove(input.user_id, self._now)
                self._close_if_idle(room)

    # Who is in which room.

    def _entered(self, input: inputs.Entered) -> None:
        session = self._sessions.get(input.connection)
        if session is None:
            return  # it was lost while it was asked whether it may
        room = self._open(input.room, input.span, input.elsewhere)
        refusal = None if input.since is None else room.refusal(input.since, input.span)
        recovered = input.since is not None and refusal is None
        offset = input.since.offset if input.since is not None and recovered else room.head
        member = session.rooms.get(room.name)
        arrived = False
        if member is None:
            self._departing.pop((room.name, session.id), None)
            self._absence.end(session.id, room.name)
            member = room.add(session, offset)
            arrived = room.attendance.enter(session.user, session.id)
            self._share(Attends(room.name, session.id, session.user))
        cursor = str(Position(self.epoch, offset))
        reason = UNSET if refusal is None else refusal
        roster = room.attendance.roster
        self._effects.say(session.connection, Joined(room.name, cursor, recovered, roster.shown(), len(roster), reason))
        room.send_from(member, offset)
        self._unsettle(room)
        if arrived:
            room.attendance.arrived(session.user, session.id, self._now)

    def _went(self, input: inputs.Went) -> None:
        session = self._sessions.get(input.connection)
        if session is not None and input.room in session.rooms:
            self._leave(self._rooms[input.room], session, Ending.CLEAN)
            self._effects.say(session.connection, Left(input.room))

    def _leave(self, room: Room, session: Session, ending: Ending) -> None:
        room.remove(session)
        if ending is Ending.MOVED:
            room.attendance.hand_over(session.user, session.id)
        else:
            room.attendance.break_off(session.user, session.id)
        if ending is Ending.CLEAN:
            self._depart(room.name, session.id, session.user)
        self._close_if_idle(room)

    def _open(self, name: str, span: Span | None, elsewhere: Elsewhere) -> Room:
        room = self._rooms.get(name)
        if room is None:
            assert span is not None, "a room that is not known needs its span from the store"
            room = self._rooms[name] = Room(name, self.epoch, span.head, self._effects, self._agenda)
            for session_id, user in elsewhere:
                room.attendance.roster.meet(user, session_id)
            for session_id, user in self._absence.room(name).items():
                room.attendance.roster.expect(user, session_id)
        return room

    def _close_if_idle(self, room: Room) -> None:
        if room.idle and self._rooms.pop(room.name, None) is not None:
            room.attendance.close()

    def _listened(self, input: inputs.Listened) -> None:
        self._open(input.room, input.span, input.elsewhere).listeners += 1

    def _unlistened(self, input: inputs.Unlistened) -> None:
        room = self._rooms[input.room]
        room.listeners -= 1
        self._close_if_idle(room)

    # What is in it for whom.

    def _asked(self, input: inputs.Asked) -> None:
        session = self._sessions.get(input.connection)
        if session is None or input.room not in session.rooms:
            return
        room, member = self._rooms[input.room], session.rooms[input.room]
        refusal = room.refusal(input.since, input.span)
        if refusal is None:
            room.sync(member, input.since.offset)
        else:
            room.resync(member, refusal)
        self._unsettle(room)

    def _published(self, input: inputs.Published) -> None:
        room = self._rooms.get(input.room)
        if room is not None:
            room.learn(input.items)
            self._unsettle(room)
            self._go_on()

    def _page(self, input: inputs.Page) -> None:
        room = self._rooms.get(input.room)
        if room is not None:
            room.take_page(input.after, input.items)
            self._unsettle(room)

    def _full(self, input: inputs.Full) -> None:
        if input.connection in self._strangers:
            self._strangers[input.connection] = True
        session = self._sessions.get(input.connection)
        if session is not None:
            session.full = True
            for name, member in session.rooms.items():
                self._rooms[name].pause(member)

    def _drained(self, input: inputs.Drained) -> None:
        if input.connection in self._strangers:
            self._strangers[input.connection] = False
        session = self._sessions.get(input.connection)
        if session is not None:
            session.full = False
            for name, member in session.rooms.items():
                self._rooms[name].resume(member)
                self._unsettle(self._rooms[name])
            self._go_on()

    def _settled(self, input: inputs.Settled) -> None:
        self._go_on()

    def _unsettle(self, room: Room) -> None:
        if not room.settled:
            self._unsettled.setdefault(room)

    def _go_on(self) -> None:
        """
        Settle one room after the other, until there is something to be carried out.

        No more than one at a time: a member of several is sent one write before its transport is looked at.
        """
        while self._unsettled and not self._effects:
            room = next(iter(self._unsettled))
            del self._unsettled[room]
            room.settle()
            self._unsettle(room)

    # What is said to those who are here now.

    def _announced(self, input: inputs.Announced) -> None:
        room = self._rooms.get(input.room)
        if room is not None:
            self._effects.deliver(room.present(input.but), (input.frame,))

    def _typed(self, input: inputs.Typed) -> None:
        session = self._sessions.get(input.connection)
        if session is None or input.room not in session.rooms:
            return
        attendance = self._rooms[input.room].attendance
        if input.active:
            told = attendance.type(session.user, session.id, self._now)
        else:
            told = attendance.stop_typing(session.user.user_id, session.id)
        if told:
            self._share(Types(input.room, session.id, session.user, input.active))

    # What other nodes have told.

    def _share(self, effect: Attends | Departs | Types) -> None:
        if self._rules.shared:
            self._effects.add(effect)

    def _met(self, input: inputs.Met) -> None:
        room = self._rooms.get(input.room)
        if room is None:
            return
        for session_id, user in input.came:
            if not self.is_in(session_id, room.name):
                room.attendance.meet(user, session_id, self._now)
        for session_id, user in input.went:
            room.attendance.part(user.user_id, session_id, self._now)
        self._close_if_idle(room)

    def _taken(self, input: inputs.Taken) -> None:
        session = self._by_id.get(input.session)
        absentee = self._absence.session(input.session)
        for name in input.rooms:
            room = self._rooms.get(name)
            if session is not None and name in session.rooms:
                self._leave(self._rooms[name], session, Ending.MOVED)
            elif absentee is not None and room is not None:
                room.attendance.hand_over(absentee.user, input.session)
                self._close_if_idle(room)
            self._absence.end(input.session, name)
        if session is not None:
            self._forget(session.connection, Ending.CLEAN)  # whatever was not taken
            self._effects.add(Close(session.connection, CloseCode.TAKEN_OVER, "the session went on elsewhere"))

    def _awaited(self, input: inputs.Awaited) -> None:
        if input.rooms:
            self._absence.begin(input.session, input.user, None, input.rooms, self._now + self._rules.presence_grace)
        for name in input.rooms:
            self._departing.pop((name, input.session), None)
            if name in self._rooms:
                self._rooms[name].attendance.expect(input.user, input.session, self._now)

    def _departed(self, input: inputs.Departed) -> None:
        user_id = self._departing.pop((input.room, input.session), None)
        room = self._rooms.get(input.room)
        if user_id is not None and room is not None:
            room.attendance.grace_over(user_id, input.session, self._now)
            self._close_if_idle(room)

    def _typed_elsewhere(self, input: inputs.TypedElsewhere) -> None:
        room = self._rooms.get(input.room)
        if room is None:
            return
        if input.active:
            room.attendance.type(input.user, input.session, self._now)
        else:
            room.attendance.stop_typing(input.user.user_id)


def _is_older(link: int | None, other: int | None) -> bool:
    """Whether a client had the one link before the other; of those that are not counted, the last to come is newer."""
    return link is not None and other is not None and link < other
