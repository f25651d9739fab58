"""
The bench that compares systems under silent death runs, and its document says what it does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
FOLDER = BENCH / "silent_death"


@pytest.mark.long
def test_a_quick_look_at_holdfast_finds_nothing_lost_repeated_or_out_of_order(tmp_path: Path) -> None:
    line = [sys.executable, "run.py", "--quick", "--only", "holdfast", "--fault", "reset", "--cache", str(tmp_path)]
    looked = subprocess.run(line, cwd=FOLDER, capture_output=True, text=True, timeout=90, check=False)
    assert "| **reset** | holdfast | 0 | 0 | 0 | – |" in looked.stdout, looked.stderr


def test_its_document_describes_the_faults_and_the_systems_that_it_has() -> None:
    script = "import table; print(table.faults(), table.setups(), sep='\\n---\\n')"
    told = subprocess.run([sys.executable, "-c", script], cwd=FOLDER, capture_output=True, text=True, check=True)
    document = (BENCH / "README.md").read_text()
    for part in told.stdout.strip().split("\n---\n"):
        assert part in document
