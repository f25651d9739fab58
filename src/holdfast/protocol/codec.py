"""
How does a message become text, and text a message?

Both ways are total: any text gives a message or a `Refused` that says what is wrong
with it, never a crash. A publication is put into text once, whoever reads it.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any, TypeVar

import msgspec

from holdfast.errors import Invalid, Malformed, Refused
from holdfast.protocol import messages
from holdfast.protocol.cursor import Position
from holdfast.protocol.messages import RESERVED_TYPES, ClientMessage, Event, Message, ServerMessage

MAX_TYPE_LENGTH = 64
MAX_ROOM_LENGTH = 128
MAX_KEY_LENGTH = 255
MAX_SESSION_LENGTH = 64
#: Characters of a user's id, and of their name.
MAX_USER_LENGTH = 255
#: How deep what is said, and an event's payload, may be nested: what one parser bears, another may not.
MAX_DEPTH = 64
#: The largest number that every parser reads: many have only doubles.
MAX_NUMBER = 10**308

#: So many digits in a row has one that is larger.
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_HUGE = b"0" * len(str(MAX_NUMBER))
#: What may be a number, outside of strings. It takes all there is, so that looking for the next one never goes back.
_NUMBER = re.compile(rb"[0-9.eE+-]+")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
#: Objects nest as arrays do; what is not a bracket nests nothing.
_ARRAYS = bytes.maketrans(b"{}", b"[]")
_BLANK = b" \t\n\r"
_VALUES = bytes(set(range(256)) - set(b"[]"))
#: One deeper, and (as a signed byte) one less deep.
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")
_TYPE = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_TYPE_LENGTH}}}")
_SERVER_KEY = re.compile("[!-~]([ -~]*[!-~])?")
#: What no name has in it, and no database takes: control characters, halves of characters.
_UNSPEAKABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_Terms = TypeVar("_Terms", messages.HeartbeatTerms, messages.Terms)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_CONTROL: dict[str, type[Any]] = {
    "auth": messages.Auth,
    "join": messages.Join,
    "leave": messages.Leave,
    "sync": messages.Sync,
    "ping": messages.Ping,
    "pong": messages.Pong,
}

_SPOKEN: dict[str, type[Any]] = {
    "connected": messages.Connected,
    "joined": messages.Joined,
    "left": messages.Left,
    "synced": messages.Synced,
    "resync": messages.Resync,
    "user_joined": messages.UserJoined,
    "user_left": messages.UserLeft,
    "user_typing": messages.UserTyping,
    "user_stopped_typing": messages.UserStoppedTyping,
    "ping": messages.ServerPing,
    "pong": messages.Pong,
    "reply": messages.Reply,
    "goodbye": messages.Goodbye,
    "error": messages.Error,
}


class Frame:
    """
    One message, ready to be sent to anybody: its JSON text, and that text as a WebSocket frame.

    Frames of a server are not masked (RFC 6455 §5.1), so one serves all its readers.
    """

    __slots__ = ("text", "wire")

    def __init__(self, text: bytes) -> None:
        self.text = text
        size = len(text)
        if size < 126:
            self.wire = bytes((0x81, size)) + text
        elif size < 65536:
            self.wire = b"\x81\x7e" + size.to_bytes(2, "big") + text
        else:
            self.wire = b"\x81\x7f" + size.to_bytes(8, "big") + text

    @property
    def type(self) -> str:
        """What the text says it is: its first field, whose characters `check_type` has limited."""
        return self.text[9 : self.text.index(b'"', 9)].decode()


class Codec:
    """The words of one Hub, whose rooms travel under the name `room_key`."""

    def __init__(self, room_key: str = "room") -> None:
        self.room_key = room_key
        self._room_field = b'"' + room_key.encode() + b'":'
        self._reserved_keys = frozenset({"type", "id", room_key})

    # What the server says.

    def encode(self, message: ServerMessage | messages.Auth | messages.Join) -> Frame:
        """Return a message of the protocol as a frame."""
        text = _encode(message)
        if self.room_key != "room" and hasattr(message, "room"):
            # The first is the field: in a string, the quotes would be escaped.
            text = text.replace(b'"room":', self._room_field, 1)
        return Frame(text)

    def encode_event(self, room: str, type: str, body: bytes, position: Position | None = None) -> Frame:
        """
        Return an event as a frame: its payload plus `type`, the room and, if it is a publication, `id`.

        `body` is the payload, a JSON object that `encode_body` has checked.
        """
        head = b'{"type":' + _encode(type) + b"," + self._room_field + _encode(room)
        if position is not None:
            head += b',"id":"' + str(position).encode() + b'"'
        return Frame(head + (b"}" if body == b"{}" else b"," + body[1:]))

    def read_broadcast(self, room: str, text: str) -> Frame:
        """
        Return the frame of an event that another server has put into text, or raise a `Refused`.

        One with an `id` would move positions past what was published.
        """
        fields = self._object(text)
        self.check_type(fields.get("type"))  # type: ignore[arg-type]
        if fields.get(self.room_key) != room or "id" in fields:
            raise Malformed("this is not a broadcast to that room")
        return Frame(text.encode())

    def encode_body(self, type: str, data: Any) -> bytes:
        """
        Return an event's payload as JSON text.

        Raises `Invalid` for a payload that is not an object, that uses a word of the protocol, or that not every client
        could read: it would stay in the log.
        """
        self.check_type(type)
        try:
            body = _encode(data)
            if isinstance(data, msgspec.Raw) or b"\n" in body or b"\r" in body:
                body = msgspec.json.format(body, indent=-1)  # somebody else's JSON; here it is one line
            keys = _decode(body)  # of what is kept: what was given may encode to something else
            is_huge = _is_huge(body)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Invalid(f"the data of {type!r} is not JSON: {error}", field="data") from None
        if not body.startswith(b"{"):
            raise Invalid(f"the data of {type!r} must be an object, for it becomes one flat event", field="data")
        if _is_deep(body):
            raise Invalid(f"the data of {type!r} is nested deeper than {MAX_DEPTH}", field="data")
        if is_huge:
            raise Invalid(f"the data of {type!r} has a number beyond 1e308", field="data")
        for key in self._reserved_keys.intersection(keys):
            raise Invalid(f"the data of {type!r} has the field {key!r}, which the protocol uses itself", field=key)
        return body

    def check_type(self, type: str) -> None:
        """Raise `Invalid` unless an application may call its event `type`."""
        if not isinstance(type, str) or not _TYPE.fullmatch(type):
            raise Invalid(f"an event's type is 1 to {MAX_TYPE_LENGTH} letters, digits and any of _.:-", field="type")
        if type in RESERVED_TYPES:
            raise Invalid(f"{type!r} is a word of the protocol; call your event something else", field="type")

    # What a client says.

    def decode(self, text: str | bytes) -> ClientMessage:
        """Read what a client sent, or raise a `Refused` that says what is wrong with it."""
        fields = self._object(text)
        if _is_deep(text):
            raise Malformed(f"Invalid JSON: nested deeper than {MAX_DEPTH}")
        type = fields.get("type")
        if not isinstance(type, str) or not 0 < len(type) <= MAX_TYPE_LENGTH:
            raise Malformed(f"type must be a string of 1 to {MAX_TYPE_LENGTH} characters", field="type")
        room = fields.get(self.room_key)
        if room is not None:
            self.check_room(room)
        message = _CONTROL.get(type)
        if message is None:
            return self._application(type, room, fields)
        if type == "sync" and "since" not in fields and "lastEventId" in fields:
            fields["since"] = fields["lastEventId"]
        session = fields.get("session") if type == "auth" else None
        if isinstance(session, str) and not _is_name(session, MAX_SESSION_LENGTH):
            raise Malformed(f"session must be 1 to {MAX_SESSION_LENGTH} printable characters", field="session")
        decoded: ClientMessage = self._convert(fields, message)
        return decoded

    def decode_server(self, text: str | bytes) -> ServerMessage | Event:
        """Read what a server sent: a message of the protocol, or an event; raises `Malformed` for anything else."""
        fields = self._object(text)
        type = fields.get("type")
        if not isinstance(type, str):
            raise Malformed("type must be a string", field="type")
        if type == "presence":
            message: Any = messages.PresenceChanges if "joined" in fields else messages.Presence
        else:
            message = _SPOKEN.get(type)
        if message is None:
            data = {name: value for name, value in fields.items() if name not in self._reserved_keys}
            message, fields = Event, {**fields, "data": data}
        decoded: ServerMessage | Event = self._convert(fields, message)
        return decoded

    def _convert(self, fields: dict[str, Any], message: Any) -> Any:
        if self.room_key != "room":
            fields.pop("room", None)
            if self.room_key in fields:
                fields["room"] = fields[self.room_key]
        try:
            return msgspec.convert(fields, message)
        except msgspec.ValidationError as error:
            raise Malformed(f"{fields['type']}: {self._named(str(error))}") from None

    def check_room(self, room: object) -> str:
        """Return `room` if it can be a room's name, or raise `Malformed`."""
        if not isinstance(room, str) or not _is_name(room, MAX_ROOM_LENGTH):
            raise Malformed(
                f"{self.room_key} must be a name of 1 to {MAX_ROOM_LENGTH} printable characters", field=self.room_key
            )
        return room

    def _application(self, type: str, room: str | None, fields: dict[str, Any]) -> Message:
        ref, key = fields.pop("ref", None), fields.pop("key", None)
        if ref is not None and (isinstance(ref, bool) or not isinstance(ref, str | int) or len(str(ref)) > 64):
            raise Malformed("ref must be a number or a string of at most 64 characters", field="ref")
        if key is not None and not (isinstance(key, str) and _is_name(key, MAX_KEY_LENGTH)):
            raise Malformed(f"key must be a string of 1 to {MAX_KEY_LENGTH} printable characters", field="key")
        data = {name: value for name, value in fields.items() if name not in self._reserved_keys}
        return Message(type, room, data, ref, key)

    def _named(self, complaint: str) -> str:
        return complaint.replace("`room`", f"`{self.room_key}`").replace("$.room", f"$.{self.room_key}")

    @staticmethod
    def _object(text: str | bytes) -> dict[str, Any]:
        try:
            fields = _decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            raise Malformed(f"Invalid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise Malformed("Invalid JSON: a message is an object")
        return fields


def _is_name(text: str, length: int) -> bool:
    return 0 < len(text) <= length and text.isprintable()


def check_token(token: object) -> str:
    """Return `token` if it can be sent as one, or raise `ValueError`."""
    if not isinstance(token, str) or not re.search(messages.IN_A_HEADER, token):
        raise ValueError("a token is 1 to 4096 printable characters of ASCII")
    return token


def check_server_key(key: str) -> str:
    """Return a key that a header can carry, or raise `ValueError`."""
    if not _SERVER_KEY.fullmatch(key):
        raise ValueError("a server key goes in a header: it is of ASCII, has no spaces around it, and is not empty")
    return key


def check_user(user: messages.User) -> messages.User:
    """
    Return `user` if everybody can be told of them, and every store takes them, or raise `ValueError`.

    In a name more is allowed than in an id: what joins characters, and says which way they run, is not printable.
    """
    if not isinstance(user.user_id, str) or not _is_name(user.user_id, MAX_USER_LENGTH):
        raise ValueError(f"a user's id is 1 to {MAX_USER_LENGTH} printable characters")
    if not isinstance(user.name, str) or len(user.name) > MAX_USER_LENGTH or _UNSPEAKABLE.search(user.name):
        raise ValueError(f"a user's name is at most {MAX_USER_LENGTH} characters, and none of them a control character")
    return user


def check_room_key(key: str) -> str:
    """Return `key` if rooms can travel under it, or raise `ValueError`."""
    return msgspec.convert(key, messages.RoomKey)


def check_terms(terms: _Terms) -> _Terms:
    """Return what a server says that holds, if clients can keep to it, or raise `ValueError`."""
    return msgspec.convert(msgspec.to_builtins(terms), type(terms))


def _is_deep(text: str | bytes) -> bool:
    """
    Whether a value in this JSON is nested deeper than is allowed.

    Its brackets are counted, and nothing is walked: whoever may say 64 KiB can make it thousands of lists.
    """
    brackets = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, brackets)) <= MAX_DEPTH:  # type: ignore[arg-type]
        return False
    bare = _STRING.sub(b"0", text.encode() if isinstance(text, str) else text).translate(_ARRAYS, _BLANK)
    steps = bare.replace(b"[]", b"").translate(_STEPS, _VALUES)  # one that is empty nests nothing
    return max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH


def _is_huge(text: bytes) -> bool:
    """Whether a number in this JSON is larger than everybody can read."""
    if _HUGE not in text.translate(_DIGITS):
        return False
    numbers = (_decode(word) for word in _NUMBER.findall(_STRING.sub(b"", text)) if len(word) >= len(_HUGE))
    return any(isinstance(number, int) and abs(number) > MAX_NUMBER for number in numbers)


def problem(error: Refused) -> messages.Problem:
    """Return a refusal as the protocol says it."""
    return messages.Problem(error.message, error.code)
