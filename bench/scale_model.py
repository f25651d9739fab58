"""
Servers on one PostgreSQL, in virtual time: how long does it take, and how busy is who?

The costs that `scale.py` measures are the only inputs. What is played is what happens to a publication: it waits for
its server's writer, is committed with all that waits then, given to the members who are here, called out to the other
servers (what comes up within two milliseconds is one call), and each of those asks for what is new. Nobody works at
two things at once: a server has one core, PostgreSQL has some. What does not come and go with publications (heartbeats,
polls without news) is taken from a core evenly. The same seed gives the same figures.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from holdfast.store.postgres_feed import POLL_SECONDS
from holdfast.store.postgres_hints import GATHER_SECONDS
from holdfast.store.writer import BATCH_CHANGES

Costs = dict[str, Any]
Point = dict[str, float]
Then = Callable[[], None]


#: A process that has not worked for so long has found nothing of its own in the caches of its core.
REST_SECONDS = 0.005


#: For so long somebody else who is at work on a core goes on when it is wanted (Linux's base_slice_ns, of two cores).
TURN_SECONDS = 0.0014


def rested(gap: float) -> float:
    """Return what share of the costs of beginning afresh is due after so many seconds."""
    return min(1.0, max(0.0, gap) / REST_SECONDS)


class Clock:
    """Virtual time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Then]] = []
        self._order = count()

    def at(self, when: float, then: Then) -> None:
        heapq.heappush(self._due, (when, next(self._order), then))

    def run(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, then = heapq.heappop(self._due)
            then()
        self.now = until


class Cores:
    """
    Some cores with one queue.

    `left` is the share of each that is not taken by anything else; `others` how likely it is, when there is nothing to
    do, that somebody else is at work there, whose turn has to end first.
    """

    def __init__(self, clock: Clock, cores: int = 1, left: float = 1.0, others: float = 0.0, seed: int = 1) -> None:
        self._clock = clock
        self._left = max(left, 0.02)
        self._others = others
        self._dice = random.Random(seed)
        self._free = [0.0] * cores

    def work(self, seconds: float, then: Then | None) -> None:
        """Do this when it is its turn, and then that."""
        begin, now = self._free[0], self._clock.now
        if begin <= now:
            begin = now
            if self._others and self._dice.random() < self._others:
                begin += self._dice.random() * TURN_SECONDS
        end = begin + seconds / self._left
        heapq.heapreplace(self._free, end)
        if then is not None:
            self._clock.at(end, then)


@dataclass(slots=True)
class Publication:
    """One publication: of which server, when it was asked for, and who waits for its commit."""

    room: int
    node: Node
    asked: float
    then: Then | None = None


@dataclass
class World:
    """What all servers share. `network` is the way to PostgreSQL and back, in seconds."""

    costs: Costs
    clock: Clock
    database: Cores
    clients: Cores | None = None
    network: float = 0.0
    seed: int = 1
    nodes: list[Node] = field(default_factory=list)
    log: list[Publication] = field(default_factory=list)  # in the order in which they became visible
    used: Counter[str] = field(default_factory=Counter)  # seconds of cores, by whom
    count: Counter[str] = field(default_factory=Counter)
    late: list[tuple[float, int]] = field(default_factory=list)  # seconds, at how many members
    since: float = 0.0  # when it began to count

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def query(self, seconds: float, then: Then, wait: float = 0.0) -> None:
        """Have PostgreSQL work, and have the answer."""
        self.used["database"] += seconds
        clock, half = self.clock, self.network / 2
        clock.at(
            clock.now + half,
            lambda: self.database.work(seconds, lambda: clock.at(clock.now + half + wait, then)),
        )

    def disk(self) -> float:
        """Return what a commit waits for the disk."""
        waits: Sequence[float] = self.costs["commit_waits"]
        place = self._dice.random() * (len(waits) - 1)
        below = int(place)
        return waits[below] + (place - below) * (waits[below + 1] - waits[below])

    def heard(self, asked: float, members: int) -> None:
        """So many clients hear it now, or when they come to it."""
        if self.clients is None:
            self.late.append((self.clock.now - asked, members))
        else:
            self.clients.work(
                members * self.costs["client"], lambda: self.late.append((self.clock.now - asked, members))
            )

    def begin_to_count(self) -> None:
        self.since = self.clock.now
        self.used.clear()
        self.count.clear()
        self.late.clear()

    def share(self, who: str) -> float:
        """Return the share of a core that somebody used."""
        return self.used[who] / (self.clock.now - self.since)

    def rate(self, what: str) -> float:
        return self.count[what] / (self.clock.now - self.since)

    def percentile(self, share: float) -> float:
        """Return within how many seconds this share of the deliveries were made."""
        late = sorted(self.late)
        left = share * sum(members for _, members in late)
        for seconds, members in late:
            left -= members
            if left <= 0:
                return seconds
        return 0.0


class Node:
    """One server. `rest` is the share of a core that it uses without any publication, beside that of its polls."""

    def __init__(self, world: World, name: str, core: Cores, members: dict[int, int], rest: float = 0.0) -> None:
        self.name = name
        self.members = members
        self._world = world
        self._core = core
        self._rest = rest
        self._waiting: list[Publication] = []
        self._committing = False
        self._began = self._used = 0.0  # the last commit, and what was used by then
        self._rooms: set[int] = set()  # to be called out
        self._calling = False
        self._heard = 0.0  # when
        self._told = len(world.log)
        self._wanted = False
        self._asking = False
        self._asked = 0  # how often
        world.nodes.append(self)
        world.clock.at(world.clock.now + POLL_SECONDS * (0.3 + 0.1 * len(world.nodes) % 0.7), self._ask)

    def _work(self, seconds: float, then: Then | None) -> None:
        self._world.used[self.name] += seconds
        self._core.work(seconds, then)

    # Publishing.

    def publish(self, room: int, then: Then | None = None) -> None:
        one = Publication(room, self, self._world.clock.now, then)

        def asked() -> None:
            self._waiting.append(one)
            self._commit()

        self._work(self._world.costs["publication"] / 2, asked)

    def _commit(self) -> None:
        if not self._committing and self._waiting:
            self._committing = True
            world = self._world
            # It rests while its server does nothing.
            mine = world.used[self.name]
            self._fresh = rested(world.clock.now - self._began - max(0.0, mine - self._used))
            self._began, self._used = world.clock.now, mine
            self._commit_cost = world.costs["commit"] + world.costs["commit_rested"] * self._fresh
            self._each_cost = world.costs["publication"] / 2 + world.costs["publication_rested"] * self._fresh
            self._work(self._commit_cost / 4, self._commit_batch)

    def _commit_batch(self) -> None:
        world, costs = self._world, self._world.costs
        batch, self._waiting = self._waiting[:BATCH_CHANGES], self._waiting[BATCH_CHANGES:]
        world.count["batches"] += 1
        world.count["published"] += len(batch)
        theirs = costs["db_commit"] + costs["db_commit_rested"] * self._fresh + costs["db_publication"] * len(batch)
        world.used["database"] += costs["db_behind"] * len(batch)

        def committed() -> None:
            # Where others have come before, who hears it must hear them first.
            rooms = {each.room for each in batch}
            self._wanted |= any(each.room in rooms and each.node is not self for each in world.log[self._told :])
            world.log.extend(batch)
            self._committing = False
            self._commit()
            here = sum(self.members.get(each.room, 0) for each in batch)
            mine = self._commit_cost / 2 + self._each_cost * len(batch) / 2
            self._work(mine + here * costs["delivery"], tell)

        def tell() -> None:
            for each in batch:
                if each.room in self.members:
                    world.heard(each.asked, self.members[each.room])
                if each.then is not None:
                    each.then()
            self._rooms.update(each.room for each in batch)
            self._call()
            if self._wanted:
                self._want()

        mine = self._commit_cost / 4 + self._each_cost * len(batch) / 2
        self._work(mine, lambda: world.query(theirs, committed, world.disk()))

    # Calling.

    def _call(self) -> None:
        if self._calling or not self._rooms:
            return
        self._calling = True
        world, costs = self._world, self._world.costs
        rooms, self._rooms = frozenset(self._rooms), set()
        world.count["calls"] += 1
        listeners = len(world.nodes)

        def called() -> None:
            for node in world.nodes:
                if node is not self:
                    node._hear(rooms)
            world.used["database"] += costs["db_listener"]  # to wake this one
            world.clock.at(world.clock.now + GATHER_SECONDS, rested)

        def rested() -> None:
            self._calling = False
            self._call()

        theirs = costs["db_call"] + costs["db_signal"] * (listeners - 1)
        world.query(theirs, called)

    def _hear(self, rooms: frozenset[int]) -> None:
        world, costs = self._world, self._world.costs
        world.count["heard"] += 1
        cost = costs["hear"] + costs["hear_rested"] * rested(world.clock.now - self._heard)
        self._heard = world.clock.now
        if self.members.keys().isdisjoint(rooms):  # nothing follows from it
            world.used["database"] += costs["db_listener"]
            world.database.work(costs["db_listener"], None)
            self._work(cost, None)
        else:
            world.query(costs["db_listener"], lambda: self._work(cost, self._want))

    # Asking.

    def _want(self) -> None:
        self._wanted = True
        if not self._asking:
            self._ask()

    def _ask(self) -> None:
        if self._asking:
            return
        world, costs = self._world, self._world.costs
        self._asking, hinted = True, self._wanted
        self._wanted = False
        world.count["asks", self.name] += 1

        def sent() -> None:  # what is committed until the question comes there is in the answer
            new = world.log[self._told :]
            self._told = len(world.log)
            records = [each for each in new if each.node is not self and each.room in self.members]
            seconds = costs["db_ask" if hinted else "db_poll"]
            seconds += costs["db_row"] * len(new) + costs["db_record"] * len(records)
            world.query(seconds, lambda: answered(records))

        def answered(records: list[Publication]) -> None:
            deliveries = sum(self.members[each.room] for each in records)
            self._work(
                costs["ask"] / 2 + costs["record"] * len(records) + costs["delivery"] * deliveries,
                lambda: delivered(records),
            )

        def delivered(records: list[Publication]) -> None:
            for each in records:
                world.heard(each.asked, self.members[each.room])
            self._asking = False
            self._asked += 1
            if self._wanted:
                self._ask()
            else:
                number = self._asked
                world.clock.at(world.clock.now + POLL_SECONDS, lambda: self._asked == number and self._ask())

        self._work(costs["ask"] / 2, sent)


def rest(costs: Costs, connections: float = 0.0, more: float = 0.0) -> float:
    """Return the share of a core that a server uses for everything that is not played."""
    idle: float = costs["node_idle"] - costs["ask"] / POLL_SECONDS  # its polls are played
    return max(0.0, idle) + costs["connection_idle"] * connections + more


def database_rest(costs: Costs, nodes: int) -> float:
    """… and that PostgreSQL uses: each server looks once a second who is where."""
    return float(costs["db_idle"] + nodes * costs["db_look"])


# Loads.


def at_random(world: World, node: Node, rate: float, rooms: Sequence[int], seconds: float, dice: random.Random) -> None:
    """Publish in rooms by chance, at times by chance."""
    when = world.clock.now
    while (when := when + dice.expovariate(rate)) < world.clock.now + seconds:
        room = dice.choice(rooms)
        world.clock.at(when, lambda room=room: node.publish(room))


def racing(node: Node, writers: int, rooms: int) -> None:
    """Publish again as soon as it is committed, from many."""

    def write(room: int) -> None:
        node.publish(room, lambda: write(room))

    for writer in range(writers):
        write(writer % rooms)


# The points that were measured, on the machine that they were measured on: servers share one core, PostgreSQL and the
# clients the other, and others work on what is left of both.


def measured_machine(
    costs: Costs, rooms: Sequence[dict[int, int]], seed: int, others: tuple[float, float] = (0.0, 0.0)
) -> World:
    """Return servers with these members (by room), and how likely others are at work on the one core, and the other."""
    clock = Clock()
    rests = [rest(costs, sum(members.values())) for members in rooms]
    database = Cores(clock, 1, 1 - database_rest(costs, len(rooms)), others[1], seed)
    world = World(costs, clock, database, clients=database, seed=seed)
    core = Cores(clock, 1, 1 - sum(rests), others[0], seed)
    for name, members, more in zip(("here", "there", "none"), rooms, rests, strict=False):
        Node(world, name, core, members, more)
    return world


def play(world: World, seconds: float, costs: Costs, rooms: Sequence[dict[int, int]]) -> Point:
    """Let it run, and return what `scale.py` says of a point."""
    world.clock.run(world.clock.now + 0.5)
    world.begin_to_count()
    world.clock.run(world.clock.now + seconds)
    found = {"p50": world.percentile(0.5), "p99": world.percentile(0.99)}
    for name, members in zip(("here", "there", "none"), rooms, strict=False):
        found[f"cpu_{name}"] = world.share(name) + rest(costs, sum(members.values()))
    found["cpu_database"] = world.share("database") + database_rest(costs, len(rooms))
    found["asks_there"] = world.count["asks", "there"] / seconds
    found["calls"], found["batches"] = world.rate("calls"), world.rate("batches")
    return found


def points(
    costs: Costs, measured: dict[str, dict[str, float]], seed: int = 1
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the points of `scale.py` as the model has them."""
    for name, point in measured.items():
        if name.startswith("race_"):
            world = measured_machine(costs, [{}], seed)
            racing(world.nodes[0], 64, int(name.removeprefix("race_")))
            world.clock.run(0.5)
            world.begin_to_count()
            world.clock.run(2.5)
            yield name, {"publications": world.rate("published")}
        elif name == "latency":
            rooms: list[dict[int, int]] = [{}, dict.fromkeys(range(50), 1), {}]
            yield name, met(costs, point, rooms, [500], seed)
        elif name == "mix":
            rooms = [dict.fromkeys(range(50), 10), dict.fromkeys(range(50), 10), {}]
            yield name, met(costs, point, rooms, [60, 60], seed)


def met(costs: Costs, point: Point, rooms: Sequence[dict[int, int]], rates: Sequence[float], seed: int) -> Point:
    """Let the first servers publish at these rates: alone, and then with others on what that leaves of the cores."""
    others = (0.0, 0.0)
    found: Point = {}
    for _ in range(2):
        world = measured_machine(costs, rooms, seed, others)
        for number, (node, rate) in enumerate(zip(world.nodes, rates, strict=False)):
            at_random(world, node, rate, range(50), 11, random.Random(seed + number))
        found = play(world, 10, costs, rooms)
        others = left_to(point, found["cpu_here"] + found["cpu_there"] + found["cpu_none"], found["cpu_database"])
    return found


def left_to(point: Point, servers: float, database: float) -> tuple[float, float]:
    """Return how much of what is left of the two cores others used."""
    return (
        min(1.0, point["foreign_servers"] / max(0.01, 1 - servers)),
        min(1.0, point["foreign_database"] / max(0.01, 1 - database)),
    )
