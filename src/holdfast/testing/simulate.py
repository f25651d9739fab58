"""
Run the sea, seed after seed: `python -m holdfast.testing.simulate --seeds 1000 --jobs 2`.

The same seed gives the same run, to the last byte (`--seed N` runs one, and says what happened). Runs
in which some kind of fault was never felt, or some road through the code never taken, prove nothing of
it, and count as failed; fewer than 300 seeds are no proof in any case, and the last line says so.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field

import click

from holdfast.testing.world import Plan, Report, faults_of, roads_of, run

#: Seeds that a process is given at once, and after how many such turns there is a fresh one.
TURN, TURNS = 10, 50
#: Fewer seeds than this may miss what is rare: they prove nothing.
ENOUGH = 300
#: Of seconds, and of commands in each.
MORE_THAN_NONE = click.FloatRange(0, min_open=True)


@dataclass
class Tally:
    """What has happened in all runs together."""

    seeds: int = 0
    virtual: float = 0.0
    tried: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    failed: list[Report] = field(default_factory=list)

    def add(self, report: Report) -> None:
        """Count one."""
        self.seeds += 1
        self.virtual += report.virtual
        self.tried += report.tried
        self.faults += report.faults
        self.reached += report.reached
        if report.violations:
            self.failed.append(report)

    def missing(self, plan: Plan) -> list[str]:
        """Return what never happened, and could have."""
        missing = [name for name in dict(faults_of(plan)) if not self.faults[name]]
        return missing + [name for name in roads_of(plan) if not self.reached[name]]


def several(seeds: range, plan: Plan) -> list[Report]:
    """Run some seeds."""
    logging.disable(logging.CRITICAL)  # a sea in which nothing is complained of is no sea
    return [run(seed, plan) for seed in seeds]


def one_by_one(seeds: range, plan: Plan, seconds: float | None) -> Iterator[Report]:
    """Yield what happened in each, in their order, in this process: whoever has seen enough asks for no more."""
    until = None if seconds is None else time.monotonic() + seconds
    for seed in seeds:
        if until is not None and time.monotonic() > until:
            return
        yield from several(range(seed, seed + 1), plan)


def reports(seeds: range, plan: Plan, jobs: int, seconds: float | None) -> Iterator[Report]:
    """Yield what happened in each, as it comes; begin nothing new after so many seconds."""
    until = None if seconds is None else time.monotonic() + seconds
    size = max(1, TURN // plan.nodes**2)  # a run with several servers takes longer
    turns = (seeds[start : start + size] for start in range(0, len(seeds), size))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=TURNS) as pool:
        running: set[Future[list[Report]]] = set()
        for turn in turns:
            if until is not None and time.monotonic() > until:
                running = {future for future in running if not future.cancel()}
                break
            running.add(pool.submit(several, turn, plan))
            if len(running) >= 2 * jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        for future in running:
            yield from future.result()


@click.command(help=__doc__)
@click.option("--seeds", default=1000, show_default=True, help="How many.")
@click.option("--first", default=1, show_default=True, help="The first one.")
@click.option("--seed", type=int, help="Only this one; tell everything that was wrong.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--for", "seconds", type=float, help="Begin nothing new after so many seconds.")
@click.option("--stop", is_flag=True, help="Stop at the first that goes wrong; one after the other, in one process.")
@click.option("--clients", type=click.IntRange(1), default=Plan.clients, show_default=True)
@click.option(
    "--seconds", "length", type=MORE_THAN_NONE, default=Plan.seconds, show_default=True, help="Of misfortune in a run."
)
@click.option("--faults", default=Plan.faults, show_default=True, help="In a run.")
@click.option(
    "--commands",
    type=MORE_THAN_NONE,
    default=Plan.commands_per_second,
    show_default=True,
    help="A second, of all together.",
)
@click.option(
    "--nodes", type=click.IntRange(1), default=Plan.nodes, show_default=True, help="Servers; several share a database."
)
def main(
    seeds: int,
    first: int,
    seed: int | None,
    jobs: int,
    seconds: float | None,
    stop: bool,
    clients: int,
    length: float,
    faults: int,
    commands: float,
    nodes: int,
) -> None:
    """Run them, and say what happened."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of strings would have another order each time
        os.execve(  # noqa: S606 - it is our own command
            sys.executable,
            [sys.executable, "-m", "holdfast.testing.simulate", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    if nodes > 1:
        try:
            import holdfast.testing.nodes  # noqa: F401 - whether it is there
        except ImportError as error:
            raise click.ClickException(
                f"several servers need psycopg (pip install 'holdfast[postgres]'): {error}"
            ) from None
    plan = Plan(clients, Plan.rooms, length, faults, commands, nodes)
    if seed is not None:
        ((report),) = several(range(seed, seed + 1), plan)
        _tell(report)
        sys.exit(bool(report.violations))
    tally, began, told = Tally(), time.monotonic(), time.monotonic()
    those = range(first, first + seeds)
    for report in one_by_one(those, plan, seconds) if stop else reports(those, plan, jobs, seconds):
        tally.add(report)
        if report.violations and len(tally.failed) <= 5:
            click.echo(f"seed {report.seed}: {report.violations[0]}")
        if report.violations and stop:
            break
        if time.monotonic() > told + 5.0:
            told = time.monotonic()
            click.echo(_progress(tally, told - began))
    conclude(tally, time.monotonic() - began, plan)


def _progress(tally: Tally, real: float) -> str:
    return (
        f"{tally.seeds} seeds, {tally.seeds / real:.1f}/s; {tally.virtual / 3600:.1f} simulated hours, "
        f"{tally.virtual / real:.0f} x real time; {tally.faults.total()} faults; {len(tally.failed)} failed"
    )


def _tell(report: Report) -> None:
    click.echo(f"seed {report.seed}: trace {report.trace}, {report.virtual:.0f} s in {report.real:.2f} s")
    click.echo(f"  felt: {_felt(report.faults, report.tried)}")
    click.echo(f"  reached: {_counted(report.reached)}")
    for violation in report.violations:
        click.echo(f"  WRONG {violation}")


def conclude(tally: Tally, real: float, plan: Plan) -> None:
    """Say what happened in all of them; exit with 1 if anything was wrong, or never happened, or there were none."""
    click.echo(_progress(tally, real))
    click.echo(f"felt: {_felt(tally.faults, tally.tried)}")
    click.echo(f"reached: {_counted(tally.reached)}")
    if not tally.seeds:
        click.echo("FAILED: no seed was run")
        sys.exit(1)
    if tally.failed:
        first = min(tally.failed, key=lambda report: report.seed)
        options = (
            f"--clients {plan.clients} --seconds {plan.seconds:g} --faults {plan.faults} "
            f"--commands {plan.commands_per_second:g} --nodes {plan.nodes}"
        )
        click.echo(f"FAILED: {len(tally.failed)} of {tally.seeds}. The first again:")
        click.echo(f"  python -m holdfast.testing.simulate --seed {first.seed} {options}")
        sys.exit(1)
    missing = tally.missing(plan)
    if missing and tally.seeds >= ENOUGH:
        click.echo(f"FAILED: this never happened: {', '.join(missing)}")
        sys.exit(1)
    click.echo(f"0 wrong in {tally.seeds} seeds (< {3 / tally.seeds:.2g} at 95 %)")
    if tally.seeds < ENOUGH:
        never = f"; this never happened: {', '.join(missing)}" if missing else ""
        click.echo(f"NOT PROOF: {tally.seeds} of the {ENOUGH} seeds that it takes{never}")


def _felt(faults: Counter[str], tried: Counter[str]) -> str:
    return ", ".join(f"{kind} {faults[kind]} of {count}" for kind, count in sorted(tried.items()))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
