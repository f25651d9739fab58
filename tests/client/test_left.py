"""Who leaves a room, or closes the client, and comes again: each time is one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import Closed, Conflict, Forbidden, Hub, Malformed, Request, State, Unavailable, User
from holdfast.client.client import Client
from holdfast.testing import History, Sea, SeaClient, SeaRoom

Story = Callable[[SeaClient, Sea], Awaitable[None]]


def tell(hub: Hub, story: Story) -> None:
    """Let a client do that, in virtual time."""

    async def told() -> None:
        server = sea.serve(Starlette(routes=[Mount("/live", hub.app)], lifespan=hub.lifespan))
        async with sea.connect(server, jitter=False) as ann:
            await story(ann, sea)

    with Sea() as sea:
        sea.run(told())


async def is_in(hub: Hub, room: SeaRoom, sea: Sea) -> bool:
    """Whether it is told what is published, and the server has one who is in it."""
    told: History = await sea.history(room)
    await hub.publish(room.name, "said", {})
    await sea.sleep(1)
    return told.data == [{}] and told.ended is None and len(hub.members(room.name)) == 1


@pytest.mark.parametrize("between", [[], *([at / 1000] for at in range(0, 60, 3))])  # it comes meanwhile, for one
def test_who_was_put_out_and_leaves_and_comes_again_at_once_is_in(between: list[float]) -> None:
    hub = Hub("memory:")

    async def story(ann: SeaClient, sea: Sea) -> None:
        async with ann.join("lobby") as first:
            await anext(first)
            assert ann.user is not None
            await hub.remove(ann.user.user_id, "lobby")  # what that says is on its way when it leaves
        for seconds in between:
            async with ann.join("lobby"):
                await sea.sleep(seconds)
        async with ann.join("lobby") as last:
            assert await is_in(hub, last, sea)

    tell(hub, story)


def test_who_was_put_out_while_it_asked_for_something_and_comes_again_is_in() -> None:
    hub = Hub("memory:")

    async def story(ann: SeaClient, sea: Sea) -> None:
        async with ann.join("lobby") as first:
            await anext(first)
            assert ann.user is not None
            first.replica.pause()  # as a slow reader does
            ann._rooms.read_on(first)
            await hub.remove(ann.user.user_id, "lobby")
            with pytest.raises(Forbidden):
                await anext(first)
        async with ann.join("lobby") as second:
            assert await is_in(hub, second, sea)

    tell(hub, story)


def test_who_left_and_comes_again_on_a_link_that_breaks_is_in() -> None:
    hub = Hub("memory:")

    async def story(ann: SeaClient, sea: Sea) -> None:
        async with ann.join("lobby") as first:
            await anext(first)
        async with ann.join("lobby") as second:
            sea.cut(ann)
            await sea.sleep(10)
            assert await is_in(hub, second, sea)

    tell(hub, story)


def test_what_is_said_in_a_room_at_once_is_said_there() -> None:
    hub = Hub("memory:")
    heard: list[str | None] = []

    @hub.on("wave")
    async def wave(request: Request) -> None:
        heard.append(request.room)

    async def story(ann: SeaClient, sea: Sea) -> None:
        async with ann.join("lobby") as first:
            await anext(first)
        async with ann.join("lobby") as second:
            await second.send("wave")
            await sea.sleep(1)
        assert heard == ["lobby"]

    tell(hub, story)


def test_who_was_not_let_in_the_first_time_and_is_the_second_time_is_in() -> None:
    hub = Hub("memory:")
    asked: list[str] = []

    @hub.authorize
    async def may(user: User, room: str, action: str) -> bool:
        asked.append(action)
        if len(asked) == 1:
            raise Conflict("the game has not begun yet")
        return True

    async def story(ann: SeaClient, sea: Sea) -> None:
        async with ann.join("lobby"):
            pass
        async with ann.join("lobby") as second:
            assert await is_in(hub, second, sea)

    tell(hub, story)


@pytest.mark.parametrize("away", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("stays", [0.05, 0.25, 0.5, 0.95])
@pytest.mark.parametrize("refused", [1, 2])
def test_a_room_that_was_refused_for_a_moment_and_left_is_asked_for_anew(
    refused: int, stays: float, away: float
) -> None:
    hub = Hub("memory:")
    asked: list[str] = []

    @hub.authorize
    async def may(user: User, room: str, action: str) -> bool:
        asked.append(action)
        if len(asked) <= refused:
            raise Unavailable("not now")
        return True

    async def story(ann: SeaClient, sea: Sea) -> None:
        room = ann.join("lobby")
        async with room:
            await sea.sleep(stays)
        await sea.sleep(away)
        async with room:
            assert await is_in(hub, room, sea)
            await sea.sleep(30)
            assert ann.status.state is State.LIVE
            assert len(asked) <= refused + 2

    tell(hub, story)


@pytest.mark.parametrize("stays", [at / 1000 for at in range(236, 272, 4)])
def test_a_room_is_asked_for_by_one_at_a_time(stays: float) -> None:
    """Who was about to ask for it again, when it was left, does not."""
    test_a_room_that_was_refused_for_a_moment_and_left_is_asked_for_anew(1, stays, 0.0)


def test_a_client_that_was_turned_away_may_be_entered_again() -> None:
    hub = Hub("memory:")

    async def story(ann: SeaClient, sea: Sea) -> None:
        assert ann.user is not None
        await hub.disconnect(ann.user.user_id)
        await sea.sleep(3)
        assert ann.status.state is State.CLOSED
        tasks = len(asyncio.all_tasks())
        for _ in range(2_000):
            ann.retry_now()
        assert len(asyncio.all_tasks()) == tasks
        await ann.close()
        await Client.__aenter__(ann)
        await ann.ready()
        async with ann.join("lobby") as room:
            assert await is_in(hub, room, sea)
        with pytest.raises(RuntimeError, match="entered already"):
            await Client.__aenter__(ann)

    tell(hub, story)


def test_each_room_of_a_client_that_ends_is_told_by_an_error_of_its_own() -> None:
    async def story(ann: SeaClient, sea: Sea) -> None:
        rooms = [ann.join("one"), ann.join("two")]
        for room in rooms:
            await room.__aenter__()
            await anext(room)
        await ann.close()
        told = await asyncio.gather(*map(anext, rooms), ann.join("three").__aenter__(), return_exceptions=True)
        assert [type(error) for error in told] == [Closed] * 3
        assert len({id(error) for error in told}) == 3

    tell(Hub("memory:"), story)


def test_in_the_sea_too_a_room_that_no_server_could_have_is_refused_at_once() -> None:
    async def story(ann: SeaClient, sea: Sea) -> None:
        with pytest.raises(Malformed, match="room must be a name"):
            ann.join("\ud800")

    tell(Hub("memory:"), story)
