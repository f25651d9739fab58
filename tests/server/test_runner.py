"""Who comes is let in soon, whoever else comes at the same moment."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvloop
from uvicorn.lifespan.off import LifespanOff

from holdfast.server.limits import Limits
from holdfast.server.runner import ACCEPTS, LISTENERS, Server, configure, listen


class Newcomer(asyncio.Protocol):
    """One that was let in."""

    def __init__(self, server_state: Any, **_: Any) -> None:
        self._crowd = server_state.connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._crowd.add(self)

    def shutdown(self) -> None:
        """Go on (uvicorn): it ends with its peer."""

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.discard(self)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says")
@pytest.mark.parametrize("is_shared", [False, True], ids=["alone", "of a crew"])
async def test_the_kernel_keeps_as_many_newcomers_as_it_will(is_shared: bool) -> None:
    """A crowd of ten thousand that comes at once: whoever finds no place comes again seconds later."""
    (listener,) = listen("127.0.0.1", 0, user_timeout=40.0, is_shared=is_shared)
    config = configure(lambda: None, Limits(), speed=True, log_level=None)
    config.http_protocol_class, config.lifespan_class = Newcomer, LifespanOff  # type: ignore[assignment]
    server = Server(config, lambda: None)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    places = struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0]
    await server.shutdown([listener])
    assert places == int(Path("/proc/sys/net/core/somaxconn").read_text())


@pytest.mark.parametrize(
    ("new_loop", "few"),
    [(asyncio.new_event_loop, ACCEPTS), (uvloop.new_event_loop, LISTENERS)],
    ids=["asyncio", "uvloop"],
)
def test_those_who_come_at_once_are_let_in_a_few_in_each_turn(
    new_loop: Callable[[], asyncio.AbstractEventLoop], few: int
) -> None:
    async def main() -> None:
        (listener,) = listen("127.0.0.1", 0, user_timeout=40.0)
        address = listener.getsockname()
        config = configure(lambda: None, Limits(), speed=True, log_level=None)
        config.http_protocol_class, config.lifespan_class = Newcomer, LifespanOff  # type: ignore[assignment]
        server = Server(config, lambda: None)
        server.lifespan = config.lifespan_class(config)
        crowd = server.server_state.connections
        with ExitStack() as held:
            for _ in range(5 * few):
                held.enter_context(socket.create_connection(address))
            await server.startup([listener])
            let_in = [len(crowd)]
            while let_in[-1] < 5 * few:
                await asyncio.sleep(0)
                let_in.append(len(crowd))
        await server.shutdown([listener])
        assert max(after - before for before, after in pairwise(let_in)) == few  # in a turn of the loop
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
