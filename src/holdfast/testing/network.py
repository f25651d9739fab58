"""
What becomes of bytes on their way?

All wires of the sea, and who listens where. What happens to them follows from the dice that it is
given: how long they are on their way, and in which pieces they arrive.
"""

from __future__ import annotations

import asyncio
import random
import socket
from asyncio import base_events
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from holdfast.server.runner import USER_TIMEOUT
from holdfast.testing.endpoint import BUFFER, Endpoint, Socket, Wire
from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.virtual import VirtualLoop, current_process


@dataclass
class Weather:
    """
    How the wires of a network are.

    Attributes:
        delay: Seconds that a piece is on its way: between these two.
        torn: How often a part of what is sent arrives before the rest.
        rate: Bytes that get through in a second, each way; None: as many as there are.
        buffer: Bytes that each kernel keeps of what its process has written, or not read yet.
    """

    delay: tuple[float, float] = (0.001, 0.02)
    torn: float = 0.1
    rate: float | None = None
    buffer: int = BUFFER


class Listener(base_events.Server):
    """What accepts connections (`asyncio.Server`)."""

    def __init__(self, network: Network, address: tuple[str, int], factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._network = network
        self.address = address
        self.factory = factory
        self.process = current_process()
        self.user_timeout: float | None = USER_TIMEOUT
        self._is_serving = True
        if self.process is not None:
            self.process.on_change.append(self._process_changed)

    @property
    def sockets(self) -> tuple[Any, ...]:
        """Return what it listens on."""
        return (Socket(self.address),) if self._is_serving else ()

    def is_serving(self) -> bool:
        """Whether it accepts."""
        return self._is_serving

    def close(self) -> None:
        """Accept no more."""
        if self._is_serving:
            self._is_serving = False
            self._network.listeners.pop(self.address, None)

    async def wait_closed(self) -> None:
        """Return at once: nobody is waited for."""

    async def start_serving(self) -> None:
        """It does."""

    def _process_changed(self) -> None:
        if self.process is not None and not self.process.is_alive:
            self.close()


class Network:
    """All wires, and who listens where. `loop` is the event loop, `dice` decide everything."""

    def __init__(self, loop: SeaLoop, dice: random.Random, weather: Weather | None = None) -> None:
        self.loop = loop
        self.dice = dice
        self.weather = weather or Weather()
        self.listeners: dict[tuple[str, int], Listener] = {}
        self.behind: dict[tuple[str, int], list[tuple[str, int]]] = {}  # a proxy, or a name for several
        self.wires: dict[Wire, None] = {}
        self.on_arrival: list[Callable[[Endpoint, bytes], None]] = []  # called with each piece, and where it has come
        self.unreachable: dict[str, Felt] = {}  # hosts to which nothing gets through; called when somebody tries
        self.bars_websockets = self.bars_streams = False  # as some proxies do
        self.barred: Felt = unfelt  # called when somebody was refused so
        self._ports = 40_000
        loop.network = self

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something happen that belongs to no process."""
        self.loop.call_at(when, what, context=Context())

    def soon(self, what: Callable[[], None]) -> None:
        """Have it happen now, when what happens already has."""
        self.loop.call_soon(what, context=Context())

    def after(self, what: Callable[[], None]) -> None:
        """Have it happen after as long as a piece is on its way."""
        self.at(self.loop.time() + self.dice.uniform(*self.weather.delay), what)

    def open_wires(self) -> list[Wire]:
        """Return those that are open, the oldest first."""
        for wire in [wire for wire in self.wires if not wire.is_open]:
            del self.wires[wire]
        return list(self.wires)

    async def connect(
        self, address: tuple[str, int], factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[Endpoint, asyncio.BaseProtocol]:
        """Open a wire to whoever listens there."""
        if address in self.behind:
            those = self.behind[address]
            address = self.dice.choice([each for each in those if each in self.listeners] or those)
        while address[0] in self.unreachable:  # what is sent is sent again, and nobody answers
            self.unreachable[address[0]]()
            await asyncio.sleep(1.0)
        await asyncio.sleep(self.dice.uniform(*self.weather.delay) * 2)
        listener = self.listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens on {address[0]}:{address[1]}")
        self._ports += 1
        wire = Wire(self, self._ports)
        near = Endpoint(wire, current_process(), ("client", self._ports))
        far = Endpoint(wire, listener.process, address)
        near.peer, far.peer = far, near
        far.user_timeout = listener.user_timeout
        wire.ends = near, far
        self.wires[wire] = None
        self.at(self.loop.time(), lambda: far._call(lambda: far.begin(listener.factory())))
        protocol = factory()
        near.begin(protocol)
        return near, protocol


class SeaLoop(VirtualLoop):
    """A virtual loop with a network."""

    network: Network

    async def create_server(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Listener:
        """Listen."""
        sock = options.get("sock")
        address = sock.getsockname() if sock is not None else (host, port)
        if address in self.network.listeners:
            raise OSError(f"somebody listens on {address} already")
        listener = self.network.listeners[address] = Listener(self.network, address, protocol_factory)
        return listener

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """Dial."""
        name = host.decode() if isinstance(host, bytes) else host  # anyio's are encoded
        return await self.network.connect((name, port), protocol_factory)

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        """Return the address: every name is one."""
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
