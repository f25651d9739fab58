"""What was measured, as tables in Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from contestants import CONTESTANTS

BEGIN, END = "<!-- speed: tables -->\n", "<!-- end: speed -->"
Result = dict[str, Any]


def inserted(text: str, results: Result) -> str:
    """Return a document with the tables between their marks."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}{document(results)}\n{END}{rest.split(END)[1]}"


def kept(results: Result) -> str:
    """Return the results as they are kept: JSON, with a line for each run."""
    return re.sub(r'\n\s+(?=["}])', " ", json.dumps(results, indent=1)) + "\n"


def document(results: Result) -> str:
    """Return everything that stands between the marks."""
    return "\n".join([*fanout(results.get("fanout", {})), "", *others(results), "", *notes(results)])


def fanout(found: dict[str, list[Result]]) -> list[str]:
    """Return the table of deliveries."""
    columns = [(mode, members) for mode in ("paced", "burst") for members in (1_000, 5_000, 9_900)]
    lines = [
        "| processor time of a delivery, × the floor | "
        + " | ".join(f"{mode}, {n:,}" for mode, n in columns)
        + " | p99, paced, 1,000 |",
        "|---|" + "--:|" * (len(columns) + 1),
    ]
    for one in CONTESTANTS:
        if runs := found.get(one.slug):
            cells = [
                spread([r["ratio"] for r in runs if (r["mode"], r["members"]) == column], lambda x: f"{x:.2f}")
                for column in columns
            ]
            late = spread([r["p99"] for r in runs if (r["mode"], r["members"]) == columns[0]], lambda x: f"{x:.0f} ms")
            lines.append(f"| {one.name} | " + " | ".join([*cells, late]) + " |")
    floors = [
        spread([r["floor"] for runs in found.values() for r in runs if (r["mode"], r["members"]) == column], micro)
        for column in columns
    ]
    lines.append("| *the floor*: a loop of `send` in C | " + " | ".join([*floors, ""]) + " |")
    return lines


def others(results: Result) -> list[str]:
    """Return the table of everything that is not compared with the floor."""
    columns: list[tuple[str, str, str, Callable[[float], str]]] = [
        ("handshake and join", "people", "cost", micro),
        ("memory of one who is there", "people", "bytes", lambda x: f"{x / 1024:.1f} KiB"),
        ("10,000 who are there, of a core", "people", "idle", lambda x: f"{100 * x:.1f} %"),
        ("nobody else was heard meanwhile, at most", "people", "busy", lambda x: f"{1000 * x:.1f} ms"),
        ("a message and its answer", "echo", "cost", micro),
        ("who returns, 100 behind", "resume", "cost", micro),
        ("to be there", "start", "seconds", lambda x: f"{x:.2f} s"),
    ]
    lines = ["| | " + " | ".join(name for name, *_ in columns) + " |", "|---|" + "--:|" * len(columns)]
    for one in CONTESTANTS:
        cells = [
            spread([run[key] for run in results.get(figure, {}).get(one.slug, []) if key in run], form)
            for _, figure, key, form in columns
        ]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {one.name} | " + " | ".join(cells) + " |")
    return lines


def notes(results: Result) -> list[str]:
    """Return what was published and survived, and with what it was measured."""
    lines = []
    names = {one.slug: one.name for one in CONTESTANTS}
    for slug, runs in results.get("burst", {}).items():
        for members in dict.fromkeys(run["members"] for run in runs):
            together, apart = (
                spread([run[key] for run in runs if run["members"] == members], lambda x: f"{x:.0f} ms")
                for key in ("together", "apart")
            )
            lines.append(
                f"- Twenty publications of one moment to {members:,} members, {names[slug]}: written together, 99 % of "
                f"their deliveries come within {together}; published one after the other, within {apart}."
            )
    for slug, runs in results.get("rooms", {}).items():
        alone, beside = (spread([run[key] for run in runs], micro) for key in ("alone", "beside"))
        lines.append(
            f"- A delivery in a room of 1,000, {names[slug]}: {alone}; beside {runs[0]['others']:,} other rooms with "
            f"somebody in each: {beside}."
        )
    for slug, runs in results.get("publish", {}).items():
        rate, alone, fsync = (
            spread([run[key] for run in runs], form)
            for key, form in (("rate", thousands), ("alone", thousands), ("fsync", micro))
        )
        lines.append(
            f"- Publications a second, acknowledged when SQLite has them on the disk (`synchronous=FULL`), "
            f"{names[slug]}: {rate} of 64 writers, {alone} one after the other, where an `fsync` of this disk takes "
            f"{fsync}."
        )
    for slug, runs in results.get("storm", {}).items():
        for kind in dict.fromkeys(run["kind"] for run in runs):
            mine = [run for run in runs if run["kind"] == kind]
            back, missing, repeated = (sum(run[key] for run in mine) for key in ("back", "missing", "repeated"))
            doubts = sum(run["resyncs"] + run["forgotten"] for run in mine)
            p95 = spread([run["p95"] for run in mine], lambda x: f"{x:.1f} s")
            late = spread([run["late"] for run in mine], lambda x: f"{1000 * x:.0f} ms")
            memory = spread([run["memory"] for run in mine], lambda x: f"{x:.2f}")
            lines.append(
                f"- {kind} of a server with {mine[0]['count']:,} clients in 50 rooms, and a start, {names[slug]}: "
                f"{back:,} of {sum(run['count'] for run in mine):,} came back, {missing} publications lost, {repeated} "
                f"repeated, {doubts} times a client or a log began anew; 95 % are back within {p95} of the end; to "
                f"those who are, 99 % of what is new then comes within {late}; memory {memory} × what it was."
            )
    if hours := results.get("churn", {}).get("holdfast"):
        begin, end, most = (
            spread([run[key] for run in hours], lambda x: f"{x:.1f} MiB") for key in ("begin", "end", "most")
        )
        lines.append(
            f"- An hour in which {hours[0]['came']:,} people come and go, in 50 rooms with news (`run.py churn`): "
            f"memory {begin} in the first third after it had settled, {end} in the last, {most} at most."
        )
    if tasks := results.get("board", {}).get("holdfast"):
        p50, p99 = (spread([run[key] for run in tasks], lambda x: f"{x:.1f} ms") for key in ("p50", "p99"))
        lines.append(
            f"- The task board, 100 tasks created by REST a second, 1,000 WebSockets on it: from the request to the "
            f"event, half within {p50}, 99 % within {p99}."
        )
    if dates := sorted({date for dates in results.get("dates", {}).values() for date in dates.values()}):
        lines.append(f"- `.venv/bin/python bench/speed/run.py`, {' and '.join(dates)}, on {results['machine']}.")
    for one in CONTESTANTS:
        if one.slug in results.get("versions", {}):
            lines.append(f"- {one.name}: {results['versions'][one.slug]}")
    return lines


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Return the median of what was measured, and from where to where it was."""
    if not values:
        return "–"
    if len(values) == 1:
        return form(values[0])
    return f"{form(median(values))} ({form(min(values))} to {form(max(values))})"


def micro(seconds: float) -> str:
    return f"{1e6 * seconds:.1f} µs" if seconds < 1e-5 else f"{1e6 * seconds:.0f} µs"


def thousands(value: float) -> str:
    return f"{value:,.0f}"


def shown(result: Result) -> str:
    """Return one result, for whoever waits."""
    form = {float: "{:.4g}"}
    return ", ".join(f"{key} {form.get(type(value), '{}').format(value)}" for key, value in result.items())
