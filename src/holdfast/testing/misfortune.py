"""
What goes wrong in the sea?

Each kind of fault is a function of the world: it happens now, and perhaps ends later. It says
whether it could happen at all; and it counts once it is felt (`holdfast.testing.mishap`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.testing.mishap import Felt
from holdfast.testing.server_process import ServerProcess

if TYPE_CHECKING:
    from holdfast.testing.visitor import Visitor
    from holdfast.testing.world import World

Fault = Callable[["World", Felt], bool]

#: More publications than wait in a client for its application.
FLOOD = 1200


def reset_wire(world: World, felt: Felt) -> bool:
    """A link is reset: by a router that has forgotten it, by a phone that changes towers."""
    wires = world.network.open_wires()
    if not wires:
        return False
    world.dice.choice(wires).reset(felt)
    return True


def silence_wire(world: World, felt: Felt) -> bool:
    """A link falls silent, half-open, and perhaps comes back."""
    wires = world.network.open_wires()
    if not wires:
        return False
    wire = world.dice.choice(wires)
    wire.fall_silent(felt)
    if world.dice.random() < 0.5:
        world.later(world.dice.uniform(1, 60), wire.heal)
    return True


def silence_one_way(world: World, felt: Felt) -> bool:
    """What one end sends is lost, and what the other sends is not."""
    wires = world.network.open_wires()
    if not wires:
        return False
    wire = world.dice.choice(wires)
    world.dice.choice(wire.ends).fall_silent(vanished_here=felt)
    world.later(world.dice.uniform(1, 60), wire.heal)
    return True


def kill_server(world: World, felt: Felt) -> bool:
    """A server is killed (SIGKILL), and started again."""
    server = _running(world)
    if server is None:
        return False
    world.kill(server, felt)
    world.start_later(server)
    return True


def lose_power(world: World, felt: Felt) -> bool:
    """A machine is gone at once, with what its disk had not got."""
    server = _running(world)
    if server is None:
        return False
    world.lose_power(server, felt)
    world.start_later(server)
    return True


def stop_server(world: World, felt: Felt) -> bool:
    """A server stands still (SIGSTOP), and goes on."""
    server = _running(world)
    if server is None:
        return False
    seconds = world.dice.choice([0.5, 3.0, 15.0, 50.0])
    world.stand_still(server, seconds, felt)
    return True


def restart_server(world: World, felt: Felt) -> bool:
    """A server is told to end (SIGTERM), and started again."""
    server = _running(world)
    if server is None or server.hub is None:
        return False
    world.note("restart", server.address)

    async def restart() -> None:
        await server.stop(felt)
        world.start_later(server, 3.0)

    world.spawn(restart())
    return True


def stop_client(world: World, felt: Felt) -> bool:
    """A lid is closed, and opened again."""
    visitor = somebody(world)
    if visitor is None:
        return False
    visitor.process.stop(felt)
    world.later(world.dice.choice([1.0, 8.0, 45.0, 80.0]), visitor.process.go_on)
    return True


def kill_client(world: World, felt: Felt) -> bool:
    """Somebody is gone without a word, and somebody else comes."""
    visitor = somebody(world)
    if visitor is None:
        return False
    if world.dice.random() < 0.5:
        for wire in world.network.open_wires():
            if wire.ends[0].process is visitor.process:
                wire.fall_silent()
    world.lose(visitor, felt)
    world.arrive()
    return True


def tire(world: World, felt: Felt) -> bool:
    """An application reads nothing for a while, while much is published."""
    visitor = somebody(world)
    if visitor is None:
        return False
    visitor.tired_until, visitor.left_unread = world.loop.time() + world.dice.uniform(5, 30), felt
    server, count = _running(world), world.dice.choice([20, 80, FLOOD])
    if server is not None and server.hub is not None:
        world.publish(server, world.dice.choice(list(visitor.copies)), count)
    return True


def burst(world: World, felt: Felt) -> bool:
    """Much is published at once."""
    server = _running(world)
    if server is None or server.hub is None or server.process is None:
        return False
    room = world.dice.choice(world.rooms)
    count = world.dice.choice([20, 20, 20, 80, 80, 350, FLOOD])
    rest = "." * 4000 if count == 80 else ""
    world.publish(server, room, count, rest, felt)
    return True


def cut_network(world: World, felt: Felt) -> bool:
    """Nobody reaches the servers for a while, or is reached."""
    wires = world.network.open_wires()
    hosts = {server.address[0] for server in world.servers}
    for wire in wires:
        wire.fall_silent(felt)
    world.network.unreachable |= dict.fromkeys(hosts, felt)

    def heal() -> None:
        for host in hosts:
            world.network.unreachable.pop(host, None)
        for wire in wires:
            wire.heal()

    world.later(world.dice.uniform(1, 60), heal)
    return True


def fill_disk(world: World, felt: Felt) -> bool:
    """The disk is full for a while."""
    world.disk.fill(felt)
    world.later(world.dice.uniform(1, 10), lambda: setattr(world.disk, "is_full", False))
    return True


def fail_to_sync(world: World, felt: Felt) -> bool:
    """The disk does not say any more that it has what was written."""
    world.disk.fail_syncs(felt)
    world.later(world.dice.uniform(0.5, 5), lambda: setattr(world.disk, "fails_to_sync", False))
    return True


def restore(world: World, felt: Felt) -> bool:
    """A backup is made; or put in the place of what clients have seen more of."""
    if world.backup is None:
        world.back_up()
        return False
    return world.restore(felt)


def bar_websockets(world: World, felt: Felt) -> bool:
    """There is a proxy that lets no WebSocket through, and perhaps no event stream, for a while."""
    world.network.bars_websockets, world.network.barred = True, felt
    world.network.bars_streams = world.dice.random() < 0.3
    for wire in world.network.open_wires():
        wire.reset()
    world.later(world.dice.uniform(30, 100), world.lift_bars)
    return True


def set_clock(world: World, felt: Felt) -> bool:
    """A clock on the wall is set, forward or back: of a server, until its process ends, or of somebody else."""
    whose = _running(world) or somebody(world)
    if whose is None or whose.process is None:
        return False
    whose.process.set_clock(world.dice.choice([-3600.0, -10.0, 10.0, 3600.0]), felt)
    return True


def somebody(world: World) -> Visitor | None:
    """Return one of those who are there, if anybody is."""
    return world.dice.choice(world.visitors) if world.visitors else None


def _running(world: World) -> ServerProcess | None:
    servers = [each for each in world.servers if each.process is not None and not each.process.is_stopped]
    return world.dice.choice(servers) if servers else None


#: Every kind, by its name; what is twice as likely stands there twice.
FAULTS: list[tuple[str, Fault]] = [
    ("link reset", reset_wire),
    ("link reset", reset_wire),
    ("link silent", silence_wire),
    ("link silent", silence_wire),
    ("link silent one way", silence_one_way),
    ("server killed", kill_server),
    ("power lost", lose_power),
    ("server stopped", stop_server),
    ("server restarted", restart_server),
    ("client stopped", stop_client),
    ("client killed", kill_client),
    ("slow reader", tire),
    ("burst", burst),
    ("network down", cut_network),
    ("disk full", fill_disk),
    ("sync fails", fail_to_sync),
    ("restored", restore),
    ("no websocket", bar_websockets),
    ("clock set", set_clock),
]
