"""
What lies between a server and the database that it shares with others?

The real store's connections, as it would have them from psycopg, to a database of the sea: each
question is on its way for a while, and so is its answer. The way can be cut, without a word or
with one, also in the middle of a commit; what is called out can be lost, late, or heard twice.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import psycopg
from psycopg.pq import TransactionStatus

from holdfast.protocol.codec import Codec
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres_database import ASYNC_SILENCE_SECONDS, SILENCE_SECONDS, STEP_SECONDS, Driver, Silent
from holdfast.store.store import Retention, Store
from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.shared_log import Answer, Parameters, SharedLog, statements, transaction
from holdfast.testing.turns import Turns, TurnWorker, may_wait, wait
from holdfast.testing.virtual import VirtualLoop, current_process

#: For as long as a server tries to connect. Seconds.
CONNECT_SECONDS = 5.0


@dataclass
class Delays:
    """
    How long what is said to the database is on its way, and what becomes of calls.

    Attributes:
        question: Seconds for a question, and for its answer: between these two.
        lost, repeated: How often a call is not heard, or twice.
        call: Seconds for a call: between these two.
    """

    question: tuple[float, float] = (0.0003, 0.003)
    lost: float = 0.0
    repeated: float = 0.0
    call: tuple[float, float] = (0.0005, 0.005)


class Shore:
    """Where all cables lead: the server of the database."""

    def __init__(self, loop: VirtualLoop, dice: random.Random, delays: Delays) -> None:
        self.log = SharedLog(loop, dice)
        self.log.called = self._call
        self.loop = loop
        self.dice = dice
        self.delays = delays
        self._downs = 0  # how many reasons there are for which it is down
        self.is_silent = False
        self.refused: Felt = unfelt  # called when it is not up for somebody
        self.unanswered: Felt = unfelt  # called when it is silent for somebody
        self.calls_lost = 0
        self.cables: dict[_Cable, None] = {}

    def go_down(self, felt: Felt = unfelt) -> None:
        """End all connections, and take none."""
        self._downs, self.refused = self._downs + 1, felt
        for cable in tuple(self.cables):
            cable.break_off()
            felt()

    def come_up(self) -> None:
        """Take connections again, unless there is another reason not to."""
        self._downs -= 1

    @property
    def is_up(self) -> bool:
        """Whether it takes connections."""
        return not self._downs

    def fall_silent(self, felt: Felt = unfelt) -> None:
        """Answer nobody, and tell nobody."""
        self.is_silent, self.unanswered = True, felt

    def _call(self, channel: str, call: str) -> None:
        """Let everybody hear it who listens; each may miss it."""
        for cable in [each for each in self.cables if channel in each.channels]:
            way = cable.way
            if call and (way.hears_nothing or self.dice.random() < self.delays.lost):
                self.calls_lost += 1
                if way.hears_nothing:
                    way.unheard()
                continue
            for _ in range(1 + (self.dice.random() < self.delays.repeated)):
                cable.hear(psycopg.Notify(channel, call, 0), self.dice.uniform(*self.delays.call))


class Way:
    """
    The way from one server to the database.

    Attributes:
        is_silent: Nothing gets through, and nobody is told.
        is_closed: … and everybody is told at once.
        loses: What the next commit loses with its connection: itself, or only the answer.
        hears_nothing: What others call out is lost on it.
    """

    def __init__(self, shore: Shore) -> None:
        self.shore = shore
        self.is_silent = False
        self.is_closed = False
        self.loses: str | None = None
        self.hears_nothing = False
        self.lost = 0  # commits of which the answer was lost
        self.unanswered: Felt = unfelt  # called when it is silent for somebody
        self.refused: Felt = unfelt  # called when it is closed for somebody
        self.cut: Felt = unfelt  # called when a commit was lost
        self.unheard: Felt = unfelt  # called when a call was lost

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return self.is_silent or self.is_closed or self.shore.is_silent or not self.shore.is_up

    @property
    def driver(self) -> Driver:
        """What opens connections on it."""
        return Driver(partial(Cable.connect, self), partial(AsyncCable.connect, self))

    def close(self, felt: Felt = unfelt) -> None:
        """Have nothing get through, and tell everybody."""
        self.is_closed, self.refused = True, felt
        for cable in [each for each in self.shore.cables if each.way is self]:
            cable.break_off()
            felt()

    def fall_silent(self, felt: Felt = unfelt) -> None:
        """Have nothing get through, and tell nobody."""
        self.is_silent, self.unanswered = True, felt

    def lose(self, what: str, felt: Felt = unfelt) -> None:
        """Have the next commit lose itself, or the answer."""
        self.loses, self.cut = what, felt

    def fall_deaf(self, felt: Felt = unfelt) -> None:
        """Have all calls lost."""
        self.hears_nothing, self.unheard = True, felt

    def stay_silent(self) -> bool:
        """Whether somebody who has said something hears nothing."""
        if self.is_silent:
            self.unanswered()
        if self.shore.is_silent:
            self.shore.unanswered()
        return self.is_silent or self.shore.is_silent

    def refuse(self) -> bool:
        """Whether somebody who wants to connect is turned away."""
        if self.is_closed:
            self.refused()
        if not self.shore.is_up:
            self.shore.refused()
        return self.is_closed or not self.shore.is_up


class _Info:
    """What is known of a connection."""

    def __init__(self, cable: _Cable) -> None:
        self._cable = cable

    @property
    def transaction_status(self) -> TransactionStatus:
        """Whether it is in a transaction."""
        return TransactionStatus.INTRANS if self._cable.is_in_transaction else TransactionStatus.IDLE


class _Cable:
    """What is alike in connections of a thread and of an event loop."""

    patience = SILENCE_SECONDS

    def __init__(self, way: Way) -> None:
        self.way = way
        self.closed = self.broken = False
        self.is_in_transaction = False
        self.channels: set[str] = set()  # that it listens to
        self.info = _Info(self)
        self.is_trusted: Callable[[], bool] = lambda: True
        self.warned = False
        self.process = current_process()
        way.shore.cables[self] = None
        if self.process is not None:
            self.process.on_change.append(self._process_changed)

    def break_off(self) -> None:
        """It leads nowhere any more."""
        self.broken = True
        self._finish()

    def hear(self, call: psycopg.Notify, later: float) -> None:
        """Somebody calls."""

    def _process_changed(self) -> None:
        if self.process is not None and not self.process.is_alive:
            self.break_off()

    def _finish(self) -> None:
        self.closed = True
        if self.process is not None and self._process_changed in self.process.on_change:
            self.process.on_change.remove(self._process_changed)
        self.way.shore.cables.pop(self, None)
        if self.is_in_transaction:
            self.is_in_transaction = False
            self.way.shore.log.roll_back()

    def _ask(self, sql: str | bytes, parameters: Parameters | None) -> Generator[float, None, Answer]:
        """Ask something; yield how long to wait. A transaction happens at one moment: no time passes within it."""
        if not self.is_in_transaction:
            yield from self._trip()
        self._must_be_open()
        given = () if parameters is None else parameters
        answer, begun = Answer([], None, 0), 0
        for statement in statements(sql.decode() if isinstance(sql, bytes) else sql):
            some = given[begun : begun + statement.count] if not isinstance(given, dict) else given  # type: ignore[index]
            begun += statement.count
            answer = self._run(statement, some)
        if not self.is_in_transaction:
            yield from self._trip()
        return answer

    def _run(self, statement: Any, parameters: Parameters) -> Answer:
        log = self.way.shore.log
        match statement.sql:
            case sql if sql.startswith("BEGIN"):
                log.begin(is_serializable="SERIALIZABLE" in sql)
                self.is_in_transaction = True
            case "COMMIT":
                self._commit()
            case "ROLLBACK" if self.is_in_transaction:
                self.is_in_transaction = False
                log.roll_back()
            case "ROLLBACK":
                pass  # as PostgreSQL, which warns
            case sql if sql.startswith("LISTEN "):
                self.channels.add(sql.removeprefix("LISTEN ").strip('"'))
            case _ if self.is_in_transaction:
                return log.run(statement, parameters)
            case _:
                with transaction(log):
                    return log.run(statement, parameters)
        return Answer([], None, 0)

    def _commit(self) -> None:
        """Commit; or lose the connection over it, when nobody can say whether it has happened."""
        loses, self.way.loses = self.way.loses, None
        if loses == "commit":
            self._lose()
            raise psycopg.OperationalError("the connection was lost")
        self.is_in_transaction = False
        self.way.shore.log.commit()
        if loses == "answer":
            self._lose()
            raise psycopg.OperationalError("the connection was lost")

    def _lose(self) -> None:
        self.way.lost += 1
        self.way.cut()
        self.break_off()

    def _trip(self) -> Iterator[float]:
        """Be on the way, there or back."""
        shore = self.way.shore
        yield shore.dice.uniform(*shore.delays.question)
        silence = 0.0
        while not self.closed and self.way.stay_silent():
            if silence > self.patience or not self.is_trusted() or not self._may_wait():
                self.break_off()
                raise Silent("the server has fallen silent")
            yield STEP_SECONDS
            silence += STEP_SECONDS
        self._must_be_open()

    def _may_wait(self) -> bool:
        return True

    def _must_be_open(self) -> None:
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")


def _dialing(way: Way) -> Iterator[float]:
    """Connect; yield how long to wait."""
    shore = way.shore
    yield shore.dice.uniform(*shore.delays.question) * 2
    waited = 0.0
    while way.stay_silent():
        if waited >= CONNECT_SECONDS:
            raise psycopg.errors.ConnectionTimeout("connection timeout expired")
        yield STEP_SECONDS
        waited += STEP_SECONDS
    if way.refuse():
        raise psycopg.OperationalError("connection refused")


class Cable(_Cable):
    """A connection of a thread."""

    @classmethod
    def connect(cls, way: Way, dsn: str, **_: Any) -> Cable:
        """Connect."""
        for seconds in _dialing(way):
            wait(seconds)
        return cls(way)

    def add_notice_handler(self, handler: Any) -> None:
        """There are none."""

    def take_notice(self, notice: Any) -> None:
        """There are none."""

    def cursor_in_one(self) -> Cable:
        """Return what sends several statements as one message."""
        return self

    def execute(self, sql: str | bytes, parameters: Parameters | None = None, *_: Any) -> Answer:
        """Run some statements."""
        asking = self._ask(sql, parameters)
        while True:
            try:
                seconds = next(asking)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            wait(seconds)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do something in a transaction."""
        self.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def close(self) -> None:
        """Hang up."""
        self._finish()

    def _may_wait(self) -> bool:
        return may_wait()


class AsyncAnswer:
    """What a statement came to, for an event loop: it has all of it already."""

    def __init__(self, answer: Answer) -> None:
        self.rowcount = answer.rowcount
        self._answer = answer

    async def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row."""
        return self._answer.fetchone()

    async def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all that are left."""
        return self._answer.fetchall()


class AsyncCable(_Cable):
    """A connection of an event loop."""

    patience = ASYNC_SILENCE_SECONDS

    def __init__(self, way: Way) -> None:
        super().__init__(way)
        self._calls: deque[psycopg.Notify] = deque()
        self._called = asyncio.Event()

    @classmethod
    async def connect(cls, way: Way, dsn: str, **_: Any) -> AsyncCable:
        """Connect."""
        for seconds in _dialing(way):
            await asyncio.sleep(seconds)
        return cls(way)

    async def execute(self, sql: str | bytes, parameters: Parameters | None = None) -> AsyncAnswer:
        """Run some statements."""
        asking = self._ask(sql, parameters)
        while True:
            try:
                seconds = next(asking)
            except StopIteration as end:
                return AsyncAnswer(end.value)
            await asyncio.sleep(seconds)

    async def notifies(self, *, timeout: float) -> AsyncIterator[psycopg.Notify]:  # noqa: ASYNC109 - psycopg's
        """Yield what is called, until nothing was for so long."""
        while True:
            while self._calls:
                yield self._calls.popleft()
            self._must_be_open()
            self._called.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._called.wait()
            except TimeoutError:
                return

    def hear(self, call: psycopg.Notify, later: float) -> None:
        """Somebody calls."""

        def hear() -> None:
            if not (self.closed or self.way.is_silent or self.way.shore.is_silent):
                self._calls.append(call)
                self._called.set()

        loop = self.way.shore.loop
        assert self.process is not None
        self.process.run(loop.call_later, later, hear)

    def break_off(self) -> None:
        """It leads nowhere any more; who listens is told."""
        super().break_off()
        if self.process is not None and self.process.is_alive:
            self._called.set()

    async def close(self) -> None:
        """Hang up."""
        self._finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._finish()


class InDatabase:
    """A server keeps its log in the database at the other end of a way (see `Keeping`)."""

    def __init__(self, way: Way, retention: Retention, migrations: Sequence[str]) -> None:
        self._way = way
        self._retention = retention
        self._migrations = migrations
        self._turns: list[Turns] = []

    def open(self, codec: Codec) -> Store:
        """Return a store, in the process that is to have it."""
        turns = Turns(self._way.shore.loop)
        self._turns.append(turns)
        return PostgresStore(
            "postgresql://database/",
            codec,
            migrations=self._migrations,
            retention=self._retention,
            worker=TurnWorker(turns),
            reads=turns,
            driver=self._way.driver,
        )

    def abandon(self) -> None:
        """That process is gone; its threads are taken apart later."""

    def close(self) -> None:
        """That process has ended in good order."""
        self._turns.pop().end()

    def bury(self) -> None:
        """Take apart the threads of all processes."""
        for turns in self._turns:
            turns.end()
