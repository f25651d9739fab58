"""
What does a database do that several servers share?

What the real store asks of PostgreSQL is answered by SQLite, in memory, one transaction after the other:
each happens at one moment, and time passes on the way to it and back (`holdfast.testing.cable`). Two of its
statements SQLite cannot do, and they are done here in another way; that they come to the same is tried with
the real one, as is what that does when transactions meet.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from psycopg import errors

from holdfast.store.store import new_epoch
from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.virtual import EPOCH, VirtualLoop

Parameters = Sequence[Any] | Mapping[str, Any]

#: What is of now, and not kept when the server ends in the middle of something (UNLOGGED).
_OF_NOW = ("holdfast_node", "holdfast_people")


class Answer:
    """What a statement came to, as a cursor has it."""

    def __init__(self, rows: list[tuple[Any, ...]], columns: Sequence[Sequence[Any]] | None, changed: int) -> None:
        self.description = columns
        self.rowcount = changed if columns is None else len(rows)
        self._rows = iter(rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row."""
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all that are left."""
        return list(self._rows)

    def nextset(self) -> None:
        """There is none: of several statements this is what the last one came to."""


@dataclass(frozen=True)
class Copy:
    """The database as it was at one moment."""

    database: sqlite3.Connection
    next_xid: int
    flushed: int


class SharedLog:
    """
    The database.

    Attributes:
        called: What is done with a call (NOTIFY), by channel, once it is committed.
        conflicts: How often a transaction is refused (at SERIALIZABLE) because another one was first.
    """

    def __init__(self, loop: VirtualLoop, dice: random.Random) -> None:
        self.called: Callable[[str, str], None] = lambda channel, call: None
        self.conflicts = 0.0
        self._loop = loop
        self._dice = dice
        self._timeline = 1
        self._next_xid = 100
        self._xid: int | None = None  # of the transaction that runs
        self._flushed = 1
        self._calls: list[tuple[str, str]] = []  # of the transaction that runs
        self._database = self._new_database()

    def _new_database(self) -> sqlite3.Connection:
        database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
        database.execute("PRAGMA temp_store = MEMORY")
        functions: list[tuple[str, int, Callable[..., Any]]] = [
            ("now", 0, self._now),
            ("clock_timestamp", 0, self._now),
            ("pg_current_xact_id", 0, self._current_xid),
            ("pg_current_snapshot", 0, lambda: f"{self._next_xid}:{self._next_xid}:"),
            ("pg_snapshot_xmax", 1, lambda snapshot: int(snapshot.split(":")[1])),
            ("pg_current_wal_flush_lsn", 0, lambda: self._flushed),
            ("holdfast_home", 0, lambda: f"1:{self._timeline:08X}:1:1"),
            ("pg_notify", 2, lambda channel, call: self._calls.append((channel, call))),
            ("pg_advisory_xact_lock", 1, lambda key: None),
            ("hashtext", 1, len),
            ("set_config", 3, lambda name, value, local: value),
            ("current_setting", 1, {"server_encoding": "UTF8", "synchronous_commit": "on"}.get),
            ("greatest", 2, lambda one, other: max((each for each in (one, other) if each is not None), default=None)),
        ]
        for name, count, function in functions:
            database.create_function(name, count, function)
        return database

    def _now(self) -> float:
        return EPOCH + self._loop.time()

    def _current_xid(self) -> int:
        if self._xid is None:
            self._xid, self._next_xid = self._next_xid, self._next_xid + 1
        return self._xid

    # Transactions.

    def begin(self, *, is_serializable: bool = False) -> None:
        """Begin one: nothing else happens before it ends."""
        self._is_serializable = is_serializable
        self._xid = None
        self._changes = self._database.total_changes
        self._database.execute("BEGIN")

    def commit(self) -> None:
        """Commit it, or raise what PostgreSQL says if others were first."""
        if self._database.total_changes > self._changes:
            if self._is_serializable and self._dice.random() < self.conflicts:
                self.roll_back()
                raise errors.SerializationFailure("could not serialize access due to concurrent update")
            self._flushed += 1
        self._database.execute("COMMIT")
        calls, self._calls = self._calls, []
        for channel, call in calls:
            self.called(channel, call)

    def roll_back(self) -> None:
        """Undo it."""
        self._database.execute("ROLLBACK")
        self._calls.clear()

    def run(self, statement: Statement, parameters: Parameters) -> Answer:
        """Run one statement of a transaction."""
        given = _given(parameters)
        if statement.sql.startswith("SELECT holdfast_append_many"):
            return Answer([(self._append_many(*parameters),)], (("offsets",),), 0)
        if "taken AS (" in statement.sql:
            return Answer(self._take_over(given), (), 0)
        cursor = self._database.execute(statement.sql, given)
        rows = [tuple(map(_read, row)) for row in cursor.fetchall()]
        return Answer(rows, cursor.description, cursor.rowcount)

    def query(self, sql: str) -> list[Any]:
        """Return what there is, for whoever judges."""
        return self._database.execute(sql).fetchall()

    def _append_many(
        self, names: list[str], types: list[str], bodies: list[str], times: list[int], given: bool
    ) -> list[int]:
        """Do what `holdfast_append_many` does (schema/postgres.sql)."""
        execute, offsets = self._database.execute, []
        for name, type, body, at in zip(names, types, bodies, times, strict=True):
            execute("INSERT INTO holdfast_room (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            room, head, newest = execute("SELECT id, head, at FROM holdfast_room WHERE name = ?", (name,)).fetchone()
            if given and at <= newest:
                raise errors.SerializationFailure("a room has a later publication")
            at = max(at, newest + 1)
            execute(
                'INSERT INTO holdfast_log (room_id, "offset", at, type, body) VALUES (?, ?, ?, ?, ?)',
                (room, head + 1, at, type, body),
            )
            execute("UPDATE holdfast_room SET head = ?, at = ? WHERE id = ?", (head + 1, at, room))
            offsets.append(head + 1)
        return offsets

    def _take_over(self, given: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Do what `_TAKE_OVER` says (postgres_claims): SQLite changes nothing within a WITH."""
        claims = zip(*(json.loads(given[name]) for name in ("sessions", "users", "links")), strict=True)
        return [row for claim in claims for row in self._claim(given["node"], *claim)]

    def _claim(self, node: str, session: str, user: str, link: int | None) -> list[tuple[Any, ...]]:
        places = self._database.execute(
            'SELECT room, name, node, held, here FROM holdfast_people WHERE session = ? AND "user" = ?', (session, user)
        ).fetchall()
        held = max((held for _, _, _, held, _ in places), default=0.0)
        is_old = link is not None and held > link
        claim = max(self._now(), held + 1e-6) if link is None else link
        taken = [] if is_old else [(room, name, before != node) for room, name, before, _, here in places if here]
        for room, _, _ in taken:
            self._database.execute(
                "UPDATE holdfast_people SET node = ?, held = ?, xid = pg_current_xact_id(), at = now() "
                "WHERE room = ? AND session = ?",
                (node, claim, room, session),
            )
        return [(session, user, is_old, claim, *place) for place in taken or [(None, None, None)]]

    # What can become of it.

    @property
    def epoch(self) -> str:
        """Which life of the log this is."""
        ((epoch,),) = self.query("SELECT value FROM holdfast_meta WHERE key = 'epoch'")
        return str(epoch)

    def renew_epoch(self) -> None:
        """Do what `holdfast store new-epoch` does."""
        self._database.execute("UPDATE holdfast_meta SET value = ? WHERE key = 'epoch'", (new_epoch(),))

    def copy(self) -> Copy:
        """Return a copy, as a standby has it that follows no longer, or a backup."""
        database = self._new_database()
        self._database.backup(database)
        return Copy(database, self._next_xid, self._flushed)

    def crash(self) -> None:
        """The server has ended in the middle of something, and comes up again."""
        tables = {name for (name,) in self.query("SELECT name FROM sqlite_master")}
        for table in tables.intersection(_OF_NOW):
            self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - it is ours
        if "holdfast_log" in tables:  # ids of transactions that came to nothing are given again
            ((newest,),) = self.query(
                "SELECT max(xid) FROM (SELECT xid FROM holdfast_log UNION ALL SELECT xid FROM holdfast_expulsion)"
            )
            self._next_xid = max(100, (newest or 0) + 1)

    def go_back(self, copy: Copy, felt: Felt = unfelt, *, is_promoted: bool) -> None:
        """
        Go on as a copy of some time ago: a standby that is promoted, or files that were put in place of others.

        It is felt if the copy lacks any publication.
        """
        before = self._heads()
        self._database, self._next_xid, self._flushed = copy.database, copy.next_xid, copy.flushed
        self._timeline += is_promoted
        self.crash()
        if self._heads() != before:
            felt()

    def _heads(self) -> list[Any]:
        return self.query("SELECT name, head FROM holdfast_room ORDER BY name")


# What PostgreSQL's words mean in SQLite's.


@dataclass(frozen=True)
class Statement:
    """One statement, as SQLite reads it, and how many values are put into it."""

    sql: str
    count: int


@cache
def statements(text: str) -> tuple[Statement, ...]:
    """Return what PostgreSQL is told, one statement after the other, without what has no meaning here."""
    text = _COMMENT.sub("", text)
    text = text.split("CREATE FUNCTION")[0] if "CREATE FUNCTION" in text else text
    found = []
    for part in text.split(";"):
        sql = _translate(part.strip())
        if sql and not _WITHOUT_MEANING.match(sql):
            found.append(Statement(sql, sql.count("?")))
    return tuple(found)


def _translate(sql: str) -> str:
    sql = sql.replace("%s", "?").replace("%%", "%")
    for pattern, meaning in _MEANINGS:
        sql = pattern.sub(meaning, sql)
    return sql


def _unnest(found: re.Match[str]) -> str:
    """`unnest(…) one(…)`: arrays are JSON here."""
    arrays, ordinality, alias, names = found.groups()
    columns = [name.strip() for name in (names or alias).split(",")]
    if ordinality:
        place = columns.pop()
    tables = [f"json_each({array.strip()}) j{number}" for number, array in enumerate(arrays.split(","))]
    joined = tables[0] + "".join(f" JOIN {table} ON j{n}.key = j0.key" for n, table in enumerate(tables[1:], 1))
    chosen = [f"j{number}.value AS {name}" for number, name in enumerate(columns)]
    chosen += [f"j0.key AS {place}"] if ordinality else []
    return f"(SELECT {', '.join(chosen)} FROM {joined}) {alias}"  # noqa: S608 - all of it is ours


_COMMENT = re.compile(r"--[^\n]*")
_WITHOUT_MEANING = re.compile(r"SET |LOCK TABLE|REVOKE|DO \$\$|CREATE TABLE holdfast_turn")
_MEANINGS: list[tuple[re.Pattern[str], Any]] = [
    (re.compile(pattern, re.DOTALL), meaning)
    for pattern, meaning in (
        (r"BEGIN ISOLATION LEVEL (\w+).*", r"BEGIN -- \1"),
        (r"bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "INTEGER PRIMARY KEY"),
        (r"UNLOGGED | COLLATE \"C\"| WITH \(fillfactor = 50\)", ""),
        (r"DEFAULT (\w+\(\))", r"DEFAULT (\1)"),
        (r"%\((\w+)\)s", r":\1"),
        (r"::\w+(\[\])?", ""),
        (r"to_regclass\('(\w+)'\)", r"(SELECT name FROM sqlite_master WHERE name = '\1')"),
        (r"extract\(epoch FROM (\w+\(\))\)", r"\1"),
        (r"make_interval\(secs => ([^()]*)\)", r"(\1)"),
        (r"interval '1 day'", "86400"),
        (r"\bleast\(", "min("),
        (r"coalesce\(array_agg\(id\), ARRAY\[\]\)", "'list:' || json_group_array(id)"),
        (r"= ANY\(([?:\w]+)\)", r"IN (SELECT value FROM json_each(\1))"),
        (r"unnest\(([^()]*)\)\s*(WITH ORDINALITY )?\s*(\w+)(?:\(([^)]*)\))?", _unnest),
        (
            r"CROSS JOIN LATERAL \(\s*SELECT [^()]*? FROM holdfast_log\s+"
            r"WHERE room_id = room\.id AND (\S+ > \S+).*?\) log",
            r"JOIN holdfast_log log ON room_id = room.id AND \1",
        ),
        (r" FOR UPDATE( OF people)?( SKIP LOCKED)?", ""),
        (r"UPDATE holdfast_people people", "UPDATE holdfast_people AS people"),
    )
]


def _given(parameters: Parameters) -> Any:
    if isinstance(parameters, Mapping):
        return {name: _write(value) for name, value in parameters.items()}
    return tuple(map(_write, parameters))


def _write(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _read(value: Any) -> Any:
    return json.loads(value[5:]) if isinstance(value, str) and value.startswith("list:") else value


@contextmanager
def transaction(log: SharedLog) -> Iterator[None]:
    """Do something in a transaction of its own."""
    log.begin()
    try:
        yield
    except BaseException:
        log.roll_back()
        raise
    log.commit()
