"""
The board keeps the same promises in a file and in a PostgreSQL database: each test here runs on both, and, for they
are many, on the second only with the long ones. (Those of the store run on both each time.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from databases import Databases
from peers import Server, StartBoard

Place = Callable[[str], tuple[str, str]]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def dialect(request: pytest.FixtureRequest) -> str:
    """Which database speaks."""
    return str(request.param)


@pytest.fixture(scope="module")
def place(dialect: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Say by which options a board is told where its data is, by a name."""
    if dialect == "sqlite":
        yield lambda name: ("--data", name)
        return
    databases: Databases = request.getfixturevalue("databases")
    with ExitStack() as lent:
        made = cache(lambda name: ("--store", lent.enter_context(databases.lend())))
        yield made


@pytest.fixture
def start_board(tmp_path: Path, place: Place) -> Iterator[StartBoard]:
    """Start boards with options of their own; those with the same data share a database."""
    with ExitStack() as running:

        def start(*options: str, data: str = "board.db") -> Server:
            where = place(data if data == "memory:" else f"{tmp_path}/{data}")
            return running.enter_context(Server(tmp_path, "board", *where, *options))

        yield start


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, place: Place) -> Iterator[Server]:
    """A board that the tests of a module share."""
    folder = tmp_path_factory.mktemp("board")
    with Server(folder, "board", *place(f"{folder}/board.db")) as server:
        yield server
