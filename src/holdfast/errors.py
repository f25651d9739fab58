"""
What can go wrong, and who can act.

::

    HoldfastError
    ├── Refused                 the request was understood and the answer is no; ask differently
    │   ├── Malformed      400    not what the protocol or the route reads at all
    │   ├── Unauthorized   401    say who you are (again)
    │   ├── Forbidden      403    you may not; asking again will not help
    │   ├── NotFound       404    there is no such thing
    │   ├── Conflict       409    the thing is not in the state you think
    │   ├── TooSlow        408    it did not arrive in time
    │   ├── TooLarge       413    more than a limit allows
    │   ├── Invalid        422    readable, but a field is wrong; the message names it
    │   ├── TooMany        429    slower, please
    │   └── Unavailable    503    not now; come back
    ├── StoreError              the store cannot do what it promises; an operator must act
    │   └── ChangeFailed        one change broke a rule of `hub.write`; its author must act
    ├── NotSent                 a command that was given to a client never left it; give it again
    ├── OutcomeUnknown          it did, and nobody can say any more what came of it; look before you give it again
    ├── Closed                  a client or hub is closed for good; make a new one
    └── ConcurrencyError        two tasks read one room at once; let one read, and give the other what it reads

A network that comes and goes is not an error: it is a status that one can watch.
"""

from __future__ import annotations

from typing import ClassVar

#: Nobody is sent away for longer by one word, and a heartbeat that is slower notices nothing.
LONGEST_SECONDS = 3600.0


class HoldfastError(Exception):
    """Everything that this library raises on purpose."""


class Refused(HoldfastError):
    """
    The request was understood, and refused; nothing was changed.

    `status` is the HTTP status that says the same, `code` one word for programs,
    and `str(error)` a sentence for people.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "refused"
    is_final: ClassVar[bool] = True  # else the same may be taken later, also under the same key

    def __init__(self, message: str, *, field: str | None = None) -> None:
        self.message = str(message).encode(errors="replace").decode()  # half a surrogate pair is on no wire
        super().__init__(self.message)
        self.field = field


class Malformed(Refused):
    """What was sent cannot be read."""

    status, code = 400, "malformed"


class Unauthorized(Refused):
    """Nobody knows who is asking."""

    status, code = 401, "unauthorized"


class Forbidden(Refused):
    """Whoever asks may not."""

    status, code = 403, "forbidden"


class NotFound(Refused):
    """There is no such room, task, board …"""

    status, code = 404, "not_found"


class Conflict(Refused):
    """The thing is not in the state that the request assumes."""

    status, code = 409, "conflict"


class TooLarge(Refused):
    """More than a limit allows; the message names the limit."""

    status, code = 413, "too_large"


class Invalid(Refused):
    """A field is wrong; the message names it."""

    status, code = 422, "invalid"


class TooSlow(Refused):
    """The request took too long to arrive; the message names the limit."""

    status, code, is_final = 408, "too_slow", False


class TooMany(Refused):
    """Too often; the message names the rate."""

    status, code, is_final = 429, "too_many", False


class Unavailable(Refused):
    """Not now: the server is starting, draining, or full. Come back `after` so many seconds, at most an hour."""

    status, code, is_final = 503, "unavailable", False

    def __init__(self, message: str, *, field: str | None = None, after: float = 1.0) -> None:
        super().__init__(message, field=field)
        if not after >= 0:
            raise ValueError(f"after is a number of seconds, 0 or more, and not {after!r}")
        self.after = min(after, LONGEST_SECONDS)


def refusal_called(code: str) -> type[Refused]:
    """Return the class of a refusal that was stored or transmitted: one of ours, an application's own, or `Refused`."""
    classes = [Refused]
    for known in classes:
        if known.code == code:
            return known
        classes += known.__subclasses__()
    return Refused


class StoreError(HoldfastError):
    """The store cannot keep its promise; nothing was acknowledged."""


class ChangeFailed(StoreError):
    """A change broke a rule of `hub.write`; it was rolled back."""


class NotSent(HoldfastError):
    """A command was never sent, and never will be: nothing has happened."""


class OutcomeUnknown(HoldfastError):
    """A command was sent, and what it came to can no longer be learned: look at what there is."""

    code: ClassVar[str] = "outcome_unknown"


class Closed(HoldfastError):
    """This client or hub has ended for good; `code` is the close code, where there is one."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ConcurrencyError(HoldfastError):
    """Somebody else reads this room already: each would be given what the other then misses."""
