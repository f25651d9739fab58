"""The outcomes as a table, and what they were measured with, in Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from failures import BY_NAME, FAULTS
from systems import SYSTEMS
from trial import WATCHED, Outcome

HEAD = (
    "| fault | system | lost | repeated | out of order | told of the gap | ghost gone after | consistent after "
    "| server's memory | the others |\n|---|---|--:|--:|--:|---|--:|--:|--:|---|"
)


def document(outcomes: Sequence[Outcome], command: str) -> str:
    """Everything that stands between the marks."""
    found = {(outcome.system, outcome.fault): outcome for outcome in outcomes}
    lines = [HEAD]
    for fault in FAULTS:
        name = f"**{fault.name}**"
        for system in SYSTEMS:
            if (outcome := found.get((system.slug, fault.name))) is not None:
                lines.append(row(name, system.name, outcome))
                name = ""
    absent = [outcome for outcome in outcomes if outcome.not_run]
    lines += ["", *(f"Not run: {outcome.system}, {outcome.fault}: {outcome.not_run}." for outcome in absent)]
    dates = sorted({outcome.date for outcome in outcomes})
    lines += [
        f"`{command}`, {' and '.join(dict.fromkeys((dates[0], dates[-1])))}, on {machine()}.",
        "",
        *(
            f"- {system.name}: {versions(system.slug, outcomes)}"
            for system in SYSTEMS
            if versions(system.slug, outcomes)
        ),
    ]
    return "\n".join(lines)


def row(fault: str, system: str, outcome: Outcome) -> str:
    if outcome.not_run:
        return f"| {fault} | {system} | not run |" + " |" * 7
    cells = [
        fault,
        system,
        str(outcome.lost),
        str(outcome.repeated),
        str(outcome.disordered),
        told(outcome),
        seconds(outcome.ghost) if BY_NAME[outcome.fault].leaves_ghosts else "–",
        seconds(outcome.consistent) if outcome.consistent is not None else "never",
        "–" if outcome.growth is None else f"{outcome.growth / 1e6:+.0f} MB",
        others(outcome),
    ]
    return "| " + " | ".join(cells) + " |"


def told(outcome: Outcome) -> str:
    if outcome.losers:
        return (
            "no"
            if not outcome.told
            else "yes"
            if outcome.told == outcome.losers
            else f"{outcome.told} of {outcome.losers}"
        )
    return f"needlessly, {outcome.warned}" if outcome.warned else "–"


def seconds(value: float | None) -> str:
    return f"never (> {WATCHED:.0f} s)" if value is None else f"{value:.1f} s"


def others(outcome: Outcome) -> str:
    if BY_NAME[outcome.fault].strikes_server:
        return "–"
    lost = f"lost {outcome.others_lost}, " if outcome.others_lost else ""
    share = outcome.acknowledged / max(outcome.wanted, 1)
    held = f", {share:.0%} could be published" if share < 0.95 else ""
    return f"{lost}waited {outcome.others_waited:.1f} s{held}"


def versions(slug: str, outcomes: Sequence[Outcome]) -> str:
    return next((outcome.versions for outcome in outcomes if outcome.system == slug), "")


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}"


def setups() -> str:
    """How each system is set up."""
    return "\n".join(
        f"- **{system.name}** ([files](silent_death/systems/{system.folder})): {system.says}." for system in SYSTEMS
    )


def faults() -> str:
    """What the faults are."""
    return "\n".join(f"- **{fault.name}**: {fault.means}" for fault in FAULTS)
