"""
Where does a reader stand, as one string?

A position is an epoch and an offset: `k3f9:43`. A reader of several rooms carries
one string for all of them: `k3f9:board-1=43;board-2=7`, room names percent-encoded.
The same string is a WebSocket event's `id`, an SSE `id:`, and a poll's `cursor`.
Reading one is total: what is not a cursor is a `Malformed`, never a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from holdfast.errors import Malformed

#: A cursor names at most this many rooms: it must fit in one request header.
MAX_ROOMS = 32
#: … and is at most this long, for the same reason.
MAX_LENGTH = 4096
#: Offsets are counted, so more digits than a 64-bit row number has are a forgery.
MAX_OFFSET = 2**63 - 1


class Position(NamedTuple):
    """A place in one room's log: the publication `offset` was the last one seen."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"


class Cursor(NamedTuple):
    """Where a reader stands: in `offsets` by room, or in the one room it reads (`offset`)."""

    epoch: str
    offset: int | None
    offsets: Mapping[str, int]

    def position(self, room: str) -> Position | None:
        """Return the position in `room`, or None where this cursor says nothing of it."""
        offset = self.offsets.get(room) if self.offset is None else self.offset
        return None if offset is None else Position(self.epoch, offset)


def encode_cursor(epoch: str, offsets: Mapping[str, int]) -> str:
    """Return the one string for a reader of several rooms."""
    return f"{epoch}:" + ";".join(f"{quote(room, safe='')}={offset}" for room, offset in offsets.items())


def encode_around(epoch: str, offsets: Mapping[str, int], room: str) -> tuple[str, str]:
    """
    Return what stands in that string before and behind the offset in `room`.

    For whoever reads on there while the others stand still: of up to 4 KiB, some digits change with each publication.
    """
    rooms = list(offsets)
    place = rooms.index(room)
    before = encode_cursor(epoch, {name: offsets[name] for name in rooms[: place + 1]})
    behind = "".join(f";{quote(name, safe='')}={offsets[name]}" for name in rooms[place + 1 :])
    return before[: before.rindex("=") + 1], behind


def decode_cursor(text: str) -> Cursor:
    """Read a cursor of either form, or raise `Malformed`."""
    if len(text) > MAX_LENGTH:
        raise Malformed(f"cursor is longer than {MAX_LENGTH} characters", field="cursor")
    epoch, colon, rest = text.partition(":")
    if not colon or not epoch or not (epoch.isascii() and epoch.isalnum()):
        raise Malformed("cursor must look like epoch:43", field="cursor")
    if "=" not in rest:
        return Cursor(epoch, _offset(rest), {})
    parts = rest.split(";")
    if len(parts) > MAX_ROOMS:
        raise Malformed(f"cursor names more than {MAX_ROOMS} rooms", field="cursor")
    offsets: dict[str, int] = {}
    for part in parts:
        name, _, digits = part.partition("=")
        try:
            offsets[unquote_to_bytes(name).decode()] = _offset(digits)
        except UnicodeError:
            raise Malformed("cursor names a room that is not UTF-8", field="cursor") from None
    return Cursor(epoch, None, offsets)


def decode_position(text: str, room: str) -> Position:
    """Read the position in `room` out of a cursor of either form, or raise `Malformed`."""
    position = decode_cursor(text).position(room)
    if position is None:
        raise Malformed("cursor says nothing of this room", field="cursor")
    return position


def _offset(digits: str) -> int:
    # Checked before int(): a very long run of digits costs quadratic time there.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19) or int(digits) > MAX_OFFSET:
        raise Malformed("cursor must look like epoch:43", field="cursor")
    return int(digits)
