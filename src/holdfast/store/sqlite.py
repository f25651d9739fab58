"""
How is everything kept in one SQLite file?

One thread owns the one connection that writes and checkpoints (with two, SQLite before
3.51.3 can corrupt a WAL); readers have read-only connections of their own. A commit is on
the disk before anybody hears of it (`synchronous=FULL`), and waiting changes share it, so
that costs little. A lock file keeps other processes out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, TypeVar

from holdfast.core.ready import CHUNK_BYTES, Span
from holdfast.errors import Closed, StoreError, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.store.lock import Lock
from holdfast.store.retention import forget_publications, forget_verdicts
from holdfast.store.store import Once, Outcome, ReadTransaction, Record, Retention, Transaction
from holdfast.store.transaction import Committer, Job, SqliteReadTransaction
from holdfast.store.worker import ThreadWorker, Worker

logger = logging.getLogger("holdfast.store")

P = ParamSpec("P")
T = TypeVar("T")

#: Changes in one commit: enough to make an fsync cheap, few enough that the first does not wait long.
BATCH_CHANGES = 512
#: Changes that may wait: beyond this the disk does not keep up, and it is kinder to say so.
WAITING_CHANGES = 10_000
#: Publications in one page for those who catch up, which is also at most `CHUNK_BYTES` long.
PAGE_RECORDS = 256
READERS = 2
#: Seconds between two looks at what may be forgotten, and between two notes of how far the file has come.
FORGET_EVERY = 60.0
_SCHEMA = ("sqlite.sql", "sqlite-2.sql")


class SqliteStore:
    """A store in the file `path`; `memory:` is a file in a temporary folder."""

    epoch: str
    secret: str

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
        self._worker = ThreadWorker("holdfast-writer") if worker is None else worker
        self._given_reads = reads
        self._wall = wall
        self._waiting: deque[Job] = deque()
        self._accepting = False

    # Its life.

    async def open(self, news: Callable[[Sequence[Record]], None]) -> None:
        """Open it; `news` is called in this event loop with what was committed, in order."""
        self._news = news
        self._loop = asyncio.get_running_loop()
        with ExitStack() as held:
            if self._in_memory:
                folder = held.enter_context(TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True))
                self.path = Path(folder, "memory.db")
            self._lock = held.enter_context(closing(Lock(self.path)))
            self._connection = held.enter_context(closing(self._connect()))
            self._prepare()
            self._migrate("holdfast", [files("holdfast.store.schema").joinpath(name).read_text() for name in _SCHEMA])
            self._migrate("app", self._migrations)
            self._identify()
            self._committer = Committer(self._connection, self.epoch, self._codec, self._wall)
            self._lock.witness(self._committer.clock)
            self._local = threading.local()
            self._readers = held.enter_context(ExitStack())
            self._reads = self._given_reads or held.enter_context(ThreadPoolExecutor(READERS, "holdfast-reader"))
            self._held = held.pop_all()
        self._worker.start(self._drain)
        self._accepting = True
        self._housekeeping = self._loop.create_task(self._keep_house())

    async def close(self) -> None:
        """Finish what was accepted, and close it."""
        if not self._accepting:
            return
        self._accepting = False
        self._housekeeping.cancel()
        await self._worker.stop()
        self._drain()
        await asyncio.sleep(0)  # let the last answers arrive
        with self._held:
            self._lock.witness(self._committer.clock)

    def _connect(self) -> sqlite3.Connection:
        try:
            # The signing key is in it: for its owner only.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open {self.path}: {error}") from None

    def _prepare(self) -> None:
        execute = self._connection.execute
        try:
            execute("PRAGMA journal_mode = WAL")
            execute("PRAGMA synchronous = FULL")
            execute("PRAGMA foreign_keys = ON")
            execute(
                "CREATE TABLE IF NOT EXISTS holdfast_migration "
                "(owner TEXT, number INTEGER, PRIMARY KEY (owner, number))"
            )
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {self.path}: {error}") from None

    def _migrate(self, owner: str, scripts: Sequence[str]) -> None:
        """Run the scripts that have not been run on this file, each in a transaction."""
        (done,) = self._connection.execute(
            "SELECT coalesce(max(number), 0) FROM holdfast_migration WHERE owner = ?", (owner,)
        ).fetchone()
        for number, script in enumerate(scripts[done:], done + 1):
            note = f"INSERT INTO holdfast_migration VALUES ('{owner}', {number})"  # noqa: S608 - both are ours
            try:
                self._connection.executescript(f"BEGIN IMMEDIATE;\n{script}\n;{note};COMMIT;")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise StoreError(f"{self.path}: migration {number} of {owner}: {error}") from error

    def _identify(self) -> None:
        """
        Learn the epoch and the signing key, or begin a life of its own with new ones.

        A file that is not the one in which the epoch was written (another inode), or that has not come
        as far as was witnessed, is a copy: it may be older than what clients have seen, so their
        positions must not be read against it.
        """
        meta = dict(self._connection.execute("SELECT key, value FROM holdfast_meta"))
        status = self.path.stat()
        inode = f"{status.st_dev}:{status.st_ino}"
        is_older = self._lock.witnessed > int(meta.get("clock", 0))
        if meta.get("inode") != inode or is_older:
            meta["epoch"] = new_epoch()
        meta.setdefault("secret", secrets.token_hex(32))
        meta["inode"] = inode
        self._connection.executemany(
            "INSERT OR REPLACE INTO holdfast_meta VALUES (?, ?)",
            [(key, meta[key]) for key in ("epoch", "secret", "inode")],
        )
        self.epoch, self.secret = meta["epoch"], meta["secret"]

    # Writing.

    async def write(self, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `change` in a transaction, and return what it returned once that is on the disk."""
        outcome = await self.commit(change, args, kwargs)
        result: T = outcome.result
        return result

    async def commit(
        self,
        change: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        once: Once | None = None,
    ) -> Outcome:
        """Like `write`, with what was published; with `once`, a repetition is answered as the first was."""
        if not self._accepting:
            raise Closed("the store is closed")
        if len(self._waiting) >= WAITING_CHANGES:
            raise Unavailable(f"{WAITING_CHANGES} changes are waiting for the disk; try again")
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def answer(outcome: Outcome | BaseException) -> None:
            if future.cancelled():
                return
            if isinstance(outcome, Outcome):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

        self._waiting.append(Job(change, args, kwargs or {}, once, answer))
        self._worker.wake()
        return await future

    def _drain(self) -> None:
        """Commit whatever waits (in the writer's thread)."""
        while self._waiting:
            jobs = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_CHANGES))]
            outcomes = self._committer.commit(jobs)
            self._lock.witness(self._committer.clock)  # before anybody is told: a restored file is seen to be older
            self._loop.call_soon_threadsafe(self._tell, jobs, outcomes)

    def _tell(self, jobs: list[Job], outcomes: list[Outcome | BaseException]) -> None:
        """Answer those who wait, and give the news (in the event loop, after the commit)."""
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.answer(outcome)
        records = [record for outcome in outcomes if isinstance(outcome, Outcome) for record in outcome.publications]
        if records:
            self._news(records)

    async def _keep_house(self) -> None:
        while True:
            try:
                if self._retention is not None:
                    await self.forget(self._retention)
            except Exception:
                logger.exception("the log could not be trimmed; it is tried again")
            await asyncio.sleep(FORGET_EVERY)

    async def forget(self, retention: Retention) -> None:
        """Forget what need not be kept, a little at a time, so that no writer waits long."""
        room: int | None = 0
        while room is not None:
            room = (await self.commit(forget_publications, (retention, room))).result
        while (await self.commit(forget_verdicts, (retention,))).result:
            pass

    # Reading.

    async def read(self, query: Callable[Concatenate[ReadTransaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `query` on one moment of the store, and return what it returned."""
        if not self._accepting:
            raise Closed("the store is closed")

        def run() -> T:
            connection = self._reader()
            connection.execute("BEGIN")
            try:
                return query(SqliteReadTransaction(connection, self.epoch), *args, **kwargs)
            finally:
                connection.execute("ROLLBACK")

        return await self._loop.run_in_executor(self._reads, run)

    async def span(self, room: str) -> Span:
        """Return what the log of `room` holds."""
        return await self.read(_span, room)

    async def page(self, room: str, after: int) -> list[Record]:
        """Return what follows `after`: from the first that is left, as much as fits a page."""
        return await self.read(_page, room, after)

    def _reader(self) -> sqlite3.Connection:
        """Return this thread's own connection, which cannot write."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            self._local.connection = self._readers.enter_context(closing(connection))
        return connection


def new_epoch() -> str:
    """Return a name for a life of the log that no other has had."""
    return secrets.token_hex(4)


def _span(transaction: ReadTransaction, room: str) -> Span:
    row = transaction.one(
        "SELECT head, (SELECT min(offset) FROM holdfast_log WHERE room_id = id) AS floor "
        "FROM holdfast_room WHERE name = ?",
        (room,),
    )
    if row is None:
        return Span(1, 0)
    return Span(row["head"] + 1 if row["floor"] is None else row["floor"], row["head"])


def _page(transaction: ReadTransaction, room: str, after: int) -> list[Record]:
    rows = transaction.all(
        "SELECT offset, type, body FROM holdfast_log "
        "WHERE room_id = (SELECT id FROM holdfast_room WHERE name = ?) AND offset > ? ORDER BY offset LIMIT ?",
        (room, after, PAGE_RECORDS),
    )
    records: list[Record] = []
    size = 0
    for row in rows:
        body = row["body"].encode()
        size += len(body)
        if records and size > CHUNK_BYTES:
            break
        records.append(Record(room, row["offset"], row["type"], body))
    return records
