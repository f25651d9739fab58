"""Whatever comes in, what reads it returns a value or refuses it in words, at once. `fuzz.py` looks for longer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from corpus.fuzz import hypothesis_run
from corpus.inputs import TARGETS, UPGRADE
from corpus.served import served
from corpus.target import BINARY, CLOSE, CONT, PING, TEXT, frame
from corpus.test_words import NAMES
from holdfast import Limits
from holdfast.protocol.messages import RESERVED_TYPES

UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=UNHURRIED)

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
REQUEST = [
    b"GET ", b"POST ", b"/poll?rooms=a&wait=0", b"/events?rooms=a", b"/send", b"/ws", b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"\r\n", b"{}", b"2\r\n{}\r\n", b"0\r\n\r\n",
    b": ", b"\0", b"\xff", UPGRADE,
]  # fmt: skip
FRAME = [
    frame(TEXT, b'{"type":"join","room":"a"}'), frame(TEXT, b'{"type":"ping"}'), frame(TEXT, b'{"ty', fin=False),
    frame(CONT, b'pe":"x"}'), frame(CONT, fin=False), frame(PING, b"x"), frame(CLOSE, b"\x03\xe8"), frame(BINARY, b"x"),
    frame(TEXT, rsv=4), b"\0", b"\xff",
]  # fmt: skip


def strung(parts: Sequence[str | bytes]) -> st.SearchStrategy[bytes]:
    """Draw some of these, strung together."""
    drawn = st.sampled_from([part.encode() if isinstance(part, str) else part for part in parts])
    return st.lists(drawn, max_size=8).map(b"".join)


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
    mutated(strung(REQUEST)),
    mutated(strung(FRAME)),
)


#: How large a head may be, and a message; in bytes.
LARGE = (Limits().head_bytes, Limits().message_bytes)
#: What those who read it one by one, or go back when they were wrong, take long for.
AGAIN = [b"1" * 308 + b",", b"1", b"1e5,", b"1e-.", b"[", b"[],", b"{", b'"', b'"a",', b'"a":[', b'"\\["', b'\\"',
         b"\\", b"%", b"\xff", b"a&", b"a=1;", b"a: b\r\n", b"@", b".", b" "]  # fmt: skip
AROUND = [
    b"%b", b'{"type":"say","room":"lobby","a":[%b0]}', b'{"type":"say","room":"lobby","a":"%b"}',
    b'{"type":"say",%b"z":0}', b'{"type":"joined","room":"lobby","cursor":"%b"}', b"k:%b",
    b'{"type":"say","s":"' + b"1" * 309 + b'","a":[%b0]}', b"GET /poll?rooms=%b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /send HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n%b", b'session="%b"', b'"%b"',
]  # fmt: skip


def filled(size: int, around: bytes, again: bytes) -> bytes:
    """Return something large: the same, again and again, in something else."""
    return around % (again * ((size - len(around)) // max(1, len(again))))


larges = st.builds(filled, st.sampled_from(LARGE), st.sampled_from(AROUND), st.sampled_from(AGAIN) | inputs)


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    """End the server without sockets, if it was begun."""
    yield
    if served.cache_info().currsize:
        served().close()


@pytest.mark.parametrize("name", TARGETS)
@QUICK
@given(data=inputs)
def test_whatever_comes_is_read_or_refused(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@QUICK
@given(data=larges)
@example(data=filled(LARGE[1], AROUND[6], AGAIN[0]))
@example(data=filled(LARGE[0], b'session="%b"', b'\\"'))
def test_whatever_comes_keeps_nobody_waiting_however_large_it_is(name: str, data: bytes) -> None:
    TARGETS[name](data)


def test_what_is_counted_was_tried(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[bytes] = []
    monkeypatch.setitem(TARGETS, "cursors", tried.append)
    assert hypothesis_run("cursors", 0.1) == 0
    assert capsys.readouterr().out == f"{len(tried)} inputs, each read or refused\n"
