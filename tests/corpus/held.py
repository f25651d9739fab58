"""What does this process hold?"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress


def timers() -> Iterator[str]:
    """Return what waits for its time, by what it will call. uvloop does not tell; but the collector of garbage does."""
    for timer in getattr(asyncio.get_running_loop(), "_scheduled", None) or gc.get_objects():
        if type(timer).__name__ != "TimerHandle" or timer.cancelled():
            continue
        found = re.match(r"<TimerHandle (?:when=\S+ )?(?:<bound method )?([\w.]+(?:<locals>[\w.]+)*)", repr(timer))
        if found:  # else it has rung
            yield found[1]


def memory() -> dict[str, int]:
    """Return what memory there is, and the most that there was since this was last asked, in KiB (proc(5))."""
    with open("/proc/self/status") as status:
        found = dict(line.split(":") for line in status if line.startswith("Vm"))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return {"kib": int(found["VmRSS"].split()[0]), "peak_kib": int(found["VmHWM"].split()[0])}


def descriptors() -> dict[str, int]:
    """Return how many sockets and files are open, without those of the database, which are kept for the next reader."""
    found = Counter(sockets=0, files=0)
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            opened = os.readlink(f"/proc/self/fd/{fd}")
            found["sockets" if opened.startswith("socket:") else "files"] += ".db" not in opened
    return dict(found)


def threads() -> int:
    """Return how many threads there are, without those of pools, which are kept."""
    return sum("_" not in thread.name for thread in threading.enumerate())
