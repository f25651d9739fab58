"""
A swarm on every road, while the network and the server break in every way: every client has everything, in order, once.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from faults import Proxy
from peers import Server
from swarm.network import of_links, of_servers
from swarm.swarm import APP, swarm


async def on_one_server(
    folder: Path, *, seed: int, clients: int, rooms: int, publications: int, seconds: float
) -> None:
    dice = random.Random(seed)
    (folder / "swarm_app.py").write_text(APP)
    with Server(folder, "serve", "swarm_app:app") as server:
        async with Proxy(server.port) as proxy:
            await swarm(
                f"http://127.0.0.1:{proxy.port}",
                server.url,
                [[*of_links(proxy, dice) * 2, *of_servers([server], dice)]],
                clients=clients,
                rooms=rooms,
                publications=publications,
                seconds=seconds,
                dice=dice,
            )


@pytest.mark.long
async def test_a_small_swarm_misses_nothing_and_hears_nothing_twice(tmp_path: Path) -> None:
    await on_one_server(tmp_path, clients=40, rooms=5, publications=600, seconds=15, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_two_hundred_clients_and_three_thousand_publications(tmp_path: Path, seed: int) -> None:
    await on_one_server(tmp_path, clients=200, rooms=10, publications=3000, seconds=40, seed=seed)
