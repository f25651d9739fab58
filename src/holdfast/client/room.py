"""
What does an application hold of a room?

Something to iterate over that goes on across every disconnect. What waits for a slow
reader is bounded: beyond that, publications are left where they are, in the server's log,
and asked for again when the reader has caught up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import msgspec
from msgspec import Struct

from holdfast.core.backoff import Backoff
from holdfast.core.outbox import Outbox, Put, Result, Withdrawn
from holdfast.core.replica import Item, Replica
from holdfast.errors import Closed, ConcurrencyError, HoldfastError, NotSent, OutcomeUnknown
from holdfast.protocol.messages import User

if TYPE_CHECKING:
    from holdfast.client.road import Road
    from holdfast.client.rooms import Rooms

#: Events that wait for the application's loop, for each room.
WAITING = 1_000


class Snapshot(Struct, frozen=True):
    """What your snapshot function has returned, and the cursor at which it is true: replace what you have."""

    data: Any
    cursor: str
    reason: str
    type: str = "snapshot"


class Room:
    """
    A room that was joined: `async for item in room`.

    Items are `Event`, `Resumed` and `Resync`; with a snapshot function, `Snapshot` instead of `Resync`. Each item is
    given once, so one task reads at a time: another one is told so (`ConcurrencyError`).
    """

    def __init__(self, rooms: Rooms, name: str, replica: Replica) -> None:
        self.name = name
        self._rooms = rooms
        self.replica = replica
        self.backoff = Backoff()  # of joins that failed for no fault of ours, and of snapshots that came to nothing
        self.joined_on: Road | None = None  # on which it was joined last
        self.refused_on: Road | None = None  # on which it is about to be joined again
        self.outbox = Outbox()
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._items: deque[Item | Snapshot] = deque()
        self._more = asyncio.Event()
        self._failure: HoldfastError | None = None
        self._is_awaited = False  # the next item is, by whoever reads

    async def __aenter__(self) -> Self:
        self._rooms.enter(self)
        self._failure = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rooms.leave(self, Closed(f"{self.name} was left"))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item | Snapshot:
        if self._is_awaited:
            raise ConcurrencyError(f"{self.name} is being read by another task already")
        self._is_awaited = True
        try:
            await self._until_next()
        finally:
            self._is_awaited = False
        return self._items.popleft()  # at once: whoever is cancelled has taken nothing

    async def _until_next(self) -> None:
        """Wait until there is something to take; raises if there will be nothing more."""
        while not self._items:
            self._more.clear()
            self._rooms.read_on(self)
            if not self._items and self._failure is not None:
                raise self._failure
            await self._more.wait()

    @property
    def cursor(self) -> str | None:
        """Where this copy of the room stands."""
        return self.replica.cursor

    @property
    def users(self) -> list[User]:
        """Who is in the room, as far as is known here (at most 100)."""
        return list(self.replica.users.values())

    async def send(self, type: str, **data: Any) -> None:
        """Send a message of the application (`typing` …). Raises `Unavailable` while there is no link."""
        self._rooms.send(self, {**data, "type": type})

    @property
    def waiting(self) -> int:
        """How many items wait to be iterated over."""
        return len(self._items)

    async def command(self, type: str, **data: Any) -> Any:
        """
        Have the server handle a message, once, whatever becomes of the link, and return what its handler returned.

        It is kept while there is no link, and sent again when its answer was lost. Raises the server's refusal,
        `NotSent` if it was never sent, or `OutcomeUnknown` if it was and the answer can no longer be had; `TypeError`
        for what is not JSON.
        """
        msgspec.json.encode(data)  # who gave what cannot be sent is told at once
        key = uuid4().hex
        answer = self._answers[key] = asyncio.get_running_loop().create_future()
        self._rooms.tell_outbox(self, Put(key, {**data, "type": type}))
        try:
            return await answer
        except asyncio.CancelledError:
            self._rooms.tell_outbox(self, Withdrawn(key))
            raise
        finally:
            self._answers.pop(key, None)

    # For the client's rooms.

    def settle(self, key: str, result: Result, value: Any) -> None:
        """Tell who gave a command what it came to; `value` is the answer, or the refusal."""
        answer = self._answers.get(key)
        if answer is None or answer.done():
            return
        match result:
            case Result.DONE:
                answer.set_result(value)
            case Result.REJECTED:
                answer.set_exception(value)
            case Result.NOT_SENT:
                answer.set_exception(NotSent("the command was not sent"))
            case Result.UNKNOWN:
                answer.set_exception(OutcomeUnknown("the command was sent, and its answer did not come"))

    def put(self, item: Item | Snapshot) -> None:
        """Give the application one more. When too many wait, publications are left in the log until it is here."""
        self._items.append(item)
        self._more.set()
        if len(self._items) >= WAITING:
            self.replica.pause()

    def fail(self, failure: HoldfastError) -> None:
        """There will be nothing more; the first reason is the one that is told."""
        self._failure = self._failure or failure
        self._more.set()
