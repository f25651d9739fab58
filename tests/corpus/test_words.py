"""What is said once a connection stands: joins, names, JSON, what comes too often or is broken off."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack

import holdfast
from corpus.target import CONT, LONGEST, PONG, TEXT, Target, frame, heard, say
from holdfast import Event, Limits
from holdfast.protocol.messages import RESERVED_TYPES

LIMITS = Limits()
NAMES = ["__proto__", "constructor", "prototype", "hasOwnProperty", "toString", "valueOf", "__defineGetter__", "then"]


def test_CVE_2026_56811_joins_have_an_end(target: Target) -> None:
    with target.attacked(), target.peer() as peer:
        peer.send(*[say(type="join", room=f"room-{n}") for n in range(LIMITS.message_burst - 1)])
        peer.until(b'"room-98"')
        time.sleep(3 / LIMITS.messages_per_second)
        peer.send(say(type="join", room="the 100th"), say(type="join", room="the 101st"))
        assert b"at most 100 rooms" in peer.until(b'"too_many"')
        assert target.probe()["rooms"] == 100 + 1  # with the lobby
        peer.send(*[say(type="join", room=f"more-{n}") for n in range(LIMITS.message_burst * 2)])
        assert peer.closed() == 4129


async def test_CVE_2026_56812_names_that_mean_something_elsewhere_are_names(target: Target) -> None:
    """In the Python client; in the browser's it is `test_browser.py`."""
    with target.attacked():
        await asyncio.gather(*(has_such_a_name(target, name) for name in NAMES))


async def has_such_a_name(target: Target, name: str) -> None:
    async with holdfast.connect(f"{target.url}/ws", token=f"user:{name}") as client, client.join(name) as room:
        answer = await room.command("say", **{"as": name, "__proto__": {"polluted": 1}, "constructor": name})
        async with asyncio.timeout(5):
            event = await anext(item async for item in room if isinstance(item, Event))
        assert event.id == answer
        assert (event.room, event.type) == (name, name)
        assert event.data == {"__proto__": {"polluted": 1}, "constructor": name}
        assert [user.user_id for user in room.users] == [name]


def test_GHSA_gr94_w7qr_f4j3_a_session_by_such_a_name_is_nobodys(target: Target) -> None:
    with target.attacked():
        for name in (*NAMES, "", "x" * 3_000, "\x00", "😀"):
            with target.peer() as peer:
                peer.received = b""
                peer.send(say(type="auth", session=name))
                answer = peer.until(b"}")
                assert b'"connected"' in answer or b'"malformed"' in answer
                assert f'"session":"{name}"'.encode() not in answer


def test_CVE_2024_38355_words_of_the_server_are_nothing_in_the_mouth_of_a_client(target: Target) -> None:
    with target.attacked(), target.peer(say(type="join", room="lobby")) as peer:
        peer.until(b'"joined"')
        for type in sorted(RESERVED_TYPES - {"ping", "pong", "leave"}):
            peer.send(say(type=type), say(type=type, room="lobby", userId="x", name="x", id="x:1", ref="r"))
            peer.send(say(type="say", room="lobby", ref=f"say {type}", **{"as": type}))
            assert f'"ref":"say {type}","ok":false'.encode() in peer.until(f'"ref":"say {type}",'.encode() + b'"ok":')
            time.sleep(2 / LIMITS.messages_per_second)
        assert peer.send(say(type="ping")).until(b'"pong"')


def test_GHSA_cgwc_pv48_fhj5_pongs_of_those_who_are_nobody_make_no_tasks(target: Target) -> None:
    with target.attacked(), target.raw(target.upgrade("/ws")) as peer:
        tasks = target.probe()["tasks"]
        peer.send(frame(PONG) * 15, say(type="pong") * 90)
        assert target.probe()["tasks"] <= tasks + 1


def test_CVE_2026_48804_what_was_begun_and_not_ended_goes_with_its_connection(target: Target) -> None:
    with target.attacked():
        for _ in range(20):
            with target.peer(frame(TEXT, b"x" * 60_000, fin=False), frame(CONT, b"x", fin=False)):
                pass


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────

DEEP = {
    "arrays": b"[" * 60_000,
    "objects": b'{"a":' * 12_000,
    "closed": b'{"type":"say","a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "under the interpreter's limit": b'{"type":"say","a":' + b"[" * 900 + b"]" * 900 + b"}",
    "one more than 64": b'{"type":"say","a":' + b"[" * 65 + b"]" * 65 + b"}",
}


def test_CVE_2024_27454_nested_without_end(target: Target) -> None:
    with target.attacked(), target.peer() as peer:
        for sent in DEEP.values():
            peer.received = b""
            assert b"malformed" in peer.send(frame(TEXT, sent)).until(b'"code":')


def test_CVE_2021_45958_what_is_nested_as_deep_as_is_allowed_reaches_everybody_on_every_road(target: Target) -> None:
    """A depth that one reader takes and another does not is a poison: who has to read it never gets past it."""
    deepest = b'{"type":"say","ref":1,"room":"lobby","a":' + b"[" * 64 + b"]" * 64 + b"}"
    with target.attacked():
        before = target.get("/poll?rooms=lobby&wait=0")["cursor"]
        with target.join("lobby") as honest:
            honest.send(deepest.decode())
            heard(honest, "said")
        assert len(target.get(f"/poll?rooms=lobby&wait=0&cursor={before}")["data"]) == 1
        body = deepest.replace(b'"ref":1,', b"")
        sent = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with target.raw(sent) as peer:
            assert b" 200 " in peer.until(b"}")


#: Digits enough for a number that not everybody can read, in a text.
LONG = '{"type":"say","ref":1,"s":"' + "1" * 309 + '"'
ODD = {
    "a huge integer": '{"type":"say","ref":1,"n":' + "9" * 4_000 + "}",
    "a huger one": '{"type":"say","ref":1,"n":' + "9" * 60_000 + "}",
    "a huge float": '{"type":"say","ref":1,"n":1e999}',
    "a long fraction": '{"type":"say","ref":1,"n":0.' + "1" * 60_000 + "}",
    "a huge reference": '{"type":"say","ref":' + "9" * 60_000 + "}",
    "NaN": '{"type":"say","ref":1,"n":NaN}',
    "a key twice": '{"type":"join","type":"say","ref":1,"a":1,"a":2}',
    "half a pair": '{"type":"say","ref":1,"a":"\\ud800"}',
    "NUL": '{"type":"say","ref":1,"a":"\\u0000","\\u0000":1}',
    "line ends": '{"type":"say","ref":1,"a":"\\r\\n\\u2028"}',
    "no end": '{"type":"say","ref":1',
    "much after it": '{"type":"say","ref":1}' + " " * 60_000 + "x",
    "a mark": '\ufeff{"type":"say","ref":1}',
    "ten thousand keys": '{"type":"say","ref":1,' + ",".join(f'"{n}":{n}' for n in range(5_000)) + "}",
    "a long key": '{"type":"say","ref":1,"' + "k" * 60_000 + '":1}',
    "numbers as long as may be": LONG + ',"a":[' + ",".join(["1" * 308] * 206) + "]}",
    "numbers that never end": LONG + ',"a":"' + "1e-." * 15_000 + '"}',
    "long everything": json.dumps({"type": "t" * 20_000, "room": "r" * 20_000, "since": "s" * 20_000}),
}


def test_json_that_is_odd_is_taken_or_refused(target: Target) -> None:
    with target.attacked(), target.peer() as peer:
        for name, said in ODD.items():
            for sent in (said, said.replace('"type":"say"', '"type":"say","room":"attic"')):  # published, too
                peer.received = b""
                peer.send(frame(TEXT, sent.encode()))
                answer = peer.until(b"}")
                assert b'"ok":' in answer or b'"malformed"' in answer, (name, answer)


def test_a_cursor_is_a_cursor_or_is_refused(target: Target) -> None:
    offsets = ";".join(f"room-{n}=1" for n in range(33))
    cursors = [
        "", ":", "a:", ":1", "a:-1", "a:1e3", "a:" + "9" * 4_000, "a:" + "9" * 19, "a:1\n", "a b:1", "a:٣", "a:=1",
        f"a:{offsets}", "a:%ff=1", "a:%=1", "a:lobby=1;lobby=2", "a" * 5_000, "a:1\x00", "😀:1",
    ]  # fmt: skip
    with target.attacked(), target.peer(say(type="join", room="lobby")) as peer:
        peer.until(b'"joined"')
        for cursor in cursors:
            peer.received = b""
            peer.send(say(type="sync", room="lobby", since=cursor))
            answer = peer.until(b"}")
            assert b'"malformed"' in answer or b'"resync"' in answer, cursor


# ── too often ─────────────────────────────────────────────────────────────────────────────────────


def test_before_anybody_is_known_4_kib_are_taken_and_no_more(strict: Target) -> None:
    for flood in (
        frame(TEXT, b"x" * 5_000),
        frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 50_000,
        say(type="ping") * 5_000,
        frame(PONG) * 50_000,
    ):
        with strict.attacked(), strict.raw(strict.upgrade("/ws"), flood) as peer:
            assert peer.closed() in (1009, 4129, 1006)


def test_a_hundred_who_flood_at_once_hold_up_nobody(target: Target) -> None:
    """Those who are served are honest; the turn is as long as all of them together make it."""
    with target.attacked(memory=40_000), ExitStack() as peers:
        flooding = [peers.enter_context(target.peer()) for _ in range(100)]
        for peer in flooding:
            peer.sock.settimeout(0.05)
            peer.send(say(type="ping") * 2_000)
        with target.join("lobby") as honest:
            began = time.monotonic()
            honest.send(json.dumps({"type": "ping"}))
            heard(honest, "pong")
            assert time.monotonic() - began < 1.0


def test_a_burst_of_which_a_crowd_is_told_holds_up_nobody(either: Target) -> None:
    """What comes in is 4 KB, and each of its messages is work for everybody who is in the room."""
    with either.attacked(memory=60_000):
        with ExitStack() as peers:
            crowd = [peers.enter_context(either.guest("hall")) for _ in range(500)]
            for types in (("typing", "stop_typing"), ("leave", "join")):
                one, crowd[-1].received = peers.enter_context(either.guest("hall")), b""
                pair = b"".join(say(type=type, room="hall") for type in types)
                one.send(*[pair * 45 + say(type="say", room="hall")])
                crowd[-1].until(b'"type":"said"', 5.0)
                assert one.until(b'"type":"said"').count(b'"type":"joined"') == (46 if "join" in types else 1)
            assert either.probe()["longest"] < LONGEST
        until = time.monotonic() + 5.0
        while either.probe()["connections"] > 1 and time.monotonic() < until:
            time.sleep(0.05)  # a crowd that leaves is not the work of one
