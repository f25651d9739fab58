"""
PROTOCOL.md and the code say the same.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec

from holdfast.protocol import messages
from holdfast.protocol.codec import _CONTROL
from holdfast.protocol.codes import CloseCode

DOCUMENT = (Path(__file__).parent.parent.parent / "PROTOCOL.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """Return the rows of the table below a heading: first cell, second cell."""
    section = re.split(r"^## ", DOCUMENT, flags=re.M)
    (body,) = [part for part in section if part.startswith(heading + "\n")]
    return {first.strip("`"): second for first, second in re.findall(r"^\| (\S+) \|([^|]*)\|", body, re.M)[1:]}


def fields(kind: type[msgspec.Struct]) -> set[str]:
    """Return the fields of a message as they are on the wire; optional ones with a question mark."""
    return {
        ("room" if field.name == "room" and field.required else f"`{field.encode_name}{'' if field.required else '?'}`")
        for field in msgspec.structs.fields(kind)
    }


def documented(cell: str) -> set[str]:
    return {part for part in re.findall(r"`[^`]+`|\broom\b", cell) if part != "`lastEventId`"}


def test_every_message_of_the_client_is_described_with_its_fields() -> None:
    table = rows("From client to server")
    assert set(table) == set(_CONTROL)
    for type, kind in _CONTROL.items():
        assert documented(table[type]) == fields(kind), type


def test_every_message_of_the_server_is_described_with_its_fields() -> None:
    table = rows("From server to client")
    kinds = {kind.__struct_config__.tag: kind for kind in get_args(messages.ServerMessage)
             if kind is not messages.PresenceChanges}  # fmt: skip
    assert set(table) == set(kinds)
    for type, kind in kinds.items():
        assert documented(table[type]) == fields(kind), type
    assert {field.encode_name for field in msgspec.structs.fields(messages.PresenceChanges)} == {
        "room",
        "joined",
        "left",
        "roomSize",
    }


def test_every_close_code_is_described() -> None:
    assert {int(code): name.strip() for code, name in rows("Close codes").items()} == {
        int(code): code.name for code in CloseCode
    }


def test_reserved_types_are_the_protocols_words() -> None:
    assert set(rows("From client to server")) | set(rows("From server to client")) <= messages.RESERVED_TYPES
