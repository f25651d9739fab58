"""
Whatever is answered, the client in JavaScript goes on as the one in Python does (`tests/client/test_bad_answers.py`).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from browser.node import Script, needs_node, printed, running
from holdfast.server.mount import CLIENT as MODULES
from hostile import CONNECTED, SSE, Answer, endless, hostile, refused, stream
from peers import WELCOME

pytestmark = needs_node
CLIENT = Path(__file__).with_name("bad_answers.mjs").read_text()

START = "id: k:lobby=0"
GOOD = stream(START, 'event: said\nid: k:lobby=1\ndata: {"type":"said","room":"lobby","id":"k:1"}')
GAP = 'event: resync\ndata: {"type":"resync","room":"lobby","reason":"epoch","cursor":"k:0"}'
MIB = 1 << 20


def client_of(url: str, *dials: list[str]) -> AbstractAsyncContextManager[Script]:
    return running(CLIENT, url, *map(json.dumps, dials))


async def until(what: str, client: Script, seconds: float = 10.0) -> list[Any]:
    """Return the next of these that happens to a client."""
    async with asyncio.timeout(seconds):
        async for name, *happened in client:
            assert name != "reported", happened
            if name == what:
                return happened
    raise AssertionError("it has ended")


async def lost_and_back(answers: dict[str, list[Answer]], seconds: float = 5.0) -> str:
    """See that the first link is lost within this, and all is told on the next; return why it was."""
    async with hostile(**{name: [*given] for name, given in answers.items()}) as peer, client_of(peer.url) as client:
        reason: str = (await until("waiting", client, seconds))[0]
        client.say("now")
        assert await until("event", client) == ["k:1"]
        return reason


def connected(**changed: Any) -> Answer:
    return json.dumps(CONNECTED | changed).encode()


LIMITS = CONNECTED["limits"]
WELCOMES = {
    "a rate of nothing": connected(limits=LIMITS | {"messagesPerSecond": 0}),
    "a rate that is none": connected(limits=LIMITS | {"messagesPerSecond": None}),
    "no limits": connected(limits=None),
    "no heartbeat": connected(heartbeat={"interval": -1, "timeout": 0}),
    "a heartbeat in an age": connected(heartbeat={"interval": 1e300, "timeout": 10}),
    "a heartbeat that is none": connected(heartbeat={"interval": "soon", "timeout": 10}),
    "a token with a line's end": connected(token="t\r\nX-Evil: 1"),
    "a list": b"[1]",
    "nested without end": b"[" * 100_000,
    "back in an age": b'{"type":"goodbye","reason":"x","spread_ms":0,"after_ms":' + b"9" * 400 + b"}",
    "back before now": b'{"type":"goodbye","reason":"x","spread_ms":0,"after_ms":-1000}',
}


@pytest.mark.parametrize("welcome", WELCOMES.values(), ids=WELCOMES)
async def test_a_bad_welcome_is_a_lost_link(welcome: Answer) -> None:
    await lost_and_back({"send": [welcome, connected()], "events": [GOOD]})


READ: dict[str, dict[str, list[Answer]]] = {
    "an id that lacks the room": {"events": [stream("id: k:attic=5"), GOOD]},
    "an id that is no cursor": {"events": [stream("id: nonsense"), GOOD]},
    "an event at no position": {
        "events": [stream(START, 'event: said\nid: k:lobby=1\ndata: {"type":"said","room":"lobby","id":"x"}'), GOOD]
    },
    "an event that is none": {"events": [stream(START, "event: said\ndata: [1"), GOOD]},
    "gaps without end": {"events": [stream(*[GAP] * 40), GOOD]},
    "a poll without a cursor": {"events": [refused(), GOOD], "poll": [b'{"data":[]}']},
    "a poll that lacks the room": {"events": [refused(), GOOD], "poll": [b'{"data":[],"cursor":"k:attic=5"}']},
    "a poll that is none": {"events": [refused(), GOOD], "poll": [b"null"]},
    "a poll of no messages": {"events": [refused(), GOOD], "poll": [b'{"data":5,"cursor":"k:lobby=0"}']},
}


async def lost(answers: dict[str, list[Answer]], seconds: float) -> str:
    """See that the first link is lost within this; return why it was."""
    async with hostile(**{road: [*given] for road, given in answers.items()}) as peer, client_of(peer.url) as client:
        return str((await until("waiting", client, seconds))[0])


@pytest.mark.parametrize("answers", READ.values(), ids=READ)
async def test_what_is_read_and_is_not_in_the_protocol_is_a_lost_link_at_once(answers: dict[str, list[Answer]]) -> None:
    if "poll" in answers:  # it polls again, and is answered the same
        assert await lost(answers, 5) != "the server fell silent"
    else:
        await lost_and_back(answers)


GAP_IN_PLACE = '{"type":"resync","room":"lobby","reason":"trimmed","cursor":"k:lobby=0"}'
HASTY = {
    "broadcast": b'{"data":[{"type":"called","room":"lobby"}],"cursor":"k:lobby=0"}',
    "resync": f'{{"data":[{GAP_IN_PLACE}],"cursor":"k:lobby=0"}}'.encode(),
}


@pytest.mark.parametrize("told", HASTY)
async def test_whoever_answers_each_poll_at_once_and_leads_no_further_is_not_asked_again_at_once(told: str) -> None:
    async with hostile(events=[refused()], poll=[HASTY[told]]) as peer, client_of(peer.url) as client:
        for _ in range(2):  # by a poll that is not to be held, and one that is
            await until(told, client)
        await asyncio.sleep(0.3)
        assert len(peer.times("poll")) == 2


@pytest.mark.parametrize("road", ["send", "events", "poll"])
async def test_whoever_is_sent_elsewhere_says_nothing_there(road: str) -> None:
    async with hostile() as elsewhere:
        redirect = refused("307 Temporary Redirect", location=f"http://127.0.0.1:{elsewhere.port}/{road}")
        answers = {"events": [refused()], road: [redirect]}
        async with hostile(**answers) as peer, client_of(peer.url) as client:
            reason = (await until("waiting", client))[0]
            assert any(asked == road for _, asked, _ in peer.asked)
        assert elsewhere.asked == []
        assert "fetch failed" in reason


PAGE = b"""<!doctype html><script type="module">
import { connect } from "/holdfast.js";
const client = connect("/ws", { token: "secret" });
client.on("status", ({ detail }) => (document.title = detail));
</script>"""


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="session")
async def test_nor_does_a_page(browser: Browser) -> None:
    async with hostile(send=[(b"{}", {"access-control-allow-origin": "*"})]) as elsewhere:
        redirect = refused("307 Temporary Redirect", location=f"http://localhost:{elsewhere.port}/send")
        modules: dict[str, list[Answer]] = {
            name: [(module, {"content-type": "text/javascript"})] for name, module in MODULES.items()
        }
        page_of = {"": [(PAGE, {"content-type": "text/html"})]}
        async with hostile(ws=[redirect], send=[redirect], **page_of, **modules) as peer:
            page = await (await browser.new_context()).new_page()
            await page.goto(f"http://localhost:{peer.port}/")
            await page.wait_for_function("() => document.title === 'waiting'")
            assert {"ws", "send"} <= {asked for _, asked, _ in peer.asked}
        assert elsewhere.asked == []


PART = b"x" * MIB
ENDLESS: dict[str, dict[str, list[Answer]]] = {
    "an answer": {"send": [endless(PART, b'{"type":"')]},
    "a line of a stream": {"events": [(endless(PART, b"data: "), SSE)]},
    "an event of a stream": {"events": [(endless(b"data: " + PART + b"\n"), SSE)]},
    "gaps of a stream": {"events": [(endless(f"{GAP}\n\n".encode() * 100), SSE)]},
}


@pytest.mark.parametrize("answers", ENDLESS.values(), ids=ENDLESS)
async def test_an_answer_without_end_is_a_lost_link(answers: dict[str, list[Answer]]) -> None:
    reason = await lost(answers, 30)
    assert "more" in reason or reason == "HTTP 404"  # on a slow machine it is a stream that is held back: it polls


@pytest.mark.parametrize("after", ["9" * 9, "9" * 400, "-5", "soon"])
async def test_whoever_is_sent_away_for_an_age_is_back_in_hours_or_by_its_own_rule(after: str) -> None:
    busy = refused("503 Service Unavailable", **{"retry-after": after})
    async with hostile(send=[busy]) as peer, client_of(peer.url) as client:
        _, delay, _ = await until("waiting", client)
        assert 3600 <= delay <= 7200 if after.startswith("9") else delay == 1


JOINED = '{"type":"joined","room":"lobby","cursor":"k:0","recovered":false,"users":[],"roomSize":1}'
BAD = {
    "a rate of nothing": WELCOME.replace('"messagesPerSecond":1', '"messagesPerSecond":0'),
    "back in an age": '{"type":"goodbye","reason":"x","spread_ms":0,"after_ms":' + "9" * 400 + "}",
    "a heartbeat of nothing": WELCOME.replace('"interval":30', '"interval":0'),
    "a room's key that is another field's": WELCOME.replace('"roomKey":"room"', '"roomKey":"type"'),
    "a room's key that is no name": WELCOME.replace('"roomKey":"room"', '"roomKey":""'),
    "no room's key": WELCOME.replace('"roomKey":"room",', ""),
    "a session with a line's end": WELCOME.replace('"session":"s"', '"session":"s\\n"'),
    "a place that is none": WELCOME + "|" + JOINED.replace("k:0", "nonsense"),
    "a room without people": WELCOME + "|" + JOINED.replace("[]", "5"),
}


@pytest.mark.parametrize("said", BAD.values(), ids=BAD)
async def test_the_same_on_a_websocket(said: str) -> None:
    frames = said.split("|")
    async with client_of("http://localhost/ws", frames, frames, [WELCOME, JOINED]) as client:
        times = [(await until("dial", client))[0] for _ in range(3)]
        assert await until("resync", client) == ["k:0"]
    first, second = (after - before for before, after in pairwise(times))
    assert first > 0.9
    assert second > 1.9


@pytest.mark.parametrize("type", ["stop", "paused", "lost"])
async def test_what_else_is_in_a_heartbeat_is_passed_over(type: str) -> None:
    welcome = WELCOME.replace('"interval":30', f'"type":"{type}","interval":30')
    async with client_of("http://localhost/ws", [welcome, JOINED]) as client:
        assert await until("resync", client) == ["k:0"]


async def test_whoever_is_told_to_move_again_and_again_dials_no_more_often_for_it() -> None:
    goodbye = '{"type":"goodbye","reason":"x","after_ms":0,"spread_ms":0}'
    async with client_of("http://localhost/ws", [WELCOME, *[goodbye] * 100]) as client:
        times = [(await until("dial", client))[0] for _ in range(4)]
    gaps = [after - before for before, after in pairwise(times)]
    assert all(gap > least for gap, least in zip(gaps, (0.24, 0.24, 1.99), strict=True)), gaps


#: A WebSocket that welcomes, and answers a join with `joined`.
WELCOMING = """
import { connect } from "./holdfast.js";

class Welcoming {
  readyState = 0;
  constructor() {
    setTimeout(() => {
      this.readyState = 1;
      this.onopen();
      this.onmessage({ data: process.argv[1] });
    });
  }
  send(text) {
    if (JSON.parse(text).type === "join") setTimeout(() => this.answer());
  }
  answer() {
    this.onmessage({ data: process.argv[2] });
  }
  close() {}
}
"""
FLOODED = """
const flood = process.argv[3];
let snapshots = 0;

class WebSocket extends Welcoming {
  answer() {
    super.answer();
    for (let number = 0; number < 3000; number++) this.onmessage({ data: flood.replaceAll("#", number) });
    const timers = process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
    console.log(JSON.stringify([timers, room.users.length, room.typing.length, snapshots, client.status.state]));
    process.exit();
  }
}

const client = connect("http://localhost/ws", { WebSocket });
const room = client.join("lobby", { snapshot: () => new Promise(() => snapshots++) });
"""
PEOPLE = json.dumps([{"userId": str(number), "name": "x"} for number in range(200)])
FLOODS = {
    "refusals": ('{"type":"error","room":"lobby","code":"internal","error":"not now"}', 0, 0),
    "starts afresh": ('{"type":"resync","room":"lobby","reason":"trimmed","cursor":"k:#"}', 0, 0),
    "who comes": ('{"type":"user_joined","room":"lobby","userId":"#","name":"x","roomSize":5}', 100, 0),
    "who types": ('{"type":"user_typing","room":"lobby","userId":"#","name":"x"}', 0, 100),
    "who is there": (f'{{"type":"presence","room":"lobby","roomSize":200,"users":{PEOPLE}}}', 100, 0),
    "who came": (f'{{"type":"presence","room":"lobby","roomSize":200,"left":[],"joined":{PEOPLE}}}', 100, 0),
}


@pytest.mark.parametrize(("said", "users", "typing"), FLOODS.values(), ids=FLOODS)
async def test_what_is_said_again_and_again_has_bounds(said: str, users: int, typing: int) -> None:
    ((timers, *known, snapshots, state),) = await printed(WELCOMING + FLOODED, WELCOME, JOINED, said)
    assert timers < 10
    assert known == [users, typing]
    assert snapshots == 1
    assert state == "live"


STALE = """
Math.random = () => 0;
const ceilings = [];

class WebSocket extends Welcoming {
  send(text) {
    super.send(text);
    if (JSON.parse(text).type !== "sync") return;
    const gap = JSON.stringify({ type: "resync", room: "lobby", reason: "trimmed", cursor: "k:9" });
    const event = JSON.stringify({ type: "said", room: "lobby", id: "k:1" });
    const said = ceilings.length % 3 ? [gap] : [event, gap];
    setTimeout(() => said.forEach((data) => this.onmessage({ data })));
  }
}

const client = connect("http://localhost/ws", { WebSocket });
const room = client.join("lobby", { snapshot: () => {
  ceilings.push(room.backoff.peek(1, null).ceiling);
  return Promise.resolve({ data: null, cursor: "k:0" });
} });
room.on("snapshot", () => {
  if (ceilings.length < 7) return;
  console.log(JSON.stringify(ceilings));
  process.exit();
});
"""


async def test_a_snapshot_that_is_older_than_the_log_is_not_taken_again_and_again() -> None:
    assert await printed(WELCOMING + STALE, WELCOME, JOINED) == [[1, 2, 4, 1, 2, 4, 1]]


PINGED = """
class WebSocket extends Welcoming {
  send(text) {
    super.send(text);
    if (text.includes("pong")) console.log(text);
  }
  answer() {
    for (const ping of [{ type: "ping", quiet: true }, { type: "ping" }, { type: "ping", quiet: true }]) {
      this.onmessage({ data: JSON.stringify(ping) });
    }
    client.close();
  }
}

const client = connect("http://localhost/ws", { WebSocket });
client.join("lobby");
"""


async def test_a_ping_that_is_quiet_wants_no_answer() -> None:
    assert await printed(WELCOMING + PINGED, WELCOME) == [{"type": "pong"}]


async def test_whoever_is_told_to_be_in_without_having_asked_loses_the_link() -> None:
    async with client_of("http://localhost/ws", [WELCOME, JOINED, JOINED]) as client:
        assert "not asked" in (await until("waiting", client))[0]


BROKEN = """
const begun = [];

class WebSocket extends Welcoming {
  answer() {
    super.answer();
    if (begun.length === 1) return this.onclose({ code: 1012, reason: "" });
    begun[0]({ data: "old", cursor: "k:0" });
    begun[1]({ data: "new", cursor: "k:1" });
  }
}

const client = connect("http://localhost/ws", { WebSocket });
const room = client.join("lobby", { snapshot: () => new Promise((resolve) => begun.push(resolve)) });
room.on("snapshot", ({ data }) => {
  console.log(JSON.stringify(data));
  client.close();
});
"""


async def test_a_snapshot_that_was_begun_on_a_link_that_is_gone_is_for_nothing_on_the_next() -> None:
    assert await printed(WELCOMING + BROKEN, WELCOME, JOINED) == ["new"]
