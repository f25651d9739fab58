"""
How is everything kept in one SQLite file?

One thread owns the one connection that writes and checkpoints (with two, SQLite before
3.51.3 can corrupt a WAL); readers have read-only connections of their own. A commit is on
the disk before anybody hears of it (`synchronous=FULL`; what is in `memory:` need not be), and
waiting changes share it, so that costs little. A lock file keeps other processes out.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from holdfast.errors import StoreError
from holdfast.protocol.codec import Codec
from holdfast.store.commit import Committer, Job
from holdfast.store.lock import Lock
from holdfast.store.migrations import Migration, pending
from holdfast.store.retention import keep_house
from holdfast.store.sqlite_session import SqliteConnection, SqliteSession, begin_log_anew, is_failure_of_disk
from holdfast.store.store import Listener, Outcome, Retention, new_epoch, published
from holdfast.store.threaded import ThreadedStore
from holdfast.store.transaction import OpenReadTransaction
from holdfast.store.trouble import Trouble
from holdfast.store.worker import ThreadWorker, Worker
from holdfast.store.writer import Writer

T = TypeVar("T")

#: Threads that run the application's queries, and those that read the log: who joins waits for no slow query.
READERS, LOG_READERS = 2, 2
_SCHEMA = ("sqlite.sql", "sqlite-2.sql", "sqlite-3.sql")


class SqliteStore(ThreadedStore):
    """A store in the file `path`; `memory:` is a file in a temporary folder."""

    epoch: str
    secret: str
    others = None

    def __init__(
        self,
        path: str,
        codec: Codec,
        *,
        migrations: Sequence[str] = (),
        retention: Retention | None = None,
        worker: Worker | None = None,
        reads: Executor | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._in_memory = path == "memory:"
        self._codec = codec
        self._migrations = migrations
        self._retention = retention
        self._writer = Writer(ThreadWorker("holdfast-writer") if worker is None else worker)
        self._given_reads = reads
        self._wall = wall
        self._lock = Lock()
        self._held = ExitStack()  # all that is open
        self._trouble = Trouble("changes cannot be committed (%s)", "changes can be committed again")

    # Its life.

    async def open(self, listener: Listener) -> None:
        """Open it; from now on `listener` is told what was committed."""
        with ExitStack() as held:
            if self._in_memory:
                folder = held.enter_context(TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True))
                self.path = Path(folder, "memory.db")
            held.enter_context(closing(self._lock.take(self.path)))
            self._connection = held.enter_context(closing(self._connect()))
            has_begun = self._prepare()
            self._migrate("holdfast", [files("holdfast.store.schema").joinpath(name).read_text() for name in _SCHEMA])
            self._migrate("app", self._migrations)
            self._identify()
            session = SqliteSession(self._connection, self.epoch, self._codec, has_begun=has_begun)
            self._committer = Committer(session, self._wall)
            self._lock.witness(self._committer.clock)
            self._local = threading.local()
            self._readers = held.enter_context(ExitStack())
            self._reads = self._given_reads or held.enter_context(ThreadPoolExecutor(READERS, "holdfast-reader"))
            self._log_reads = self._given_reads or held.enter_context(ThreadPoolExecutor(LOG_READERS, "holdfast-log"))
            self._held = held.pop_all()
        self._writer.start(self._commit, lambda outcomes: listener.news(published(outcomes)))
        self._housekeeping = asyncio.create_task(keep_house(self.read, self.commit, self._retention, self._wall))

    async def close(self) -> None:
        """Finish what was accepted, and close it."""
        if not self._writer.accepting:
            return
        self._housekeeping.cancel()
        await self._writer.stop()
        with self._held:
            self._lock.witness(self._committer.clock)

    def abandon(self) -> ExitStack:
        """
        Let go of the file in the middle of whatever this is at, as the kernel does for a process that is gone.

        Returns what else is open, for whoever knows that no thread is using it.
        """
        self._writer.accepting = False
        self._lock.close()
        return self._held

    def _connect(self) -> sqlite3.Connection:
        try:
            # The signing key is in it: for its owner only.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open {self.path}: {error}") from None

    def _prepare(self) -> bool:
        """Have it as we need it; return whether its log has begun anew, which takes room on the disk."""
        execute = self._connection.execute
        try:
            execute("PRAGMA journal_mode = WAL")
            execute(f"PRAGMA synchronous = {'OFF' if self._in_memory else 'FULL'}")  # it does not outlive us
            has_begun = False
            with suppress(sqlite3.Error):  # then what is there is served, and changes are not taken
                has_begun = begin_log_anew(self._connection)
            execute("PRAGMA foreign_keys = ON")
            execute(
                "CREATE TABLE IF NOT EXISTS holdfast_migration "
                "(owner TEXT, number INTEGER, hash TEXT, PRIMARY KEY (owner, number))"
            )
            if "hash" not in {column[1] for column in execute("PRAGMA table_info(holdfast_migration)")}:
                execute("ALTER TABLE holdfast_migration ADD COLUMN hash TEXT")  # the file is of before there were any
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {self.path}: {error}") from None
        return has_begun

    def _migrate(self, owner: str, scripts: Sequence[str]) -> None:
        """Run the scripts that have not been run on this file, each in a transaction."""
        self._connection.executemany(
            "UPDATE holdfast_migration SET hash = ? WHERE owner = ? AND number = ? AND hash IS NULL",
            [(Migration(owner, number, script).hash, owner, number) for number, script in enumerate(scripts, 1)],
        )
        rows = self._connection.execute("SELECT number, hash FROM holdfast_migration WHERE owner = ?", (owner,))
        for migration in pending(owner, scripts, dict(rows)):
            values = f"'{owner}', {migration.number}, '{migration.hash}'"
            note = f"INSERT INTO holdfast_migration VALUES ({values})"  # noqa: S608 - all of it is ours
            try:
                self._connection.executescript(f"BEGIN IMMEDIATE;\n{migration.script}\n;{note};COMMIT;")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise StoreError(f"{self.path}: migration {migration.number} of {owner}: {error}") from error

    def _identify(self) -> None:
        """
        Learn the epoch and the signing key, or begin a life of its own with new ones.

        A file that is not the one in which the epoch was written (another inode), or that has not come
        as far as was witnessed, is a copy: it may be older than what clients have seen, so their
        positions must not be read against it.
        """
        known = dict(self._connection.execute("SELECT key, value FROM holdfast_meta"))
        meta = dict(known)
        status = self.path.stat()
        inode = f"{status.st_dev}:{status.st_ino}"
        is_older = self._lock.witnessed > int(meta.get("clock", 0))
        if meta.get("inode") != inode or is_older:
            meta["epoch"] = new_epoch()
        meta.setdefault("secret", secrets.token_hex(32))
        meta["inode"] = inode
        try:
            self._connection.executemany(
                "INSERT OR REPLACE INTO holdfast_meta VALUES (?, ?)",
                meta.items() - known.items(),  # nothing, as a rule: there may be no room
            )
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {self.path}: {error}") from None
        self.epoch, self.secret = meta["epoch"], meta["secret"]

    # Writing.

    def _commit(self, jobs: list[Job]) -> list[Outcome | BaseException]:
        outcomes = self._committer.commit(jobs)
        causes = [outcome.__cause__ for outcome in outcomes if isinstance(outcome, BaseException)]
        failure = next(filter(is_failure_of_disk, causes), None)
        if failure is not None:
            self._trouble.begins(failure)
        elif len(causes) < len(outcomes):
            self._trouble.ends()
        self._lock.witness(self._committer.clock)  # before anybody is told: a restored file is seen to be older
        return outcomes

    # Reading.

    def _reading(self, query: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], T]:
        def run() -> T:
            connection = self._reader()
            connection.execute("BEGIN")
            try:
                return query(OpenReadTransaction(SqliteConnection(connection), self.epoch), *args, **kwargs)
            finally:
                connection.execute("ROLLBACK")

        return run

    def _reader(self) -> sqlite3.Connection:
        """Return this thread's own connection, which cannot write."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            self._local.connection = self._readers.enter_context(closing(connection))
        return connection
