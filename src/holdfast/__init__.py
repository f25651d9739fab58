"""
Real-time rooms for Python that survive disconnects.

`Hub` is the server's side, for any ASGI app; `connect` the client's.
"""

from holdfast.client.client import Client, connect
from holdfast.client.room import Room, Snapshot
from holdfast.core.link import State, Status
from holdfast.core.replica import Item, Resumed, Resync
from holdfast.core.roads import Road
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
