"""The proxies of these tests leave nothing behind."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

from faults import Proxy


async def test_a_proxy_lets_go_of_whoever_waits_for_a_server_that_takes_nobody() -> None:
    with socket.socket() as server, ExitStack() as held:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        held.enter_context(socket.create_connection(server.getsockname()))  # and nobody else fits into its queue
        async with Proxy(server.getsockname()[1]) as proxy:
            near = held.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            while not proxy._tasks:
                await asyncio.sleep(0)
        near.settimeout(5)
        assert await asyncio.to_thread(near.recv, 1) == b""
