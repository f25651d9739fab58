"""
How is the PostgreSQL database reached, and is it still the one that it was?

A connection that would be silent for ever is ended: by the kernel, or, where something on the
way still acknowledges what it does not pass on, by us. One that leads somewhere else than the
first did (to a copy, to a server that was promoted, to files of long ago that were put back) is
refused: what was acknowledged there may be missing here, so the positions of clients would be
misread.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo

from holdfast.errors import StoreError, Unavailable
from holdfast.store import transaction
from holdfast.store.store import new_epoch

T = TypeVar("T")

#: A thread gives up a connection that has sent nothing for so long. The server ends a statement sooner. Seconds.
SILENCE_SECONDS = 10.0
#: … and the event loop, whose questions are small, before it is to say that it does not know what is true.
ASYNC_SILENCE_SECONDS = 4.0
#: Whoever waits looks at the clock more often than this, unless the process stands still.
STEP_SECONDS = 0.5

#: What is asked of libpq, unless the connection string says otherwise. Seconds, but for the last (milliseconds).
DEFAULTS = {
    "application_name": "holdfast",
    "connect_timeout": 5,
    "target_session_attrs": "read-write",  # of several hosts, the one that is the primary now
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

#: The time by the database's clock, as SQL.
CLOCK = "extract(epoch FROM clock_timestamp())::float8"
#: Where a connection leads, in which epoch, and how far the write-ahead log has come there on the disk.
WHERE = """
  holdfast_home(), (SELECT value FROM holdfast_meta WHERE key = 'epoch'),
  (pg_current_wal_flush_lsn() - '0/0')::bigint
"""


class Silent(psycopg.OperationalError):
    """The server sends nothing; what became of the last statement is not known."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """
    A connection that ends when its server falls silent.

    Attributes:
        patience: Seconds for which that is borne.
        is_trusted: Whether the database has answered, if not here, ever since this was dialled.
        warned: Whether the server has warned of something since this was last set to False.
    """

    patience: float = SILENCE_SECONDS
    is_trusted: Callable[[], bool] = staticmethod(lambda: True)
    warned: bool = False

    def take_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """Take in what the server has to say beside its answers."""
        self.warned |= notice.severity_nonlocalized == "WARNING"

    def cursor_in_one(self) -> psycopg.Cursor[Any]:
        """Return a cursor that sends several statements, with what is put into them, as one message."""
        return psycopg.ClientCursor(self)

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Wait for what a statement comes to."""
        try:
            return super().wait(_unless_silent(gen, self.patience, self.is_trusted), *args, **options)
        except Silent:
            self.pgconn.finish()
            raise


class AsyncConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """The same, in an event loop."""

    patience: float = ASYNC_SILENCE_SECONDS

    async def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Wait for what a statement comes to."""
        try:
            return await super().wait(_unless_silent(gen, self.patience), *args, **options)
        except Silent:
            self.pgconn.finish()
            raise


def _unless_silent(
    waiting: Generator[Any, Any, T], patience: float, is_trusted: Callable[[], bool] = lambda: True
) -> Generator[Any, Any, T]:
    """Go on with what waits for the server's bytes (it is sent 0 when there are none yet), but not for ever."""
    silence, before = 0.0, time.monotonic()
    try:
        wanted = next(waiting)
        while True:
            ready = yield wanted
            now = time.monotonic()
            silence = 0.0 if ready else silence + min(now - before, STEP_SECONDS)
            before = now
            if silence > patience or (not ready and not is_trusted()):
                raise Silent("the server has fallen silent")
            wanted = waiting.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Driver:
    """What opens connections, in a thread and in an event loop: psycopg, or in a simulation something like it."""

    connect: Callable[..., Any] = Connection.connect
    connect_async: Callable[..., Coroutine[Any, Any, Any]] = AsyncConnection.connect


class Moved(Unavailable):
    """The database is another than before; everybody has to start afresh."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a log lives: `place` as `holdfast_home()` names it, and the epoch of its life there."""

    place: str
    epoch: str


class Database:
    """
    The way to a database.

    Args:
        dsn: libpq's connection string or URI.
        listen: A second one, if the first leads through a pooler that gives connections away between transactions.
        driver: What opens connections.

    Attributes:
        home: Where it is, and where connections must lead; None while that is being asked. It changes in one step with
            what depends on it, so that nothing that is read there is taken for a part of another life of the log.
        answers: Whether it does. While it does not, no thread tries to reach it: who waits is told at once.
    """

    def __init__(self, dsn: str, listen: str | None = None, driver: Driver | None = None) -> None:
        self._driver = Driver() if driver is None else driver
        self.home: Home | None = None
        self.answers = True
        self._ahead = 0.0  # of the monotonic clock
        self._silences = 0
        self._reached: dict[Home, float] = {}
        self._lock = threading.Lock()
        self._dsn = with_defaults(dsn)
        self._listen = with_defaults(listen or dsn)
        # A statement that was prepared on one connection of a pooler is not known on the next.
        self._prepare_threshold = 5 if listen is None else None

    @property
    def here(self) -> Home:
        """Where it is known to be."""
        if self.home is None:
            raise Moved("it is being asked where the database is now")
        return self.home

    def now(self) -> float:
        """Return the time by the database's clock, in seconds since 1970: one for all nodes, whatever theirs say."""
        return time.monotonic() + self._ahead

    def set_clock(self, now: float) -> None:
        """Take in what the database's clock said a moment ago."""
        self._ahead = now - time.monotonic()

    def fell_silent(self) -> None:
        """It does not answer; what was dialled before may lead nowhere for ever."""
        self.answers = False
        self._silences += 1

    def connect(self, home: Home | None = None) -> Connection:
        """Connect to `home`, or else to where it is now; raises `psycopg.Error`, or `Unavailable`, perhaps `Moved`."""
        home = self.here if home is None else home
        if not self.answers:
            raise Unavailable("the database does not answer")
        reached = self.reached(home)
        connection = self.connect_anywhere()
        try:
            self.check(connection.execute(f"SELECT {WHERE}".encode()).fetchone(), home, reached)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_anywhere(self, *, patience: float | None = None) -> Connection:
        """Connect to wherever this leads."""
        silences = self._silences
        connection: Connection = self._driver.connect(
            self._dsn, autocommit=True, prepare_threshold=self._prepare_threshold
        )
        connection.patience = SILENCE_SECONDS if patience is None else patience
        connection.add_notice_handler(connection.take_notice)
        connection.is_trusted = lambda: self._silences == silences
        return connection

    async def connect_async(self, home: Home | None = None) -> AsyncConnection:
        """Connect, in an event loop."""
        home = self.here if home is None else home
        reached = self.reached(home)
        connection = await self._dial(self._dsn, self._prepare_threshold)
        try:
            self.check(await (await connection.execute(f"SELECT {WHERE}".encode())).fetchone(), home, reached)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def connect_to_listen(self) -> AsyncConnection:
        """Connect where LISTEN is possible."""
        connection = await self._dial(self._listen, None)
        connection.patience = SILENCE_SECONDS  # there is not always something to be heard
        return connection

    async def why_deaf(self) -> str:
        """Say why nothing is heard where LISTEN was to be possible."""
        connection = await self.connect_to_listen()
        try:
            row = await (await connection.execute(f"SELECT {WHERE}".encode())).fetchone()
        except psycopg.Error:
            row = None  # nothing of holdfast is there
        finally:
            await hang_up(connection)
        if row is None or row[:2] != (self.here.place, self.here.epoch):
            return "--listen (listen=) leads to another database than --store"
        return (
            "nothing can be heard through a pooler in transaction mode: "
            "give --listen (listen=) a way to the database itself"
        )

    async def _dial(self, dsn: str, prepare_threshold: int | None) -> AsyncConnection:
        connecting = asyncio.ensure_future(
            self._driver.connect_async(dsn, autocommit=True, prepare_threshold=prepare_threshold)
        )
        try:
            connection: AsyncConnection = await asyncio.shield(connecting)
            return connection
        except asyncio.CancelledError:  # one that is left half-way stays open for as long as it pleases
            await asyncio.wait({connecting})
            if not connecting.exception():
                await connecting.result().close()
            raise

    def reached(self, home: Home) -> float:
        """Return how far the log of a life is known to have come: to be asked before the database is."""
        return self._reached.get(home, 0)

    def check(self, row: tuple[Any, ...] | None, home: Home, reached: float) -> None:
        """Raise `Moved` unless what a connection leads to (`row` is `WHERE`) is `home`, as far as it had come."""
        if not self._is_at(row, home, reached):
            raise Moved("the database is not the one that it was")

    def distrust(self, home: Home) -> None:
        """Something that was committed in this life of the log is not there: no connection leads to it any more."""
        with self._lock:
            self._reached[home] = inf

    def _is_at(self, row: tuple[Any, ...] | None, home: Home, reached: float) -> bool:
        """Whether it is: what is on the disk outlives a crash, and only goes back if older files are put there."""
        if row is None or row[:2] != (home.place, home.epoch) or row[2] < reached:
            return False
        with self._lock:
            self._reached[home] = max(self.reached(home), row[2])
        return True

    def check_settings(self, connection: Connection) -> None:
        """Raise `StoreError` where promises could not be kept; and take in the time."""
        settings = connection.execute(_SETTINGS).fetchone()
        assert settings is not None
        now, encoding = settings
        if encoding != "UTF8":
            raise StoreError(f"the encoding of the database is {encoding}, which cannot hold every text; make it UTF8")
        self.set_clock(now)

    def identify(self, connection: Connection, words: str) -> tuple[Home, str]:
        """
        Return where this is, and in which epoch; and the signing key.

        An epoch begins if the log was never here, or if it has gone back.

        `words` are what `holdfast_append` must refuse, as JSON.
        """
        self.check_settings(connection)
        with connection.transaction():
            connection.execute(LOCK)
            meta = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM holdfast_meta")}
            home = Home(meta.get("home", ""), meta.get("epoch", ""))
            reached = self.reached(home)
            row = connection.execute(f"SELECT {WHERE}".encode()).fetchone()
            assert row is not None
            place = str(row[0])
            if not self._is_at(row, home, reached):
                meta["epoch"] = new_epoch()
                connection.execute(_OUTLIVED)
            meta.setdefault("secret", secrets.token_hex(32))
            meta.update(home=place, words=words)
            for key, value in meta.items():
                connection.execute(
                    "INSERT INTO holdfast_meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value "
                    "WHERE holdfast_meta.value <> excluded.value",
                    (key, value),
                )
        return Home(place, meta["epoch"]), meta["secret"]


#: Ids of transactions mean nothing in another life, nor does who was where.
_OUTLIVED = """
UPDATE holdfast_log SET xid = '1' WHERE xid >= pg_snapshot_xmax(pg_current_snapshot());
DELETE FROM holdfast_people; DELETE FROM holdfast_node; DELETE FROM holdfast_expulsion
"""
_SETTINGS = f"SELECT {CLOCK}, current_setting('server_encoding')"

#: One process at a time makes tables, or an epoch.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('holdfast_migration'))"


def with_defaults(dsn: str) -> str:
    """Return a connection string that says everything that it does not say itself as `DEFAULTS` do; and in UTF-8."""
    try:
        given: dict[str, Any] = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise ValueError(f"this is no way to a PostgreSQL database: {str(error).strip()}") from None
    return conninfo.make_conninfo("", **{**DEFAULTS, **given, "client_encoding": "UTF8"})


def begin(isolation: str) -> bytes:
    """Return what begins a transaction that ends by itself if it takes too long."""
    limit = int(transaction.CHANGE_SECONDS * 1000)
    # Of one whose node is cut off the server hears no more; others wait for what it has locked.
    return (
        f"BEGIN ISOLATION LEVEL {isolation}; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = 0; "
        f"SET LOCAL idle_in_transaction_session_timeout = {2 * limit}"
    ).encode()


def up_to(snapshot: str, newest: str | int | None) -> str:
    """
    Return a snapshot as it was when the newest transaction in the log was the newest of all.

    Ids of transactions that came to nothing are given again after a crash of the server: what was committed
    under them then would seem to have been seen. (And none is of the future, as those of a log may be that was
    restored into another cluster.)
    """
    xmin, xmax, running = snapshot.split(":")
    end = min(int(newest or 0) + 1, int(xmax))
    still = [xid for xid in running.split(",") if xid and int(xid) < end]
    return f"{min(int(xmin), end)}:{end}:{','.join(still)}"


#: What is not visible in a snapshot, asked so that an index answers it: a transaction that has been running for hours,
#: in whichever database of the server, keeps `xmin` where it was.
NEW = "(xid >= %(end)s::xid8 OR xid = ANY(%(running)s::xid8[]))"


def since(snapshot: str) -> dict[str, object]:
    """Return the parameters of `NEW`."""
    _, end, running = snapshot.split(":")
    return {"end": end, "running": [xid for xid in running.split(",") if xid]}


async def hang_up(connection: AsyncConnection | None) -> None:
    """Close a connection, in whatever state it is."""
    if connection is not None:
        with suppress(psycopg.Error, OSError):
            await connection.close()
