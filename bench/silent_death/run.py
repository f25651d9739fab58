"""
What becomes of messages, and of who is here, when connections die silently: the same faults for several systems.

    .venv/bin/python bench/silent_death/run.py [--only SYSTEM] [--fault FAULT] [--at-once 4] [--quick]

Installs each system, in the version that is pinned in `systems/`, into a folder outside of the repository, runs every
fault at every system, and puts the table into `bench/README.md`. With `--only` or `--fault` the other rows stay as they
were measured on this machine before; where none were, nothing is written. `--quick` is a look: few listeners, short
faults, nothing is written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import table
from failures import BY_SLUG, Fault
from systems import HOUSE, SYSTEMS, CannotRun, System
from trial import Outcome, Scale, attempt

DOCUMENT = HOUSE / "bench" / "README.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "holdfast-silent-death"
QUICK = Scale(listeners=4, struck=2, warm=1.0, calm=1.0, short=0.2)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append", choices=[system.slug for system in SYSTEMS], default=[])
    options.add_argument("--fault", action="append", choices=list(BY_SLUG), default=[])
    options.add_argument("--at-once", type=int, default=4, help="trials that run at the same time")
    options.add_argument("--cache", type=Path, default=CACHE, help="where the systems and the results are kept")
    options.add_argument("--quick", action="store_true", help="a look: few listeners, short faults, nothing written")
    asked = options.parse_args()
    systems = [system for system in SYSTEMS if not asked.only or system.slug in asked.only]
    faults = [fault for slug, fault in BY_SLUG.items() if not asked.fault or slug in asked.fault]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and everything that was started is ended
    scale = QUICK if asked.quick else Scale()
    outcomes = asyncio.run(measure(install(systems, faults, asked.cache), asked.at_once, scale))
    results = asked.cache / "results.json"
    is_part = bool(asked.only or asked.fault)
    if asked.quick or (is_part and not results.exists()):
        print(table.document(outcomes, " ".join(["run.py", *sys.argv[1:]])))
        return
    kept = keep(outcomes, results, fresh=not is_part)
    write(kept)
    print(f"written: {DOCUMENT}")


Pair = tuple[System, Fault, str]


def install(systems: Sequence[System], faults: Sequence[Fault], cache: Path) -> list[Pair | Outcome]:
    """Return what is to be run; or, of systems that cannot be had here, why not."""
    pairs: list[Pair | Outcome] = []
    for system in systems:
        say(f"installing {system.name}")
        try:
            system.install(cache)
            versions = system.versions()
        except CannotRun as problem:
            pairs += [Outcome(system.slug, fault.name, not_run=str(problem)) for fault in faults]
            continue
        say(f"  {versions}")
        pairs += [(system, fault, versions) for fault in faults]
    return sorted(pairs, key=lambda pair: isinstance(pair, Outcome))


async def measure(pairs: Sequence[Pair | Outcome], at_once: int, scale: Scale) -> list[Outcome]:
    """Run them, some at the same time; of those that move much, one."""
    room, heavy = asyncio.Semaphore(at_once), asyncio.Semaphore(1)
    done = 0

    async def one(pair: Pair | Outcome) -> Outcome:
        nonlocal done
        if isinstance(pair, Outcome):
            outcome = pair
        else:
            system, fault, versions = pair
            async with heavy if fault.padding else room:
                outcome = await attempt(system, fault, scale)
            outcome.versions = versions
        outcome.date = time.strftime("%Y-%m-%d")
        done += 1
        say(f"[{done}/{len(pairs)}] {table.row(outcome.fault, outcome.system, outcome)} {outcome.not_run}")
        return outcome

    return await asyncio.gather(*map(one, pairs))


def keep(outcomes: Sequence[Outcome], path: Path, *, fresh: bool) -> list[Outcome]:
    """Return these beside those of before."""
    before = [] if fresh or not path.exists() else [Outcome(**one) for one in json.loads(path.read_text())]
    kept = {(outcome.system, outcome.fault): outcome for outcome in [*before, *outcomes]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([outcome.as_dict() for outcome in kept.values()], indent=1))
    return list(kept.values())


def write(outcomes: Sequence[Outcome]) -> None:
    """Put the table, and what the systems and the faults are, between their marks."""
    text = DOCUMENT.read_text()
    parts = {
        "table": table.document(outcomes, ".venv/bin/python bench/silent_death/run.py"),
        "systems": table.setups(),
        "faults": table.faults(),
    }
    for name, part in parts.items():
        begin, end = f"<!-- silent death: {name} -->\n", f"<!-- end: {name} -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}{part}\n{end}{rest.split(end)[1]}"
    DOCUMENT.write_text(text)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
