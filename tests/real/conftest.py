"""A network of our own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from real.network import Network, network


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net:
        yield net
