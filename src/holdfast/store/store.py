"""
What does holdfast need of a store?

A *change* is a plain function of a `Transaction`. What it wrote and what it published
commit together, or not at all; when `write` returns, both are on the disk. A *query* is
a plain function of a `ReadTransaction`: all that it reads is of one moment, and
`position` says which.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

from holdfast.core.inputs import Elsewhere
from holdfast.core.ready import Span
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import User

P = ParamSpec("P")
T = TypeVar("T")

Row = dict[str, Any]


class ReadTransaction(Protocol):
    """One moment of the store."""

    def all(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return every row, by column name. Placeholders are `?`."""

    def one(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        """Return the first row, or None."""

    def position(self, room: str) -> Position:
        """Return where `room` stands at this moment: a client that joins `since` here misses nothing."""

    def time(self, room: str, offset: int) -> str | None:
        """
        Return when a publication was committed: ISO 8601, UTC, microseconds, later than all before it in its room.

        None if the log does not have it (any more); that of the newest, `position(room).offset`, is never forgotten.
        """


class Transaction(ReadTransaction, Protocol):
    """
    What a change acts through, and all it may act through: it can be run twice.

    Attributes:
        now: The time of this change, in the same form.
    """

    @property
    def now(self) -> str:
        """The time of this change."""

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

    A repetition has published nothing, but knows the `positions` (room and offset) of what the first has; `epoch` is
    that of the log in which they are.
    """

    result: Any
    publications: tuple[Record, ...]
    positions: tuple[tuple[str, int], ...]
    epoch: str = field(default="", compare=False)


def published(outcomes: Iterable[Outcome]) -> list[Record]:
    """Return what changes have published, in order."""
    return [record for outcome in outcomes for record in outcome.publications]


class Listener(Protocol):
    """Who is told what happens in a store (in the event loop)."""

    def news(self, records: Sequence[Record]) -> None:
        """These were committed: of each room in their order, each once."""

    def follows(self, room: str) -> bool:
        """Whether the news of a room are wanted here."""

    def shows(self, room: str) -> bool:
        """Whether it is shown to anybody here who is in a room."""

    def met(self, room: str, came: Elsewhere, went: Elsewhere) -> None:
        """At other nodes, these sessions came to a room, and those left it."""

    def taken(self, session: str, rooms: tuple[str, ...]) -> None:
        """A session of this node went on at another, which has taken its places in these rooms."""

    def awaited(self, session: str, user: User, rooms: tuple[str, ...]) -> None:
        """A session was taken over from another node, and whoever asked for it waits no longer."""

    def departed(self, room: str, session: str) -> None:
        """It is written down that a session has left a room (`Others.depart`), and what stood there before was told."""

    def expelled(self, user_id: str, room: str | None) -> None:
        """A user is to be put out of a room, or out of all (`Others.expel`)."""

    def heard(self, word: Any) -> None:
        """Another node has said this (see `Others.say`)."""

    def away(self) -> None:
        """The store has not answered for a while: what is known here may be old."""

    def back(self) -> None:
        """It answers again, and everything that was missed has been told."""

    def moved(self) -> None:
        """It is another, or has another life, and another epoch: everybody has to start afresh."""


class Others(Protocol):
    """The other nodes that share a store."""

    @property
    def are_none(self) -> bool:
        """Whether there is no other node at work now, but for those that are about to end."""

    async def withdraw(self, seconds: float) -> None:
        """Tell them that this one is about to end; those that end too have so long to say so."""

    def attend(self, room: str, session: str, user: User) -> None:
        """Let them know that a session of this node is in a room."""

    def depart(self, room: str, session: str) -> None:
        """… and that it is no longer; the listener is told when that is done."""

    async def meet(self, room: str) -> None:
        """Learn who is in a room at other nodes, and from now on be told of changes."""

    def known(self, room: str) -> Elsewhere:
        """Return who is in a room at other nodes, as far as is known."""

    async def take_over(self, session: str, user_id: str, link: int | None = None) -> tuple[str, ...] | None:
        """
        Claim a user's session, which goes on here, for this node; return the rooms that it was in at another.

        Its client may count its links. None: a later one than this `link` has it. Raises `Invalid` or `Unavailable`:
        then nobody knows whose it is.
        """

    async def expel(self, user_id: str, room: str | None) -> None:
        """Have every node put a user out of a room, or out of all; or raise `Unavailable`, and perhaps none does."""

    def say(self, word: Any) -> None:
        """Tell them something that JSON can say, or raise `TooLarge`. It may be lost."""


class Store(Protocol):
    """
    A log for every room, and the application's own tables beside it.

    """

    @property
    def epoch(self) -> str:
        """What names this log: another epoch says "older positions mean nothing"."""

    @property
    def secret(self) -> str:
        """32 random bytes as hex, kept with the data, to sign tokens with."""

    @property
    def others(self) -> Others | None:
        """The other nodes, if several may share it."""

    async def open(self, listener: Listener) -> None:
        """Open it; from now on `listener` is told what happens."""

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


@runtime_checkable
class AppendsElsewhere(Protocol):
    """A store whose log can be written in a transaction of somebody else's."""

    def append_in(
        self, connection: Any, room: str, type: str, body: bytes, then: Callable[[int], T]
    ) -> T | Awaitable[T]:
        """Append to a log; return what `then` makes of the offset, or what is to be awaited for it."""


def new_epoch() -> str:
    """Return a name for a life of the log that no other has had."""
    return secrets.token_hex(4)
