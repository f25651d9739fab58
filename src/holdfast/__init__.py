"""
Real-time rooms for Python that survive disconnects.

`Hub` is the server's side, for any ASGI app; `connect` the client's. Each is loaded when it is first asked for, since
who needs one rarely needs the other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.errors import (
    ChangeFailed,
    Closed,
    ConcurrencyError,
    Conflict,
    Forbidden,
    HoldfastError,
    Invalid,
    Malformed,
    NotFound,
    NotSent,
    OutcomeUnknown,
    Refused,
    StoreError,
    TooLarge,
    TooMany,
    TooSlow,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from holdfast.client.client import Client, connect
    from holdfast.client.room import Room, Snapshot
    from holdfast.core.link import State, Status
    from holdfast.core.replica import Item, Resumed, Resync
    from holdfast.core.roads import Road
    from holdfast.protocol.cursor import Position
    from holdfast.protocol.messages import Event, User
    from holdfast.server.auth import Identity
    from holdfast.server.conversation import Request
    from holdfast.server.hub import Hub
    from holdfast.server.limits import Limits
    from holdfast.server.publication import Publication
    from holdfast.store.store import Once, ReadTransaction, Store, Transaction

__version__ = "0.1.0"

__all__ = [
    "ChangeFailed",
    "Client",
    "Closed",
    "ConcurrencyError",
    "Conflict",
    "Event",
    "Forbidden",
    "HoldfastError",
    "Hub",
    "Identity",
    "Item",
    "Invalid",
    "Limits",
    "Malformed",
    "NotFound",
    "NotSent",
    "Once",
    "OutcomeUnknown",
    "Position",
    "Publication",
    "ReadTransaction",
    "Refused",
    "Request",
    "Resumed",
    "Resync",
    "Road",
    "Room",
    "Snapshot",
    "State",
    "Status",
    "Store",
    "StoreError",
    "TooLarge",
    "TooMany",
    "TooSlow",
    "Transaction",
    "Unauthorized",
    "Unavailable",
    "User",
    "connect",
]

_HOMES = {
    "Client": "holdfast.client.client",
    "connect": "holdfast.client.client",
    "Room": "holdfast.client.room",
    "Snapshot": "holdfast.client.room",
    "State": "holdfast.core.link",
    "Status": "holdfast.core.link",
    "Item": "holdfast.core.replica",
    "Resumed": "holdfast.core.replica",
    "Resync": "holdfast.core.replica",
    "Road": "holdfast.core.roads",
    "Position": "holdfast.protocol.cursor",
    "Event": "holdfast.protocol.messages",
    "User": "holdfast.protocol.messages",
    "Identity": "holdfast.server.auth",
    "Request": "holdfast.server.conversation",
    "Hub": "holdfast.server.hub",
    "Limits": "holdfast.server.limits",
    "Publication": "holdfast.server.publication",
    "Once": "holdfast.store.store",
    "ReadTransaction": "holdfast.store.store",
    "Store": "holdfast.store.store",
    "Transaction": "holdfast.store.store",
}

if not TYPE_CHECKING:  # to a type checker every name would be one

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
