"""
How far does it go, and what comes first? What `scale.py` measured, carried on to a million connections.

    .venv/bin/python bench/scale_paper.py [--costs bench/scale.json] > docs/scale.md

The sums are in `demand`, one for each kind of cost; how long things take is played by `scale_model.py`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, exp, inf
from pathlib import Path
from typing import Any

import scale_model as model
from scale_model import Costs

from holdfast.server.limits import Limits
from holdfast.store.postgres_feed import POLL_SECONDS
from holdfast.store.postgres_hints import GATHER_SECONDS
from holdfast.store.postgres_people import LOOK_SECONDS

HERE = Path(__file__).parent

#: A core that is busier than this makes everybody wait.
FULL = 0.6
#: The largest PostgreSQL that is thought of: cores, and connections.
DATABASE_CORES = 32
DATABASE_CONNECTIONS = 1_000
#: Of each server: its writer, feed, people, calls, what it listens by, four readers, and one for ids.
CONNECTIONS_PER_SERVER = 10
#: The way to PostgreSQL and back, in a datacentre. Seconds.
NETWORK = 0.0005
#: In a busy room changes of presence are told once a second: if they are so many, or would be so many messages.
BUSY_CHANGES = 20
BUSY_MESSAGES = 2_000
WEEK = 7 * 24 * 3600
SIZES = (10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Workload:
    """What people do: how many are in a room, what each publishes in a second, how many seconds each stays."""

    name: str
    room: int
    each: float
    stays: float
    words: str


@dataclass(frozen=True)
class Design:
    """What could be otherwise. The default is what there is."""

    redis: bool = False  # calls go by Redis
    together: bool = False  # a proxy leads the people of a room to the same server
    by_room: bool = False  # a server hears only the calls about its own rooms
    gather: float = GATHER_SECONDS  # what comes up within so many seconds is one call, and if it is longer, one ask
    databases: int = 1  # the rooms are spread over so many, each with servers of its own


@dataclass(frozen=True)
class Demand:
    """What it takes. Shares and cores are of one core, rates are per second and of all servers together."""

    people: int
    servers: int
    server: dict[str, float]  # share of each server's core, by what for
    database: dict[str, float]  # cores of PostgreSQL, by what for; of all databases
    databases: int
    commits: float
    calls: float
    heard: float
    asks: float
    rows: float  # of people
    deliveries: float
    memory: float  # bytes, of all servers
    log: float  # bytes a week
    read_again: float  # logs that are read when a server has died

    @property
    def busy(self) -> float:
        return sum(self.server.values())

    @property
    def cores(self) -> float:
        return sum(self.database.values())

    @property
    def nearest(self) -> tuple[str, float]:
        """What comes first, and how much of it is used."""
        ceilings = {
            "a server's core": self.busy / FULL,
            "PostgreSQL's cores": self.cores / self.databases / (FULL * DATABASE_CORES),
            "PostgreSQL's connections": self.servers * CONNECTIONS_PER_SERVER / self.databases / DATABASE_CONNECTIONS,
        }
        name = max(ceilings, key=lambda each: ceilings[each])
        return name, ceilings[name]


def often(rate: float, busy: float, rest: float = inf) -> float:
    """
    Return how often somebody works who begins when there is something, or after `rest`, and takes `busy` each time.

    What comes meanwhile is taken along. `rate` is of what comes, at times by chance.
    """
    idle = min(rest, 1e9) if rate <= 0 else exp(-rate * busy) * (1 - exp(-rate * min(rest, 1e9))) / rate
    return 1 / (busy + idle) if busy + idle > 0 else inf


@dataclass(frozen=True)
class Pace:
    """What happens how often, with so many servers: of each of them, unless it says otherwise."""

    spread: float  # how many servers have somebody in a room
    shared: float  # the chance that one server has somebody in a room in which another one has
    changes: float  # of presence, of all
    told: float  # … and to how many people, of all
    published: float  # of all
    commits: float
    fresh: float  # how much of it is after a rest
    calls: float
    heard: float
    records: float  # of other servers, for members here
    hints: float  # that are worth to ask
    asks: float
    looks: float


def pace(costs: Costs, load: Workload, people: int, servers: int, design: Design) -> Pace:
    """Return how often what happens."""
    room, others = min(load.room, people), servers - 1
    spread = max(1.0, room * servers / people) if design.together else servers * (1 - (1 - 1 / servers) ** room)
    shared = (spread - 1) / others if others else 0.0
    published, changes = people * load.each, 2 * people / load.stays
    mine = published / servers

    wait = sum(costs["commit_waits"]) / len(costs["commit_waits"]) + NETWORK
    fresh = 1.0
    for _ in range(20):  # whoever rests longer begins more slowly, and so rests less
        begun = fresh * (costs["commit_rested"] / 2 + costs["db_commit_rested"])
        commits = often(mine, costs["commit"] / 2 + costs["db_commit"] + begun + wait)
        fresh = model.rested(1 / commits - costs["commit"] - fresh * costs["commit_rested"])
    calls = often(commits + changes / servers, design.gather + costs["db_call"] + NETWORK)

    hints = others * min(calls, commits) * (1 - (1 - shared) ** max(1.0, mine / calls))
    records = others * mine * shared
    pause = design.gather - GATHER_SECONDS + NETWORK  # between two asks, or looks
    asks = 1 / POLL_SECONDS
    for _ in range(20):  # each ask takes along what came since the last
        found = (published * costs["db_row"] + records * costs["db_record"]) / asks
        asks = often(hints, costs["ask"] + costs["db_ask"] + pause + found, POLL_SECONDS)
    met = changes / servers * (1 + others * shared)
    looks = often(met, costs["look"] + costs["db_look_busy"] + pause, LOOK_SECONDS)

    in_room = changes * room / people
    is_busy = in_room > max(1.0, min(BUSY_CHANGES, BUSY_MESSAGES // room))
    return Pace(
        spread=spread, shared=shared, changes=changes,
        told=people * min(1.0, in_room) if is_busy else changes * (room - 1),
        published=published, commits=commits, fresh=fresh, calls=calls,
        heard=others * calls * (shared if design.by_room else 1.0),
        records=records, hints=hints, asks=asks, looks=looks,
    )  # fmt: skip


def demand(costs: Costs, load: Workload, people: int, servers: int, design: Design = Design()) -> Demand:
    """Return what it takes with so many servers."""
    if (parts := design.databases) > 1:
        one = demand(costs, load, people // parts, ceil(servers / parts), replace(design, databases=1))
        return times(one, parts)
    does = pace(costs, load, people, servers, design)
    each, rooms = people / servers, people / min(load.room, people)
    delivered = does.published * people / rooms
    return Demand(
        people, servers, of_server(costs, does, each, servers, delivered), of_database(costs, does, servers, design), 1,
        commits=servers * does.commits, calls=servers * does.calls, heard=servers * does.heard,
        asks=servers * does.asks, rows=does.changes, deliveries=delivered + does.told,
        memory=servers * costs["node_bytes"] + people * costs["connection_bytes"]
        + people * (does.spread - 1) * costs["elsewhere_bytes"],
        log=does.published * costs["log_bytes"] * WEEK,
        read_again=rooms * (1 - (1 - 1 / rooms) ** each),
    )  # fmt: skip


def of_server(costs: Costs, does: Pace, each: float, servers: int, delivered: float) -> dict[str, float]:
    """Return what shares of a server's core are used for what."""
    publication = costs["publication"] + costs["publication_rested"] * does.fresh + costs["command"]
    hear = costs["hear"] + costs["hear_rested"] * model.rested(1 / does.heard if does.heard else 1.0)
    return {
        "being there": costs["node_idle"] + costs["connection_idle"] * each,
        "publishing": (costs["commit"] + costs["commit_rested"] * does.fresh) * does.commits
        + publication * does.published / servers,
        "delivering": costs["delivery"] * delivered / servers,
        "presence": ((costs["join"] + costs["leave"]) * does.changes / 2 + costs["delivery"] * does.told) / servers
        + costs["look"] * max(0.0, does.looks - 1 / LOOK_SECONDS),
        "hearing": hear * does.heard,
        "asking": costs["ask"] * max(0.0, does.asks - 1 / POLL_SECONDS)
        + costs["row"] * does.published + costs["record"] * does.records,
    }  # fmt: skip


def of_database(costs: Costs, does: Pace, servers: int, design: Design) -> dict[str, float]:
    """Return how many of PostgreSQL's cores are used for what."""
    ears = does.heard / does.calls + 1  # by how many servers a call is heard, its own with them
    return {
        "committing": servers * does.commits * (costs["db_commit"] + costs["db_commit_rested"] * does.fresh)
        + does.published * (costs["db_publication"] + costs["db_behind"]) + costs["db_idle"],
        "calling": 0.0 if design.redis
        else servers * does.calls * (costs["db_call"] + ears * (costs["db_signal"] + costs["db_listener"])),
        "asking": servers * (does.asks * costs["db_ask" if does.hints else "db_poll"]
                             + does.published * costs["db_row"] + does.records * costs["db_record"]),
        "people": servers * does.looks * costs["db_look_busy"]
        + does.changes / 2 * (costs["db_person"] + costs["db_left"]),
    }  # fmt: skip


def times(one: Demand, databases: int) -> Demand:
    """Return what so many of it take."""
    whole = (
        "people", "servers", "commits", "calls", "heard", "asks", "rows", "deliveries", "memory", "log", "read_again",
    )  # fmt: skip
    return replace(
        one,
        databases=databases,
        database={name: databases * cores for name, cores in one.database.items()},
        **{name: databases * getattr(one, name) for name in whole},
    )


def fewest(costs: Costs, load: Workload, people: int, design: Design = Design()) -> Demand:
    """
    Return what it takes with as few servers as will do.

    If three times as many as people need to connect to will not do, it is with as few as they need.
    """
    least = ceil(people / Limits().connections / design.databases) * design.databases
    for number in range(least, 3 * least + 30):
        needs = demand(costs, load, people, ceil(number / design.databases) * design.databases, design)
        if needs.busy <= FULL:
            return needs
    return demand(costs, load, people, least, design)  # more would help little


def played(costs: Costs, load: Workload, needs: Demand, seconds: float = 3.0, seed: int = 1) -> model.World:
    """Let servers with a core each, and PostgreSQL with its cores, do it."""
    clock, dice = model.Clock(), random.Random(seed)
    left = 1 - (model.database_rest(costs, 0) + needs.database["people"]) / DATABASE_CORES
    world = model.World(costs, clock, model.Cores(clock, DATABASE_CORES, left), network=NETWORK, seed=seed)
    room = min(load.room, needs.people)
    where: list[dict[int, int]] = [{} for _ in range(needs.servers)]
    for person in range(needs.people):
        members = dice.choice(where)
        members[person // room] = members.get(person // room, 0) + 1
    more = needs.server["presence"] + costs["command"] * needs.people * load.each / needs.servers
    for number, members in enumerate(where):
        rest = model.rest(costs, sum(members.values()), more)
        node = model.Node(world, f"server {number}", model.Cores(clock, 1, 1 - rest), members, rest)
        rate = needs.people * load.each / needs.servers
        model.at_random(world, node, rate, list(members), seconds + 0.5, dice)
    clock.run(0.5)
    world.begin_to_count()
    clock.run(0.5 + seconds)
    return world


# The document.


LOADS = (
    Workload("chat", 50, 1 / 300, 1800, "rooms of 50; each says something every 5 minutes, and stays for half an hour"),
    Workload("boards", 10, 1 / 60, 3600, "boards of 10; each edits once a minute, and stays for an hour"),
    Workload("stadium", 20_000, 1 / 20_000, 7200, "rooms of 20,000; one publication a second in each; two hours"),
)


def table(*rows: tuple[object, ...]) -> str:
    """Return a table, the first row as its head."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def short(value: float) -> str:
    """Return a figure as it is read: 1.2 million, 34,000, 5.6."""
    if value >= 1e6:
        return f"{value / 1e6:,.1f} M"
    if value >= 100:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def size(value: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def milliseconds(value: float) -> str:
    """Return a time as it is read: 3.1 ms, 0.5 ms, 72 µs; none where it is hidden in what it was fitted beside."""
    if value == 0:
        return "not told apart"
    return f"{1000 * value:.3g} ms" if value >= 0.0005 else f"{float(f'{1e6 * value:.2g}'):g} µs"


#: What the constants are of: (name, words, where).
SERVER = (
    ("node_idle", "to be there, a second (four polls, one look)"),
    ("connection_idle", "a connection that is idle, a second"),
    ("join", "somebody comes: handshake, join, presence"),
    ("leave", "somebody goes"),
    ("command", "a message from a client, and its reply"),
    ("commit", "a commit, for the server that makes it, and calls out that there is news"),
    ("commit_rested", "… more, if its writer has rested for 5 ms"),
    ("publication", "… and each publication in it"),
    ("publication_rested", "… more, after such a rest"),
    ("delivery", "a delivery to a member"),
    ("hear", "a call of another that is heard"),
    ("hear_rested", "… more, after such a rest"),
    ("ask", "to ask what is new, once hinted at"),
    ("record", "… and each publication for members here"),
    ("row", "… and each for nobody here"),
    ("look", "to look who has come elsewhere, once hinted at"),
    ("catch_up", "somebody returns ten publications behind"),
)
DATABASE = (
    ("db_idle", "PostgreSQL at rest, a second"),
    ("db_poll", "a poll that finds nothing"),
    ("db_look", "a look at who is where, that finds nothing"),
    ("db_lease", "a lease renewed (in every fourth look)"),
    ("db_commit", "a commit"),
    ("db_commit_rested", "… more, after a rest of 5 ms"),
    ("db_publication", "… and each publication in it"),
    ("db_behind", "… and afterwards (WAL, checkpoints)"),
    ("db_call", "a call (NOTIFY)"),
    ("db_signal", "… for each that listens, to wake it"),
    ("db_listener", "… and to be woken"),
    ("db_ask", "to ask what is new, with rooms that were hinted at"),
    ("db_row", "… and each publication since, followed or not"),
    ("db_record", "… and each that is followed"),
    ("db_look_busy", "a look that finds people"),
    ("db_person", "somebody comes"),
    ("db_left", "somebody goes"),
    ("db_catch_up", "ten missed publications are read"),
)
POINTS = {
    "race_32": "64 writers, 32 rooms, one server",
    "race_1": "64 writers, one room, one server",
    "latency": "500 publications/s over 50 rooms, from one server to one member each at another; a third has none",
    "mix": "1,000 people in 50 rooms on two servers, 60 publications/s at each; a third has none",
}
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "publications": ("acknowledged a second", short),
    "p50": ("half arrive within", milliseconds),
    "p99": ("99 % arrive within", milliseconds),
    "cpu_here": ("core of the first server", lambda value: f"{100 * value:.1f} %"),
    "cpu_there": ("… of the second", lambda value: f"{100 * value:.1f} %"),
    "cpu_none": ("… of the third", lambda value: f"{100 * value:.1f} %"),
    "cpu_database": ("… of PostgreSQL", lambda value: f"{100 * value:.1f} %"),
    "batches": ("commits a second", short),
    "calls": ("calls a second", short),
    "asks_there": ("asks a second of the second server", short),
}


def constants(costs: Costs) -> str:
    """Return the constants as tables."""
    return "\n\n".join(
        (
            table(("a server", "of its core"), *((words, milliseconds(costs[name])) for name, words in SERVER)),
            table(("PostgreSQL", "of a core"), *((words, milliseconds(costs[name])) for name, words in DATABASE)),
            table(
                ("what is held or written", "bytes"),
                ("a server without anybody", size(costs["node_bytes"])),
                ("a connection in one room", size(costs["connection_bytes"])),
                ("somebody who is at another server, where the room is known", size(costs["elsewhere_bytes"])),
                ("a publication of 100 bytes in the log, with its indexes", size(costs["log_bytes"])),
                ("… and in the WAL, committed alone", size(costs["wal_bytes"])),
            ),
        )
    )


def compared(costs: Costs, measured: dict[str, dict[str, float]]) -> str:
    """Return what was measured, and what the model says, at points that nothing was fitted to."""
    rows: list[tuple[object, ...]] = [("", "", "measured", "modelled", "off by")]
    for name, point in model.points(costs, measured):
        others = (f"{100 * measured[name][f'foreign_{core}']:.0f} %" for core in ("servers", "database"))
        words = f"{POINTS[name]}; {' and '.join(others)} of the two cores went elsewhere"
        for figure, value in point.items():
            label, say = FIGURES[figure]
            was = measured[name][figure]
            rows.append((words, label, say(was), say(value), f"{100 * (value / was - 1):+.0f} %"))
            words = ""
    return table(*rows)


def largest(parts: dict[str, float]) -> str:
    """Return the two largest parts in words."""
    total = sum(parts.values())
    first, second = sorted(parts, key=lambda name: parts[name], reverse=True)[:2]
    return f"{first} {100 * parts[first] / total:.0f} %, {second} {100 * parts[second] / total:.0f} %"


def needed(costs: Costs) -> str:
    """Return what each workload takes at each size, with what there is."""
    head = (
        "",
        "people",
        "servers",
        "busy",
        "mostly",
        "PostgreSQL's cores",
        "mostly",
        "half, 99 % within",
        "nearest limit",
    )
    rows: list[tuple[object, ...]] = [head]
    for load in LOADS:
        for people in SIZES:
            needs = fewest(costs, load, people)
            name, share = needs.nearest
            fits = share <= 1
            late = "does not fit"
            if fits:
                world = played(costs, load, needs)
                late = f"{milliseconds(world.percentile(0.5))}, {milliseconds(world.percentile(0.99))}"
            rows.append((
                load.name, f"{people:,}", f"{needs.servers:,}", f"{100 * needs.busy:.0f} %", largest(needs.server),
                short(needs.cores), largest(needs.database), late, f"{name}, {short(100 * share)} %",
            ))  # fmt: skip
    return table(*rows)


def rates(costs: Costs) -> str:
    """Return how much happens each second, of the same."""
    head = ("each second", "people", "commits", "calls", "heard", "polls and asks", "people's rows", "deliveries")
    rows: list[tuple[object, ...]] = [(*head, "memory", "log in a week", "logs read when a server dies")]
    for load in LOADS:
        for people in SIZES:
            needs = fewest(costs, load, people)
            counted = (needs.commits, needs.calls, needs.heard, needs.asks, needs.rows, needs.deliveries)
            held = (size(needs.memory), size(needs.log), short(needs.read_again))
            rows.append((load.name, f"{people:,}", *map(short, counted), *held))
    return table(*rows)


CHANGES: tuple[tuple[str, Design], ...] = (
    ("as it is", Design()),
    ("calls by Redis (`--redis`)", Design(redis=True)),
    ("… and calls, asks and looks gathered for 20 ms", Design(redis=True, gather=0.02)),
    ("… and a room's people led to one server", Design(redis=True, gather=0.02, together=True)),
    ("… and each server hears only of its rooms", Design(redis=True, gather=0.02, together=True, by_room=True)),
    ("… and rooms spread over four databases",
     Design(redis=True, gather=0.02, together=True, by_room=True, databases=4)),
)  # fmt: skip


def changed(costs: Costs) -> str:
    """Return what each change brings, at a million people."""
    rows: list[tuple[object, ...]] = [("a million people", *(load.name for load in LOADS))]
    for words, design in CHANGES:
        cells = []
        for load in LOADS:
            needs = fewest(costs, load, SIZES[-1], design)
            name, share = needs.nearest
            servers = f"{needs.servers:,} servers at {100 * needs.busy:.0f} %"
            each = " each" if needs.databases > 1 else ""
            cells.append(f"{servers}, {short(needs.cores / needs.databases)} cores of PostgreSQL{each}"
                         + ("" if share <= 1 else f"; **{name}**"))  # fmt: skip
        rows.append((words, *cells))
    return table(*rows)


def document(found: dict[str, Any]) -> str:
    """Return docs/scale.md."""
    costs = found["costs"]
    chat, boards, _ = (fewest(costs, load, SIZES[-1]) for load in LOADS)
    each = boards.people / boards.servers
    return TEXT.format(
        date=found["date"],
        machine=found["machine"],
        foreign=f"{100 * found['foreign']:.0f} %",
        full=f"{100 * FULL:.0f} %",
        cores=DATABASE_CORES,
        connections=f"{DATABASE_CONNECTIONS:,}",
        network=milliseconds(NETWORK),
        constants=constants(costs),
        compared=compared(costs, found["points"]),
        loads="\n".join(f"- **{load.name}**: {load.words}." for load in LOADS),
        needed=needed(costs),
        rates=rates(costs),
        changed=changed(costs),
        servers=boards.servers,
        polls=f"{100 * 4 * costs['db_poll'] * boards.servers:.0f} %",
        chat_log=size(chat.log),
        boards_log=size(boards.log),
        back=f"{each:,.0f}",
        back_here=f"{each * (costs['join'] + costs['catch_up']) / (boards.servers - 1):.2g}",
        back_there=f"{boards.read_again * costs['db_catch_up'] + each * costs['db_person']:.0f}",
        room_limit=short(1 / (costs["db_commit"] + costs["db_commit_rested"] + costs["commit_waits"][10] + NETWORK)),
    )


TEXT = """\
# How far it goes, on paper

What each thing costs was measured, on a few servers with one PostgreSQL. What a hundred of them do was not: it is
reckoned here from those costs, by a model that is held against points that it was not fitted to. Take from it which
limit comes first and by what factor, not the second digit.

    .venv/bin/python bench/scale.py --write bench/scale.json    # measures, in under five minutes
    .venv/bin/python bench/scale_paper.py > docs/scale.md       # reckons, and prints this page

## The sum

A server is one process, and uses one core (`--workers 8` is eight servers). There are N of them and P publications a
second. Of each room, K servers have somebody: K = N · (1 − (1 − 1/N)^people), if chance leads them there.

| a server's core | how often |
|---|---|
| being there | always, and for each connection |
| publishing | commits · *commit* + publications · (*publication* + *command*); what comes up during a commit goes with the next, and what comes up within 2 ms of a call goes with the next call |
| delivering | P · people in the room / N · *delivery* |
| presence | *come* and *go*; each change is a *delivery* to everybody in its room, or, if a room has more than 20 a second, or more than make 2,000 messages, one a second; changes elsewhere in rooms that are known here are *looks* |
| hearing | (N − 1) · calls of a server · *hear*: everybody hears everybody |
| asking | asks · *ask* + P · (K − 1) / N · *record*; one at a time, what is hinted at meanwhile goes with the next; without a hint every 0.25 s |

| PostgreSQL | how often |
|---|---|
| committing | commits of all · *commit* + P · *publication* |
| calling | calls of all · (*call* + N · (*wake* + *be woken*)) |
| asking | asks of all · *ask* + N · P · *row* + P · (K − 1) · *record*: each server looks at each new row, whether it follows the room or not |
| people | *somebody comes*, *goes*; looks of all · *look* |

Memory is N servers, the connections, and people · (K − 1) entries for those who are elsewhere. Where P grows with N,
four of these grow with N²: hearing, waking, asks (until a server asks without a pause), and rows looked at.

## What each thing costs

Processor time, by the kernel's account of each process, fitted through at least two loads. Measured on {date},
{machine}, while {foreign} of the machine went elsewhere: to others, or to nobody, for the
kernel counts a core as busy in ticks, and charges what it does for a network to whoever it finds there. Between runs most
of them differ by a fifth, and by a half when others work on the machine: that empties the caches. For the same reason
whoever is woken after a rest pays more than whoever goes on.

{constants}

## Measured beside modelled

Nothing is fitted to these points. Servers shared one core, PostgreSQL and the clients the other, in the model as on the
machine. What went elsewhere is in the model as the work of others: whoever is woken while they work waits for the rest of
their turn, at most 1.4 ms, which is Linux's on two cores. How much that was is known, and not when, so the times cannot be
met closely. The two races are modelled as if nobody else had been there. A server's work for each different room in a commit is not
told apart from that for each publication: where all are of one room, it takes more of them than modelled.

{compared}

## Ten thousand, a hundred thousand, a million

{loads}

As few servers as keep each of their cores below {full}; at most 10,000 connections each (the default limit). PostgreSQL
has {cores} cores, of which the same share may be used, and {connections} connections, of which a server takes up to
ten; it is {network} away, and its disk takes as long as ours. Times are until the last member at a server has it, and
come from playing it; all else is the sum. Where three times as many servers as people need to connect to would be too
busy, there are as few as they need, and the last column says by how much it does not fit.

{needed}

{rates}

**At 10,000** nothing comes first: one server does it, and a second is there for when the first is not. **At 100,000** it
is the servers' cores, and the largest part of what chat and boards do with them is to ask PostgreSQL what others have
committed. In a stadium it is to tell everybody who came and went. **At a million** chat and boards do not fit, and more
servers do not help: each one more hears everything too, so three times as many are still too busy, and PostgreSQL has
to tell and to answer them all. The commits themselves would fit it.

## What one changes then

One after the other. The first exists; the second is three numbers in the source; the third is done in a proxy; the rest
is to be built.

{changed}

- **Redis for hints** takes the calls from PostgreSQL. It does not make a server hear less, nor ask less.
- **Gathering** makes what is heard up to 40 ms later, and asks fifty a second of each server, whatever happens.
- **Leading a room's people to one server** (a proxy that hashes the room in the path) ends asking, as a server's own
  commits need no asking. Whoever is in ten rooms then needs ten connections, or a page that is about one.
- **Hearing only of one's own rooms**: a channel for each of some hundred groups of rooms. Without the step before, each
  server has somebody in each group, and hears all as before.
- **Rooms spread over databases**: no transaction and no cursor spans two, so boards of one company belong into one.
- **The log in partitions by time.** In the week that it is kept, a million people leave {chat_log} (chat) or
  {boards_log} (boards). Today it is trimmed row by row, and vacuumed; to drop a day costs nothing.
- **Read replicas for catching up** do not help much. When one of {servers} servers dies, {back} people come back to the
  others: {back_here} s of each server's core, and at most {back_there} s of one of PostgreSQL's, spread over the seconds that
  [the crowd is given](backoff.md). A replica is behind, and what it does not have yet must not be taken for all there is.
- **Fewer polls when hints are heard**: {servers} servers poll 4 times a second each, for {polls} of a core of PostgreSQL.
  Not worth it.
- **More servers or bigger ones**: a process has one core, so a bigger machine is more servers. But the processes of one
  machine could share one that hears and asks for all of them, and N would be machines: both would be divided by the
  number of processes, and no proxy would be needed.
- **A pooler** (`listen=` for the connection that cannot go through it) takes all but one connection of each server.
- **One room** takes at most about {room_limit} commits a second from all servers together, as each holds its row until
  it is on the disk; a server's commit holds up to 512 publications.

## What was not run

- More than three servers on one database, more than 3,000 connections, and anything over a network.
- A machine of its own: every figure comes from two shared cores, with the clients on one of them.
- The designs of the last table, but for Redis, whose calls are taken to cost a server as much to hear as PostgreSQL's.
- Event streams and polls ([what they cost](roads.md)), changes with SQL of an application's own, TLS, a proxy.
- A log of a size at which its indexes no longer fit into memory; vacuum and trimming over days; a replica that follows.
- How a disk bears the flushes of many servers: PostgreSQL flushes once for commits that wait together, and the model
  lets each wait as long as one alone did.
- People who all come within a minute. What is summed up is an even flow.
- Rooms of very different sizes: in each of the three workloads all are alike.
"""  # noqa: E501 - a row of a table is one line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", type=Path, default=HERE / "scale.json")
    print(document(json.loads(parser.parse_args().costs.read_text())), end="")


if __name__ == "__main__":
    main()
