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
    return "\n".join([*fanout(results), "", *others(results), "", *storms(results), "", *notes(results)])


def fanout(results: Result) -> list[str]:
    """Return the table of deliveries."""
    found, bursts = results.get("fanout", {}), results.get("burst", {})
    columns = [(mode, members) for mode in ("paced", "burst") for members in (1_000, 5_000, 9_900)]
    moments = (1_000, 5_000)
    names = [f"{mode}, {n:,}" for mode, n in columns]
    names += ["p99, paced, 1,000", *(f"p99 of 20 of one moment, {n:,}" for n in moments)]
    lines = ["| processor time of a delivery, × the floor | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for one in CONTESTANTS:
        if runs := found.get(one.slug):
            cells = [
                spread([r["ratio"] for r in runs if (r["mode"], r["members"]) == column], lambda x: f"{x:.2f}")
                for column in columns
            ]
            cells.append(spread([r["p99"] for r in runs if (r["mode"], r["members"]) == columns[0]], milli))
            for members in moments:
                cells.append(spread([r["p99"] for r in bursts.get(one.slug, []) if r["members"] == members], milli))
            lines.append(f"| {one.name} | " + " | ".join(cells) + " |")
    floors = [
        spread([r["floor"] for runs in found.values() for r in runs if (r["mode"], r["members"]) == column], micro)
        for column in columns
    ]
    lines.append("| *the floor*: a loop of `send` in C | " + " | ".join([*floors, "", "", ""]) + " |")
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
        ("… to a server that was restarted", "resume", "restarted", micro),
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


def storms(results: Result) -> list[str]:
    """Return the table of servers that end while there is a crowd, and start again."""
    columns: list[tuple[str, str, Callable[[float], str] | None]] = [
        ("are back", "back", None),
        ("were lost again", "again", None),
        ("heard nothing, or not all", "behind", None),
        ("publications lost", "missing", None),
        ("repeated", "repeated", None),
        ("a client or a log began anew", "doubts", None),
        ("95 % have all that there is after", "p95", lambda x: f"{x:.1f} s"),
        ("the last after", "longest", lambda x: f"{x:.1f} s"),
        ("were told to come later", "sent_away", None),
        ("had no answer", "unanswered", None),
        ("were refused", "refused", None),
        ("waited for an answer, at most", "waited", lambda x: f"{x:.1f} s"),
        ("p99 of what is new, to those who are back", "late", lambda x: f"{1000 * x:.0f} ms"),
        ("publications meanwhile", "published", None),
        ("one took, with the dialing, at most", "slowest", lambda x: f"{x:.1f} s"),
        ("memory, × before", "memory", lambda x: f"{x:.2f}"),
    ]
    lines = [
        "| a server with 9,900 clients in 50 rooms ends, and starts | "
        + " | ".join(name for name, *_ in columns)
        + " |",
        "|---|" + "--:|" * len(columns),
    ]
    names = {one.slug: one.name for one in CONTESTANTS}
    for slug, runs in results.get("storm", {}).items():
        for kind in dict.fromkeys(run["kind"] for run in runs):
            mine = [run | {"doubts": run["resyncs"] + run["forgotten"]} for run in runs if run["kind"] == kind]
            cells = [
                thousands(sum(run[key] for run in mine)) if form is None else spread([run[key] for run in mine], form)
                for _, key, form in columns
            ]
            cells[0] += f" of {sum(run['count'] for run in mine):,}"
            lines.append(f"| {kind}, {names[slug]} | " + " | ".join(cells) + " |")
    return lines


def notes(results: Result) -> list[str]:
    """Return what was published and survived, and with what it was measured."""
    lines = []
    names = {one.slug: one.name for one in CONTESTANTS}
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
            f"{names[slug]}: {rate} of 64 writers (coroutines of the application, each into a room of its own in which "
            f"nobody is), {alone} one after the other, where an `fsync` of this disk takes {fsync}."
        )
    if starts := results.get("start", {}).get("holdfast"):
        hub, client, loop = (spread([1e3 * run[key] for run in starts], milli) for key in ("Hub", "connect", "asyncio"))
        lines.append(
            f"- `from holdfast import Hub` takes {hub}, `from holdfast import connect` {client}, and of these `import "
            f"asyncio` {loop}."
        )
    for slug, runs in results.get("people", {}).items():
        if "presence" in runs[0]:
            told = spread([run["presence"] for run in runs], lambda x: f"{x:.2f}")
            seconds = spread([run["more_seconds"] for run in runs], lambda x: f"{x:.2f} s")
            often = spread([run["more_told"] for run in runs], lambda x: f"{x:.1f}")
            lines.append(
                f"- While {runs[0]['count']:,} come into one room, {names[slug]}: each of them is told {told} times a "
                f"second who has come. {runs[0]['more']} more at once are in after {seconds}; each of the others is "
                f"told {often} times."
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
        busy = spread([run["busy"] for run in tasks], lambda x: f"{100 * x:.0f} %")
        lines.append(
            "- The task board, 100 tasks created by REST a second, by four, and 1,000 WebSockets on it: from when one "
            f"was due to be asked for to the event, half within {p50}, 99 % within {p99}; the server uses {busy} of "
            "its core."
        )
    measured: dict[str, list[str]] = {}
    for figure, dates in results.get("dates", {}).items():
        for date in sorted(set(dates.values())):
            measured.setdefault(date, []).append(f"`{figure}`")
    lines += [f"- {date}: {', '.join(figures)}." for date, figures in sorted(measured.items())]
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


def milli(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms"


def thousands(value: float) -> str:
    return f"{value:,.0f}"


def shown(result: Result) -> str:
    """Return one result, for whoever waits."""
    form = {float: "{:.4g}"}
    return ", ".join(f"{key} {form.get(type(value), '{}').format(value)}" for key, value in result.items())
