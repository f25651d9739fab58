"""
What of a room's log is at hand, without asking the store?

The newest publications, as frames that can be sent as they are: enough for almost every
reconnect, and bounded in number and in memory. What is sent to one member at once is bounded too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from msgspec import Struct

from holdfast.protocol.codec import Frame

#: Frames that a room keeps ready: enough for a reconnect of some seconds in a lively room …
READY_FRAMES = 256
#: … and a bound on their memory, for rooms with large publications.
READY_BYTES = 1024 * 1024
#: One write to one member: with a transport that is full at 64 KiB, no more than 128 KiB wait for anybody.
CHUNK_BYTES = 64 * 1024


class Item(Struct, frozen=True):
    """A publication as the room handles it: its number, and its frame."""

    offset: int
    frame: Frame


class Span(NamedTuple):
    """What the store has of a room: publications `floor` to `head` (none, if floor is head + 1)."""

    floor: int
    head: int


class Ready:
    """The newest publications of a room, as frames, beginning with offset `first`."""

    __slots__ = ("_bytes", "_frames", "first")

    def __init__(self, head: int) -> None:
        self.first = head + 1
        self._frames: deque[Frame] = deque()
        self._bytes = 0

    def append(self, frame: Frame) -> None:
        """Keep one more, and forget the oldest beyond the bounds."""
        self._frames.append(frame)
        self._bytes += len(frame.wire)
        while len(self._frames) > READY_FRAMES or self._bytes > READY_BYTES:
            self._bytes -= len(self._frames.popleft().wire)
            self.first += 1

    def reach_back(self, items: Sequence[Item]) -> None:
        """Keep what was read of what is just before, as far as there is room: who asks for it is seldom the last."""
        for item in reversed(items):
            if item.offset >= self.first:
                continue
            size = len(item.frame.wire)
            if item.offset < self.first - 1 or len(self._frames) == READY_FRAMES or self._bytes + size > READY_BYTES:
                return
            self._frames.appendleft(item.frame)
            self._bytes += size
            self.first -= 1

    def after(self, offset: int) -> tuple[Frame, ...] | None:
        """Return the chunk that follows `offset`, or None where that is no longer ready."""
        skip = offset + 1 - self.first
        return None if skip < 0 else chunk(islice(self._frames, skip, None))


def chunk(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    """Return the first of `frames`, at least one and as many as one write may carry."""
    taken: list[Frame] = []
    size = 0
    for frame in frames:
        size += len(frame.wire)
        if taken and size > CHUNK_BYTES:
            break
        taken.append(frame)
    return tuple(taken)
