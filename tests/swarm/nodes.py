"""Three servers on one PostgreSQL, behind a balancer; one of them reaches the database by links that can break."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from databases import Cluster, Redis, by_way_of, port_of
from faults import Proxy
from peers import Balancer, Server
from store.conftest import until
from swarm.swarm import APP, Fault, Publisher

#: Longer than a node bears to be without its database. Seconds.
CUT_SECONDS = 6.5


class Nodes:
    """
    Three servers.

    Args:
        dsn: How they reach their database.
        listen: How they reach it to LISTEN. None: as they do otherwise.
        redis: By which they call out to each other, if there is one.

    Attributes:
        url: Where the balancer is.
        wire, ear: Between the first server and the database: by which it asks and writes, and by which it listens.
    """

    def __init__(self, folder: Path, dsn: str, listen: str | None, redis: Redis | None) -> None:
        (folder / "swarm_app.py").write_text(APP)
        self._folder = folder
        self._dsn = dsn
        self._listen = listen
        self._redis = redis
        self.wire = Proxy(port_of(dsn))
        self.ear = Proxy(port_of(listen or dsn))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Nodes]:
        async with AsyncExitStack() as held:
            await held.enter_async_context(self.wire)
            await held.enter_async_context(self.ear)
            ways = {"STORE": self._dsn, "LISTEN": self._listen or self._dsn}
            if self._redis is not None:
                ways["REDIS"] = self._redis.url
            self.servers = [Server(self._folder, "serve", "swarm_app:app", env=ways) for _ in range(3)]
            self.servers[0].env["STORE"] = by_way_of(self._dsn, self.wire.port)
            self.servers[0].env["LISTEN"] = by_way_of(self._listen or self._dsn, self.ear.port)
            for place, server in enumerate(self.servers):
                server.log = self._folder / f"server-{place}.log"
                held.push_async_callback(asyncio.to_thread, server.__exit__)  # what it ends with goes by the wire
                await asyncio.to_thread(server.start)
            self.url = await held.enter_async_context(Balancer(self.servers))
            yield self

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    async def reach_database(self) -> None:
        """Wait until their database answers: a pooler lets people in by itself."""

        def can_be_reached() -> bool:
            try:
                with psycopg.connect(self._dsn, connect_timeout=5) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        await until(can_be_reached, 30.0)

    async def all_write(self) -> None:
        """See that each of them is at work: something is published by each."""
        async with asyncio.timeout(30):
            for place, server in enumerate(self.servers):
                await Publisher(server.url, ["aside"]).publish(range(1_000_000 + place, 1_000_001 + place), 0)

    def of_database(self, cluster: Cluster, dice: random.Random) -> list[tuple[str, Fault]]:
        """Return what befalls the database."""

        async def restart() -> int:
            await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
            await asyncio.sleep(dice.uniform(0, 1))
            await asyncio.to_thread(cluster.start)
            await self.reach_database()
            return 1

        return [("database restarted", restart)]

    def of_redis(self, dice: random.Random) -> list[tuple[str, Fault]]:
        """Return what befalls Redis, if there is one."""
        redis = self._redis
        if redis is None:
            return []

        async def kill() -> int:
            redis.kill()
            await asyncio.sleep(dice.uniform(0.5, 3))
            await asyncio.to_thread(redis.start)
            return 1

        return [("Redis killed", kill)]

    def of_first(self, dice: random.Random) -> list[tuple[str, Fault]]:
        """Return what befalls the links of the first server to the database."""

        async def cut_off() -> int:
            self.wire.silence()
            self.ear.silence()
            await asyncio.sleep(CUT_SECONDS)
            return min(self.wire.restore(), self.ear.restore())

        async def lose_hints() -> int:
            self.ear.silence()
            await asyncio.sleep(dice.uniform(1, 2))
            return self.ear.restore()

        return [("node cut off from the database", cut_off), ("NOTIFY lost", lose_hints)]
