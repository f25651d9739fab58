"""
The corpus: what was a hole elsewhere, and how it is attacked here, or why there is nothing to attack.

An entry that applies has a test named by its id (`test_table.py` sees to it). `docs/security-corpus.md` is this table;
`python -m tests.corpus.entries` writes it anew.
"""

# ruff: noqa: E501 - it is a table

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve()
DOCUMENT = HERE.parents[2] / "docs" / "security-corpus.md"


@dataclass(frozen=True)
class Entry:
    """
    One hole of somebody else's.

    Attributes:
        here: How it is attacked here; of one that does not apply, why not.
        is_sent: Whether something is sent over a socket; else a function is asked, or the sources are read.
    """

    id: str
    where: str
    what: str
    here: str
    applies: bool = True
    is_sent: bool = True

    @property
    def test(self) -> str:
        """How the names of its tests begin."""
        return "test_" + self.id.replace("-", "_")


def no(id: str, where: str, what: str, why: str) -> Entry:
    """Return an entry that does not apply."""
    return Entry(id, where, what, why, applies=False)


GROUPS: dict[str, list[Entry]] = {
    "Fragments and sizes": [
        Entry("CVE-2026-48779", "ws", "a flood of tiny fragments takes all memory", "50,000 of a byte: 1009 after 64"),
        Entry("CVE-2026-62389", "ws", "fragments that are begun and never ended",
              "40 connections with half a message each: kept; whoever goes on, in bytes or in frames, is ended with 1009"),
        Entry("CVE-2026-12151", "undici", "the number of fragments was not limited",
              "50,000 empty ones, at the server; and from a server at the Python client"),
        Entry("CVE-2026-42786", "Bandit", "continuations that never have FIN", "60 of 1.2 KB: together one message, 1009"),
        Entry("CVE-2026-63495", "libevent", "fragments add up past a limit that is per frame",
              "fragments with pongs between them: the count goes on"),
        Entry("CVE-2026-44545", "daphne", "the limit on messages was never passed on",
              "64 KiB pass and one byte more does not, with no limit configured by anybody"),
        Entry("CVE-2021-21419", "eventlet", "a frame that says it is huge is made room for",
              "frames that announce up to a tebibyte: 1009 at once, no memory"),
        Entry("CVE-2026-1528", "undici", "lengths of 64 bits overflow", "2^63 and more, at the server and at the client"),
    ],
    "Compression": [
        Entry("CVE-2018-1000518", "websockets", "a small message inflates to all memory",
              "it is never agreed on, at the server or by the Python client; RSV1 is 1002"),
        Entry("CVE-2026-39804", "Bandit", "6 MiB inflate to gibibytes", "`Content-Encoding: gzip` of 60 MiB: read as it is, and no JSON"),
        Entry("CVE-2026-1526", "undici", "a server's message inflates without limit",
              "the Python client asks for no compression, by HTTP neither, and ends the link at RSV1"),
        Entry("CVE-2026-2229", "undici", "a bad `server_max_window_bits` ends the process",
              "offered to the server: not taken up; answered to the Python client: no handshake"),
        Entry("GHSA-mq44-7p77-q5h7", "aiohttp", "RSV1 without an agreement was taken", "in text, continuations and pings: 1002"),
        Entry("CVE-2026-128131", "aiohttp", "many empty members of gzip cost quadratic time", "3,000 of them: not inflated"),
        no("CVE-2026-27571", "nats-server", "compression before anybody has signed in",
           "there is no compression at all; that of nobody more than 4 KiB are taken is tested beside it"),
        no("CVE-2026-33219", "nats-server", "the same in another form", "there is no compression at all"),
    ],
    "Handshakes, heads and bodies": [
        Entry("CVE-2024-7592", "CPython", "a cookie in quotes takes time that grows with its square", "15 KB of quotes in quotes, in our cookie and in another"),
        Entry("CVE-2024-37890", "ws", "more lines than the limit end the process", "up to 20,000 lines in an upgrade: 400"),
        Entry("CVE-2021-32640", "ws", "a regular expression on Sec-WebSocket-Protocol runs for seconds",
              "commas and blanks by the thousand: 101 or 400, at once"),
        Entry("CVE-2026-42544", "granian", "a subprotocol that is not ASCII aborts a worker", "400"),
        Entry("CVE-2026-61666", "websocket-driver", "a bad Host throws", "15 of them, on every road: an answer each, no failure"),
        Entry("CVE-2026-48710", "starlette", "the Host changes the path that guards see", "Host with paths and queries in it: 404 all the same"),
        Entry("CVE-2022-21676", "engine.io", "an odd upgrade ends the process", "12 odd ones: 4xx each"),
        Entry("CVE-2020-7694", "uvicorn", "escape sequences reach the log", "%1b and line ends in paths: not in the log"),
        Entry("CVE-2020-7695", "uvicorn", "CR LF in what becomes a header", "%0d%0a everywhere: in no head of an answer"),
        Entry("CVE-2020-35678", "autobahn", "what the handshake says is said back", "nothing of it is in the 101 but `holdfast.1`"),
        Entry("CVE-2025-67725", "tornado", "heads cost quadratic time", "endless heads of five kinds: cut off after 16 KiB, none keeps the loop"),
        Entry("CVE-2025-67724", "tornado", "a reason with markup in it", "reasons are ours, and what is wrong is said as JSON"),
        Entry("CVE-2026-115927", "tornado", "a body in chunks of one byte stalls the loop", "70,000 chunks: never more than some milliseconds in a turn"),
        Entry("CVE-2025-69228", "aiohttp", "forms in many parts take all memory", "a form is no JSON: 400"),
        Entry("CVE-2025-69229", "aiohttp", "many chunks cost too much", "40,000 chunks: an answer, and no stall"),
        Entry("CVE-2026-22815", "aiohttp", "trailers without limit", "lines and one endless line: 400 after 16 KiB"),
        Entry("CVE-2024-23829", "aiohttp", "a lenient parser lets requests be smuggled", "14 bad heads: 400, once, and the connection ends"),
        Entry("CVE-2023-47627", "aiohttp", "lengths that two parsers read in two ways", "9 of them, Content-Length with Transfer-Encoding too"),
        Entry("CVE-2023-47641", "aiohttp", "codings that two parsers read in two ways", "10 of them"),
        Entry("CVE-2026-70399", "OTP httpd", "a documented limit was not enforced", "what `connected` says is what holds; every limit of `Limits` has a test"),
    ],
    "What is said": [
        no("CVE-2026-33151", "socket.io-parser", "a message announces any number of attachments", "there are no attachments; binary frames are refused"),
        no("CVE-2026-69185", "socket.io-parser", "the same in another form", "there are no attachments"),
        Entry("CVE-2024-38355", "socket.io", "an event called `error` ends the process", "every word of the server's in a client's mouth, and as an event's type"),
        Entry("CVE-2026-48804", "python-socketio", "half-sent attachments stay", "half-sent messages go with their connection"),
        Entry("GHSA-cgwc-pv48-fhj5", "python-engineio", "a thread for each PONG, before anybody has signed in", "a hundred pongs: not one task more"),
        Entry("CVE-2026-59725", "engine.io", "a bad POST of a poll leaves its socket", "bad and broken-off requests of seven kinds: nothing stays open"),
        Entry("CVE-2026-56811", "Phoenix", "no limit on joins", "the 101st is refused, and a flood of them ended"),
        Entry("CVE-2026-56812", "Phoenix JS", "a presence key `constructor` or `__proto__` ends the client",
              "8 such names as room, user, event and field, in both clients; Chromium on both roads"),
        Entry("GHSA-gr94-w7qr-f4j3", "engine.io", "a session `__proto__`", "such sessions are nobody's"),
        Entry("CVE-2025-61765", "python-socketio", "pickle from the broker is run", "no module here imports what unpickles", is_sent=False),
        Entry("CVE-2024-27454", "orjson", "JSON that is nested without end", "depth up to 60,000: refused, at 65 as well"),
        Entry("CVE-2021-45958", "ujson", "JSON that is nested deep is written past a buffer", "what is just allowed reaches every reader on every road"),
        Entry("CVE-2018-1270", "Spring STOMP", "a selector is evaluated", "no module here evaluates anything", is_sent=False),
    ],
    "Whose it is": [
        Entry("CVE-2019-13611", "python-engineio", "cross-site WebSocket hijacking", "58 origins that are not ours: refused before 101"),
        Entry("GHSA-f53g-frr2-jhpf", "Gitpod", "the same, by a prefix of the origin", "the same 58 on event streams, polls and messages"),
        Entry("CVE-2022-42975", "Phoenix < 1.6.14", "a wildcard origin took what only ended like it", "13 that look like the one that is named, on REST and CORS too"),
        no("CVE-2026-32301", "Centrifugo", "claims that nobody has verified become a URL", "no URL is ever made of a claim"),
        no("CVE-2026-49998", "Centrifugo", "one issuer's key is taken for another's", "there is one key, and no issuers"),
        Entry("CVE-2020-35681", "Channels", "data of another request", "20 users who ask at once, in five rooms: each gets their own"),
        Entry("CVE-2021-33880", "websockets", "a secret is compared byte by byte", "`hmac.compare_digest`, and no `==`, wherever a secret is compared (judged by the syntax tree)"),
        Entry("CVE-2022-29217", "PyJWT", "the token says how it is signed", "23 tokens, from `none` to a key of its own", is_sent=False),
        Entry("CVE-2023-28858", "redis-py", "a cancelled request leaves its answer to the next one", "300 queries of the store, a third of them cancelled", is_sent=False),
        Entry("CVE-2023-28859", "redis-py", "the same in another form", "requests broken off between others'"),
    ],
    "Event streams": [
        Entry("CVE-2026-33128", "h3", "line ends in an event's name", "11 kinds of line end, in names"),
        Entry("GHSA-p6xx-57qc-3wxr", "Hono", "line ends in an id", "in rooms and cursors"),
        Entry("CVE-2026-44214", "eventsource-encoder", "line ends in data", "in values and keys, escaped and as they are"),
        Entry("CVE-2026-44217", "sse-channel", "fields and comments are forged", "`Last-Event-ID` and data that look like them"),
        Entry("JLSEC-2026-619", "HTTP.jl", "a bare CR ends a line", "JSON of somebody else, spread over lines in three ways"),
    ],
}  # fmt: skip
ENTRIES = [entry for group in GROUPS.values() for entry in group]

#: What `fuzz.py` has tried with atheris, how often, and what it found.
FUZZED = [
    ("client_messages", "what a client says", 2_872_697, "nothing"),
    ("server_messages", "what a server says", 3_753_964, "nothing"),
    ("cursors", "positions and cursors", 1_677_388, "nothing"),
    ("bodies", "bodies of the board's requests", 3_183_415, "nothing"),
    ("queries", "queries, cookies, tokens, times", 585_844, "nothing"),
    ("origins", "origins", 1_802_856, "nothing"),
    ("depths", "nesting", 711_225, "nothing"),
    ("requests", "whatever comes to a server, on h11 and httptools", 6_140,
     "a 400 behind another answer, and an answer behind a 400, within 140 of them; since then nothing"),
    ("frames", "whatever comes on a WebSocket, on h11 and httptools", 5_283, "nothing"),
]  # fmt: skip


def document() -> str:
    """Return the table, as a page of the documentation."""
    applying = sum(entry.applies for entry in ENTRIES)
    asked = [entry.id for entry in ENTRIES if not entry.is_sent]
    lines = [
        "# What was a hole elsewhere",
        "",
        f"{len(ENTRIES)} holes that real-time servers, their parsers and clients have had. {applying} of them have something to",
        f"attack here, and a test of that name in `tests/corpus`. In {applying - len(asked)} it attacks over raw sockets: a server with its default",
        "limits, on asyncio with h11 and, where that reads it in another way, on uvloop with httptools, or the Python client. In the",
        f"others ({', '.join(asked)}) the sources are read, or a function is",
        f"asked, and nothing is sent. {len(ENTRIES) - applying} have nothing to attack here, and it is said why.",
        "",
        "After each attack on a server an honest client is served at once and a new one let in; tasks, timers, sockets, files, threads, rooms",
        "and people are as many as before; nothing was logged as a failure; a few MiB of memory were taken at most; and no turn of",
        "the event loop has taken more than 50 ms (100 where hundreds come or speak in one",
        "moment: they are served in turns). That is measured inside the server, in CPU time of the loop's thread",
        "(`time.thread_time`): on a machine that others use too, the clock would measure them. A turn in which nothing is computed,",
        "as when a disk is waited for, it does not see. That each of these is seen is tested too, by planting it",
        "(`test_probe.py`). Of the Python client the same is asked, in its own process, but for one: the library that it stands on",
        "reads what has come in one turn, and a server that sends 100,000 empty fragments can keep it for 0.3 s, once a link; by",
        "HTTP, one that sends 200,000 times `100 Continue` before an answer, or 19,000 lines in its head, for 0.08 s.",
        "",
        "What is not an attack on one of these (frames that are none, slow and byte-wise handshakes, markup, forms of other sites,",
        "tokens in logs, odd JSON) is beside them in the same files.",
        "",
        "## What was looked for, and found",
        "",
        "`python -m tests.corpus.fuzz --seconds 600` looks for more: with atheris (`pip install atheris`) led by what it reaches,",
        "without by Hypothesis, as every run of the tests does for some seconds. What is tried has up to 64 KiB there, and 4 with",
        "atheris; it must be read or refused, and no step may take more than 50 ms, measured as above. With atheris 3.0.0 on Python 3.11, two minutes",
        "each:",
        "",
        "| | inputs | found |",
        "|---|---|---|",
        *(f"| `{name}`: {what} | {count:,} | {found} |" for name, what, count, found in FUZZED),
    ]  # fmt: skip
    for name, entries in GROUPS.items():
        lines += ["", f"## {name}", "", "| | where, and what it was | here |", "|---|---|---|"]
        for entry in entries:
            here = entry.here if entry.applies else f"*Does not apply:* {entry.here}."
            lines.append(f"| {entry.id} | {entry.where}: {entry.what} | {here} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
