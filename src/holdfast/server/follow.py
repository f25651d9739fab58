"""
What follows this position? Asked again and again, by whoever is not in the room.

An event stream and a poll read the log the same way: what is ready from the room, what is
older from the store, and when they have it all they wait for news. Their only state is
where they stand, so none of them can lose anything, and a slow one costs nobody anything.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from holdfast.core import inputs
from holdfast.core.room import Room
from holdfast.errors import Malformed
from holdfast.protocol.codec import Frame
from holdfast.protocol.cursor import Cursor, Position, encode_around, encode_cursor
from holdfast.protocol.messages import Resync
from holdfast.server.auth import Identity
from holdfast.server.hands import Hands


@dataclass(frozen=True, slots=True)
class Event:
    """A publication, and the cursor at which a reader stands who has seen it."""

    frame: Frame
    cursor: str


@dataclass(frozen=True, slots=True)
class Gap:
    """What a reader has of `room` cannot be continued; it stands at `cursor` now."""

    room: str
    reason: str
    cursor: str

    def resync(self) -> Resync:
        """Return how it is told."""
        return Resync(self.room, self.reason, self.cursor)


class Follow:
    """
    Somebody who reads some rooms, from a cursor or from their heads on, until they may no longer.

    `kind` is what it is counted as (`sse`, `poll`). `multiplexed` readers carry the positions of all
    their rooms in one cursor; it may say nothing of a room that was not read before.
    """

    def __init__(
        self,
        hands: Hands,
        identity: Identity,
        rooms: tuple[str, ...],
        cursor: Cursor | None,
        kind: str,
        *,
        multiplexed: bool,
    ) -> None:
        if cursor is not None and not multiplexed and cursor.position(rooms[0]) is None:
            raise Malformed("cursor says nothing of this room", field="cursor")
        self.kind = kind
        self.rooms = rooms
        self.user_id = identity.user.user_id
        self.ended: str | None = None
        self._expires = identity.expires
        self._hands = hands
        self._cursor = cursor
        self._multiplexed = multiplexed
        self._offsets: dict[str, int] = {}
        self._gaps: list[Gap] = []
        self._news = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._hands.streams[self] = None
        try:
            await self._open()
        except BaseException:  # also when the client goes while the store is asked
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    async def _open(self) -> None:
        gone: list[tuple[str, str]] = []
        new: list[str] = []
        for name in self.rooms:
            span = await self._hands.span(name)
            self._hands.tell(inputs.Listened(name, span, self._hands.elsewhere(name)))
            self._hands.followers.setdefault(name, {})[self] = None
            room = self._room(name)
            since = None if self._cursor is None else self._cursor.position(name)
            refusal = None if since is None else room.refusal(since, span)
            self._offsets[name] = since.offset if since is not None and refusal is None else room.head
            if since is None:
                new.append(name)
            if refusal is not None:
                gone.append((name, refusal))
        for name in new:  # where all of them stand now: an answer that begins at a room's head has nothing of before
            self._offsets[name] = self._room(name).head
        self._gaps = [Gap(name, reason, self.cursor) for name, reason in gone]
        if self._hands.departure.reason is not None:
            self.end(self._hands.departure.reason)
        if self._expires is not None:
            remaining = self._expires - time.time()
            self._expiry = self._hands.loop.call_later(max(0.0, remaining), self.end, "the token has expired")

    def _close(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._hands.streams.pop(self, None)
        for name in self._offsets:
            followers = self._hands.followers[name]
            del followers[self]
            if not followers:
                del self._hands.followers[name]
            self._hands.tell(inputs.Unlistened(name))

    @property
    def cursor(self) -> str:
        """Where it stands, as one string."""
        epoch = self._hands.mind.epoch
        if self._multiplexed:
            return encode_cursor(epoch, self._offsets)
        (offset,) = self._offsets.values()
        return str(Position(epoch, offset))

    @property
    def has_gaps(self) -> bool:
        """Whether there are gaps that it has not been told of."""
        return bool(self._gaps)

    def wake(self) -> None:
        """There is news in one of the rooms."""
        self._news.set()

    def end(self, reason: str) -> None:
        """It reads nothing more."""
        self.ended = reason
        self._news.set()

    async def next(self, seconds: float) -> list[Event | Gap]:
        """Return a page of what there is as soon as there is something; nothing after so long, or at its end."""
        deadline = self._hands.now() + seconds
        while self.ended is None:
            self._news.clear()
            found = await self.take()
            if found:
                return found
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                break
        return []

    async def take(self) -> list[Event | Gap]:
        """Return a page of what there is, without waiting for news; nothing at its end."""
        if self.ended is not None:
            return []
        if self._gaps:
            gaps, self._gaps = self._gaps, []
            return list(gaps)
        for name in self.rooms:
            found = await self._page(self._room(name))
            if found:
                return found
        return []

    async def _page(self, room: Room) -> list[Event | Gap]:
        offset = self._offsets[room.name]
        if offset >= room.head:
            return []
        ready = room.after(offset)
        if ready is not None:
            return self._seen(room.name, ready)
        items = self._hands.items(await self._hands.page(room.name, offset))
        if self.ended is not None:
            return []
        if not items or items[0].offset != offset + 1:
            self._offsets[room.name] = room.head
            return [Gap(room.name, "trimmed", self.cursor)]
        return self._seen(room.name, tuple(item.frame for item in items))

    def _seen(self, room: str, frames: tuple[Frame, ...]) -> list[Event | Gap]:
        """Move on behind these, and return them, each with the cursor behind it."""
        offset, epoch = self._offsets[room], self._hands.mind.epoch
        before, behind = encode_around(epoch, self._offsets, room) if self._multiplexed else (f"{epoch}:", "")
        self._offsets[room] += len(frames)
        return [Event(frame, f"{before}{number}{behind}") for number, frame in enumerate(frames, offset + 1)]

    def _room(self, name: str) -> Room:
        room = self._hands.mind.room(name)
        assert room is not None, "it is kept while somebody listens"
        return room
