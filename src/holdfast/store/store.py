"""
What does holdfast need of a store?

A *change* is a plain function of a `Transaction`. What it wrote and what it published
commit together, or not at all; when `write` returns, both are on the disk. A *query* is
a plain function of a `ReadTransaction`: all that it reads is of one moment, and
`position` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from holdfast.core.ready import Span
from holdfast.protocol.cursor import Position

P = ParamSpec("P")
T = TypeVar("T")

Row = dict[str, Any]


class ReadTransaction(Protocol):
    """
    One moment of the store.

    Attributes:
        now: The time of the newest change at this moment: ISO 8601, UTC, microseconds. In a change: its own,
            later than that of every change before.
    """

    @property
    def now(self) -> str:
        """The time of this moment."""

    def all(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return every row, by column name. Placeholders are `?`."""

    def one(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        """Return the first row, or None."""

    def position(self, room: str) -> Position:
        """Return where `room` stands at this moment: a client that joins `since` here misses nothing."""

    def time(self, room: str, offset: int) -> str | None:
        """Return when a publication was committed, or None if the log does not have it (any more)."""


class Transaction(ReadTransaction, Protocol):
    """What a change acts through, and all it may act through: it can be run twice."""

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run a statement; return how many rows it changed."""

    def new_id(self, kind: str) -> str:
        """Return an id that was never given before: `task-5`."""

    def publish(self, room: str, type: str, data: Any) -> None:
        """Put an event into the log of `room`, with this transaction. `data` is what becomes a JSON object."""


#: A log that could not be read is read again after so long: those who wait for it can go on nowhere else.
READ_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Record:
    """A publication as the store keeps it: `body` is the JSON text of its payload."""

    room: str
    offset: int
    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Once:
    """
    Makes a command take effect once: the same `user` and `key` are answered the same, for 24 hours.

    `fingerprint` stands for what the command says; another one under the same key is refused. A command that
    writes several times says which write this is (`part`).
    """

    user: str
    key: str
    fingerprint: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Retention:
    """What a store may forget: publications of a room beyond `records` or older than `seconds`, and old verdicts."""

    records: int
    seconds: float
    verdict_seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What a change returned, and what it published, now committed.

    A repetition has published nothing, but knows the `positions` (room and offset) of what the first has.
    """

    result: Any
    publications: tuple[Record, ...]
    positions: tuple[tuple[str, int], ...]


class Store(Protocol):
    """
    A log for every room, and the application's own tables beside it.

    Attributes:
        epoch: Names this log. Another epoch says "older positions mean nothing".
        secret: 32 random bytes as hex, kept with the data, to sign tokens with.
    """

    epoch: str
    secret: str

    async def open(self, news: Callable[[Sequence[Record]], None]) -> None:
        """Open it; from now on `news` is called, in the event loop, with what was committed, in order."""

    async def close(self) -> None:
        """Finish what was accepted, and close it."""

    async def write(
        self,
        change: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `change` in a transaction, and return what it returned once that is on the disk."""

    async def commit(
        self, change: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], once: Once | None
    ) -> Outcome:
        """Like `write`, with what was published; with `once`, a repetition is answered as the first was."""

    async def read(self, query: Callable[Concatenate[ReadTransaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `query` on one moment of the store, and return what it returned."""

    async def span(self, room: str) -> Span:
        """Return what the log of `room` holds."""

    async def page(self, room: str, after: int) -> list[Record]:
        """Return what follows `after`: without holes, from the first that is left, as much as fits a page."""
