"""What the database of the sea makes of the store's own statements is what PostgreSQL makes of them."""

from __future__ import annotations

import random
from importlib.resources import files
from typing import Any, Self

import psycopg
import pytest

from holdfast.store import postgres_claims, postgres_lease, postgres_people
from holdfast.testing.shared_log import SharedLog, statements, transaction
from holdfast.testing.virtual import VirtualLoop

NODES, SESSIONS, USERS, ROOMS = ("n1", "n2", "n3"), ("s1", "s2", "s3"), ("ann", "bob"), ("A", "b", "c")
WRITTEN_DOWN = 'SELECT room, session, "user", name, node, here, held FROM holdfast_people ORDER BY room, session'
CLOCK = 1_000_000  # what is more than this is a time: the two have clocks of their own


class Both:
    """The two databases."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.loop = VirtualLoop()
        self.twin = SharedLog(self.loop, random.Random(seed))
        self.real = psycopg.connect(dsn, autocommit=True)
        schema = files("holdfast.store").joinpath("schema", "postgres.sql").read_text()
        self.real.execute(schema.encode())
        for statement in statements(schema):
            with transaction(self.twin):
                self.twin.run(statement, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.real.close()
        self.loop.close()

    def do(self, sql: str, given: Any) -> None:
        real = self.real.execute(sql.encode(), given)
        rows = real.fetchall() if real.description is not None else []
        (statement,) = statements(sql)
        with transaction(self.twin):
            twin = self.twin.run(statement, given)
        assert plain(rows) == plain(twin.fetchall()), sql
        assert twin.rowcount in (real.rowcount, -1), sql  # SQLite does not count what begins with WITH
        assert plain(self.real.execute(WRITTEN_DOWN).fetchall()) == plain(self.twin.query(WRITTEN_DOWN)), sql


def plain(rows: list[Any]) -> list[str]:
    """Return rows that can be compared: SQLite has no booleans, and the clocks are not the same."""

    def each(value: Any) -> Any:
        if isinstance(value, bool | int | float):
            return "a time" if value > CLOCK else float(value)
        return value

    return sorted(repr([each(value) for value in row]) for row in rows)


@pytest.mark.parametrize("seed", range(4))
def test_claims_leases_and_who_is_where_are_the_same_in_both(database: str, seed: int) -> None:
    dice = random.Random(seed)
    with Both(database, seed) as both:
        for step in range(120):
            node = dice.choice(NODES)
            places = {
                (dice.choice(ROOMS), dice.choice(SESSIONS)): dice.choice(USERS) for _ in range(dice.randint(1, 4))
            }
            rooms, sessions = map(list, zip(*places, strict=True))
            match dice.choice(("attend", "depart", "claim", "claim", "renew", "enlist", "look")):
                case "attend":
                    held = [float(dice.choice((0, 1, 2, 3, 5, 8))) for _ in places]
                    names = [f"name {step}" for _ in places]
                    both.do(postgres_people._ATTEND, (node, rooms, sessions, list(places.values()), names, held))
                case "depart":
                    both.do(postgres_people._DEPART, (rooms, sessions, node))
                case "claim":
                    whose = {(session, user): None for (_, session), user in places.items()}
                    links = [dice.choice((None, 1, 2, 3, 4, 6, 9, 12)) for _ in whose]
                    given = {"node": node, "sessions": [], "users": [], "links": links}
                    given["sessions"], given["users"] = map(list, zip(*whose, strict=True))
                    both.do(postgres_claims._TAKE_OVER, given)
                case "renew":
                    both.do(postgres_lease._RENEW, (12.0, False, node))
                case "enlist":
                    both.do(postgres_lease._ENLIST, (12.0, dice.random() < 0.5, node))
                case "look":
                    both.do(postgres_people._IN_ROOMS, (list(ROOMS), node))
                    both.do(postgres_people._AT_NODE, (node,))
                    both.do(postgres_people._OF_SESSIONS, (list(SESSIONS), node))
