"""
How does a request become values, and a refusal an answer? For routes beside a Hub.

Every refusal is `{"error": "…"}` with its status, on every route, ours and the board's.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.errors import Invalid, Malformed, Refused, TooLarge

T = TypeVar("T")


class Json(Response):
    """A value as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode it."""
        return msgspec.json.encode(content)


async def read_body(request: Request, limit: int) -> bytes:
    """Return a request's body, or raise `TooLarge` as soon as it is."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise TooLarge(f"a request's body is at most {limit} bytes")
    return bytes(body)


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
        raise Invalid(f"{path.rstrip('`')}: {complaint}" if path else complaint) from None


async def refuse(request: Request, error: Exception) -> Response:
    """Answer a request with why it was refused (an exception handler of Starlette)."""
    assert isinstance(error, Refused)
    headers = {"retry-after": "1"} if error.status in (429, 503) else None
    return Json({"error": error.message}, error.status, headers)
