"""What the tests of the store start from: real files, real threads, and an eye on what is dispatched."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.protocol.codec import Codec
from holdfast.store.sqlite import SqliteStore
from holdfast.store.store import Once, Outcome, Record, Transaction

NOTES = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"


def take_note(tx: Transaction, text: str, room: str = "lobby") -> str:
    """Write a row, and publish it: a change as applications have them."""
    tx.execute("INSERT INTO note (text) VALUES (?)", (text,))
    tx.publish(room, "noted", {"text": text})
    return text


class Kept:
    """An open store, and what it has dispatched."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.news: list[Record] = []
        self.told: list[int] = []  # how many, each time

    @property
    def path(self) -> Path:
        return self.store.path

    def hear(self, records: Sequence[Record]) -> None:
        """Take in news, and see that everything of it is in the file already."""
        committed = set(self.log())
        for record in records:
            assert (record.room, record.offset, record.type, record.body.decode()) in committed
        self.news += records
        self.told.append(len(records))

    async def commit(self, change: Callable[..., Any], *args: Any, once: Once | None = None) -> Outcome:
        return await self.store.commit(change, args, {}, once)

    async def in_one_batch(self, *changes: tuple[Any, ...]) -> list[Any]:
        """Have the writer find all of these at once; each is a change, its arguments, and perhaps a `Once`."""
        free = threading.Event()
        blocking = asyncio.ensure_future(self.store.write(lambda tx: free.wait(10)))
        await asyncio.sleep(0.02)
        waiting: list[Awaitable[Any]] = []
        for change, *args in changes:
            once = args.pop() if args and isinstance(args[-1], Once) else None
            waiting.append(asyncio.ensure_future(self.commit(change, *args, once=once)))
        await asyncio.sleep(0)
        free.set()
        assert await blocking
        return await asyncio.gather(*waiting, return_exceptions=True)

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the file, as somebody else would."""
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
            "SELECT name, offset, type, body FROM holdfast_log JOIN holdfast_room ON id = room_id "
            "WHERE ? IN (name, '') ORDER BY name, offset",
            room or "",
        )


OpenStore = Callable[..., Awaitable[Kept]]


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Open stores, by default at one path; they are closed at the end."""
    opened: list[Kept] = []

    async def open(path: str | Path = tmp_path / "notes.db", **options: Any) -> Kept:
        kept = Kept(SqliteStore(str(path), Codec(), **{"migrations": [NOTES], **options}))
        await kept.store.open(kept.hear)
        opened.append(kept)
        return kept

    yield open
    for kept in opened:
        await kept.store.close()


@pytest.fixture
async def kept(open_store: OpenStore) -> Kept:
    """A store in a file."""
    return await open_store()
