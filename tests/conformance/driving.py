"""
The Autobahn cases, which kosoku drives against an echo on our server's class, and against one on our client.

Both echoes are the real code, down to what happens with a message that is complete.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from unittest.mock import patch

import uvicorn
from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver
from kosoku._kosoku import CaseResult
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from holdfast import Hub, Limits
from holdfast.server.native import NativeConnection
from holdfast.server.websocket import WebSocketProtocol

#: Frames, pings, reserved bits, opcodes, fragments, UTF-8, closing, and fragments made by a library: 247 cases.
WORDS = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
#: Messages of up to 16 MiB, in up to 65,536 fragments: 54 cases.
SIZES = ["9.*"]
#: Compression, of different payloads and with different parameters: 216 cases.
COMPRESSION = ["12.*", "13.*"]

#: What the cases about sizes need, and no server of ours allows. Everything else is as it is by default.
ROOMY = Limits(message_bytes=16 * 1024 * 1024, message_fragments=64 * 1024)
#: Where the one limit of the client is: the 4,096 fragments of websockets (WEBSOCKETS_MAX_FRAGMENTS).
CLIENT_FRAGMENTS = "websockets.asyncio.messages.MAX_FRAGMENTS"


class Echo(NativeConnection):
    """A connection that sends back what it is sent, and has nothing to say for itself."""

    __slots__ = ()

    def write(self, wire: bytes, frames: object) -> None:
        """Pass over what the Hub says."""

    def ping(self) -> None:
        """Do not ask whether anybody is there: no case expects it."""

    def received(self, text: str | bytes) -> None:
        """Send a text back."""
        self._echo(Opcode.TEXT, text.encode() if isinstance(text, str) else text)

    def _message(self, opcode: Opcode, data: bytes) -> None:
        if opcode is Opcode.TEXT:
            super()._message(opcode, data)
        else:
            self._echo(opcode, data)

    def _echo(self, opcode: Opcode, data: bytes) -> None:
        self._transport.write(Frame(opcode, data).serialize(mask=False))


@asynccontextmanager
async def echo_server(limits: Limits) -> AsyncIterator[str]:
    """Serve a Hub whose connections are echoes; give its address."""
    lets_in = patch("holdfast.server.door.Door.refusal", return_value=None)  # no case expects to be told to come back
    with lets_in, patch("holdfast.server.gate.NativeConnection", Echo), socket.create_server(("127.0.0.1", 0)) as sock:
        async with Hub("memory:", limits=limits) as hub:
            server = uvicorn.Server(uvicorn.Config(hub.app, ws=WebSocketProtocol, lifespan="off", log_level="warning"))
            serving = asyncio.create_task(server.serve([sock]))
            try:
                yield f"ws://127.0.0.1:{sock.getsockname()[1]}/ws"
            finally:
                server.should_exit = True
                await serving


async def drive_server(url: str, cases: Sequence[str], *, at_once: int = 8) -> list[CaseResult]:
    """Drive cases against a server."""

    async def drive(cases: Sequence[str], at_once: int) -> list[CaseResult]:
        return await run_fuzzingclient(url, cases, concurrency=at_once)

    return await _patiently(drive, cases, at_once)


async def drive_client(
    dial: Callable[[str], connect], cases: Sequence[str], *, but: Sequence[str] = (), at_once: int = 8
) -> list[CaseResult]:
    """Drive cases against an echo that reads from what `dial` gives."""

    async def drive(cases: Sequence[str], at_once: int) -> list[CaseResult]:
        async with run_fuzzingserver(cases, but, port=0) as server:
            await _echo_all(dial, f"ws://{server.address}:{server.port}", at_once)
            return await server.get_result()

    return await _patiently(drive, cases, at_once)


async def _echo_all(dial: Callable[[str], connect], url: str, at_once: int) -> None:
    turns = asyncio.Semaphore(at_once)

    async def echo(case: int) -> None:
        with suppress(ConnectionClosed):
            async with turns, dial(f"{url}/runCase?case={case}&agent=echo") as connection:
                async for message in connection:
                    await connection.send(message)

    async with dial(f"{url}/getCaseCount") as connection:
        count = int(await connection.recv())
    await asyncio.gather(*(echo(case) for case in range(1, count + 1)))
    with suppress(ConnectionClosed):
        async with dial(f"{url}/updateReports?agent=echo") as connection:  # what ends the run
            await connection.recv()


async def _patiently(
    drive: Callable[[Sequence[str], int], Awaitable[list[CaseResult]]], cases: Sequence[str], at_once: int
) -> list[CaseResult]:
    """Drive cases; those that did not get done in the second that they have are driven once more, by themselves."""

    async def results(cases: Sequence[str], at_once: int) -> list[CaseResult]:
        try:
            return await drive(cases, at_once)
        except FailureError as failure:
            return failure.results

    done = await results(cases, at_once)
    deviating = deviations(done)
    late = [result.case_id for result in done if result.case_id in deviating and _ran_out_of_time(result)]
    again = {result.case_id: result for result in await results(late, 1)} if late else {}
    return [again.get(result.case_id, result) for result in done]


def _ran_out_of_time(result: CaseResult) -> bool:
    """Whether a timer of the case's own ended a wait: to go on, to close, to end the connection."""
    return any(entry[0] in {"CTE", "TIE", "KLE"} for entry in result.wirelog)


def verdicts(results: Sequence[CaseResult], of_interest: Callable[[str], bool]) -> dict[str, str]:
    """Return the cases whose verdict is of interest, either on what was exchanged or on how it was closed."""
    both = {result.case_id: (result.behavior.value, result.behavior_close.value) for result in results}
    return {case: " / ".join(pair) for case, pair in both.items() if any(map(of_interest, pair))}


def deviations(results: Sequence[CaseResult]) -> dict[str, str]:
    """Return every case that is not plainly passed, with its verdict; not those that only inform."""
    return verdicts(results, lambda verdict: verdict not in {"OK", "INFORMATIONAL"})


def informational(results: Sequence[CaseResult]) -> list[str]:
    """Return the cases that pass whatever happens, for the standard leaves it open."""
    return list(verdicts(results, lambda verdict: verdict == "INFORMATIONAL"))
