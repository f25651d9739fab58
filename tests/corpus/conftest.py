"""The servers that are attacked: one as it is installed, one on uvloop and httptools."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from corpus.target import Strict, Target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server as a newcomer has it."""
    with Target(tmp_path_factory.mktemp("target")) as target:
        yield target


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with `holdfast[speed]`."""
    with Target(tmp_path_factory.mktemp("swift"), "--speed") as target:
        yield target


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server that lets nobody in who does not say who they are."""
    with Strict(tmp_path_factory.mktemp("strict")) as target:
        yield target


@pytest.fixture(params=["target", "swift"])
def either(request: pytest.FixtureRequest) -> Target:
    """One after the other: what carries them, and reads their heads, is not the same."""
    found: Target = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def number(counter: count[int] = count()) -> int:  # noqa: B008
    """A number that no other test has."""
    return next(counter)
