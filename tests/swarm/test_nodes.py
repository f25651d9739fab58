"""The same swarm on three servers that share a PostgreSQL database, while that breaks too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from databases import Cluster, Pooler, Redis, by_way_of, create
from faults import Proxy
from swarm.network import of_links, of_servers
from swarm.nodes import Nodes
from swarm.swarm import swarm


async def on_three_servers(
    folder: Path,
    cluster: Cluster,
    dsn: str,
    listen: str | None = None,
    redis: Redis | None = None,
    *,
    seed: int,
    clients: int,
    rooms: int,
    publications: int,
    seconds: float,
) -> None:
    dice = random.Random(seed)
    async with Nodes(folder, dsn, listen, redis).running() as nodes, Proxy(nodes.port) as proxy:
        await swarm(
            f"http://127.0.0.1:{proxy.port}",
            nodes.url,
            [
                of_links(proxy, dice),
                # One that is started needs its database: so these happen one after the other, and not to the first.
                [*of_servers(nodes.servers[1:], dice), *nodes.of_database(cluster, dice)],
                nodes.of_first(dice),
                *([nodes.of_redis(dice)] if redis is not None else []),
            ],
            clients=clients,
            rooms=rooms,
            publications=publications,
            seconds=seconds,
            dice=dice,
        )
        await nodes.all_write()


@pytest.fixture
def pooler(cluster: Cluster) -> Iterator[Pooler]:
    if Pooler.program() is None:
        pytest.skip("there is no PgBouncer (Debian: apt install pgbouncer)")
    with Pooler(cluster.port) as pooler:
        yield pooler


@pytest.mark.long
async def test_a_small_swarm_on_three_servers_misses_nothing_and_hears_nothing_twice(
    tmp_path: Path, cluster: Cluster, redis: Redis
) -> None:
    dsn = create(cluster.dsn("postgres"), "swarm")
    await on_three_servers(
        tmp_path, cluster, dsn, None, redis, clients=15, rooms=3, publications=150, seconds=6, seed=1
    )


@pytest.mark.long
async def test_a_small_swarm_through_a_pooler(tmp_path: Path, cluster: Cluster, pooler: Pooler) -> None:
    dsn = create(cluster.dsn("postgres"), "swarm")
    pooled = by_way_of(dsn, pooler.port)
    await on_three_servers(tmp_path, cluster, pooled, dsn, clients=15, rooms=3, publications=150, seconds=8, seed=2)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_two_hundred_clients_on_three_servers(tmp_path: Path, cluster: Cluster, redis: Redis, seed: int) -> None:
    dsn = create(cluster.dsn("postgres"), "swarm")
    await on_three_servers(
        tmp_path, cluster, dsn, None, redis, clients=200, rooms=10, publications=2000, seconds=40, seed=seed
    )


@pytest.mark.long
async def test_a_hundred_clients_through_a_pooler(tmp_path: Path, cluster: Cluster, pooler: Pooler) -> None:
    dsn = create(cluster.dsn("postgres"), "swarm")
    pooled = by_way_of(dsn, pooler.port)
    await on_three_servers(tmp_path, cluster, pooled, dsn, clients=100, rooms=10, publications=1000, seconds=40, seed=3)
