"""What happens in the sea is what would happen, only sooner; and what an application does wrong there is seen."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Self, cast

import anyio.from_thread
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import holdfast
from holdfast import ConcurrencyError, Event, Forbidden, Hub, Item, Resync, Room, User
from holdfast.server.hub import open_hubs
from holdfast.testing import History, Sea, SeaClient, SeaRoom, Violation, threads
from holdfast.testing import sea as sea_module
from holdfast.testing.sea import LIMIT
from holdfast.testing.virtual import Endless, Stuck


@pytest.fixture
def sea() -> Iterator[Sea]:
    with Sea() as sea:
        yield sea
    assert not open_hubs
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(5)
    assert threading.active_count() == 1


def an_app(store: str = "chat.db", **options: Any) -> Starlette:
    """Return an app with a hub; it remembers how often it was asked."""
    hub = Hub(store, **options)
    asked = 0

    async def say(request: Request) -> Response:
        text = request.query_params["text"]
        return JSONResponse((await hub.publish("lobby", "said", {"text": text})).id)

    def say_in_thread(request: Request) -> Response:
        return JSONResponse(hub.publish_from_thread("lobby", "said", {"text": request.query_params["text"]}).id)

    async def count(request: Request) -> Response:
        nonlocal asked
        asked += 1
        return JSONResponse(asked)

    async def sign_in(request: Request) -> Response:
        return JSONResponse(hub.token(User("ann", "Ann"), float(request.query_params["lifetime"])))

    routes = [
        Route("/say", say, methods=["POST"]),
        Route("/say-in-thread", say_in_thread, methods=["POST"]),
        Route("/count", count),
        Route("/sign-in", sign_in),
    ]
    app = Starlette(routes=routes, lifespan=hub.lifespan)
    app.mount("/live", hub.app)
    app.state.hub = hub
    return app


def texts(history: History) -> list[str]:
    return [data["text"] for data in history.data]


def test_who_is_half_open_is_missed_after_forty_seconds_and_misses_nothing(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        ann, bob = sea.connect(server), sea.connect(server)
        async with ann, bob, ann.join("lobby") as hers, bob.join("lobby") as his:
            she_was, he_was = await sea.history(hers), await sea.history(his)
            await sea.sleep(5)
            assert len(his.users) == 2
            began = sea.time
            sea.half_open(ann)
            await server.post("/say?text=one")
            while len(his.users) == 2:
                await sea.sleep(0.1)
            assert 10 <= sea.time - began <= 40.6
            assert (texts(she_was), texts(he_was)) == ([], ["one"])
            await sea.sleep(60)
            assert len(his.users) == 2
            assert texts(she_was) == ["one"]
            assert she_was.resumed == 1

    sea.run(test())


@pytest.mark.parametrize(("store", "reason"), [("chat.db", None), ("memory:", "epoch")])
def test_who_is_killed_has_what_is_on_the_disk(sea: Sea, store: str, reason: str | None) -> None:
    async def test() -> None:
        server = sea.serve(an_app(store))
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            await server.post("/say?text=one")
            await sea.sleep(1)
            sea.kill_server(server)
            assert not server.is_up
            with pytest.raises(httpx2.ConnectError):
                await server.post("/say?text=nothing")
            await sea.sleep(1)
            assert not ann.is_live
            server.start()
            await server.post("/say?text=two")
            await sea.sleep(60)
            assert texts(told)[0] == "one"
            assert [why for why, *_ in told.breaks] == ["new", *([reason] if reason else [])]
            if reason is None:
                assert texts(told) == ["one", "two"]

    sea.run(test())


def test_who_waits_for_a_server_that_is_killed_while_it_starts_waits_for_the_next_one_or_is_refused(sea: Sea) -> None:
    @asynccontextmanager
    async def slow(app: Starlette) -> AsyncIterator[None]:
        async with app.state.hub:
            await asyncio.sleep(2)
            yield

    async def wait(client: SeaClient) -> None:
        async with client:
            assert client.is_live

    async def test() -> None:
        app = an_app()
        app.router.lifespan_context = slow
        server = sea.serve(app)
        asks = asyncio.create_task(server.get("/count"))
        connects = asyncio.create_task(wait(sea.connect(server)))
        await sea.sleep(1)
        sea.kill_server(server)
        server.start()
        with pytest.raises(httpx2.ConnectError):
            await asks
        await connects

    sea.run(test())


def test_an_app_outlives_its_process_and_one_that_is_made_for_each_does_not(sea: Sea) -> None:
    async def test() -> None:
        same, new = sea.serve(an_app("a.db")), sea.serve(lambda: an_app("b.db"))
        for _ in range(2):
            counts = [(await server.get("/count")).json() for server in (same, new)]
            for server in (same, new):
                sea.kill_server(server)
                server.start()
        assert counts == [2, 1]
        assert (same.url, new.url) == ("http://localhost:8000", "http://localhost:8001")

    sea.run(test())


def test_who_is_stopped_tells_its_own_people_and_nobody_else(sea: Sea) -> None:
    async def test() -> None:
        one, other = sea.serve(an_app("a.db")), sea.serve(an_app("b.db"))
        async with sea.connect(one) as ann, sea.connect(other) as bob, ann.join("lobby") as room:
            told = await sea.history(room)
            await one.stop()
            assert bob.is_live
            assert not ann.is_live
            with pytest.raises(RuntimeError, match="nothing to kill"):
                sea.kill_server(one)
            one.start()
            await one.post("/say?text=one")
            await sea.sleep(60)
            assert texts(told) == ["one"]

    sea.run(test())


def test_a_slow_reader_is_told_later(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            sea.slow_reader(ann, 100)
            sea.slow_reader(ann, 1)  # which does not make it faster
            for number in range(2000):  # more than waits in a client
                await cast(Hub, server.hubs()[0]).publish("lobby", "said", {"text": str(number)})
            await sea.sleep(90)
            assert told.data == []
            await sea.sleep(20)
            assert texts(told) == [str(number) for number in range(2000)]

    sea.run(test())


def test_a_history_says_why_it_is_told_nothing_more(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            await server.post("/say?text=one")
            await sea.sleep(1)
            assert told.ended is None
            await cast(Hub, server.hubs()[0]).remove(cast(User, ann.user).user_id, "lobby")
            await server.post("/say?text=two")
            await sea.sleep(1)
            assert texts(told) == ["one"]
            assert isinstance(told.ended, Forbidden)

    sea.run(test())


def test_a_task_that_takes_no_notice_of_its_end_is_named() -> None:
    async def stubborn() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def test() -> None:
        sea.loop.create_task(stubborn())
        await sea.sleep(1)

    sea = Sea()
    with pytest.raises(RuntimeError, match=r"half an hour later: .*stubborn"), sea:
        sea.run(test())


def test_whoever_gives_up_reading_while_slow_has_missed_nothing(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = History("lobby")
            told.told(await anext(room))
            began = sea.time
            sea.slow_reader(ann, 10)
            for text in ("one", "two"):
                await server.post(f"/say?text={text}")
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(room), 2)
            while len(told.data) < 2:
                told.told(await anext(room))
                assert sea.time >= began + 10
            assert texts(told) == ["one", "two"]

    sea.run(test())


def test_a_room_that_is_read_slowly_is_read_by_one_task_at_a_time(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            sea.slow_reader(ann, 10)
            await server.post("/say?text=one")
            await sea.sleep(5)
            with pytest.raises(ConcurrencyError, match="lobby is being read"):
                await anext(room)
            await sea.sleep(10)
            assert texts(told) == ["one"]

    sea.run(test())


def test_a_link_that_is_cut_is_dialled_again(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server) as ann:
            sea.cut(ann)
            await sea.sleep(1)
            sea.half_open(ann)
            with pytest.raises(RuntimeError, match="no link"):
                sea.half_open(ann)
            await sea.sleep(60)
            assert ann.is_live

    sea.run(test())


@pytest.mark.parametrize("waits", [False, True])
def test_a_history_goes_on_from_what_was_read_before(sea: Sea, waits: bool) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            assert isinstance(await anext(room), Resync)
            await server.post("/say?text=one")
            while not (isinstance(item := await anext(room), Event) and item.id):
                pass
            if waits:
                await server.post("/say?text=two")
                await sea.sleep(1)
            told = await sea.history(room)
            await server.post("/say?text=three")
            await sea.sleep(1)
            assert texts(told) == ["two", "three"] if waits else ["three"]
            assert told.breaks == []

    sea.run(test())


def test_a_history_of_a_room_that_somebody_else_reads_is_refused(sea: Sea) -> None:
    async def read(room: Room) -> None:
        async for _ in room:
            pass

    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server) as ann, ann.join("lobby") as room, ann.join("attic") as attic:
            await sea.history(room)
            with pytest.raises(ConcurrencyError, match="lobby is being read"):
                await sea.history(room)
            reads = asyncio.create_task(read(attic))
            await sea.sleep(1)
            with pytest.raises(ConcurrencyError, match="attic is being read"):
                await sea.history(attic)
            reads.cancel()

    sea.run(test())


class Lies:
    """A room that tells what it should not."""

    name, recover, told = "lobby", "resume", None

    def __init__(self, *items: Item) -> None:
        self._items = list(items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        await asyncio.sleep(1)
        if not self._items:
            await asyncio.sleep(1e9)
        return self._items.pop(0)


@pytest.mark.parametrize(("recover", "reasons"), [("resume", ["new"]), ("snapshot", ["new", "chosen"])])
def test_a_history_knows_what_its_client_has_chosen(sea: Sea, recover: str, reasons: list[str]) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server, recover=recover) as ann, ann.join("lobby") as room:
            told = await sea.history(room)
            sea.cut(ann)
            await sea.sleep(60)
            await server.post("/say?text=one")
            await sea.sleep(1)
            assert [why for why, *_ in told.breaks] == reasons
            assert texts(told) == ["one"]

    sea.run(test())


def test_a_history_with_a_gap_fails_the_test(sea: Sea) -> None:
    async def test(error: Exception | None = None) -> None:
        lies = Lies(Resync("new", "e:0"), Event("lobby", "said", {}, "e:2"))
        await sea.history(cast(SeaRoom, lies))
        await sea.sleep(10)
        if error is not None:
            raise error

    with pytest.raises(Violation, match="missing"):
        sea.run(test())
    with pytest.raises(KeyError) as caught:
        sea.run(test(KeyError("something else")))
    assert "missing" in caught.value.__notes__[0]


def test_who_waits_for_what_never_comes_is_told_where(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        async with sea.connect(server) as ann, ann.join("lobby") as room:
            await sea.sleep(2 * LIMIT)
            async for item in room:
                assert isinstance(item, Resync)

    with pytest.raises(TimeoutError, match="1 h of virtual time"):
        sea.run(test())
    assert sea.time == pytest.approx(3 * LIMIT, abs=10)


def test_an_app_that_cannot_start_says_why(sea: Sea) -> None:
    app = Starlette(lifespan=broken)

    async def test() -> None:
        server = sea.serve(app)
        with pytest.raises(ZeroDivisionError):
            await server.get("/")
        with pytest.raises(ZeroDivisionError):
            async with sea.connect(server):
                pass

    sea.run(test())


@asynccontextmanager
async def broken(app: Starlette) -> AsyncIterator[None]:
    if app:
        raise ZeroDivisionError
    yield


def test_an_app_that_could_not_start_is_told_in_the_end() -> None:
    sea = Sea()
    sea.__enter__()
    sea.serve(Starlette(lifespan=broken))
    sea.run(sea.sleep(1))
    with pytest.raises(ZeroDivisionError):
        sea.__exit__(None, None, None)


def test_a_wrong_path_is_told_with_its_reason(sea: Sea) -> None:
    async def test() -> None:
        async with sea.connect(sea.serve(an_app()), "/love/ws"):
            pass

    with pytest.raises(TimeoutError, match="/love/ws within 60 s"):
        sea.run(test())


def test_the_same_seed_is_the_same_run() -> None:
    def run(seed: int) -> tuple[list[Any], float]:
        seen: list[Any] = []

        async def test() -> None:
            server = sea.serve(an_app())
            async with sea.connect(server) as ann, ann.join("lobby") as room:
                told = await sea.history(room)
                for number in range(5):
                    await server.post(f"/say-in-thread?text={number}")
                    seen.append(sea.time)
                sea.cut(ann)
                await server.post("/say?text=more")
                await sea.sleep(60)
                seen.extend([texts(told), str(told.position), ann.user])

        with Sea(seed) as sea:
            sea.run(test())
            return seen, sea.time

    assert run(1) == run(1) != run(2)


def test_a_store_on_postgresql_is_kept_in_a_file_of_the_sea(sea: Sea) -> None:
    async def test() -> None:
        scripts = {"sqlite": ["CREATE TABLE note (text TEXT)"], "postgresql": ["CREATE TABLE note (text TEXT) -- its"]}
        server = sea.serve(an_app("postgresql://nowhere/chat", migrations=scripts))
        assert (await server.post("/say?text=one")).json().endswith(":1")

    sea.run(test())


def test_a_token_lasts_as_long_as_it_says(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        token = (await server.get("/sign-in?lifetime=3600")).json()
        async with sea.connect(server, token=token) as ann:
            assert ann.user is not None
            assert ann.user.name == "Ann"
            await sea.sleep(3500)
            assert ann.is_live
            await sea.sleep(200)
            assert ann.status.code == 4001
        with pytest.raises(holdfast.Closed):
            async with sea.connect(server, token=token):
                pass

    sea.run(test())


def test_no_time_passes_while_threads_work(sea: Sea) -> None:
    async def ask_back() -> float:
        await asyncio.sleep(100)
        return sea.time

    def slow() -> float:
        time.sleep(0.1)
        return sea.time

    def asks_back() -> float:
        return anyio.from_thread.run(ask_back)

    async def test() -> None:
        for run in (anyio.to_thread.run_sync, asyncio.to_thread):
            before = sea.time
            for _ in range(3):
                assert await cast(Callable[..., Any], run)(slow) == before
        before = sea.time
        assert await anyio.to_thread.run_sync(asks_back) == before + 100
        with pytest.raises(KeyError):
            await asyncio.to_thread({}.pop, "nothing")

    sea.run(test())


def test_who_goes_on_for_ever_without_waiting_is_told_where(sea: Sea, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sea_module, "ENDLESS", 0.05)

    async def spins() -> None:
        while True:
            await asyncio.sleep(0)

    async def test() -> None:
        await asyncio.create_task(spins())

    with pytest.raises(Endless, match="no time has passed") as caught:
        sea.run(test())
    assert "spins" in [entry.name for entry in caught.traceback]


def test_an_endpoint_that_goes_on_for_ever_fails_the_test_whoever_answers_for_it(
    sea: Sea, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sea_module, "ENDLESS", 0.3)

    async def spins(request: Request) -> Response:
        while True:
            await asyncio.sleep(0)

    async def test() -> None:
        server = sea.serve(Starlette(routes=[Route("/spins", spins)]))
        assert (await server.get("/spins")).status_code == 500

    with pytest.raises(Endless, match="no time has passed"):
        sea.run(test())


def test_threads_that_compute_go_on_for_as_long_as_they_need(sea: Sea, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sea_module, "ENDLESS", 0.05)

    def computes() -> None:
        began = time.process_time()
        while time.process_time() < began + 0.3:
            pass

    sea.run(asyncio.to_thread(computes))


@pytest.mark.parametrize("run", [asyncio.to_thread, lambda work: anyio.to_thread.run_sync(work)])
def test_a_thread_that_does_not_come_to_an_end_is_named(
    sea: Sea, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PATIENCE", 0.05)
    ended = threading.Event()

    def never_ends() -> None:
        ended.wait()

    async def test() -> None:
        await run(never_ends)

    try:
        with pytest.raises(Stuck, match=r"never_ends.*'(holdfast-sea|AnyIO).* after 0.05 s") as caught:
            sea.run(test())
        assert "ended.wait()" in caught.value.__notes__[0]
        assert sea.time == 0
    finally:
        ended.set()


def test_what_is_cancelled_before_a_thread_was_free_for_it_is_not_waited_for(sea: Sea) -> None:
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        ended.wait()

    async def test() -> None:
        with ThreadPoolExecutor(1) as executor:
            run = partial(asyncio.get_running_loop().run_in_executor, executor)
            one, other = run(hold), run(hold)
            begun.wait()
            other.cancel()
            ended.set()
            await one
            await sea.sleep(1)

    sea.run(test())


class Quick(ThreadPoolExecutor):
    """Threads that are done before anybody can wait for them."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(*args, **kwargs)
        future.exception()
        return future


def test_a_thread_that_is_done_before_anybody_waits_for_it_is_not_waited_for(
    sea: Sea, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PATIENCE", 0.5)
    called: list[int] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        with Quick(1) as executor:
            assert await loop.run_in_executor(executor, lambda: 5) == 5
            with pytest.raises(KeyError):
                await loop.run_in_executor(executor, {}.pop, "nothing")
            await loop.run_in_executor(executor, loop.call_soon_threadsafe, called.append, 1)
            assert called == [1]
            for quick in range(40):
                assert await asyncio.to_thread(lambda: quick) == quick  # noqa: B023
        await sea.sleep(60)

    sea.run(test())
    assert sea.time == 60
    assert not sea.loop._asking


def test_what_no_thread_takes_is_not_waited_for(sea: Sea, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "PATIENCE", 0.5)

    async def test() -> None:
        executor = ThreadPoolExecutor(1)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            await asyncio.get_running_loop().run_in_executor(executor, int)
        await sea.sleep(1)

    sea.run(test())


def test_an_endpoint_that_is_a_plain_function_publishes(sea: Sea) -> None:
    async def test() -> None:
        server = sea.serve(an_app())
        for number in range(3):
            assert (await server.post(f"/say-in-thread?text={number}")).json().endswith(f":{number + 1}")

    sea.run(test())
