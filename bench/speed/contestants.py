"""Who is measured, and how each is started, listened to and told to publish: as its own documentation says."""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import HERE, Program, Running, free_port, post, sender, server

sys.path.insert(0, str(HERE.parent / "silent_death"))

import systems

#: Bytes of a message.
SIZE = 128
SERVERS = HERE / "servers"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "holdfast-silent-death"


@dataclass
class Started:
    """A contestant that serves."""

    running: Running
    port: int
    contestant: Contestant

    def go(self, rounds: int, burst: int, gap: float, size: int) -> None:
        """Have it publish so many rounds of so many messages to everybody, one every `gap` seconds (0: at once)."""
        self.contestant.go(self.port, rounds, burst, gap, size)


class Contestant:
    """
    One that is measured.

    Attributes:
        slug: Its name on the command line.
        name: Its name in the table.
        crowd: What its clients say, for `crowd.c`.
        overhead: Bytes of its messages beside those that are padded.
        echo: What a client says to have it said back, with the number of what it says (`%n`).
        echoed: What is in the answer.
        dear: A delivery costs it so much that fewer are measured.
        only: The figures that are measured of it, if not all are.
    """

    slug: str
    name: str
    crowd: tuple[str, ...] = ("--path", "/ws")
    overhead = 28
    echo = echoed = "echo %n."
    dear = False
    only: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    like: systems.System | None = None  # whose environment it has
    python = Path(sys.executable)

    def install(self) -> None:
        """Have what it needs."""
        if self.like is not None:
            self.like.install(CACHE)
            self.python = self.like.python

    def versions(self) -> str:
        """What is measured."""
        return systems.said([str(self.python), "-c", systems.VERSIONS, *self.packages])

    def line(self, port: int, home: Path) -> list[str]:
        """How it is started."""
        raise NotImplementedError

    def env(self) -> dict[str, str]:
        """What its environment has beside."""
        return {"PYTHONPATH": str(SERVERS)}

    def go(self, port: int, rounds: int, burst: int, gap: float, size: int) -> None:
        """Have it publish."""
        padding = max(0, size - self.overhead)
        post(port, f"/go?rounds={rounds}&burst={burst}&gap={gap}&size={padding}")

    @contextmanager
    def serving(self, home: Path) -> Iterator[Started]:
        """Run it."""
        port = free_port()
        with server(self.line(port, home), self.env(), port, home) as running:
            yield Started(running, port, self)


class Holdfast(Contestant):
    slug = "holdfast"
    name = "**holdfast**"
    crowd = (
        "--path", "/live/ws?token=user-%d", "--header", "Sec-WebSocket-Protocol: holdfast.1",
        "--step", '"connected"', '{"type":"join","room":"room"}', "--step", '"joined"', "",
        "--answer", '{"type":"ping"}', '{"type":"pong"}',
    )  # fmt: skip
    overhead = 73
    echo = '{"type":"echo","ref":1,"p":"x%n"}'
    echoed = '"p":"x%n"'
    packages = ("holdfast", "uvicorn", "uvloop", "websockets")
    options: tuple[str, ...] = ()

    def line(self, port: int, home: Path) -> list[str]:
        line = [str(self.python), "-m", "holdfast", "serve", "holdfast_app:app", "--port", str(port)]
        return [*line, "--log-level", "warning", *self.options]

    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{HERE.parents[1] / 'src'}:{SERVERS}"}


class HoldfastPlain(Holdfast):
    slug = "holdfast-plain"
    name = "**holdfast**, without `[speed]`"
    options = ("--no-speed",)
    packages = ("holdfast", "uvicorn", "h11", "websockets")


class Board(Holdfast):
    """The task board, and nothing changed in it."""

    crowd = (
        "--path", "/ws", "--header", "Sec-WebSocket-Protocol: holdfast.1", "--mark", "at=",
        "--step", '"connected"', '{"type":"join","boardId":"board-1"}', "--step", '"joined"', "",
        "--answer", '{"type":"ping"}', '{"type":"pong"}',
    )  # fmt: skip

    def line(self, port: int, home: Path) -> list[str]:
        return [str(self.python), "-m", "holdfast", "board", "--port", str(port), "--log-level", "warning"]


class Loop(Contestant):
    """No server: what a loop in Python comes to that hands one ready frame to each transport."""

    slug = "loop"
    name = "*a loop of `write` in Python*, uvloop"
    only = ("fanout", "burst")
    packages = ("uvloop",)

    def line(self, port: int, home: Path) -> list[str]:
        return [str(self.python), str(SERVERS / "loop.py"), str(port)]


class Floor(Contestant):
    """The floor, measured as the others are: what differs from 1 is the machine."""

    slug = "floor"
    name = "*the floor*, once more"
    _program: Program
    only = ("fanout",)

    def versions(self) -> str:
        return systems.said(["cc", "--version"]).splitlines()[0]

    @contextmanager
    def serving(self, home: Path) -> Iterator[Started]:
        port = free_port()
        with sender(port, SIZE) as self._program:
            yield Started(Running(self._program.process), port, self)

    def go(self, port: int, rounds: int, burst: int, gap: float, size: int) -> None:
        self._program.ask(f"go {rounds * burst} {round(1e6 * gap)}")


class Websockets(Contestant):
    slug = "websockets"
    name = "`websockets.broadcast`"
    packages = ("websockets",)

    def line(self, port: int, home: Path) -> list[str]:
        return [str(self.python), str(SERVERS / "websockets_app.py"), str(port)]

    def go(self, port: int, rounds: int, burst: int, gap: float, size: int) -> None:
        super().go(port + 1, rounds, burst, gap, size)


class FastAPI(Contestant):
    slug = "fastapi"
    name = "FastAPI, `ConnectionManager`"
    packages = ("fastapi", "starlette", "uvicorn", "websockets")
    like = systems.FastAPI()
    app = "fastapi_app:app"

    def line(self, port: int, home: Path) -> list[str]:
        command = [str(self.python.with_name("uvicorn")), self.app, "--port", str(port)]
        return [*command, "--log-level", "warning"]


class PythonSocketIO(FastAPI):
    slug = "python-socketio"
    name = "python-socketio"
    crowd = (
        "--path", "/socket.io/?EIO=4&transport=websocket", "--step", "0{", "40", "--step", "40{", "",
        "--answer", "2", "3",
    )  # fmt: skip
    overhead = 36
    echo = '42["echo","x%n"]'
    echoed = '"x%n"'
    dear = True
    packages = ("python-socketio", "uvicorn")
    like = systems.PythonSocketIO()
    app = "socketio_app:app"


class DjangoChannels(FastAPI):
    slug = "channels"
    name = "Django Channels, in memory"
    crowd = ("--path", "/ws", "--header", "Origin: http://127.0.0.1")
    dear = True
    packages = ("channels", "daphne", "django")
    like = systems.DjangoChannels()

    def line(self, port: int, home: Path) -> list[str]:
        daphne = str(self.python.with_name("daphne"))
        return [daphne, "channels_app:application", "--port", str(port), "--verbosity", "0"]


class SocketIO(Contestant):
    slug = "socket.io"
    name = "Socket.IO"
    crowd = (*PythonSocketIO.crowd, "--mark", '"at=":"')
    overhead = 39
    echo = '42["echo","x%n"]'
    echoed = '"x%n"'
    kind = "socket.io"

    like = systems.SocketIO()

    def install(self) -> None:
        self.like.install(CACHE)

    def versions(self) -> str:
        return self.like.versions()

    def line(self, port: int, home: Path) -> list[str]:
        return [self.like.node, str(SERVERS / "node.js"), self.kind, str(port)]

    def env(self) -> dict[str, str]:
        return {"NODE_PATH": str(self.like.modules)}


class NodeWs(SocketIO):
    slug = "ws"
    name = "node `ws`"
    crowd = ("--path", "/ws", "--mark", '"at=":"')
    overhead = 31
    echo = echoed = Contestant.echo
    kind = "ws"


class Nchan(Contestant):
    slug = "nchan"
    name = "nginx + nchan (C)"
    crowd = ("--path", "/sub?id=room")
    echo = ""  # it answers nothing

    like = systems.NchanLonger()

    def install(self) -> None:
        self.like.install(CACHE)

    def versions(self) -> str:
        return self.like.versions().rpartition(",")[0]

    def line(self, port: int, home: Path) -> list[str]:
        line = list(self.like.serve(home, port, 0).line)
        config = (home / "nginx.conf").read_text()
        many = "worker_rlimit_nofile 20000;\nevents {\n  worker_connections 15000;"
        (home / "nginx.conf").write_text(config.replace("events {", many))
        return line

    def go(self, port: int, rounds: int, burst: int, gap: float, size: int) -> None:
        link, due = http.client.HTTPConnection("127.0.0.1", port), time.monotonic()
        for _ in range(rounds):
            at = time.monotonic_ns()
            for turn in range(burst):
                link.request("POST", "/pub?id=room", b'{"at":%d,"p":"%s"}' % (at + turn, b"x" * (size - self.overhead)))
                answer = link.getresponse()
                if answer.status not in (200, 201, 202):
                    raise RuntimeError(f"a publication was refused: {answer.status}")
                answer.read()
            due += gap
            time.sleep(max(0.0, due - time.monotonic()))


CONTESTANTS: list[Contestant] = [
    Holdfast(),
    HoldfastPlain(),
    Floor(),
    Loop(),
    Websockets(),
    FastAPI(),
    PythonSocketIO(),
    DjangoChannels(),
    SocketIO(),
    NodeWs(),
    Nchan(),
]
