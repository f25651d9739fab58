"""The systems: how each is installed, started, listened to and published to, and on whose word it is done so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOUSE = HERE.parents[1]
VERSIONS = "import sys, importlib.metadata as m; print(*(n + ' ' + m.version(n) for n in sys.argv[1:]), sep=', ')"


class CannotRun(Exception):
    """Something is missing here, which the message names."""


@dataclass(frozen=True)
class Command:
    """A process to be started."""

    line: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


class System:
    """
    One that is measured.

    Attributes:
        slug: Its name on the command line.
        name: Its name in the table.
        folder: Where its configuration is, below `systems/`.
        says: How it is set up, and which page says so.
        packages: Whose versions are printed.
    """

    slug: str
    name: str
    folder: str
    says: str
    packages: tuple[str, ...] = ()
    url = "ws://127.0.0.1:{port}/"
    publish = "/publish"
    members = "/members"

    @property
    def files(self) -> Path:
        """The folder of its configuration."""
        return HERE / "systems" / self.folder

    def install(self, cache: Path) -> None:
        """Have in `cache` what it needs; does nothing if it is there already."""
        self.python = venv(cache / self.folder, self.files / "requirements.txt")

    def versions(self) -> str:
        """What is measured."""
        return said([str(self.python), "-c", VERSIONS, *self.packages])

    def prepare(self, home: Path, port: int) -> Command | None:
        """What has to run beside it, on this port, and is never hurt."""
        return None

    def serve(self, home: Path, port: int, beside: int) -> Command:
        """The server, on this port."""
        raise NotImplementedError

    def listen(self, urls: list[str]) -> Command:
        """Those who listen, at these addresses."""
        return Command([str(self.python), str(HERE / "listen.py"), "websockets", json.dumps(urls)])

    def count(self, answer: bytes) -> int:
        """How many are in the room, of what `members` answers."""
        return int(answer)

    def script(self, name: str) -> str:
        """A command of its environment."""
        return str(self.python.with_name(name))


class Holdfast(System):
    slug = "holdfast"
    name = "holdfast"
    folder = "holdfast"
    says = (
        "[README](../README.md): `holdfast serve app:app`, its Python client. Who is there: `hub.members(room)`, which "
        "is people, not connections"
    )
    packages = ("holdfast", "uvicorn", "websockets")
    url = "ws://127.0.0.1:{port}/live/ws"

    def install(self, cache: Path) -> None:
        here = Path(sys.executable)
        if not subprocess.run([here, "-c", "import holdfast, fastapi"], capture_output=True, check=False).returncode:
            self.python = here
        else:
            self.python = venv(cache / self.folder, None, "fastapi", str(HOUSE))

    def serve(self, home: Path, port: int, beside: int) -> Command:
        line = [self.script("holdfast"), "serve", "--port", str(port), "--host", "127.0.0.1"]
        return Command([*line, "--app-dir", str(self.files), "app:app"])

    def listen(self, urls: list[str]) -> Command:
        return Command([str(self.python), str(HERE / "listen.py"), "holdfast", json.dumps(urls)])


class PythonSocketIO(System):
    slug = "python-socketio"
    name = "python-socketio"
    folder = "python-socketio"
    says = (
        "[its documentation on servers](https://python-socketio.readthedocs.io/en/stable/server.html): `AsyncServer`, "
        "`ASGIApp`, uvicorn; its own `AsyncClient`, which reconnects. Who is there: the participants of its room"
    )
    packages = ("python-socketio", "python-engineio", "uvicorn", "aiohttp")
    url = "http://127.0.0.1:{port}"

    def serve(self, home: Path, port: int, beside: int) -> Command:
        line = [self.script("uvicorn"), "--app-dir", str(self.files), "--port", str(port), "app:app"]
        return Command(line)

    def listen(self, urls: list[str]) -> Command:
        return Command([str(self.python), str(HERE / "listen.py"), "python-socketio", json.dumps(urls)])


class SocketIO(System):
    slug = "socket.io"
    name = "Socket.IO, connection state recovery"
    folder = "socket.io"
    says = (
        "[tutorial](https://socket.io/docs/v4/tutorial/step-3) and [connection state recovery]"
        "(https://socket.io/docs/v4/connection-state-recovery) (two minutes, the built-in adapter); its own client on "
        "Node. Who is there: `fetchSockets()` of its room. Told: `recovered` is false after a reconnect"
    )
    url = "http://127.0.0.1:{port}"

    def install(self, cache: Path) -> None:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise CannotRun("it needs node and npm")
        self.node, self.modules = node, cache / self.folder / "node_modules"
        wanted = (self.files / "package.json").read_text()
        if not (stamp := cache / self.folder / "installed").exists() or stamp.read_text() != wanted:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.files / "package.json", stamp.parent)
            run([npm, "install", "--no-audit", "--no-fund", "--silent"], cwd=stamp.parent)
            stamp.write_text(wanted)

    def versions(self) -> str:
        found = []
        for name in ("socket.io", "socket.io-client", "ws"):
            package = json.loads((self.modules / name / "package.json").read_text())
            found.append(f"{name} {package['version']}")
        return ", ".join([*found, f"Node {said([self.node, '--version'])}"])

    def serve(self, home: Path, port: int, beside: int) -> Command:
        return Command([self.node, str(self.files / "server.js"), str(port)], {"NODE_PATH": str(self.modules)})

    def listen(self, urls: list[str]) -> Command:
        line = [self.node, str(self.files / "listen.js"), json.dumps(urls)]
        return Command(line, {"NODE_PATH": str(self.modules)})


class DjangoChannels(System):
    slug = "channels"
    name = "Django Channels"
    folder = "django-channels"
    says = (
        "[tutorial, part 3](https://channels.readthedocs.io/en/stable/tutorial/part_3.html): the asynchronous "
        "consumer, Redis as channel layer, Daphne. The tutorial's page does not reconnect; a `websockets` client does, "
        "with [the loop of its documentation](https://websockets.readthedocs.io/en/stable/reference/asyncio/client.html"
        "). Who is there: the group in the channel layer. Redis is not hurt, and not counted"
    )
    packages = ("channels", "channels-redis", "daphne", "django", "websockets")
    url = "ws://127.0.0.1:{port}/ws/chat/room/"

    def install(self, cache: Path) -> None:
        redis = shutil.which("redis-server")
        if redis is None:
            raise CannotRun("it needs redis-server (Debian: apt install redis-server)")
        self.redis = redis
        super().install(cache)

    def versions(self) -> str:
        redis = said([self.redis, "--version"]).split("v=")[1].split()[0]
        return f"{super().versions()}, Redis {redis}"

    def prepare(self, home: Path, port: int) -> Command:
        return Command([self.redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)])

    def serve(self, home: Path, port: int, beside: int) -> Command:
        env = {"PYTHONPATH": str(self.files), "REDIS_PORT": str(beside)}
        return Command([self.script("daphne"), "-b", "127.0.0.1", "-p", str(port), "asgi:application"], env)


class FastAPI(System):
    slug = "fastapi"
    name = "FastAPI, `ConnectionManager`"
    folder = "fastapi"
    says = (
        "[its page on WebSockets](https://fastapi.tiangolo.com/advanced/websockets/), *Handling disconnections and "
        "multiple clients*, word for word, `fastapi run`; the same client as for Channels. Who is there: "
        "`manager.active_connections`"
    )
    packages = ("fastapi", "starlette", "uvicorn", "websockets")
    url = "ws://127.0.0.1:{port}/ws/1"

    def serve(self, home: Path, port: int, beside: int) -> Command:
        line = [self.script("fastapi"), "run", "--host", "127.0.0.1", "--port", str(port), str(self.files / "main.py")]
        return Command(line)


class Nchan(System):
    slug = "nchan"
    name = "nginx + nchan"
    folder = "nchan"
    says = (
        "[its README](https://nchan.io/#getting-started): two locations, everything else as it is (a channel keeps ten "
        "messages); a `websockets` client with its subprotocol `ws+meta.nchan`, which reconnects with `last_event_id` "
        "([`nchan_subscriber_last_message_id`](https://nchan.io/#nchan_subscriber_last_message_id)). Who is there: the "
        "channel's number of subscribers"
    )
    packages = ("websockets",)
    buffer = ""
    url = "ws://127.0.0.1:{port}/sub?id=room"
    publish = members = "/pub?id=room"

    def install(self, cache: Path) -> None:
        super().install(cache)
        folder = cache / self.folder / "debian"
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        wanted = ["libnginx-mod-nchan"] + ([] if nginx else ["nginx"])
        if not (folder / "usr/lib/nginx/modules").exists():
            if not shutil.which("apt-get"):
                raise CannotRun("it needs Debian's nginx and libnginx-mod-nchan")
            folder.mkdir(parents=True, exist_ok=True)
            run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *wanted], cwd=folder)
            for package in folder.glob("*.deb"):
                run(["dpkg", "-x", str(package), str(folder)])  # beside the system, not into it
        self.nginx = nginx or str(folder / "usr/sbin/nginx")
        self.module = folder / "usr/lib/nginx/modules/ngx_nchan_module.so"
        self.package = next(folder.glob("libnginx-mod-nchan_*.deb")).name

    def versions(self) -> str:
        version = self.package.split("_")[1].replace("%3a", ":")
        nginx = subprocess.run([self.nginx, "-v"], capture_output=True, text=True, check=True).stderr.strip()
        return f"nchan {version} (Debian's), {nginx.split(': ')[1]}, {super().versions()}"

    def serve(self, home: Path, port: int, beside: int) -> Command:
        config = (self.files / "nginx.conf").read_text()
        for name, value in (("MODULE", self.module), ("HOME", home), ("PORT", port), ("BUFFER", self.buffer)):
            config = config.replace(name, str(value))
        (home / "nginx.conf").write_text(config)
        return Command([self.nginx, "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")])

    def listen(self, urls: list[str]) -> Command:
        return Command([str(self.python), str(HERE / "listen.py"), "nchan", json.dumps(urls)])

    def count(self, answer: bytes) -> int:
        return int(answer.split(b"active subscribers:")[1].split()[0])


class NchanLonger(Nchan):
    slug = "nchan-longer"
    name = "nginx + nchan, a longer buffer"
    says = (
        "the same, with [`nchan_message_buffer_length 10000`](https://nchan.io/#nchan_message_buffer_length): what "
        "somebody would set who has read on"
    )
    buffer = "nchan_message_buffer_length 10000;"


SYSTEMS: list[System] = [
    Holdfast(),
    PythonSocketIO(),
    SocketIO(),
    DjangoChannels(),
    FastAPI(),
    Nchan(),
    NchanLonger(),
]


# Installing.


def venv(folder: Path, requirements: Path | None, *packages: str) -> Path:
    """Return the Python of an environment in `folder` that has these."""
    wanted = requirements.read_text() if requirements else "\n".join(packages)
    python = folder / "venv" / "bin" / "python"
    if (stamp := folder / "installed").exists() and stamp.read_text() == wanted:
        return python
    run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder / "venv")])
    what = ["-r", str(requirements)] if requirements else list(packages)
    if uv := shutil.which("uv"):
        run([uv, "pip", "install", "--quiet", "--python", str(python), *what])
    else:
        # That of the Python that `.venv` was made of, for there is none in there.
        of_all = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
        run([str(of_all), "-m", "pip", "--python", str(python), "install", "--quiet", *what])
    stamp.write_text(wanted)
    return python


def run(line: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"`{line[0]}` failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")


def said(line: list[str]) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
