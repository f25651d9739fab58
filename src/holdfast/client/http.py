"""
How is a link held without a WebSocket?

Messages go out as requests, one after the other; what follows is read as `core.reader` says,
as an event stream or by polls, and told as a WebSocket would have told it. Whatever goes wrong,
the link is lost, at once and with a reason; and no answer takes more memory than a message may.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import cache
from urllib.parse import quote

import httpx2
import msgspec
from msgspec import Raw, Struct

from holdfast.client.road import MESSAGE_BYTES, WAITING, Tell, http_url
from holdfast.core import reader
from holdfast.core.link import GREETING_SECONDS, Advised, Heard, Lost, Opened
from holdfast.core.reader import Answer, Ask, How, Reader, ReaderInput
from holdfast.errors import LONGEST_SECONDS, Malformed, Refused
from holdfast.protocol.codec import Codec
from holdfast.protocol.codes import CloseCode
from holdfast.protocol.cursor import MAX_ROOMS
from holdfast.protocol.messages import (
    Connected,
    Error,
    Event,
    Join,
    Leave,
    Ping,
    Pong,
    Problem,
    Reply,
    ServerMessage,
    Sync,
)

logger = logging.getLogger("holdfast.client")

#: For an answer to what was said: longer than a server needs (a change has 5 s). What is not answered is said again on
#: another link, under its key. Else a connection that fell silent would hold all that is said for ever, while what is
#: heard on the other one shows that the link is alive.
ANSWER_SECONDS = 30.0

#: Of what comes with a refusal, more is not read to see which room it is about.
REFUSAL_BYTES = 64 * 1024

#: What a status says about us, or about when to come, and not about the way.
_CODES = {
    401: CloseCode.UNAUTHORIZED,
    403: CloseCode.FORBIDDEN,
    429: CloseCode.TRY_LATER,
    503: CloseCode.TRY_LATER,
}

#: What the server answers to what has no `ref`.
_WORDS = ("connected", "pong", "error")

#: `Retry-After` (RFC 9110 §10.2.3), where it is no date.
_SECONDS = re.compile(r"[0-9]{1,9}")


class _Page(Struct, frozen=True):
    """The answer to a poll."""

    data: list[Raw]
    cursor: str


@cache
def _trusted() -> ssl.SSLContext:
    """Return whose certificates are good: read once, for it takes some 50 ms."""
    return httpx2.create_ssl_context()


class HttpRoad:
    """A link by HTTP: `POST …/send` for what is said, `…/events` or `…/poll` for what is heard."""

    def __init__(self, tell: Tell, reader: Reader) -> None:
        self._tell = tell
        self._reader = reader
        self._codec = Codec()
        self._welcomed = False
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._inbox: asyncio.Queue[tuple[int, ReaderInput | Lost]] = asyncio.Queue(WAITING)
        self._asked = 0  # what is read of an earlier question is passed over
        self._reading: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    async def run(self, url: str, token: str | None) -> None:
        """Tell what is heard until there is nothing more to hear."""
        self._running = asyncio.current_task()
        try:
            lost = await self._hold(url, token)
        except Exception as error:
            lost = _lost(error)
        await self._tell(self, lost)

    async def _hold(self, url: str, token: str | None) -> Lost:
        self._reader.begin()
        self._url = url
        headers = {"Accept-Encoding": "identity"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        # A stream is silent between two heartbeats; the link's watchdog judges it, not this timeout.
        timeout = httpx2.Timeout(GREETING_SECONDS, read=None)
        trust = _trusted() if http_url(url, "").startswith("https") else False
        async with httpx2.AsyncClient(
            headers=headers,
            timeout=timeout,
            trust_env=False,
            verify=trust,
            event_hooks={"response": [_expect_plain]},
        ) as self._http:
            saying = asyncio.create_task(self._say_all())
            try:
                await self._tell(self, Opened())
                return await self._life()
            finally:
                saying.cancel()
                if self._reading is not None:
                    self._reading.cancel()

    def say(self, text: str) -> bool:
        """Send it, after what was said before; False: the server has taken nothing for a long time."""
        message: object = None
        with suppress(Refused):  # the server says what is wrong with it
            message = self._codec.decode(text)
        try:
            match message:
                case Join() | Leave() | Sync():
                    self._inbox.put_nowait((self._asked, message))
                case Ping() if self._reading is not None:
                    self._inbox.put_nowait((self._asked, reader.Again()))
                case Pong():
                    pass
                case _:
                    self._outgoing.put_nowait(text)
        except asyncio.QueueFull:
            return False
        return True

    async def abandon(self, code: int) -> None:
        """Let go of it."""
        if self._running is not None:
            self._running.cancel()

    @property
    def _is_reading(self) -> bool:
        """Whether what is read says if the link is alive; then what is answered says nothing of that."""
        return self._reading is not None

    async def _life(self) -> Lost:
        """Do what the reader says, until the link is lost."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._reader.deadline()):
                    asked, input = await self._inbox.get()
            except TimeoutError:
                effects = self._reader.tick(loop.time())
            else:
                if isinstance(input, Lost):
                    return input
                if isinstance(input, Answer | Error | reader.Barred | reader.Broken) and asked != self._asked:
                    continue
                effects = self._reader.receive(input, loop.time())
            for effect in effects:
                if isinstance(effect, reader.GiveUp):
                    return Lost(CloseCode.ABNORMAL, effect.reason)
                await self._carry(effect)

    async def _carry(self, effect: reader.Tell | Ask) -> None:
        match effect:
            case reader.Tell(message):
                await self._tell(self, message)
            case Ask():
                self._asked += 1
                if self._reading is not None:
                    self._reading.cancel()
                self._reading = asyncio.create_task(self._read(self._asked, effect)) if effect.rooms else None

    # What is said.

    async def _say_all(self) -> None:
        """Say one thing after the other, until one of them is not answered: it is to take effect before the next."""
        lost = None
        try:
            while lost is None:
                lost = await self._say(await self._outgoing.get())
        except Exception as error:
            lost = _lost(error)
        await self._inbox.put((self._asked, lost))

    async def _say(self, text: str) -> Lost | None:
        """Say one thing, and again if it was too much for now; tell what was answered, or return why nothing was."""
        while True:
            response, answer = await self._post(text)
            wait = _retry_after(response)
            if response.status_code != 429 or not self._welcomed or not 0 < wait <= ANSWER_SECONDS:
                return await self._answered(text, response, answer)
            await asyncio.sleep(wait)

    async def _post(self, text: str) -> tuple[httpx2.Response, bytes]:
        url, headers = http_url(self._url, "send"), {"Content-Type": "application/json"}
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            self._http.stream("POST", url, content=text, headers=headers) as response,
        ):
            return response, await _whole(response)

    async def _answered(self, text: str, response: httpx2.Response, answer: bytes) -> Lost | None:
        """Tell what was answered to a message; return why it was not, if nobody has said what became of it."""
        ref, status = msgspec.json.decode(text).get("ref"), response.status_code
        try:
            fields = msgspec.json.decode(answer)
        except ValueError:
            fields = None
        fields = fields if isinstance(fields, dict) else {}
        type = fields.get("type")
        if type in _WORDS if ref is None else (type, fields.get("ref")) == ("reply", ref):
            if type == "connected":
                self._welcome(msgspec.convert(fields, Connected))
            await self._tell(self, self._codec.decode_server(answer) if self._is_reading else answer.decode())
        elif status in _CODES or not self._welcomed:
            return await self._refusal(response)
        elif ref is None and response.is_success:
            if not self._is_reading:
                await self._tell(self, Heard())
        elif ref is None or (400 <= status < 500 and status != 408):
            error = str(fields.get("error", f"HTTP {status}"))
            refused = Problem(error, "refused")
            await self._tell(self, Error(error, "refused") if ref is None else Reply(ref, False, error=refused))
        else:
            return await self._refusal(response)  # somebody else has answered, and does not know what became of it
        return None

    def _welcome(self, connected: Connected) -> None:
        self._welcomed = True
        self._codec = Codec(connected.room_key)
        if isinstance(connected.token, str):  # else each request would be another guest's
            self._http.headers["Authorization"] = f"Bearer {connected.token}"

    # What is heard.

    async def _read(self, asked: int, ask: Ask) -> None:
        """Read the answer to one question."""
        rooms = ",".join(quote(room, safe="") for room in ask.rooms)
        params = {"rooms": rooms} | ({} if ask.cursor is None else {"cursor": ask.cursor})
        is_stream = ask.how is How.STREAM
        params |= {} if is_stream else {"wait": f"{ask.wait:g}"}
        try:
            async for answer in self._stream(ask, params) if is_stream else self._poll(ask, params):
                await self._inbox.put((asked, answer))
        except Exception as error:
            await self._inbox.put((asked, reader.Broken(_lost(error).reason)))

    async def _poll(self, ask: Ask, params: dict[str, str]) -> AsyncIterator[ReaderInput | Lost]:
        async with self._http.stream("GET", http_url(self._url, "poll"), params=params) as response:
            if not response.is_success:
                yield await self._refused(ask, response)
                return
            page = msgspec.json.decode(await _whole(response), type=_Page)
        await self._tell(self, Heard())
        yield Answer(tuple(self._codec.decode_server(bytes(message)) for message in page.data), page.cursor)

    async def _stream(self, ask: Ask, params: dict[str, str]) -> AsyncIterator[ReaderInput | Lost]:
        url = http_url(self._url, "events")
        async with self._http.stream("GET", url, params=params) as response:
            if not response.is_success:
                yield await self._refused(ask, response)
                return
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Tapped(response.stream, self._comment)
            retry, answered = 0.0, False
            messages: list[ServerMessage | Event] = []
            async for event in httpx2.EventSource(response, max_event_size=MESSAGE_BYTES):
                retry = retry if event.retry is None else _bearable(event.retry)
                if event.event != "message":  # not our `connected`, nor an id alone
                    messages.append(self._codec.decode_server(event.data))
                elif refusal := self._refusal_of_room(ask, event.data):
                    yield refusal
                    return
                if event.id:  # of several gaps, only the last one moves on
                    yield Answer(tuple(messages), event.id)
                    messages, answered = [], True
                elif len(messages) > MAX_ROOMS:
                    raise Malformed("more gaps than rooms, and no place to go on from")
            await self._tell(self, Advised(retry, 0.0))
            yield reader.Broken() if answered else Lost(CloseCode.TRY_LATER, "the server takes nobody in now")

    async def _comment(self) -> None:
        """Something has come, if only a comment."""
        await self._tell(self, Heard())

    async def _refused(self, ask: Ask, response: httpx2.Response) -> Lost | Error | reader.Barred:
        with suppress(httpx2.HTTPError, Malformed):  # then its status says all there is
            if refusal := self._refusal_of_room(ask, await _whole(response, REFUSAL_BYTES)):
                await self._tell(self, Heard())
                return refusal
        if response.status_code in _CODES:
            return await self._refusal(response)
        return reader.Barred(f"HTTP {response.status_code}")

    def _refusal_of_room(self, ask: Ask, said: str | bytes) -> Error | None:
        """Return why one of the rooms that were asked for is refused, if that is what is said."""
        try:
            message = self._codec.decode_server(said)
        except Refused:
            return None
        return message if isinstance(message, Error) and message.room in ask.rooms else None

    async def _refusal(self, response: httpx2.Response) -> Lost:
        """Return what a status means, in close codes, after telling when to come back."""
        if seconds := _retry_after(response):
            await self._tell(self, Advised(seconds, seconds))
        return Lost(_CODES.get(response.status_code, CloseCode.ABNORMAL), f"HTTP {response.status_code}")


def _retry_after(response: httpx2.Response) -> float:
    """Return in how many seconds somebody may come back; 0: it is not said."""
    after = response.headers.get("retry-after", "")
    return _bearable(1000 * int(after)) if _SECONDS.fullmatch(after) else 0.0


def _bearable(milliseconds: int) -> float:
    """Return how many seconds somebody is sent away for, by whoever has answered: it may be any proxy."""
    return max(0, min(milliseconds, round(1000 * LONGEST_SECONDS))) / 1000


async def _expect_plain(response: httpx2.Response) -> None:
    """
    Raise, before anything of it is read, if an answer sends us elsewhere, or is compressed.

    What is said is for one server only (a token is said there), and nothing that was asked for can blow up.
    """
    if response.is_redirect:
        raise httpx2.RemoteProtocolError(f"a redirect (HTTP {response.status_code}), and none is followed")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx2.RemoteProtocolError("the answer is compressed, and none was asked for that is")


async def _whole(response: httpx2.Response, most: int = MESSAGE_BYTES) -> bytes:
    """Return all of an answer; raise if it is longer than that."""
    whole = bytearray()
    async for part in response.aiter_raw():
        whole += part
        if len(whole) > most:
            raise Malformed(f"an answer of more than {most} bytes")
    return bytes(whole)


def _lost(error: Exception) -> Lost:
    """Return what becomes of a link when this is raised, whatever it is."""
    match error:
        case TimeoutError():
            reason = f"no answer within {ANSWER_SECONDS:g} s"
        case httpx2.HTTPError():
            reason = str(error) or type(error).__name__
        case Refused() | ValueError() | RecursionError():
            reason = f"the server said something that is not in the protocol: {error}"
        case _:
            logger.error("unexpected failure", exc_info=error)
            reason = repr(error)
    return Lost(CloseCode.ABNORMAL, reason)


class _Tapped(httpx2.AsyncByteStream):
    """A body that tells of its bytes: a comment is a sign of life, and no event."""

    def __init__(self, stream: httpx2.AsyncByteStream, tell: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._tell = tell

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            await self._tell()
            yield part

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()
