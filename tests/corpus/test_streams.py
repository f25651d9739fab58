"""An event stream says what was published, whatever that is, and nothing that its reader takes for something else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from corpus.target import Raw, Target, request
from corpus.test_http import status
from holdfast import Invalid, Malformed
from holdfast.protocol.codec import Codec

KEY = "the key of the corpus"
FORGERY = "id: 666\nevent: forged\ndata: forged\nretry: 1\n\n"
ENDS = {"LF": "\n", "CR": "\r", "CRLF": "\r\n", "NUL": "\0", "LS": "\u2028", "PS": "\u2029", "NEL": "\x85",
        "VT": "\x0b", "FF": "\x0c", "FS": "\x1c", "BOM": "\ufeff"}  # fmt: skip


def events(stream: str) -> list[dict[str, str]]:
    """Read a stream as the standard says: every line end ends a line, and an empty one ends an event."""
    found, event = [], {}
    for line in re.split("\r\n|\n|\r", stream):
        name, _, value = line.partition(":")
        if not line:
            found.append(event)
            event = {}
        elif name:
            assert name in ("id", "event", "data", "retry"), line
            assert name not in event, f"a second {name}"
            event[name] = value.removeprefix(" ")
    return [event for event in found if "event" in event]


class Reader:
    """Reads an event stream, byte by byte as it comes."""

    def __init__(self, peer: Raw) -> None:
        self._peer = peer

    def read(self, count: int) -> list[dict[str, str]]:
        """Return so many events, and that there is nothing else."""
        self._peer.until(b"event: last")
        body = self._peer.received.partition(b"\r\n\r\n")[2]
        text = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?\n\n)\r\n", body, re.DOTALL)).decode()
        *found, last = events(text)
        assert last["event"] == "last"
        assert len(found) == count
        return found


@contextmanager
def reading(target: Target, rooms: str = "lobby", *lines: str) -> Iterator[Reader]:
    with target.raw(request("GET", f"/events?rooms={rooms}", *lines)) as peer:
        peer.until(b"\nid: ")
        yield Reader(peer)


def publish(target: Target, type: str, data: bytes, room: str = "lobby") -> int:
    """Publish JSON as it stands; return the status."""
    body = json.dumps({"room": room, "type": type}).encode()[:-1] + b',"data":' + data + b"}"
    with target.raw(request("POST", "/publish", f"Authorization: Bearer {KEY}", body=body)) as peer:
        return status(peer.until(b"}"))


def test_CVE_2026_33128_the_name_of_an_event_has_no_line_ends(either: Target) -> None:
    with either.attacked(), reading(either) as stream:
        for end in ENDS.values():
            for type in (f"a{end}{FORGERY}", f"said{end}", end):
                assert publish(either, type, b"{}") == 422
        assert publish(either, "last", b"{}") == 201
        assert stream.read(0) == []


def test_GHSA_p6xx_57qc_3wxr_nor_has_a_room_or_an_id(either: Target) -> None:
    with either.attacked():
        for end in ENDS.values():
            quoted = "".join(f"%{byte:02x}" for byte in f"a{end}{FORGERY}".encode())
            for asked in (
                f"rooms={quoted}", f"room={quoted}", f"rooms=lobby,{quoted}", f"rooms=lobby&cursor={quoted}",
                f"rooms=lobby&cursor=e:{quoted}=1",
            ):  # fmt: skip
                with either.raw(request("GET", f"/events?{asked}", "Connection: close")) as peer:
                    peer.sock.settimeout(3)
                    answer = peer.until(b"\r\n\r\n")
                    assert status(answer) in (200, 400), asked
                    if b"event-stream" in answer:
                        answer = peer.until(b"\nid: ")
                    assert not re.search(rb"[\r\n](event|data|retry|id): ?(forged|666|1\n)", answer), answer


def test_CVE_2026_44214_data_has_no_line_ends(either: Target) -> None:
    with either.attacked(), reading(either) as stream:
        for end in ENDS.values():
            text = f"a{end}{FORGERY}{end}"
            assert publish(either, "said", json.dumps({"text": text, text: 1}).encode()) == 201
            if end > "\x1f":
                assert publish(either, "said", json.dumps({"text": end + text}, ensure_ascii=False).encode()) == 201
        assert publish(either, "last", b"{}") == 201
        found = stream.read(len(ENDS) + sum(end > "\x1f" for end in ENDS.values()))
        assert {event["event"] for event in found} == {"said"}
        assert [json.loads(event["data"])["type"] for event in found] == ["said"] * len(found)
        assert {json.loads(event["data"])["text"] for event in found} > {
            f"a{end}{FORGERY}{end}" for end in ENDS.values()
        }


def test_CVE_2026_44217_nothing_that_is_sent_becomes_a_comment_an_id_or_a_delay(either: Target) -> None:
    with either.attacked():
        for line in (
            "Last-Event-ID: x: y",
            "Last-Event-ID: :",
            "Last-Event-ID: 1;retry:1",
            f"Last-Event-ID: {'9' * 5_000}",
        ):
            with either.raw(request("GET", "/events?rooms=lobby", line, "Connection: close")) as peer:
                assert status(peer.until(b"\r\n\r\n")) == 400
        with reading(either) as stream:
            for data in (b'{"text":": comment","id2":"5\\nid: 7"}', b'{"retry":1,"event":"forged","data":"data: x"}'):
                assert publish(either, "said", data) == 201
            assert publish(either, "said", b'{"id":"666"}') == 422
            publish(either, "last", b"{}")
            assert [event["event"] for event in stream.read(2)] == ["said", "said"]


def test_JLSEC_2026_619_json_of_somebody_else_is_put_into_one_line(either: Target) -> None:
    """What is published as it came (`msgspec.Raw`) may be spread over lines, ended in any way."""
    with either.attacked(), reading(either) as stream:
        for end in ("\n", "\r", "\r\n"):
            assert publish(either, "said", f'{{{end}"a":{end}{end}1,{end}"b":[{end}]{end}}}'.encode()) == 201
        publish(either, "last", b"{}")
        for event in stream.read(3):
            data: Any = json.loads(event["data"])
            assert (data["a"], data["b"]) == (1, [])


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_codec_makes_one_line_of_whatever_it_takes(end: str) -> None:
    codec = Codec()
    for type in (f"a{end}b", end, f"{end}a", f"a{end}"):
        with pytest.raises(Invalid):
            codec.check_type(type)
    with pytest.raises(Malformed):
        codec.check_room(f"a{end}b")
    frame = codec.encode_event("lobby", "said", codec.encode_body("said", {f"a{end}": end}))
    assert not {b"\n", b"\r", b"\0"} & {bytes([byte]) for byte in frame.text}
