"""
A disk that fails: one with little room, and one that says that it could not write.

The small one is a tmpfs in a mount namespace of its own, which ends with the process that holds it; that ends with us.
What is not synced is said by strace, in the kernel's place.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from peers import Server


class SmallDisk:
    """A disk of so many KiB, at `folder`, which only those see who are started in it."""

    def __init__(self, folder: Path, kib: int) -> None:
        self._folder = folder
        script = f'mount -t tmpfs -o size={kib}k none "$1" && echo there && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "there\n":
            _, why = self._holder.communicate(timeout=10)
            pytest.skip(f"there is no disk of our own here ({why.strip()})")
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate(timeout=10)  # it reads the end, and ends; the kernel takes the disk back

    def within(self, command: list[str]) -> list[str]:
        """Return the command that runs a command where the disk is seen."""
        shell = ["sh", "-c", 'cd "$0" && exec "$@"', str(self._folder)]
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *shell, *command]

    @property
    def path(self) -> Path:
        """The disk as it is seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root{self._folder}")

    def fill(self) -> None:
        """Leave no room."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"\0" * 4096)
            except OSError:
                pass

    def make_room(self) -> None:
        (self.path / "filler").unlink()

    def is_sound(self, name: str) -> bool:
        """Whether SQLite finds a file in order."""
        script = f"import sqlite3; print(*sqlite3.connect({name!r}).execute('PRAGMA integrity_check').fetchone())"
        done = subprocess.run(
            self.within([sys.executable, "-c", script]), capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout == "ok\n"


class ServerOnDisk(Server):
    """A server that keeps everything on a small disk."""

    def __init__(self, disk: SmallDisk, folder: Path, *command: str) -> None:
        super().__init__(folder, *command)
        self.command = disk.within(self.command)


@contextmanager
def failing_to_sync(pid: int) -> Iterator[None]:
    """Let fsync(2) and fdatasync(2) of a process and its threads say EIO, and do nothing, for as long."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace (Debian: apt install strace)")
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
         "-e", "inject=fsync,fdatasync:error=EIO", "-p", str(pid)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while not all(_traced(pid)):
            if strace.poll() is not None or time.monotonic() > deadline:
                strace.kill()
                pytest.skip(f"no process may be traced here ({strace.communicate()[1].strip()})")
            time.sleep(0.01)
        yield
    finally:
        if strace.poll() is None:
            strace.send_signal(signal.SIGINT)  # it lets go of them
        strace.communicate(timeout=10)


def _traced(pid: int) -> Iterator[bool]:
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        yield "TracerPid:\t0\n" not in status.read_text()
