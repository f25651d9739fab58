"""
Which frame is told at a glance?

One that came whole and alone, as nearly all do: the empty pong of whoever only listens, and a small text. Between two
messages they need no engine to read them in steps.
"""

from __future__ import annotations

from websockets.frames import Opcode

try:  # in C; what is in Python takes twenty times as long
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

# The first two bytes of a frame from a client (RFC 6455 §5.2): whether it is the last of its message, and of what kind;
# that it is masked, and how long it is, if it is no longer than this. Four bytes of a mask follow.
_FIN, _MASKED, _LONGEST = 0x80, 0x80, 125
_EMPTY_PONG = bytes((_FIN | Opcode.PONG, _MASKED))
_TEXT = _FIN | Opcode.TEXT


def is_pong(data: bytes) -> bool:
    """Whether this is an empty pong, and nothing else."""
    return len(data) == 6 and data[:2] == _EMPTY_PONG


def whole_text(data: bytes) -> bytes | None:
    """Return the text that this is, if it is a small one, and nothing else."""
    size = len(data) - 6
    if 0 < size <= _LONGEST and data[0] == _TEXT and data[1] == _MASKED | size:
        return apply_mask(data[6:], data[2:6])
    return None
