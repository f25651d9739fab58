"""
What may a change do to a SQLite database, and what happens to the others if it fails?

The changes that wait share one commit, each in its savepoint: one that fails is undone
alone. A failure can also end the whole transaction (a full disk, an interrupt, OR
ROLLBACK); then each change is run again in a transaction of its own, so that the good
ones succeed and the bad ones are told.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, get_type_hints

import msgspec

from holdfast.errors import ChangeFailed, HoldfastError, Invalid, Refused, StoreError, TooLarge, refusal_called
from holdfast.protocol.codec import Codec
from holdfast.protocol.cursor import Position
from holdfast.store.store import Once, Outcome, Record, Row


class SqliteReadTransaction:
    """One moment of the database (see `ReadTransaction`)."""

    def __init__(self, connection: sqlite3.Connection, epoch: str) -> None:
        self._connection = connection
        self._epoch = epoch

    def all(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return every row, by column name."""
        cursor = self._run(sql, parameters)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def one(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        """Return the first row, or None."""
        rows = self.all(sql, parameters)
        return rows[0] if rows else None

    @property
    def now(self) -> str:
        """The time of the newest change at this moment."""
        row = self.one("SELECT value FROM holdfast_meta WHERE key = 'clock'")
        return _iso(0 if row is None else int(row["value"]))

    def position(self, room: str) -> Position:
        """Return where `room` stands at this moment."""
        row = self.one("SELECT head FROM holdfast_room WHERE name = ?", (room,))
        return Position(self._epoch, 0 if row is None else row["head"])

    def time(self, room: str, offset: int) -> str | None:
        """Return when a publication was committed."""
        row = self.one(
            "SELECT at FROM holdfast_log WHERE room_id = (SELECT id FROM holdfast_room WHERE name = ?) AND offset = ?",
            (room, offset),
        )
        return None if row is None else _iso(row["at"])

    def _run(self, sql: str, parameters: Sequence[object]) -> sqlite3.Cursor:
        return self._connection.execute(sql, tuple(parameters))


class SqliteTransaction(SqliteReadTransaction):
    """What a change acts through (see `Transaction`)."""

    def __init__(self, connection: sqlite3.Connection, epoch: str, codec: Codec, clock: int, deadline: float) -> None:
        super().__init__(connection, epoch)
        self._codec = codec
        self._deadline = deadline
        self._ended = False
        self._now = _iso(clock)
        self.published: list[tuple[str, str, bytes]] = []

    @property
    def now(self) -> str:
        """The time of this change."""
        return self._now

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run a statement; return how many rows it changed."""
        return self._run(sql, parameters).rowcount

    def new_id(self, kind: str) -> str:
        """Return an id that was never given before."""
        row = self.one(
            "INSERT INTO holdfast_counter VALUES (?, 1) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value",
            (kind,),
        )
        assert row is not None
        return f"{kind}-{row['value']}"

    def publish(self, room: str, type: str, data: Any) -> None:
        """Put an event into the log of `room`, with this transaction."""
        if self._ended:
            raise ChangeFailed("this transaction is over; a change acts only while it runs")
        body = self._codec.encode_body(type, data)
        if len(body) > MAX_PUBLICATION_BYTES:
            raise TooLarge(f"a publication is at most {MAX_PUBLICATION_BYTES} bytes; this one has {len(body)}")
        self.published.append((self._codec.check_room(room), type, body))

    def end(self) -> None:
        """Refuse whatever comes later, from a change that kept its transaction."""
        self._ended = True

    def _run(self, sql: str, parameters: Sequence[object]) -> sqlite3.Cursor:
        if self._ended:
            raise ChangeFailed("this transaction is over; a change acts only while it runs")
        if time.monotonic() > self._deadline:
            raise ChangeFailed("the change took too long")
        if not self._connection.in_transaction:
            raise ChangeFailed("the transaction was rolled back by an earlier statement of the change")
        return super()._run(sql, parameters)


#: A publication, as JSON. One of these, a full transport and a chunk are all that waits for one member.
MAX_PUBLICATION_BYTES = 64 * 1024
#: A change that runs longer is interrupted: all others wait for it.
CHANGE_SECONDS = 5.0


@dataclass(slots=True)
class Job:
    """One change that waits, and who is told of its outcome."""

    change: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    once: Once | None
    answer: Callable[[Outcome | BaseException], None]


@dataclass(slots=True)
class _Done:
    """What became of one change."""

    outcome: Any  # an exception, or the result
    clock: int
    published: list[tuple[str, str, bytes]] = field(default_factory=list)
    positions: tuple[tuple[str, int], ...] = ()  # of what was published, by this change or by the one it repeats
    once: Once | None = None  # under which it is to be remembered
    repeats: _Done | None = None  # in the same batch


class Committer:
    """Commits batches of changes on the one connection that writes."""

    def __init__(self, connection: sqlite3.Connection, epoch: str, codec: Codec, wall: Callable[[], float]) -> None:
        self._connection = connection
        self._epoch = epoch
        self._codec = codec
        self._wall = wall
        self._deadline: float | None = None  # of the change that is running
        row = connection.execute("SELECT value FROM holdfast_meta WHERE key = 'clock'").fetchone()
        self.clock = int(row[0]) if row else 0  # of the newest commit, in microseconds
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._too_long, 10_000)

    def commit(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        """Run the changes, commit, and return what became of each."""
        try:
            return self._together(jobs)
        except Exception as error:  # the whole transaction is gone, with the changes that had succeeded in it
            if len(jobs) > 1:
                return [outcome for job in jobs for outcome in self.commit([job])]
            if isinstance(error, HoldfastError):
                return [error]
            failure = StoreError(f"the change could not be committed: {error}")
            failure.__cause__ = error
            return [failure]

    def _together(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        batch: list[_Done] = []
        try:
            self._connection.execute(_BEGIN)
            clock = self.clock
            for job in jobs:
                clock = max(int(self._wall() * 1_000_000), clock + 1)
                batch.append(self._run(job, clock, batch))
            records = self._append(batch)
            self._remember(batch)
            self._connection.execute("INSERT OR REPLACE INTO holdfast_meta VALUES ('clock', ?)", (str(clock),))
            self._connection.execute(_COMMIT)
        finally:
            if self._connection.in_transaction:
                self._connection.execute(_ROLLBACK)
        self.clock = clock
        return [
            done.outcome if isinstance(done.outcome, BaseException) else Outcome(done.outcome, mine, done.positions)
            for done, mine in zip(batch, records, strict=True)
        ]

    def _run(self, job: Job, clock: int, batch: Sequence[_Done]) -> _Done:
        """Run one change in its savepoint; raises what has ended the whole transaction."""
        connection = self._connection
        deadline = time.monotonic() + CHANGE_SECONDS
        transaction = SqliteTransaction(connection, self._epoch, self._codec, clock, deadline)
        connection.execute(_SAVEPOINT)
        self._deadline = deadline
        try:
            done = self._decide(transaction, job, clock, batch)
        except BaseException as error:
            done = _Done(self._named(error), clock, once=job.once if isinstance(error, Refused) else None)
        finally:
            transaction.end()
            self._deadline = None
        if not connection.in_transaction:
            rolled_back = ChangeFailed("the transaction was rolled back by a statement of the change")
            raise done.outcome if isinstance(done.outcome, Exception) else rolled_back
        if isinstance(done.outcome, BaseException):
            connection.execute(_UNDO)
        connection.execute(_RELEASE)
        return done

    def _decide(self, transaction: SqliteTransaction, job: Job, clock: int, batch: Sequence[_Done]) -> _Done:
        once = job.once
        if once is not None:
            verdict = self._verdict(transaction, job, once, clock, batch)
            if verdict is not None:
                return verdict
        result = job.change(transaction, *job.args, **job.kwargs)
        if once is not None:
            _encode(result)
        return _Done(result, clock, transaction.published, once=once)

    def _verdict(
        self, transaction: SqliteTransaction, job: Job, once: Once, clock: int, batch: Sequence[_Done]
    ) -> _Done | None:
        """Return what the first command under this key came to, if there was one."""
        conflict = _Done(Invalid("this key was used for another command", field="key"), clock)
        for done in batch:
            if done.once is not None and (done.once.user, done.once.key) == (once.user, once.key):
                if done.once.fingerprint != once.fingerprint:
                    return conflict
                if done.once.part == once.part:
                    return _Done(done.outcome, clock, repeats=done)
        other = "SELECT 1 FROM holdfast_verdict WHERE user = ? AND key = ? AND fingerprint != ?"
        if transaction.one(other, (once.user, once.key, once.fingerprint)) is not None:
            return conflict
        row = transaction.one(
            "SELECT refusal, answer, published FROM holdfast_verdict WHERE user = ? AND key = ? AND part = ?",
            (once.user, once.key, once.part),
        )
        if row is None:
            return None
        if row["refusal"] is not None:
            message, name = msgspec.json.decode(row["answer"], type=tuple[str, str | None])
            return _Done(refusal_called(row["refusal"])(message, field=name), clock)
        result = msgspec.json.decode(row["answer"], type=_result_type(job.change))
        positions = msgspec.json.decode(row["published"], type=tuple[tuple[str, int], ...])
        return _Done(result, clock, positions=positions)

    def _remember(self, batch: Sequence[_Done]) -> None:
        """Keep what was decided under a key; that which repeats a decision learns where that one has published."""
        for done in batch:
            if done.repeats is not None:
                done.positions = done.repeats.positions
            if done.once is None:
                continue
            if isinstance(done.outcome, Refused):
                refusal, answer = done.outcome.code, _encode([done.outcome.message, done.outcome.field])
            else:
                refusal, answer = None, _encode(done.outcome)
            self._connection.execute(
                "INSERT INTO holdfast_verdict (user, key, part, fingerprint, at, refusal, answer, published) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    done.once.user, done.once.key, done.once.part, done.once.fingerprint, done.clock,
                    refusal, answer, _encode(done.positions),
                ),
            )  # fmt: skip

    def _named(self, error: BaseException) -> Exception:
        """Return the error that the change's caller is told."""
        if isinstance(error, StopIteration) or not isinstance(error, Exception):
            return ChangeFailed(f"the change raised {error!r}, which nobody can be told")  # a future cannot hold it
        if isinstance(error, sqlite3.Error) and self._deadline is not None and time.monotonic() > self._deadline:
            return ChangeFailed(f"the change was interrupted: it took more than {CHANGE_SECONDS:g} s")
        if isinstance(error, sqlite3.DatabaseError) and str(error) == "not authorized":
            return ChangeFailed("a change may not begin, commit or roll back, attach, or set pragmas: hub.write does")
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _BEYOND_THE_CHANGE:
            return StoreError(f"the change could not be written: {error}")
        return error

    def _append(self, batch: Sequence[_Done]) -> list[tuple[Record, ...]]:
        """Put what was published into the logs: here, so that the order of offsets is the order of commits."""
        execute = self._connection.execute
        heads: dict[str, tuple[int, int]] = {}
        records: list[tuple[Record, ...]] = []
        for done in batch:
            mine = []
            for room, type, body in done.published:
                if room not in heads:
                    row = execute("SELECT id, head FROM holdfast_room WHERE name = ?", (room,)).fetchone()
                    if row is None:
                        row = (execute("INSERT INTO holdfast_room (name, head) VALUES (?, 0)", (room,)).lastrowid, 0)
                    heads[room] = row
                room_id, head = heads[room]
                heads[room] = (room_id, head + 1)
                execute(
                    "INSERT INTO holdfast_log (room_id, offset, at, type, body) VALUES (?, ?, ?, ?, ?)",
                    (room_id, head + 1, done.clock, type, body.decode()),
                )
                mine.append(Record(room, head + 1, type, body))
            records.append(tuple(mine))
            if mine:
                done.positions = tuple((record.room, record.offset) for record in mine)
        for room_id, head in heads.values():
            execute("UPDATE holdfast_room SET head = ? WHERE id = ?", (head, room_id))
        return records

    def _authorize(self, action: int, *_: object) -> int:
        # Asked when a statement is prepared; our own are prepared while no change is running.
        return sqlite3.SQLITE_DENY if self._deadline is not None and action in _FORBIDDEN else sqlite3.SQLITE_OK

    def _too_long(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline


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

#: Primary result codes (https://sqlite.org/rescode.html) for which the change is not to blame.
_BEYOND_THE_CHANGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT}


def _encode(answer: object) -> str:
    try:
        return msgspec.json.encode(answer).decode()
    except (TypeError, ValueError) as error:
        raise ChangeFailed(f"what is answered under a key must be JSON: {error}") from None


def _result_type(change: Callable[..., Any]) -> Any:
    """Return the type that a change says it returns, so that a remembered result has it again."""
    try:
        return get_type_hints(change).get("return", Any)
    except (NameError, TypeError):
        return Any  # it is named only for type checkers, or the change is no plain function


def _iso(microseconds: int) -> str:
    moment = datetime(1970, 1, 1) + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds") + "Z"
