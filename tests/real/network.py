"""
A network of our own, in which packets are really lost: who can reach whom, and since when no more?

Three network namespaces: clients, a road between, the server. What the road does to packets is nftables'. Nobody but
this process holds them: when it closes them, or is killed, the kernel takes everything back, interfaces, addresses
and rules. Each rule counts what it takes: a fault that has met no packet has not happened. (netem, which would also
delay and reorder, is in few kernels: what delays here is a proxy.)
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

import httpx2
import pytest

from peers import Server

NEW_NETWORK = 0x40000000  # CLONE_NEWNET, unshare(2)
HERE = "/proc/thread-self/ns/net"

CLIENTS, SERVER = "10.77.1.2", "10.77.2.2"
#: Where else clients may be: a phone that leaves its WiFi has another address.
ELSEWHERE = "10.77.1.3"

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


class Namespace:
    """A network with nothing in it but a loopback."""

    def __init__(self) -> None:
        before = os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("unshare", NEW_NETWORK)
            self._held = os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)
            _call("setns", before, NEW_NETWORK)
        finally:
            os.close(before)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in it: what this thread opens meanwhile, and the processes that it starts, are."""
        before = os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self._held, NEW_NETWORK)
            try:
                yield
            finally:
                _call("setns", before, NEW_NETWORK)
        finally:
            os.close(before)

    def run(self, *command: str, says: str = "") -> str:
        """Run a command in it; return what it says. Only where it may not, it is a `PermissionError`."""
        with self.entered():
            done = subprocess.run(command, input=says, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            error = PermissionError if os.strerror(errno.EPERM) in done.stderr else RuntimeError
            raise error(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    @property
    def path(self) -> str:
        """How other programs of this machine name it."""
        return f"/proc/{os.getpid()}/fd/{self._held}"

    def close(self) -> None:
        os.close(self._held)


class Network:
    """Clients, a road, and a server."""

    def __init__(self) -> None:
        self._namespaces: list[Namespace] = []

    def __enter__(self) -> Self:
        try:
            self._namespaces = [Namespace(), Namespace(), Namespace()]
            self.clients, self.road, self.server = self._namespaces
            self._connect()
            self.restore()  # so that it is known now whether there may be rules
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._namespaces:
            self._namespaces.pop().close()

    def _connect(self) -> None:
        ends = ((self.clients, "near", CLIENTS), (self.server, "far", SERVER))
        links = [f"link add {name} type veth peer name end netns {side.path}" for side, name, _ in ends]
        for _, name, address in ends:
            links += [f"addr add {address[:-1]}1/24 dev {name}", f"link set {name} up"]
        self.road.run("ip", "-batch", "-", says="\n".join(links))
        with self.road.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for side, _, address in ends:
            lines = ["link set lo up", f"addr add {address}/24 dev end", "link set end up"]
            side.run("ip", "-batch", "-", says="\n".join([*lines, f"route add default via {address[:-1]}1"]))

    # What the road does.

    def restore(self) -> int:
        """Let everything pass; return how many packets have not."""
        return self._rule("")

    def cut(self) -> None:
        """Let nothing pass, and tell nobody."""
        self._rule("counter drop")

    def cut_to_server(self) -> None:
        """Let nothing pass that clients send."""
        self._rule('iifname "near" counter drop')

    def cut_to_clients(self) -> None:
        """Let nothing pass that the server sends."""
        self._rule('iifname "far" counter drop')

    def cut_ports(self, ports: Iterable[int]) -> None:
        """Let nothing pass of the clients' links that begin at these ports."""
        some = ", ".join(map(str, ports))
        self._rule(f"tcp sport {{ {some} }} counter drop\ntcp dport {{ {some} }} counter drop")

    def cut_large(self) -> None:
        """Let nothing pass that is large, either way."""
        self._rule("meta length > 1000 counter drop")

    def lose(self, share: float) -> None:
        """Lose so many of the packets."""
        self._rule(f"{_some(share)} counter drop")

    def reset(self, share: float = 1.0) -> None:
        """Answer so many of the packets with a reset: one end of the link is told that it is over, the other is not."""
        self._rule(f"{_some(share)} meta l4proto tcp counter reject with tcp reset")

    def _rule(self, rule: str) -> int:
        """Have this rule; return how many packets the one before has taken."""
        before = self.road.run("nft", "list", "ruleset")
        self.road.run(
            "nft", "-f", "-",
            says="add table ip faults\ndelete table ip faults\ntable ip faults {\nchain road {\n"
            f"type filter hook forward priority 0; policy accept;\n{rule}\n}}\n}}\n",
        )  # fmt: skip
        return sum(map(int, re.findall(r"counter packets (\d+)", before)))

    def move_clients(self) -> None:
        """Give clients another address; the one that they had is nobody's from now on."""
        moves = [f"addr del {CLIENTS}/24 dev end", f"addr add {ELSEWHERE}/24 dev end"]
        self.clients.run("ip", "-batch", "-", says="\n".join([*moves, f"route replace default via {CLIENTS[:-1]}1"]))


def _some(share: float) -> str:
    return "" if share >= 1 else f"numgen random mod 1000 < {round(1000 * share)}"


class FarServer(Server):
    """A server at the other end of a network."""

    address = SERVER

    def __init__(self, network: Network, folder: Path, *command: str, env: dict[str, str] | None = None) -> None:
        self.network = network
        super().__init__(folder, *command, "--host", "0.0.0.0", env=env)

    def spawn(self, log: IO[str]) -> subprocess.Popen[str]:
        with self.network.server.entered():
            return super().spawn(log)

    def ask(self, path: str, method: str = "GET", content: str = "") -> httpx2.Response:
        """Ask it from where it is, whatever the road does."""
        with self.network.server.entered(), httpx2.Client(trust_env=False, timeout=90) as client:
            return client.request(method, f"http://127.0.0.1:{self.port}{path}", content=content)


@contextmanager
def network() -> Iterator[Network]:
    """Be among the clients of a network; where there cannot be one, the test is skipped, and says why."""
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no network of our own here (no {program})")
    net = Network()
    try:
        net.__enter__()
    except PermissionError as why:
        pytest.skip(f"there is no network of our own here ({why})")
    with net, net.clients.entered():
        yield net
