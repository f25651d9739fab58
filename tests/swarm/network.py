"""What breaks between clients and servers, and what becomes of a server."""

from __future__ import annotations

import asyncio
import random

from faults import Proxy
from peers import Server
from swarm.swarm import Fault


def of_links(proxy: Proxy, dice: random.Random) -> list[tuple[str, Fault]]:
    """Return what breaks links."""

    async def reset() -> int:
        return proxy.reset(dice.uniform(0.05, 0.5), dice)

    async def silence() -> int:
        return proxy.fall_silent(dice.uniform(0.05, 0.3), dice)

    return [("links reset", reset), ("links fell silent", silence)]


def of_servers(servers: list[Server], dice: random.Random) -> list[tuple[str, Fault]]:
    """Return what befalls servers."""

    async def freeze() -> int:
        server = dice.choice(servers)
        server.freeze()
        await asyncio.sleep(dice.uniform(0.2, 2.5))
        server.thaw()
        return 1

    async def kill() -> int:
        server = dice.choice(servers)
        server.kill()
        await asyncio.sleep(dice.uniform(0, 0.5))
        await asyncio.to_thread(server.start)
        return 1

    return [("server frozen", freeze), ("server killed", kill)]
