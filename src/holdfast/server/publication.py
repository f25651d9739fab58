"""What does an application see of a publication?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Publication:
    """
    An event that was put into a room's log, and is on the disk.

    Attributes:
        id: Its cursor: whoever joins `since` here is sent what follows it.
    """

    room: str
    type: str
    data: dict[str, Any]
    id: str
