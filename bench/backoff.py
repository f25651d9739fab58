"""
Why backoff is exponential and jittered: a crowd against a server that dies, by four rules.

    .venv/bin/python bench/backoff.py [--clients 1000] > docs/backoff.md

Real sockets, a real server: killed with `kill -9`, or, for the last rule, stopped with SIGTERM, which tells everybody
when to come back. Each rule has a server of its own. Times count from the death; a server that is started again is up
when it first answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from holdfast.core.backoff import CEILINGS, FLOOR

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Protocol: holdfast.1\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
#: (number of the attempt, the server's advice in seconds: after, spread) -> delay in seconds.
Rule = Callable[[int, tuple[float, float] | None], float]


def ceiling(attempt: int) -> float:
    return CEILINGS[min(attempt, len(CEILINGS)) - 1]


def jittered(attempt: int) -> float:
    return max(FLOOR, random.uniform(0, ceiling(attempt)))


def advised(attempt: int, advice: tuple[float, float] | None) -> float:
    return jittered(attempt) if advice is None else advice[0] + random.uniform(0, advice[1])


COLUMNS = (
    "rule", "most attempts in 0.1 s", "… once it was up", "wasted attempts per client",
    "half are back after", "99 % are back after",
)  # fmt: skip
RULES: dict[str, tuple[Rule, int]] = {
    "a fixed delay of 1 s": (lambda attempt, advice: 1.0, signal.SIGKILL),
    "exponential: 1, 2, 4 … 30 s": (lambda attempt, advice: ceiling(attempt), signal.SIGKILL),
    "exponential with jitter (ours)": (lambda attempt, advice: jittered(attempt), signal.SIGKILL),
    "… and the server's advice (ours)": (advised, signal.SIGTERM),
}


@dataclass
class Crowd:
    """What a crowd has done since the server died."""

    rule: Rule
    port: int
    died: float = 0.0
    attempts: list[float] = field(default_factory=list)
    wasted: int = 0
    back: list[float] = field(default_factory=list)
    live: int = 0

    async def one(self) -> None:
        attempt = 0
        while True:
            writer = None
            advice = None
            if self.died:
                self.attempts.append(time.monotonic() - self.died)
            try:
                async with asyncio.timeout(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.write(UPGRADE)
                    await reader.readuntil(b'"connected"')
                attempt = 0
                self.live += 1
                if self.died:
                    self.back.append(time.monotonic() - self.died)
                try:
                    advice = await goodbye(reader)
                finally:
                    self.live -= 1
            except (OSError, EOFError, TimeoutError):
                self.wasted += bool(self.died)
            finally:
                if writer is not None:
                    writer.transport.abort()
            attempt += 1
            await asyncio.sleep(self.rule(attempt, advice))


async def goodbye(reader: asyncio.StreamReader) -> tuple[float, float] | None:
    """Stay until the link ends; return what advice there was."""
    heard = b""
    with suppress(OSError):
        while data := await reader.read(65536):
            heard += data
            begin = heard.find(b'{"type":"goodbye"')
            if begin >= 0 and (end := heard.find(b"}", begin)) >= 0:
                fields = json.loads(heard[begin : end + 1])
                return fields["after_ms"] / 1000, fields["spread_ms"] / 1000
    return None


async def measure(name: str, clients: int, down: float) -> str:
    rule, sign = RULES[name]
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-m", "holdfast", "board", "--port", str(port), "--log-level", "error"],
                cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

        server = start()
        crowd = Crowd(rule, port)
        tasks = [asyncio.create_task(crowd.one()) for _ in range(clients)]
        try:
            async with asyncio.timeout(60):
                while crowd.live < clients:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1)
            crowd.died = time.monotonic()
            server.send_signal(sign)
            await asyncio.to_thread(server.wait)
            await asyncio.sleep(max(0.0, down - (time.monotonic() - crowd.died)))
            server = start()
            up = await first_answer(port) - crowd.died
            with suppress(TimeoutError):
                async with asyncio.timeout(90):
                    while crowd.live < clients:
                        await asyncio.sleep(0.05)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server.kill()
            server.wait()
    whole, once_up = peak(crowd.attempts), peak([at for at in crowd.attempts if at >= up])
    back = sorted(crowd.back)
    half, most = (
        f"{back[int(share * clients)] - up:.1f}" if len(back) > share * clients else "–" for share in (0.5, 0.99)
    )
    return f"| {name} | {whole} | {once_up} | {crowd.wasted / clients:.1f} | {half} | {most} |"


async def first_answer(port: int) -> float:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return time.monotonic()
        await asyncio.sleep(0.01)


def peak(times: list[float]) -> int:
    """Return the most attempts in any tenth of a second."""
    return max(Counter(int(10 * at) for at in times).values(), default=0)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a crowd's return, by four rules.")
    parser.add_argument("--clients", type=int, default=1000)
    asked = parser.parse_args()
    print(f"""# Why backoff is exponential and jittered

{asked.clients:,} clients of a server that dies, on real sockets; the same crowd by four rules. Made by
`.venv/bin/python bench/backoff.py --clients {asked.clients}`, Python {platform.python_version()}, on 2 cores.
""")
    for title, down in (("A crash: five seconds until it is started again", 5.0), ("A restart: at once", 0.0)):
        print(f"## {title}\n")
        print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
        for name in RULES:
            print(await measure(name, asked.clients, down), flush=True)
        print()
    print(EXPLANATION)


EXPLANATION = """\
The last two columns are seconds from when the server first answered.

A fixed delay keeps the crowd together: it knocks as one, every second, for as long as it lasts; and so does doubling
without jitter, only less often. A thousand at once is what this server can still take. Ten thousand are not, and then
the next knock finds it busy with those that it has already given up on. Jitter spreads the crowd: the worst tenth of a
second, once the server is up, has a fraction of the attempts. The price is the last few: after a longer outage each
draws a delay below a ceiling that has grown with it, so one in a hundred waits its seconds (or presses "now").

Advice helps where the server can still speak and is soon back, as in a deploy: it knows how large the crowd is and how
long it will be away, and spreads the return over just the time that it needs. Where it stays away for longer than it
said, the crowd is back to its own rule, and has wasted one attempt each.

Advice is not a way to have clients dial: a goodbye that is said again changes nothing, a move that does not succeed is
tried again after 2, 4, 8 … s, and whoever is welcomed and sent on within ten seconds, again and again, waits as after
links that die young. Nobody dials twice within 250 ms, whatever has hurried them.
"""


if __name__ == "__main__":
    asyncio.run(main())
