"""What has been run on a store is what it is said to be, or the store is not opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest

from holdfast.errors import StoreError
from holdfast.store.migrations import Migration, pending
from store.conftest import NOTES, POSTGRES_NOTES, OpenStore


@pytest.fixture
def notes(kind: str) -> str:
    return NOTES if kind == "sqlite" else POSTGRES_NOTES


def test_what_was_not_run_is_to_be_run_in_order() -> None:
    first, second, third = (Migration("app", number, script) for number, script in ((1, "a"), (2, "b"), (3, "c")))
    assert pending("app", ["a", "b", "c"], {}) == [first, second, third]
    assert pending("app", ["a", "b", "c"], {1: first.hash, 2: second.hash}) == [third]
    assert pending("app", [], {}) == []


@pytest.mark.parametrize("changed", [0, 1])
async def test_one_that_has_run_must_not_be_changed(open_store: OpenStore, notes: str, changed: int) -> None:
    scripts = [notes, "CREATE TABLE more (id integer)"]
    await (await open_store(migrations=scripts)).store.close()
    scripts[changed] += " -- improved"
    with pytest.raises(StoreError, match=f"migration {changed + 1} of app is not the one .* must not be changed"):
        await open_store(migrations=scripts)


async def test_a_store_that_knows_more_than_the_program_is_refused(open_store: OpenStore, notes: str) -> None:
    await (await open_store(migrations=[notes, "CREATE TABLE more (id integer)"])).store.close()
    with pytest.raises(StoreError, match=r"2 migrations of app .* 1 are known .* newer version"):
        await open_store(migrations=[notes])


async def test_a_program_without_tables_may_use_the_store_of_one_that_has_some(
    open_store: OpenStore,
) -> None:
    await (await open_store()).store.close()
    await open_store(migrations=[])


async def test_another_applications_store_is_refused(open_store: OpenStore) -> None:
    await (await open_store()).store.close()
    with pytest.raises(StoreError, match="a store serves one application"):
        await open_store(migrations=["CREATE TABLE theirs (id integer)"])


async def test_a_store_of_a_newer_holdfast_is_refused(open_store: OpenStore, kind: str, tmp_path: Path) -> None:
    kept = await open_store()
    await kept.store.close()
    insert = "INSERT INTO holdfast_migration (owner, number, hash) VALUES ('holdfast', 99, 'x')"
    if kind == "sqlite":
        with closing(sqlite3.connect(kept.path)) as file, file:
            file.execute(insert)
    else:
        with psycopg.connect(kept.dsn) as database:
            database.execute(insert)
    with pytest.raises(StoreError, match=r"migrations of holdfast .* newer version"):
        await open_store()


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_file_of_before_there_were_hashes_is_opened_and_has_them_from_then_on(
    tmp_path: Path, open_store: OpenStore
) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE holdfast_migration (owner TEXT, number INTEGER, PRIMARY KEY (owner, number))")
        file.executescript(files("holdfast.store.schema").joinpath("sqlite.sql").read_text())
        file.executescript(NOTES)
        file.execute("INSERT INTO holdfast_migration VALUES ('holdfast', 1), ('app', 1)")
        file.commit()
    await (await open_store(path)).store.close()
    with pytest.raises(StoreError, match="migration 1 of app"):
        await open_store(path, migrations=[NOTES + " -- improved"])
