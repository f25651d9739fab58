"""
What must happen at once where nothing goes wrong?

Some scenes for the end of a run, when everybody is there and knows the same: what is promised in
calm water is promised to the second, and needs no allowance for misfortune.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from holdfast import Client, Road, User
from holdfast.core.attendance import TYPING_LAPSE
from holdfast.core.link import State
from holdfast.protocol.codes import CloseCode

if TYPE_CHECKING:
    from holdfast.testing.visitor import Visitor
    from holdfast.testing.world import World

#: For a word to come to everybody, in any weather. Seconds.
TOLD = 2.0
#: For a publication to come to everybody, also to those who have to ask for it every 3 s. Seconds.
READ = 8.0
#: A link that was reset is missed by nobody for as long as this. Seconds.
GRACE = 5.0 - 0.5
#: Who notices that a link is dead is back on another by then: a probe, a delay, and all that is said at first. Seconds.
BACK = 10.0
#: Who reads by event stream, and what is said in a room once they are put out of it.
EVE, SHUT = User("eve", "Eve"), "behind her back"
#: More than what may wait for a connection, and for its kernel: how many, and each how much longer.
MUCH = 80, "." * 4000


def present(visitors: list[Visitor], room: str) -> list[Visitor]:
    """Return those of them who are in a room, as the others may see: by HTTP, nobody is."""
    return [visitor for visitor in _linked(visitors, room) if visitor.rooms[room].replica.is_joined]


def coming(visitors: list[Visitor], room: str) -> list[Visitor]:
    """Return those who are on their way into it: a link by HTTP becomes another at any time."""
    return [visitor for visitor in _linked(visitors, room) if not visitor.rooms[room].replica.is_joined]


def _linked(visitors: list[Visitor], room: str) -> list[Visitor]:
    return [
        visitor
        for visitor in visitors
        if visitor.client is not None and room in visitor.rooms and _is_linked(visitor.client)
    ]


def users(visitors: list[Visitor]) -> set[str]:
    """Return who they are: the tabs of one person are one."""
    return {visitor.user_id for visitor in visitors if visitor.user_id is not None}


async def scenes(world: World) -> None:
    """Play them."""
    room = world.dice.choice(world.rooms)
    there = present(world.visitors, room)
    if len(users(there)) > 1:
        one = world.dice.choice(there)
        await _types(world, room, one, [other for other in there if other.user_id != one.user_id])
        await _breaks_off(world, room, one, [other for other in there if other.user_id != one.user_id])
        await _changes_networks(world, room, one, [other for other in there if other.user_id != one.user_id])
    await _publishes(world, room)
    await _asks_for_what_is_to_come(world, room)
    await _puts_out_of_a_room(world)
    if world.network.weather.rate is not None:
        _much_for_slow_links(world, room)


async def _publishes(world: World, room: str) -> None:
    """Something is published, and everybody hears of it, on whichever road they are."""
    roads: dict[Visitor, Any] = {
        visitor: visitor.client._road
        for visitor in world.visitors
        if visitor.client is not None
        and visitor.client.status.state is State.LIVE
        and room in visitor.rooms
        and visitor.rooms[room].replica.is_joined
        and visitor.rooms[room].replica.cursor is not None
    }
    world.publish(world.servers[0], room, 1)
    await asyncio.sleep(READ)
    head = world.verdict.head(room)
    for visitor, road in roads.items():
        cursor = visitor.rooms[room].replica.cursor
        if visitor.client is not None and visitor.client._road is road and cursor != head:
            world.verdict.wrong(f"{visitor.name} is at {cursor} in {room}, {READ:g} s after {head} was published")


async def _asks_for_what_is_to_come(world: World, room: str) -> None:
    """Somebody says that they stand where the log has never been."""
    epoch, offset = world.verdict.head(room).split(":")
    with suppress(OSError, TimeoutError):
        status, answer = await world.visitors[0].get(f"/poll?room={room}&cursor={epoch}:{int(offset) + 1}&wait=0")
        if status == 200 and answer.get("resync") != {"reason": "ahead"}:
            world.verdict.wrong(f"who stands one behind {epoch}:{offset} of {room} was told {answer}")
        world.report.reached["resync ahead"] += status == 200


async def _puts_out_of_a_room(world: World) -> None:
    """Somebody who reads all rooms in one event stream is put out of the last of them, and reads nothing more."""
    server, other, room = world.servers[0], world.servers[-1], world.rooms[-1]
    assert server.hub is not None
    assert other.hub is not None
    assert other.process is not None
    if world.network.bars_streams:
        return
    reader, writer = await asyncio.open_connection(*server.address)
    token = server.hub.token(EVE)
    head = f"GET /events?rooms={','.join(world.rooms)} HTTP/1.1\r\nHost: {server.address[0]}\r\n"
    writer.write(f"{head}Authorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
    try:
        async with asyncio.timeout(READ):
            await reader.readuntil(b'"connected"')
        await other.process.run(world.loop.create_task, other.hub.remove(EVE.user_id, room))
        await asyncio.sleep(TOLD)
        world.publish(other, room, 1, SHUT)
        async with asyncio.timeout(READ):
            heard = await reader.read()
    except TimeoutError:
        world.verdict.wrong(f"{EVE.name} was put out of {room}, and reads on")
    else:
        if SHUT.encode() in heard or b"event: goodbye" not in heard:
            world.verdict.wrong(f"{EVE.name} was put out of {room}, and was told {heard[-200:]!r}")
        world.report.reached["put out of a room"] += 1
    finally:
        writer.close()


async def puts_out(world: World, user_id: str) -> None:
    """Somebody is put out, with all their tabs, for good."""
    those = [visitor for visitor in world.visitors if visitor.user_id == user_id]
    linked = [visitor for visitor in those if visitor.client is not None and _is_linked(visitor.client)]
    for visitor in those:
        visitor.is_put_out = True
    server = world.servers[0]
    assert server.process is not None
    assert server.hub is not None
    await server.process.run(world.loop.create_task, server.hub.disconnect(user_id))
    await asyncio.sleep(BACK)
    for visitor in linked:
        client = visitor.client
        if client is not None and (client.status.code, client.status.state) != (CloseCode.FORBIDDEN, State.CLOSED):
            world.verdict.wrong(f"{visitor.name} was put out, and is {client.status.state} after {client.status.code}")
        world.report.reached["put out"] += 1


def _is_linked(client: Client) -> bool:
    return client.status.state is State.LIVE and client.status.road is Road.WEBSOCKET


async def _types(world: World, room: str, one: Visitor, others: list[Visitor]) -> None:
    """Somebody types, which all others see; and then says no more of it."""
    one.type(room)
    await asyncio.sleep(TOLD)
    seen = [one.user_id in other.rooms[room].replica.typing for other in present(others, room)]
    if not all(seen):
        world.verdict.wrong(f"{one.name} types in {room}, and {seen.count(False)} of {len(seen)} do not see it")
    world.report.reached["typing seen"] += len(seen)
    await asyncio.sleep(TYPING_LAPSE)
    if any(one.user_id in other.rooms[room].replica.typing for other in present(others, room)):
        world.verdict.wrong(f"{one.name} has stopped typing in {room}, and is shown to do it")


async def _breaks_off(world: World, room: str, one: Visitor, others: list[Visitor]) -> None:
    """The link of somebody is reset, which nobody else may hear of."""
    road: Any = None if one.client is None else one.client._road
    if one not in present([one], room) or road._connection is None:
        return
    told = {other: len(other.heard) for other in others}
    road._connection.transport.wire.reset()
    await asyncio.sleep(GRACE)
    _must_not_be_missed(world, room, one, told, "the link was reset")


async def _changes_networks(world: World, room: str, one: Visitor, others: list[Visitor]) -> None:
    """The link of somebody falls silent, who knows it at once, and is back before the server does."""
    client = one.client
    road: Any = None if client is None else client._road
    if client is None or one not in present([one], room) or road._connection is None:
        return
    told = {other: len(other.heard) for other in others}
    road._connection.transport.wire.fall_silent()
    one.process.run(client.retry_now)
    await asyncio.sleep(BACK)
    _must_not_be_missed(world, room, one, told, "another link was taken")


def _must_not_be_missed(world: World, room: str, one: Visitor, told: dict[Visitor, int], why: str) -> None:
    for other, count in told.items():
        for where, type, user_id in other.heard[count:]:
            if (where, user_id) == (room, one.user_id):
                world.verdict.wrong(f"{one.name}: {why}, and {other.name} was told {type}")
    if not world.verdict.shows(room, one.user_id):
        world.verdict.wrong(f"{one.name}: {why}, and they are shown in {room} no more")


def _much_for_slow_links(world: World, room: str) -> None:
    """Much is published at once, behind which a ping waits for longer than its timeout; nobody may be cut for that."""
    world.publish(world.servers[0], room, *MUCH)
    world.report.reached["slow link"] += len(present(world.visitors, room))
