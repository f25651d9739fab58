"""
What becomes of a client's rooms while links come and go?

They are joined on every link, and take in what is said of them there; commands wait for one.
What a room has to say goes to whatever carries now; what it asks for while nothing does, it asks
for again when it is joined.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from holdfast.client.room import Room, Snapshot
from holdfast.core import outbox
from holdfast.core.backoff import Backoff
from holdfast.core.replica import Outcome, Resync
from holdfast.errors import Forbidden, HoldfastError, Malformed, OutcomeUnknown, Unavailable, refusal_called
from holdfast.protocol import messages

if TYPE_CHECKING:
    from holdfast.client.road import Road

logger = logging.getLogger("holdfast.client")

#: Returns a room's state and the cursor at which it is true: the cursor first, then the data, or both at once.
TakeSnapshot = Callable[[str], Awaitable[tuple[Any, str]]]
#: What the rooms say themselves.
Said = messages.Join | messages.Leave | messages.Sync
#: What they are told.
Told = messages.RoomMessage | messages.Reply | messages.Error

#: Errors that pass: what was asked for is asked for again.
_PASSING = {"internal", "unavailable"}
#: … of which none says that a command was not, and will not be, carried out.
_UNDECIDED = {*_PASSING, "too_many", "too_slow"}


class Rooms:
    """
    The rooms of one client.

    Args:
        say: Says what the rooms have to say themselves.
        send: Says what an application has to say, in a room.
        spawn: Runs something until it is done, or the client is closed.
        wake: The next `deadline` may be an earlier one.
        snapshot: The application's, or None.

    Attributes:
        rate: So many commands a second the server takes.
    """

    def __init__(
        self,
        *,
        say: Callable[[Said], None],
        send: Callable[[str, dict[str, Any]], None],
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        wake: Callable[[], None],
        snapshot: TakeSnapshot | None,
    ) -> None:
        self.rate = 1.0
        self._say, self._send, self._spawn, self._wake = say, send, spawn, wake
        self._snapshot = snapshot
        self._rooms: dict[str, Room] = {}
        self._road: Road | None = None  # on which they are joined; None: there is no link
        self._over: dict[str, None] = {}  # on this link, and we have not said so: more may come of what was before
        self._lefts = Counter[str]()  # that are to come, where we have: all up to the last of them is of before
        self._commands: dict[str, Room] = {}  # sent, and not answered
        self._why: Callable[[], HoldfastError] | None = None  # there will be no link any more

    # For a room.

    def enter(self, room: Room) -> None:
        """Keep it joined."""
        if room.name in self._rooms:
            raise ValueError(f"this client is in {room.name} already")
        if self._why is not None:
            raise self._why()
        self._rooms[room.name] = room
        if self._road is not None:
            self._join(room)

    def leave(self, room: Room, why: HoldfastError) -> None:
        """Leave it."""
        is_kept = self._rooms.get(room.name) is room
        self._let_go(room, why)
        if is_kept:
            self._part(room.name)

    def send(self, room: Room, fields: dict[str, Any]) -> None:
        """Say what its application has to say, now or never."""
        if self._road is None:
            raise Unavailable("there is no link to the server now")
        self._send(room.name, fields)

    def tell_outbox(self, room: Room, input: outbox.OutboxInput) -> None:
        """Tell its outbox what happened, and do what that says."""
        self._tell_outbox(room, input)
        if self._rooms.get(room.name) is not room:
            self._tell_outbox(room, outbox.Stop())
        self._wake()

    def read_on(self, room: Room) -> None:
        """Ask for what was left in the log while its reader was slow."""
        self._take(room, room.replica.resume())

    # For the client.

    def deadline(self) -> float | None:
        """When `tick` is due next."""
        times = (room.outbox.deadline() for room in self._rooms.values())
        return min((when for when in times if when is not None), default=None)

    def tick(self, now: float) -> None:
        """Take in that time has passed."""
        for room in tuple(self._rooms.values()):
            self._carry(room, room.outbox.tick(now))

    def rejoin(self, road: Road) -> None:
        """Join all of them: there is a link, and this carries it."""
        self._road = road
        for room in self._rooms.values():
            self._join(room)

    def broken(self) -> None:
        """There is no link any more."""
        self._road = None
        self._over.clear()
        self._lefts.clear()
        for room in self._rooms.values():
            self._tell_outbox(room, outbox.Broken())

    def begin(self) -> None:
        """The client is on its way to a link."""
        self._why = None

    def end(self, why: Callable[[], HoldfastError]) -> None:
        """There will be no link any more; each room is told why by an error of its own, which it may raise."""
        self._why = why
        for room in tuple(self._rooms.values()):
            self._let_go(room, why())

    def heed(self, message: Told) -> None:
        """Take in what the server says of a room, or answers to what was said in one."""
        name = getattr(message, "room", "")
        if self._lefts[name]:
            if isinstance(message, messages.Left) and message.reason is UNSET:
                self._lefts[name] -= 1
            return
        match message:
            case messages.Reply():
                self._answered(message)
            case messages.Error():
                self._refused(message)
            case _:
                if (room := self._rooms.get(message.room)) is not None:
                    self._told(room, message)

    # What is said of them.

    def _answered(self, message: messages.Reply) -> None:
        room = self._commands.get(str(message.ref))
        if room is None:
            return
        if message.ok:
            answer = outbox.Answered(str(message.ref), True, None if message.data is UNSET else message.data)
        else:
            problem = messages.Problem("", "") if message.error is UNSET else message.error
            is_known = problem.code != OutcomeUnknown.code
            value = (refusal_called(problem.code) if is_known else OutcomeUnknown)(problem.error)
            answer = outbox.Answered(str(message.ref), False, value, problem.code in _UNDECIDED)
        self._tell_outbox(room, answer)

    def _refused(self, message: messages.Error) -> None:
        logger.warning("the server refused: %.300r", message.error)
        room = None if message.room is UNSET else self._rooms.get(message.room)
        if room is None:
            return
        if message.code not in _PASSING:
            self._let_go(room, refusal_called(message.code)(message.error))
        elif room.refused_on is not room.joined_on:  # else it is joined again already, however often it is refused
            room.refused_on = room.joined_on
            self._spawn(self._join_again(room, room.joined_on))

    def _told(self, room: Room, message: messages.RoomMessage) -> None:
        match message:
            case messages.Joined():
                room.backoff = Backoff()
            case messages.Left() if room.replica.is_joined:
                self._let_go(room, Forbidden(f"the server has put this client out of {room.name}"))
                return
            case _:
                pass
        self._take(room, room.replica.receive(message))
        if isinstance(message, messages.Joined):
            self._tell_outbox(room, outbox.Ready(self.rate))

    # What comes of it.

    def _join(self, room: Room) -> None:
        if room.joined_on is not self._road:
            self._part(room.name)
            room.joined_on = self._road
            self._say(room.replica.join())

    def _part(self, name: str) -> None:
        """Say that one is left, if it is over and that was not said."""
        if name in self._over:
            del self._over[name]
            self._lefts[name] += 1
            self._say(messages.Leave(name))

    async def _join_again(self, room: Room, joined_on: Road | None) -> None:
        """Join it anew after a while, unless that has happened."""
        await asyncio.sleep(room.backoff.next(random.random()).delay)
        if room.refused_on is room.joined_on is joined_on is self._road is not None:
            room.joined_on = room.refused_on = None
            self._join(room)

    def _let_go(self, room: Room, failure: HoldfastError) -> None:
        """There will be nothing more of it, and no way for its commands."""
        if self._rooms.get(room.name) is room:
            del self._rooms[room.name]
        if room.joined_on is self._road is not None:
            self._over[room.name] = None
        room.joined_on = room.refused_on = None
        room.fail(failure)
        self._tell_outbox(room, outbox.Stop())

    def _take(self, room: Room, outcome: Outcome) -> None:
        for item in outcome.items:
            if isinstance(item, Resync) and self._snapshot is not None:
                room.replica.hold()
                self._spawn(self._take_snapshot(self._snapshot, room, item.reason, room.joined_on))
            else:
                room.put(item)
        if outcome.ask is not None:
            self._ask(room, outcome.ask)

    async def _take_snapshot(self, snapshot: TakeSnapshot, room: Room, reason: str, joined_on: Road | None) -> None:
        """Have the application take a snapshot, until it succeeds or the room is joined on another link."""
        if room.replica.is_stuck:
            await asyncio.sleep(room.backoff.next(random.random()).delay)
        else:
            room.backoff = Backoff()
        while joined_on is room.joined_on:
            try:
                data, cursor = await snapshot(room.name)
            except Exception:
                logger.warning("the snapshot of %s failed; it is tried again", room.name, exc_info=True)
                await asyncio.sleep(room.backoff.next(random.random()).delay)
                continue
            if joined_on is room.joined_on:
                try:
                    ask = room.replica.restart(cursor)
                except Exception as error:
                    room.fail(Malformed(f"the snapshot of {room.name} has no cursor, but {cursor!r:.100}: {error}"))
                    return
                room.put(Snapshot(data, cursor, reason))
                self._ask(room, ask)
            return

    def _ask(self, room: Room, ask: messages.Sync) -> None:
        """Ask for what follows, unless the link is another one by now: a join on that one asks for it, too."""
        if room.joined_on is self._road is not None:
            self._say(ask)

    def _tell_outbox(self, room: Room, input: outbox.OutboxInput) -> None:
        self._carry(room, room.outbox.receive(input, asyncio.get_running_loop().time()))

    def _carry(self, room: Room, effects: list[outbox.OutboxEffect]) -> None:
        for effect in effects:
            match effect:
                case outbox.Send(key, command):
                    self._commands[key] = room
                    self._send(room.name, {**command, "ref": key, "key": key})
                case outbox.Settle(key, result, value):
                    self._commands.pop(key, None)
                    room.settle(key, result, value)
