"""What many tests start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from peers import RawPeer, Server, StartBoard


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
