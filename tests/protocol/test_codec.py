"""Any text is a message or a refusal that says why, and what the server says is encoded once for everybody."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from holdfast.errors import Conflict, Invalid, Malformed, Refused
from holdfast.protocol import messages
from holdfast.protocol.codec import MAX_DEPTH, Codec, Frame, check_token, check_user, problem
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import (
    RESERVED_TYPES,
    Auth,
    ClientMessage,
    Error,
    Join,
    Joined,
    Leave,
    Message,
    Ping,
    Pong,
    Problem,
    Reply,
    Resync,
    Sync,
    User,
)

codec = Codec()
board = Codec("boardId")


def say(**fields: Any) -> str:
    return json.dumps(fields)


# ── what a client says ────────────────────────────────────────────────────────────────────────────

SAID = [
    (say(type="auth"), Auth()),
    (say(type="auth", token="t", session="s"), Auth("t", "s")),
    (say(type="join", room="lobby"), Join("lobby")),
    (say(type="join", room="lobby", since="k:4"), Join("lobby", "k:4")),
    (say(type="leave", room="lobby"), Leave("lobby")),
    (say(type="sync", room="lobby", since="k:4"), Sync("lobby", "k:4")),
    (say(type="sync", room="lobby", lastEventId="k:4"), Sync("lobby", "k:4")),
    (say(type="sync", room="lobby", since="k:4", lastEventId="k:5"), Sync("lobby", "k:4")),
    (say(type="ping"), Ping()),
    (say(type="pong", nonsense=1), Pong()),
    (say(type="typing", room="lobby"), Message("typing", "lobby", {})),
    (say(type="say"), Message("say", None, {})),
    (say(type="say", text="hi", id="mine"), Message("say", None, {"text": "hi"})),
    (say(type="say", ref=7, key="k1", n=1), Message("say", None, {"n": 1}, 7, "k1")),
    (say(type="say", ref="seven"), Message("say", None, {}, "seven")),
    (say(type="connected"), Message("connected", None, {})),
]


@pytest.mark.parametrize(("text", "message"), SAID)
@pytest.mark.parametrize("encode", [str, str.encode])
def test_what_a_client_says_is_read(text: str, message: ClientMessage, encode: Callable[[str], str | bytes]) -> None:
    assert codec.decode(encode(text)) == message


REFUSED = [
    ("", "Invalid JSON"),
    ("{", "Invalid JSON"),
    ("null", "Invalid JSON"),
    ("[]", "Invalid JSON"),
    ('"join"', "Invalid JSON"),
    ("{}", "type"),
    (say(type=None), "type"),
    (say(type=5), "type"),
    (say(type=""), "type"),
    (say(type="x" * 65), "64"),
    (say(type="join"), "room"),
    (say(type="join", room=None), "room"),
    (say(type="join", room=5), "room"),
    (say(type="join", room=""), "128"),
    (say(type="join", room="r" * 129), "128"),
    (say(type="join", room="a\nb"), "printable"),
    (say(type="join", room="a\x00b"), "printable"),
    (say(type="say", room=["lobby"]), "room"),
    (say(type="join", room="lobby", since=43), "since"),
    (say(type="sync", room="lobby"), "since"),
    (say(type="sync", room="lobby", lastEventId=5), "since"),
    (say(type="auth", token=5), "token"),
    (say(type="say", ref=1.5), "ref"),
    (say(type="say", ref=True), "ref"),
    (say(type="say", ref=[]), "ref"),
    (say(type="say", ref="r" * 65), "64"),
    (say(type="say", ref=10**64), "64"),
    (say(type="say", key=5), "key"),
    (say(type="say", key=""), "255"),
    (say(type="say", key="k" * 256), "255"),
    (say(type="say", key="k\0"), "printable"),
    (say(type="auth", session="\0"), "session"),
    (say(type="auth", session=""), "session"),
    (say(type="auth", session="s" * 65), "64"),
]


@pytest.mark.parametrize(("text", "complaint"), REFUSED)
def test_what_cannot_be_read_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(Malformed, match=complaint):
        codec.decode(text)


@pytest.mark.parametrize(
    "user",
    [
        User("u" * 255, "n" * 255),
        User("ann@example.org", "مریم\u200cخانم"),  # with a joiner that is not printable
        User("x", ""),
    ],
)
def test_somebody_who_can_be(user: User) -> None:
    assert check_user(user) is user


@pytest.mark.parametrize("id", ["", "\0", "a\nb", "u" * 256, "\ud800", 7])
def test_an_id_that_nobody_can_have(id: Any) -> None:
    with pytest.raises(ValueError, match="id"):
        check_user(User(id, "Ann"))


@pytest.mark.parametrize("name", ["Ann\0", "\n", "\x85", "n" * 256, "\udfff", None])
def test_a_name_that_nobody_can_have(name: Any) -> None:
    with pytest.raises(ValueError, match="name"):
        check_user(User("ann", name))


def test_names_as_long_as_the_limits_are_taken() -> None:
    longest = Message("t" * 64, "r" * 128, {}, "f" * 64, "k" * 255)
    said = say(type="t" * 64, room="r" * 128, ref="f" * 64, key="k" * 255)
    assert codec.decode(said) == longest
    assert codec.decode(say(type="say", ref=10**64 - 1)) == Message("say", None, {}, 10**64 - 1)


HOSTILE = [
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"type":"say","a":' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"type":"say","a":"\\ud800"}',
    '{"type":"\ud800"}',
    "\ud800",
    '{"type":"say","n":NaN}',
    '{"type":"say","n":Infinity}',
    '{"type":"say","n":1e999}',
    '{"type":"say","n":' + "9" * 30_000 + "}",
    '{"type":"say","ref":' + "9" * 30_000 + "}",
    '{"type":"say","ref":' + "9" * 4_300 + "}",
    '{"type":"say"}{"type":"say"}',
    b"\xff\xfe",
    b'{"type":"\xc3\x28"}',
    b'{"type":"say","a":"\xed\xa0\x80"}',
    b"\xef\xbb\xbf{}",
    b"\x00" * 1000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_hostile_text_is_refused_and_crashes_nothing(text: str | bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode(text)


def test_of_two_fields_with_one_name_the_last_counts() -> None:
    assert codec.decode('{"type":"join","type":"leave","room":"a","room":"b"}') == Leave("b")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
fields = st.sampled_from(["type", "room", "boardId", "since", "lastEventId", "token", "session", "ref", "key", "id"])
words = st.sampled_from(sorted(RESERVED_TYPES)) | st.text(max_size=70) | json_values


@pytest.mark.parametrize("spoken", [codec, board], ids=["room", "boardId"])
@given(
    text=st.one_of(
        st.binary(),
        st.text(st.characters(exclude_categories=())),
        json_values.map(json.dumps),
        st.dictionaries(fields | st.text(), words).map(json.dumps),
        st.fixed_dictionaries({"type": st.sampled_from(["auth", "join", "leave", "sync", "ping", "x"])}).flatmap(
            lambda start: st.dictionaries(fields, words).map(lambda more: json.dumps({**more, **start}))
        ),
    )
)
@example(text='{"type":"say","ref":' + "9" * 5_000 + "}")
def test_any_text_is_a_message_or_a_refusal(spoken: Codec, text: str | bytes) -> None:
    try:
        message = spoken.decode(text)
    except Refused as refusal:
        assert refusal.message
        problem(refusal)
    else:
        assert isinstance(message, get_args(ClientMessage))
        room = getattr(message, "room", None)
        assert room is None or 0 < len(room) <= 128


# ── the name of the room ──────────────────────────────────────────────────────────────────────────


def test_the_room_travels_under_the_name_that_the_hub_was_given() -> None:
    assert board.decode(say(type="join", boardId="b1", since="k:4")) == Join("b1", "k:4")
    assert board.decode(say(type="typing", boardId="b1")) == Message("typing", "b1", {})
    joined = Joined("b1", "k:4", True, (User("u", "Ann"),), 1)
    assert json.loads(board.encode(joined).text) == {
        "type": "joined",
        "boardId": "b1",
        "cursor": "k:4",
        "recovered": True,
        "users": [{"userId": "u", "name": "Ann"}],
        "roomSize": 1,
    }
    assert json.loads(board.encode(Error("no", "conflict", "b1")).text)["boardId"] == "b1"


def test_a_room_under_another_name_is_no_room() -> None:
    with pytest.raises(Malformed, match="boardId"):
        board.decode(say(type="join", room="b1"))
    assert board.decode(say(type="say", room="b1")) == Message("say", None, {"room": "b1"})
    assert board.decode(say(type="join", boardId="b1", room="b2")) == Join("b1")


def test_a_complaint_calls_the_room_by_the_name_that_the_client_used() -> None:
    for text in (say(type="join"), say(type="join", boardId=5), say(type="leave", boardId="")):
        with pytest.raises(Malformed, match="boardId"):
            board.decode(text)


def test_a_reply_is_not_touched_where_its_data_speak_of_a_room() -> None:
    data = {"room": "kitchen", "deeper": {"room": 5}}
    frame = board.encode(Reply(7, True, msgspec.Raw(json.dumps(data, separators=(",", ":")).encode())))
    assert json.loads(frame.text)["data"] == data


def test_words_that_look_like_the_room_are_not_touched() -> None:
    trap = '","room":"'
    frame = board.encode(Error(trap, trap, trap))
    assert json.loads(frame.text) == {"type": "error", "error": trap, "code": trap, "boardId": trap}
    frame = board.encode(Resync(trap, trap, trap))
    assert json.loads(frame.text) == {"type": "resync", "boardId": trap, "reason": trap, "cursor": trap}


# ── events ────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_is_its_payload_with_type_room_and_id() -> None:
    frame = board.encode_event("board-1", "task_moved", b'{"task":{"id":5},"order":[]}', Position("k3f9", 43))
    assert frame.text == (
        b'{"type":"task_moved","boardId":"board-1","id":"k3f9:43","task":{"id":5},"order":[]}'
    )  # fmt: skip


def test_what_is_only_broadcast_has_no_id() -> None:
    assert codec.encode_event("lobby", "wave", b'{"hand":"left"}').text == (
        b'{"type":"wave","room":"lobby","hand":"left"}'
    )
    assert codec.encode_event("lobby", "wave", b"{}").text == b'{"type":"wave","room":"lobby"}'


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
types = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True).filter(lambda type: type not in RESERVED_TYPES)
payloads = st.dictionaries(
    st.text(max_size=10).filter(lambda key: key not in ("type", "id", "room", "boardId")),
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.lists(st.text(), max_size=3),
    max_size=5,
)


@given(names, types, payloads, st.none() | st.integers(0, 2**63 - 1))
def test_an_event_carries_its_payload_unchanged(
    room: str, type: str, payload: dict[str, Any], offset: int | None
) -> None:
    position = None if offset is None else Position("k3f9", offset)
    frame = board.encode_event(room, type, board.encode_body(type, payload), position)
    id = {} if offset is None else {"id": f"k3f9:{offset}"}
    assert json.loads(frame.text) == {"type": type, "boardId": room, **id, **payload}
    assert frame.type == type


@pytest.mark.parametrize("type", sorted(RESERVED_TYPES))
def test_a_word_of_the_protocol_is_refused_as_an_events_type(type: str) -> None:
    with pytest.raises(Invalid, match=type) as refusal:
        codec.encode_body(type, {})
    assert refusal.value.field == "type"


@pytest.mark.parametrize("type", ["", "t" * 65, "two words", "naïve", "new\n", "\n", 'quote"', "back\\slash", None, 5])
def test_a_type_that_is_no_name_is_refused(type: Any) -> None:
    with pytest.raises(Invalid, match="64 letters"):
        codec.encode_body(type, {})


@pytest.mark.parametrize("key", ["type", "id", "boardId"])
def test_a_field_that_the_protocol_uses_is_refused_in_a_payload(key: str) -> None:
    class Payload(msgspec.Struct, rename=lambda _: key):
        value: int

    for data in ({key: 5}, {"a": 1, key: None}, Payload(5)):
        with pytest.raises(Invalid, match=key) as refusal:
            board.encode_body("wave", data)
        assert refusal.value.field == key
    assert board.encode_body("wave", {"room": 5}) == b'{"room":5}'  # on a board, that is an ordinary word


class Word(enum.Enum):
    """A key that is another than it looks."""

    TYPE = "type"


def test_a_field_that_the_protocol_uses_is_refused_in_whatever_a_payload_hides_it() -> None:
    for data in ({Word.TYPE: "forged"}, {"a": msgspec.Raw(b'1,"type":"forged"')}):
        with pytest.raises(Invalid, match="which the protocol uses itself"):
            codec.encode_body("wave", data)
    with pytest.raises(Invalid, match="is not JSON"):
        codec.encode_body("wave", {"a": msgspec.Raw(b"not json")})


class Tagged(msgspec.Struct, tag_field="type", tag="mine"):
    """Would bring a second `type` along."""


def test_a_payload_whose_tag_would_be_a_second_type_is_refused() -> None:
    with pytest.raises(Invalid, match="type"):
        codec.encode_body("wave", Tagged())


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("data", [nested(64), nested(900), 10**309, -(10**4000), [0, {"n": 10**400}]])
def test_a_payload_that_not_every_client_could_read_is_refused(data: Any) -> None:
    with pytest.raises(Invalid, match=r"nested deeper than 64|beyond 1e308"):
        codec.encode_body("wave", {"data": data})


@pytest.mark.parametrize("data", [nested(63), 10**308, "1" * 400, "[" * 400, [[]] * 100])
def test_a_payload_that_every_client_can_read_is_taken(data: Any) -> None:
    body = codec.encode_body("wave", {"data": data})
    event = codec.decode_server(codec.encode_event("lobby", "wave", body).text)
    assert isinstance(event, messages.Event)
    assert event.data == {"data": data}


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        "text",
        [1],
        [],
        {"a": object()},
        {"a": "\ud800"},
        {("a",): 1},
        {"a": 10**5000},
        {"a": msgspec.Raw(b"1" * 5000)},
        nested(100_000),
    ],
    ids=["none", "number", "text", "list", "empty list", "object", "surrogate", "key", "huge", "raw and huge", "deep"],
)
def test_a_payload_that_is_no_json_object_is_refused(data: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        codec.encode_body("wave", data)
    assert refusal.value.field == "data"


@pytest.mark.parametrize("encode", [str, str.encode])
def test_what_is_nested_deeper_than_everybody_can_read_is_neither_taken_nor_published(
    encode: Callable[[str], str | bytes],
) -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH  # the object that it is in is level 0, as in `holdfast_append`
    flat = "[" + ",".join(["[]"] * 1000) + "]"
    for good in (deepest, flat, json.dumps("[" * 1000), '{"a":' * 62 + "[1]" + "}" * 62):
        taken = codec.decode(encode(f'{{"type":"say","data":{good}}}'))
        assert isinstance(taken, Message)
        assert codec.encode_body("said", taken.data) == f'{{"data":{good}}}'.encode()
    for bad in (f"[{deepest}]", deepest.replace("[]", "[1]"), f"[[],{deepest}]", "[" * 900 + "]" * 900):
        with pytest.raises(Malformed, match="deeper than 64"):
            codec.decode(encode(f'{{"type":"say","data":{bad}}}'))
        with pytest.raises(Invalid, match=r"deeper than 64|recursion"):
            codec.encode_body("said", msgspec.Raw(f'{{"data":{bad}}}'.encode()))


def depth(value: Any) -> int:
    """How deep the deepest value in it is nested."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((1 + depth(each) for each in inner), default=0)


@given(
    st.dictionaries(
        st.text('ab[]{}"\\ ', max_size=5),
        st.recursive(
            st.none() | st.text('ab[]{}"\\ ,:'),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a[}"\\'), inner, max_size=3),
            max_leaves=12,
        ),
        max_size=3,
    ),
    st.sampled_from([None, 1]),
)
def test_as_deep_as_its_values_are_nested_is_what_is_said(data: dict[str, Any], indent: int | None) -> None:
    text = json.dumps({"type": "say", "data": data}, indent=indent)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("holdfast.protocol.codec.MAX_DEPTH", 3)
        if depth(data) < 3:
            assert isinstance(codec.decode(text), Message)
        else:
            with pytest.raises(Malformed, match="nested deeper"):
                codec.decode(text)


# ── frames ────────────────────────────────────────────────────────────────────────────────────────


def read_by_a_client(wire: bytes) -> list[WireFrame]:
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(wire)
    assert client.parser_exc is None
    return [event for event in client.events_received() if isinstance(event, WireFrame)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 65537, 200_000])
def test_a_frame_is_read_by_a_websocket_client(size: int) -> None:
    text = b"x" * size
    frame = Frame(text)
    (read,) = read_by_a_client(frame.wire)
    assert (read.opcode, read.fin, bytes(read.data)) == (Opcode.TEXT, True, text)
    assert frame.wire == WireFrame(Opcode.TEXT, text).serialize(mask=False)  # in the shortest form, RFC 6455 §5.2


def test_frames_that_are_joined_are_read_one_by_one() -> None:
    texts = [b"a" * size for size in (0, 125, 126, 65536, 3)]
    assert [bytes(frame.data) for frame in read_by_a_client(b"".join(Frame(text).wire for text in texts))] == texts


def test_a_frame_knows_what_it_says_it_is() -> None:
    assert codec.encode(Pong()).type == "pong"
    assert codec.encode(Joined("r", "k:4", True, (), 0)).type == "joined"
    assert board.encode_event('a"b', "task_moved", b"{}").type == "task_moved"


def test_a_refusal_is_said_in_words_and_with_a_code() -> None:
    assert problem(Conflict("you are not in lobby")) == Problem("you are not in lobby", "conflict")


# ── what the server says, as a client reads it ────────────────────────────────────────────────────

ANN = messages.User("ann", "Ann")
SPOKEN = [
    messages.Connected(
        session="s",
        user=ANN,
        heartbeat=messages.HeartbeatTerms(30, 10),
        limits=messages.Terms(1, 2, 3),
        room_key="boardId",
        token="t",
    ),
    messages.Joined("lobby", "k:1", True, (ANN,), 1),
    messages.Joined("lobby", "k:1", False, (), 0, "epoch"),
    messages.Left("lobby"),
    messages.Synced("lobby", "k:1", 3),
    messages.Resync("lobby", "trimmed", "k:9"),
    messages.Presence("lobby", (ANN,), 1),
    messages.PresenceChanges("lobby", (ANN,), (), 1),
    messages.UserJoined("lobby", "ann", "Ann", 1),
    messages.UserLeft("lobby", "ann", "Ann", 0),
    messages.UserTyping("lobby", "ann", "Ann"),
    messages.UserStoppedTyping("lobby", "ann", "Ann"),
    messages.ServerPing(),
    messages.Pong(),
    messages.Reply("r", True, {"n": [1, None]}),
    messages.Reply("r", False, error=messages.Problem("no", "invalid")),
    messages.Goodbye("restart", 1, 2),
    messages.Error("no", "invalid", "lobby"),
]


@pytest.mark.parametrize("room_key", ["room", "boardId"])
@pytest.mark.parametrize("message", SPOKEN, ids=lambda message: type(message).__name__)
def test_what_the_server_says_is_what_a_client_reads(message: Any, room_key: str) -> None:
    codec = Codec(room_key)
    assert codec.decode_server(codec.encode(message).text) == message


@pytest.mark.parametrize("room_key", ["room", "boardId"])
def test_an_event_is_read_with_what_it_carries(room_key: str) -> None:
    codec = Codec(room_key)
    frame = codec.encode_event("lobby", "said", b'{"text":"hi"}', Position("k", 3))
    assert codec.decode_server(frame.text) == messages.Event("lobby", "said", {"text": "hi"}, "k:3")
    frame = codec.encode_event("lobby", "waved", b"{}")
    assert codec.decode_server(frame.text) == messages.Event("lobby", "waved", {})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type":1}', '{"type":"joined"}', '{"type":"said"}', "\ud800"])
def test_what_no_server_says_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Codec().decode_server(text)


def connected(**changed: Any) -> str:
    fields = json.loads(Codec().encode(SPOKEN[0]).text)
    for path, value in changed.items():
        *within, name = path.split("__")
        inner = fields
        for key in within:
            inner = inner[key]
        inner[name] = value
    return json.dumps(fields)


def goodbye(after: Any, spread: Any = 0) -> str:
    return json.dumps({"type": "goodbye", "reason": "restart", "after_ms": after, "spread_ms": spread})


NOT_KEPT_TO = {
    "an interval of nothing": connected(heartbeat__interval=0),
    "a negative interval": connected(heartbeat__interval=-30),
    "an interval of an age": connected(heartbeat__interval=1e300),
    "a timeout of nothing": connected(heartbeat__timeout=0.0),
    "a timeout of more than an hour": connected(heartbeat__timeout=messages.LONGEST_SECONDS + 0.1),
    "no message at all": connected(limits__messagesPerSecond=0),
    "less than no message": connected(limits__messagesPerSecond=-1),
    "hardly any message": connected(limits__messagesPerSecond=5e-324),
    "a token with another header": connected(token="t\r\nX-Evil: 1"),
    "a token with a line's end": connected(token="t\n"),
    "a token that is no ASCII": connected(token="tök"),
    "an empty token": connected(token=""),
    "a token that fits into no head": connected(token="t" * 4097),
    "a session that no server takes": connected(session="s" * 65),
    "a session with a line's end": connected(session="s\n"),
    "back before now": goodbye(-1),
    "back in an age": goodbye(int("9" * 400)),
    "back in more than an hour": goodbye(3_600_001),
    "spread before now": goodbye(0, -1),
    "spread over an age": goodbye(0, int("9" * 400)),
}


@pytest.mark.parametrize("text", NOT_KEPT_TO.values(), ids=NOT_KEPT_TO)
def test_what_no_client_could_keep_to_is_not_in_the_protocol(text: str) -> None:
    with pytest.raises(Malformed):
        Codec().decode_server(text)


@pytest.mark.parametrize(
    "text",
    [
        connected(heartbeat__interval=messages.SHORTEST_SECONDS, heartbeat__timeout=messages.LONGEST_SECONDS),
        connected(limits__messagesPerSecond=messages.SLOWEST_RATE),
        connected(token="t" * 4096, session="s" * 64),
        goodbye(0), goodbye(3_600_000, 3_600_000),
    ],
)  # fmt: skip
def test_up_to_the_bounds_everything_is(text: str) -> None:
    Codec().decode_server(text)


@pytest.mark.parametrize("token", ["", "t\r\nX-Evil: 1", "t\n", "tök", "t" * 4097, None, b"t"])
def test_what_cannot_stand_in_a_header_is_no_token(token: Any) -> None:
    assert check_token("user:ann") == "user:ann"
    with pytest.raises(ValueError, match="4096 printable"):
        check_token(token)


def test_json_that_somebody_else_has_written_becomes_one_valid_line() -> None:
    codec = Codec()
    assert codec.encode_body("noted", {"a": msgspec.Raw(b'{\n"b":1,\r\n\n"c":2}')}) == b'{"a":{"b":1,"c":2}}'
    assert codec.encode_body("noted", msgspec.Raw(b"{ }")) == b"{}"
    assert codec.encode_event("lobby", "noted", b"{}").text == b'{"type":"noted","room":"lobby"}'
    with pytest.raises(Invalid, match="not JSON"):
        codec.encode_body("noted", msgspec.Raw(b"{ nothing"))


def test_a_broadcast_of_another_server_is_an_event_of_that_room_and_no_publication() -> None:
    said = codec.encode_event("lobby", "noted", b'{"n":1}')
    assert codec.read_broadcast("lobby", said.text.decode()).wire == said.wire
    published = codec.encode_event("lobby", "noted", b"{}", Position("abcd", 7)).text.decode()
    for text in (published, said.text.decode().replace("lobby", "attic"), "[]", "nonsense"):
        with pytest.raises(Malformed):
            codec.read_broadcast("lobby", text)
    for type in ("resync", "goodbye", 'a"b'):
        with pytest.raises(Invalid):
            codec.read_broadcast("lobby", json.dumps({"type": type, "room": "lobby"}))
