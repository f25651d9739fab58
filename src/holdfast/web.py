"""
How does a request become values, and a refusal an answer? For routes beside a Hub.

Every refusal is `{"error": "…"}` with its status, on every route, ours and the board's; where several rooms are asked
for, it also names the one that is refused, in the words of a WebSocket.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.errors import Invalid, Malformed, OutcomeUnknown, Refused, TooLarge, TooSlow, Unavailable

T = TypeVar("T")


#: Of an answer, so much is on its way at a time.
PART_BYTES = 64 * 1024


class Json(Response):
    """A value as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode it; what is JSON already (bytes) is sent as it is."""
        return content if isinstance(content, bytes) else msgspec.json.encode(content)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI), a part at a time: whoever does not read makes nobody else pay for it in memory."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = bytes(self.body)
        for start in range(0, max(1, len(body)), PART_BYTES):
            part, is_last = body[start : start + PART_BYTES], start + PART_BYTES >= len(body)
            await send({"type": "http.response.body", "body": part, "more_body": not is_last})


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return a request's body, or raise `TooLarge` or `TooSlow` as soon as it is."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise TooLarge(f"a request's body is at most {limit} bytes")
    except TimeoutError:
        raise TooSlow(f"a request's body arrives within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise Malformed("the request ended before its body did") from None
    return bytes(body)


def find_cookie(request: HTTPConnection, name: str) -> str | None:
    """
    Return a cookie, as it came: what is in quotes is not unquoted.

    To unquote them takes Python time that grows with their square (CVE-2024-7592), whoever has given them.
    """
    for part in ";".join(request.headers.getlist("cookie")).split(";"):
        given, _, value = part.strip().partition("=")
        if given == name and value:
            return value
    return None


def decode_body(body: bytes) -> dict[str, Any]:
    """Return a body that is a JSON object, or raise `Malformed`."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise Malformed(f"Invalid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Malformed("Invalid JSON: a body is an object")
    return fields


def convert(fields: dict[str, Any], type: type[T]) -> T:
    """Return the fields as a value of `type`, or raise `Invalid` with the name of the field that is wrong."""
    try:
        return msgspec.convert(fields, type)
    except msgspec.ValidationError as error:
        # "Expected `str`, got `int` - at `$.title`"
        complaint, _, path = str(error).partition(" - at `$.")
        complaint, how, _ = complaint.partition(" matching regex ")
        complaint += " of another form" if how else ""  # which is in the description of the type; the rest is for us
        raise Invalid(f"{path.rstrip('`')}: {complaint}" if path else complaint) from None


async def not_found(request: Request, error: Exception) -> Response:
    """Answer a request for nothing that there is (an exception handler of Starlette)."""
    return Json({"error": f"there is nothing at {request.url.path[:200]}"}, 404)


async def not_allowed(request: Request, error: Exception) -> Response:
    """Answer a request with a method that is not possible there (an exception handler of Starlette)."""
    return Json({"error": f"{request.method} is not possible here"}, 405)


async def failed(request: Request, error: Exception) -> Response:
    """Answer a request that met with a mistake of ours (an exception handler of Starlette)."""
    said = refusal_of(request) or {"error": "something went wrong on the server"}
    return Json(said, 500, {"connection": "close"})  # the server will: what goes on by this connection is lost


#: What goes with a refusal: that the rest of a request is not waited for; and when to come back.
_HEADERS = {
    408: {"connection": "close"},
    413: {"connection": "close"},
    429: {"retry-after": "1"},
}


async def refuse(request: Request, error: Exception) -> Response:
    """Answer a request with why it was refused (an exception handler of Starlette)."""
    assert isinstance(error, Refused)
    headers = _HEADERS.get(error.status, {})
    if isinstance(error, Unavailable):
        headers = {"retry-after": str(max(1, math.ceil(error.after)))}  # 0 is not said
    return Json(refusal_of(request) or {"error": error.message}, error.status, headers)


def refusal_of(request: HTTPConnection) -> bytes | None:
    """Return what a WebSocket would say of the room because of which a request is refused, if it is one of several."""
    refusal: bytes | None = getattr(request.state, "holdfast_refusal", None)
    return refusal


async def unknown(request: Request, error: Exception) -> Response:
    """Answer a request of which nobody can say what it came to (an exception handler of Starlette)."""
    return Json({"error": str(error)}, 500)


#: For `Starlette(exception_handlers=REFUSALS)`: whatever goes wrong is said in one form.
REFUSALS: Any = {Refused: refuse, OutcomeUnknown: unknown, 404: not_found, 405: not_allowed, 500: failed}
