"""The bench of speed runs, and its page says what was measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "bench" / "speed"
sys.path.insert(0, str(FOLDER))

import tables  # noqa: E402


def test_the_page_is_what_was_measured() -> None:
    page = (ROOT / "bench" / "README.md").read_text()
    assert tables.inserted(page, json.loads((FOLDER / "results.json").read_text())) == page


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cc") is None, reason="the floor and the clients are in C")
def test_a_quick_look_measures_what_it_says() -> None:
    line = [sys.executable, str(FOLDER / "run.py"), "echo", "resume", "start", "--quick", "--only", "holdfast"]
    said = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    figures = [line.split()[1] for line in said.stderr.splitlines()]
    assert figures == ["echo", "resume", "start"]
