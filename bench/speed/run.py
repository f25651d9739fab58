"""
How fast is it, beside a C program that does nothing but send, and beside its peers?

    .venv/bin/python bench/speed/run.py [FIGURE …] [--only CONTESTANT] [--runs 5] [--quick]

Each figure is a command: `run.py fanout`, `burst`, `rooms`, `people`, `echo`, `resume`, `storm`, `publish`, `board`,
`start`; without one, all of them, in about an hour; `run.py churn` takes one by itself. They are kept in
`bench/speed/results.json`, of which the tables are made that are in `bench/README.md`. Servers run on the first core,
clients (`crowd.c`) on the last. The speed of a machine drifts: a delivery is measured right after one of the floor, and
what is compared are ratios. `--quick` is a look: one run (of `churn` a minute), nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import figures
import tables
from contestants import CONTESTANTS, systems
from figures import FIGURES, Result, say
from machine import HERE
from table import machine

RESULTS = HERE / "results.json"
DOCUMENT = HERE.parent / "README.md"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    all_but_churn = [figure for figure in FIGURES if figure != "churn"]
    options.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(FIGURES), default=all_but_churn)
    options.add_argument("--only", action="append", choices=[one.slug for one in CONTESTANTS], default=[])
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--quick", action="store_true", help="a look: one run, nothing is kept")
    asked = options.parse_args()
    if asked.quick:
        figures.CHURN_SECONDS /= 60
    if unknown := [figure for figure in asked.figures if figure not in FIGURES]:
        options.error(f"there is no figure {unknown[0]}; there are {', '.join(FIGURES)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    contestants = [one for one in CONTESTANTS if not asked.only or one.slug in asked.only]
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for one in list(contestants):
        try:
            one.install()
        except systems.CannotRun as problem:
            say(f"{one.name}: not run: {problem}")
            contestants.remove(one)
    for figure in asked.figures:
        found: dict[str, list[Result]] = {one.slug: [] for one in contestants}
        for run in range(1 if asked.quick or figure == "churn" else asked.runs):
            for one in contestants:  # in turns: what the machine does in an hour happens to all of them
                for result in FIGURES[figure](one) if not one.only or figure in one.only else ():
                    found[one.slug].append(result)
                    say(f"{figure} {run + 1} {one.slug}: {tables.shown(result)}")
        measured = {one.slug: one for one in contestants if found[one.slug]}
        if not measured:
            say(f"{figure}: it is not measured of any of these")
        results.setdefault(figure, {}).update({slug: found[slug] for slug in measured})
        if not asked.quick:
            here = f"{time.strftime('%Y-%m-%d')}, {machine()}"
            results.setdefault("dates", {}).setdefault(figure, {}).update(dict.fromkeys(measured, here))
            results.setdefault("versions", {}).update({slug: one.versions() for slug, one in measured.items()})
            RESULTS.write_text(tables.kept(results))
            DOCUMENT.write_text(tables.inserted(DOCUMENT.read_text(), results))


if __name__ == "__main__":
    main()
