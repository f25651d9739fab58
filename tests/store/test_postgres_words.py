"""What is published in SQL a hub would have taken too, so every client can read it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdfast.errors import Refused
from holdfast.protocol.codec import Codec
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import Event
from holdfast.store.postgres_words import printable, words
from store.conftest import OpenStore

CODEC = Codec("boardId")
JSON = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def kind() -> str:
    return "postgres"


@pytest.fixture
async def log(open_store: OpenStore) -> AsyncIterator[psycopg.Connection]:
    """A connection of somebody's to a database with a store in it."""
    kept = await open_store()
    with psycopg.connect(kept.dsn, autocommit=True) as connection:
        connection.execute("UPDATE holdfast_meta SET value = %s WHERE key = 'words'", (words(CODEC),))
        yield connection


def append(log: psycopg.Connection, room: str, type: str, data: str) -> bool:
    """Publish; return whether that was accepted."""
    try:
        log.execute("SELECT holdfast_append(%s, %s, %s::jsonb)", (room, type, data))
    except psycopg.DataError:
        return False
    return True


def is_room(room: str) -> bool:
    try:
        return CODEC.check_room(room) == room
    except Refused:
        return False


def test_the_database_prints_what_python_prints(log: psycopg.Connection) -> None:
    rows = log.execute(
        "SELECT n, chr(n) ~ %s FROM generate_series(1, %s) n WHERE n NOT BETWEEN 55296 AND 57343",
        (f"^{printable()}*$", sys.maxunicode),
    )
    differ = {number for number, is_printed in rows if is_printed != chr(number).isprintable()}
    assert differ == set(range(0xE0100, 0xE01F0))  # they change how the letter before them looks


@JSON
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=130).filter(lambda room: "\0" not in room))
@example("lobby")
@example("a" * 128)
@example("🦀" * 129)
@example("no\u00a0break")
@example("zero\u200bwidth")
@example("right\u202eleft")
@example("new\n")
@example("not \u0378 assigned")
@example("\ue000 private")
@example("]^-\\")
def test_a_room_that_it_takes_is_one(log: psycopg.Connection, room: str) -> None:
    assert append(log, room, "said", "{}") == is_room(room)


#: JSON as somebody may write it, also what nobody should.
TEXTS = st.text(max_size=10).map(json.dumps) | st.sampled_from([r'"\ud800"', r'"\udc00\ud800"', r'"\u0000"', r'"😀"'])
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,5})?", fullmatch=True)
VALUES = st.recursive(
    TEXTS | NUMBERS | st.sampled_from(["true", "false", "null", "NaN", "Infinity", "1e309", "-1e400", "1" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(TEXTS, inner), max_size=3).map(
            lambda items: f"{{{','.join(f'{key}:{value}' for key, value in items)}}}"
        )
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(['"a"', '"type"', '"id"', '"boardId"', '"room"', '"data"', '""', r'"id"'])


@JSON
@given(st.lists(st.tuples(KEYS, VALUES), max_size=3).map(lambda them: f"{{{','.join(f'{k}:{v}' for k, v in them)}}}"))
@example('{"a":1e308,"b":-1.5e-400,"c":123456789012345678901234567890}')
@example(f'{{"a":{"9" * 309}}}')
@example(f'{{"a":{"[" * 63}1{"]" * 63}}}')
@example(f'{{"a":{"[" * 900}{"]" * 900}}}')
@example(f'{{"a":{"[" * 5000}{"]" * 5000}}}')
def test_data_that_it_takes_every_client_can_read(log: psycopg.Connection, data: str) -> None:
    if append(log, "lobby", "said", data):
        row = log.execute('SELECT body FROM holdfast_log ORDER BY "offset" DESC LIMIT 1').fetchone()
        assert row is not None
        frame = CODEC.encode_event("lobby", "said", row[0].encode(), Position("epoch", 1))
        message = CODEC.decode_server(frame.text)
        assert isinstance(message, Event)
        assert (message.type, message.room, message.id) == ("said", "lobby", "epoch:1")
        assert CODEC.encode_body("said", message.data)


@pytest.mark.parametrize(
    ("data", "is_taken"),
    [
        (f'{{"a":{"[" * 63}1{"]" * 63}}}', True),
        (f'{{"a":{"[" * 64}1{"]" * 64}}}', False),
        ('{"a":[{"b":1e308}]}', True),
        ('{"a":[{"b":-1.1e308}]}', False),
    ],
)
def test_the_limits_of_data_are_what_they_are_said_to_be(log: psycopg.Connection, data: str, is_taken: bool) -> None:
    assert append(log, "lobby", "said", data) == is_taken
