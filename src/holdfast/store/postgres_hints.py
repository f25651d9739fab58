"""
What do the nodes call out to each other?

Where it is worth to look (hints), and what is said to those who are here now (words). It
may be lost, so nothing that matters depends on it. Whoever may connect to the database can call
there too: a hint costs no more than a question, and words are signed. The first call goes out at once, after
the commit that it tells of; what comes up while the next may not go out yet goes with it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol

import psycopg

from holdfast.errors import HoldfastError, StoreError, TooLarge
from holdfast.store.postgres_database import AsyncConnection, Database, hang_up
from holdfast.store.reach import REACH_SECONDS, Reach
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
#: Characters of a signature, which stands before a word: 128 bits.
SIGNATURE = 32
#: Words that are known again if they come a second time, by another carrier.
HEARD_WORDS = 10_000
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
        """
        Send calls, in a transaction of their own: in that which they tell of they would halve its throughput.

        A connection that was kept may have been lost since: then they go by another. Who hears them twice knows it.
        """
        kept = self._connection
        if kept is not None:
            with suppress(psycopg.Error):
                await self._call_by(kept, channel, calls)
        if self._connection is None:
            self._connection = await self._database.connect_async()
            await self._call_by(self._connection, channel, calls)

    async def _call_by(self, connection: AsyncConnection, channel: str, calls: Sequence[str]) -> None:
        try:
            await connection.execute("SELECT pg_notify(%s, call) FROM unnest(%s::text[]) call", (channel, list(calls)))
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

    All of the `carriers` are listened to. They go out by one after the other, until all nodes are reached: the last
    reaches all.

    Attributes:
        node: The name of this node, in this life of it.
        others: The nodes beside it that are at work, as far as is known.
        hinted: By kind: what is done with the rooms that others name.
        heard: What is done with a word.
    """

    def __init__(self, database: Database, *carriers: Carrier) -> None:
        self.node = secrets.token_hex(8)
        self.others: set[str] = set()
        self.hinted: dict[str, Callable[[list[str]], None]] = {}
        self.heard: Callable[[Any], None] = lambda word: None
        self._database = database
        self._carriers = carriers
        self._key = b""
        self._is_warned = False  # of words that are not signed
        self._rests_until: dict[Carrier, float] = dict.fromkeys(carriers, 0.0)  # those that could not be reached
        self._rooms: dict[str, set[str]] = {kind: set() for kind in KINDS}  # to be hinted at
        self._anywhere: set[str] = set()  # kinds of which it is not said in which rooms
        self._words: deque[str] = deque(maxlen=WAITING_WORDS)
        self._said = 0  # words
        self._given_up = 0  # words of them, since they were called out last …
        self._gives_up = False  # … and whether that is said already
        self._greets = False
        self._reach = {carrier: Reach(type(carrier).__name__) for carrier in carriers[:-1]}
        self._known: dict[tuple[str, int], None] = {}  # words, by who said them and their number
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def sign_with(self, secret: str) -> None:
        """Sign words with what only those who share the store know, and hear none that are not."""
        self._key = hmac.digest(bytes.fromhex(secret), b"words of holdfast's nodes", "sha256")

    def open(self) -> None:
        """Begin to listen, and to call."""
        assert self._key, "before it listens, it must know whom to believe"
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
        call = _json({"from": self.node, "number": self._said + 1, "word": word})
        call = self._signature(call, self.channel) + call
        if not _fits(call):
            raise TooLarge(f"what is said to all servers is at most {CALL_BYTES} bytes; this has {len(call.encode())}")
        self._said += 1
        if len(self._words) == WAITING_WORDS:
            self._give_up()
        self._words.append(call)
        self._wanted.set()

    def greet(self) -> None:
        """Let the others know, every few seconds, by which carriers they reach this node."""
        now = asyncio.get_running_loop().time()
        for carrier, reach in self._reach.items():  # with one carrier there is nothing to be known
            self._greets = True
            self._wanted.set()
            if self._rests_until[carrier] == 0.0 or now > self._rests_until[carrier] + REACH_SECONDS:
                reach.look(self.others, now)

    def _give_up(self) -> None:
        self._given_up += 1
        if not self._gives_up:
            self._gives_up = True
            logger.warning(
                "more than %d broadcasts and typings wait for the other servers: the oldest are given up", WAITING_WORDS
            )

    def _signature(self, call: str, channel: str) -> str:
        return hmac.digest(self._key, f"{channel} {call}".encode(), "sha256").hex()[:SIGNATURE]

    @property
    def channel(self) -> str:
        """Where those who share a log hear each other."""
        return f"holdfast_{self._database.here.epoch}"

    # Calling.

    async def _call_for_ever(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._call(self._calls())
            except Exception:  # a mistake of ours, that must not be the end of it
                logger.exception("the other servers could not be told")
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(GATHER_SECONDS)

    async def _call(self, calls: Sequence[str]) -> None:
        """Call by one carrier after the other, until all are reached."""
        now = asyncio.get_running_loop().time()
        for carrier in self._carriers:
            if self._rests_until[carrier] > now:
                continue
            try:
                await carrier.call(self.channel, calls)
            except carrier.failures:  # a poll makes up for hints; words are for now
                if carrier is self._carriers[-1]:
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    self._rests_until[carrier] = now + REST_SECONDS
            else:
                if carrier in self._reach and self._reach[carrier].is_all(self.others, now):
                    break

    def _calls(self) -> list[str]:
        """Return everything that is to be called out now, in as many calls as it takes."""
        head: dict[str, Any] = {"from": self.node}
        calls = [_json(head)] if self._greets else []
        self._greets = False
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
        self._gives_up = self._given_up > 0  # a burst is over when nothing was given up in its turn
        self._given_up = 0
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
                            self._take(call, carrier, channel)
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

    def _take(self, payload: str, carrier: Carrier, channel: str) -> None:
        try:
            signature, said = ("", payload) if payload.startswith("{") else (payload[:SIGNATURE], payload[SIGNATURE:])
            call = json.loads(said)
            sender = call.get("from")
            if sender == self.node:
                return
            if carrier in self._reach:
                self._reach[carrier].meet(sender, asyncio.get_running_loop().time())
            for kind, hinted in self.hinted.items():
                if kind in call:
                    hinted(call[kind])
            if "word" not in call:
                return
            if not hmac.compare_digest(signature.encode(), self._signature(said, channel).encode()):
                self._warn()
            elif self._is_new(sender, call["number"]):
                self.heard(call["word"])
        except Exception:  # whoever may write to the database may call out anything
            logger.exception("a call of another server was not understood")

    def _warn(self) -> None:
        if not self._is_warned:
            self._is_warned = True
            logger.warning("somebody who is none of the servers calls out words in their name; they are not heard")

    def _is_new(self, sender: str, number: int) -> bool:
        """Whether a word has not come before, by another carrier."""
        if (sender, number) in self._known:
            return False
        self._known[sender, number] = None
        if len(self._known) > HEARD_WORDS:
            del self._known[next(iter(self._known))]
        return True


def _json(call: Any) -> str:
    return json.dumps(call, separators=(",", ":"), ensure_ascii=False)


def _fits(call: str) -> bool:
    return len(call.encode()) <= CALL_BYTES
