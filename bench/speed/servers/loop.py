"""No server: a loop that writes one ready frame to the transport of each who has come; with what tells it when."""

import asyncio
import sys
import time
from urllib.parse import parse_qs, urlsplit

import uvloop

transports = set()


class Peer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        method, target = data.split(maxsplit=2)[:2]
        if method == b"POST":
            asked = {name: float(value) for name, [value] in parse_qs(urlsplit(target.decode()).query).items()}
            self.going = asyncio.ensure_future(self.go(**asked))
        else:
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
            transports.add(self.transport)

    def connection_lost(self, error):
        transports.discard(self.transport)

    async def go(self, rounds, burst, gap, size):
        due = time.monotonic()
        for _ in range(int(rounds)):
            at = time.monotonic_ns()
            for turn in range(int(burst)):
                message = b'{"at":%d,"p":"%s"}' % (at + turn, b"x" * int(size))
                head = b"\x81" + (
                    bytes([len(message)]) if len(message) < 126 else b"\x7e" + len(message).to_bytes(2, "big")
                )
                frame = head + message
                for transport in transports:
                    transport.write(frame)
                await asyncio.sleep(0)
            due += gap
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        self.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()


async def main(port):
    server = await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
