"""
What is fed to what reads it, and what may come of that: a value, or a refusal. Nothing else, whatever it is.

Each of these takes bytes and asserts what has to be true of them, and that no step takes long (`at_once`);
`test_fuzz.py` and `fuzz.py` find the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import get_args
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import HTTPConnection
from websockets.frames import Frame as WireFrame
from websockets.protocol import CLIENT, Protocol

from corpus.served import at_once, served
from holdfast import Limits
from holdfast.board.models import (
    BoardPatch,
    ListMove,
    Login,
    NewBoard,
    NewList,
    NewTask,
    TaskMove,
    TaskPatch,
)
from holdfast.board.routes import _camel, _timestamp
from holdfast.core.replica import Replica
from holdfast.errors import Refused, Unauthorized
from holdfast.protocol.codec import MAX_DEPTH, Codec, problem
from holdfast.protocol.cursor import Cursor, Position, decode_cursor, decode_position, encode_cursor
from holdfast.protocol.messages import ClientMessage, Event, Message
from holdfast.server.auth import Origins, Tokens, find_token
from holdfast.web import convert, decode_body

CODECS = (Codec(), Codec("boardId"))
ORIGINS = Origins(("https://app.example",))
TOKENS = Tokens("ab" * 32)
BODIES = (BoardPatch, ListMove, Login, NewBoard, NewList, NewTask, TaskMove, TaskPatch)


def text_of(data: bytes) -> str:
    return data.decode("latin-1")


def client_messages(data: bytes) -> None:
    """What a client says is a message or a refusal, and a message can be published and read again by everybody."""
    for codec in CODECS:
        try:
            message = at_once(codec.decode, data)
        except Refused as refusal:
            assert problem(refusal).error
            continue
        assert isinstance(message, get_args(ClientMessage))
        if isinstance(message, Message):
            at_once(partial(msgspec.json.encode, order="deterministic"), (message.type, message.room, message.data))
            published(codec, message)


def published(codec: Codec, message: Message) -> None:
    """What an application publishes of a client's data as it came is read by clients as it was said."""
    try:
        codec.check_type(message.type)
        body = at_once(codec.encode_body, message.type, message.data)
    except Refused:
        return
    frame = at_once(codec.encode_event, "lobby", message.type, body, Position("k", 1))
    assert not {10, 13, 0} & set(frame.text), "it is one line of an event stream"
    assert frame.type == message.type
    assert codec.decode_server(frame.text) == Event("lobby", message.type, message.data, "k:1")
    assert msgspec.json.decode(frame.text) == json.loads(frame.text)
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(frame.wire)
    (read,) = client.events_received()
    assert isinstance(read, WireFrame)
    assert bytes(read.data) == frame.text


def server_messages(data: bytes) -> None:
    """What a server says is a message or a refusal, and a client that is told it goes on."""
    for codec in CODECS:
        try:
            message = at_once(codec.decode_server, data)
        except Refused:
            continue
        replica = Replica("lobby", resume=True)
        room = getattr(message, "room", None)
        if room is not None:
            try:
                at_once(replica.receive, message)
            except Refused:
                continue


def cursors(data: bytes) -> None:
    """A cursor is read or refused; what is read says the same again."""
    for text in (text_of(data), data.decode(errors="replace"), unquote_to_bytes(data).decode(errors="replace")):
        try:
            cursor = at_once(decode_cursor, text)
        except Refused:
            continue
        assert isinstance(cursor, Cursor)
        if cursor.offset is None:
            assert decode_cursor(encode_cursor(cursor.epoch, cursor.offsets)) == cursor
        else:
            assert decode_position(text, "lobby") == Position(cursor.epoch, cursor.offset)


def bodies(data: bytes) -> None:
    """A body of the board's is one of its commands, or refused with what is wrong."""
    try:
        fields = at_once(decode_body, data)
    except Refused:
        return
    camel = {_camel(name): value for name, value in fields.items()}
    for type in BODIES:
        try:
            value = at_once(convert, camel, type)
        except Refused as refusal:
            assert refusal.message
        else:
            assert b"\\u0000" not in msgspec.json.encode(value)


def asked(headers: list[tuple[bytes, bytes]], query: bytes = b"") -> HTTPConnection:
    """Return a request."""
    scope = {"type": "http", "path": "/", "scheme": "http", "server": ("localhost", 80)}
    return HTTPConnection({**scope, "query_string": query, "headers": headers})


def queries(data: bytes) -> None:
    """What stands in a query or a header is read or refused."""
    data = data[: Limits().head_bytes]
    headers = [(b"host", data[:40]), (b"origin", data)]
    request = asked(headers, data.replace(b" ", b""))
    at_once(ORIGINS.allow, request)
    places = [(b"authorization", b"Bearer " + data), (b"cookie", data), (b"cookie", b"session=" + data)]
    found = [at_once(find_token, asked([place])) for place in places] + [at_once(find_token, request)]
    for token in {*found, text_of(data)} - {None}:
        try:
            at_once(TOKENS.read, str(token))
        except Unauthorized:
            pass
        else:
            raise AssertionError("nobody has signed this")
    for text in (*request.query_params.values(), text_of(data)):
        with suppress(Refused):
            at_once(_timestamp, text)


def origins(data: bytes) -> None:
    """No origin is ours but those that are."""
    for scheme in (b"http://", b"https://", b""):
        headers = [(b"host", b"localhost:3000"), (b"origin", scheme + data)]
        request = HTTPConnection(
            {"type": "http", "path": "/", "scheme": "http", "headers": headers, "query_string": b""}
        )
        if at_once(ORIGINS.allow, request):
            said = (scheme + data).lower().decode()
            name, _, port = said.partition("://")[2].rpartition(":")
            ours = name in ("localhost", "127.0.0.1", "[::1]") and int(port) == 3000
            assert ours or said.removesuffix(":443") == "https://app.example", said


def depths(data: bytes) -> None:
    """What is taken is nested no deeper than everybody reads."""
    nested = b"[" * (len(data) % 200) + b"]" * (len(data) % 200)
    try:
        message = at_once(CODECS[0].decode, b'{"type":"x","a":' + (nested or b"0") + b"}")
    except Refused:
        assert len(data) % 200 > MAX_DEPTH
    else:
        assert isinstance(message, Message)
        assert len(data) % 200 <= MAX_DEPTH


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def requests(data: bytes) -> None:
    """Whatever comes to a server, it is answered in HTTP, or not at all, and leaves nothing."""
    for parts in ((data,), (data[: len(data) // 2], data[len(data) // 2 :])):
        for answer in served().hears(*parts):
            assert not answer or answer.startswith(b"HTTP/1.1 ")


def frames(data: bytes) -> None:
    """Whatever comes on a WebSocket, it is answered in frames, and leaves nothing."""
    for answer in served().hears(UPGRADE, data):
        head, _, sent = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        client = Protocol(CLIENT, max_size=None)
        client.receive_data(sent)
        assert client.parser_exc is None


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (client_messages, server_messages, cursors, bodies, queries, origins, depths, requests, frames)
}
