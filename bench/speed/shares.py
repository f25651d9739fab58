"""
Of what is the time made that something takes?

    .venv/bin/python bench/speed/shares.py [handshake] [delivery]        # both: a minute

`py-spy` (`pip install py-spy`) stops the server fifty times a second, and looks whose function it is in, or which was
called by: the kernel's, or that of a library. The table goes into `bench/README.md`.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from contestants import Holdfast, Started
from figures import FLOOR, SETTLED_SECONDS, deliver, say, started
from machine import CLIENTS, HERE, crowd

DOCUMENT = HERE.parent / "README.md"
BEGIN, END = "<!-- speed: shares -->\n", "<!-- end: shares -->"
#: Looks in a second.
RATE = 50
SYSTEM_CALLS = r"send\w*|p?write\w*|recv\w*|p?read\w*|accept\d*|epoll_ctl|close|syscall|\w*sockopt|ioctl|f\w*sync"
#: Whose a function is, by what a line of py-spy has of it: "name (file:line)".
OWNERS = {
    rf"^({SYSTEM_CALLS}) \(libc": "the kernel",
    r"\(holdfast_app\.py": "the application: Starlette, its routes",
    r"\((starlette|anyio)/": "the application: Starlette, its routes",
    r"\((uvicorn|httptools)/|\(httptools|parser\.c|llhttp": "uvicorn, httptools",
    r"\(websockets/": "websockets",
    r"\(holdfast/core/": "holdfast: rooms, links, presence (`core`)",
    r"\(holdfast/protocol/|msgspec": "holdfast: messages (`protocol`), msgspec",
    r"\(holdfast/store/|sqlite": "holdfast: the log (`store`), SQLite",
    r"\(holdfast/": "holdfast: connections (`server`)",
    r"\(asyncio/|\(loop\.c|\(uvloop|\((core|linux|stream|tcp|loop-watcher)\.c": "uvloop, asyncio",
}
#: Of whoever only waits.
WAITS = re.compile(r"PyThread_acquire_lock|pthread_cond|epoll_p?wait|sem_\w*wait|futex")


Look = Callable[[Started], AbstractContextManager[None]]


def handshake(look: Look) -> None:
    """Somebody comes, into one room with all the others."""
    with started(Holdfast()) as one, look(one):
        for _ in range(4):
            with crowd(one.port, 9_900, *Holdfast.crowd) as clients:
                clients.open()


def delivery(look: Look) -> None:
    """A message to each of 1,000, one after the other."""
    with started(Holdfast()) as one, crowd(one.port, 1_000, *Holdfast.crowd) as clients:
        clients.open()
        time.sleep(SETTLED_SECONDS)
        with look(one):
            deliver(one, clients, 500, 1, 3 * FLOOR * clients.count)


FIGURES = {figure.__name__: figure for figure in (handshake, delivery)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(FIGURES), default=list(FIGURES))
    asked = options.parse_args()
    if unknown := [figure for figure in asked.figures if figure not in FIGURES]:
        options.error(f"there is no figure {unknown[0]}; there are {', '.join(FIGURES)}")
    spy = shutil.which("py-spy") or sys.exit("who looks is not there: pip install py-spy")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found: dict[str, Counter[str]] = {}
    for figure in asked.figures:
        counts = found[figure] = Counter()

        @contextmanager
        def look(one: Started) -> Iterator[None]:
            with looking(spy, one.running.process.pid, counts):  # noqa: B023 - it is over before the next begins
                yield

        FIGURES[figure](look)
        say(f"{figure}: {counts.total()} looks")
    said = table(found)
    print(said)
    if asked.figures == list(FIGURES):
        head, rest = DOCUMENT.read_text().split(BEGIN)
        DOCUMENT.write_text(f"{head}{BEGIN}{said}\n{END}{rest.split(END)[1]}")


@contextmanager
def looking(spy: str, pid: int, counts: Counter[str]) -> Iterator[None]:
    """Count whose functions a process is in, as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        out = Path(folder) / "raw"
        line = [spy, "record", "--native", "--format", "raw", "--rate", str(RATE), "--duration", "unlimited"]
        process = subprocess.Popen(
            [*line, "--output", str(out), "--pid", str(pid)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, CLIENTS),
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()  # it looks now
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
        for line in out.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            if (whose := owner(stack.split(";"))) is not None:
                counts[whose] += int(count)


def owner(stack: list[str]) -> str | None:
    """Return whose the innermost function is that is somebody's; None: it waits."""
    if any(WAITS.search(function) for function in stack[-4:]):
        return None
    for function in reversed(stack):
        for pattern, name in OWNERS.items():
            if re.search(pattern, function):
                return name
    return "Python itself"


def table(found: dict[str, Counter[str]]) -> str:
    """Return what was found, as a table in Markdown."""
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "--:|" * len(found)]
    for name in dict.fromkeys([*OWNERS.values(), "Python itself"]):
        cells = [f"{100 * counts[name] / max(1, counts.total()):.0f} %" for counts in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    looks = ", ".join(f"{counts.total():,}" for counts in found.values())
    return "\n".join([*lines, "", f"`bench/speed/shares.py`, {time.strftime('%Y-%m-%d')}; {looks} looks."])


if __name__ == "__main__":
    main()
