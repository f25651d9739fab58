"""
Fixtures for pytest: `pytest_plugins = ["holdfast.testing.fixtures"]` in your `conftest.py`.

A test that asks for `sea`, or for a fixture that does, runs in virtual time. It may be an async one
without any other plugin; where pytest-asyncio or anyio would run it, the sea does instead.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest

from holdfast.server.hub import Hub
from holdfast.testing import memory
from holdfast.testing.sea import Sea


@pytest.fixture
def sea(request: pytest.FixtureRequest) -> Iterator[Sea]:
    """A sea, in which the test runs. Its seed is 0, or what `parametrize("sea", range(100), indirect=True)` says."""
    with Sea(getattr(request, "param", 0)) as sea:
        yield sea


@pytest.fixture
def hubs_in_memory() -> Iterator[None]:
    """Every hub that the test opens begins with an empty log, in memory, wherever it was told to be."""
    with memory.hubs_in_memory():
        yield


@pytest.fixture
def hub(hubs_in_memory: None) -> Hub:
    """A hub in memory, in real time; it is opened by `async with hub`, or with its app (`lifespan=hub.lifespan`)."""
    return Hub("memory:")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run an async test in its sea."""
    sea, test = pyfuncitem.funcargs.get("sea"), pyfuncitem.obj
    if isinstance(sea, int):
        pytest.fail('parametrize("sea", …) gives this test a seed, and no sea: add indirect=True', pytrace=False)
    if not isinstance(sea, Sea):
        return (yield)
    pyfuncitem.obj = _on(sea, _as_written(test))
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Run an async fixture that asks for `sea` there."""
    function = fixturedef.func
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if not is_async or "sea" not in fixturedef.argnames:
        return (yield)
    sea = request.getfixturevalue("sea")
    if not isinstance(sea, Sea):
        return (yield)
    if inspect.ismethod(function) and request.instance is not None:
        function = function.__func__.__get__(request.instance)  # of the object that the test is a method of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fixturedef, "func", _on(sea, function))
        return (yield)


def _as_written(test: Callable[..., Any]) -> Callable[..., Any]:
    """Return a test without what pytest-asyncio has wrapped around it, and with what anybody else has."""
    is_theirs = getattr(test, "__globals__", {}).get("__name__", "").partition(".")[0] == "pytest_asyncio"
    return test.__wrapped__ if is_theirs else test  # type: ignore[attr-defined]


def _on(sea: Sea, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a test as a plain one: what is async in it runs in the sea."""
    if inspect.isasyncgenfunction(function):

        def give(*args: Any, **kwargs: Any) -> Iterator[Any]:
            values: AsyncGenerator[Any] = function(*args, **kwargs)
            yield sea.run(anext(values))
            nothing = object()
            if sea.run(anext(values, nothing)) is not nothing:
                raise RuntimeError(f"{function.__name__} has more than one yield")

        return functools.wraps(function)(give)

    def run(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        return sea.run(made) if inspect.iscoroutine(made) else made

    return run
