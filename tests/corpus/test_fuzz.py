"""Whatever comes in, what reads it returns a value or refuses it in words. `fuzz.py` looks for longer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.inputs import TARGETS
from corpus.test_words import NAMES
from holdfast.protocol.messages import RESERVED_TYPES

UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large]
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=UNHURRIED)

FIELDS = "type room boardId since token ref key id title list_id listId position name users cursor lobby k:1 \0 \u2028"
words = st.sampled_from([*sorted(RESERVED_TYPES), *NAMES, *FIELDS.split(" ")])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)
messages = st.dictionaries(words, values, max_size=6).map(json.dumps).map(str.encode)
CURSOR = ["k3f9", ":", ";", "=", "1", "43", "lobby", "%2F", "%ff", "9" * 20, "-1", "\u0663"]
ORIGIN = ["localhost", "127.0.0.1", "[::1]", "app.example", ":3000", ":443", "@", "/", "\\", "?", "#", ".", "evil.x",
          "\t", " ", "%", "\xff", ":", "http://", "x"]  # fmt: skip


def strung(parts: list[str]) -> st.SearchStrategy[bytes]:
    """Draw some of these, strung together."""
    return st.lists(st.sampled_from(parts), max_size=8).map("".join).map(str.encode)


@st.composite
def mutated(draw: Any, wholes: st.SearchStrategy[bytes]) -> bytes:
    """Draw something that is almost right: with a part cut out, doubled, or replaced."""
    whole = bytearray(draw(wholes))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(whole)))
        end = min(len(whole), at + draw(st.integers(0, 4)))
        whole[at:end] = draw(st.binary(max_size=4) | st.just(bytes(whole[at:end] * 2)))
    return bytes(whole)


inputs = st.one_of(
    st.binary(max_size=200),
    mutated(messages),
    mutated(strung(CURSOR)),
    mutated(strung(ORIGIN)),
)


@pytest.mark.parametrize("name", TARGETS)
@QUICK
@given(data=inputs)
def test_whatever_comes_is_read_or_refused(name: str, data: bytes) -> None:
    TARGETS[name](data)
