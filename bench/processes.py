"""What the kernel says of processes (Linux)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path


def processor(pid: int) -> float:
    """Return the seconds of processor time that the threads of a process have used."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            used += int((thread / "schedstat").read_text().split()[0])
    return used / 1e9


def memory(pid: int) -> int:
    """Return the bytes of memory that are a process's own: what several share is divided among them."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found is not None
    return 1024 * int(found[1])


def children(pid: int) -> list[int]:
    """Return the processes that the main thread of one has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
