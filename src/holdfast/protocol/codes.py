"""
Which number ends a connection, and does it say "come back"?

One rule: 40xx is about you, stay away; everything else, come back. The last two
digits of 40xx mirror HTTP 4xx. A code that a client has never heard of is retried,
which is safe because retries back off.
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """The codes that holdfast sends, or understands, on a WebSocket."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005  # never on the wire (RFC 6455 §7.4.1)
    ABNORMAL = 1006  # never on the wire: the link died without a word
    INVALID_DATA = 1007
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_LATER = 1013

    MALFORMED = 4000
    UNAUTHORIZED = 4001
    FORBIDDEN = 4003
    TAKEN_OVER = 4009
    VERSION = 4026

    AUTH_DEADLINE = 4108
    TOO_FAST = 4129

    AWAY = 4900  # from a client


#: Of a control frame of 125 bytes two are the code (RFC 6455 §5.5).
_REASON_BYTES = 123


def close_reason(why: str) -> str:
    """Return as much of a reason as a close frame has room for."""
    return why.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore")


def may_return(code: int) -> bool:
    """Whether a client that was closed with `code` should dial again."""
    return not 4000 <= code < 4100
