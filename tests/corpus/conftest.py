"""The servers that are attacked: one as it is installed, one on uvloop and httptools."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from corpus.target import Target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server as a newcomer has it."""
    with Target(tmp_path_factory.mktemp("target")) as target:
        warm_up(target)
        yield target


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with `holdfast[speed]`."""
    with Target(tmp_path_factory.mktemp("swift"), "--speed") as target:
        warm_up(target)
        yield target


def warm_up(target: Target) -> None:
    """Have it import what it imports when it is first needed."""
    with target.attacked(longest=10.0), target.raw(b"GET /events?room=a HTTP/1.1\r\nHost: localhost\r\n\r\n") as peer:
        peer.until(b"connected")


@pytest.fixture(params=["target", "swift"])
def either(request: pytest.FixtureRequest) -> Target:
    """One after the other: what carries them, and reads their heads, is not the same."""
    found: Target = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def number(counter: count[int] = count()) -> int:  # noqa: B008
    """A number that no other test has."""
    return next(counter)
