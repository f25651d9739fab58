"""
What may a change do to a PostgreSQL database, and what became of a commit whose answer was lost?

A change may do anything but control the transaction, or take long. Changes that do
anything run at SERIALIZABLE: what one reads and writes is as if it had been alone, on all
nodes; whoever comes second is run again. Publications alone need only their rooms' head
rows, which they wait for.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence, Set
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from holdfast.errors import ChangeFailed, OutcomeUnknown, StoreError, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.store import transaction
from holdfast.store.commit import DISK_IS_FULL, Again, Later
from holdfast.store.held import BRIEF_MS, NO_MS, PATIENCE_MS, Held, HeldRooms
from holdfast.store.postgres_database import Connection, Database, Moved, begin
from holdfast.store.postgres_sql import controls, holds_several, to_postgres
from holdfast.store.transaction import OpenTransaction, Published

#: Seconds for which the fate of a commit whose answer was lost is asked for.
FATE_SECONDS = 10.0
#: Milliseconds that whoever came too late waits for the others to come to an end; none begins meanwhile.
TURN_MS = 200
#: … and that the others wait for whoever has come too late.
OTHERS_MS = 1_000

_HELD = "somebody else holds what is to be written, and does not come to an end"


class PostgresConnection:
    """Runs the statements of queries."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, sql: str, parameters: Sequence[object]) -> Any:
        """Run one statement."""
        return self._connection.execute(to_postgres(sql), tuple(parameters))


class PostgresSession:
    """The connection through which changes are committed (see `Session`)."""

    def __init__(self, database: Database, codec: Codec) -> None:
        self._database = database
        self._codec = codec
        self._home = database.here
        self._id = secrets.token_hex(8)
        self._batch = 0
        self._committed = 0  # the newest batch of which that is known
        self._connection = database.connect()
        self._enlist()
        self._numbers: Connection | None = None
        self._began = False  # at SERIALIZABLE, for a change
        self._saved: bool | None = None  # whether the savepoint stands before the change that runs; None: there is none
        self._failed: Exception | None = None  # a statement of the change that runs
        self._deadline = 0.0  # of the change that runs
        self._patience = PATIENCE_MS  # that it has with whoever holds what it needs
        self._has_waited = False  # in vain, in this batch: whoever comes next in it does not wait as well
        self._counted = False  # the batch, in its transaction
        self._is_late = False  # others were first: now it is our turn
        self._held = HeldRooms()
        newest = self._connection.execute("SELECT coalesce(max(at), 0) FROM holdfast_room").fetchone()
        self.clock = newest[0] if newest is not None else 0

    @property
    def epoch(self) -> str:
        """That of the log which it writes."""
        return self._home.epoch

    def begin(self) -> None:
        """Be ready for a transaction; it begins with its first statement."""
        self._began, self._saved, self._failed, self._counted = False, None, None, False
        self._has_waited = False
        connection = self._connection
        if connection.closed or not connection.is_trusted() or self._home is not self._database.home:
            try:
                self.close()
                home = self._database.here
                self._home, self._committed = home, self._committed if home == self._home else 0
                self._connection = self._database.connect(home)
                self._enlist()
            except psycopg.Error as error:
                self.close()  # it is not enlisted: another is dialled next time
                raise Unavailable("the database cannot be reached") from error

    def open(self, clock: int, *, has_waited: bool) -> OpenTransaction:
        """Return what a change acts through."""
        self._failed = None
        self._patience = NO_MS if self._has_waited else BRIEF_MS if has_waited else PATIENCE_MS
        if self._saved:
            self._saved = False
        self._deadline = time.monotonic() + transaction.CHANGE_SECONDS
        return OpenTransaction(self, self._home.epoch, self._codec, clock, self._deadline)

    # What a change does.

    def run(self, sql: str, parameters: Sequence[object]) -> Any:
        """Run one statement of a change."""
        if controls(sql):
            raise ChangeFailed("a change may not begin, commit or roll back: hub.write does")
        if holds_several(sql):  # COMMIT could be among them
            raise ChangeFailed("one statement at a time")
        try:
            self._save()
            return self._connection.execute(to_postgres(sql), tuple(parameters))
        except psycopg.Error as error:
            self._has_waited |= isinstance(error, errors.LockNotAvailable)
            self._failed = error
            raise

    def new_id(self, kind: str) -> int:
        """Return a number that was never given before: not even to a change that is undone."""
        if not _KIND.fullmatch(kind):
            raise ChangeFailed(f"an id begins with lower-case letters, digits and _, not {kind!r}")
        sequence = f"holdfast_id_{kind}"
        # By a connection of its own: nobody waits for a number, and a sequence that is made is there for everybody.
        try:
            if self._numbers is None or self._numbers.closed:
                self._numbers = self._database.connect()
            try:
                row = self._numbers.execute("SELECT nextval(%s::regclass)", (sequence,)).fetchone()
            except errors.UndefinedTable:
                self._numbers.execute(f"CREATE SEQUENCE IF NOT EXISTS {sequence}".encode())
                return self.new_id(kind)
        except (psycopg.OperationalError, Unavailable) as error:
            self.close()  # both are dialled anew, or everybody who waits is told that they cannot be
            raise Again from error
        assert row is not None
        return int(row[0])

    def check(self) -> None:
        """Raise `ChangeFailed` if an earlier statement has failed."""
        if self._failed is not None:
            raise ChangeFailed(f"an earlier statement of the change has failed: {self._failed}")

    def _enlist(self) -> None:
        """Be a writer whose batches are counted; those of long ago are forgotten. Raises `Moved` if it has lost any."""
        self._connection.execute(_TIDY)
        self._connection.execute(
            "INSERT INTO holdfast_writer (id, batch) VALUES (%s, %s) ON CONFLICT DO NOTHING", (self._id, self._batch)
        )
        row = self._connection.execute("SELECT batch FROM holdfast_writer WHERE id = %s", (self._id,)).fetchone()
        if row is not None and self._has_lost(row[0]):
            raise Moved("the database has lost what was committed")

    def _has_lost(self, batch: int) -> bool:
        """Whether batches that were committed are not there, if this one is the newest; then nobody trusts it."""
        if batch >= self._committed:
            return False
        self._connection.close()
        self._database.distrust(self._home)
        return True

    def _save(self) -> None:
        """Have a savepoint to which what the change does can be undone."""
        patience = f"SET LOCAL lock_timeout = {self._patience}"
        if not self._began:
            self._take_turn()
            self._began = True
        elif self._saved is None:
            self._connection.execute(f"SAVEPOINT holdfast_change; {patience}".encode())
        elif not self._saved:
            self._connection.execute(
                f"RELEASE SAVEPOINT holdfast_change; SAVEPOINT holdfast_change; {patience}".encode()
            )
        self._saved = True

    def _take_turn(self) -> None:
        """
        Begin. Changes run side by side, but one that has come too late runs alone, or it might for ever.

        A lock on a table is waited for before the transaction sees anything (LOCK takes no snapshot).
        """
        while True:
            waits, mode = (TURN_MS, "EXCLUSIVE") if self._is_late else (OTHERS_MS, "ROW SHARE")
            lock = (
                f"SET LOCAL lock_timeout = {waits}; LOCK TABLE holdfast_turn IN {mode} MODE; "
                f"SET LOCAL lock_timeout = {self._patience}; {_DURABLE}"
            )
            statements = f"{begin('SERIALIZABLE').decode()}; {lock}; SAVEPOINT holdfast_change"
            try:
                self._connection.execute(statements.encode())
                return
            except (errors.LockNotAvailable, errors.QueryCanceled) as error:  # they are not to hold everybody up
                self._connection.execute("ROLLBACK")
                if self._is_late:
                    self._is_late = False
                    continue
                raise Later(_HELD) from error

    def named(self, error: BaseException) -> Exception:
        """Return the error that the change's caller is told."""
        if isinstance(error, StopIteration) or not isinstance(error, Exception):
            return ChangeFailed(f"the change raised {error!r}, which nobody can be told")  # a future cannot hold it
        if isinstance(error, errors.LockNotAvailable):
            return Later(_HELD)
        if isinstance(error, errors.QueryCanceled) and time.monotonic() < self._deadline - 0.1:
            return StoreError(f"the change was interrupted: {error}")
        if isinstance(error, errors.QueryCanceled):
            return ChangeFailed(f"the change was interrupted: it took more than {transaction.CHANGE_SECONDS:g} s")
        if isinstance(error, errors.DiskFull):
            return Unavailable(DISK_IS_FULL)
        if isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in _BEYOND_THE_CHANGE:
            return StoreError(f"the change could not be written: {error}")
        return error

    def settle(self, error: Exception | None) -> Exception | None:
        """Keep what the change did, or undo it; return what its caller is told."""
        failed = self._failed
        if isinstance(error, Again):
            raise error
        if isinstance(failed, _SECOND):
            raise self._again(failed) from failed
        if self._connection.closed:
            raise Again from failed
        if error is None and failed is not None:
            error = self.named(failed)
        if error is not None and self._saved:
            self._execute("ROLLBACK TO SAVEPOINT holdfast_change")
        return error

    def is_doubtful(self, error: Exception) -> bool:
        """
        Whether others may have done the same meanwhile.

        Where a row that is already there is met before the conflict of two transactions is, PostgreSQL says so
        (https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html).
        """
        return isinstance(error, errors.UniqueViolation | errors.ExclusionViolation)

    # What the log does.

    def execute(self, sql: str, parameters: Sequence[object]) -> None:
        """Run a statement of the log's own."""
        try:
            self._execute(to_postgres(sql), tuple(parameters))
        except errors.UniqueViolation as error:  # somebody has just decided under the same key
            raise Again from error
        except errors.LockNotAvailable as error:
            raise Unavailable("somebody else decides under the same key, and does not come to an end") from error

    def append(self, published: Sequence[tuple[Published, int]]) -> Sequence[int]:
        """Put publications, each with its time, into the logs; return their offsets."""
        if not published:
            return ()
        rooms = {each.room for each, _ in published}
        patience = self._held.patience(rooms)
        self._batch += 1
        # One message to the server, and one answer; where nothing else is written, it begins the transaction too.
        beginning = b"" if self._began else begin("READ COMMITTED") + b"; "
        beginning += f"SET LOCAL lock_timeout = {patience}; ".encode()
        try:
            cursor = self._execute(
                beginning + _COUNT + b"; SELECT holdfast_append_many(%s, %s, %s, %s, %s)",
                (
                    self._id,
                    self._batch,
                    [each.room for each, _ in published],
                    [each.type for each, _ in published],
                    [each.body.decode() for each, _ in published],
                    [clock for _, clock in published],
                    self._began,
                ),
                self._connection.cursor_in_one(),
            )
        except errors.LockNotAvailable as error:
            raise self._find_held(rooms) from error
        self._held.free(rooms)
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        assert row is not None
        offsets: list[int] = row[0]
        self._counted = True
        return offsets

    def _find_held(self, rooms: Set[str]) -> Exception:
        """Return what is to be done, after these rooms were not to be had: `Held`, or `Again` if they are free now."""
        self._execute("ROLLBACK")
        try:
            return self._held_among(rooms)
        except errors.LockNotAvailable:  # somebody holds all of them
            self._execute("ROLLBACK")
            self._held.hold(rooms)
            return Held(rooms)

    def _held_among(self, rooms: Set[str]) -> Exception:
        self._execute(f"BEGIN; SET LOCAL lock_timeout = {BRIEF_MS}")
        there = {name for (name,) in self._execute(_THERE, (list(rooms),))}
        free = {name for (name,) in self._execute(_THERE + " FOR UPDATE SKIP LOCKED", (list(rooms),))}
        self._execute("COMMIT")
        held = there - free
        for room in rooms - there:
            try:
                self._execute(f"BEGIN; SET LOCAL lock_timeout = {BRIEF_MS}")
                self._execute(_MAKE, (room,))
                self._execute("COMMIT")
            except errors.LockNotAvailable:  # somebody is making it
                self._execute("ROLLBACK")
                held.add(room)
        if not held:
            return self._again()
        self._held.hold(held)
        return Held(held)

    def _execute(
        self, sql: str | bytes, parameters: Sequence[object] | None = None, by: psycopg.Cursor[Any] | None = None
    ) -> Any:
        """Run a statement; `Again` if others were first, or if the link is lost, for then nothing has happened."""
        try:
            return (self._connection if by is None else by).execute(sql, parameters)
        except _SECOND as error:
            raise self._again(error) from error
        except errors.QueryCanceled as error:
            raise Unavailable(_HELD) from error
        except psycopg.OperationalError as error:
            if self._connection.closed:
                raise Again from error
            raise

    def _again(self, error: psycopg.Error | None = None) -> Again:
        """Return what has the batch run again; others were first this time."""
        self._is_late = True
        detail = (error.diag.message_detail if error else None) or ""
        return Again(int(detail) if detail.isdigit() else 0)

    def commit(self, clock: int) -> None:
        """Commit: when this returns, it is on the server's disk."""
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            if not self._counted:
                # Also if it has only read: what it has read was committed, and is to be as safe as its answer says.
                self._batch += 1
                try:
                    self._execute(_COUNT, (self._id, self._batch))
                except errors.LockNotAvailable as error:
                    raise Unavailable(_HELD) from error
            try:
                self._connection.warned = False
                self._connection.execute("COMMIT")
                if self._connection.warned:  # "… might not have been replicated to the standby"
                    raise psycopg.OperationalError("the commit was not waited for")
            except _SECOND as error:
                raise self._again(error) from error
            except psycopg.OperationalError as error:
                self._learn(error)
            self._is_late = False
            self._committed = self._batch
        self.clock = clock

    def abandon(self) -> None:
        """Roll back what has not been committed."""
        if not self._connection.closed and self._connection.info.transaction_status == TransactionStatus.IDLE:
            return
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:  # the server rolls back what nobody holds any more
            self._connection.close()

    def close(self) -> None:
        """Give the connections back."""
        self._connection.close()
        if self._numbers is not None:
            self._numbers.close()

    def _learn(self, cause: Exception) -> None:
        """Ask what became of a commit whose answer was lost."""
        until = time.monotonic() + FATE_SECONDS
        while time.monotonic() < until:
            try:
                self._connection.close()
                self._connection = self._database.connect()
                self._connection.execute(begin("READ COMMITTED"))
                row = self._connection.execute(_COUNTED, (self._id,)).fetchone()  # waits for one that is still at it
                # A commit of our own is as far as that one, or further, also at a standby that is waited for.
                self._connection.execute("UPDATE holdfast_writer SET at = now() WHERE id = %s", (self._id,))
                self._connection.warned = False
                self._connection.execute("COMMIT")
                if self._connection.warned:
                    continue
            except Moved:
                break
            except (psycopg.Error, Unavailable):
                time.sleep(0.1)
                continue
            if row is None or self._has_lost(row[0]):
                break
            if row[0] == self._batch:
                return
            raise Again from cause
        raise OutcomeUnknown(
            "the database was lost in the middle of a commit: look at what there is, or try again under the same key"
        ) from cause


#: A batch is counted with what it has written.
_COUNT = b"""
INSERT INTO holdfast_writer (id, batch) SELECT %s, %s
    ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, at = now()
"""
#: What is acknowledged may not be lost any more, whatever the database is set to.
_DURABLE = "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
_THERE = "SELECT name FROM holdfast_room WHERE name = ANY(%s)"
_MAKE = "INSERT INTO holdfast_room (name) VALUES (%s) ON CONFLICT DO NOTHING"
_COUNTED = "SELECT batch FROM holdfast_writer WHERE id = %s FOR UPDATE"
_TIDY = "DELETE FROM holdfast_writer WHERE at < now() - interval '1 day'"


_KIND = re.compile(r"[a-z0-9_]{1,40}")

#: Others were first: run it again.
_SECOND = (errors.SerializationFailure, errors.DeadlockDetected)
#: Classes of SQLSTATE for which the change is not to blame: no resources, the operator, the system, the disk.
_BEYOND_THE_CHANGE = {"53", "57", "58", "XX"}
