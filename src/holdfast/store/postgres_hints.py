"""
What do the nodes call out to each other?

Where it is worth to look (hints), and what is said to those who are here now (words). It
may be lost, so nothing that matters depends on it. The first call goes out at once, after
the commit that it tells of; what comes up while the next may not go out yet goes with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import psycopg

from holdfast.errors import HoldfastError, StoreError, TooLarge
from holdfast.store.postgres_database import AsyncConnection, Database, hang_up
from holdfast.store.trouble import Trouble

logger = logging.getLogger("holdfast.store")

#: Seconds between two calls of a node: what comes up meanwhile is one.
GATHER_SECONDS = 0.002
#: PostgreSQL takes payloads of less than 8,000 bytes.
CALL_BYTES = 7_900
#: A link that is listened to is asked so often whether it still lives, and has so long to answer. Seconds.
LISTEN_HEARTBEAT, LISTEN_TIMEOUT = 5.0, 5.0
#: Seconds until it is tried again to reach what could not be reached.
RETRY_SECONDS = 0.5
#: … and until a carrier that could not be reached is tried again, where there is another.
REST_SECONDS = 2.0
#: Words that wait to be said; if they cannot be, the oldest are given up first.
WAITING_WORDS = 1_000

#: What a call can hint at: news in rooms, people who came to or left rooms. No rooms: in any.
KINDS = ("news", "people")


Failures = tuple[type[Exception], ...]


class Carrier(Protocol):
    """
    What carries calls from node to node, and may lose them.

    Attributes:
        failures: What its methods raise when it cannot be reached.
    """

    failures: Failures

    async def call(self, channel: str, calls: Sequence[str]) -> None:
        """Send calls to all who listen there."""

    def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        """Yield what is called there. None: it listens, again or still; what was called before may be lost."""

    async def close(self) -> None:
        """Let go of whatever it calls through."""


class Notify:
    """PostgreSQL's LISTEN and NOTIFY."""

    failures: Failures = (psycopg.Error, OSError, HoldfastError)  # a TimeoutError is an OSError

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: AsyncConnection | None = None

    async def call(self, channel: str, calls: Sequence[str]) -> None:
        """Send calls, in a transaction of their own: in that which they tell of they would halve its throughput."""
        try:
            if self._connection is None:
                self._connection = await self._database.connect_async()
            await self._connection.execute(
                "SELECT pg_notify(%s, call) FROM unnest(%s::text[]) call", (channel, list(calls))
            )
        except BaseException:
            await self.close()
            raise

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        """Yield what is called."""
        connection = await self._database.connect_to_listen()
        try:
            await connection.execute(f'LISTEN "{channel}"'.encode())
            while True:
                yield None
                async for notify in connection.notifies(timeout=LISTEN_HEARTBEAT):
                    yield notify.payload
                async with asyncio.timeout(LISTEN_TIMEOUT):
                    await connection.execute("SELECT 1")  # a dead one is silent too
        finally:
            await hang_up(connection)

    async def try_out(self) -> None:
        """Raise `StoreError` if what is called out is not heard. One that cannot be reached now may be so later."""
        channel = f"holdfast_{secrets.token_hex(8)}"
        try:
            async with aclosing(self.listen(channel)) as heard:
                await anext(heard)  # it listens
                await self.call(channel, [""])
                is_heard = await anext(heard) is not None
        except self.failures:
            return
        await self.close()
        if not is_heard:
            raise StoreError(await self._database.why_deaf())

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        await hang_up(connection)


class Hints:
    """
    The calls of one node.

    They go out by the first of the `carriers` that can be reached; all of them are listened to.

    Attributes:
        node: The name of this node, in this life of it.
        hinted: By kind: what is done with the rooms that others name.
        heard: What is done with a word.
    """

    def __init__(self, database: Database, *carriers: Carrier) -> None:
        self.node = secrets.token_hex(8)
        self.hinted: dict[str, Callable[[list[str]], None]] = {}
        self.heard: Callable[[Any], None] = lambda word: None
        self._database = database
        self._carriers = carriers
        self._rests_until: dict[Carrier, float] = dict.fromkeys(carriers, 0.0)  # those that could not be reached
        self._rooms: dict[str, set[str]] = {kind: set() for kind in KINDS}  # to be hinted at
        self._anywhere: set[str] = set()  # kinds of which it is not said in which rooms
        self._words: deque[str] = deque(maxlen=WAITING_WORDS)
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Begin to listen, and to call."""
        self._tasks = [asyncio.create_task(self._listen_for_ever(carrier)) for carrier in self._carriers]
        self._tasks.append(asyncio.create_task(self._call_for_ever()))

    async def close(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for carrier in self._carriers:
            await carrier.close()

    def hint(self, kind: str, rooms: Iterable[str] | None) -> None:
        """Tell the others that it is worth to look at some rooms; None: at any."""
        if rooms is None:
            self._anywhere.add(kind)
        else:
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
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            now = asyncio.get_running_loop().time()
            carrier = min(self._carriers, key=lambda each: self._rests_until[each] > now)
            try:
                await carrier.call(self.channel, self._calls())
            except carrier.failures:  # a poll makes up for hints; words are for now
                if carrier is self._carriers[-1]:
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    self._rests_until[carrier] = now + REST_SECONDS
            except Exception:  # a mistake of ours, that must not be the end of it
                logger.exception("the other servers could not be told")
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(GATHER_SECONDS)

    def _calls(self) -> list[str]:
        """Return everything that is to be called out now, in as many calls as it takes."""
        head: dict[str, Any] = {"from": self.node}
        calls = []
        for kind, rooms in self._rooms.items():
            call = _json({**head, kind: sorted(rooms)})
            if kind in self._anywhere or not _fits(call):
                call = _json({**head, kind: []})
            if rooms or kind in self._anywhere:
                calls.append(call)
            rooms.clear()
        self._anywhere.clear()
        calls += self._words
        self._words.clear()
        return calls

    # Listening.

    async def _listen_for_ever(self, carrier: Carrier) -> None:
        name = type(carrier).__name__
        trouble = Trouble(
            f"{name} cannot be listened to (%s): news come a little later", f"{name} can be listened to again"
        )
        while True:
            try:
                channel = self.channel
                async with aclosing(carrier.listen(channel)) as heard:
                    async for call in heard:
                        trouble.ends()
                        if call is not None:
                            self._take(call)
                        elif channel != self.channel:
                            break
                        else:
                            self._look_everywhere()
            except carrier.failures as error:
                trouble.begins(error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # whoever may call out there may call out anything
                logger.exception("what other servers say could not be heard")
                await asyncio.sleep(RETRY_SECONDS)

    def _look_everywhere(self) -> None:
        for hinted in self.hinted.values():
            hinted([])

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
