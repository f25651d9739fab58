"""
Who, inside this process, is told of every publication?

Each subscriber has a task and a place in every log of its own, so one that is slow or
that throws holds up nobody, and one that falls far behind reads on from the store.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from holdfast.errors import Closed
from holdfast.protocol.cursor import Position
from holdfast.server.publication import Publication
from holdfast.store.store import READ_AGAIN_SECONDS, Record, Store

logger = logging.getLogger("holdfast.server")

Handler = Callable[[Publication], Awaitable[None] | None]

#: Publications that wait in memory for one subscriber; what is beyond them is read from the store in its turn.
WAITING = 10_000


@dataclass(slots=True)
class _Behind:
    """A room that is read from the store: what the handler was told of, and the newest that there is news of."""

    told: int
    newest: int


class Subscriber:
    """One handler, and what it is still to be told."""

    def __init__(self, handler: Handler, store: Store) -> None:
        self._handler = handler
        self._store = store
        self._waiting: deque[Record] = deque()
        self._behind: dict[str, _Behind] = {}
        self._news = asyncio.Event()

    def news(self, records: Sequence[Record]) -> None:
        """Take note of what was committed."""
        for record in records:
            if (behind := self._behind.get(record.room)) is not None:
                behind.newest = record.offset
            elif len(self._waiting) >= WAITING:
                self._behind[record.room] = _Behind(record.offset - 1, record.offset)
            else:
                self._waiting.append(record)
        self._news.set()

    async def run(self) -> None:
        """Tell the handler, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._tell(self._waiting.popleft())
            for room, behind in tuple(self._behind.items()):
                await self._catch_up(room, behind)

    async def _catch_up(self, room: str, behind: _Behind) -> None:
        while behind.told < behind.newest:
            try:
                records = await self._store.page(room, behind.told)
            except Closed:
                return
            except Exception:
                logger.exception("a subscriber could not be told of what is in %s; it is tried again", room)
                await asyncio.sleep(READ_AGAIN_SECONDS)
                continue
            for record in records:
                await self._tell(record)
                behind.told = record.offset
            if not records:
                logger.error("a subscriber was so slow that the log of %s was trimmed before it", room)
                behind.told = behind.newest
        if behind.told == behind.newest:  # else it was read before the news of it came, which is then to be passed over
            del self._behind[room]

    async def _tell(self, record: Record) -> None:
        try:
            answer = self._handler(to_publication(record, self._store.epoch))
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            logger.exception("a subscriber failed on %s in %s", record.type, record.room)


def to_publication(record: Record, epoch: str) -> Publication:
    """Return a record of the log as applications see it."""
    return Publication(record.room, record.type, msgspec.json.decode(record.body), str(Position(epoch, record.offset)))
