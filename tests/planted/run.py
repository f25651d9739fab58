"""
Plant one mistake after the other, and see whether it is caught: `python tests/planted/run.py`.

Each is planted in a copy of its own, of which what is imported is seen to come from there, and the check that is to
catch it runs on that copy: the simulation (`sea`, with one server or several), seed after seed until one goes wrong, or
the tests that it names.
First the same checks run on a copy in which nothing was planted, and must find nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from planted.bugs import BUGS, SEAS, Bug  # noqa: E402

#: So many seeds the sea has to catch one, and whatever is to catch it has so many seconds.
SEEDS, SECONDS = 300, 180.0
#: What is copied: the tests read `spec`, and are told by `pyproject.toml` where the sources are.
PARTS = ("src", "tests", "spec", "pyproject.toml")


class MovedOn(Exception):
    """The code is not any more what the mistake was made for."""


@dataclass(frozen=True)
class Finding:
    """What a check has said of a copy; `caught` is what it has found wrong, None: nothing."""

    caught: str | None
    seeds: int
    seconds: float

    def __str__(self) -> str:
        after = f"{self.seeds} seeds, {self.seconds:.0f} s" if self.seeds else f"{self.seconds:.0f} s"
        return f"nothing wrong in {after}" if self.caught is None else f"after {after}: {self.caught}"


def mistaken(bug: Bug, folder: Path) -> dict[str, str]:
    """Return the modules of a `src/holdfast` that the mistake is in, by their names, with the mistake in them."""
    modules: dict[str, str] = {}
    for file, old, new in ((bug.file, bug.old, bug.new), *bug.also):
        source = modules.get(file) or (folder / file).read_text()
        times = source.count(old)
        if times != 1:
            raise MovedOn(f"{file} has moved on: what is to be replaced is in it {times} times, not once")
        modules[file] = source.replace(old, new)
    return modules


@contextmanager
def copied(bug: Bug | None) -> Iterator[Path]:
    """Yield a folder with a copy of the project, and one mistake in it."""
    with tempfile.TemporaryDirectory(prefix="holdfast-planted-") as name:
        folder = Path(name)
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(
                    ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
                )
            else:
                shutil.copy(ROOT / part, folder / part)
        if bug is not None:
            for file, source in mistaken(bug, folder / "src" / "holdfast").items():
                (folder / "src" / "holdfast" / file).write_text(source)
        yield folder


def check(folder: Path, by: str, seeds: int, seconds: float) -> Finding:
    """Run what is to catch a mistake in a copy."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = [sys.executable]
    where = [*python, "-c", "import holdfast; print(holdfast.__file__)"]
    said = subprocess.run(where, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if not said.stdout.startswith(str(folder)):
        raise RuntimeError(f"the copy in {folder} cannot be imported: {said.stdout}{said.stderr}")
    if by in SEAS:
        until = "--seeds", str(seeds), "--for", str(seconds), "--stop"
        command = [*python, "-m", "holdfast.testing.simulate", *until, *SEAS[by]]
    else:  # `pythonpath` in pyproject.toml is relative to where that is: it is the copy's
        command = [*python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *by.split()]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(None, 0, time.monotonic() - began)
    return read(by, done, time.monotonic() - began)


def read(by: str, done: subprocess.CompletedProcess[str], seconds: float) -> Finding:
    """Return what a check has said."""
    lines = done.stdout.splitlines()
    if by in SEAS:
        counts = [int(found[1]) for line in lines if (found := re.match(r"(\d+) seeds, ", line))]
        wrong = [line for line in lines if line.startswith("seed ")]
        never = [line for line in lines if line.startswith("FAILED: this never happened")]
        if not counts:
            raise RuntimeError(f"the sea did not run: {done.stdout}{done.stderr}")
        return Finding(next(iter(wrong or never), None), counts[-1], seconds)
    failed = [line for line in lines if line.startswith("FAILED ")]
    if done.returncode and not failed:
        raise RuntimeError(f"the tests did not run: {done.stdout}{done.stderr}")
    return Finding(next(iter(failed), None), 0, seconds)


def hunt(bug: Bug, seeds: int, seconds: float) -> Finding:
    """Plant one, and return what was found; one that cannot be planted any more is not caught."""
    try:
        with copied(bug) as folder:
            return check(folder, bug.by, seeds, seconds)
    except MovedOn as error:
        print(f"       {bug.name}: {error}", flush=True)
        return Finding(None, 0, 0.0)


def control(bugs: Sequence[Bug], seeds: int, seconds: float, jobs: int) -> bool:
    """Run the same checks on a copy in which nothing was planted; whether they find nothing, as they must."""
    is_clean = True
    checks = list(dict.fromkeys(bug.by for bug in bugs))
    with copied(None) as folder, ThreadPoolExecutor(jobs) as pool:
        for by, found in zip(checks, pool.map(lambda by: check(folder, by, seeds, seconds), checks), strict=True):
            is_clean &= found.caught is None
            print(f"{'ok    ' if found.caught is None else 'WRONG '} nothing planted, {by}: {found}", flush=True)
    return is_clean


def main() -> int:
    """Hunt them all, and say which were caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="WORDS", default="", help="those with these words in name, file or check")
    parser.add_argument("--jobs", type=int, default=2, help="checks at once (2)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"that the sea may need ({SEEDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"that a check may take ({SECONDS:g})")
    parser.add_argument("--no-control", action="store_true", help="do not look whether nothing is found in nothing")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if any(options.only in words for words in (bug.name, bug.file, bug.by))]
    began = time.monotonic()
    is_clean = options.no_control or control(bugs, options.seeds, options.seconds, options.jobs)
    caught = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for bug, found in zip(bugs, pool.map(lambda bug: hunt(bug, options.seeds, options.seconds), bugs), strict=True):
            caught += found.caught is not None
            print(
                f"{'MISSED' if found.caught is None else 'caught'} {bug.name} ({bug.file}, {bug.by}): {found}",
                flush=True,
            )
    print(f"{caught} caught of {len(bugs)}, in {time.monotonic() - began:.0f} s")
    return 0 if is_clean and bugs and caught == len(bugs) else 1


if __name__ == "__main__":
    sys.exit(main())
