"""An application of somebody else is tried in virtual time: what it does wrong is seen, with whichever plugins."""

from __future__ import annotations

import re
from pathlib import Path

import fastapi  # noqa: F401 - what is first loaded in a run is another thing after it, also for the tests of others
import httpcore2  # noqa: F401
import pytest
import starlette.testclient  # noqa: F401
import truststore  # noqa: F401
import uvicorn.lifespan.on  # noqa: F401

import holdfast.store.schema
import holdfast.testing  # noqa: F401

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
README = (Path(__file__).parents[2] / "README.md").read_text()
CONFTEST = 'pytest_plugins = ["holdfast.testing.fixtures"]\n'
#: Which plugin runs async tests: none, or pytest-asyncio as it is, or in all tests.
PLUGINS = {
    "none": ["-p", "no:asyncio"],
    "strict": ["-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function"],
    "auto": ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"],
}


def example(page: str, name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", page, re.S)
    assert found, name
    return found[1]


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the README's app, in a folder of its own."""
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(chat=example(README, "server"))
    return pytester


def run(project: pytest.Pytester, test: str, plugins: str = "none", **others: str) -> pytest.RunResult:
    project.makepyfile(test_chat=test, **others)
    return project.runpytest_inprocess(
        "-p", "no:hypothesispytest", *PLUGINS[plugins]
    )  # which would be loaded each time


@pytest.mark.parametrize("plugins", PLUGINS)
def test_the_example_of_the_page_runs_with_whichever_plugin(project: pytest.Pytester, plugins: str) -> None:
    run(project, example(PAGE, "test"), plugins).assert_outcomes(passed=1)
    assert not list(project.path.glob("chat.db*")), "the application's own files are left alone"


def test_the_example_has_fifteen_lines() -> None:
    assert len(example(PAGE, "test").splitlines()) <= 15
    assert example(PAGE, "conftest") == CONFTEST


def test_an_app_that_loses_an_event_fails(project: pytest.Pytester) -> None:
    loses = example(README, "server").replace("return await hub.publish(", "await hub.broadcast(")
    result = run(project, example(PAGE, "test"), chat=loses)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: assert*"])


ALL_KINDS = """
import asyncio, time
import pytest
from chat import app

@pytest.fixture
def server(sea):
    return sea.serve(app)

@pytest.fixture
async def alice(sea, server):
    async with sea.connect(server) as client:
        yield client

@pytest.fixture
async def url(sea, server):
    return (await server.get("/openapi.json")).url

class TestInClass:
    @pytest.fixture
    async def me(self, sea):
        await sea.sleep(1)
        return self

    async def test_method(self, me, server):
        assert self is me

async def test_without_naming_it(server):
    assert (await server.get("/live/poll?room=lobby&wait=25")).json()["timeout"]

async def test_async_fixtures(sea, alice, url, tmp_path):
    assert alice.is_live
    assert str(url) == "http://localhost:8000/openapi.json"

def test_plain(sea, server):
    async def ask():
        return (await server.get("/openapi.json")).status_code
    assert sea.run(ask()) == 200
    began = sea.time, time.perf_counter()
    sea.run(sea.sleep(3600 * 24))
    assert sea.time == began[0] + 3600 * 24
    assert time.perf_counter() < began[1] + 60
    assert sea.run(ask()) == 200

async def test_clocks(sea):
    clocks = time.time, time.monotonic, lambda: time.time_ns() / 1e9, lambda: time.monotonic_ns() / 1e9
    began = [clock() for clock in clocks]
    await sea.sleep(3600)
    assert [clock() - began for clock, began in zip(clocks, began)] == pytest.approx([3600] * 4)

@pytest.mark.parametrize("sea", range(3), indirect=True)
async def test_seeds(sea, server, request):
    await sea.sleep(1)
"""


@pytest.mark.parametrize("plugins", PLUGINS)
def test_every_kind_of_test_and_fixture_runs_in_the_sea(project: pytest.Pytester, plugins: str) -> None:
    run(project, ALL_KINDS, plugins).assert_outcomes(passed=8)


DECORATED = """
import functools, os

def prepared(test):
    @functools.wraps(test)
    def run(*args, **kwargs):
        os.environ["PREPARED"] = "yes"
        return test(*args, **kwargs)
    return run

def judged(test):
    @functools.wraps(test)
    def run(*args, **kwargs):
        async def judge():
            await test(*args, **kwargs)
            raise AssertionError("what the decorator looks at")
        return judge()
    return run

@prepared
async def test_prepared(sea):
    assert os.environ.pop("PREPARED") == "yes"
    await sea.sleep(1)

@judged
async def test_judged(sea):
    await sea.sleep(1)
"""


@pytest.mark.parametrize("plugins", PLUGINS)
def test_what_is_wrapped_around_a_test_stays_around_it(project: pytest.Pytester, plugins: str) -> None:
    result = run(project, DECORATED, plugins)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: what the decorator looks at"])


def test_a_fixture_with_two_yields_is_told_so(project: pytest.Pytester) -> None:
    fixture = "import pytest\n@pytest.fixture\nasync def twice(sea):\n    yield 1\n    yield 2\n"
    result = run(project, f"{fixture}\nasync def test_it(twice):\n    assert twice == 1\n")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines("*RuntimeError: twice has more than one yield*")


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_who_forgets_indirect_is_told_so(project: pytest.Pytester, kind: str) -> None:
    test = f'import pytest\n@pytest.mark.parametrize("sea", range(2))\n{kind} test_it(sea):\n    pass\n'
    result = run(project, test)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*gives this test a seed, and no sea: add indirect=True*"])


def test_a_test_marked_for_anyio_runs_in_the_sea(project: pytest.Pytester) -> None:
    test = "import pytest\n@pytest.mark.anyio\nasync def test_it(sea):\n    await sea.sleep(10_000)\n"
    result = run(project, test)
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= 1


@pytest.mark.parametrize("plugins", ["strict", "auto"])
def test_other_tests_run_where_they_did(project: pytest.Pytester, plugins: str) -> None:
    test = """
    import asyncio
    import pytest
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def elsewhere():
        return asyncio.get_running_loop()

    @pytest_asyncio.fixture
    async def here(sea):
        return asyncio.get_running_loop()

    @pytest.mark.asyncio
    async def test_it(elsewhere):
        assert asyncio.get_running_loop() is elsewhere

    @pytest.mark.asyncio
    async def test_that_is_marked_all_the_same(sea, here):
        assert asyncio.get_running_loop() is here is sea.loop

    def test_that_takes_the_sea_elsewhere(sea):
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(sea.sleep(1))
    """
    run(project, test, plugins).assert_outcomes(passed=3)


HUBS = """
from starlette.applications import Starlette
from starlette.testclient import TestClient
from chat import app

def test_with_a_test_client(hubs_in_memory):
    for _ in range(2):
        with TestClient(app) as client:
            assert client.post("/rooms/lobby/messages?text=hello").json()["id"].endswith(":1")
            with client.websocket_connect("/live/ws") as socket:
                assert socket.receive_json()["type"] == "connected"

def test_a_hub_of_its_own(hub):
    app = Starlette(lifespan=hub.lifespan)
    app.mount("/live", hub.app)
    with TestClient(app) as client:
        assert client.get("/live/poll?rooms=lobby&wait=0").status_code == 200
"""


def test_in_real_time_hubs_are_in_memory(project: pytest.Pytester) -> None:
    run(project, HUBS).assert_outcomes(passed=2)
    assert not list(project.path.glob("chat.db*"))


@pytest.mark.parametrize("plugins", ["strict", "auto"])
def test_the_example_in_real_time_runs_as_it_is_on_the_page(project: pytest.Pytester, plugins: str) -> None:
    run(project, example(PAGE, "real time"), plugins).assert_outcomes(passed=2)
    assert not list(project.path.glob("chat.db*"))
