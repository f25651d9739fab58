"""
A process whose wall clock jumps while it runs: what time is it there?

libfaketime answers in the kernel's place, to Python and to SQLite alike, from a file that is read once a second. The
clock that only runs forward, by which one waits, is the kernel's own; jumps of a machine's clock leave that alone, too.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from peers import Server

LIBRARIES = ("lib/*/faketime/libfaketimeMT.so.1", "lib*/faketime/libfaketimeMT.so.1")


class WallClock:
    """The wall clock of those processes that are given its `environment`."""

    def __init__(self, folder: Path) -> None:
        found = next((path for pattern in LIBRARIES for path in Path("/usr").glob(pattern)), None)
        if found is None:
            pytest.skip("there is no libfaketime (Debian: apt install faketime)")
        self._file = folder / "wall-clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, hours: float) -> None:
        """Have processes that are started from now on see so many hours more, or less, than the machine shows."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours * 3600:+.0f}s\n")
        new.rename(self._file)

    async def jump(self, server: Server, hours: float) -> None:
        """Jump, and see that the server does: by the date of its answers."""
        self.set(hours)
        async with asyncio.timeout(10):
            while abs(await _shown(server) - time.time() - hours * 3600) > 30:
                await asyncio.sleep(0.1)


async def _shown(server: Server) -> float:
    return parsedate_to_datetime((await server.request("GET", "/")).headers["date"]).timestamp()
