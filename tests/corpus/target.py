"""
A server that is attacked over raw sockets, and what must still be true of it afterwards.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from websockets.sync.client import ClientConnection, connect

from peers import Server

HERE = Path(__file__).parent
#: No input may keep the loop for longer, in seconds of CPU (see `probe`).
LONGEST = 0.050
#: What an attack may cost in memory, in KiB: a few connections with what is allowed to wait on each.
MEMORY = 12_000

#: Timers that are there or not, whatever anybody does: an alarm is one for all; a sleep is somebody's of the house.
COMING_AND_GOING = {"Alarm._rings", "_set_result_unless_cancelled"}

TEXT, BINARY, CLOSE, PING, PONG, CONT = 1, 2, 8, 9, 10, 0

_open = build_opener(ProxyHandler({})).open


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """Return a WebSocket frame, well formed or not."""
    return head(opcode, len(payload), fin=fin, rsv=rsv, mask=mask) + payload


def head(opcode: int, size: int, *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """Return how a frame begins. Its mask is zero: what is sent is what is meant (RFC 6455 §5.3)."""
    bit = 0x80 if mask else 0
    if size < 126:
        length = bytes([bit | size])
    elif size < 65536:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + (b"\0\0\0\0" if mask else b"")


def say(**message: Any) -> bytes:
    """Return a message in a frame."""
    return frame(TEXT, json.dumps(message).encode())


def request(method: str, path: str, *lines: str, body: bytes | None = None) -> bytes:
    """Return a request."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, *length, "", ""])
    return head.encode("latin-1") + (body or b"")


class Raw:
    """A socket that sends whatever it is told to."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.received = b""
        self.says_goodbye = False  # who was in a room and does not has five seconds of grace there

    def send(self, *parts: bytes) -> Self:
        """Send it; whether the other side still listens does not matter."""
        with suppress(OSError):
            for part in parts:
                self.sock.sendall(part)
        return self

    def answer(self, seconds: float = 3.0) -> bytes:
        """Return all that comes until the other side ends it; it must, by then."""
        self.sock.settimeout(seconds)
        with suppress(ConnectionError):
            while data := self.sock.recv(1 << 16):
                self.received += data
        return self.received

    def until(self, mark: bytes, seconds: float = 3.0) -> bytes:
        """Return all that comes until there is this in it."""
        deadline = time.monotonic() + seconds
        while mark not in self.received:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.sock.recv(1 << 16)
            assert data, f"it was ended after {self.received!r:.500}"
            self.received += data
        return self.received

    def closed(self, seconds: float = 3.0) -> int:
        """Wait for a close frame of the server's, and return its code; 1006 if there was none."""
        self.sock.settimeout(seconds)
        with suppress(ConnectionError):
            while not (code := self._close_code()):
                data = self.sock.recv(1 << 16)
                if not data:
                    break
                self.received += data
            return code or 1006
        return self._close_code() or 1006

    def _close_code(self) -> int:
        buffer = self.received.partition(b"\r\n\r\n")[2]
        while len(buffer) >= 2:
            size, start = buffer[1] & 0x7F, 2
            if size >= 126:
                start = 4 if size == 126 else 10
                size = int.from_bytes(buffer[2:start], "big")
            if len(buffer) < start + size:
                return 0
            if buffer[0] & 0x0F == CLOSE:
                return int.from_bytes(buffer[start : start + 2], "big") or 1005
            buffer = buffer[start + size :]
        return 0

    def close(self) -> None:
        if self.says_goodbye:
            self.send(frame(CLOSE, b"\x03\xe8"))
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Target(Server):
    """The application of `probe.py`, served with all defaults."""

    honest = ""  #: The query of those who mean well.

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, "serve", "probe:app", "--app-dir", str(HERE), *options)

    def raw(self, *parts: bytes) -> Raw:
        """Connect, and send it."""
        return Raw(self.port).send(*parts)

    def upgrade(self, path: str = "/ws", *lines: str, host: str | None = None) -> bytes:
        """Return the request for a WebSocket, with more lines in its head."""
        key = base64.b64encode(os.urandom(16)).decode()
        return "\r\n".join([
            f"GET {path} HTTP/1.1", f"Host: {host or f'localhost:{self.port}'}", "Upgrade: websocket",
            "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *lines, "", "",
        ]).encode("latin-1")  # fmt: skip

    def peer(self, *parts: bytes, path: str = "/ws") -> Raw:
        """Open a WebSocket, come back as often as it is told to, wait until it is known as a guest, and send it."""
        peer = self.raw(self.upgrade(path))
        is_ours = path.startswith("/ws")
        while is_ours and b'"goodbye"' in peer.until(b'","'):
            found = re.search(rb'"after_ms":(\d+)', peer.until(b'"spread_ms"'))
            assert found is not None
            peer.close()
            time.sleep(int(found[1]) / 1000)
            peer = self.raw(self.upgrade(path))
        peer.until(b'"connected"' if is_ours else b"\r\n\r\n")
        peer.says_goodbye = True
        return peer.send(*parts)

    def get(self, path: str) -> Any:  # type: ignore[override]
        with _open(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return json.load(response)

    def probe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/probe")
        return found

    def plant(self, what: str) -> None:
        """Have it do what it never must; or, with `nothing`, end that."""
        with suppress(HTTPError):
            self.get(f"/plant?what={what.replace(' ', '+')}")

    def guest(self, room: str, query: str = "") -> Raw:
        """Return an honest client that is in a room, and answers no pings: it does not stay long."""
        peer = self.peer(say(type="join", room=room), path=f"/ws{query}")
        peer.until(b'"type":"joined"')
        return peer

    @contextmanager
    def join(self, room: str, token: str = "") -> Iterator[ClientConnection]:
        """Have an honest client in a room."""
        url = f"ws://127.0.0.1:{self.port}/ws{token and f'?token={token}'}"
        with connect(url, proxy=None, max_size=None, compression=None) as client:
            client.send(json.dumps({"type": "join", "room": room}))
            heard(client, "joined")
            yield client

    @contextmanager
    def attacked(self, *, memory: int = MEMORY, longest: float = LONGEST, patience: float = 8.0) -> Iterator[Raw]:
        """
        While it is attacked, honest clients are served; and afterwards everything is as it was.

        The loop was never kept for long, nothing is held, nothing was logged as a failure, and no memory was taken.
        Those who left uncleanly have 5 s of grace in their rooms, within the `patience`.
        """
        said = len(self.log.read_text())
        with self.guest("lobby", self.honest) as honest:
            until = time.monotonic() + 8.0
            before = self.probe()
            is_at_rest = False
            while not is_at_rest and time.monotonic() < until:
                time.sleep(0.05)  # somebody of the attack before has grace, or something is about to be over
                earlier, before = before, self.probe()
                is_at_rest = before["users"] <= 1 and before["tasks"] == earlier["tasks"]
            yield honest
            works(honest)
            with self.guest("lobby", self.honest) as newcomer:
                works(newcomer)
            after = self.probe()
            worst = after
            until = time.monotonic() + patience
            while (held := differences(before, after)) and time.monotonic() < until:
                time.sleep(0.05)
                after = self.probe()
            assert not held, f"it still holds {held}"
            assert worst["longest"] < longest, f"the loop was kept for {worst['longest'] * 1000:.0f} ms"
            taken = worst["peak_kib"] - before["kib"]
            assert taken < memory, f"it took {taken} KiB"
        log = self.log.read_text()[said:]
        assert "Traceback" not in log, f"it says {log}"
        assert "ERROR" not in log, f"it says {log}"


class Strict(Target):
    """The same, where everybody has to say who they are; those who do are served as ever."""

    honest = "?token=user:ann"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env["HOLDFAST_CORPUS_LOGIN"] = "1"


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """
    Return what is held now that was not before, or is not any more.

    Sockets and timers may go: a browser keeps a connection, and it is closed when it was idle for 5 s.
    """
    held = {
        name: f"{before[name]} → {after[name]}"
        for name in ("tasks", "connections", "listeners", "rooms", "users", "sockets", "files", "threads")
        if before[name] != after[name] and not (name == "sockets" and after[name] < before[name])
    }
    for name in set(before["timers"]) | set(after["timers"]):
        counts = before["timers"].get(name, 0), after["timers"].get(name, 0)
        if counts[0] < counts[1] and name not in COMING_AND_GOING:
            held[name] = f"{counts[0]} → {counts[1]}"
    return held


def works(honest: Raw) -> None:
    """An honest client is answered at once, and is told of what is published."""
    honest.received = b""
    honest.send(say(type="say", room="lobby", text="hello", ref=1))
    honest.until(b'"type":"said"', 2.0)
    honest.until(b'"type":"reply","ref":1,"ok":true', 2.0)


def heard(client: ClientConnection, type: str, where: Callable[[Any], bool] = bool, seconds: float = 5.0) -> Any:
    """Return the next message of a type."""
    deadline = time.monotonic() + seconds
    while True:
        message = json.loads(client.recv(deadline - time.monotonic()))
        if message["type"] == type and where(message):
            return message
