"""
The other side of the wire: servers in processes of their own, and peers that misbehave.
"""

from __future__ import annotations

import asyncio
import base64
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol, State

SRC = Path(__file__).parent.parent / "src"


def free_port() -> int:
    """
    Return a port that is given to nobody else while this process lives, for a server that is told it.

    It stays bound here without listening: the kernel gives it to nobody who asks for any port, nor to a connection
    that goes out, and a server may still listen on it, for servers bind with SO_REUSEADDR.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    holder.detach()  # open for good, and of no test's sockets
    return port


def process_state(pid: int) -> str:
    """Return in which state a process is: T, it is stopped; Z, it has ended, and is not buried."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


#: What a server says first, for tests that are the server.
WELCOME = (
    '{"type":"connected","session":"s","user":{"userId":"u","name":"U"},"roomKey":"room",'
    '"heartbeat":{"interval":30,"timeout":10},"limits":{"messageBytes":1,"rooms":1,"messagesPerSecond":1}}'
)


class Server:
    """
    A `holdfast` command that serves, in a process of its own, which can be killed and started again.

    Attributes:
        address: Where it is dialed.
    """

    address = "127.0.0.1"

    def __init__(self, folder: Path, *command: str, env: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.folder = folder
        self.env = {**os.environ, "PYTHONPATH": str(SRC), **(env or {})}
        self.command = self.command_line(*command)
        self.process: subprocess.Popen[str] | None = None
        self.log = folder / "server.log"

    def command_line(self, *command: str) -> list[str]:
        speed = [] if {"--speed", "--no-speed"} & set(command) else ["--no-speed"]  # what a newcomer has
        return [sys.executable, "-m", "holdfast", *command, *speed, "--port", str(self.port)]

    @property
    def url(self) -> str:
        return f"http://{'localhost' if self.address == '127.0.0.1' else self.address}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        assert self.process is None or self.process.poll() is not None, "it still runs"
        with self.log.open("a") as log:
            said = log.tell()
            self.process = self.spawn(log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                socket.create_connection((self.address, self.port), 1).close()
            except OSError:
                time.sleep(0.02)
                continue
            if self._answers() and self._all_are_ready(said):
                return self
            time.sleep(0.02)
        raise AssertionError(f"it does not answer:\n{self.log.read_text()}")

    def spawn(self, log: IO[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command, cwd=self.folder, env=self.env, stdout=log, stderr=log, text=True)

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"http://{self.address}:{self.port}/", timeout=5, verify=False).status_code < 500
        except httpx2.HTTPError:
            return False

    def _all_are_ready(self, said: int) -> bool:
        return "--workers" not in self.command or " is at http" in self.log.read_text()[said:]

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait until it is gone; return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def freeze(self) -> None:
        """Have it stand still, until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)
        while process_state(self.pid) != "T":
            time.sleep(0)

    def thaw(self) -> None:
        """Let it go on; it has stood still until now."""
        assert process_state(self.pid) == "T"
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    # REST, with a connection for each request, so that nothing is left open.

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        content = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx2.AsyncClient(base_url=self.url, timeout=60, trust_env=False, verify=False) as client:
            return await client.request(method, path, content=content, headers=sent)

    async def get(self, path: str, **headers: str) -> Any:
        return (await self.request("GET", path, **headers)).json()

    async def post(self, path: str, body: Any = None, **headers: str) -> Any:
        response = await self.request("POST", path, body, **headers)
        assert response.is_success, response.text
        return response.json()

    async def patch(self, path: str, body: Any, **headers: str) -> Any:
        response = await self.request("PATCH", path, body, **headers)
        assert response.is_success, response.text
        return response.json()

    async def new_task(self, title: str = "a task", list_id: str = "list-todo") -> Any:
        return (await self.post("/tasks", {"listId": list_id, "title": title}))["data"]

    async def dial(self, path: str = "/ws", **options: Any) -> Peer:
        """Open a WebSocket that answers pings, and knows nothing of holdfast."""
        options.setdefault("ping_interval", None)
        url = self.url.replace("http", "ws", 1) + path
        return Peer(await connect(url, proxy=None, max_size=None, **options))


class Balancer:
    """Sends each connection to one of some servers that can be reached, as a proxy does: bytes in, bytes out."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.turn = 0
        self._carrying: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            await self._carry_on(reader, writer)
        except asyncio.CancelledError:
            pass  # who started this task reports it otherwise
        finally:
            writer.transport.abort()
            self._carrying.discard(task)

    async def _carry_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self.servers:
            self.turn += 1
            try:
                there = await asyncio.open_connection("127.0.0.1", self.servers[self.turn % len(self.servers)].port)
            except OSError:
                continue
            try:
                await asyncio.gather(_pipe(reader, there[1]), _pipe(there[0], writer))
            finally:
                there[1].transport.abort()
            return


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()  # what was written goes out before the link ends


StartBoard = Callable[..., Server]


class Peer:
    """A plain WebSocket client."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[Any] = []

    async def send(self, message: Any) -> None:
        await self.socket.send(message if isinstance(message, str | bytes) else msgspec.json.encode(message).decode())

    async def next(self, seconds: float = 5.0) -> Any:
        """Return what comes next."""
        async with asyncio.timeout(seconds):
            message = msgspec.json.decode(await self.socket.recv())
        self.heard.append(message)
        return message

    async def until(self, type: str, seconds: float = 5.0, where: Callable[[Any], bool] = bool) -> Any:
        """Return the next message of a type; what came before it is in `heard`."""
        async with asyncio.timeout(seconds):
            while True:
                message = await self.next(seconds)
                if message["type"] == type and where(message):
                    return message

    async def silence(self, seconds: float) -> None:
        """Nothing comes for so long."""
        try:
            message = await self.next(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"it was to be silent, and said {message}")

    async def join(self, board: str = "board-1", **more: Any) -> Any:
        await self.send({"type": "join", "boardId": board, **more})
        return await self.until("joined")

    async def closed(self, seconds: float = 5.0) -> int:
        """Wait until it is closed; return the code."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    self.heard.append(msgspec.json.decode(await self.socket.recv()))
                except Exception:
                    await self.socket.wait_closed()
                    code = self.socket.close_code
                    assert code is not None
                    return code

    async def close(self) -> None:
        await self.socket.close()

    def break_off(self) -> None:
        """Cut the link without a word (RST)."""
        sock = self.socket.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()


class RawPeer:
    """A WebSocket by hand, that does only what it is told: it answers no ping, and reads only when asked to."""

    def __init__(
        self, port: int, path: str = "/ws", *, address: str = "127.0.0.1", receive_buffer: int | None = None
    ) -> None:
        self._sock = socket.socket()
        if receive_buffer is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._sock.connect((address, port))
        key = base64.b64encode(os.urandom(16)).decode()
        self._sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            got = self._sock.recv(1)  # a byte at a time: what follows belongs to the frames
            assert got, head
            head += got
        assert b" 101 " in head, head
        self._sock.setblocking(False)
        self._protocol = Protocol(CLIENT, state=State.OPEN, max_size=None)
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        self.send_frame(Frame(Opcode.TEXT, msgspec.json.encode(message)))

    def send_frame(self, frame: Frame) -> None:
        self.send_bytes(frame.serialize(mask=True))

    def send_bytes(self, data: bytes) -> None:
        self._sock.setblocking(True)
        self._sock.sendall(data)
        self._sock.setblocking(False)

    async def drain_answering_pings(self) -> None:
        """Read as fast as it comes, and answer pings, for ever."""
        while True:
            await self._read(1 << 20)
            self.messages.clear()

    async def crawl(self, bytes_a_second: int) -> None:
        """Read, but slowly, for ever."""
        while True:
            await self._read(bytes_a_second // 10)
            await asyncio.sleep(0.1)

    async def messages_until(self, found: Callable[[Any], bool], seconds: float) -> list[Any]:
        """Read until a message is it; return all that ever came."""
        async with asyncio.timeout(seconds):
            while not (self.messages and found(self.messages[-1])):
                await self._read(1 << 20)
        return self.messages

    async def _read(self, size: int) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._sock, size)
        if not data:
            raise EOFError
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self.messages.append(msgspec.json.decode(event.data))
        for answer in self._protocol.data_to_send():
            self.send_bytes(answer)

    async def read_until_closed(self, seconds: float) -> float:
        """Read, but answer nothing, until the server ends it; return after how long it did."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(seconds):
            while True:
                try:
                    data = await loop.sock_recv(self._sock, 65536)
                except ConnectionResetError:
                    break
                if not data:
                    break
        return loop.time() - began

    async def is_cut(self, seconds: float) -> float:
        """Wait, without reading, until the server has ended it; return after how long it had."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(seconds):
            while self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1:  # TCP_ESTABLISHED
                await asyncio.sleep(0.02)
        return loop.time() - began

    def read_slowly(self, size: int, pause: float, seconds: float) -> int:
        """
        Read so much at a time, with pauses, and answer pings when they have come through; return how much it was.

        In a thread of its own: it is to be slow by itself, and not because the test is busy.
        """
        read = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self._sock], [], [], pause)[0]:
                data = self._sock.recv(size)
                assert data, "the server has ended it"
                read += len(data)
                self._protocol.receive_data(data)
                self._protocol.events_received()
                for answer in self._protocol.data_to_send():
                    self.send_bytes(answer)
            time.sleep(pause)
        return read

    def close(self) -> None:
        self._sock.close()
