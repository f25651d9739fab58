"""What the tests of the store start from: real files, real threads, and an eye on what is dispatched."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import User
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres_database import Database
from holdfast.store.postgres_hints import Carrier, Hints, Notify
from holdfast.store.postgres_sql import to_postgres
from holdfast.store.sqlite import SqliteStore
from holdfast.store.store import Once, Outcome, Record, Transaction

NOTES = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"
POSTGRES_NOTES = "CREATE TABLE note (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL UNIQUE)"


def take_note(tx: Transaction, text: str, room: str = "lobby") -> str:
    """Write a row, and publish it: a change as applications have them."""
    tx.execute("INSERT INTO note (text) VALUES (?)", (text,))
    tx.publish(room, "noted", {"text": text})
    return text


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


class Kept:
    """An open store, and what it has dispatched."""

    def __init__(self, store: Any, dsn: str = "") -> None:
        self.store = store
        self.dsn = dsn
        self.said: list[Record] = []
        self.people: dict[str, dict[str, str]] = {}  # at other nodes, by room and session
        self.told_people: list[str] = []
        self.words: list[Any] = []
        self.departures: list[tuple[str, str]] = []
        self.followed: set[str] = set()  # none: all
        self.shown: set[str] | None = None  # None: those that are followed
        self.looks = True  # whether what is told is there
        self.turns: list[str] = []  # what became of the store
        self.told: list[int] = []  # how many, each time

    @property
    def path(self) -> Path:
        return Path(self.store.path)

    # It is a listener.

    def follows(self, room: str) -> bool:
        return room in self.followed if self.followed else True

    def shows(self, room: str) -> bool:
        return self.follows(room) if self.shown is None else room in self.shown

    def away(self) -> None:
        self.turns.append("away")

    def back(self) -> None:
        self.turns.append("back")

    def moved(self) -> None:
        self.turns.append(f"moved to {self.store.epoch}")

    def met(self, room: str, came: Any, went: Any) -> None:
        for session, user in came:
            self.people.setdefault(room, {})[session] = user.user_id
            self.told_people.append(f"{user.user_id} came to {room}")
        for session, user in went:
            assert self.people.get(room, {}).pop(session, user.user_id) == user.user_id
            self.told_people.append(f"{user.user_id} left {room}")

    def taken(self, session: str, rooms: tuple[str, ...]) -> None:
        self.told_people.append(f"{session} was taken with {' and '.join(sorted(rooms))}")

    def awaited(self, session: str, user: User, rooms: tuple[str, ...]) -> None:
        self.told_people.append(f"{user.user_id} may yet come as {session} to {' and '.join(sorted(rooms))}")

    def departed(self, room: str, session: str) -> None:
        self.departures.append((room, session))

    def expelled(self, user_id: str, room: str | None) -> None:
        self.told_people.append(f"{user_id} is to leave {room or 'everything'}")

    def heard(self, word: Any) -> None:
        self.words.append(word)

    def news(self, records: Sequence[Record]) -> None:
        """Take in news, and see that everything of it is in the file already."""
        if self.looks:
            committed = set(self.log())
            for record in records:
                assert (record.room, record.offset, record.type, record.body.decode()) in committed
        self.said += records
        self.told.append(len(records))

    async def commit(self, change: Callable[..., Any], *args: Any, once: Once | None = None) -> Outcome:
        return await self.store.commit(change, args, {}, once)

    async def in_one_batch(self, *changes: tuple[Any, ...]) -> list[Any]:
        """Have the writer find all of these at once; each is a change, its arguments, and perhaps a `Once`."""
        begun, free = threading.Event(), threading.Event()

        def block(tx: Transaction) -> bool:
            begun.set()
            return free.wait(10)

        blocking = asyncio.ensure_future(self.store.write(block))
        assert await asyncio.to_thread(begun.wait, 10)
        waiting: list[Awaitable[Any]] = []
        for change, *args in changes:
            once = args.pop() if args and isinstance(args[-1], Once) else None
            waiting.append(asyncio.ensure_future(self.commit(change, *args, once=once)))
        await asyncio.sleep(0)
        free.set()
        assert await blocking
        return await asyncio.gather(*waiting, return_exceptions=True)

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the file or the database, as somebody else would."""
        if isinstance(self.store, PostgresStore):
            with psycopg.connect(self.dsn) as apart:
                return apart.execute(to_postgres(sql), parameters).fetchall()
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def notes(self) -> list[str]:
        return [text for (text,) in self.rows("SELECT text FROM note ORDER BY id")]

    def log(self, room: str | None = None) -> list[tuple[str, int, str, str]]:
        """Return (room, offset, type, body) of all that is in the log, or of a room's."""
        return self.rows(
            'SELECT name, "offset", type, body FROM holdfast_log JOIN holdfast_room ON id = room_id '
            "WHERE name = coalesce(CAST(? AS text), name) ORDER BY name, 2",
            room,
        )


class Deaf:
    """A listener that nothing matters to."""

    def follows(self, room: str) -> bool:
        return False

    shows = follows

    def news(self, records: Sequence[Record]) -> None:
        pass

    def heard(self, word: Any) -> None:
        pass

    away = back = moved = lambda self: None


class Caller:
    """A node of which nothing is there but its calls."""

    def __init__(self, database: Database, *carriers: Carrier) -> None:
        self.hints = Hints(database, *carriers, Notify(database))
        with database.connect_anywhere() as connection:
            self.hints.sign_with(database.identify(connection, "{}")[1])
        self.rooms: list[list[str]] = []
        self.words: list[object] = []
        self.hints.hinted["news"] = self.rooms.append
        self.hints.heard = self.words.append


def known(node: Kept, room: str = "lobby") -> dict[str, str]:
    """Return who is in a room at other nodes, as one node knows it."""
    return {session: user.user_id for session, user in node.store.others.known(room)}


async def follow(node: Kept, *rooms: str) -> None:
    """Have a node follow these rooms, and no others."""
    node.followed = set(rooms)
    for room in rooms:
        await node.store.others.meet(room)


async def until_waiting(node: Kept, number: int) -> None:
    """Wait until so many statements wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await until(lambda: node.rows(waiting) == [(number,)])


#: How many of a database's sessions listen for calls.
LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


@pytest.fixture
async def shared(database: str) -> AsyncIterator[Database]:
    """A database in which there is a store."""
    store = PostgresStore(database, Codec())
    await store.open(Deaf())
    found = Database(database)
    with found.connect_anywhere() as connection:
        found.home, _ = found.identify(connection, "{}")
        await until(lambda: connection.execute(LISTENING).fetchone() == (1,))
    yield found
    await store.close()


OpenStore = Callable[..., Awaitable[Kept]]


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which store is tested: both, unless a module says otherwise."""
    return str(request.param)


@pytest.fixture
async def open_store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[OpenStore]:
    """Open stores, by default always the same one; they are closed at the end."""
    opened: list[Kept] = []
    database = str(request.getfixturevalue("database")) if kind == "postgres" else ""

    async def open(path: str | Path = tmp_path / "notes.db", **options: Any) -> Kept:
        store: SqliteStore | PostgresStore
        if kind == "postgres":
            store = PostgresStore(database, Codec(), **{"migrations": [POSTGRES_NOTES], **options})
        else:
            store = SqliteStore(str(path), Codec(), **{"migrations": [NOTES], **options})
        kept = Kept(store, database)
        await store.open(kept)
        opened.append(kept)
        return kept

    yield open
    for kept in opened:
        await kept.store.close()


@pytest.fixture
async def kept(open_store: OpenStore) -> Kept:
    """An open store."""
    return await open_store()
