"""What a machine does not allow is said before the tests are run, and is what they are skipped for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def said_without(*capabilities: str) -> list[str]:
    """Return what is said to whoever may do all that we may, but for this (capabilities(7))."""
    withheld = ",".join(f"-{capability}" for capability in capabilities)
    command = ["setpriv", f"--bounding-set={withheld}"] if capabilities else []
    done = subprocess.run(
        [*command, sys.executable, "-m", "real.allowed"], cwd=TESTS, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def root() -> None:
    if shutil.which("setpriv") is None or said_without():
        pytest.skip("not even we may do all of it here")


@pytest.mark.parametrize(
    ("capability", "what"),
    [("net_admin", ["on networks that break"]), ("sys_admin", ["on networks that break", "on a disk that is full"])],
)
def test_whoever_may_not_break_a_network_or_a_disk_is_told_which_tests_are_not_run(
    capability: str, what: list[str]
) -> None:
    assert [line.split(", for ")[0] for line in said_without(capability)] == [f"the tests {tests}" for tests in what]
