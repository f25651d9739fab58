"""
What must the database know of the protocol, to refuse in `holdfast_append` what a hub would refuse?
"""

from __future__ import annotations

from functools import cache
from itertools import groupby

import msgspec

from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import RESERVED_TYPES

#: The planes that have characters; what comes later (variation selectors) no name needs.
_END = 0x32000


def words(codec: Codec) -> str:
    """Return it as JSON: reserved types and keys, and a regular expression that names of rooms match."""
    known = {"types": sorted(RESERVED_TYPES), "keys": ["type", "id", codec.room_key], "room": f"^{printable()}*$"}
    return msgspec.json.encode(known).decode()


@cache
def printable() -> str:
    """Return the characters that Python prints, as PostgreSQL's regular expressions say it: it counts others itself."""
    runs = (tuple(run) for is_printed, run in groupby(map(chr, range(_END)), str.isprintable) if is_printed)
    return f"[{''.join(f'{run[0]}-{run[-1]}' for run in runs)}]"
