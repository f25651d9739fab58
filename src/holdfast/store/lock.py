"""
Who serves a file, and how far has it come?

A lock beside the file, which the kernel drops with the process that holds it; in it stand
the process and the time of the newest commit, as a witness: a file that is found older
than that was replaced meanwhile.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from typing import Self

from holdfast.errors import StoreError

logger = logging.getLogger("holdfast.store")

#: Bytes of a note, so that each covers the one before: a process is up to 7 of them, a time 16.
NOTE = 32


class Lock:
    """The one right to serve a file."""

    def __init__(self) -> None:
        self._file = -1
        self._complained = False
        self.witnessed = 0

    def take(self, path: Path) -> Self:
        """Have it for the file `path`; raises `StoreError` if another process has it."""
        path = path.resolve()  # one file, one lock, by whatever name it is called
        try:
            file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner, _ = _noted(file)
            os.close(file)
            raise StoreError(f"{path} is in use by process {owner or '?'}; one process serves a file") from None
        _, clock = _noted(file)  # only now: whoever had it may have gone on until now
        self._file = file
        self.witnessed = int(clock) if clock.isascii() and clock.isdigit() else 0
        return self

    def witness(self, clock: int) -> None:
        """
        Write down who serves the file, and how far it has come (microseconds).

        If that cannot be, it is said once, and nothing else is held up: what was committed is.
        """
        try:
            os.pwrite(self._file, f"{os.getpid()} {clock}".ljust(NOTE).encode(), 0)
        except OSError:
            if not self._complained:
                logger.exception("it cannot be written down how far the file has come; an older one will not be seen")
            self._complained = True

    def close(self) -> None:
        """Let go of it, if it was taken."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _noted(file: int) -> tuple[str, str]:
    """Return the process that is noted in the file, and the time."""
    owner, _, clock = os.pread(file, 100, 0).decode(errors="replace").rstrip(" ").partition(" ")
    return owner, clock
