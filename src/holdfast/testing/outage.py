"""
What goes wrong where several servers share a database?

What goes wrong with links, clients and servers anyway (`holdfast.testing.misfortune`), and more: with
the database, with the way to it, and with what the servers call out to each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.testing import misfortune
from holdfast.testing.misfortune import Fault
from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.server_process import ServerProcess
from holdfast.testing.verdict import REACHED
from holdfast.testing.virtual import Process

if TYPE_CHECKING:
    from holdfast.testing.nodes import Nodes
    from holdfast.testing.world import World


def _nodes(world: World) -> Nodes:
    assert world.nodes is not None
    return world.nodes


def cut_off_in_silence(world: World, felt: Felt) -> bool:
    """Nothing that a server asks the database gets through, and nobody is told."""
    server, seconds = world.dice.choice(world.servers), world.dice.choice([1.0, 4.0, 8.0, 20.0, 40.0])
    way = _nodes(world).way(server)
    _nodes(world).doubt(seconds)
    way.fall_silent(felt)
    _nodes(world).expect_serves_nobody(server)
    world.later(seconds, lambda: setattr(way, "is_silent", False))
    return True


def cut_off(world: World, felt: Felt) -> bool:
    """… and it is told at once."""
    server, seconds = world.dice.choice(world.servers), world.dice.choice([0.1, 1.0, 8.0, 20.0, 40.0])
    way = _nodes(world).way(server)
    _nodes(world).doubt(seconds)
    way.close(felt)
    _nodes(world).expect_serves_nobody(server)
    world.later(seconds, lambda: setattr(way, "is_closed", False))
    return True


def lose_commit(world: World, felt: Felt) -> bool:
    """A connection is lost in the middle of a commit, which has happened, or not."""
    way = world.dice.choice(_nodes(world).ways)
    way.lose(world.dice.choice(["commit", "answer"]), felt)
    seconds = world.dice.choice([0.0, 0.0, 3.0, 15.0])

    def cut() -> None:
        if way.loses is None and seconds:
            _nodes(world).doubt(seconds)
            way.close()
            world.later(seconds, lambda: setattr(way, "is_closed", False))

    world.later(2.0, cut)
    return True


def lose_hints(world: World, felt: Felt) -> bool:
    """A server hears nothing of what the others call out."""
    way = world.dice.choice(_nodes(world).ways)
    way.fall_deaf(felt)
    world.later(world.dice.uniform(5, 60), lambda: setattr(way, "hears_nothing", False))
    return True


def restart_database(world: World, felt: Felt) -> bool:
    """The database is told to end, and started again."""
    _go_down(world, world.dice.choice([0.3, 2.0, 10.0, 30.0]), felt)
    return True


def crash_database(world: World, felt: Felt) -> bool:
    """The database is killed, and started again."""
    _go_down(world, world.dice.choice([0.3, 2.0, 10.0, 30.0]), felt)
    _nodes(world).shore.log.crash()
    return True


def freeze_database(world: World, felt: Felt) -> bool:
    """The database stands still."""
    shore, seconds = _nodes(world).shore, world.dice.choice([1.0, 4.5, 12.0, 30.0])
    shore.fall_silent(felt)
    _nodes(world).doubt(seconds)
    for server in world.servers:
        _nodes(world).expect_serves_nobody(server)
    world.later(seconds, lambda: setattr(shore, "is_silent", False))
    return True


def fail_over(world: World, felt: Felt) -> bool:
    """The database is lost, and another takes its place that lacks the last commits."""
    return _go_back(world, world.dice.uniform(0, 3), felt, is_promoted=True)


def restore(world: World, felt: Felt) -> bool:
    """Files of some time ago are put in the place of the database's."""
    return _go_back(world, world.dice.uniform(0, 20), felt, is_promoted=False)


def lose_both(world: World, felt: Felt) -> bool:
    """A server is killed, and somebody who was there is gone with it: of them no other server hears any more."""
    there = [
        (server, visitor)
        for server in world.servers
        for visitor in world.visitors
        if server.process is not None
        and any(
            [end.process for end in wire.ends] == [visitor.process, server.process]
            for wire in world.network.open_wires()
        )
    ]
    if not there:
        return False
    server, visitor = world.dice.choice(there)
    world.kill(server, felt)
    world.lose(visitor)
    world.arrive()
    world.start_later(server)
    return True


def flap(world: World, felt: Felt) -> bool:
    """The links of somebody are reset again and again."""
    visitor = misfortune.somebody(world)
    if visitor is None:
        return False
    process = visitor.process

    def reset() -> None:
        for wire in world.network.open_wires():
            if wire.ends[0].process is process:
                wire.reset(felt)

    at = 0.0
    for _ in range(world.dice.randint(3, 12)):
        at += world.dice.choice([0.3, 1.0, 3.0])
        world.later(at, reset)
    return True


def hop(world: World, felt: Felt) -> bool:
    """Somebody comes from one server to the other and back, while now the one, now the other is late."""
    visitor, nodes, at = misfortune.somebody(world), _nodes(world), 0.0
    if visitor is None:
        return False
    process = visitor.process

    def go() -> None:
        for wire in world.network.open_wires():
            if wire.ends[0].process is process:
                wire.reset(felt)

    def be_late(seconds: float) -> None:
        server = world.dice.choice(world.servers)
        if server.process is None or server.process.is_stopped:
            return
        if world.dice.random() < 0.5:
            world.stand_still(server, seconds)
        else:
            way = nodes.way(server)
            way.fall_silent()
            nodes.doubt(seconds)
            world.later(seconds, lambda: setattr(way, "is_silent", False))

    for _ in range(world.dice.randint(5, 20)):
        at += world.dice.choice([0.1, 0.5, 1.5])
        if world.dice.random() < 0.5:
            world.later(at, go)
        else:
            seconds = world.dice.choice([0.5, 2.0, 3.5])
            world.later(at, lambda seconds=seconds: be_late(seconds))  # type: ignore[misc]
    return True


def roll_out(world: World, felt: Felt) -> bool:
    """All servers are told to end and started again, one after the other."""
    servers = [each for each in world.servers if each.process is not None and each.hub is not None]
    if len(servers) < len(world.servers) or world.rolls_out:
        return False
    world.rolls_out = True

    async def roll() -> None:
        for server in servers:
            if server.process is not None and server.hub is not None and not server.process.is_stopped:
                await _restart(server, felt)
        world.rolls_out = False

    world.spawn(roll())
    return True


async def _restart(server: ServerProcess, felt: Felt) -> None:
    await server.stop(felt)
    if server.process is None:
        server.start()


def _go_down(world: World, seconds: float, felt: Felt = unfelt) -> None:
    shore = _nodes(world).shore
    shore.go_down(felt)
    _nodes(world).doubt(seconds)
    for server in world.servers:
        _nodes(world).expect_serves_nobody(server)
    world.later(seconds, shore.come_up)


def _go_back(world: World, seconds: float, felt: Felt, *, is_promoted: bool) -> bool:
    nodes, log = _nodes(world), _nodes(world).shore.log
    if not log.query("SELECT 1 FROM sqlite_master WHERE name = 'entry'"):
        return False
    copy = log.copy()

    def go_back() -> None:
        world.verdict.read_logs(goes_back=True)
        log.go_back(copy, felt, is_promoted=is_promoted)
        down = world.dice.choice([0.3, 2.0, 10.0])
        _go_down(world, down)
        if not is_promoted:
            epoch, witnesses = log.epoch, [server.process for server in world.servers if server.hub is not None]
            world.later(down, lambda: operate(witnesses, epoch))

    def operate(witnesses: list[Process | None], epoch: str) -> None:
        """Do what one has to, unless a server has, or all that ran before do still, and can see for themselves."""
        running = [server.process for server in world.servers if server.process is not None]
        those = [process for process in running if process in witnesses and not process.is_stopped]
        is_seen = len(those) == len(world.servers) and not any(way.is_cut for way in nodes.ways)
        if log.epoch == epoch and not is_seen:
            world.verdict.read_logs()
            log.renew_epoch()
            world.report.reached["renewed by hand"] += 1  # a server that comes back sees for itself, and does it again

    world.later(seconds, go_back)
    return True


#: What happens to a single server, and cannot happen to these: they have no disk of their own.
_ONLY_ALONE = {"disk full", "sync fails", "restored"}

#: Every kind, by its name; what is twice as likely stands there twice.
OUTAGES: list[tuple[str, Fault]] = [
    *((name, fault) for name, fault in misfortune.FAULTS if name not in _ONLY_ALONE),
    ("server killed", misfortune.kill_server),
    ("server stopped", misfortune.stop_server),
    ("cut off in silence", cut_off_in_silence),
    ("cut off", cut_off),
    ("commit lost", lose_commit),
    ("hints lost", lose_hints),
    ("database restarted", restart_database),
    ("database crashed", crash_database),
    ("database frozen", freeze_database),
    ("failed over", fail_over),
    ("restored", restore),
    ("both lost", lose_both),
    ("links flap", flap),
    ("hops", hop),
    ("hops", hop),
    ("rolled out", roll_out),
]

#: Every road through the code that must have been taken here.
REACHED_BY_SEVERAL = (
    *REACHED, "taken over", "moved on", "cut off", "back again", "hint lost", "poll found it",
    "begun anew", "answer lost", "no ghosts",
)  # fmt: skip
