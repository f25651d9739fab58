"""
What do the nodes call out to each other?

By NOTIFY: where it is worth to look (hints), and what is said to those who are here now
(words). It may be lost, so nothing that matters depends on it; what a node has to say
within a millisecond goes out at once, outside of the transactions that it tells of.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from holdfast.errors import HoldfastError, TooLarge
from holdfast.store.postgres_database import AsyncConnection, Database, hang_up

logger = logging.getLogger("holdfast.store")

#: Seconds for which is gathered what is called out at once.
GATHER_SECONDS = 0.001
#: PostgreSQL takes payloads of less than 8,000 bytes.
CALL_BYTES = 7_900
#: The connection that listens is asked so often whether it still lives, and has so long to answer. Seconds.
LISTEN_HEARTBEAT, LISTEN_TIMEOUT = 5.0, 5.0
#: Seconds until it is tried again to reach a database that could not be.
RETRY_SECONDS = 0.5
#: Words that wait to be said; if they cannot be, the oldest are given up first.
WAITING_WORDS = 1_000

#: What a call can hint at: news in rooms, people who came to or left rooms. No rooms: in any.
KINDS = ("news", "people")


class Hints:
    """
    The calls of one node.

    Attributes:
        node: The name of this node, in this life of it.
        hinted: By kind: what is done with the rooms that others name.
        heard: What is done with a word.
    """

    def __init__(self, database: Database) -> None:
        self.node = secrets.token_hex(8)
        self.hinted: dict[str, Callable[[list[str]], None]] = {}
        self.heard: Callable[[Any], None] = lambda word: None
        self._database = database
        self._rooms: dict[str, set[str]] = {kind: set() for kind in KINDS}  # to be hinted at
        self._words: deque[str] = deque(maxlen=WAITING_WORDS)
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Begin to listen, and to call."""
        self._tasks = [asyncio.create_task(self._listen_for_ever()), asyncio.create_task(self._call_for_ever())]

    async def close(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hint(self, kind: str, rooms: Iterable[str]) -> None:
        """Tell the others that it is worth to look at some rooms."""
        self._rooms[kind].update(rooms)
        self._wanted.set()

    def say(self, word: Any) -> None:
        """Tell the others something that JSON can say, or raise `TooLarge`."""
        call = _json({"from": self.node, "word": word})
        if not _fits(call):
            raise TooLarge(f"what is said to all servers is at most {CALL_BYTES} bytes; this has {len(call.encode())}")
        self._words.append(call)
        self._wanted.set()

    @property
    def channel(self) -> str:
        """Where those who share a log hear each other."""
        return f"holdfast_{self._database.here.epoch}"

    # Calling.

    async def _call_for_ever(self) -> None:
        connection: AsyncConnection | None = None
        while True:
            try:
                if connection is None:
                    connection = await self._database.connect_async()
                await self._wanted.wait()
                await asyncio.sleep(GATHER_SECONDS)
                self._wanted.clear()
                calls = self._calls()
                await connection.execute(
                    "SELECT pg_notify(%s, call) FROM unnest(%s::text[]) call", (self.channel, calls)
                )
            except (psycopg.Error, OSError, HoldfastError):  # a poll makes up for hints; words are for now
                await hang_up(connection)
                connection = None
                await asyncio.sleep(RETRY_SECONDS)
            except asyncio.CancelledError:
                await hang_up(connection)
                raise

    def _calls(self) -> list[str]:
        """Return everything that is to be called out now, in as many calls as it takes."""
        head: dict[str, Any] = {"from": self.node}
        calls = []
        for kind, rooms in self._rooms.items():
            if rooms:
                call = _json({**head, kind: sorted(rooms)})
                calls.append(call if _fits(call) else _json({**head, kind: []}))
                rooms.clear()
        calls += self._words
        self._words.clear()
        return calls

    # Listening.

    async def _listen_for_ever(self) -> None:
        connection: AsyncConnection | None = None
        while True:
            try:
                connection = await self._database.connect_to_listen()
                channel = self.channel
                await connection.execute(f'LISTEN "{channel}"'.encode())
                for hinted in self.hinted.values():
                    hinted([])  # whatever was missed while nobody listened
                while channel == self.channel:
                    async for notify in connection.notifies(timeout=LISTEN_HEARTBEAT):
                        self._take(notify.payload)
                    async with asyncio.timeout(LISTEN_TIMEOUT):
                        await connection.execute("SELECT 1")  # a dead one is silent too
            except (psycopg.Error, OSError, HoldfastError) as error:  # a TimeoutError is an OSError
                logger.warning("no hints from the database (%s): news come a little later", str(error).strip())
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await hang_up(connection)

    def _take(self, payload: str) -> None:
        try:
            call = json.loads(payload)
            if call.get("from") == self.node:
                return
            for kind, hinted in self.hinted.items():
                if kind in call:
                    hinted(call[kind])
            if "word" in call:
                self.heard(call["word"])
        except Exception:  # whoever may write to the database may call out anything
            logger.exception("a call of another server was not understood")


def _json(call: Any) -> str:
    return json.dumps(call, separators=(",", ":"), ensure_ascii=False)


def _fits(call: str) -> bool:
    return len(call.encode()) <= CALL_BYTES
