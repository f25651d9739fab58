"""Each message is one frozen value whose wire form is flat, camelCase, and says by `type` what it is."""

from __future__ import annotations

import types
import typing

import msgspec
import pytest

from holdfast.protocol import messages
from holdfast.protocol.messages import (
    RESERVED_TYPES,
    Connected,
    Error,
    Goodbye,
    HeartbeatTerms,
    Joined,
    Left,
    Presence,
    PresenceChanges,
    Problem,
    Reply,
    Resync,
    ServerMessage,
    Synced,
    Terms,
    User,
    UserJoined,
    UserLeft,
    UserStoppedTyping,
    UserTyping,
)

ANN = User("u1", "Ann")
BOB = User("u2", "Bob")
ann, bob = {"userId": "u1", "name": "Ann"}, {"userId": "u2", "name": "Bob"}

WIRE = [
    (
        Connected(
            session="s1", user=ANN, heartbeat=HeartbeatTerms(30.0, 10.0), limits=Terms(65536, 50.0, 100),
            room_key="boardId", token="t0ken",
        ),
        {
            "type": "connected", "session": "s1", "user": ann, "heartbeat": {"interval": 30.0, "timeout": 10.0},
            "limits": {"messageBytes": 65536, "messagesPerSecond": 50.0, "rooms": 100}, "roomKey": "boardId",
            "token": "t0ken",
        },
    ),
    (
        Joined("r", "k:4", False, (ANN, BOB), 2, "trimmed"),
        {
            "type": "joined", "room": "r", "cursor": "k:4", "recovered": False, "users": [ann, bob], "roomSize": 2,
            "reason": "trimmed",
        },
    ),
    (
        Joined("r", "k:4", True, (), 0),
        {"type": "joined", "room": "r", "cursor": "k:4", "recovered": True, "users": [], "roomSize": 0},
    ),
    (Left("r"), {"type": "left", "room": "r"}),
    (Synced("r", "k:4", 3), {"type": "synced", "room": "r", "cursor": "k:4", "count": 3}),
    (Resync("r", "epoch", "k:4"), {"type": "resync", "room": "r", "reason": "epoch", "cursor": "k:4"}),
    (Presence("r", (ANN,), 1), {"type": "presence", "room": "r", "users": [ann], "roomSize": 1}),
    (
        PresenceChanges("r", (ANN,), (BOB,), 1),
        {"type": "presence", "room": "r", "joined": [ann], "left": [bob], "roomSize": 1},
    ),
    (UserJoined("r", "u1", "Ann", 1), {"type": "user_joined", "room": "r", **ann, "roomSize": 1}),
    (UserLeft("r", "u1", "Ann", 0), {"type": "user_left", "room": "r", **ann, "roomSize": 0}),
    (UserTyping("r", "u1", "Ann"), {"type": "user_typing", "room": "r", **ann}),
    (UserStoppedTyping("r", "u1", "Ann"), {"type": "user_stopped_typing", "room": "r", **ann}),
    (messages.ServerPing(), {"type": "ping"}),
    (messages.ServerPing(quiet=True), {"type": "ping", "quiet": True}),
    (messages.Pong(), {"type": "pong"}),
    (Reply(7, True, msgspec.Raw(b'{"a":1}')), {"type": "reply", "ref": 7, "ok": True, "data": {"a": 1}}),
    (
        Reply("x", False, error=Problem("no", "conflict")),
        {"type": "reply", "ref": "x", "ok": False, "error": {"error": "no", "code": "conflict"}},
    ),
    (
        Goodbye("restart", 1000, 5000),
        {"type": "goodbye", "reason": "restart", "after_ms": 1000, "spread_ms": 5000},
    ),
    (Error("no", "conflict"), {"type": "error", "error": "no", "code": "conflict"}),
    (
        Error("no", "conflict", "r", 7),
        {"type": "error", "error": "no", "code": "conflict", "room": "r", "ref": 7},
    ),
]  # fmt: skip

identify = [type(message).__name__ for message, _ in WIRE]


@pytest.mark.parametrize(("message", "wire"), WIRE, ids=identify)
def test_a_message_is_one_flat_object_as_the_protocol_says(message: ServerMessage, wire: dict[str, object]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message)) == wire


@pytest.mark.parametrize(("message", "wire"), WIRE, ids=identify)
def test_the_type_is_the_first_word_of_a_message(message: ServerMessage, wire: dict[str, object]) -> None:
    assert msgspec.json.encode(message).startswith(b'{"type":"%s"' % str(wire["type"]).encode())


@pytest.mark.parametrize(("message", "wire"), WIRE, ids=identify)
def test_a_message_cannot_be_changed(message: ServerMessage, wire: dict[str, object]) -> None:
    for name in message.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(message, name, None)


def test_every_message_of_the_server_has_its_wire_form_above() -> None:
    union = typing.get_args(ServerMessage)
    assert isinstance(ServerMessage, types.UnionType)
    assert {type(message) for message, _ in WIRE} == set(union)


def test_no_application_may_use_a_word_of_the_protocol() -> None:
    tags = {
        kind.__struct_config__.tag
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__struct_config__.tag is not None
    }
    assert len(tags) > 15
    assert tags <= RESERVED_TYPES
