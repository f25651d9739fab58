"""
What of this is not allowed here? `python -m real.allowed` says it, in a line for each; `dev.py` asks.

What is tried is what the tests do, so that it is said of just those that will be skipped.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from real.disk import SmallDisk, failing_to_sync
from real.network import network


def break_a_network() -> None:
    with network():
        pass


def fill_a_disk() -> None:
    with TemporaryDirectory() as folder, SmallDisk(Path(folder), 64):
        pass


def fail_to_sync() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other, failing_to_sync(other.pid):
        pass


ATTEMPTS = {
    "on networks that break": break_a_network,
    "on a disk that is full": fill_a_disk,
    "on a disk that does not sync": fail_to_sync,
}

if __name__ == "__main__":
    for tests, attempt in ATTEMPTS.items():
        try:
            attempt()
        except pytest.skip.Exception as why:
            print(f"the tests {tests}, for {' '.join(why.msg.split())}")
