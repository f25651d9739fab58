"""Heads and bodies of requests: too long, too slow, or meant to be read by two servers in two ways."""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import time
from contextlib import ExitStack, suppress
from importlib.metadata import version

import pytest

from corpus.target import PONG, TEXT, Target, frame, say
from holdfast import Limits

LIMITS = Limits()
MIB = 1 << 20
CHUNKED = b"POST /send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def status(answer: bytes) -> int:
    """Return the status of the first answer."""
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found is not None, answer
    return int(found[1])


def cut_off(answer: bytes, code: int) -> bool:
    """Whether this is such an answer, or none: whoever still sends when it comes may lose it (RFC 9112 §9.6)."""
    return not answer or status(answer) == code


def listening(server: Target) -> None:
    """Wait until somebody listens by HTTP."""
    until = time.monotonic() + 3.0
    while not server.probe()["listeners"]:
        assert time.monotonic() < until, "nobody listens"


def get(path: str = "/nothing", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


# ── handshakes ────────────────────────────────────────────────────────────────────────────────────


def test_CVE_2024_37890_a_handshake_with_more_lines_than_any_limit(either: Target) -> None:
    with either.attacked():
        for count in (129, 2_000, 20_000):
            with either.raw(either.upgrade("/ws", *["a: b"] * count)) as peer:
                assert status(peer.answer()) == 400


def test_CVE_2021_32640_a_subprotocol_that_is_hard_to_split(either: Target) -> None:
    with either.attacked():
        for protocol in ("b," * 3_000, "b" + " " * 15_000 + "x", " ," * 7_000, "holdfast.1" + "\t" * 15_000 + ","):
            with either.raw(either.upgrade("/ws", f"Sec-WebSocket-Protocol: {protocol}")) as peer:
                assert status(peer.until(b"\r\n\r\n")) in (101, 400)


def test_CVE_2026_42544_a_subprotocol_that_is_not_ascii(either: Target) -> None:
    with either.attacked():
        for protocol in ("h\xf6ldfast", "\xff\xfe", "holdfast.1, \xe9", "holdfast.1\x00"):
            with either.raw(either.upgrade("/ws", f"Sec-WebSocket-Protocol: {protocol}")) as peer:
                assert status(peer.answer()) == 400


BAD_HOSTS = [
    "[",
    "[::1",
    "[]:1",
    "a:b",
    "a:99999",
    "a:-1",
    "",
    "a b",
    "a/b",
    "a?b",
    "a#b",
    "a@b",
    "\xff",
    "%",
    "\\",
    "[",
]


def test_CVE_2026_61666_a_host_that_is_none(either: Target) -> None:
    with either.attacked():
        for host in BAD_HOSTS:
            for origin in ("", "Origin: http://localhost\r\n"):
                head = f"GET /poll?rooms=a&wait=0 HTTP/1.1\r\nHost: {host}\r\n{origin}Connection: close\r\n\r\n"
                with either.raw(head.encode("latin-1")) as peer:
                    assert status(peer.answer()) in (403, 400) if origin else (200, 400)
            with either.raw(either.upgrade("/ws", "Origin: http://localhost", host=host or " ")) as peer:
                assert status(peer.answer()) in (400, 403)


def test_CVE_2026_48710_the_host_is_no_part_of_the_path(either: Target) -> None:
    assert version("starlette") not in ("1.0.0", "1.0.0rc1")
    with either.attacked():
        for host in ("localhost/publish?", "localhost/a#", "localhost/..", "x@localhost/publish"):
            with either.raw(f"GET /nothing HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()) as peer:
                answer = peer.answer()
                assert status(answer) in (404, 400)
                assert b"publish" not in answer


def test_CVE_2022_21676_requests_for_a_websocket_that_are_none(either: Target) -> None:
    upgrade = either.upgrade("/ws").decode()
    heads = [
        upgrade.replace("GET", "POST"),
        upgrade.replace("HTTP/1.1", "HTTP/1.0"),
        upgrade.replace("Version: 13", "Version: 8"),
        upgrade.replace("Version: 13", "Version: 13, 8"),
        re.sub("Key: .*", "Key: abc", upgrade),
        re.sub("Key: .*", "Key: dGhlIHNhbXBsZSBub25jZQ", upgrade),
        re.sub("Sec-WebSocket-Key: .*\r\n", "", upgrade),
        re.sub("(Sec-WebSocket-Key: .*\r\n)", r"\1\1", upgrade),
        re.sub("Sec-WebSocket-Version: .*\r\n", "", upgrade),
        upgrade.replace("Upgrade: websocket", "Upgrade: websocket, h2c"),
        upgrade.replace("/ws", "/ws%00"),
        upgrade.replace("/ws", "/events?room=a"),
    ]
    with either.attacked():
        for sent in heads:
            with either.raw(sent.encode()) as peer:
                assert 400 <= status(peer.until(b"\r\n\r\n")) < 500, sent
        with either.raw(upgrade.replace("Connection: Upgrade", "Connection: keep-alive, uPGRADE").encode()) as peer:
            peer.until(b'"connected"')


def test_two_handshakes_at_once_are_none(either: Target) -> None:
    with either.attacked():
        for sent in (either.upgrade() * 2, either.upgrade() + say(type="ping"), either.upgrade() + get()):
            with either.raw(sent) as peer:
                assert b'"connected"' not in peer.answer()


@pytest.mark.parametrize("is_divided", [False, True], ids=["at once", "divided"])
def test_a_handshake_behind_requests_is_answered_after_them(either: Target, is_divided: bool) -> None:
    poll = get("/poll?room=a&wait=0.1")
    with either.attacked():
        for asked in ([get()], [poll], [poll, get()], [poll, poll]):
            sent = [b"".join(asked), either.upgrade()]
            with either.raw(*sent if is_divided else [b"".join(sent)]) as peer:
                peer.until(b'"connected"')
                peer.send(say(type="ping")).until(b'"pong"')
                answers = re.findall(rb"HTTP/1\.1 (\d+) ", peer.received)
                assert answers == [b"200" if each is poll else b"404" for each in asked] + [b"101"]


def test_who_goes_on_behind_such_a_handshake_is_cut_off(either: Target) -> None:
    for behind in (get(), say(type="ping"), either.upgrade(), b"\0"):
        with either.attacked():
            for asked in (get(), get("/poll?room=a&wait=0.1"), get("/poll?room=a&wait=0.1") * 2):
                with either.raw(asked + either.upgrade() + behind) as peer:
                    assert b'"connected"' not in peer.answer()


def test_who_goes_on_while_such_a_handshake_waits_is_cut_off(swift: Target) -> None:
    for behind in (get(), say(type="ping"), swift.upgrade(), b"\0"):
        with swift.attacked(), swift.raw(get("/poll?room=a") + swift.upgrade()) as peer:
            listening(swift)
            assert not peer.send(behind).answer()


def test_a_handshake_that_waits_behind_a_request_deafens_nobody(either: Target) -> None:
    """Whatever follows it at once: others who say much are heard afterwards, too."""
    sent = CHUNKED + b"1\r\nx\r\n" * 1_200 + b"0\r\n\r\n" + either.upgrade("/ws") + b"\0" * 20_000
    with either.attacked(), ExitStack() as held:
        for peer in [held.enter_context(either.raw(sent)) for _ in range(3)]:
            with suppress(ConnectionError):
                peer.sock.recv(1)  # it is answered, or ended
        with either.raw(CHUNKED + b"1\r\nx\r\n" * 9_000 + b"0\r\n\r\n") as peer:
            peer.until(b"HTTP/1.1 ", 5.0)


def test_who_does_not_wait_for_the_answer_to_a_handshake_is_cut_off(either: Target) -> None:
    """RFC 6455 §4.1. What it goes on with is no input of the engine's yet, which would fail at it."""
    for path in ("/ws", "/echo"):
        for flood in (frame(PONG) * 50_000, b"\xff" * 100_000, frame(TEXT, b"{}", fin=False) * 20_000):
            with either.attacked(), either.raw(either.upgrade(path) + flood) as peer:
                assert b'"connected"' not in peer.answer()


def test_a_handshake_that_comes_a_byte_at_a_time_is_a_handshake(either: Target) -> None:
    with either.attacked(), either.raw() as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in either.upgrade():
            peer.send(bytes([byte]))
            time.sleep(0.0005)
        peer.until(b'"connected"')


# ── heads ─────────────────────────────────────────────────────────────────────────────────────────


BEGUN = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


def endless(part: bytes) -> list[bytes]:
    return [part * (100_000 // len(part))] * 20


@pytest.mark.parametrize(
    ("head", "part"),
    [(BEGUN, b"a: b\r\n"), (BEGUN, b"cookie: session=x\r\n"), (BEGUN, b"x" * 50), (b"GET /", b"x/")],
    ids=["lines", "cookies", "one line", "path"],
)
def test_CVE_2025_67725_a_head_without_end_is_not_kept(either: Target, head: bytes, part: bytes) -> None:
    with either.attacked(), either.raw(head, *endless(part)) as peer:
        assert cut_off(peer.answer(), 400)


def test_a_head_of_16_kib_is_waited_for_and_not_a_byte_more(either: Target) -> None:
    most = BEGUN + b"a: " + b"x" * (16 * 1024 - len(BEGUN) - 3)
    with either.attacked():
        with either.raw(most) as peer:
            for _ in range(3):
                either.probe()  # it came before that was asked, so it is read
            peer.send(b"\r\nConnection: close\r\n\r\n")
            assert status(peer.answer()) == 404
        with either.raw(most + b"x") as peer:
            assert cut_off(peer.answer(), 400)


def test_CVE_2025_67725_nor_is_a_line_that_is_folded_without_end(target: Target) -> None:
    with target.attacked(), target.raw(BEGUN, *endless(b"a:\r\n ")) as peer:
        assert cut_off(peer.answer(), 400)


def test_a_line_that_is_folded_is_none_where_httptools_reads_it(swift: Target) -> None:
    """RFC 9112 §5.2."""
    with swift.attacked(), swift.raw(BEGUN, b"a:\r\n b\r\n\r\n") as peer:
        assert cut_off(peer.answer(), 400)


def test_blank_lines_before_a_request_are_passed_over_however_many(either: Target) -> None:
    """RFC 9112 §2.2."""
    with either.attacked(), either.raw(*endless(b"\r\n")):
        pass


def test_the_longest_head_that_we_need_ourselves_is_taken(either: Target) -> None:
    cursor = "k3f9:" + "room=1;" * 580  # MAX_LENGTH of a cursor, in a header and in the path
    bearer = f"Authorization: Bearer {'x' * 4_000}"
    sent = get(f"/poll?rooms=a&wait=0&cursor={cursor}", f"Last-Event-ID: {cursor}", bearer, "Connection: close")
    with either.attacked(), either.raw(sent) as peer:
        assert status(peer.answer()) == 401


def test_CVE_2026_70399_the_limits_that_are_documented_are_those_of_the_server(target: Target) -> None:
    fields = {"type": "connected"}
    with target.attacked():
        with target.join("lobby", "user:ann") as client:
            client.send(json.dumps({"type": "auth", "token": "user:ann"}))
            while "limits" not in fields:
                fields = json.loads(client.recv(2))
        assert fields["limits"] == {"messageBytes": 64 * 1024, "messagesPerSecond": 50, "rooms": 100}
        for size, found in ((64 * 1024 - 20, 422), (64 * 1024 + 1, 413)):
            body = b'{"type":"x","a":"' + b"x" * (size - 19) + b'"}'
            sent = f"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            with target.raw(sent) as peer:
                assert status(peer.until(b"}")) == found


def test_requests_one_after_the_other_without_waiting_for_an_answer(either: Target) -> None:
    """httptools reads the next ones while the first is answered; they are not kept without number."""
    with either.attacked(memory=4_000), either.raw() as peer:
        peer.sock.settimeout(0.2)
        peer.send(*[get() * 2_000] * 20)  # whoever does not read is not read from


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────


def test_CVE_2026_115927_a_body_in_chunks_of_one_byte(either: Target) -> None:
    with either.attacked(), either.raw(CHUNKED + b"1\r\nx\r\n" * 70_000) as peer:
        assert cut_off(peer.answer(), 413)


def test_CVE_2025_69229_many_chunks_cost_no_more_than_their_bytes(either: Target) -> None:
    with either.attacked():
        chunked = CHUNKED + b"1\r\n{\r\n" + b"1\r\n \r\n" * 40_000 + b"1\r\n}\r\n0\r\n\r\n"
        with either.raw(chunked) as peer:
            assert b"type must be" in peer.until(b"}")


def test_CVE_2026_22815_trailers_without_end(either: Target) -> None:
    with either.attacked():
        for part in (b"a: b\r\n" * 10_000, b"x" * 60_000):
            with either.raw(CHUNKED + b"0\r\n", *[part] * 20) as peer:
                assert cut_off(peer.answer(), 400)


def test_chunks_with_endless_extensions(either: Target) -> None:
    with either.attacked(), either.raw(CHUNKED + b"1;", *[b"x" * 60_000] * 20) as peer:
        assert cut_off(peer.answer(), 400)


def test_CVE_2025_69228_a_form_in_many_parts_is_no_json(either: Target) -> None:
    parts = b"".join(b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\nx\r\n' % n for n in range(1_000))
    head = "POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with either.attacked(), either.raw(head.encode() + b"Content-Length: %d\r\n\r\n" % len(parts) + parts) as peer:
        assert status(peer.until(b"}")) == 400


def test_CVE_2026_39804_a_body_is_not_inflated(either: Target) -> None:
    bomb = gzip.compress(b" " * 60 * MIB)
    head = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    assert len(bomb) < LIMITS.body_bytes
    with either.attacked(), either.raw(head % len(bomb) + bomb) as peer:
        assert status(peer.until(b"}")) == 400


def test_CVE_2026_128131_nor_are_many_empty_members(either: Target) -> None:
    members = gzip.compress(b"") * 3_000
    head = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with either.attacked(), either.raw(head % len(members) + members) as peer:
        assert status(peer.until(b"}")) == 400


def test_CVE_2026_59725_a_request_that_is_bad_or_broken_off_leaves_nothing_open(either: Target) -> None:
    with either.attacked(), ExitStack() as peers:
        for sent in (
            b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
            b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n\xff",
            CHUNKED + b"5\r\n{",
            get("/poll?rooms=lobby"),
            get("/poll?room=lobby"),
            get("/events?rooms=lobby,attic"),
            get("/poll?rooms=lobby&cursor=nonsense"),
        ):
            for _ in range(2):
                peers.enter_context(either.raw(sent))
        time.sleep(0.3)


@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["before it is answered", "after it"])
def test_what_goes_wrong_in_a_body_or_behind_a_request_is_answered_once(either: Target, pause: float) -> None:
    """The fuzzer found it: a 400 behind, or in the middle of, another answer; or an answer behind the 400."""
    chunked = b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    requests = [b"POST /nothing" + chunked, b"POST /send" + chunked]
    if "--speed" in either.command:  # h11 reads what is behind a request when that is answered
        requests += [get("/events?rooms=a"), get("/poll?room=a")]
    with either.attacked():
        for begun in requests:
            with either.raw(begun) as peer:
                time.sleep(pause)
                peer.send(b"0\rx: \x00\r\n\r\n")
                peer.answer()
                assert peer.received.count(b"HTTP/1.1 ") <= 1, begun


def test_CVE_2024_7592_no_cookie_is_unquoted(either: Target) -> None:
    for name in ("session", "somebody-elses"):
        cookie = f'{name}="' + '\\"' * 7_900 + '"'
        with either.attacked(), either.raw(get("/poll?rooms=a&wait=0", f"Cookie: {cookie}")) as peer:
            assert status(peer.until(b"\r\n\r\n")) in (200, 401)


def test_requests_that_wait_for_their_turn_are_not_read(either: Target) -> None:
    """What is asked in one go is answered in its order; httptools would parse, and keep, all that comes meanwhile."""
    asked = get("/poll?rooms=a&wait=0") * 1_000
    with either.attacked(), either.raw() as peer:
        peer.sock.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < 400:
                peer.sock.sendall(asked)  # and none of the answers is read
                sent += 1
        assert sent < 400, "400,000 requests were taken in"


@pytest.mark.parametrize("end", ["closed", "reset"])
def test_nobody_answers_a_peer_that_has_gone_however_many_requests_it_left(either: Target, end: str) -> None:
    polls = get("/poll?room=a"), get("/poll?room=a&wait=1")
    with either.attacked():
        for left in (polls[0] * 2, polls[1] * 2, polls[0] + get(), polls[1] + polls[0] * 3):
            with either.raw(left) as peer:
                listening(either)
                if end == "reset":
                    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_what_is_wrong_behind_requests_that_wait_is_answered_once(either: Target) -> None:
    with either.attacked(), either.raw(get("/poll?room=a&wait=1") + get() + b"0\rx: \x00\r\n\r\n") as peer:
        answer = peer.answer()
        assert status(answer) in (200, 400)
        assert answer.count(b"HTTP/1.1 ") == (1 if "--speed" in either.command else 3)


# ── who reads it in another way ───────────────────────────────────────────────────────────────────

POST = "POST /send HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
LENGTHS = {
    "CL and TE": f"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{SMUGGLED}",
    "TE and CL": f"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{SMUGGLED}",
    "two lengths": "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "two lengths in one": "Content-Length: 2, 3\r\n\r\n{}x",
    "a signed length": "Content-Length: +2\r\n\r\n{}",
    "a length with a line": "Content-Length: 0_2\r\n\r\n{}",
    "a hexadecimal length": "Content-Length: 0x2\r\n\r\n{}",
    "a negative length": "Content-Length: -2\r\n\r\n{}",
    "a length without end": f"Content-Length: {'9' * 40}\r\n\r\n{{}}",
}
CODINGS = {
    "chunked, identity": f"Transfer-Encoding: chunked, identity\r\n\r\n{SMUGGLED}",
    "xchunked": f"Transfer-Encoding: xchunked\r\n\r\n{SMUGGLED}",
    "twice": f"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{SMUGGLED}",
    "vertical tab": f"Transfer-Encoding: \x0bchunked\r\n\r\n{SMUGGLED}",
    "space before the colon": f"Transfer-Encoding : chunked\r\n\r\n{SMUGGLED}",
    "with NUL": f"Transfer-Encoding: chunked\x00\r\n\r\n{SMUGGLED}",
    "0x size": "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "negative size": "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "size with a line": "Transfer-Encoding: chunked\r\n\r\n0_2\r\n{}\r\n0\r\n\r\n",
    "no end of a chunk": "Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
}
HEADS = {
    "chunks with HTTP/1.0": "POST /send HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two hosts": "GET /nothing HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "no host": "GET /nothing HTTP/1.1\r\n\r\n",
    "a space before the colon": "GET /nothing HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a name with a space": "GET /nothing HTTP/1.1\r\nHost: localhost\r\na b: c\r\n\r\n",
    "no colon": "GET /nothing HTTP/1.1\r\nHost: localhost\r\nabc\r\n\r\n",
    "a name that is not ASCII": "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\xe9: c\r\n\r\n",
    "NUL": "GET /nothing HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "bare CR": "GET /nothing HTTP/1.1\r\nHost: localhost\r\nX: a\rEvil: b\r\n\r\n",
    "a path that is not ASCII": "GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.1 in lower case": "GET /nothing http/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": "GET /nothing\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "a" * 200 + "\r\n\r\n",
}


def refused(either: Target, sent: dict[str, str]) -> None:
    with either.attacked():
        for name, head in sent.items():
            with either.raw(head.encode("latin-1")) as peer:
                answer = peer.answer()
                assert status(answer) == 400, name
                assert answer.count(b"HTTP/1.1 ") == 1, name
                assert b"smuggled" not in answer, name


def test_CVE_2024_23829_a_head_that_is_hardly_one_is_refused(either: Target) -> None:
    refused(either, HEADS)


def test_CVE_2023_47627_a_length_that_is_hardly_one_is_refused(either: Target) -> None:
    refused(either, {name: POST + head for name, head in LENGTHS.items()})


def test_CVE_2023_47641_a_coding_that_is_hardly_one_is_refused(either: Target) -> None:
    refused(either, {name: POST + head for name, head in CODINGS.items()})


LINES = {
    "a coding on the next line": f"{POST}Transfer-Encoding:\r\n chunked\r\n\r\n{SMUGGLED}",
    "a length on the next line": f"{POST}Content-Length:\r\n\t5\r\n\r\n{SMUGGLED}",
    "a length in a line that goes on": f"{POST}X: a\r\n Content-Length: 5\r\n\r\n{SMUGGLED}",
    "a length behind a bare LF": f"{POST}X: a\nContent-Length: 5\r\n\r\n{SMUGGLED}",
    "a coding behind a bare LF": f"{POST}X: a\nTransfer-Encoding: chunked\r\n\r\n{SMUGGLED}",
    "bare LFs only": f"{POST}Content-Length: 5\r\n\r\n{SMUGGLED}".replace("\r\n", "\n"),
    "an end of bare LFs": f"{POST}Content-Length: 5\n\n{SMUGGLED}",
}


def test_folded_lines_and_bare_line_feeds_are_refused(either: Target) -> None:
    """A server may take them (RFC 9112 §2.2, §5.2): one before us perhaps does not, and then reads other requests."""
    refused(either, LINES)


def test_a_bare_line_feed_in_a_trailer_is_refused(either: Target) -> None:
    sent = f"{POST}Content-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nX: a\n\r\n"
    with either.attacked(), either.raw(sent.encode() + SMUGGLED.encode()) as peer:
        answer = peer.answer()
        assert answer.count(b"HTTP/1.1 ") <= 1
        assert b"smuggled" not in answer


POLL = "/poll?rooms=a&wait=0"
ALIKE = {
    "an address": (f"GET http://localhost{POLL} HTTP/1.1", "", 200),
    "an address with a port": (f"GET HTTPS://[::1]:80{POLL} HTTP/1.1", "", 200),
    "an address for a WebSocket": ("GET http://localhost/ws HTTP/1.1", "upgrade", 101),
    "an address without a path": ("GET http://localhost HTTP/1.1", "", 400),
    "an address without a host": (f"GET http://{POLL} HTTP/1.1", "", 400),
    "an address with a user": (f"GET http://ann@localhost{POLL} HTTP/1.1", "", 400),
    "an address of another kind": (f"GET ftp://localhost{POLL} HTTP/1.1", "", 400),
    "a host alone": ("CONNECT localhost:80 HTTP/1.1", "", 400),
    "no path": ("GET poll?rooms=a&wait=0 HTTP/1.1", "", 400),
    "a fragment": (f"GET {POLL}#a HTTP/1.1", "", 400),
    "all of it": ("OPTIONS * HTTP/1.1", "", 404),
    **{f"HTTP/{version}": (f"GET {POLL} HTTP/{version}", "", 400) for version in ("0.9", "1.2", "2.0", "3.0")},
    "HTTP/1.2 for a WebSocket": ("GET /ws HTTP/1.2", "upgrade", 400),
    **{f"{code:#x} in a header": (f"GET {POLL} HTTP/1.1", f"X: a{code:c}b", 400) for code in (1, 8, 11, 27, 31, 127)},
    **{f"{code:#x} in a header": (f"GET {POLL} HTTP/1.1", f"X: a{code:c}b", 200) for code in (9, 32, 128, 255)},
    "a trailer that looks like a request": (
        "POST /send HTTP/1.1",
        'Transfer-Encoding: chunked\r\n\r\nf\r\n{"type":"ping"}\r\n0\r\nX: HTTP/1.1',
        200,
    ),
}


@pytest.mark.parametrize(("line", "more", "code"), ALIKE.values(), ids=ALIKE)
def test_what_is_asked_is_the_same_whoever_reads_it(
    target: Target, swift: Target, line: str, more: str, code: int
) -> None:
    for server in (target, swift):
        _, _, upgrade = server.upgrade().decode().partition("\r\n")
        rest = upgrade if more == "upgrade" else f"Host: localhost\r\nConnection: close\r\n{more or 'X: a'}\r\n\r\n"
        with server.attacked(), server.raw(f"{line}\r\n{rest}".encode("latin-1")) as peer:
            assert status(peer.until(b"\r\n\r\n")) == code


# ── what comes back in an answer, or in the log ───────────────────────────────────────────────────

EVIL = "%0d%0aSet-Cookie:%20evil=1%0d%0a%0d%0a<script>alert(1)</script>"


def test_CVE_2020_7695_nothing_that_is_asked_becomes_a_header(either: Target) -> None:
    with either.attacked():
        for sent in (
            get(f"/{EVIL}", "Connection: close"),
            get(f"/events?rooms={EVIL}", "Connection: close"),
            get(f"/poll?rooms=a&wait=0&cursor={EVIL}", "Connection: close"),
            get("/poll?rooms=a&wait=0", f"Origin: http://{EVIL}", "Connection: close"),
            get(f"/poll?rooms=a&wait=0&token={EVIL}", "Connection: close"),
            either.upgrade(f"/{EVIL}"),
        ):
            with either.raw(sent) as peer:
                head = peer.answer().partition(b"\r\n\r\n")[0]
                assert b"evil" not in head


def test_CVE_2020_35678_what_a_handshake_says_is_not_said_back(either: Target) -> None:
    lines = ["Sec-WebSocket-Protocol: evil, holdfast.1", "X-Evil: evil", "Sec-WebSocket-Extensions: evil"]
    with either.attacked(), either.raw(either.upgrade(f"/ws?x={EVIL}", *lines)) as peer:
        head = peer.until(b"\r\n\r\n").partition(b"\r\n\r\n")[0]
        assert b" 101 " in head
        assert b"Sec-WebSocket-Protocol: holdfast.1" in head
        assert b"evil" not in head


def test_CVE_2025_67724_what_is_wrong_is_said_as_json_and_never_in_the_status_line(either: Target) -> None:
    with either.attacked():
        for sent in (
            get("/<script>alert(1)</script>"),
            get("/poll?rooms=a&wait=<script>"),
            get("/snapshot?room=<script>"),
        ):
            with either.raw(sent) as peer:
                head, _, _ = peer.until(b"}").partition(b"\r\n\r\n")
                assert b"content-type: application/json" in head
                assert b"script" not in head


def test_CVE_2020_7694_what_is_asked_leaves_no_control_characters_in_the_log(either: Target) -> None:
    said = len(either.log.read_text())
    with either.attacked():
        for sent in (
            get("/%1b[31mred%0aline", "Connection: close"),
            either.upgrade("/%1b[31mred%0aINFO:%20forged"),
            either.upgrade("/ws", "Origin: http://evil.example/\x1b[31m"),
            either.upgrade("/echo%0aforged?%0aforged"),
            b"\x1b[31mred\r\n\r\n",
        ):
            with either.raw(sent) as peer:
                peer.answer()
    log = either.log.read_text()[said:]
    assert "\x1b" not in log
    assert not re.search("(?m)^(INFO: )?forged", log)
