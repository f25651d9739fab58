"""A store is named by one string."""

from __future__ import annotations

import sys

import pytest

from holdfast.errors import StoreError
from holdfast.protocol.codec import Codec
from holdfast.store.choice import Choice, chosen, is_shared, kept_elsewhere, store_at
from holdfast.store.postgres import PostgresStore
from holdfast.store.sqlite import SqliteStore
from holdfast.store.store import Retention, Store

RETENTION = Retention(10, 10.0, 10.0)


@pytest.mark.parametrize(
    "place", ["postgresql://host/name", "postgres://host/name", "user=ann dbname=notes", "service=notes"]
)
def test_a_database_can_be_shared(place: str) -> None:
    assert is_shared(place)
    store = store_at(place, Codec(), migrations=(), retention=RETENTION, listen="postgresql://other/name")
    assert isinstance(store, PostgresStore)


@pytest.mark.parametrize("place", ["chat.db", "memory:", "postgres.db", "host", "a=b.db"])
def test_a_file_cannot(place: str) -> None:
    assert not is_shared(place)
    assert isinstance(store_at(place, Codec(), migrations=(), retention=RETENTION), SqliteStore)
    with pytest.raises(ValueError, match="PostgreSQL"):
        store_at(place, Codec(), migrations=(), retention=RETENTION, listen="postgresql://other/name")
    with pytest.raises(ValueError, match="redis is for a store in PostgreSQL"):
        store_at(place, Codec(), migrations=(), retention=RETENTION, redis="redis://host")


def test_a_test_says_for_a_while_where_stores_are_kept_instead() -> None:
    own, other = (store_at("memory:", Codec(), migrations=(), retention=RETENTION) for _ in range(2))
    choice = Choice("chat.db", Codec(), (), RETENTION)
    seen: list[Choice] = []

    def instead(choice: Choice) -> Store | None:
        seen.append(choice)
        return other

    with kept_elsewhere(instead):
        assert chosen(choice, own) is other
        with kept_elsewhere(lambda choice: None):
            assert chosen(choice, own) is own, "the innermost says"
    assert chosen(choice, own) is own
    assert seen == [choice]


def test_for_a_store_in_a_file_a_hub_needs_scripts_for_it() -> None:
    scripts = {"sqlite": ["CREATE TABLE note (text TEXT)"], "postgresql": ["…"]}
    store = Choice("postgresql://host/name", Codec(), scripts, RETENTION).in_file("memory:")
    assert store._migrations == scripts["sqlite"]
    with pytest.raises(ValueError, match="sqlite"):
        Choice("postgresql://host/name", Codec(), {"postgresql": []}, RETENTION).in_file("memory:")


def test_without_redis_py_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "holdfast.store.redis_carrier", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(StoreError, match=r"holdfast\[redis\]"):
        store_at("postgresql://host/name", Codec(), migrations=(), retention=RETENTION, redis="redis://host")


def test_without_psycopg_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "holdfast.store.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"holdfast\[postgres\]"):
        store_at("postgresql://host/name", Codec(), migrations=(), retention=RETENTION)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_scripts_may_be_given_for_each_database(dialect: str) -> None:
    place = "postgresql://host/name" if dialect == "postgresql" else "memory:"
    store = store_at(place, Codec(), migrations={dialect: ["CREATE TABLE note ()"]}, retention=RETENTION)
    assert store._migrations == ["CREATE TABLE note ()"]  # type: ignore[attr-defined]
    other = "sqlite" if dialect == "postgresql" else "postgresql"
    with pytest.raises(ValueError, match=dialect):
        store_at(place, Codec(), migrations={other: []}, retention=RETENTION)
