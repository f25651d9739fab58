"""
A process whose wall clock jumps while it runs: what time is it there?

libfaketime answers in the kernel's place, to Python and to SQLite alike, from a file that is read each time. The clock
that only runs forward, by which one waits, is the kernel's own; jumps of the machine's clock leave that alone, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LIBRARIES = ("lib/*/faketime/libfaketimeMT.so.1", "lib*/faketime/libfaketimeMT.so.1")


class WallClock:
    """The wall clock of those processes that are given its `environment`."""

    def __init__(self, folder: Path) -> None:
        found = next((path for pattern in LIBRARIES for path in Path("/usr").glob(pattern)), None)
        if found is None:
            pytest.skip("NOT RUN: there is no libfaketime (Debian: apt install faketime)")
        self._file = folder / "wall-clock"
        self.jump(0)
        self.environment = {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, hours: float) -> None:
        """Show so many hours more, or less, than the machine's."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours * 3600:+.0f}s\n")
        new.rename(self._file)
