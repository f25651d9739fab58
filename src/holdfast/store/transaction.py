"""
What can be done in a transaction, whichever database it is of?

The SQL of the log itself is written so that SQLite and PostgreSQL both read it;
placeholders are `?` in both.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from holdfast.errors import ChangeFailed, TooLarge
from holdfast.protocol.codec import Codec
from holdfast.protocol.cursor import Position
from holdfast.store.store import Row

#: A publication, as JSON. One of these, a full transport and a chunk are all that waits for one member.
MAX_PUBLICATION_BYTES = 64 * 1024
#: A change that runs longer is interrupted: all others wait for it.
CHANGE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Published:
    """What a change has published: it has no offset until its batch is committed."""

    room: str
    type: str
    body: bytes


class Cursor(Protocol):
    """What a statement came to (PEP 249)."""

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns, each with its name first; None if there are no rows."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def __iter__(self) -> Iterable[Sequence[Any]]:
        """Yield the rows."""


class Connection(Protocol):
    """Runs the statements of queries."""

    def run(self, sql: str, parameters: Sequence[object]) -> Any:
        """Run one, and return its `Cursor`."""


class ChangingConnection(Connection, Protocol):
    """Runs those of changes."""

    def new_id(self, kind: str) -> int:
        """Return a number that was never given before."""

    def check(self) -> None:
        """Raise `ChangeFailed` if an earlier statement has ended the transaction."""


class OpenReadTransaction:
    """One moment of the store (see `ReadTransaction`)."""

    def __init__(self, connection: Connection, epoch: str) -> None:
        self._connection = connection
        self._epoch = epoch

    def all(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return every row, by column name."""
        cursor = self._run(sql, parameters)
        if cursor.description is None:
            return []
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def one(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        """Return the first row, or None."""
        rows = self.all(sql, parameters)
        return rows[0] if rows else None

    def position(self, room: str) -> Position:
        """Return where `room` stands at this moment."""
        row = self.one("SELECT head FROM holdfast_room WHERE name = ?", (room,))
        return Position(self._epoch, 0 if row is None else row["head"])

    def time(self, room: str, offset: int) -> str | None:
        """Return when a publication was committed."""
        row = self.one("SELECT at FROM holdfast_room WHERE name = ? AND head = ?", (room, offset))
        row = row or self.one(
            "SELECT at FROM holdfast_log "
            'WHERE room_id = (SELECT id FROM holdfast_room WHERE name = ?) AND "offset" = ?',
            (room, offset),
        )
        return None if row is None else iso(row["at"])

    def _run(self, sql: str, parameters: Sequence[object]) -> Any:
        return self._connection.run(sql, tuple(parameters))


class OpenTransaction(OpenReadTransaction):
    """What a change acts through (see `Transaction`)."""

    def __init__(self, changing: ChangingConnection, epoch: str, codec: Codec, clock: int, deadline: float) -> None:
        super().__init__(changing, epoch)
        self._changing = changing
        self._codec = codec
        self._deadline = deadline
        self._ended = False
        self._clock = clock
        self.published: list[Published] = []

    @property
    def now(self) -> str:
        """The time of this change."""
        return iso(self._clock)

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run a statement; return how many rows it changed."""
        changed: int = self._run(sql, parameters).rowcount
        return changed

    def new_id(self, kind: str) -> str:
        """Return an id that was never given before."""
        self._check()
        return f"{kind}-{self._changing.new_id(kind)}"

    def publish(self, room: str, type: str, data: Any) -> None:
        """Put an event into the log of `room`, with this transaction."""
        if self._ended:
            raise ChangeFailed(_OVER)
        body = self._codec.encode_body(type, data)
        if len(body) > MAX_PUBLICATION_BYTES:
            raise TooLarge(f"a publication is at most {MAX_PUBLICATION_BYTES} bytes; this one has {len(body)}")
        self.published.append(Published(self._codec.check_room(room), type, body))

    def end(self) -> None:
        """Refuse whatever comes later, from a change that kept its transaction."""
        self._ended = True

    def _run(self, sql: str, parameters: Sequence[object]) -> Any:
        self._check()
        return super()._run(sql, parameters)

    def _check(self) -> None:
        if self._ended:
            raise ChangeFailed(_OVER)
        if time.monotonic() > self._deadline:
            raise ChangeFailed("the change took too long")
        self._changing.check()


_OVER = "this transaction is over; a change acts only while it runs"


def iso(microseconds: int) -> str:
    """Return a time as ISO 8601, UTC, microseconds."""
    moment = datetime(1970, 1, 1) + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds") + "Z"
