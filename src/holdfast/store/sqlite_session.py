"""
What may a change do to a SQLite database?

Anything but begin, commit or roll back, attach, set pragmas, or take long: an authorizer
and a progress handler see to it. A statement can end the whole transaction all the same
(a full disk, an interrupt, OR ROLLBACK); that is found out after each change.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import TypeGuard

from holdfast.errors import ChangeFailed, OutcomeUnknown, StoreError, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.store import transaction
from holdfast.store.commit import DISK_IS_FULL
from holdfast.store.transaction import OpenTransaction, Published

#: Milliseconds that a statement waits for other connections.
BUSY_MS = 5_000


class SqliteConnection:
    """Runs the statements of queries, and of changes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, parameters: Sequence[object]) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(sql, tuple(parameters))


def begin_log_anew(connection: sqlite3.Connection) -> bool:
    """
    Have in the file itself what is in the write-ahead log, and that begin anew; return whether nobody was in the way.

    Whoever opens a file finds in its log also what the last one could not sync: the system has it in memory, and no
    sync tries it again. What is written behind it would be lost with it when the power goes.
    """
    connection.execute("PRAGMA busy_timeout = 0")  # for readers: they may be there for long
    try:
        return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")


class SqliteSession(SqliteConnection):
    """The one connection that writes (see `Session`), to a log that has begun with it, or is to."""

    def __init__(self, connection: sqlite3.Connection, epoch: str, codec: Codec, *, has_begun: bool = False) -> None:
        super().__init__(connection)
        self._has_begun = has_begun
        self._epoch = epoch
        self._codec = codec
        self._deadline: float | None = None  # of the change that is running
        row = connection.execute("SELECT value FROM holdfast_meta WHERE key = 'clock'").fetchone()
        self.clock = int(row[0]) if row else 0
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._too_long, 10_000)

    def new_id(self, kind: str) -> int:
        """Return a number that was never given before."""
        row = self._connection.execute(
            "INSERT INTO holdfast_counter VALUES (?, 1) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value",
            (kind,),
        ).fetchone()
        return int(row[0])

    def check(self) -> None:
        """Raise `ChangeFailed` if an earlier statement has ended the transaction."""
        if not self._connection.in_transaction:
            raise ChangeFailed("the transaction was rolled back by an earlier statement of the change")

    @property
    def epoch(self) -> str:
        """That of the log which it writes."""
        return self._epoch

    def begin(self) -> None:
        """Begin a transaction."""
        try:
            self._has_begun = self._has_begun or begin_log_anew(self._connection)
            self._connection.execute(_BEGIN)
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_FULL:
                raise Unavailable(DISK_IS_FULL) from error
            raise StoreError(f"the change could not be committed: {error}") from error

    def open(self, clock: int, *, has_waited: bool) -> OpenTransaction:
        """Set a savepoint; return what a change acts through."""
        self._connection.execute(_SAVEPOINT)
        self._deadline = time.monotonic() + transaction.CHANGE_SECONDS
        return OpenTransaction(self, self._epoch, self._codec, clock, self._deadline)

    def named(self, error: BaseException) -> Exception:
        """Return the error that the change's caller is told."""
        if isinstance(error, StopIteration) or not isinstance(error, Exception):
            return ChangeFailed(f"the change raised {error!r}, which nobody can be told")  # a future cannot hold it
        if isinstance(error, sqlite3.Error) and self._too_long():
            return ChangeFailed(f"the change was interrupted: it took more than {transaction.CHANGE_SECONDS:g} s")
        if isinstance(error, sqlite3.DatabaseError) and str(error) == "not authorized":
            return ChangeFailed("a change may not begin, commit or roll back, attach, or set pragmas: hub.write does")
        failure: Exception = error
        if isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_FULL:
            failure = Unavailable(DISK_IS_FULL)
        elif is_failure_of_disk(error):
            failure = StoreError(f"the change could not be written: {error}")
        if failure is not error:
            failure.__cause__ = error
        return failure

    def settle(self, error: Exception | None) -> Exception | None:
        """Keep what the change did, or after an error undo it; return the error that its caller is told."""
        self._deadline = None
        if not self._connection.in_transaction:
            rolled_back = ChangeFailed("the transaction was rolled back by a statement of the change")
            raise error or rolled_back
        if error is not None:
            self._connection.execute(_UNDO)
        self._connection.execute(_RELEASE)
        return error

    def is_doubtful(self, error: Exception) -> bool:
        """Whether others did the same meanwhile: there are none."""
        return False

    def execute(self, sql: str, parameters: Sequence[object]) -> None:
        """Run a statement of the log's own."""
        self._connection.execute(sql, tuple(parameters))

    def append(self, published: Sequence[tuple[Published, int]]) -> list[int]:
        """Put publications, each with its time, into the logs; return their offsets."""
        execute = self._connection.execute
        rooms: dict[str, tuple[int, int, int]] = {}  # name: id, head, time of the head
        offsets = []
        for publication, clock in published:
            if publication.room not in rooms:
                row = execute("SELECT id, head FROM holdfast_room WHERE name = ?", (publication.room,)).fetchone()
                if row is None:
                    inserted = execute("INSERT INTO holdfast_room (name, head) VALUES (?, 0)", (publication.room,))
                    row = (inserted.lastrowid, 0)
                rooms[publication.room] = (*row, 0)
            room_id, head, _ = rooms[publication.room]
            rooms[publication.room] = (room_id, head + 1, clock)
            execute(
                "INSERT INTO holdfast_log (room_id, offset, at, type, body) VALUES (?, ?, ?, ?, ?)",
                (room_id, head + 1, clock, publication.type, publication.body.decode()),
            )
            offsets.append(head + 1)
        for room_id, head, clock in rooms.values():
            execute("UPDATE holdfast_room SET head = ?, at = ? WHERE id = ?", (head, clock, room_id))
        return offsets

    def commit(self, clock: int) -> None:
        """Commit: when this returns, it is on the disk."""
        self._connection.execute("INSERT OR REPLACE INTO holdfast_meta VALUES ('clock', ?)", (str(clock),))
        try:
            self._connection.execute(_COMMIT)
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_IOERR:
                # What could not be synced is undone here; but it may be on the disk, and be found there after a crash.
                raise OutcomeUnknown(
                    "the disk failed in the middle of a commit: look at what there is, or try again under the same key"
                ) from error
            raise
        self.clock = clock

    def abandon(self) -> None:
        """Roll back what has not been committed."""
        self._deadline = None
        if self._connection.in_transaction:
            self._connection.execute(_ROLLBACK)

    def _authorize(self, action: int, *_: object) -> int:
        # Asked when a statement is prepared; our own are prepared while no change is running.
        return sqlite3.SQLITE_DENY if self._deadline is not None and action in _FORBIDDEN else sqlite3.SQLITE_OK

    def _too_long(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline


def is_failure_of_disk(error: BaseException | None) -> TypeGuard[sqlite3.Error]:
    """Whether something could not be written because of the disk, or of what is on it."""
    return isinstance(error, sqlite3.Error) and _code(error) in _BEYOND_THE_CHANGE


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code (https://sqlite.org/rescode.html)."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


# Marked, since statements are cached by their text: a change that says COMMIT must not be handed ours,
# which was prepared, and allowed, outside of changes.
_BEGIN = "BEGIN IMMEDIATE -- holdfast"
_COMMIT = "COMMIT -- holdfast"
_ROLLBACK = "ROLLBACK -- holdfast"
_SAVEPOINT = "SAVEPOINT holdfast_change -- holdfast"
_UNDO = "ROLLBACK TO holdfast_change -- holdfast"
_RELEASE = "RELEASE holdfast_change -- holdfast"

_FORBIDDEN = {
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_SAVEPOINT,
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
    sqlite3.SQLITE_PRAGMA,
}

#: Primary result codes for which the change is not to blame.
_BEYOND_THE_CHANGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT}
