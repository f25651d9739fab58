"""
How is everything kept in a PostgreSQL database?

As in SQLite: one thread commits what waits, readers have connections of their own. What
other nodes commit comes by the feed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from importlib.resources import files
from math import inf
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.rows import tuple_row

from holdfast.errors import StoreError, Unavailable
from holdfast.protocol.codec import Codec
from holdfast.store import transaction
from holdfast.store.commit import Committer
from holdfast.store.migrations import pending
from holdfast.store.postgres_database import LOCK, Connection, Database, Driver, Home, Moved, begin
from holdfast.store.postgres_feed import POLL_SECONDS, Feed
from holdfast.store.postgres_hints import Carrier, Hints, Notify
from holdfast.store.postgres_people import People
from holdfast.store.postgres_session import PostgresConnection, PostgresSession
from holdfast.store.postgres_words import words
from holdfast.store.retention import keep_house
from holdfast.store.store import Listener, Retention, new_epoch
from holdfast.store.threaded import ThreadedStore
from holdfast.store.transaction import OpenReadTransaction
from holdfast.store.trouble import Trouble
from holdfast.store.worker import ThreadWorker, Worker
from holdfast.store.writer import Writer

T = TypeVar("T")

#: Threads that run the application's queries, and those that read the log: who joins waits for no slow query.
READERS, LOG_READERS = 4, 2
_SCHEMA = ("postgres.sql",)
_APPEND = "SELECT holdfast_append(%s, %s, %s::jsonb, %s)"


def renew_epoch(dsn: str) -> str:
    """Give a database a new epoch, and return it. The servers that use it notice, and everybody starts afresh."""
    epoch = new_epoch()
    try:
        with closing(Database(dsn).connect_anywhere()) as connection:
            changed = connection.execute("UPDATE holdfast_meta SET value = %s WHERE key = 'epoch'", (epoch,))
    except psycopg.Error as error:
        raise StoreError(f"cannot write the database: {error}") from None
    if not changed.rowcount:
        raise StoreError("there is no store of holdfast in this database")
    return epoch


@contextmanager
def _only_at_home() -> Iterator[None]:
    """Say plainly that somebody's connection leads elsewhere."""
    try:
        yield
    except (errors.ObjectNotInPrerequisiteState, errors.UndefinedFunction) as error:
        raise StoreError(
            "the connection leads to another database than the hub's, or to another schema (search_path), "
            "or the log has another life by now; nothing was published"
        ) from error


class Lost(Unavailable):
    """The database was lost in the middle of a query."""


class PostgresStore(ThreadedStore):
    """
    A store in a PostgreSQL database.

    Args:
        dsn: The database; `listen` as in `Database`.
        carrier: What carries calls to the other nodes, before NOTIFY does.
        poll: Seconds after which is asked for news without a hint.
        worker, reads: What runs changes, and queries; threads of its own, unless they are given.
        driver: As in `Database`.
    """

    def __init__(
        self,
        dsn: str,
        codec: Codec,
        *,
        listen: str | None = None,
        carrier: Carrier | None = None,
        poll: float = POLL_SECONDS,
        migrations: Sequence[str] = (),
        retention: Retention | None = None,
        worker: Worker | None = None,
        reads: Executor | None = None,
        wall: Callable[[], float] | None = None,
        driver: Driver | None = None,
    ) -> None:
        self._database = Database(dsn, listen, driver)
        self._codec = codec
        self._poll = poll
        self._migrations = migrations
        self._retention = retention
        self._wall = self._database.now if wall is None else wall
        self._notify = Notify(self._database)
        self._trouble = Trouble("the database cannot be read (%s)", "the database can be read again")
        self._hints = Hints(self._database, *([] if carrier is None else [carrier]), self._notify)
        self.others = People(self._database, self._hints)
        self._writer = Writer(ThreadWorker("holdfast-writer") if worker is None else worker)
        self._given_reads = reads

    @property
    def epoch(self) -> str:
        """What names this log."""
        return self._database.here.epoch

    @property
    def secret(self) -> str:
        """32 random bytes as hex, to sign tokens with."""
        return self._secret

    # Its life.

    async def open(self, listener: Listener) -> None:
        """Open it; from now on `listener` is told what was committed, by whichever node."""
        async with AsyncExitStack() as begun:
            held = begun.enter_context(ExitStack())
            self._listener = listener
            self._feed = Feed(self._database, self._hints, listener, self._identify_again, self._moved, self._poll)
            self._hints.heard = listener.heard
            try:
                # A migration takes what it takes.
                with closing(self._database.connect_anywhere(patience=inf)) as connection:
                    self._database.check_settings(connection)
                    self._migrate(connection)
                    self._database.home = self._identify(connection)
                await self._notify.try_out()
                session = held.enter_context(closing(PostgresSession(self._database, self._codec)))
                begun.push_async_callback(self.others.hang_up)
                await self.others.open(listener)
                begun.push_async_callback(self._feed.hang_up)
                await self._feed.open()
            except (psycopg.Error, OSError) as error:
                raise StoreError(f"cannot open the database: {error}") from error
            self._local = threading.local()
            self._readers: set[Connection] = set()
            held.callback(self._close_readers)
            self._reads = self._given_reads or held.enter_context(ThreadPoolExecutor(READERS, "holdfast-reader"))
            self._log_reads = self._given_reads or held.enter_context(ThreadPoolExecutor(LOG_READERS, "holdfast-log"))
            self._held = held.pop_all()
            begun.pop_all()
        # From here on nothing waits: the listener is told of nothing before it knows that this is open.
        self._feed.start()
        self.others.start()
        self._hints.open()
        self._writer.start(Committer(session, self._wall).commit, self._feed.committed)
        self._housekeeping = asyncio.create_task(keep_house(self.read, self.commit, self._retention, self._wall))

    async def close(self) -> None:
        """Finish what was accepted, and close it."""
        if not self._writer.accepting:
            return
        self._housekeeping.cancel()
        await self._writer.stop()
        await self.others.close()
        await self._hints.close()
        await self._feed.close()
        self._held.close()

    def _migrate(self, connection: Connection) -> None:
        """Run the scripts that have not been run on this database: one process at a time, each in a transaction."""
        schema = [files("holdfast.store.schema").joinpath(name).read_text() for name in _SCHEMA]
        with connection.transaction():
            connection.execute(LOCK)
            if connection.execute("SELECT to_regclass('holdfast_migration')").fetchone() == (None,):
                connection.execute(
                    "CREATE TABLE holdfast_migration "
                    "(owner text, number integer, hash text NOT NULL, PRIMARY KEY (owner, number))"
                )
            for owner, scripts in (("holdfast", schema), ("app", self._migrations)):
                rows = connection.execute("SELECT number, hash FROM holdfast_migration WHERE owner = %s", (owner,))
                for migration in pending(owner, scripts, dict(rows.fetchall())):
                    try:
                        connection.execute(migration.script.encode())
                    except psycopg.Error as error:
                        raise StoreError(f"migration {migration.number} of {owner}: {error}") from error
                    connection.execute(
                        "INSERT INTO holdfast_migration VALUES (%s, %s, %s)", (owner, migration.number, migration.hash)
                    )

    def _identify(self, connection: Connection) -> Home:
        home, self._secret = self._database.identify(connection, words(self._codec))
        self._hints.sign_with(self._secret)
        return home

    def _identify_again(self) -> Home:
        with closing(self._database.connect_anywhere()) as connection:
            return self._identify(connection)

    def _moved(self) -> None:
        self.others.begin_anew()
        self._listener.moved()

    # Writing.

    def append_in(
        self, connection: Any, room: str, type: str, body: bytes, then: Callable[[int], T]
    ) -> T | Awaitable[T]:
        """Append to a log in a transaction of somebody else's, who has connected to the same database."""
        home = self._database.here
        parameters = (room, type, body.decode(), f"{home.place}:{home.epoch}")
        if isinstance(connection, psycopg.AsyncConnection):
            return self._append_and_wait(connection, parameters, then)
        with _only_at_home():
            row = connection.cursor(row_factory=tuple_row).execute(_APPEND, parameters).fetchone()
        return then(row[0])

    async def _append_and_wait(
        self, connection: psycopg.AsyncConnection[Any], parameters: tuple[str, ...], then: Callable[[int], T]
    ) -> T:
        with _only_at_home():
            cursor = await connection.cursor(row_factory=tuple_row).execute(_APPEND, parameters)
        row = await cursor.fetchone()
        assert row is not None
        return then(row[0])

    # Reading.

    def _reading(self, query: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], T]:
        home = self._database.here  # whoever asks now wants to know of this one, and of no other that comes meanwhile

        def run() -> T:
            try:
                return self._read(home, query, args, kwargs)
            except Lost:  # perhaps long ago; a query can be run again
                return self._read(home, query, args, kwargs)

        return run

    def _read(self, home: Home, query: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]) -> T:
        connection = self._reader(home)
        try:
            connection.execute(begin("REPEATABLE READ READ ONLY"))
            try:
                return query(OpenReadTransaction(PostgresConnection(connection), home.epoch), *args, **kwargs)
            finally:
                if not connection.broken:
                    connection.execute("ROLLBACK")
        except errors.QueryCanceled as error:
            raise StoreError(f"the query took more than {transaction.CHANGE_SECONDS:g} s") from error
        except psycopg.OperationalError as error:
            if not connection.broken:
                raise
            connection.close()
            self._trouble.begins(error)
            raise Lost("the database cannot be reached") from error

    def _close_readers(self) -> None:
        for reader in self._readers:
            reader.close()

    def _reader(self, home: Home) -> Connection:
        """Return this thread's own connection, which leads to `home`."""
        if home is not self._database.home:
            raise Moved("the log has begun anew since this was asked")
        kept: tuple[Connection, Home] | None = getattr(self._local, "kept", None)
        if kept is not None:
            if not kept[0].closed and kept[0].is_trusted() and kept[1] is home:
                return kept[0]
            kept[0].close()
            self._readers.discard(kept[0])
        try:
            connection = self._database.connect(home)
        except psycopg.Error as error:
            self._trouble.begins(error)  # in the log; clients need not know where it is
            raise Unavailable("the database cannot be reached") from error
        self._trouble.ends()
        self._local.kept = connection, home
        self._readers.add(connection)
        return connection
