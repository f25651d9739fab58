"""Over TLS, where something is kept below what a connection sees: who only reads slowly is spared there, too."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvicorn
import uvloop
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol, State

from holdfast import Hub
from holdfast.server.conversation import Request
from holdfast.server.websocket import WebSocketProtocol

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate")

INTERVAL, TIMEOUT = 1.0, 1.0
#: How much is read at a time, how often in a second, and for how long: what is kept below takes several timeouts.
SIP, SIPS, SECONDS = 2048, 10, 10
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate of `localhost` and its key."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    done = subprocess.run([*line, "-keyout", "-", "-out", "-"], capture_output=True, check=True)
    file.write_bytes(done.stdout)
    return file


def read_slowly(port: int) -> int:
    """Ask for much and read it slowly, answering pings when they have come; return how much of it came."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    read = 0
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        plain.settimeout(INTERVAL + TIMEOUT + 5)
        plain.connect(("127.0.0.1", port))
        with trusting.wrap_socket(plain) as peer:
            peer.sendall(UPGRADE)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += peer.recv(1)  # what follows belongs to the frames
            protocol = Protocol(CLIENT, state=State.OPEN, max_size=None)
            peer.sendall(Frame(Opcode.TEXT, b'{"type":"big","ref":1}').serialize(mask=True))
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                data = peer.recv(SIP)
                assert data, f"the server has ended it after {read} bytes"
                read += len(data)
                protocol.receive_data(data)
                protocol.events_received()
                for answer in protocol.data_to_send():
                    peer.sendall(answer)
                time.sleep(1 / SIPS)
    return read


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_who_reads_slowly_stays(certificate: Path, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def serve() -> int:
        hub = Hub("memory:", heartbeat_interval=INTERVAL, heartbeat_timeout=TIMEOUT)

        @hub.on("big")
        async def big(request: Request) -> str:
            return 400_000 * "x"

        with socket.create_server(("127.0.0.1", 0)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # of those who come, too: the rest waits above
            async with hub:
                config = uvicorn.Config(
                    hub.app, ws=WebSocketProtocol, lifespan="off", log_level="warning", ssl_certfile=certificate
                )
                server = uvicorn.Server(config)
                serving = asyncio.create_task(server.serve([sock]))
                try:
                    return await asyncio.to_thread(read_slowly, sock.getsockname()[1])
                finally:
                    server.should_exit = True
                    await serving

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(serve()) > 0.7 * SIP * SIPS * SECONDS
