"""A server without sockets: whatever comes, it answers in HTTP or in frames, and keeps nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from uvicorn.server import ServerState

from corpus.target import COMING_AND_GOING, LONGEST
from holdfast import Hub, Limits
from holdfast.server.runner import Start, configure
from holdfast.server.sips import Sips

#: Between what is said and what is said next, and the end.
PAUSE = 0.002
#: For what was begun to be ended, once its peer has gone.
SECONDS = 2.0


def at_once(do: Callable[..., Any], *given: Any) -> Any:
    """Do what a loop does in one turn: whatever it is given, nobody else may be kept waiting for long."""
    gc.disable()  # what the tests themselves have left is not to be counted
    began = time.thread_time()
    try:
        return do(*given)
    finally:
        took = time.thread_time() - began
        gc.enable()
        assert took < LONGEST, f"it took {took * 1000:.0f} ms"


class Loop(asyncio.SelectorEventLoop):
    """A loop none of whose turns is long."""

    def _run_once(self) -> None:
        at_once(super()._run_once)  # type: ignore[misc]


class Link(asyncio.Transport):
    """A transport whose peer says what it is told to, and reads everything."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 80)})
        self.protocol: Any = None
        self.written = b""
        self._closing = False
        self._reading = True

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(lambda: self.protocol.connection_lost(None))

    abort = close

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True


class Served:
    """A Hub with its defaults, on h11 and on httptools."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.failures: list[Any] = []
        self.loop.set_exception_handler(lambda loop, context: self.failures.append(context))
        for name in ("uvicorn.error", "holdfast"):
            logging.getLogger(name).addHandler(Ear(self.failures))
        self.hub = Hub("memory:")
        self._at_rest = self.loop.run_until_complete(self._opens())
        self.configs = [
            configure(Start(self.hub.app), Limits(), speed=speed, log_level=None) for speed in (False, True)
        ]

    async def _opens(self) -> tuple[Any, ...]:
        """Open the Hub, and return what it holds when nobody has come yet."""
        await self.hub.__aenter__()
        await asyncio.sleep(PAUSE)
        return self._held()

    def close(self) -> None:
        self.loop.run_until_complete(self.hub.__aexit__(None, None, None))
        self.loop.close()

    def hears(self, *parts: bytes) -> list[bytes]:
        """Return what each answers to that."""
        return [self.loop.run_until_complete(self._hears(config, parts)) for config in self.configs]

    async def _hears(self, config: Any, parts: Sequence[bytes]) -> bytes:
        link = Link()
        protocol: Sips = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
        link.set_protocol(protocol)
        protocol.connection_made(link)
        for part in parts:
            if part and link.is_reading():
                link.protocol.get_buffer(-1)[: len(part)] = part
                link.protocol.buffer_updated(len(part))
            while link.protocol.is_waiting:
                await asyncio.sleep(0)
            await asyncio.sleep(PAUSE)
        link.close()
        until = time.monotonic() + SECONDS
        while (held := self._held()) != self._at_rest and time.monotonic() < until:
            await asyncio.sleep(0.0005)
        assert held == self._at_rest, f"it still holds {held}, and not {self._at_rest}"
        assert not self.failures, self.failures
        return link.written

    def _held(self) -> tuple[Any, ...]:
        hands: Any = self.hub.opened.hands
        timers = [str(timer) for timer in self.loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        ours = sum(not any(name in timer for name in COMING_AND_GOING) for timer in timers)
        return len(asyncio.all_tasks()), len(hands.connections), len(hands.streams), ours


class Ear(logging.Handler):
    """Hears of failures."""

    def __init__(self, failures: list[Any]) -> None:
        super().__init__(logging.ERROR)
        self._failures = failures

    def emit(self, record: logging.LogRecord) -> None:
        self._failures.append(record.getMessage())


@cache
def served() -> Served:
    """Return the one that there is."""
    return Served()
