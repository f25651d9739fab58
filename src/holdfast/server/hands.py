"""
Who carries out what the mind decided?

This is the only caller of `core.hub` and `core.heartbeat`. Each time something happens,
it tells the mind, carries out the effects in their order, and sets the alarm that the
mind asks for. It decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from itertools import groupby
from typing import Any, Protocol

from holdfast.core import heartbeat, inputs
from holdfast.core.effects import Attends, Close, Deliver, Departs, Effect, Read, Types
from holdfast.core.heartbeat import Dead, Heartbeat, HeartbeatEffect, Look, Ping, Seen
from holdfast.core.hub import Hub as Mind
from holdfast.core.inputs import Ending, Input
from holdfast.core.ready import Item, Span
from holdfast.errors import Closed, Invalid, Refused, Unavailable
from holdfast.protocol import messages
from holdfast.protocol.codec import Codec
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.cursor import Position
from holdfast.server.connection import Connection
from holdfast.server.departure import Departure
from holdfast.server.expulsions import Expulsions
from holdfast.server.limits import Limits
from holdfast.server.shared import Shared
from holdfast.server.sips import attention
from holdfast.store.store import READ_AGAIN_SECONDS, Record, Store

logger = logging.getLogger("holdfast.server")


class Alarm:
    """Rings at the time that a machine asks for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.Handle | None = None
        self._when: float | None = None  # kept here: a timer of uvloop that is due at once does not know it

    def set(self, when: float | None) -> None:
        """Ring at `when`, and at no other time."""
        if when == self._when:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._when = when
        self._timer = None if when is None else self._loop.call_at(when, self._rings)

    def _rings(self) -> None:
        self._timer = self._when = None
        self._ring()


class Follower(Protocol):
    """Somebody outside the mind who wants to hear that there is news (a stream, a held poll)."""

    kind: str
    user_id: str
    rooms: tuple[str, ...]

    def wake(self) -> None:
        """There is news in one of your rooms."""

    def end(self, reason: str) -> None:
        """You hear nothing more."""


class Hands:
    """
    The asyncio side of one Hub, while it is open.

    Attributes:
        handle: What is done with a client's message.
    """

    handle: Callable[[Connection, messages.ClientMessage], Coroutine[Any, Any, None]]

    def __init__(
        self,
        mind: Mind,
        beat: Heartbeat,
        store: Store,
        codec: Codec,
        limits: Limits,
    ) -> None:
        self.mind = mind
        self.codec = codec
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.attention = attention()
        self.connections: dict[Connection, None] = {}  # the oldest first
        self.departure = Departure(self, is_alone=store.others is None)
        self.streams: dict[Follower, None] = {}
        self.followers: dict[str, dict[Follower, None]] = {}
        self.expulsions = Expulsions()
        self.publications = 0  # committed, and heard of here
        self.deaths = 0  # connections that fell silent
        self.emptied = asyncio.Event()  # the last connection is gone
        self._store = store
        self._others = store.others
        self._beat = beat
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._asked: dict[str, tuple[int, int]] = {}  # rooms the store is being asked about: by how many, and the news
        self._ask_span = Shared(self._look_into)  # a crowd that returns to a room is answered at once
        self._filled: list[Connection] = []
        self._carrying = False
        self._sends_away = False  # everybody who is here
        self._alarm = Alarm(self.loop, self._tick)
        self._beat_alarm = Alarm(self.loop, self._tick_beat)

    # What happens.

    def opened(self, connection: Connection) -> None:
        """A WebSocket is there."""
        self.connections[connection] = None
        self._beat.receive(heartbeat.Opened(connection, 1.0 - random.random()), self.now())
        self._beat_alarm.set(self._beat.deadline())
        self.tell(inputs.Opened(connection))

    def lost(self, connection: Connection, ending: Ending) -> None:
        """A WebSocket is gone. Saying so twice does no harm."""
        if connection in self.connections:
            del self.connections[connection]
            self._beat.receive(heartbeat.Ended(connection), self.now())
            connection.ended()
            self.tell(inputs.Lost(connection, ending))
            if not self.connections:
                self.emptied.set()

    def end(self, connection: Connection, code: int, reason: str, ending: Ending = Ending.CLEAN) -> None:
        """End a WebSocket: it is forgotten at once, and closed as soon as it can be."""
        if connection in self.connections:
            self.lost(connection, ending)
            connection.close(code, reason)

    def lose_all(self, connections: Iterable[Connection], ending: Ending) -> None:
        """All of these go: none of them is told any more that the others have gone, too."""
        self._sends_away = True
        try:
            for connection in connections:
                self.lost(connection, ending)
        finally:
            self._sends_away = False

    def expel(self, user_id: str, room: str | None = None) -> None:
        """Put a user out of a room, or out of all and off the server."""
        self.expulsions.note(user_id, room)
        self.tell(inputs.Expelled(user_id, room))
        for stream in tuple(self.streams):
            if stream.user_id == user_id and (room is None or room in stream.rooms):
                stream.end("you were asked to leave")

    def filled(self, connection: Connection) -> None:
        """The transport of a connection takes no more."""
        if self._carrying:
            self._filled.append(connection)  # it may be in the middle of the delivery that filled it
        else:
            self.tell(inputs.Full(connection))

    def drained(self, connection: Connection) -> None:
        """It does again."""
        self.tell(inputs.Drained(connection))

    def news(self, records: Sequence[Record]) -> None:
        """These were committed, in this order."""
        self.publications += len(records)
        for room, group in groupby(sorted(records, key=lambda record: record.room), lambda record: record.room):
            items = tuple(group)
            if room in self._asked:
                self._asked[room] = (self._asked[room][0], items[-1].offset)
            if self.mind.room(room) is not None:
                self.tell(inputs.Published(room, self.items(items)))
            for follower in tuple(self.followers.get(room, ())):
                follower.wake()

    def follows(self, room: str) -> bool:
        """Whether anybody here wants the news of a room."""
        return room in self._asked or self.mind.room(room) is not None

    async def span(self, room: str) -> Span:
        """
        Return what the store has of a room, and of all that there has been news of.

        The news that comes while the store is asked would be lost otherwise: nobody is in the room yet.
        """
        watchers, newest = self._asked.get(room, (0, 0))
        self._asked[room] = (watchers + 1, newest)
        try:
            span = await self._ask_span(room)
            await self.attention.when_left()  # all who have asked are answered in one turn
        finally:
            watchers, newest = self._asked.pop(room)
            if watchers > 1:
                self._asked[room] = (watchers - 1, newest)
        self._check_life()
        return Span(span.floor, max(span.head, newest))

    async def page(self, room: str, after: int) -> list[Record]:
        """Return what the store has in a room after an offset."""
        records = await self._store.page(room, after)
        self._check_life()
        return records

    def _check_life(self) -> None:
        """Raise `Unavailable` if the log has begun anew: what was read just now may not get positions of before."""
        if self._store.epoch != self.mind.epoch:
            raise Unavailable("the log has begun anew; come back in a moment")

    async def _look_into(self, room: str) -> Span:
        if self._others is not None:
            await self._others.meet(room)
        return await self._store.span(room)

    def elsewhere(self, room: str) -> inputs.Elsewhere:
        """Return who is in a room at other nodes."""
        return () if self._others is None else self._others.known(room)

    async def take_over(self, session: str, user: messages.User, link: int | None) -> bool:
        """
        Have a session go on at this node, and await it in the rooms that it was in at another one.

        False: a later link has it, or nobody knows whose it is. That is asked even if this node has it: it may have
        been elsewhere meanwhile.
        """
        if self._others is None:
            return True
        with self.expulsions.meanwhile() as put_out:
            try:
                rooms = await self._others.take_over(session, user.user_id, link)
            except (Invalid, Unavailable):
                return False
        if awaited := tuple(room for room in rooms or () if not self.mind.is_in(session, room)):
            self.tell(inputs.Awaited(session, user, awaited))
            for user_id, room in put_out:
                if user_id == user.user_id:
                    self.tell(inputs.Expelled(user_id, room))  # also from where they are awaited only now
        return rooms is not None

    def say(self, *word: Any) -> None:
        """Tell the other nodes something; it may be lost."""
        if self._others is not None:
            self._others.say(word)

    def heard(self, word: Any) -> None:
        """Take in what another node has said."""
        match word:
            case ["broadcast", str(room), str(text), str() | None as but]:
                try:
                    frame = self.codec.read_broadcast(room, text)
                except Refused as refusal:
                    logger.error("another server broadcasts what cannot be one: %s", refusal)
                else:
                    self.tell(inputs.Announced(room, frame, but))
            case ["typing", str(room), str(session), str(user_id), str(name), bool(active)]:
                self.tell(inputs.TypedElsewhere(room, session, messages.User(user_id, name), active))
            case _:
                logger.error("another server said what is not understood here: %.200r", word)

    def listeners(self) -> dict[str, dict[str, int]]:
        """Return how many listen to each room, by road."""
        counts: dict[str, dict[str, int]] = {}
        for room in self.mind.rooms():
            count = counts[room.name] = {"websocket": len(room.members), "sse": 0, "poll": 0}
            for follower in self.followers.get(room.name, ()):
                count[follower.kind] += 1
        return counts

    def items(self, records: Iterable[Record]) -> tuple[Item, ...]:
        """Put records of the log into the form in which the mind handles them."""
        encode, epoch = self.codec.encode_event, self.mind.epoch
        return tuple(
            Item(record.offset, encode(record.room, record.type, record.body, Position(epoch, record.offset)))
            for record in records
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that has to be awaited; a failure is logged, and harms nobody else."""
        task = self.loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("unexpected failure", exc_info=error)

    async def finish(self, seconds: float) -> None:
        """Wait for what is being handled, but no longer than this; then stop for good."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in tuple(self._tasks):
            task.cancel()
        self._alarm.set(None)
        self._beat_alarm.set(None)

    # The mind.

    def tell(self, input: Input) -> None:
        """Tell the mind what happened, and carry out what it decides."""
        self._carry(self.mind.receive(input, self.now()))

    def _tick(self) -> None:
        self._carry(self.mind.tick(self.now()))

    def _carry(self, effects: list[Effect]) -> None:
        if self._carrying:
            raise RuntimeError("the mind was told something while its last word was being carried out")
        self._carrying = True
        try:
            while effects:
                for effect in effects:
                    self._do(effect)
                effects = self._settle()
        finally:
            self._carrying = False
            self._alarm.set(self.mind.deadline())

    def _settle(self) -> list[Effect]:
        """Tell whose transports were filled, then who can be sent more; return what follows."""
        effects: list[Effect] = []
        filled, self._filled = self._filled, []
        for connection in filled:
            if connection.full:
                effects += self.mind.receive(inputs.Full(connection), self.now())
        if not effects and not self.mind.settled:
            effects = self.mind.receive(inputs.Settled(), self.now())
        return effects

    def _do(self, effect: Effect) -> None:
        match effect:
            case Deliver() if self._sends_away:
                pass  # that others have gone, to those who are next
            case Deliver(to, frames):
                data = frames[0].wire if len(frames) == 1 else b"".join([frame.wire for frame in frames])
                for connection in to:
                    try:
                        connection.write(data, frames)  # type: ignore[attr-defined]
                    except Exception:
                        self.failed(connection)
            case Read(room, after):
                self.spawn(self._read(room, after))
            case Close(connection, code, reason):
                self.loop.call_soon(self._close, connection, code, reason)
            case Attends(room, session, user) if self._others is not None:
                self._others.attend(room, session, user)
            case Departs(room, session) if self._others is not None:
                self._others.depart(room, session)
            case Types(room, session, user, active):
                self.say("typing", room, session, user.user_id, user.name, active)

    def failed(self, connection: Hashable) -> None:
        """Let go of a connection that something unexpected has happened to, so that nobody else suffers from it."""
        logger.exception("a connection failed, and is closed")
        self.loop.call_soon(self._close, connection, CloseCode.INTERNAL_ERROR, "the server failed")

    def _close(self, connection: Hashable, code: int, reason: str) -> None:
        if isinstance(connection, Connection) and connection in self.connections:
            self.end(connection, code, reason)

    async def _read(self, room: str, after: int) -> None:
        while self.mind.room(room) is not None:
            try:
                records = await self._store.page(room, after)
            except Closed:
                return
            except Exception:  # those who wait for it can go on nowhere else
                logger.exception("the log of %s could not be read; it is tried again", room)
                await asyncio.sleep(READ_AGAIN_SECONDS)
            else:
                self.tell(inputs.Page(room, after, self.items(records)))
                return

    # The heartbeat.

    def _tick_beat(self) -> None:
        try:
            self._carry_beat(self._beat.tick(self.now()))
        finally:
            self._beat_alarm.set(self._beat.deadline())

    def _carry_beat(self, effects: list[HeartbeatEffect]) -> None:
        for effect in effects:
            connection = effect.connection
            assert isinstance(connection, Connection)
            try:
                self._beat_once(effect, connection)
            except Exception:
                self.failed(connection)

    def _beat_once(self, effect: HeartbeatEffect, connection: Connection) -> None:
        match effect:
            case Ping():
                pinged = connection.ping()
                if pinged is not None:
                    self._beat.receive(pinged, self.now())
            case Look(_, since):
                heard = connection.heard
                seen = connection.look() if heard is None or heard < since else Seen(connection, heard)
                self._carry_beat(self._beat.receive(seen, self.now()))
            case Dead():
                self.deaths += 1
                logger.info("a peer fell silent and was dropped")
                self.lost(connection, Ending.DEAD)
                connection.abort()
