"""
Who is in a room, who is typing, and who must be told?

In a calm room each coming and going is told at once. In a busy one (more than 20 a
second, or more than come to 2,000 messages) it is told once a second what has changed, so
that a crowd that arrives costs the room a message a second and not one for each pair of people.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from holdfast.core.agenda import Agenda
from holdfast.core.effects import Connection, Effects
from holdfast.core.roster import USERS_SHOWN, Roster
from holdfast.protocol.messages import (
    Presence,
    PresenceChanges,
    ServerMessage,
    User,
    UserJoined,
    UserLeft,
    UserStoppedTyping,
    UserTyping,
)

#: Comings and goings in one second above which they are told once a second; in a large room those that would be so many
#: messages, for each is told to everybody.
BUSY_CHANGES = 20
BUSY_MESSAGES = 2_000
BUSY_PERIOD = 1.0
#: A person who said `typing` and then nothing is taken to have stopped.
TYPING_LAPSE = 5.0

#: A person is told to begin typing so often in so many seconds; each time costs the room a message for everybody.
TYPING_STARTS, TYPING_PERIOD = 10, 10.0

#: The connections in the room that can take a word now, without the session named.
Present = Callable[[str | None], tuple[Connection, ...]]


class Attendance:
    """The people of one room, and what the others are told of them."""

    __slots__ = (
        "_agenda", "_changes", "_effects", "_left", "_present", "_room", "_starts", "_typing", "_untold", "_was_large",
        "roster",
    )  # fmt: skip

    def __init__(self, room: str, present: Present, effects: Effects, agenda: Agenda) -> None:
        self._room = room
        self._present = present
        self._effects = effects
        self._agenda = agenda
        self.roster = Roster()
        self._typing: dict[str, tuple[User, str, str]] = {}  # … in which session, and in which they have begun
        self._starts: dict[str, deque[float]] = {}  # when a person began to type
        self._untold: dict[str, User] = {}  # who came or went, and the room has not been told
        self._changes: deque[float] = deque(maxlen=BUSY_CHANGES + 1)
        self._was_large = False  # more were here than are named, since all were told who is …
        self._left = 0  # … and so many of them have gone

    def everybody(self) -> Presence:
        """Return who is here, as a message."""
        return Presence(self._room, self.roster.shown(), len(self.roster))

    def typing(self) -> dict[str, User]:
        """Return who is typing, by id."""
        return {user_id: user for user_id, (user, _, _) in self._typing.items()}

    def now(self, typing: dict[str, User]) -> list[ServerMessage]:
        """Return who is here, and what else is another than for somebody who knows only that these were typing."""
        now = self.typing()
        stopped = [UserStoppedTyping(self._room, id, user.name) for id, user in typing.items() if id not in now]
        began = [UserTyping(self._room, id, user.name) for id, user in now.items() if id not in typing]
        return [self.everybody(), *stopped, *began]

    def enter(self, user: User, session: str) -> bool:
        """Note that a session is here; return whether its person has just arrived (see `arrived`)."""
        return self.roster.enter(user, session)

    def arrived(self, user: User, session: str, now: float) -> None:
        """Tell the others that a person has come."""
        self._changed(user, UserJoined(self._room, user.user_id, user.name, len(self.roster)), session, now)

    def break_off(self, user: User, session: str) -> None:
        """Note that a session ended; its person is shown until its grace is over."""
        self.roster.break_off(user.user_id, session)
        if self._typing.get(user.user_id, (user, None))[1] == session:
            self.stop_typing(user.user_id)

    def expect(self, user: User, session: str, now: float) -> None:
        """Note that a session may yet come, and tell the others if its person has come with it."""
        if self.roster.expect(user, session):
            self.arrived(user, session, now)

    def meet(self, user: User, session: str, now: float) -> None:
        """Note that a session is on another node, and tell the others if its person has come with it."""
        if self.roster.meet(user, session):
            self.arrived(user, session, now)

    def hand_over(self, user: User, session: str) -> None:
        """Note that a session goes on at another node."""
        self.roster.meet(user, session)
        if self._typing.get(user.user_id, (user, None))[1] == session:
            self.stop_typing(user.user_id)

    def part(self, user_id: str, session: str, now: float) -> None:
        """Note that a session is on no other node any more, and tell the others if its person has left with it."""
        if self._typing.get(user_id, (None, None))[1] == session:
            self.stop_typing(user_id)
        self._departed(self.roster.part(user_id, session), now)

    def grace_over(self, user_id: str, session: str, now: float) -> None:
        """Note that a session has not come back, and tell the others if its person has left with it."""
        self._departed(self.roster.grace_over(user_id, session), now)

    def remove(self, user_id: str, now: float) -> None:
        """Forget a person, wherever else they are."""
        self.stop_typing(user_id)
        self._departed(self.roster.remove(user_id), now)

    def close(self) -> None:
        """Call off what was to be told."""
        self._agenda.cancel(("presence", self._room))
        for user_id in self._typing:
            self._agenda.cancel(("typing", self._room, user_id))
        del self._present  # it is the room's, which has this: both would wait for the collector of cycles

    def _departed(self, user: User | None, now: float) -> None:
        if user is not None:
            self.stop_typing(user.user_id)
            self._changed(user, UserLeft(self._room, user.user_id, user.name, len(self.roster)), None, now)

    def _changed(self, user: User, message: UserJoined | UserLeft, but: str | None, now: float) -> None:
        self._changes.append(now)
        key = ("presence", self._room)
        calm = max(1, min(BUSY_CHANGES, BUSY_MESSAGES // max(1, len(self.roster))))
        if len(self._changes) > calm and self._changes[-calm - 1] > now - BUSY_PERIOD and key not in self._agenda:
            self._agenda.set(key, now + BUSY_PERIOD)
        self._was_large = self._was_large or len(self.roster) > USERS_SHOWN
        self._left += isinstance(message, UserLeft)
        if key in self._agenda:
            self._untold[user.user_id] = user
        elif len(self.roster) <= USERS_SHOWN or self._are_few_known():
            self._effects.tell(self._present(but), message, self._everybody_anew())
        else:
            self._effects.tell(self._present(but), message)

    def _are_few_known(self) -> bool:
        """Whether those who were told a hundred names, and then the changes, may know far fewer than could be named."""
        return self._was_large and (len(self.roster) <= USERS_SHOWN or self._left >= USERS_SHOWN // 2)

    def _everybody_anew(self) -> Presence:
        self._was_large = len(self.roster) > USERS_SHOWN
        self._left = 0
        return self.everybody()

    def tell_changes(self, now: float) -> None:
        """
        Tell the room what a busy second has brought.

        Also of those who came and went again: somebody may have joined in between, and seen them here.
        """
        untold, self._untold = self._untold, {}
        if len(untold) > USERS_SHOWN or (untold and self._are_few_known()):
            self._effects.tell(self._present(None), self._everybody_anew())  # shorter, or truer
        elif untold:
            came = tuple(user for user in untold.values() if user.user_id in self.roster)
            went = tuple(user for user in untold.values() if user.user_id not in self.roster)
            self._effects.tell(self._present(None), PresenceChanges(self._room, came, went, len(self.roster)))
        if untold:
            self._agenda.set(("presence", self._room), now + BUSY_PERIOD)

    def type(self, user: User, session: str, now: float) -> bool:
        """Note that a person is typing, and tell the others if that is new; not too often so, then it returns False."""
        if user.user_id not in self._typing and not self._may_start(user.user_id, now):
            return False
        self._agenda.set(("typing", self._room, user.user_id), now + TYPING_LAPSE)
        if user.user_id not in self._typing:
            self._effects.tell(self._present(session), UserTyping(self._room, user.user_id, user.name))
        _, _, first = self._typing.get(user.user_id, (user, session, session))
        self._typing[user.user_id] = user, session, first
        return True

    def _may_start(self, user_id: str, now: float) -> bool:
        starts = self._starts.setdefault(user_id, deque(maxlen=TYPING_STARTS))
        if len(starts) == TYPING_STARTS and starts[0] > now - TYPING_PERIOD:
            return False
        starts.append(now)
        return True

    def stop_typing(self, user_id: str, session: str | None = None) -> bool:
        """Note that a person has stopped, and tell the others; return whether they did not know."""
        is_new = user_id in self._typing
        if is_new:
            user, _, first = self._typing[user_id]
            but = session if session == first else None  # another tab was told that they type
            self._effects.tell(self._present(but), UserStoppedTyping(self._room, user_id, user.name))
            del self._typing[user_id]
            self._agenda.cancel(("typing", self._room, user_id))
        if user_id not in self.roster:  # they have left, or typed elsewhere and had left
            self._starts.pop(user_id, None)
        return is_new
