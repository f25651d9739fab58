"""What many tests start from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from databases import Cluster, Databases, Redis, binaries
from peers import RawPeer, Server, StartBoard


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: at the end nobody else would have anything to do meanwhile."""
    items.sort(key=lambda item: "test_simulation" not in item.nodeid)


@pytest.fixture
def start_board(tmp_path: Path) -> Iterator[StartBoard]:
    """Start boards with options of their own."""
    with ExitStack() as running:

        def start(*options: str, data: str = "board.db") -> Server:
            return running.enter_context(Server(tmp_path, "board", "--data", data, *options))

        yield start


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A board that the tests of a module share."""
    with Server(tmp_path_factory.mktemp("board"), "board") as server:
        yield server


@pytest.fixture
def raw_peer() -> Iterator[Callable[..., RawPeer]]:
    """Open WebSockets by hand, which are closed at the end."""
    peers: list[RawPeer] = []

    def dial(server: Server, **options: int) -> RawPeer:
        peers.append(RawPeer(server.port, **options))
        return peers[-1]

    yield dial
    for peer in peers:
        peer.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """How to connect to a PostgreSQL: that of HOLDFAST_POSTGRES, or one of our own."""
    given, programs = os.environ.get("HOLDFAST_POSTGRES"), binaries()
    if given:
        yield given
    elif programs is None:
        pytest.skip("there is no PostgreSQL (Debian: apt install postgresql)")
    else:
        with Cluster(programs) as cluster:
            yield cluster.dsn("postgres")


@pytest.fixture(scope="session")
def databases(postgres: str) -> Iterator[Databases]:
    """The databases in it that tests are lent."""
    with Databases(postgres) as databases:
        yield databases


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    """A database of its own in it."""
    with databases.lend() as dsn:
        yield dsn


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server to be ended."""
    programs = binaries()
    if programs is None:
        pytest.skip("there is no PostgreSQL (Debian: apt install postgresql)")
    with Cluster(programs) as cluster:
        yield cluster


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis to be ended."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no Redis (Debian: apt install redis-server)")
    with Redis() as redis:
        yield redis
